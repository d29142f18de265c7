"""kill -9 before and after each step of a deployment or a rollback.

Users get the old or the new release, never a mix, and a retry completes the command.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipeline.store.artifacts import Artifact, Store
from pipeline.store.deployments import Deployment, DeploymentLog
from tests.support.cli import Place
from tests.support.deploying import hammering, put
from tests.support.killed import Commands, Moment, commands
from tests.support.running_service import Service, eventually, serving
from tests.support.tiny_releases import TinyModel, make_decision

pytestmark = pytest.mark.faults

STAGE = "pipeline.deployment.service_client:ServiceClient.stage"
VERDICTS = "pipeline.deployment.deployer:Deployer._judge"
RECORD = "pipeline.store.deployments:DeploymentLog.append"
#: Steps after the record.
LATE = (
    "pipeline.deployment.deployer:Deployer._verify_live",
    "pipeline.deployment.replicas:Replicas.unstage",
    "pipeline.deployment.deployer:ensure_bento",
    "pipeline.deployment.deployer:forget_outdated",
)
MOMENTS: tuple[Moment, ...] = ("before", "after")
#: Folders below HOME in which commands write before a file is complete.
DRAFTS = ("store/.drafts", "cache/store/drafts", "cache/bento", "bentoml/tmp")


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, light: TinyModel) -> Iterator[Service]:
    """A service of two workers with one deployment."""
    with serving(tmp_path_factory.mktemp("steps") / "home", {"SAEBYEOK_WORKERS": "2"}, light) as service:
        yield service


@pytest.fixture(scope="module")
def place(service: Service) -> Place:
    return Place(service.settings.home, SAEBYEOK_SERVICE_URL=service.settings.service_url)


@pytest.fixture(scope="module")
def running(place: Place) -> Iterator[Commands]:
    with commands(place) as running:
        yield running


@dataclass(frozen=True)
class Kill:
    """A kill before or after a step of the command; `recorded` tells whether the new deployment is live by then."""

    moment: Moment
    step: str
    recorded: bool

    def __str__(self) -> str:
        return f"{self.moment} {re.split(r'[.:]', self.step)[-1]}"


def kills(*early: str) -> list[Kill]:
    """Return the kills at each step; `early` are the steps before the record."""
    record = [Kill("before", RECORD, recorded=False), Kill("after", RECORD, recorded=True)]
    others = [Kill(moment, step, step in LATE) for step in (*early, *LATE) for moment in MOMENTS]
    return [*others, *record]


@pytest.mark.parametrize("kill", kills(STAGE), ids=str)
def test_retry_completes_a_killed_deployment(
    place: Place, running: Commands, service: Service, kill: Kill, light: TinyModel
) -> None:
    release = next_release(place.store, light)
    decision = make_decision(place.store, release, newest(place).releases["nsmc"])
    command = ("deploy", "nsmc", "--input", release.ref, "--input", decision.ref)
    check_swap(place, running, service, kill, command, release.ref)


@pytest.mark.usefixtures("no_bentos")
@pytest.mark.parametrize("kill", kills(STAGE, VERDICTS), ids=str)
def test_retry_completes_a_killed_rollback(
    place: Place, running: Commands, service: Service, kill: Kill, light: TinyModel
) -> None:
    earlier = newest(place).releases["nsmc"]
    put(service.settings, next_release(place.store, light))
    check_swap(place, running, service, kill, ("rollback", "--run", f"by hand, {kill}"), earlier)


def newest(place: Place) -> Deployment:
    found = DeploymentLog(place.store).latest()
    assert found is not None
    return found


def next_release(store: Store, model: TinyModel) -> Artifact:
    return model.publish(store, "nsmc", key=f"{len(store.refs('release', 'nsmc')):016x}")


def check_swap(
    place: Place, running: Commands, service: Service, kill: Kill, command: Sequence[str], wanted: str
) -> None:
    """Kill the command, then repeat it: it makes the release at `wanted` live, exactly once."""
    before = newest(place)
    old, new = (f"nsmc-{ref.split('/')[2]}" for ref in (before.releases["nsmc"], wanted))
    with hammering(service.settings.service_url, threads=1, pause=0.05) as seen:
        assert running.run(command, kill.step, kill.moment) == -signal.SIGKILL
        assert newest(place).number == before.number + kill.recorded
        assert running.run(command) == 0, place.log.read_text("utf-8")
        done = len(seen) + 1
        eventually("the client is answered", lambda: len(seen) > done + 5)
    after = newest(place)
    assert (after.number, after.releases) == (before.number + 1, {"nsmc": wanted})
    assert {answer.status for answer in seen} == {200}
    assert {answer.release for answer in seen} <= {old, new}
    assert {answer.release for answer in seen[done:]} == {new}
    assert service.client.releases().staged == []
    assert leftovers(place.home) == []


def leftovers(home: Path) -> list[Path]:
    """Return the drafts and temporary files below HOME."""
    drafts = [path for folder in DRAFTS for path in (home / folder).glob("*")]
    return [*drafts, *(path for path in (home / "service").rglob(".*"))]
