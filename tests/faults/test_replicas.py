"""Three replicas of the service through many deployments and rollbacks."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.replicas import running_replicas, swap
from tests.support.tiny_releases import TinyModel

pytestmark = pytest.mark.faults


@pytest.mark.usefixtures("no_bentos")
def test_twenty_deployments_and_five_rollbacks_in_a_row(
    tmp_path: Path, light: TinyModel, record_property: pytest.RecordProperty
) -> None:
    with running_replicas(tmp_path, 3) as (deployer, services):
        swap(deployer, services, light, deployments=1, rollbacks=0)
        answers = swap(deployer, services, light, deployments=20, rollbacks=5)
        assert {answer.status for answer in answers} == {200}
        assert {answer.release for answer in answers} <= {f"nsmc-{number:016x}" for number in range(20)}
        record_property("note", f"{len(answers)} answers")
