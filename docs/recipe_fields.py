"""The tables of recipes of docs/reference/recipe.md."""

from __future__ import annotations

from docs.fields import field_table, model_sections
from docs.generated import REFERENCE
from pipeline.recipes.schema import Recipe

PAGE = REFERENCE / "recipe.md"


def sections() -> dict[str, str]:
    """Return the fields of a recipe, and those of its tables."""
    return {"recipe": field_table(Recipe), "tables": model_sections(Recipe)}
