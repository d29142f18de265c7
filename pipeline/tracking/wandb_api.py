"""The Weights & Biases server: its availability, and the artifacts of one project."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any

import httpx

from pipeline.errors import SettingsError, TrackingError
from pipeline.http_requests import certificates
from pipeline.texts import without_secrets
from pipeline.tracking.lineage import CHAMPION

log = logging.getLogger(__name__)

PROJECT = "saebyeok"
#: Timeouts in seconds: for the check whether the server answers, and for one request.
REACH_TIMEOUT, REQUEST_TIMEOUT = 3.0, 20.0
#: Number of retries, and the longest pause between two attempts in seconds.
RETRIES, PAUSE = 3, 5.0


def bounds() -> dict[str, Any]:
    """Return settings of W&B that limit retries and timeouts."""
    names = ("graphql", "file_stream", "file_transfer")
    tries = {f"x_{name}_retry_max": RETRIES for name in names}
    pauses = {f"x_{name}_retry_wait_max_seconds": PAUSE for name in names}
    # No timeout for file transfers: files may be large, and the parent limits the upload process.
    times = {f"x_{name}_timeout_seconds": REQUEST_TIMEOUT for name in names[:2]}
    return tries | pauses | times | {"x_graphql_retry_wait_min_seconds": min(1.0, PAUSE)}


def find_account(environment: Mapping[str, str]) -> str:
    """Return the W&B entity of the API key, determined in one request to the server.

    Raises SettingsError without a key, TrackingError if the server does not answer in time or refuses the key.
    """
    key = environment.get("WANDB_API_KEY")
    if not key:
        raise SettingsError("WANDB_API_KEY is not set; set it to your Weights & Biases API key")
    address = find_address(environment)
    place = f"Weights & Biases at {without_secrets(address)}"
    try:
        answer = _within(REACH_TIMEOUT, lambda: _ask_viewer(address, key))
        refused = answer.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN)
        viewer = None if refused else (answer.raise_for_status().json().get("data") or {}).get("viewer")
    except (httpx.HTTPError, httpx.InvalidURL, TimeoutError, ValueError, AttributeError) as error:
        reason = without_secrets(str(error).partition("\n")[0]) or type(error).__name__
        raise TrackingError(f"{place} gave no valid answer ({reason}); check WANDB_BASE_URL and the network") from error
    if not viewer:
        raise TrackingError(
            f"{place} rejects the key in WANDB_API_KEY (HTTP {answer.status_code}); set it to a valid key"
        )
    return environment.get("WANDB_ENTITY") or str(viewer["entity"])


def _ask_viewer(address: str, key: str) -> httpx.Response:
    document = {"query": "query Viewer { viewer { id entity } }", "operationName": "Viewer"}
    url, auth = f"{address}/graphql", ("api", key)
    return httpx.post(url, json=document, auth=auth, timeout=REACH_TIMEOUT, verify=certificates())


def _within(seconds: float, ask: Callable[[], httpx.Response]) -> httpx.Response:
    """Return the result of `ask`. Raises its exception, and TimeoutError after `seconds`."""
    answer: Future[httpx.Response] = Future()

    def run() -> None:
        try:
            answer.set_result(ask())
        except Exception as error:  # noqa: BLE001 - raised in the waiting thread
            answer.set_exception(error)

    # httpx limits each read but neither name lookup nor the whole response: one byte per second would never end.
    threading.Thread(target=run, daemon=True).start()
    try:
        return answer.result(seconds)
    except TimeoutError:
        raise TimeoutError(f"timed out after {seconds:g} s") from None


def find_address(environment: Mapping[str, str]) -> str:
    """Return the server's base URL. Raises TrackingError if W&B is not installed."""
    if address := environment.get("WANDB_BASE_URL"):
        return address.rstrip("/")
    try:
        import wandb
    except ImportError as error:
        raise TrackingError("wandb is not installed; install Saebyeok's extra `train`") from error
    return wandb.Settings().base_url.rstrip("/")


def find_project(environment: Mapping[str, str]) -> str:
    """Return the W&B project for all runs."""
    return environment.get("WANDB_PROJECT") or PROJECT


def tear_down() -> None:
    """End W&B's process, so that the next run starts clean and no process is left over."""
    try:
        import wandb

        wandb.teardown()
    except Exception as error:  # noqa: BLE001 - on any error of W&B there is nothing left to end
        log.debug("W&B's process had already ended: %s", error)


class Hosted:
    """Artifacts of one project on the server; every call makes a few requests, each with a timeout.

    Methods raise W&B's own errors, which have many types and informative texts.
    """

    def __init__(self, entity: str, project: str, registry: str = "") -> None:
        """Connect with the API key from the environment. Champions are also linked to `registry`, if it is named."""
        import wandb

        wandb.setup(settings=wandb.Settings(silent=True, **bounds()))
        self._place = f"{entity}/{project}"
        self._registry = registry
        self._api = wandb.Api(overrides={"entity": entity, "project": project}, timeout=round(REQUEST_TIMEOUT))

    def aliases(self, kind: str, name: str) -> set[str]:
        """Return every alias in a collection of W&B's type `kind`; empty if there is no such collection."""
        try:
            versions = list(self._api.artifacts(kind, f"{self._place}/{name}", per_page=100))
        except ValueError:  # the server answered that there is no such collection
            return set()
        return {item for version in versions for item in version.aliases}

    def use(self, run: str, name: str, alias: str) -> bool:
        """Declare an artifact as an input of the run with id `run`; return False if the artifact does not exist.

        Idempotent.
        """
        artifact = f"{self._place}/{name}:{alias}"
        if not self._api.artifact_exists(artifact):
            return False
        self._api.run(f"{self._place}/{run}").use_artifact(self._api.artifact(artifact))
        return True

    def crown(self, name: str, alias: str | None) -> bool:
        """Move the alias `champion` to the version with `alias` (None: remove it); return whether it moved.

        With a registry, that version is also linked to the registry's collection `name`, and is the champion there.
        Raises TrackingError if the registry refuses, as it does for an alias that is protected from this account.
        """
        after = None if alias is None else self._api.artifact(f"{self._place}/{name}:{alias}")
        moved = self._move(f"{self._place}/{name}", after, _take)
        return (self._registry != "" and self._crown_in_registry(name, after)) or moved

    def _crown_in_registry(self, name: str, after: Any | None) -> bool:
        collection = f"wandb-registry-{self._registry}/{name}"
        try:
            return self._move(collection, after, lambda version: version.link(collection, aliases=[CHAMPION]))
        except Exception as error:
            reason = " ".join(str(error).split())
            raise TrackingError(
                f"the alias {CHAMPION} of {name} was not moved in the registry {self._registry} ({reason}); if it is "
                "protected there, give the API key's account the role of a registry admin, then run `saebyeok sync`"
            ) from error

    def _move(self, collection: str, after: Any | None, take: Callable[[Any], object]) -> bool:
        """Make `after` the champion of a collection by `take`, or nothing; return False if it already is."""
        holder = f"{collection}:{CHAMPION}"
        before = self._api.artifact(holder) if self._api.artifact_exists(holder) else None
        if (before and before.id) == (after and after.id):
            return False
        if after is not None:
            # The server removes the alias from the other version: it is unique within a collection.
            take(after)
        elif before is not None:
            before.aliases.remove(CHAMPION)
            before.save()
        return True


def _take(version: Any) -> None:
    version.aliases.append(CHAMPION)
    version.save()
