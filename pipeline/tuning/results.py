"""What a search has found: its trials, the best of them as a file of recipe overrides, and a document."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import TrainingDivergedError
from pipeline.progress import clock
from pipeline.recipes.overrides import format_overrides
from pipeline.store.store_errors import store_errors
from pipeline.tuning.space import Search


@dataclass(frozen=True)
class Tried:
    """A trial that has ended; `value` is the metric, None where it failed, and `seconds` are those of its training.

    `own` is that of the recipe as it is.
    """

    number: int
    own: bool
    values: dict[str, Any]
    value: float | None = None
    seconds: float = 0.0
    ref: str | None = None
    problem: str | None = None


def best_of(tried: Sequence[Tried]) -> Tried | None:
    """The trial with the highest value, the first of equals; None where all failed."""
    return max((item for item in tried if item.value is not None), key=lambda item: item.value or 0.0, default=None)


@dataclass(frozen=True)
class Report:
    """Says how a search goes, to a person line by line and in the file `out`; `rows` are those that it judges on."""

    search: Search
    trials: int
    rows: int
    out: Path
    say: Callable[[str], None]

    @property
    def metric(self) -> str:
        """The recipe's first."""
        return self.search.job.recipe.metrics[0]

    def begin(self, number: int, values: Mapping[str, Any], *, own: bool) -> None:
        """Announce a trial."""
        given = ", ".join(f"{key} {value}" for key, value in values.items())
        what = "as it is" if own else "trial"
        self.say(f"[{number}/{self.trials}] {self.search.job.recipe.name} {what}: {given} ...")

    def end(self, tried: Sequence[Tried]) -> None:
        """Say how the last trial ended, and write the best one. Raises StoreError where `out` cannot be written."""
        last, best = tried[-1], best_of(tried)
        if last.value is None:
            self.say(f"      failed: {last.problem}")
        elif best:
            far = "the best so far" if best is last else f"the best is {best.value:.4f} (trial {best.number})"
            self.say(f"      {self.metric} {last.value:.4f} after {clock(last.seconds)} of training; {far}")
        if best:
            self._write(tried, best)

    def document(self, tried: Sequence[Tried], study: Path) -> dict[str, Any]:
        """All of it, for `--json`. Raises TrainingDivergedError where every trial failed."""
        best = best_of(tried)
        if best is None:
            raise TrainingDivergedError(
                f"all {len(tried)} trials failed, the last one so: {tried[-1].problem}. Search lower rates, such as "
                "--search train.learning_rate=1e-6..1e-4"
            )
        # Another file may be asked for than the last time.
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
        beside = self.out.with_name(f".{self.out.name}.part")
        with store_errors(str(self.out)):
            beside.write_text(text, encoding="utf-8")
            beside.replace(self.out)

    def _comment(self, tried: Sequence[Tried], best: Tried) -> str:
        recipe = self.search.job.recipe
        own = next(item for item in tried if item.own)
        failed = sum(item.value is None for item in tried)
        reached = f"{self.metric} {own.value:.4f}" if own.value is not None else f"nothing ({own.problem})"
        place = f"profiles.{recipe.profile}{'.sample' if recipe.sample else ''}"
        lines = [
            f"{recipe.name}, profile {recipe.profile}{', sample data' if recipe.sample else ''}: {self.metric} "
            f"{best.value:.4f} on {self.rows:,} validation rows,",
            f"trial {best.number} of {len(tried)}, {failed} of which failed. The recipe itself reached {reached}"
            f"{', and nothing was better' if best.own else ''}.",
            "The best of many is flattered by the rows that it was chosen on, and another seed moves it, too.",
            f"On the test file: saebyeok run {recipe.name} --profile {recipe.profile} --overrides {self.out}",
            f"For every night: copy the tables into {recipe.name}.toml, [train] as [{place}.train] and so on.",
        ]
        return "".join(f"# {' '.join(line.split())}\n" for line in lines)
