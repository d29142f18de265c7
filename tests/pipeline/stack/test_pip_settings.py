"""pip's configuration, as uv reads it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from pipeline.stack.pip_settings import pip_settings, translate

LISTING = """\
:env:.find-links='/wheels'
freeze.timeout='10'
global.cert='/etc/ssl/ca.crt'
global.constraint='/etc/pip/constraints.txt'
global.extra-index-url='\\nfile:///one/simple\\nfile:///two/simple'
global.find-links='/other'
global.index-url='https://user:secret@index.example/simple'
install.no-index='true'
"""


def test_options_of_pip_become_variables_of_uv() -> None:
    settings = translate(LISTING)
    assert settings.variables == {
        "SSL_CERT_FILE": "/etc/ssl/ca.crt",
        "UV_DEFAULT_INDEX": "https://user:secret@index.example/simple",
        # pip's environment overrides its files.
        "UV_FIND_LINKS": "/wheels",
        "UV_INDEX": "file:///one/simple file:///two/simple",
        "UV_INDEX_STRATEGY": "unsafe-best-match",
        "UV_NO_INDEX": "true",
    }
    assert settings.constraints == ["/etc/pip/constraints.txt"]


def test_configuration_file_and_environment_of_pip_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    file = tmp_path / "pip.conf"
    file.write_text("[global]\nfind-links =\n    /one\n    /two\n[install]\nno-index = true\n", encoding="utf-8")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(file))
    monkeypatch.setenv("PIP_TIMEOUT", "90")
    variables = pip_settings(sys.executable).variables
    assert (variables["UV_FIND_LINKS"], variables["UV_NO_INDEX"]) == ("/one,/two", "true")
    assert variables["UV_HTTP_TIMEOUT"] == "90"
