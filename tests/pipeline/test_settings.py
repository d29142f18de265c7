"""Settings: read once, absolute, and wrong ones named by their variable."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.config_file import ROOT
from pipeline.errors import SettingsError
from pipeline.settings import Settings, library_environment, load_settings
from pipeline.stack.preflight import text_setting
from tests.support.urls import MALFORMED


def test_everything_is_below_home_unless_said_otherwise(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SAEBYEOK_HOME", str(tmp_path))
    settings = load_settings()
    assert settings.store_uri == str(tmp_path / "store")
    assert settings.deploy_token_file == tmp_path / "deploy.token"
    assert settings.data is None


def test_the_default_home_is_in_the_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SAEBYEOK_HOME")
    assert load_settings().home == ROOT / ".saebyeok"


def test_an_empty_variable_is_an_absent_one(monkeypatch: pytest.MonkeyPatch) -> None:
    # `make up DATA=` exports an empty SAEBYEOK_DATA, which must not mean the current directory.
    for name in ("DATA", "STORE", "PROFILE", "DEPLOY_TOKEN", "THREADS"):
        monkeypatch.setenv(f"SAEBYEOK_{name}", "")
    settings = load_settings()
    assert settings.data is None
    assert settings.deploy_token is None
    assert settings.store_uri == str(settings.home / "store")
    assert (settings.profile, settings.threads) == ("embedded", 0)


def test_relative_paths_become_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("HOME", "STORE", "DATA", "EXPECTATIONS"):
        monkeypatch.setenv(f"SAEBYEOK_{name}", f"some/{name.lower()}")
    settings = load_settings()
    assert settings.home == tmp_path / "some" / "home"
    assert settings.store_uri == str(tmp_path / "some" / "store")
    assert settings.data == tmp_path / "some" / "data"
    assert settings.expectations == tmp_path / "some" / "expectations"
    monkeypatch.setenv("SAEBYEOK_RECIPES", f"one: {tmp_path}/two:")
    assert load_settings().recipes == f"{tmp_path}/one:{tmp_path}/two"


def test_a_bucket_stays_as_it_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAEBYEOK_STORE", "s3://models/nightly")
    assert load_settings().store_uri == "s3://models/nightly"


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        ("THREADS", "many", "valid integer"),
        ("THREADS", "-1", "greater than or equal to 0"),
        ("SERVICE_URL", "box", "http"),
    ],
)
def test_a_wrong_value_is_named_with_its_variable(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, rule: str
) -> None:
    monkeypatch.setenv(f"SAEBYEOK_{name}", value)
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert f"SAEBYEOK_{name}" in str(caught.value)
    assert rule in str(caught.value)
    assert repr(value) in str(caught.value)


def test_the_token_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAEBYEOK_DEPLOY_TOKEN", "very-secret")
    settings = load_settings()
    assert "very-secret" not in repr(settings)
    assert settings.deploy_token is not None
    assert settings.deploy_token.get_secret_value() == "very-secret"


def test_surrounding_white_space_is_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    written = {"DEPLOY_TOKEN": "a-token\n", "SERVICE_URL": " http://box:3000/\r\n", "THREADS": "2\n", "SOURCE": "hub "}
    for name, value in written.items():
        monkeypatch.setenv(f"SAEBYEOK_{name}", value)
    monkeypatch.setenv("SAEBYEOK_API_KEYS", "\n")
    settings = load_settings()
    assert settings.deploy_token is not None
    assert settings.deploy_token.get_secret_value() == "a-token"
    assert (settings.service_url, settings.threads, settings.source) == ("http://box:3000", 2, "hub")
    assert settings.api_keys is None


@pytest.mark.parametrize("name", ["SERVICE_URL", "AIRFLOW_URL"])
@pytest.mark.parametrize("given", ["http://box:3000/", "http://box:3000//", "http://box:3000"])
def test_slashes_at_the_end_of_a_url_are_removed(monkeypatch: pytest.MonkeyPatch, name: str, given: str) -> None:
    monkeypatch.setenv(f"SAEBYEOK_{name}", given)
    assert getattr(load_settings(), name.lower()) == "http://box:3000"


@pytest.mark.parametrize("name", ["SERVICE_URL", "ADVERTISE_URL", "AIRFLOW_URL"])
@pytest.mark.parametrize("given", MALFORMED)
def test_malformed_url_is_named(monkeypatch: pytest.MonkeyPatch, name: str, given: str) -> None:
    monkeypatch.setenv(f"SAEBYEOK_{name}", given)
    with pytest.raises(SettingsError, match=rf"SAEBYEOK_{name}: .*it must be a URL such as"):
        load_settings()


def test_malformed_secret_is_named_without_itself(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "saebyeok.toml").write_text('api_keys = ["a-key-of-some-length"]\ndeploy_token = 12345678901234567\n')
    monkeypatch.setenv("SAEBYEOK_CONFIG", str(tmp_path / "saebyeok.toml"))
    with pytest.raises(SettingsError, match=r"line 2: `deploy_token`: .*line 1: `api_keys`: ") as caught:
        load_settings()
    assert not {"a-key-of-some-length", "12345678901234567"} & set(re.findall(r"[\w-]+", str(caught.value)))


def test_password_in_a_url_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAEBYEOK_SERVICE_URL", "htp://user:very-secret@box:3000")
    with pytest.raises(SettingsError, match=r"SAEBYEOK_SERVICE_URL.*'htp://\*\*\*@box:3000'") as caught:
        load_settings()
    assert "very-secret" not in str(caught.value)


def test_every_setting_says_what_it_is() -> None:
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []


def test_caches_are_below_home_and_telemetry_is_off(tmp_path: Path) -> None:
    environment = library_environment(tmp_path)
    for name in (
        "AIRFLOW_HOME",
        "BENTOML_HOME",
        "CUDA_CACHE_PATH",
        "HF_HOME",
        "MPLCONFIGDIR",
        "TORCHINDUCTOR_CACHE_DIR",
        "TORCH_HOME",
        "TRITON_CACHE_DIR",
        "WANDB_CACHE_DIR",
        "WANDB_CONFIG_DIR",
        "WANDB_DATA_DIR",
        "WANDB_DIR",
        "XDG_CACHE_HOME",
    ):
        assert Path(environment[name]).is_relative_to(tmp_path), name
    assert environment["AIRFLOW__USAGE_DATA_COLLECTION__ENABLED"] == "False"
    assert environment["BENTOML_DO_NOT_TRACK"] == "True"
    assert environment["GX_ANALYTICS_ENABLED"] == "false"
    assert environment["HF_HUB_DISABLE_TELEMETRY"] == "1"
    assert environment["WANDB_ERROR_REPORTING"] == "false"


def test_importing_settings_reads_and_writes_nothing(tmp_path: Path) -> None:
    code = "import pipeline.job, pipeline.store.releases, sys; print('torch' in sys.modules, 'airflow' in sys.modules)"
    environment = {"SAEBYEOK_HOME": str(tmp_path / "home"), "PYTHONPATH": str(ROOT), "SAEBYEOK_THREADS": "nonsense"}
    result = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert result.stdout.split() == ["False", "False"]
    assert list(tmp_path.iterdir()) == []


def write_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> Path:
    path = tmp_path / "saebyeok.toml"
    path.write_text(text, encoding="utf-8")
    monkeypatch.setenv("SAEBYEOK_CONFIG", str(path))
    return path


def test_configuration_file_is_below_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = 'data = "files"\nrecipes = ["one", "/two"]\nstore = "s3://bucket/x"\nthreads = 3\nworkers = 4\n'
    write_config(tmp_path, monkeypatch, f"{text}wandb_texts = true\n")
    monkeypatch.setenv("SAEBYEOK_THREADS", "1")
    monkeypatch.setenv("SAEBYEOK_WORKERS", "")
    settings = load_settings()
    # Paths in the file are relative to it, wherever a process runs.
    assert (settings.data, settings.recipes) == (tmp_path / "files", f"{tmp_path}/one:/two")
    assert (settings.store, settings.threads, settings.workers) == ("s3://bucket/x", 1, 4)
    assert settings.wandb_texts
    assert text_setting("SAEBYEOK_DATA", "") == str(tmp_path / "files")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("\nthreads = -1", r"saebyeok\.toml line 2: `threads`: .*greater than or equal to 0"),
        ("\n\nthread = 1", r"saebyeok\.toml line 3: unknown setting `thread`; the settings are: .*threads"),
        ("threads = = 1", r"saebyeok\.toml is not TOML: .*line 1"),
        ('time_zone = "Seoul"', r"line 1: `time_zone`: .*such as Asia/Seoul"),
        ('schedule = "03:00"', r"line 1: `schedule`: .*pattern"),
    ],
)
def test_configuration_file_error_names_file_and_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, message: str
) -> None:
    write_config(tmp_path, monkeypatch, text)
    with pytest.raises(SettingsError, match=message):
        load_settings()


def test_named_configuration_file_must_exist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAEBYEOK_CONFIG", str(tmp_path / "absent.toml"))
    with pytest.raises(SettingsError, match=r"absent\.toml cannot be read: No such file.*; correct SAEBYEOK_CONFIG"):
        load_settings()
