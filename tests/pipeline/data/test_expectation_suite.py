"""The shipped suites: a file that should break one rule breaks only that one; the published files break none."""

from __future__ import annotations

import json
import shutil
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pipeline.config_file import ROOT
from pipeline.data.findings import RuleFinding
from pipeline.data.reading import SPLITS, Split, read_rows, source_file
from pipeline.data.suite_files import suite_digests, suite_path
from pipeline.recipes.loading import load_recipe
from pipeline.recipes.schema import Recipe
from pipeline.settings import Settings

# Every worker imports this file, but one runs it: only that one imports Great Expectations, which takes seconds.
if TYPE_CHECKING:
    from pipeline.data.expectation_suite import OpenSuite

#: Enough rows that 1 in 1,000 may break a rule that tolerates this share.
ROWS = 1_200
Row = dict[str, Any]
#: A rule's bad row: the split, the column and the value that breaks it.
BadRow = tuple[Split, str, object]
Break = Callable[[list[Row]], object]
PROJECT = ROOT / "expectations"


def reviews(name: str) -> list[Row]:
    return [{"id": f"{name}-{n}", "document": f"{name} {n}번째 영화", "label": n % 2} for n in range(ROWS)]


def pairs(name: str) -> list[Row]:
    return [
        {
            "guid": f"{name}-{n}",
            "source": "made-up",
            "sentence1": f"{name} {n}번 버스가 온다.",
            "sentence2": f"{name} {n}번 버스가 갔다.",
            "labels": {"real-label": n % 6},
        }
        for n in range(ROWS)
    ]


def put(column: str, value: object, rows: slice) -> Break:
    """Write `value` (or its result for the row number) into `rows`."""

    def change(table: list[Row]) -> None:
        for number, row in enumerate(table[rows]):
            row[column] = value(number) if callable(value) else value

    return change


def score(value: object, rows: slice) -> Break:
    return put("labels", lambda n: {"real-label": value(n) if callable(value) else value}, rows)


def copy_pairs(table: list[Row], label: object = None) -> None:
    """Make the second hundred pairs repeat the first."""
    for old, new in zip(table[:100], table[100:200], strict=True):
        new |= {name: old[name] for name in ("sentence1", "sentence2")}
        new["labels"] = {"real-label": old["labels"]["real-label"] if label is None else label}


def copy_reviews(table: list[Row]) -> None:
    for old, new in zip(table[:100], table[100:200], strict=True):
        new |= {"document": old["document"], "label": old["label"]}


def cut_short(table: list[Row]) -> None:
    del table[19:]


ALL, SOME = slice(None), slice(0, 150)
#: Rule for single rows to a row that breaks it.
BAD_ROWS: dict[str, dict[str, BadRow]] = {
    "nsmc": {
        "no id is empty": ("train", "id", ""),
        "every id occurs once": ("train", "id", "train-1199"),
        "no row to learn from has an id of the test file": ("train", "id", "test-7"),
        "no document is blank": ("train", "document", " "),
        "a document has at most 10,000 characters": ("train", "document", "가" * 10_001),
        "a document holds no replacement character (U+FFFD)": ("test", "document", "좋�요"),
        "every label is one of the recipe's": ("train", "label", "2"),
    },
    "klue-sts": {
        "every row has an id": ("train", "guid", None),
        "no id is empty": ("train", "guid", ""),
        "every id occurs once": ("train", "guid", "train-1199"),
        "no row to learn from has an id of the test file": ("train", "guid", "test-7"),
        **{
            rule.format(side): ("train", column, value)
            for column, side in (("sentence1", "first"), ("sentence2", "second"))
            for rule, value in (
                ("every row has the {} sentence", None),
                ("the {} sentence is never blank", " "),
                ("the {} sentence has at most 10,000 characters", "가" * 10_001),
                ("the {} sentence holds no replacement character (U+FFFD)", "버스�"),
            )
        },
        "every pair has a score, and it is a number": ("train", "labels", {"real-label": "높음"}),
        "every score is in the recipe's range": ("train", "labels", {"real-label": 7}),
        "every pair names its source": ("test", "source", None),
    },
}
#: Rule for a file to the change that breaks it: the split and the function that changes it.
BREAKS: dict[str, dict[str, tuple[Split, Break]]] = {
    "nsmc": {
        "there are at least as many rows as the recipe asks for": ("test", cut_short),
        # Slightly above 1 in 1,000; all of them are also blank, which is only a warning.
        "at most 1 row in 1,000 has an empty document": ("train", put("document", "", slice(2))),
        "999 of 1,000 times a document has at most 200 characters": ("train", put("document", "긴" * 201, slice(2, 4))),
        "at least 9 in 10 times a document holds Hangul": ("test", put("document", lambda n: f"Ã¬Ë†{n}", SOME)),
        "between 1 and 9 in 10 reviews are positive": ("test", put("label", 1, ALL)),
        "between 35 and 65 in 100 reviews are positive": ("train", put("label", 1, slice(0, 600))),
        "at most 1 row in 20 repeats a text of its file": ("train", copy_reviews),
        "at most 1 row in 50 has a text that also stands under another label": (
            "train",
            put("document", lambda n: f"같은 말 {n // 2}", slice(700, 730)),
        ),
        "at most 1 test row in 20 has a text that is also in the train file": (
            "test",
            put("document", lambda n: f"train {n}번째 영화", slice(200, 350)),
        ),
    },
    "klue-sts": {
        "there are at least as many rows as the recipe asks for": ("test", cut_short),
        **{
            rule.format(side): (split, put(column, value, rows))
            for column, side in (("sentence1", "first"), ("sentence2", "second"))
            for rule, split, value, rows in (
                ("999 of 1,000 times the {} sentence has at most 300 characters", "train", "가" * 301, slice(2)),
                ("at least 9 in 10 times the {} sentence holds Hangul", "test", lambda n: f"Ã¬Ë†{n}", SOME),
            )
        },
        "the scores spread by at least 0.5": ("test", score(2.5, ALL)),
        "the mean score is between 1.5 and 3.5": ("train", score(lambda n: 3 + n % 3, ALL)),
        "at most 1 pair in 20 occurs more than once in its file": ("train", copy_pairs),
        "at most 1 pair in 20 also occurs with another score": ("train", lambda rows: copy_pairs(rows, 2.25)),
        "at most 1 test pair in 20 is also in the train file": (
            "test",
            lambda rows: [row.update(other) for row, other in zip(rows[200:300], _texts(pairs("train")), strict=False)],
        ),
    },
}  # fmt: skip
#: Rules that a broken rule implies: a weaker rule on the same column.
FOLLOWS = {
    "at most 1 row in 1,000 has an empty document": {"no document is blank"},
    "between 1 and 9 in 10 reviews are positive": {"between 35 and 65 in 100 reviews are positive"},
    "at most 1 pair in 20 also occurs with another score": {"at most 1 pair in 20 occurs more than once in its file"},
}


def _texts(rows: list[Row]) -> list[Row]:
    return [{name: row[name] for name in ("sentence1", "sentence2")} for row in rows]


def suites() -> dict[str, list[dict[str, Any]]]:
    names = [path.stem for path in sorted((PROJECT / "expectations").glob("*.json"))]
    return {name: json.loads(suite_path(Settings(), name).read_text("utf-8"))["expectations"] for name in names}


#: Rules whose changes would hide or imply others: these share files with each other only. The other changes of a split
#: concern different rows or columns.
APART = {
    "there are at least as many rows as the recipe asks for",
    "between 1 and 9 in 10 reviews are positive",
    "the scores spread by at least 0.5",
    "the mean score is between 1.5 and 3.5",
    "at most 1 pair in 20 also occurs with another score",
}


def files_of_changes() -> list[tuple[str, Split, list[str]]]:
    """Return the files to make: the recipe, the split, and the rules that its rows break."""
    files: defaultdict[tuple[str, Split, bool], list[str]] = defaultdict(list)
    for name, rules in BREAKS.items():
        for rule, (split, _) in rules.items():
            files[name, split, rule in APART].append(rule)
    return [(name, split, rules) for (name, split, _), rules in files.items()]


def small(name: str) -> Recipe:
    return load_recipe(name, "embedded", overrides={"data.min_train_rows": 20, "data.min_test_rows": 20})


def write(recipe: Recipe, data: Path, tables: dict[Split, list[Row]]) -> None:
    for split, name in (("train", recipe.data.train), ("test", recipe.data.test)):
        rows, file = tables[split], data / name
        file.parent.mkdir(parents=True, exist_ok=True)
        if recipe.data.format == "json":
            file.write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
        else:
            lines = ["\t".join(rows[0]), *("\t".join(map(str, row.values())) for row in rows)]
            file.write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> dict[str, OpenSuite]:
    """Return every suite, opened once in a copy of the project: opening takes longer than running."""
    from pipeline.data.expectation_suite import open_suite

    return {name: open_suite(Settings(), tmp_path_factory.mktemp(name), small(name)) for name in BREAKS}


def broken_rules(recipe: Recipe, data: Path, split: Split, opened: dict[str, OpenSuite]) -> list[RuleFinding]:
    """Return the rules of the recipe's suite that the files in `data` break."""
    from pipeline.data.expectation_suite import run_suite
    from pipeline.data.rules import checked_table, suite_parameters

    rows = {name: read_rows(recipe, source_file(recipe, data, name)) for name in SPLITS}
    table = checked_table(recipe, rows, split)
    findings = run_suite(opened[recipe.name], split, table, suite_parameters(recipe, split))
    return [finding for finding in findings if not finding.passed]


def plain_tables(recipe: Recipe) -> dict[Split, list[Row]]:
    make = pairs if recipe.inputs == "pair" else reviews
    return {split: make(split) for split in SPLITS}


@pytest.mark.parametrize(("name", "rules"), suites().items())
def test_every_rule_is_broken_here(name: str, rules: list[dict[str, Any]]) -> None:
    """A rule that nothing here breaks might be one that no file can break."""
    assert {rule["description"] for rule in rules} == BAD_ROWS[name].keys() | BREAKS[name].keys()


@pytest.mark.parametrize(("name", "split", "rules"), files_of_changes())
def test_file_breaks_exactly_the_intended_rules(
    name: str, split: Split, rules: list[str], tmp_path: Path, opened: dict[str, OpenSuite]
) -> None:
    recipe = small(name)
    tables = plain_tables(recipe)
    for rule in rules:
        BREAKS[name][rule][1](tables[split])
    write(recipe, tmp_path / "data", tables)
    broken = broken_rules(recipe, tmp_path / "data", split, opened)
    assert {finding.rule for finding in broken} == set(rules).union(*(FOLLOWS.get(rule, ()) for rule in rules))


@pytest.mark.parametrize("name", sorted(BAD_ROWS))
def test_row_breaks_exactly_the_intended_rule(name: str, tmp_path: Path, opened: dict[str, OpenSuite]) -> None:
    """A run names the rows of each rule, so the files have a bad row for every rule."""
    recipe = small(name)
    tables = plain_tables(recipe)
    # The first line of a table is its header.
    first = 1 if recipe.data.format == "json" else 2
    expected: dict[Split, dict[str, list[int]]] = {split: {} for split in SPLITS}
    for number, (rule, (split, column, value)) in enumerate(BAD_ROWS[name].items()):
        tables[split][number][column] = value
        # The other row with this id is the last.
        expected[split][rule] = [number + first, *([ROWS - 1 + first] if rule == "every id occurs once" else [])]
    write(recipe, tmp_path / "data", tables)
    for split in SPLITS:
        broken = broken_rules(recipe, tmp_path / "data", split, opened)
        assert {finding.rule: finding.examples for finding in broken} == expected[split]


@pytest.mark.parametrize(("name", "rules"), suites().items())
def test_every_rule_has_text_severity_and_reason(name: str, rules: list[dict[str, Any]]) -> None:
    for rule in rules:
        assert rule["severity"] in {"critical", "warning"}, rule
        assert rule["description"], rule
        assert rule["notes"], rule
    assert len({rule["description"] for rule in rules}) == len(rules)
    assert len({rule["id"] for rule in rules}) == len(rules)


def test_published_pairs_break_no_critical_rule(real_data: Path, settings: Settings, tmp_path: Path) -> None:
    from pipeline.data.expectation_suite import open_suite

    # `tests/models` has the reviews, which are many.
    recipe = load_recipe("klue-sts", "embedded")
    # The settings of these tests leave out the rules that only warn.
    critical = {recipe.name: open_suite(settings, tmp_path / "project", recipe)}
    for split in SPLITS:
        assert [finding.rule for finding in broken_rules(recipe, real_data, split, critical)] == []


@pytest.mark.parametrize(
    "file", ["great_expectations.yml", "checkpoints/nsmc.json", "validation_definitions/nsmc.json"]
)
def test_a_changed_file_of_the_project_changes_its_digest(file: str, settings: Settings, tmp_path: Path) -> None:
    project = tmp_path / "project"
    shutil.copytree(PROJECT, project)
    settings = settings.model_copy(update={"expectations": project})
    recipe = small("nsmc")
    before = suite_digests(settings, recipe)
    assert before == suite_digests(Settings(), recipe)
    (project / file).write_bytes((project / file).read_bytes() + b"\n")
    assert suite_digests(settings, recipe) != before
