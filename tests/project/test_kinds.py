"""What a kind of task is, only its own modules know: no other code asks for a kind's name or a model's class."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest

from pipeline.config_file import ROOT
from pipeline.recipes.kinds.task_kind import Kind, Objective
from tests.support.module_graph import belongs, modules

#: Modules that define the kinds (the client repeats them), and the pretraining of encoders, which have no kind yet.
EXEMPT = {"pipeline.recipes.kinds", "pipeline.tasks", "pipeline.pretraining", "serving.client.responses"}
NAMES = {*get_args(Kind), *get_args(Objective)}
#: Places of the classes that differ between kinds.
PLACES = ("pipeline/models/heads.py", "pipeline/recipes/kinds/*.py", "pipeline/tasks/*.py")
#: Class of the models that transformers defines.
FOREIGN = {"PreTrainedModel"}


def defined_classes() -> set[str]:
    """Return the names of all classes in `PLACES`."""
    trees = [ast.parse(path.read_text(encoding="utf-8")) for place in PLACES for path in ROOT.glob(place)]
    return {node.name for tree in trees for node in tree.body if isinstance(node, ast.ClassDef)}


CLASSES = defined_classes() | FOREIGN


def mentioned(node: ast.AST) -> set[str]:
    """Return the kinds and classes that an expression names."""
    parts = list(ast.walk(node))
    names = {part.value for part in parts if isinstance(part, ast.Constant) and isinstance(part.value, str)}
    classes = {part.id for part in parts if isinstance(part, ast.Name)}
    return names & NAMES | classes & CLASSES


def asked_in(path: Path) -> list[str]:
    """Return a line for each question of a file; most files, which name nothing of a kind, need not be parsed."""
    text = path.read_text(encoding="utf-8")
    if not re.search(rf"""["'](?:{"|".join(NAMES)})["']|\b(?:{"|".join(CLASSES)})\b""", text):
        return []
    return [f"{path}:{line}: {', '.join(names)}" for line, names in questions(ast.parse(text))]


def questions(tree: ast.AST) -> Iterator[tuple[int, set[str]]]:
    """Yield line and names of each comparison, class check and look-up that depends on a kind."""
    for node in ast.walk(tree):
        asked: list[ast.AST | None] = []
        if isinstance(node, ast.Compare):
            asked = [node]
        elif isinstance(node, ast.Dict):
            asked = [*node.keys]
        elif isinstance(node, ast.Subscript):
            # In annotations, classes may be in brackets.
            asked = [part for part in ast.walk(node.slice) if isinstance(part, ast.Constant)]
        elif isinstance(node, ast.match_case):
            asked = [node.pattern]
        elif (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id in ("isinstance", "issubclass")
        ):
            asked = [node.args[1]]
        if found := {name for part in asked if part for name in mentioned(part)}:
            yield getattr(node, "lineno", node.pattern.lineno if isinstance(node, ast.match_case) else 0), found


def test_no_other_module_asks_for_a_kind() -> None:
    others = [module for module in modules() if not belongs(module.name, EXEMPT)]
    assert len(others) > 200
    assert [question for other in others for question in asked_in(other.path)] == []


@pytest.mark.parametrize("file", sorted((ROOT / "pipeline").rglob("*.html")), ids=lambda file: file.name)
def test_no_template_asks_for_a_kind(file: Path) -> None:
    assert re.findall(rf"""["'](?:{"|".join(NAMES)})["']""", file.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "source",
    [
        "if recipe.kind == 'classification': pass",
        "if card.objective not in (None, 'bi-encoder'): pass",
        "first = {'regression': 'pearson'}[recipe.kind]",
        "route = ROUTES['classification', 'pair']",
        "match recipe.kind:\n    case 'regression' | 'other': pass",
        "paired = isinstance(model, BiEncoder)",
        "plain = isinstance(model, PreTrainedModel | PooledClassifier)",
        "same = type(task) is RegressionTask",
    ],
)
def test_each_question_is_noticed(source: str, tmp_path: Path) -> None:
    file = tmp_path / "asks.py"
    file.write_text(source, encoding="utf-8")
    assert len(asked_in(file)) == 1


@pytest.mark.parametrize(
    "source",
    [
        "metrics = recipe.task.metrics",
        "need = Need('classification', 'pair')",
        "whole = isinstance(item, str)",
        "heads: dict[str, BiEncoder] = {}",
    ],
)
def test_other_code_is_not_taken_for_a_question(source: str) -> None:
    assert list(questions(ast.parse(source))) == []


def test_classes_of_every_place_are_known() -> None:
    assert {"BiEncoder", "PooledClassifier", "Regression", "BiEncoderTask"} <= CLASSES
