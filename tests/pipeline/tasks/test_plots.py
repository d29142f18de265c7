"""Plots: Korean class names have glyphs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.ft2font import FT2Font
from matplotlib.image import imread

from pipeline.recipes.loading import load_recipe
from pipeline.tasks.plots import HANGUL, draw_confusion
from pipeline.tasks.registry import task_of


def picture(labels: tuple[str, ...], file: Path) -> np.ndarray:
    recipe = load_recipe("nsmc", "embedded").model_copy(update={"labels": labels})
    draw_confusion(recipe, np.array([0, 1, 2]), np.array([0, 1, 2]), file)
    return imread(file)


# Matplotlib warns of each missing glyph, and a warning fails a test.
def test_korean_class_names_are_drawn(tmp_path: Path) -> None:
    one = picture(("부정", "중립", "긍정"), tmp_path / "one.png")
    other = picture(("과학", "중립", "사회"), tmp_path / "other.png")
    # Boxes would look the same.
    assert one.shape == other.shape
    assert (one != other).any()
    picture(("ㅋㅋ", "ABC 급", "뷁"), tmp_path / "mixed.png")


def test_font_has_all_hangul_and_its_license_is_with_it() -> None:
    glyphs = FT2Font(HANGUL).get_charmap()
    assert [chr(code) for code in (*range(0xAC00, 0xD7A4), *range(0x3131, 0x318F)) if code not in glyphs] == []
    license = (HANGUL.parent / "OFL.txt").read_text(encoding="utf-8")
    assert "Reserved Font Name Nanum" in license
    # A modified font must not have the reserved name.
    assert "nanum" not in FT2Font(HANGUL).family_name.lower()


def test_missing_glyph_would_be_noticed(tmp_path: Path) -> None:
    with pytest.raises(UserWarning, match="Glyph"):
        picture(("a", "b", "\N{EGYPTIAN HIEROGLYPH A001}"), tmp_path / "boxes.png")


def test_files_of_plots_by_task(tmp_path: Path) -> None:
    labels, answers = np.array([0, 1, 1]), np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]])
    task_of(load_recipe("nsmc", "embedded")).draw(labels, answers, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"plot.png", "reliability.png"}
    (tmp_path / "scores").mkdir()
    scores = np.array([1.0, 3.5, 4.0])
    task_of(load_recipe("klue-sts", "embedded")).draw(scores, scores, tmp_path / "scores")
    assert [path.name for path in (tmp_path / "scores").iterdir()] == ["plot.png"]
