"""The page of the gates: each names its proof, and the proof fails once the gate is broken (`tests.support.gates`)."""

from __future__ import annotations

import ast
import json
import subprocess
import sys

import pytest

from pipeline.settings import ROOT
from tests.support.gates import BREAKS, PAGE, proofs


def test_every_gate_names_its_proof_and_can_be_broken() -> None:
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    gates = [line for line in lines if line.startswith("| ") and not line.startswith(("| Gate |", "| --- |"))]
    assert len(gates) == len(proofs()) > 20
    assert proofs().keys() == BREAKS.keys()


@pytest.mark.parametrize("gate", proofs())
def test_the_proof_is_there(gate: str) -> None:
    file, _, name = proofs()[gate].partition("::")
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


@pytest.fixture(scope="module")
def ends(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[tuple[bool, str]]]:
    """How the cases of each proof end where its gate is broken; all gates that are asked for, in one process."""
    file = tmp_path_factory.mktemp("gates") / "ends.json"
    asked = [item.callspec.params["gate"] for item in request.session.items if "ends" in item.fixturenames]
    options = [
        "-p",
        "tests.support.gates",
        f"--broken={file}",
        "-p",
        "no:cacheprovider",
        f"--basetemp={file.parent / 'tmp'}",
    ]
    command = [sys.executable, "-m", "pytest", *options, *(proofs()[gate] for gate in asked)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    # 1: some tests failed, as they are to.
    assert done.returncode == pytest.ExitCode.TESTS_FAILED, done.stdout + done.stderr
    found: dict[str, list[tuple[bool, str]]] = json.loads(file.read_text(encoding="utf-8"))
    return found


@pytest.mark.torch
@pytest.mark.airflow
@pytest.mark.parametrize("gate", BREAKS)
def test_broken_gate_fails_its_proof(gate: str, ends: dict[str, list[tuple[bool, str]]]) -> None:
    assert any(noticed for noticed, _ in ends[gate]), f"{proofs()[gate]} with {BREAKS[gate]}: {ends[gate]}"
