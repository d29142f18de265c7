"""The middlewares that a request passes: ours, and BentoML's."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.inprocess import Saebyeok

CODE = """
from serving.api.bentoml_app import Application
from serving.service import Saebyeok
Saebyeok.inject_config()
layers = [item.cls.__name__ for item in Application(Saebyeok, is_main=True).middlewares]
print(type(Saebyeok.to_asgi()).__name__, *layers)
"""
TRACING = "services.Saebyeok.tracing.exporter_type=in_memory"
COUNTS, SPANS, LIMIT = "Counted", "OpenTelemetryMiddleware", "MaxConcurrencyMiddleware"


@pytest.mark.parametrize(
    ("options", "origins", "layers"),
    [
        ("", "", ["Front", COUNTS, "Gate", "ContextMiddleware"]),
        (
            f"{TRACING} services.Saebyeok.traffic.max_concurrency=8",
            "https://app.example",
            ["CORSMiddleware", COUNTS, SPANS, LIMIT, "Gate", "ContextMiddleware"],
        ),
    ],
    ids=["as it is", "with tracing, a limit and other origins"],
)
def test_only_layers_that_do_something_are_gone_through(
    tmp_path: Path, options: str, origins: str, layers: list[str]
) -> None:
    # In a separate process, because BentoML and the service read their configuration once.
    env = os.environ | {"SAEBYEOK_HOME": str(tmp_path), "SAEBYEOK_CORS_ORIGINS": origins}
    env["BENTOML_CONFIG_OPTIONS"] = options
    done = subprocess.run([sys.executable, "-c", CODE], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.split() == layers


def test_bentoml_describes_every_api() -> None:
    # Imported here because it warns, except after the service.
    from _bentoml_sdk.service.openapi import generate_spec

    # It does so when it builds a Bento, and cannot describe every type.
    assert {api.route for api in Saebyeok.apis.values()} <= generate_spec(Saebyeok).paths.keys()
