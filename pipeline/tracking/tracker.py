"""Tracker: the interface through which a stage logs to W&B; its failures never stop the stage."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.nested import flatten
from pipeline.store.artifacts import Artifact, Store
from pipeline.tracking.lineage import HOSTED_TYPES, hosted_artifact, hosted_name, sources
from pipeline.tracking.run_directories import Story

log = logging.getLogger(__name__)

#: The x axis of values logged with a step; the callback of transformers uses the same name.
STEP = "train/global_step"


class Tracker:
    """Log to a W&B run. No method raises: the first failure is logged as a warning and ends the logging."""

    def __init__(self, run: Any | None, *, texts: bool = False, address: str | None = None) -> None:
        """`run` is a W&B run, or None to disable logging; `texts`: texts of the data may be uploaded.

        `address` is that of the run's page on W&B's server, if the run is uploaded while it is recorded.
        """
        self._run = run
        self._texts = texts
        self._address = address
        self._uses: list[str] = []
        self._made: str | None = None

    @property
    def active(self) -> bool:
        """Whether logging is active."""
        return self._run is not None

    @property
    def address(self) -> str | None:
        """Address of the run's page on W&B's server; None if the run is not uploaded or logging has ended."""
        return self._address if self.active else None

    @property
    def texts(self) -> bool:
        """Whether texts of the data may be logged."""
        return self._texts and self.active

    def log(self, values: Mapping[str, float], step: int | None = None) -> None:
        """Add a point to the curves; `step` counts optimizer steps."""
        # Log the step as a value: W&B drops points whose own step is out of order.
        point = dict(values) if step is None else {**values, STEP: step}
        self.attempt(lambda run: run.log(point))

    def summary(self, figures: Mapping[str, Any]) -> None:
        """Set summary metrics of the run; nested metrics are named by their path (`test/accuracy/value`)."""
        flat = flatten(figures, separator="/")
        scalars = {path: value for path, value in flat.items() if isinstance(value, str | bool | int | float)}
        self.attempt(lambda run: run.summary.update(scalars))

    def image(self, name: str, path: Path) -> None:
        """Add a picture."""

        def add(run: Any) -> None:
            import wandb

            run.log({name: wandb.Image(str(path))})

        self.attempt(add)

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Add a table."""

        def add(run: Any) -> None:
            import wandb

            run.log(
                {name: wandb.Table(columns=list(columns), data=[list(row) for row in rows], allow_mixed_types=True)}
            )

        self.attempt(add)

    def page(self, name: str, html: str) -> None:
        """Add an HTML page, given as text."""

        def add(run: Any) -> None:
            import wandb

            run.log({name: wandb.Html(html, inject=False, data_is_not_path=True)})

        self.attempt(add)

    def uses(self, inputs: Mapping[str, Artifact]) -> None:
        """Record the inputs of the run: their refs in its config, and their nearest ancestors that W&B knows."""

        def add(run: Any) -> None:
            run.config.update({"made_from": {name: item.ref for name, item in inputs.items()}})
            self._uses = list(dict.fromkeys([*self._uses, *sources(inputs.values())]))

        self.attempt(add)

    def makes(self, artifact: Artifact) -> None:
        """Record the output of the run: its ref, and a W&B artifact if it is a data set or a release."""

        def add(run: Any) -> None:
            run.summary.update({"made": artifact.ref})
            if artifact.manifest.kind in HOSTED_TYPES:
                run.log_artifact(hosted_artifact(artifact, texts=self._texts), aliases=[hosted_name(artifact.ref)[1]])
                self._made = artifact.ref

        self.attempt(add)

    def story(self, stage: str, store: Store, *, crowns: bool) -> Story:
        """Return the recorded lineage."""
        return Story(
            stage=stage,
            store=store.uri,
            texts=self._texts,
            uses=tuple(self._uses),
            made=self._made,
            crowns=crowns,
        )

    def trainer_callbacks(self) -> list[Any]:
        """Return the W&B callback of transformers, whose errors cannot stop the training, for `Trainer(callbacks=...)`.

        Use it with `report_to="none"`: the callback that `report_to="wandb"` adds raises when W&B's
        process dies.
        """
        callbacks: list[Any] = []
        self.attempt(lambda run: callbacks.append(_guarded_callback(self)))
        return callbacks

    def attempt(self, action: Callable[[Any], Any]) -> None:
        """Call `action` with W&B's run if logging is active; an exception ends the logging."""
        if self._run is None:
            return
        try:
            action(self._run)
        except Exception as error:  # noqa: BLE001 - no error of W&B may stop the stage
            self._run = None
            warn("stopped logging", error)


def warn(what: str, error: Exception) -> None:
    """Log that W&B failed and the stage continues."""
    log.warning("Weights & Biases: %s (%s: %s); the stage continues without it", what, type(error).__name__, error)


def _guarded_callback(tracker: Tracker) -> Any:
    from transformers.integrations.integration_utils import WandbCallback

    class Guarded(WandbCallback):
        """The callback of transformers, with every event called through the tracker."""

        def __getattribute__(self, name: str) -> Any:
            found = super().__getattribute__(name)
            if not name.startswith("on_"):
                return found
            return lambda *args, **kwargs: tracker.attempt(lambda run: found(*args, **kwargs))

    return Guarded()  # type: ignore[no-untyped-call]
