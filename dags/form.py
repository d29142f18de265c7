"""The fields of nightly_retrain's trigger form; those that override a recipe field have its type and bounds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from airflow.sdk import Param

from approval import HOURS
from pipeline.errors import RecipeError
from pipeline.job import OVERRIDES
from pipeline.recipes.files import read_toml
from pipeline.recipes.schema import ModelSpec, TrainSpec
from pipeline.recipes.strict_model import Strict

#: A number below 1 as text, such as 0.00005 or 5e-5. The recipe's own bound is checked when the run starts.
NUMBER = r"^(0?\.[0-9]+|[0-9](\.[0-9]+)?[eE]-[0-9]+)$"


def recipe_tables(recipes: Mapping[str, Path]) -> dict[str, dict[str, Any]]:
    """Return the recipes' TOML documents by name. An invalid one is empty here and fails in its `validate` task."""
    tables: dict[str, dict[str, Any]] = {}
    for name, path in recipes.items():
        try:
            tables[name] = read_toml(path, name)
        except RecipeError:
            tables[name] = {}
    return tables


def recipe_titles(tables: Mapping[str, dict[str, Any]]) -> dict[str, str]:
    """Return the title of each recipe; an invalid one has its name."""
    return {name: str(table.get("title", name)) for name, table in tables.items()}


def profile_names(table: dict[str, Any]) -> list[str]:
    """Return the names of a recipe's profiles; empty if `profiles` is not a table."""
    profiles = table.get("profiles")
    return list(profiles) if isinstance(profiles, dict) else []


def override(name: str, title: str, description: str) -> Param:
    """Return a form field that overrides a recipe field; its type and bounds are the recipe field's."""
    section, field = OVERRIDES[name].split(".")
    models: dict[str, type[Strict]] = {"model": ModelSpec, "train": TrainSpec}
    schema = models[section].model_json_schema()["properties"][field]
    # The recipe's value is the default of an empty field, not the schema's.
    schema.pop("default", None)
    if schema["type"] == "number":
        # The form's number field steps by 1 and rejects 5e-5. A text field with examples accepts it.
        schema |= {"type": ["null", "string", "number"], "pattern": NUMBER, "examples": ["1e-5", "5e-5", "5e-4"]}
    else:
        schema["type"] = ["null", schema["type"]]
    return Param(None, **schema | {"title": title, "description": f"{description} Default: the recipe's value."})


def form_fields(tables: Mapping[str, dict[str, Any]]) -> dict[str, Param]:
    """Return the fields of the form for the recipes with these TOML documents, by name."""
    profiles = sorted({profile for table in tables.values() for profile in profile_names(table)})
    return {
        "recipes": Param(
            list(tables),
            type="array",
            # The form offers `examples`; Airflow validates against `items`.
            examples=list(tables),
            items={"type": "string", "enum": list(tables)},
            values_display=recipe_titles(tables),
            minItems=1,
            uniqueItems=True,
            title="Recipes",
            description="Recipes to retrain. The others are skipped.",
        ),
        "profile": Param(
            None,
            type=["null", "string"],
            enum=[*profiles, None],
            values_display={None: "default of this machine"},
            title="Profile",
            description="embedded: a small model, minutes on a CPU. full: klue/bert-base, for a GPU. "
            "Default: SAEBYEOK_PROFILE, or embedded if that is not set.",
        ),
        "base_model": override(
            "base_model",
            "Base model",
            "Model to fine-tune: mini (ships with Saebyeok), a hub id such as klue/bert-base, or a local directory.",
        ),
        "epochs": override(
            "epochs", "Epochs", "Passes over the training data. The epoch with the best validation metric is kept."
        ),
        "learning_rate": override("learning_rate", "Learning rate", "Peak learning rate, such as 5e-5."),
        "batch_size": override("batch_size", "Batch size", "Rows per training step."),
        "max_length": override(
            "max_length", "Max length", "Maximum number of tokens per text or pair; longer ones are truncated."
        ),
        "seed": override("seed", "Seed", "The same seed, data and settings give the same model on the same machine."),
        "approval": Param(
            False,
            type="boolean",
            title="Ask for approval",
            description="Wait for a person to approve a model that passed its gates before it is deployed "
            f"(Required Actions of the run). If it is rejected or not answered within {HOURS} hours, the current model "
            "stays live.",
        ),
        "force": Param(
            False,
            type="boolean",
            title="Force",
            description="Run every stage again, even if the store has a finished result for the same inputs.",
        ),
    }
