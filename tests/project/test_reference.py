"""The reference pages: their sections match the code, and every row says what its subject means."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from docs.fields import field_table, nested
from docs.generated import GENERATORS, REFERENCE, filled, generator, table
from pipeline.pretraining.spec import EncoderSpec
from pipeline.recipes.schema import Recipe
from pipeline.settings import Settings

#: `tests/dags` checks the page of the DAGs, which needs Airflow.
PLAIN = [name for name in GENERATORS if name != "dag_parameters"]


@pytest.mark.parametrize("name", PLAIN)
def test_page_matches_code(name: str) -> None:
    found = generator(name)
    assert filled(found.PAGE, found.sections()) == found.PAGE.read_text(encoding="utf-8"), "run: make reference"


def test_every_generator_has_a_page_of_its_own() -> None:
    pages = {REFERENCE / f"{page}.md" for page in ("gates", "glossary")}
    assert {generator(name).PAGE for name in GENERATORS} == set(REFERENCE.glob("*.md")) - pages


@pytest.mark.parametrize("model", [Recipe, EncoderSpec, Settings], ids=lambda model: model.__name__)
def test_every_field_has_a_meaning(model: type) -> None:
    for found in (model, *(inside for _, inside in nested(model))):
        assert [name for name, field in found.model_fields.items() if not field.description] == [], found.__name__


@pytest.mark.parametrize("name", ["command_line", "error_types", "client_methods"])
def test_every_row_has_a_meaning(name: str) -> None:
    rows = [line for text in generator(name).sections().values() for line in text.splitlines() if line.startswith("| ")]
    assert len(rows) > 5
    assert [row for row in rows if row.endswith("|  |")] == []


def test_bounds_and_defaults_are_those_of_the_schema() -> None:
    rows = field_table(Recipe.model_fields["train"].annotation)  # type: ignore[arg-type]
    assert "| `epochs` | whole number, at least 1, at most 100 | `3` |" in rows
    assert "| `start` | `base` or `champion` | `base` |" in rows


def test_cells_escape_bars_and_elements_outside_code() -> None:
    assert table(("a",), [("x | <key> `<key>`",)]).splitlines()[-1] == "| x \\| &lt;key> `<key>` |"


def test_page_with_other_sections_is_an_error(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("<!-- one: written by docs.x -->\n<!-- end of one -->\n", encoding="utf-8")
    assert re.search("text", filled(page, {"one": "text"}))
    with pytest.raises(ValueError, match="'two'"):
        filled(page, {"two": "text"})
