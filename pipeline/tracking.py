"""Weights & Biases: one run a stage, offline without a key, and never in the way of the stage itself."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import httpx

from pipeline.job import Job, keep_libraries_home

log = logging.getLogger(__name__)

PROJECT = "saebyeok"
#: The x axis of everything logged with a step; transformers' own callback uses the same name.
STEP = "train/global_step"
#: Seconds to find out whether the server answers at all, to start a run, and to upload what is left of it.
REACH_TIMEOUT, INIT_TIMEOUT, FINISH_TIMEOUT = 3.0, 20.0, 60.0

Mode = Literal["online", "offline", "disabled"]


class Tracker:
    """What a stage logs to. No method raises: the first failure is one warning, then all is quiet."""

    def __init__(self, run: Any | None) -> None:
        """`run` is a W&B run, or None to log nowhere."""
        self._run = run

    @property
    def active(self) -> bool:
        """Whether what is logged still goes anywhere."""
        return self._run is not None

    def log(self, values: Mapping[str, float], step: int | None = None) -> None:
        """Add a point to the curves; `step` counts optimizer steps."""
        # As a value and not as W&B's own step, which drops what comes out of order.
        point = dict(values) if step is None else {**values, STEP: step}
        self._attempt(lambda run: run.log(point))

    def summary(self, figures: Mapping[str, Any]) -> None:
        """Set figures of the whole run; nested ones are named by their path (`test/accuracy/value`)."""
        self._attempt(lambda run: run.summary.update(dict(_flat(figures))))

    def image(self, name: str, path: Path) -> None:
        """Add a picture."""

        def add(run: Any) -> None:
            import wandb

            run.log({name: wandb.Image(str(path))})

        self._attempt(add)

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Add a table."""

        def add(run: Any) -> None:
            import wandb

            run.log({name: wandb.Table(columns=list(columns), data=[list(row) for row in rows])})

        self._attempt(add)

    def trainer_callbacks(self) -> list[Any]:
        """The W&B callback of transformers, unable to fail the training; for `Trainer(callbacks=...)`.

        Use it with `report_to="none"`: the callback that `report_to="wandb"` adds raises when W&B's
        process dies.
        """
        callbacks: list[Any] = []
        self._attempt(lambda run: callbacks.append(_guarded_callback(self)))
        return callbacks

    def _attempt(self, action: Callable[[Any], Any]) -> None:
        if self._run is None:
            return
        try:
            action(self._run)
        except Exception as error:  # noqa: BLE001 - whatever W&B raises, the stage goes on
            self._run = None
            _warn("stopped logging", error)


@contextmanager
def tracked(job: Job, stage: str, config: Mapping[str, Any]) -> Iterator[Tracker]:
    """One W&B run around a stage: `<recipe>-<stage>`, grouped by the job's run.

    The run is W&B's active one inside the block. It is always finished, as failed where the stage
    raised; the stage's exception passes through unchanged. Nothing of W&B raises from here.
    """
    run = _start(job, stage, config)
    tracker = Tracker(run)
    exit_code = 1
    try:
        yield tracker
        exit_code = 0
    finally:
        _finish(run, exit_code, quiet=not tracker.active)


def choose_mode(environment: Mapping[str, str]) -> Mode:
    """Online only with a key, unless WANDB_MODE says otherwise, and only where the server answers.

    Decided before W&B starts: an online start that fails blocks for long and spoils a later offline one.
    """
    wanted = environment.get("WANDB_MODE", "")
    if wanted == "disabled":
        return "disabled"
    if not environment.get("WANDB_API_KEY") or wanted in ("offline", "dryrun"):
        return "offline"
    return "online" if _server_answers(environment) else "offline"


def _server_answers(environment: Mapping[str, str]) -> bool:
    import wandb

    address = environment.get("WANDB_BASE_URL") or wandb.Settings().base_url
    try:
        httpx.head(address, timeout=REACH_TIMEOUT)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        log.warning(
            "Weights & Biases at %s does not answer (%s); this run is recorded offline, `wandb sync` uploads it later",
            address,
            error,
        )
        return False
    return True


def _start(job: Job, stage: str, config: Mapping[str, Any]) -> Any | None:
    keep_libraries_home(job.settings)
    directory = job.settings.home / "wandb"
    try:
        mode = choose_mode(os.environ)
        if mode == "disabled":
            return None
        # W&B would fall back to the system's temporary directory, outside SAEBYEOK_HOME.
        directory.mkdir(parents=True, exist_ok=True)
        if not os.access(directory, os.R_OK | os.W_OK):
            raise PermissionError(f"{directory} cannot be written")
        return _init(job, stage, config, directory, mode)
    except Exception as error:  # noqa: BLE001 - whatever W&B raises, the stage goes on
        _warn("not started", error)
        _tear_down()
        return None


def _init(job: Job, stage: str, config: Mapping[str, Any], directory: Path, mode: Mode) -> Any:
    import wandb

    recipe = job.recipe
    return wandb.init(
        project=os.environ.get("WANDB_PROJECT", PROJECT),
        name=f"{recipe.name}-{stage}",
        group=job.run,
        job_type=stage,
        tags=[recipe.name, recipe.profile, *(["sample"] if recipe.sample else [])],
        config=dict(config),
        dir=str(directory),
        mode=mode,
        reinit="finish_previous",
        settings=wandb.Settings(
            console="off",
            silent=True,
            disable_git=True,
            save_code=False,
            x_save_requirements=False,
            x_disable_machine_info=True,
            # Curves of the GPU's load are worth a thread only where somebody can look at them.
            x_disable_stats=mode != "online",
            init_timeout=INIT_TIMEOUT,
            finish_timeout=FINISH_TIMEOUT,
        ),
    )


def _finish(run: Any | None, exit_code: int, *, quiet: bool) -> None:
    if run is None:
        return
    try:
        run.finish(exit_code=exit_code)
    except Exception as error:  # noqa: BLE001 - as above
        if not quiet:
            _warn("not finished", error)
    _tear_down()


def _tear_down() -> None:
    """End W&B's process: the next stage starts clean, and none outlives this one."""
    try:
        import wandb

        wandb.teardown()
    except Exception as error:  # noqa: BLE001 - as above
        log.debug("W&B's process had gone: %s", error)


def _guarded_callback(tracker: Tracker) -> Any:
    from transformers.integrations.integration_utils import WandbCallback

    class Guarded(WandbCallback):
        """The callback of transformers, each of whose events goes through the tracker."""

        def __getattribute__(self, name: str) -> Any:
            found = super().__getattribute__(name)
            if not name.startswith("on_"):
                return found
            return lambda *args, **kwargs: tracker._attempt(lambda run: found(*args, **kwargs))

    return Guarded()  # type: ignore[no-untyped-call]


def _flat(figures: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in figures.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{above}{name}/")
        elif isinstance(value, str | bool | int | float):
            yield f"{above}{name}", value


def _warn(what: str, error: Exception) -> None:
    log.warning("Weights & Biases: %s (%s: %s); the stage goes on without it", what, type(error).__name__, error)
