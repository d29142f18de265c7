"""The real service for tests: `python -m serving` (or a Bento) as a process on a free port."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.config_file import ROOT
from pipeline.deployment.service_client import ServiceClient
from pipeline.job import open_store
from pipeline.settings import Settings, load_settings
from pipeline.store.deployments import DeploymentLog
from serving.api.auth import deploy_token

if TYPE_CHECKING:
    from pipeline.store.artifacts import Artifact
    from tests.support.tiny_releases import TinyModel

#: Recipe of a tiny model by its head; other heads belong to `klue-sts`.
RECIPES = {"classify": "nsmc", "classify-pairs": "same", "score": "stars"}
#: Timeout in seconds; generous, because the machine may be busy.
DEADLINE = 120.0


def free_port() -> int:
    """Return a free loopback port."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def free_url() -> str:
    """Return a loopback URL where nothing listens."""
    return f"http://127.0.0.1:{free_port()}"


def service_settings(home: Path) -> Settings:
    """Return settings with a separate home and a free port."""
    return load_settings().model_copy(update={"home": home, "service_url": free_url()})


def eventually(what: str, done: Callable[[], object], pause: float = 0.05) -> None:
    """Wait until `done()` is true; `pause` is in seconds."""
    deadline = time.monotonic() + DEADLINE
    while not done():
        assert time.monotonic() < deadline, f"never happened: {what}"
        time.sleep(pause)


class Service:
    """One running service; `settings` are the client's."""

    def __init__(
        self,
        settings: Settings,
        command: list[str] | None = None,
        env: dict[str, str] | None = None,
        cwd: Path = ROOT,
    ) -> None:
        self.settings = settings
        self.log = settings.home / "service.log"
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self.command = command or [sys.executable, "-m", "serving"]
        self.environment = {
            **os.environ,
            "SAEBYEOK_HOME": str(settings.home),
            "SAEBYEOK_SERVICE_URL": settings.service_url,
            **(env or {}),
        }
        self.cwd = cwd
        self.start()

    def start(self) -> None:
        """Start the service, also after a stop."""
        self.client = ServiceClient(self.settings.service_url, deploy_token(self.settings))
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                self.command,
                cwd=self.cwd,
                env=self.environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait_live(self, workers: int = 2) -> None:
        """Wait until every worker has started."""

        def live() -> bool:
            assert self.process.poll() is None, self.log.read_text()
            return self.client.is_live() and len(self.pids()) == workers

        eventually("the service is live", live)

    def pids(self) -> set[int]:
        """Return the workers' process ids."""
        return {worker.pid for worker in self.client.releases().workers}

    @contextmanager
    def deployed(self, *releases: Artifact) -> Iterator[None]:
        """Deploy `releases` in addition on every worker during the block, then restore the previous ones."""
        log = DeploymentLog(open_store(self.settings))

        def serve(live: dict[str, str], after: int) -> None:
            log.append(live, after=after, run="test", reason="for a test")
            eventually(
                "every worker serves it",
                lambda: all(worker.deployment == after + 1 for worker in self.client.releases().workers),
            )

        before = log.latest()
        assert before is not None
        serve(before.releases | {release.manifest.recipe: release.ref for release in releases}, before.number)
        try:
            yield
        finally:
            serve(before.releases, before.number + 1)

    def stop(self) -> int:
        """Stop the service with SIGTERM; return the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(DEADLINE)
        finally:
            self.client.__exit__()
            if self.process.poll() is None:
                os.killpg(self.process.pid, signal.SIGKILL)


@contextmanager
def serving(home: Path, env: dict[str, str], *models: TinyModel) -> Iterator[Service]:
    """Yield a new service with a live release of each model, for its recipe in RECIPES."""
    settings = service_settings(home)
    store = open_store(settings)
    recipes = {RECIPES.get(model.head, "klue-sts"): model for model in models}
    refs = {recipe: model.publish(store, recipe, key=recipe[0] * 16).ref for recipe, model in recipes.items()}
    DeploymentLog(store).append(refs, after=0, run="test", reason="test")
    service = Service(settings, env=env)
    try:
        service.wait_live(int(env.get("SAEBYEOK_WORKERS", settings.workers)))
        eventually(
            "every worker is ready", lambda: all(worker.deployment == 1 for worker in service.client.releases().workers)
        )
        yield service
    finally:
        assert service.stop() == 0


def model_files(home: Path) -> list[Path]:
    """Return the files of the machine's model store."""
    return [path for path in (home / "bentoml" / "models").rglob("*") if path.is_file()]
