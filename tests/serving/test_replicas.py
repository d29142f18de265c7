"""Two real replicas of the service: deployed to together, and one of them killed and started again."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from pipeline.job import open_store
from tests.support.deploying import put
from tests.support.replicas import check, kill, running_replicas, swap
from tests.support.running_service import eventually
from tests.support.tiny_releases import TinyModel

pytestmark = [pytest.mark.server, pytest.mark.usefixtures("no_bentos"), pytest.mark.slow]


def test_replicas_move_together_and_a_killed_one_catches_up(
    tmp_path: Path, light: TinyModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.store.replicas.LEASE", 3.0)
    with running_replicas(tmp_path, 2) as (deployer, services):
        answers = swap(deployer, services, light, deployments=2, rollbacks=0)
        # Before the first deployment, the service answers 503.
        releases = {answer.release for answer in answers if answer.status != 503}
        assert releases <= {f"nsmc-{number:016x}" for number in range(2)}
        assert {answer.status for answer in answers} <= {200, 503}
        first, second = services
        pinned = first.client.pinned(release="nsmc-" + "0" * 15 + "1", deployment=2)
        assert pinned.classify(["가"]).release == "nsmc-" + "0" * 15 + "1"
        kill(second)
        third = put(deployer, light.publish(open_store(deployer), "nsmc", key="c" * 16))
        check([first], third)
        second.start()
        eventually("it is ready", lambda: second.client.is_live() and second.client.is_ready())
        check([second], third)
        answer = httpx.post(f"{second.settings.service_url}/classify", json={"texts": ["가"]})
        assert (answer.headers["X-Saebyeok-Deployment"], answer.json()["release"]) == ("3", "nsmc-" + "c" * 16)
