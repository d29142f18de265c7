"""The gates of docs/gates.md, and how to break each in memory.

The plugin `pytest -p tests.support.gates --broken FILE TESTS` runs each proof on its broken gate. For each case of the
proof it writes to FILE whether the case noticed, and how it ended.
"""

from __future__ import annotations

import inspect
import json
import re
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from pkgutil import resolve_name
from types import FunctionType
from typing import Any

import pytest

from pipeline.errors import RejectedDataError
from pipeline.settings import ROOT

PAGE = ROOT / "docs" / "gates.md"
ROW = re.compile(r"^\| (?P<gate>[^|]+?) \|.*`(?P<proof>tests/\S+\.py::test_\w+)` \|$", re.MULTILINE)


class MisfitError(LookupError):
    """A break does not fit the code any more."""


#: How a proof fails that notices; by any other error of its own, a break or the machine may have failed instead.
NOTICED: tuple[type[BaseException], ...] = (AssertionError, pytest.fail.Exception)


@dataclass(frozen=True)
class Break:
    """In the source of the function `where` (`module:function`), `old` is there once and becomes `new`."""

    where: str
    old: str
    new: str
    #: How else the proof may notice.
    error: type[Exception] = AssertionError

    def function(self) -> FunctionType:
        """The function that is broken."""
        found = inspect.unwrap(resolve_name(self.where))
        if not isinstance(found, FunctionType):
            raise MisfitError(f"{self.where} is no function")
        return found

    def code(self) -> Any:
        """Its code once it is broken. Raises MisfitError where `old` is not there once."""
        function = self.function()
        source = textwrap.dedent(inspect.getsource(function))
        if source.count(self.old) != 1:
            raise MisfitError(f"{self.where} has {self.old!r} {source.count(self.old)} times")
        names = dict(function.__globals__)
        exec(compile(source.replace(self.old, self.new), self.where, "exec"), names)
        return inspect.unwrap(names[function.__name__]).__code__


BREAKS: dict[str, Break] = {
    "Reading": Break(
        "pipeline.data.reading:_decoded", 'content.decode("utf-8")\n', 'content.decode("utf-8", "replace")\n'
    ),
    "Suite (`expectations/`)": Break(
        "pipeline.data.expectation_suite:_finding", "passed=bool(outcome.success)", "passed=True"
    ),
    "Quarantine": Break(
        "pipeline.data.quarantine:breaking_rows",
        "for row in _to_go(split.rows, finding):",
        "for row in ():",
        RejectedDataError,
    ),
    "Quarantine's bound": Break(
        "pipeline.data.quarantine:beyond_bound", "part.count, recipe.data.quarantine)", "part.count, 0.1)"
    ),
    "Overlap": Break("pipeline.data.data_gate:_overlap_problems", "if not item.passed", "if False"),
    "Date": Break("pipeline.data.input_files:find_files", "if day < cutoff", "if day <= cutoff"),
    "Arrival": Break("pipeline.data.data_gate:_arrival_problems", 'arrivals[-1].level != "critical"', "True"),
    "Arrival, encoding": Break(
        "pipeline.data.daily_arrivals:_check",
        'usual="it can be read", level="critical"',
        'usual="it can be read", level="warning"',
    ),
    "Arrival, in the whole": Break(
        "pipeline.data.data_gate:check_data", "found := _spoilers(", "found := (lambda *_: {})("
    ),
    "Arrival, tried on the champion": Break(
        "pipeline.evaluation.champion_trial:_compare", "spec.champion.level_of(chance)", '"ok"'
    ),
    "Test rows to learn from": Break("pipeline.data.rules:checked_table", "& (not is_test)", "& False", ValueError),
    "Source": Break("pipeline.data.download:_keep", "digest != known", "False"),
    "Sides (in `tokenize`)": Break("pipeline.data.splits:split_rows", "if rows.empty:", "if False:"),
    "Divergence (in `train`)": Break(
        "pipeline.training.checkpoints:Watch.on_log", "not math.isfinite(float(values[name]))", "False"
    ),
    "Floors on the test file": Break(
        "pipeline.evaluation.promotion_gate:_floors", "passed=value >= floor", "passed=value >= floor - 0.02"
    ),
    "Answers that are no numbers (in `evaluate`)": Break(
        "pipeline.models.trained:Trained.raw_answers", "if broken.any():", "if False:", RuntimeWarning
    ),
    "Floors of the sample": Break(
        "pipeline.recipes.loading:_merged",
        "return _merge(_merge(merged, sample_table), profile_sample) if sample else merged",
        'return merged | {"gate": merged["gate"] | {"floors": dict.fromkeys(merged["gate"]["floors"], 0.01)}}',
    ),
    "Behaviour (`recipes/behaviour/`)": Break(
        "pipeline.evaluation.promotion_gate:_behaviour", "passed=value >= bound", "passed=value >= bound - 0.02"
    ),
    "Champion, on the gate rows": Break(
        "pipeline.evaluation.promotion_gate:compare",
        "worst >= -recipe.gate.margin",
        'difference["value"] >= -recipe.gate.margin',
    ),
    "Too few gate rows": Break(
        "pipeline.evaluation.promotion_gate:compare", "and len(labels) >= FEWEST", "and len(labels) >= FEWEST - 1"
    ),
    "Best before the champion": Break(
        "pipeline.store.deployments:rank_served", ".served(name)[:-1]", ".served(name)[:0]"
    ),
    "Champion that cannot be read": Break(
        "pipeline.evaluation.promotion_gate:compare_with_rivals",
        "rows = gate_rows(evaluated)\n",
        "rows = gate_rows(evaluated)\n    try: load_rival(recipe, champion)\n    except Exception: return []\n",
    ),
    "Order of data": Break("pipeline.evaluation.promotion_gate:_older", "ours is not None and ours >= theirs", "True"),
    "Sample and real data": Break(
        "pipeline.evaluation.promotion_gate:bar_challenger", "if recipe.sample and", "if False and"
    ),
    "Approval, where asked for": Break(
        "approval:Approval._reject", 'record_rejection(store, store.open(self.decided), context["run_id"], who)', "pass"
    ),
    "Parity and latency (`export`)": Break(
        "pipeline.export.convert:_write_variants", 'beyond(parity["fp16"], bounds.fp16, len(rows))', "None"
    ),
    "Nothing new in the test file (in `evaluate`)": Break(
        "pipeline.evaluation.measure:_measured", "if known.all():", "if False:", ValueError
    ),
    "Another champion since (`deploy`)": Break(
        "pipeline.deployment.deployer:Deployer._append", "releases.get(recipe) != champion", "False"
    ),
    "Golden sentences (`deploy`)": Break(
        "pipeline.deployment.deployer:Deployer._verify_live", "for release in releases:", "for _ in ():"
    ),
}


def proofs() -> dict[str, str]:
    """Each gate of the page and the test that proves it, `file::function`."""
    return {row["gate"]: row["proof"] for row in ROW.finditer(PAGE.read_text(encoding="utf-8"))}


@contextmanager
def broken(gate: str) -> Iterator[None]:
    """The gate is broken wherever its function is known."""
    function, code = BREAKS[gate].function(), BREAKS[gate].code()
    sound = function.__code__
    function.__code__ = code
    try:
        yield
    finally:
        function.__code__ = sound


@dataclass(eq=False)
class Breaker:
    """Runs each proof on its broken gate, until one of its cases fails."""

    file: Path
    gates: dict[str, str] = field(default_factory=lambda: {proof: gate for gate, proof in proofs().items()})
    found: dict[str, list[tuple[bool, str]]] = field(default_factory=dict)

    def _gate(self, item: pytest.Item) -> str:
        return self.gates[item.nodeid.partition("[")[0]]

    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        if any(noticed for noticed, _ in self.found.get(self._gate(item), ())):
            pytest.skip("another case noticed it")

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Iterator[None]:
        with broken(self._gate(item)):
            return (yield)

    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo[None]) -> None:
        if call.when == "call" and not (call.excinfo and call.excinfo.errisinstance(pytest.skip.Exception)):
            error = call.excinfo.exconly() if call.excinfo else "passed"
            gate = self._gate(item)
            noticed = bool(call.excinfo and call.excinfo.errisinstance((*NOTICED, BREAKS[gate].error)))
            self.found.setdefault(gate, []).append((noticed, error))

    def pytest_sessionfinish(self) -> None:
        self.file.write_text(json.dumps(self.found), encoding="utf-8")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--broken", type=Path, required=True, help="file for how each broken gate was noticed")


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Breaker(config.getoption("--broken")))
