"""Results of a search: its trials, the best one as a file of recipe overrides, and a JSON document."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline.atomic_files import replace_file
from pipeline.errors import TrainingDivergedError
from pipeline.progress import format_duration
from pipeline.recipes.overrides import format_overrides
from pipeline.store.files.store_errors import store_errors
from pipeline.tuning.space import Search


@dataclass(frozen=True)
class Tried:
    """A finished trial. `value` is the metric, None if the trial failed; `seconds` is the duration of the training.

    `own` marks the trial of the unchanged recipe.
    """

    number: int
    own: bool
    values: dict[str, Any]
    value: float | None = None
    seconds: float = 0.0
    ref: str | None = None
    problem: str | None = None


def best_of(tried: Sequence[Tried]) -> Tried | None:
    """Return the trial with the highest value (of several, the first), or None if all failed."""
    return max((item for item in tried if item.value is not None), key=lambda item: item.value or 0.0, default=None)


@dataclass(frozen=True)
class Report:
    """Reports the progress of a search with `say`, and the best trial in the file `out`.

    `rows` is the number of validation rows, `trials` the total number of trials.
    """

    search: Search
    trials: int
    rows: int
    out: Path
    say: Callable[[str], None]

    @property
    def metric(self) -> str:
        """Return the name of the metric that the search maximises."""
        return self.search.job.recipe.selection_metric

    def begin(self, number: int, values: Mapping[str, Any], *, own: bool) -> None:
        """Print the start of a trial."""
        given = ", ".join(f"{key} {value}" for key, value in values.items())
        what = "unchanged" if own else "trial"
        self.say(f"[{number}/{self.trials}] {self.search.job.recipe.name} {what}: {given} ...")

    def end(self, tried: Sequence[Tried]) -> None:
        """Print the result of the last trial, and write the best one. Raises StoreError if `out` cannot be written."""
        last, best = tried[-1], best_of(tried)
        if last.value is None:
            self.say(f"      failed: {last.problem}")
        elif best:
            far = "best so far" if best is last else f"the best is {best.value:.4f} (trial {best.number})"
            self.say(f"      {self.metric} {last.value:.4f} after {format_duration(last.seconds)} of training; {far}")
        if best:
            self._write(tried, best)

    def document(self, tried: Sequence[Tried], study: Path) -> dict[str, Any]:
        """Return the document for `--json`. Raises TrainingDivergedError if every trial failed."""
        best = best_of(tried)
        if best is None:
            raise TrainingDivergedError(
                f"all {len(tried)} trials failed, the last one with: {tried[-1].problem}. Search lower learning rates, "
                "such as --search train.learning_rate=1e-6..1e-4"
            )
        # Write again, because this call may have another `out` than the earlier ones.
        self._write(tried, best)
        recipe = self.search.job.recipe
        return {
            "recipe": recipe.name,
            "profile": recipe.profile,
            "sample": recipe.sample,
            "run": self.search.job.run,
            "metric": self.metric,
            "rows": self.rows,
            "space": {key: asdict(field) for key, field in self.search.space.items()},
            "overrides": dict(self.search.overrides),
            "trials": [asdict(item) for item in tried],
            "best": asdict(best),
            "own": next(asdict(item) for item in tried if item.own),
            "study": str(study),
            "out": str(self.out),
        }

    def _write(self, tried: Sequence[Tried], best: Tried) -> None:
        text = self._comment(tried, best) + "\n" + format_overrides({**self.search.overrides, **best.values})
        with store_errors(str(self.out)):
            replace_file(self.out, text)

    def _comment(self, tried: Sequence[Tried], best: Tried) -> str:
        recipe = self.search.job.recipe
        own = next(item for item in tried if item.own)
        failed = sum(item.value is None for item in tried)
        reached = f"{self.metric} {own.value:.4f}" if own.value is not None else f"nothing ({own.problem})"
        place = f"profiles.{recipe.profile}{'.sample' if recipe.sample else ''}"
        lines = [
            f"{recipe.name}, profile {recipe.profile}{', sample data' if recipe.sample else ''}: {self.metric} "
            f"{best.value:.4f} on {self.rows:,} validation rows,",
            f"trial {best.number} of {len(tried)}, {failed} of which failed. The unchanged recipe reached {reached}"
            f"{', and no trial was better' if best.own else ''}.",
            "The best trial is overestimated, because it was selected on the validation rows. Ignore gains within "
            "seed-to-seed variation.",
            f"To evaluate it on the test file: saebyeok run {recipe.name} --profile {recipe.profile} "
            f"--overrides {self.out}",
            f"To use it in every run: copy the tables into {recipe.name}.toml, [train] as [{place}.train] and so on.",
        ]
        return "".join(f"# {' '.join(line.split())}\n" for line in lines)
