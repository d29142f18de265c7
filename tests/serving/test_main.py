"""The start command."""

from __future__ import annotations

import pytest

from pipeline.errors import SettingsError
from pipeline.settings import Settings
from serving.__main__ import command


def test_host_and_port_come_from_the_service_url(settings: Settings) -> None:
    usual = settings.model_copy(update={"service_url": Settings.model_fields["service_url"].default})
    assert command(usual)[-4:] == ["--host", "127.0.0.1", "--port", "3000"]
    other = settings.model_copy(update={"service_url": "http://localhost:3999/"})
    assert command(other)[-4:] == ["--host", "127.0.0.1", "--port", "3999"]


@pytest.mark.parametrize("url", ["http://127.0.0.1", "https://host:1", "http://host:port", "3000", ""])
def test_another_url_is_a_sentence(url: str, settings: Settings) -> None:
    with pytest.raises(SettingsError, match="SAEBYEOK_SERVICE_URL"):
        command(settings.model_copy(update={"service_url": url}))
