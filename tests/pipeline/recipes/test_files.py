"""Recipe files: which count, and how they are parsed."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from pipeline.errors import RecipeError
from pipeline.recipes.files import RECIPES, misnamed_files, published_files, read_toml, recipe_directories, recipe_files
from pipeline.recipes.loading import load_recipe, recipe_names
from pipeline.recipes.overrides import parse_value, read_overrides

MARK = b"\xef\xbb\xbf"
ODD = ("nsmc copy", "._nsmc", "nsmc.backup", "Nsmc", "영화", "-nsmc", "nsmc_2", "n" * 64)


def test_only_files_with_a_recipes_name_are_recipes(tmp_path: Path) -> None:
    for name in (*ODD, "nsmc", "own-data-2", "7"):
        (tmp_path / f"{name}.toml").write_text("", encoding="utf-8")
    (tmp_path / "notes.txt").touch()
    assert recipe_names([tmp_path]) == ("7", "nsmc", "own-data-2")
    # A hidden file is of the system (macOS writes `._x` next to x), so nobody has to rename it.
    assert {path.stem for path in misnamed_files([tmp_path])} == {*ODD} - {"._nsmc"}
    with pytest.raises(RecipeError, match=r"nsmc copy\.toml is not the name of a recipe file: name it with lower-case"):
        load_recipe("nsmc copy", "embedded", directories=[tmp_path])


def test_byte_order_mark_is_skipped(tmp_path: Path) -> None:
    shutil.copytree(RECIPES / "behaviour", tmp_path / "behaviour")
    for path in (RECIPES / "nsmc.toml", RECIPES / "behaviour" / "nsmc.toml"):
        (tmp_path / path.relative_to(RECIPES)).write_bytes(MARK + path.read_bytes())
    assert load_recipe("nsmc", "embedded", directories=[tmp_path]) == load_recipe("nsmc", "embedded")
    (tmp_path / "overrides.toml").write_bytes(MARK + b"[train]\nepochs = 2\n")
    assert read_overrides(tmp_path / "overrides.toml") == {"train.epochs": 2}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"x = 1\ntitle = = 2", r"own is not TOML: .*line 2"),
        ('title = "영화"'.encode("cp949"), "own is not TOML: byte 10 is not UTF-8; save the file as UTF-8"),
        ('title = "x"'.encode("utf-16"), "own is not TOML: byte 1 is not UTF-8"),
        (b"seed = " + b"9" * 5000, "own cannot be read: a number has too many digits"),
        (b"x = " + b"[" * 5000, "own cannot be read: its lists are nested too deeply"),
    ],
)
def test_unreadable_file_is_a_sentence(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "own.toml").write_bytes(content)
    with pytest.raises(RecipeError, match=rf"^{message}"):
        read_toml(tmp_path / "own.toml", "own")
    (tmp_path / "folder.toml").mkdir()
    with pytest.raises(RecipeError, match=r"^folder cannot be read: Is a directory$"):
        read_toml(tmp_path / "folder.toml", "folder")


@pytest.mark.parametrize("text", ["9" * 5000, "[" * 5000])
def test_override_that_cannot_be_converted_is_text(text: str) -> None:
    assert parse_value(text) == text


def test_long_value_is_cut_off_in_a_message() -> None:
    for value in (10**4000, 10**5000, "x" * 5000):
        with pytest.raises(RecipeError, match=r"train\.epochs") as caught:
            load_recipe("nsmc", "embedded", overrides={"train.epochs": value})
        assert len(str(caught.value)) < 400


def test_last_directory_wins(tmp_path: Path) -> None:
    for place, names in {"one": ("nsmc", "own"), "two": ("own",)}.items():
        (tmp_path / place).mkdir()
        for name in names:
            (tmp_path / place / f"{name}.toml").touch()
    own = f"{tmp_path / 'one'}{os.pathsep} {os.pathsep}{tmp_path / 'two'}{os.pathsep}{tmp_path / 'absent'}"
    directories = recipe_directories(own)
    assert directories == (RECIPES, tmp_path / "one", tmp_path / "two", tmp_path / "absent")
    found = recipe_files(directories)
    assert found["klue-sts"] == RECIPES / "klue-sts.toml"
    assert found["nsmc"] == tmp_path / "one" / "nsmc.toml"
    assert found["own"] == tmp_path / "two" / "own.toml"
    assert recipe_directories("") == (RECIPES,)


def test_published_files_are_those_of_readable_recipes(tmp_path: Path) -> None:
    files = {
        "own": "[data]\ntrain = 'a'\ntest = 'b'",
        "half": "[data]\ntrain = 'a'",
        "flat": "data = 3",
        "broken": "x =",
    }
    for name, content in files.items():
        (tmp_path / f"{name}.toml").write_text(content, encoding="utf-8")
    assert published_files([tmp_path]) == {"own": ("a", "b"), "half": ("a",)}
    assert list(recipe_files([tmp_path])) == ["broken", "flat", "half", "own"]
