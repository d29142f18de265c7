"""The Weights & Biases server: whether it answers, and the artifacts that it has of one project."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any

import httpx

from pipeline.errors import SettingsError, TrackingError
from pipeline.tracking.lineage import CHAMPION

log = logging.getLogger(__name__)

PROJECT = "saebyeok"
#: Seconds to find out whether the server answers at all, and for one request to it.
REACH_TIMEOUT, REQUEST_TIMEOUT = 3.0, 20.0
#: Tries after a first one that failed, and the longest pause between two, in seconds.
RETRIES, PAUSE = 3, 5.0


def bounds() -> dict[str, Any]:
    """Settings of W&B under which no request is tried for ever."""
    names = ("graphql", "file_stream", "file_transfer")
    tries = {f"x_{name}_retry_max": RETRIES for name in names}
    pauses = {f"x_{name}_retry_wait_max_seconds": PAUSE for name in names}
    # A file may be large: what bounds its upload is the patience of whoever waits for the process that does it.
    times = {f"x_{name}_timeout_seconds": REQUEST_TIMEOUT for name in names[:2]}
    return tries | pauses | times | {"x_graphql_retry_wait_min_seconds": min(1.0, PAUSE)}


def find_account(environment: Mapping[str, str]) -> str:
    """The entity that runs are sent to, asked of the server in one request.

    Raises SettingsError without a key, TrackingError where nothing answers in time or the key is refused.
    """
    key = environment.get("WANDB_API_KEY")
    if not key:
        raise SettingsError("WANDB_API_KEY is not set; it says who sends runs to Weights & Biases")
    address = find_address(environment)
    try:
        answer = _within(REACH_TIMEOUT, lambda: _ask_viewer(address, key))
        refused = answer.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN)
        viewer = None if refused else (answer.raise_for_status().json().get("data") or {}).get("viewer")
    except (httpx.HTTPError, httpx.InvalidURL, TimeoutError, ValueError, AttributeError) as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise TrackingError(f"Weights & Biases at {address} does not answer as it must ({reason})") from error
    if not viewer:
        raise TrackingError(f"Weights & Biases at {address} refuses this WANDB_API_KEY ({answer.status_code})")
    return environment.get("WANDB_ENTITY") or str(viewer["entity"])


def _ask_viewer(address: str, key: str) -> httpx.Response:
    document = {"query": "query Viewer { viewer { id entity } }", "operationName": "Viewer"}
    return httpx.post(f"{address}/graphql", json=document, auth=("api", key), timeout=REACH_TIMEOUT)


def _within(seconds: float, ask: Callable[[], httpx.Response]) -> httpx.Response:
    """Return what `ask` returns. Raises what it raises, and TimeoutError after `seconds`."""
    answer: Future[httpx.Response] = Future()

    def run() -> None:
        try:
            answer.set_result(ask())
        except Exception as error:  # noqa: BLE001 - raised where the answer is waited for
            answer.set_exception(error)

    # httpx bounds each read and no name lookup: an answer of a byte a second would never end.
    threading.Thread(target=run, daemon=True).start()
    try:
        return answer.result(seconds)
    except TimeoutError:
        raise TimeoutError(f"timed out after {seconds:g} s") from None


def find_address(environment: Mapping[str, str]) -> str:
    """The server's base URL. Raises TrackingError where W&B is not installed."""
    if address := environment.get("WANDB_BASE_URL"):
        return address.rstrip("/")
    try:
        import wandb
    except ImportError as error:
        raise TrackingError("wandb is not installed here; it comes with Saebyeok's extra `train`") from error
    return wandb.Settings().base_url.rstrip("/")


def find_project(environment: Mapping[str, str]) -> str:
    """The project that runs are sent to."""
    return environment.get("WANDB_PROJECT") or PROJECT


def tear_down() -> None:
    """End W&B's process: what comes next in this one starts clean, and none outlives it."""
    try:
        import wandb

        wandb.teardown()
    except Exception as error:  # noqa: BLE001 - whatever W&B raises, there is nothing left to end
        log.debug("W&B's process had gone: %s", error)


class Hosted:
    """Artifacts of one project at the server; every call is a few requests, each of bounded time.

    Calls raise what W&B raises: errors of many kinds, whose text says what is wrong.
    """

    def __init__(self, entity: str, project: str) -> None:
        """Connects, with the key of the environment."""
        import wandb

        wandb.setup(settings=wandb.Settings(silent=True, **bounds()))
        self._place = f"{entity}/{project}"
        self._api = wandb.Api(overrides={"entity": entity, "project": project}, timeout=round(REQUEST_TIMEOUT))

    def aliases(self, kind: str, name: str) -> set[str]:
        """Every alias in a collection of W&B's type `kind`; empty where there is no such collection."""
        try:
            versions = list(self._api.artifacts(kind, f"{self._place}/{name}", per_page=100))
        except ValueError:  # the server answered, and with nothing
            return set()
        return {item for version in versions for item in version.aliases}

    def use(self, run: str, name: str, alias: str) -> bool:
        """Say that the run of this id was made from an artifact; False where there is no such artifact.

        Saying it again changes nothing.
        """
        artifact = f"{self._place}/{name}:{alias}"
        if not self._api.artifact_exists(artifact):
            return False
        self._api.run(f"{self._place}/{run}").use_artifact(self._api.artifact(artifact))
        return True

    def crown(self, name: str, alias: str | None) -> bool:
        """Move the alias `champion` in a collection to the version of `alias` (None: to none); whether it moved."""
        holder = f"{self._place}/{name}:{CHAMPION}"
        before = self._api.artifact(holder) if self._api.artifact_exists(holder) else None
        if before is not None and alias in before.aliases:
            return False
        if alias is not None:
            after = self._api.artifact(f"{self._place}/{name}:{alias}")
            # In a collection the server lets one version have it, and takes it from the other.
            after.aliases.append(CHAMPION)
            after.save()
        elif before is not None:
            before.aliases.remove(CHAMPION)
            before.save()
        return alias is not None or before is not None
