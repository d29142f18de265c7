"""Lines of keys in TOML documents."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.config_file import ROOT
from pipeline.toml_lines import line_of

DOCUMENTS = sorted((ROOT / "pipeline" / "recipes").rglob("*.toml"))


def leaves(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the path of each value in a document; arrays of tables are numbered."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from leaves(item, (*path, key))
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        for number, item in enumerate(value):
            yield from leaves(item, (*path, str(number)))
    else:
        yield path


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_every_key_of_a_recipe_is_on_its_line(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    keys = list(leaves(tomllib.loads(text)))
    assert len(keys) > 20
    for key in keys:
        line = line_of(text, [key])
        assert line is not None
        assert key[-1] in text.splitlines()[line - 1], key


@pytest.mark.parametrize(
    ("key", "line"),
    [
        (("a",), 1),
        (("b", "c"), 3),
        (("b", "d", "x"), 4),
        (("b", "d", "missing"), 4),
        (("b", "missing"), 2),
        (("list", "1", "name"), 8),
        (("list", "1", "missing"), 7),
        (("quoted key", "k"), 10),
        (("missing",), None),
    ],
)
def test_line_of_key_table_or_nothing(key: tuple[str, ...], line: int | None) -> None:
    text = (
        "a = 1\n[b]\nc = 2\nd = { x = 1 }\n[[list]]\nname = 'one'\n[[list]]\nname = 'two'\n"
        "['quoted key']\nk = '= not a key'\n"
    )
    assert tomllib.loads(text)
    assert line_of(text, [key]) == line


def test_first_key_that_is_set_counts() -> None:
    text = "[profiles.full.train]\nepochs = 1\n[train]\nepochs = 2\n"
    assert line_of(text, [("profiles", "full", "train", "epochs"), ("train", "epochs")]) == 2
    assert line_of(text, [("profiles", "other", "train", "epochs"), ("train", "epochs")]) == 4
