"""The page of the gates: every test that it names exists."""

from __future__ import annotations

import ast
import re

import pytest

from pipeline.settings import ROOT

NAMED = re.findall(r"`(tests/\S+\.py)::(test_\w+)`", (ROOT / "docs" / "gates.md").read_text(encoding="utf-8"))


def test_every_gate_names_its_proof() -> None:
    lines = (ROOT / "docs" / "gates.md").read_text(encoding="utf-8").splitlines()
    gates = [line for line in lines if line.startswith("| ") and not line.startswith(("| Gate |", "| --- |"))]
    assert len(gates) == len(NAMED) > 20


@pytest.mark.parametrize(("file", "name"), NAMED)
def test_the_proof_is_there(file: str, name: str) -> None:
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
