"""Check a recipe with its suite and its data files, without Great Expectations, tokenizer or model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pipeline.data.data_gate import read_published
from pipeline.data.input_files import find_files, join_parts, most_aside
from pipeline.data.reading import has_label, has_text, label_numbers, label_rule
from pipeline.data.splits import split_rows
from pipeline.data.suite_files import named_suite, read_suite
from pipeline.errors import DataError
from pipeline.job import Job, data_directory
from pipeline.recipes.files import recipe_directories


@dataclass(frozen=True)
class CheckReport:
    """The result of checking a recipe."""

    recipe: str
    rows: dict[str, int]
    "Rows by split: train, validation, gate and test."
    labels: dict[str, int]
    problems: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def document(self) -> dict[str, Any]:
        """Return the document for `--json`."""
        return {
            "recipe": self.recipe,
            "rows": self.rows,
            "labels": self.labels,
            "problems": list(self.problems),
            "notes": list(self.notes),
        }

    @property
    def lines(self) -> list[str]:
        """Return the report for people."""
        rows = ", ".join(f"{name} {count:,}" for name, count in self.rows.items())
        labels = ", ".join(f"{name} {count:,}" for name, count in self.labels.items())
        return [
            f"{self.recipe}: {'the recipe can be run' if not self.problems else 'the recipe cannot be run'}",
            *([f"rows: {rows}"] if rows else []),
            *([f"labels: {labels}"] if labels else []),
            *(f"problem: {item}" for item in self.problems),
            *(f"note: {item}" for item in self.notes),
        ]


def check_recipe(job: Job) -> CheckReport:
    """Return the rows that a run would use, and the problems that would stop it, as far as they show without a run.

    Great Expectations checks the suite's other rules in the run.
    """
    recipe = job.recipe
    problems = _suite_problems(job)
    unset = [f"gate.floors.{metric}" for metric in recipe.metrics if metric not in recipe.gate.floors]
    notes = (
        (
            f"every model is refused, because {' and '.join(unset)} {'is' if len(unset) == 1 else 'are'} not set: "
            f"saebyeok propose-floors {recipe.name} --write",
        )
        if unset
        else ()
    )
    try:
        rows, labels, found = _data(job)
    except DataError as error:
        return CheckReport(recipe.name, {}, {}, (*problems, str(error)), notes)
    return CheckReport(recipe.name, rows, labels, (*problems, *found), notes)


def _suite_problems(job: Job) -> list[str]:
    try:
        if path := named_suite(job.settings, job.recipe):
            read_suite(path)
    except DataError as error:
        return [str(error)]
    return []


def _data(job: Job) -> tuple[dict[str, int], dict[str, int], list[str]]:
    """Return rows by split, rows by label, and problems. Raises DataError if a file cannot be read."""
    recipe, (directory, _) = job.recipe, data_directory(job.settings)
    published = read_published(
        recipe, find_files(recipe, directory, job.cutoff, recipe_directories(job.settings.recipes))
    )
    problems, tables = [], {}
    for split, parts in published.items():
        rows = join_parts(split, parts).rows
        usable = has_text(recipe, rows) & has_label(recipe, rows)
        broken = int((~usable).sum()) + sum(len(part.reading.broken) for part in parts)
        if broken > sum(most_aside(recipe, part) for part in parts):
            count = sum(part.count for part in parts)
            shown = f"{broken:,} of {count:,} {split} rows are unreadable, or have no text or no valid label"
            problems.append(f"{shown}; {label_rule(recipe)}")
        least = recipe.data.min_train_rows if split == "train" else recipe.data.min_test_rows
        if len(rows) < least:
            problems.append(f"there are {len(rows):,} {split} rows; data.min_{split}_rows asks for {least:,}")
        tables[split] = rows[usable]
    counts = label_numbers(recipe, tables["train"]["label"]).value_counts()
    labels = {name: int(counts.get(number, 0)) for number, name in enumerate(recipe.labels)}
    problems += [f"no train row has the label {name}" for name, count in labels.items() if not count]
    sides = split_rows(recipe, tables["train"]) | {"test": tables["test"]}
    return {name: len(rows) for name, rows in sides.items()}, labels, problems
