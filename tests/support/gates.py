"""The gates of docs/reference/gates.md, and how to break each in memory.

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

from pipeline.config_file import ROOT
from pipeline.errors import ArtifactError, RejectedDataError, ServiceError

PAGE = ROOT / "docs" / "reference" / "gates.md"
PROOF = re.compile(r"\| `(tests/\S+\.py)::(test_\w+)` \|$", re.MULTILINE)


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


#: By the name of the test that proves the gate.
BREAKS: dict[str, Break] = {
    "test_what_cannot_be_read_stops_the_run": Break(
        "pipeline.data.formats:_decoded", "content.decode(encoding)\n", 'content.decode(encoding, "replace")\n'
    ),
    "test_file_breaks_exactly_the_intended_rules": Break(
        "pipeline.data.expectation_suite:_finding", "passed=bool(outcome.success)", "passed=True"
    ),
    "test_rows_without_text_or_label_are_set_aside": Break(
        "pipeline.data.rules:_invariants", "if broken:", "if False:", ValueError
    ),
    "test_bad_reviews_are_set_aside_with_rule": Break(
        "pipeline.data.quarantine:breaking_rows",
        "for row in _to_go(split.rows, finding):",
        "for row in ():",
        RejectedDataError,
    ),
    "test_too_many_bad_rows_stop_the_run": Break(
        "pipeline.data.quarantine:beyond_bound", "most_aside(recipe, part)", "9 * most_aside(recipe, part)"
    ),
    "test_beyond_the_recipes_bounds_the_run_stops": Break(
        "pipeline.data.data_gate:_overlap_problems", "if not item.passed", "if False"
    ),
    "test_run_knows_only_arrivals_before_its_day": Break(
        "pipeline.data.input_files:find_files", "if day < cutoff", "if day <= cutoff"
    ),
    "test_unusual_day_stops_its_run_and_is_skipped": Break(
        "pipeline.data.data_gate:_arrival_problems", 'arrivals[-1].level != "critical"', "True"
    ),
    "test_small_effect_is_never_critical": Break(
        "pipeline.recipes.data_schema:Chances.level_of", "and not effect < self.effect", ""
    ),
    "test_lasting_change_is_usual_after_one_acceptance": Break(
        "pipeline.data.arrival_checks:_Known.add", "if accepted or self.since:", "if False:"
    ),
    "test_unusable_rows_follow_the_quarantine_bound": Break(
        "pipeline.data.input_files:most_aside",
        "most_of(part.count, recipe.data.quarantine)",
        "int(part.count * recipe.data.quarantine)",
    ),
    "test_name_that_is_not_a_date_and_the_suffix_is_ignored": Break(
        "pipeline.data.input_files:_day_of", "{re.escape(suffix)}", r"(\.\w+)"
    ),
    "test_days_that_vanish_are_named": Break(
        "pipeline.stages.validate:_gone_days", "return sorted(dates - there)", "return []", ValueError
    ),
    "test_unfinished_day_waits_for_the_next_run": Break(
        "pipeline.data.input_files:find_files", "if _look(path) == looks[path]:", "if True:"
    ),
    "test_file_that_grows_after_it_was_read_is_used_as_read": Break(
        "pipeline.data.input_files:read_part", "file.content", "file.path.read_bytes()"
    ),
    "test_unreadable_day_stops_its_run": Break(
        "pipeline.data.arrival_checks:_check",
        'usual="it can be read", level="critical"',
        'usual="it can be read", level="warning"',
    ),
    "test_day_that_breaks_combined_rules_is_left_out": Break(
        "pipeline.data.data_gate:check_data", "found := _spoilers(", "found := (lambda *_: {})("
    ),
    "test_only_champion_detects_balanced_day_with_swapped_labels": Break(
        "pipeline.evaluation.champion_trial:_compare",
        "Measure.of(shift, spec.champion)",
        'Measure.of(shift, spec.champion).model_copy(update={"level": "ok"})',
    ),
    "test_train_row_with_test_id_is_set_aside": Break(
        "pipeline.data.rules:checked_table", "& (not is_test)", "& False", ValueError
    ),
    "test_file_with_another_checksum_is_refused": Break("pipeline.data.download:_keep", "digest != known", "False"),
    "test_empty_split_error_says_what_to_do": Break("pipeline.data.splits:split_rows", "if rows.empty:", "if False:"),
    "test_near_copies_are_never_on_two_sides": Break(
        "pipeline.data.splits:split_rows", "near_key(item) for item in texts", "str(item) for item in texts"
    ),
    "test_unknown_share_is_bounded_in_every_split": Break(
        "pipeline.stages.tokenize:_check_unknown", "for name in ENCODED_SPLITS", 'for name in ("train",)'
    ),
    "test_nan_loss_stops_training_for_good": Break(
        "pipeline.training.checkpoints:CheckpointCallback.on_log", "not math.isfinite(float(values[name]))", "False"
    ),
    "test_floor_just_below_refuses_and_reached_promotes": Break(
        "pipeline.evaluation.promotion_gate:_thresholds", "figure.value >= floor", "figure.value >= floor - 0.02"
    ),
    "test_thresholds_apply_to_texts_that_train_lacks": Break(
        "pipeline.evaluation.promotion_gate:_thresholds",
        "figures.test_without_train_texts[metric]",
        "figures.test[metric]",
    ),
    "test_model_with_nan_answers_is_not_evaluated": Break(
        "pipeline.tasks.trained:Trained.raw_answers", "if broken.any():", "if False:", RuntimeWarning
    ),
    "test_same_answer_for_all_fails_floors_and_behaviour": Break(
        "pipeline.recipes.loading:_merged",
        "return _merge(_merge(merged, sample_table), profile_sample) if sample else merged",
        'return merged | {"gate": merged["gate"] | {"floors": dict.fromkeys(merged["gate"]["floors"], 0.01)}}',
    ),
    "test_behaviour_just_below_refuses_and_reached_promotes": Break(
        "pipeline.evaluation.promotion_gate:_behaviour", "rate.value >= bound", "rate.value >= bound - 0.02"
    ),
    "test_compare_refuses_three_losses_in_two_hundred": Break(
        "pipeline.evaluation.promotion_gate:compare",
        "worst >= -recipe.gate.margin",
        "difference.value >= -recipe.gate.margin",
    ),
    "test_compare_needs_thirty_rows": Break(
        "pipeline.evaluation.promotion_gate:compare", "and len(labels) >= FEWEST", "and len(labels) >= FEWEST - 1"
    ),
    "test_small_losses_in_a_row_cannot_add_up": Break(
        "pipeline.evaluation.earlier_releases:_Search._path", ".served(recipe)", ".served(recipe)[-1:]"
    ),
    "test_best_is_the_best_on_todays_rows": Break(
        "pipeline.evaluation.earlier_releases:find_rivals", "best = max(ranked", "best = min(ranked"
    ),
    "test_rows_that_the_champion_was_trained_on_do_not_count": Break(
        "pipeline.evaluation.earlier_releases:find_rivals",
        "search.places < share",
        "search.places < 1.0",
    ),
    "test_few_rows_of_an_earlier_release_need_a_person": Break(
        "pipeline.evaluation.earlier_releases:_Search._candidate",
        " and _accepted_over(self._job.store, recipe.name, path)",
        "",
    ),
    "test_unreadable_champion_stops_the_gate": Break(
        "pipeline.evaluation.promotion_gate:compare_with_rivals",
        "    recipe = job.recipe\n",
        "    recipe = job.recipe\n"
        "    try: predictions_of(recipe, champion, rivals.gate, AnswerCache.of(job))\n"
        "    except Exception: return Compared()\n",
    ),
    "test_older_data_never_overtake_the_champion": Break(
        "pipeline.evaluation.promotion_gate:_older", "ours is not None and ours >= theirs", "True"
    ),
    "test_sample_never_replaces_real_data": Break(
        "pipeline.evaluation.promotion_gate:bar_challenger", "if recipe.sample and", "if False and"
    ),
    "test_other_task_or_labels_need_a_person": Break(
        "pipeline.evaluation.champions:other_task", "labels != set(recipe.labels)", "False", ArtifactError
    ),
    "test_older_model_never_returns_on_the_same_data": Break(
        "pipeline.evaluation.promotion_gate:_replaced", "attempt_of(ours) >= attempt_of(theirs)", "True"
    ),
    "test_rejection_follows_the_model_to_other_decisions": Break(
        "pipeline.store.verdicts:find_verdict", "(_digest(trained), _digest(trained, ignored=()))", "(trained.key,)"
    ),
    "test_success_without_an_answer_is_no_approval": Break(
        "pipeline.store.verdicts:find_bar", "verdict.bars", 'verdict.verdict == "rejected"'
    ),
    "test_rollback_rejects_the_model_that_it_leaves": Break(
        "pipeline.deployment.deployer:Deployer._judge", "for model in self._models(left):", "for model in ():"
    ),
    "test_release_rolled_back_from_does_not_return": Break(
        "pipeline.store.verdicts:find_bar", "if not (", "if decision.is_champion or not ("
    ),
    "test_rollback_after_two_failures_skips_both": Break(
        "pipeline.store.deployments:_continued", "earlier.number not in undone", "True"
    ),
    "test_rollback_to_a_deleted_release_is_undone": Break(
        "pipeline.deployment.deployer:Deployer._verify_live", "self.store.open(release.ref)", "pass"
    ),
    "test_deploy_refuses_what_nobody_was_asked_about": Break(
        "pipeline.store.verdicts:check_asked", "find_verdict(model_of(decided)) is None", "False", ServiceError
    ),
    "test_accepted_content_that_arrives_again_is_not_accepted": Break(
        "pipeline.store.acceptances:find_acceptances", "if _accepted(item) == fields", "if True"
    ),
    "test_champion_of_another_kind_is_not_tried": Break(
        "pipeline.evaluation.champion_trial:try_champion", "is_other_kind(job.recipe, champion)", "False", ArtifactError
    ),
    "test_hold_stops_deployments_but_no_rollback": Break(
        "pipeline.store.verdicts:check_verdicts", "if hold := find_hold(store, recipe):", "if hold := None:"
    ),
    "test_newer_format_is_named_with_what_to_do": Break(
        "pipeline.store.formats:_check_format", "written > newest", "False", ValueError
    ),
    "test_spelling_that_may_mean_two_classes_means_none": Break(
        "pipeline.recipes.kinds.classification:_numbers", "{number, *_numbers_in(name)}", "{number}"
    ),
    "test_champion_with_renamed_labels_is_tried": Break(
        "pipeline.recipes.schema:Recipe.names_now", "self.renamed_labels.get(name, name)", "name"
    ),
    "test_rows_without_an_id_repeat_no_row": Break("pipeline.data.arrival_checks:_ids", ".dropna()", ""),
    "test_word_of_a_person_while_staging_counts": Break(
        "pipeline.deployment.deployer:Deployer.replace", "check()\n", "pass\n"
    ),
    "test_model_that_is_needed_while_deleting_stays": Break(
        "pipeline.deployment.retention:_recorded", "(DEPLOYMENTS, DECIDE, VERDICTS)", "(DEPLOYMENTS,)"
    ),
    "test_rollback_while_deleting_keeps_its_release": Break(
        "pipeline.deployment.retention:delete_outdated", "if _recorded(store) != newest.recorded:", "if False:"
    ),
    "test_backfilled_run_does_not_start_from_the_future": Break(
        "pipeline.stages.train:_start", "seen.newest >= job.cutoff", "False"
    ),
    "test_chain_of_started_trainings_does_not_stay": Break(
        "pipeline.deployment.retention:_needs",
        "return artifact.made_from",
        "return [item.ref for item in artifact.manifest.inputs.values()]",
    ),
    "test_rejected_model_is_remembered_told_and_skipped": Break(
        "pipeline.store.verdicts:find_bar", "verdict if verdict and verdict.bars else None", "None"
    ),
    "test_fp16_beyond_its_bound_is_not_released": Break(
        "pipeline.export.convert:_write_variants", 'beyond(parity["fp16"], bounds.fp16, len(rows))', "None"
    ),
    "test_a_test_file_of_nothing_new_is_refused": Break(
        "pipeline.evaluation.measure:_measured", "if known.all():", "if False:", RuntimeWarning
    ),
    "test_champion_that_changes_while_staging_is_not_overwritten": Break(
        "pipeline.deployment.deployer:Deployer._append", "releases.get(recipe) != champion", "False"
    ),
    "test_public_route_with_old_release_undoes_deployment": Break(
        "pipeline.deployment.deployer:_serves", "for card in cards:", "for card in ():"
    ),
}


def proofs() -> dict[str, str]:
    """The tests that prove the gates of the page: name to file."""
    return {name: file for file, name in PROOF.findall(PAGE.read_text(encoding="utf-8"))}


@contextmanager
def broken(proof: str) -> Iterator[None]:
    """Break the gate of a proof, wherever its function is known."""
    function, code = BREAKS[proof].function(), BREAKS[proof].code()
    sound = function.__code__
    function.__code__ = code
    try:
        yield
    finally:
        function.__code__ = sound


@dataclass(eq=False)
class Breaker:
    """Runs each proof on its broken gate, until one of its cases notices."""

    file: Path
    ends: dict[str, list[tuple[bool, str]]] = field(default_factory=dict)

    def pytest_runtest_setup(self, item: pytest.Function) -> None:
        if any(noticed for noticed, _ in self.ends.get(item.originalname, ())):
            pytest.skip("another case noticed it")

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Function) -> Iterator[None]:
        with broken(item.originalname):
            return (yield)

    def pytest_runtest_makereport(self, item: pytest.Function, call: pytest.CallInfo[None]) -> None:
        if call.when == "call":
            errors = (*NOTICED, BREAKS[item.originalname].error)
            noticed = bool(call.excinfo and call.excinfo.errisinstance(errors))
            end = call.excinfo.exconly() if call.excinfo else "passed"
            self.ends.setdefault(item.originalname, []).append((noticed, end))

    def pytest_sessionfinish(self) -> None:
        self.file.write_text(json.dumps(self.ends), encoding="utf-8")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--broken", type=Path, required=True, help="file for how each broken gate was noticed")


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Breaker(config.getoption("--broken")))
