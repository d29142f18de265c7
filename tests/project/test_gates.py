"""The page of the gates: each gate names its proof, which fails if the gate is broken (`tests.support.gates`)."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys

import pytest

from pipeline.config_file import ROOT
from tests.support.gates import BREAKS, PAGE, proofs
from tests.support.shared import VARIABLE, shared_directory

Ends = dict[str, list[tuple[bool, str]]]


def test_every_gate_has_a_breakable_proof() -> None:
    blocks = PAGE.read_text(encoding="utf-8").split("\n\n")
    gates = [line for block in blocks if block.startswith("| Gate |") for line in block.splitlines()[2:]]
    assert len(gates) == len(proofs()) > 20
    assert proofs().keys() == BREAKS.keys()


@pytest.mark.parametrize("proof", proofs())
def test_proof_is_there(proof: str) -> None:
    tree = ast.parse((ROOT / proofs()[proof]).read_text(encoding="utf-8"))
    assert proof in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


@pytest.fixture(scope="module")
def ends(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Ends:
    """Return the results of each proof with its gate broken, all from one process."""
    file = tmp_path_factory.mktemp("gates") / "ends.json"
    asked = [item.callspec.params["proof"] for item in request.session.items if "ends" in item.fixturenames]
    options = [f"--broken={file}", f"--basetemp={file.parent / 'tmp'}", "-p", "no:cacheprovider"]
    tests = [f"{proofs()[proof]}::{proof}" for proof in asked]
    command = [sys.executable, "-m", "pytest", "-p", "tests.support.gates", *options, *tests]
    environment = os.environ | {VARIABLE: str(shared_directory(tmp_path_factory))}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    # The expected result: some tests failed.
    assert done.returncode == pytest.ExitCode.TESTS_FAILED, done.stdout + done.stderr
    found: Ends = json.loads(file.read_text(encoding="utf-8"))
    return found


@pytest.mark.slow
@pytest.mark.torch
@pytest.mark.airflow
@pytest.mark.parametrize("proof", BREAKS)
def test_broken_gate_fails_its_proof(proof: str, ends: Ends) -> None:
    assert any(noticed for noticed, _ in ends[proof]), f"{proof} passes with {BREAKS[proof]}: {ends[proof]}"
