"""The deploy token."""

from __future__ import annotations

import stat

import pytest

from pipeline.errors import SettingsError
from pipeline.settings import Settings, load_settings
from serving.auth import deploy_token, is_authorized


def test_a_token_is_made_once_and_for_its_owner_only(settings: Settings) -> None:
    token = deploy_token(settings)
    assert len(token) >= 32
    assert deploy_token(settings) == token
    assert stat.S_IMODE(settings.deploy_token_file.stat().st_mode) == 0o600


def test_the_environment_wins_and_nothing_is_written(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAEBYEOK_DEPLOY_TOKEN", "from-the-environment")
    chosen = load_settings()
    assert deploy_token(chosen) == "from-the-environment"
    assert not chosen.deploy_token_file.exists()


def test_an_empty_file_is_an_error_not_an_open_door(settings: Settings) -> None:
    settings.home.mkdir(parents=True)
    settings.deploy_token_file.write_text("\n")
    with pytest.raises(SettingsError, match="empty"):
        deploy_token(settings)


@pytest.mark.parametrize(
    ("header", "allowed"),
    [
        ("Bearer secret", True),
        ("bearer secret", True),
        ("Bearer secre", False),
        ("Bearer secret2", False),
        ("Bearer ", False),
        ("Basic secret", False),
        ("secret", False),
        ("Bearer 비밀", False),
        ("", False),
        (None, False),
    ],
)
def test_only_the_whole_token_opens(header: str | None, allowed: bool) -> None:
    assert is_authorized(header, "secret") is allowed
