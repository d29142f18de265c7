"""The start command."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.config_file import ROOT
from pipeline.errors import SettingsError
from pipeline.settings import Settings
from serving.__main__ import command


def test_host_and_port_come_from_the_service_url(settings: Settings) -> None:
    usual = settings.model_copy(update={"service_url": Settings.model_fields["service_url"].default})
    assert command(usual)[-4:] == ["--host", "127.0.0.1", "--port", "3000"]
    other = settings.model_copy(update={"service_url": "http://localhost:3999/"})
    assert command(other)[-4:] == ["--host", "127.0.0.1", "--port", "3999"]


@pytest.mark.parametrize("url", ["http://127.0.0.1", "https://host:1", "http://me:s3cret@host"])
def test_url_without_an_address_to_bind_is_a_sentence(url: str, settings: Settings) -> None:
    with pytest.raises(SettingsError, match="SAEBYEOK_SERVICE_URL") as caught:
        command(settings.model_copy(update={"service_url": url}))
    assert "s3cret" not in str(caught.value)


@pytest.mark.server
@pytest.mark.parametrize(("name", "value"), [("API_KEYS", "too-short"), ("DEPLOY_TOKEN", "a\nb"), ("THREADS", "many")])
def test_bentoml_ends_with_one_line_if_a_setting_is_invalid(tmp_path: Path, name: str, value: str) -> None:
    """BentoML restarts a worker that fails, so a setting that only a worker reads would be tried for ever."""
    env = {**os.environ, "SAEBYEOK_HOME": str(tmp_path), f"SAEBYEOK_{name}": value, "BENTOML_DO_NOT_TRACK": "True"}
    serve = [sys.executable, "-m", "bentoml", "serve", "serving.service:Saebyeok", "--working-dir", str(ROOT)]
    ended = subprocess.run([*serve, "--port", "1"], env=env, capture_output=True, text=True, timeout=100, check=False)
    assert ended.returncode == 1
    *_, last = ended.stderr.strip().splitlines()
    assert last.startswith(f"error: SAEBYEOK_{name}")
    assert "Traceback" not in ended.stderr
