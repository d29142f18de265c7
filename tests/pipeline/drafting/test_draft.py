"""Drafted recipes: valid as they are, with the data's own labels, and checked before anything runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline.drafting.draft import append_table, draft_recipe
from pipeline.drafting.inspection import Chosen, inspect
from pipeline.errors import RecipeError
from pipeline.recipes.loading import load_recipe
from pipeline.recipes.overrides import read_overrides
from tests.support.news import WORDS, write_headlines


def write_draft(directory: Path, data: Path) -> Path:
    """Draft the recipe `news` for a data file into `directory`; return the recipe's file."""
    draft = draft_recipe("news", data.name, inspect(data, Chosen()))
    for place, text in draft.files.items():
        (directory / place).parent.mkdir(parents=True, exist_ok=True)
        (directory / place).write_text(text, encoding="utf-8")
    return directory / "news.toml"


def test_draft_is_a_valid_recipe_of_the_data(tmp_path: Path) -> None:
    path = write_draft(tmp_path, write_headlines(tmp_path / "news.csv", encoding="cp949", delimiter=";"))
    recipe = load_recipe("news", "embedded", directories=[tmp_path])
    assert (recipe.kind, recipe.inputs, set(recipe.labels)) == ("classification", "text", set(WORDS))
    assert (recipe.data.train, recipe.data.encoding, recipe.data.delimiter) == ("news.csv", "cp949", ";")
    assert (recipe.data.min_train_rows, recipe.data.min_test_rows, recipe.data.test) == (576, 144, None)
    assert recipe.gate.floors == {}
    suite = json.loads((tmp_path / "expectations" / "news.json").read_text(encoding="utf-8"))
    assert all(rule["description"] and rule["notes"] for rule in suite["expectations"])
    assert "saebyeok propose-floors news --write" in path.read_text(encoding="utf-8")


def test_stubs_are_behavioural_tests_once_they_are_uncommented(tmp_path: Path) -> None:
    path = write_draft(tmp_path, write_headlines(tmp_path / "news.csv"))
    stubs = tmp_path / "behaviour" / "news.toml"
    text = stubs.read_text(encoding="utf-8")
    assert load_recipe("news", "embedded", directories=[tmp_path]).behaviour.tests == ()
    head, _, tests = text.partition("\n\n")
    stubs.write_text("\n".join(line.removeprefix("#").strip() for line in tests.splitlines()), encoding="utf-8")
    append_table(path, "gate", "[gate.behaviour]\nbasics = 0.8\n")
    behaviour = load_recipe("news", "embedded", directories=[tmp_path]).behaviour
    assert [test.label for test in behaviour.tests] == [*sorted(WORDS), None]
    assert head.startswith("# Behavioural tests of news")


@pytest.mark.parametrize("scores", [True, False])
def test_draft_of_pairs_is_valid(tmp_path: Path, scores: bool) -> None:
    rows = [
        {"문장1": f"{n}번 버스", "문장2": f"{n}번 차", "label": n % 10 / 2 if scores else "참거짓"[n % 3]}
        for n in range(90)
    ]
    data = tmp_path / "pairs.json"
    data.write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    write_draft(tmp_path, data)
    recipe = load_recipe("news", "embedded", directories=[tmp_path])
    assert (recipe.inputs, recipe.model.objective, recipe.data.texts) == ("pair", "cross-encoder", ("문장1", "문장2"))
    assert recipe.similar_at == (2.25 if scores else None)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (("정치", "경\u200b제"), r"column '분야' of news\.json: .*invisible.*; correct the labels in the file"),
        (("1", "1.0"), "must all be different numbers"),
        (("정치", "정치"), "has fewer than two labels"),
    ],
)
def test_labels_that_no_recipe_can_have_are_refused(tmp_path: Path, labels: tuple[str, str], message: str) -> None:
    rows = [{"제목": f"{n}번째 제목", "분야": labels[n % 2]} for n in range(60)]
    data = tmp_path / "news.json"
    data.write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    with pytest.raises(RecipeError, match=message):
        draft_recipe("news", data.name, inspect(data, Chosen(label="분야")))


def test_table_is_appended_once(tmp_path: Path) -> None:
    path = tmp_path / "news.toml"
    path.write_text("[data]\ntrain = 'x'\n\n", encoding="utf-8")
    append_table(path, "gate", "")
    append_table(path, "gate", "[gate]\nmargin = 0.1\n")
    assert read_overrides(path) == {"data.train": "x", "gate.margin": 0.1}
    with pytest.raises(RecipeError, match=r"has a table \[gate\] already"):
        append_table(path, "gate", "[gate]\nmargin = 0.2\n")
