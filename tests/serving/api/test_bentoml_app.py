"""The middlewares that a request passes: ours, and BentoML's."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.config_file import ROOT
from tests.support.inprocess import Saebyeok

pytestmark = pytest.mark.server

COUNTS, SPANS, LIMIT = "Counted", "OpenTelemetryMiddleware", "MaxConcurrencyMiddleware"
TRACING = "services.Saebyeok.tracing.exporter_type=in_memory"
CODE = """
from tests.serving.api.test_bentoml_app import layers
print(*layers())
"""


def layers() -> list[str]:
    """Return the class of the service's application, and of each middleware in it, outermost first."""
    # Imported here because it warns, except after the service.
    from serving.api.bentoml_app import Application

    Saebyeok.inject_config()
    inner = [item.cls.__name__ for item in Application(Saebyeok, is_main=True).middlewares]
    return [type(Saebyeok.to_asgi()).__name__, *inner]


def test_only_layers_that_do_something_are_gone_through() -> None:
    assert layers() == ["Front", COUNTS, "Gate", "ContextMiddleware"]


def test_tracing_a_limit_and_other_origins_have_layers(tmp_path: Path) -> None:
    # In a separate process, because BentoML and the service read their configuration once.
    env = os.environ | {"SAEBYEOK_HOME": str(tmp_path), "SAEBYEOK_CORS_ORIGINS": "https://app.example"}
    env["BENTOML_CONFIG_OPTIONS"] = f"{TRACING} services.Saebyeok.traffic.max_concurrency=8"
    done = subprocess.run([sys.executable, "-c", CODE], cwd=ROOT, env=env, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["CORSMiddleware", COUNTS, SPANS, LIMIT, "Gate", "ContextMiddleware"]


def test_bentoml_describes_every_api() -> None:
    # Imported here because it warns, except after the service.
    from _bentoml_sdk.service.openapi import generate_spec

    # It does so when it builds a Bento, and cannot describe every type.
    assert {api.route for api in Saebyeok.apis.values()} <= generate_spec(Saebyeok).paths.keys()
