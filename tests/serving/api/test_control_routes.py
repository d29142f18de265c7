"""Errors of the routes about releases."""

from __future__ import annotations

from contextlib import closing

import pytest
from starlette.testclient import TestClient

from pipeline.settings import Settings, load_settings
from pipeline.store.artifacts import Store
from serving.api.control_routes import Live, control_app
from serving.api.errors import ApiError
from serving.deployed.follower import Follower, LogSource
from serving.engine.engine import EngineOptions
from serving.schemas import ErrorType


@pytest.mark.parametrize("add", [True, False])
def test_staging_that_cannot_be_written_says_why(settings: Settings, store: Store, add: bool) -> None:
    (settings.home / "service" / "staged.json").mkdir(parents=True)
    with (
        closing(Follower(LogSource(settings, store), EngineOptions())) as follower,
        pytest.raises(ApiError, match="cannot be written: Is a directory; check the disk with SAEBYEOK_HOME") as caught,
    ):
        Live(follower, "", ()).stage("release/nsmc/0123456789abcdef/1", add=add)
    assert caught.value.kind is ErrorType.INTERNAL


def test_unexpected_error_has_the_form_of_all_errors() -> None:
    app = control_app(load_settings(), {})
    app.state.live = None
    answer = TestClient(app, raise_server_exceptions=False).get("/releases")
    assert (answer.status_code, answer.json()["error"]["type"]) == (500, "internal")
