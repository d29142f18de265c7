"""Random nights, people, rollbacks and deletions, and an independent account of what the gates promise about them.

The machine drives the real store, gate, verdicts, deployments and retention. Only the models are not trained: a trained
artifact holds its answers. It keeps its own books (`paths`, `barred`, `outdated`) and compares the store with them.
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from pipeline.deployment.deployer import rollback
from pipeline.deployment.retention import delete_outdated, find_outdated
from pipeline.errors import ConflictError, PrunedError, RefusedError, SaebyeokError
from pipeline.job import Job, open_store
from pipeline.recipes.loading import load_recipe
from pipeline.recipes.schema import Recipe
from pipeline.settings import load_settings
from pipeline.stages.decide import decide
from pipeline.stages.deploy import deploy
from pipeline.store.artifacts import Artifact
from pipeline.store.decisions import Decision, read_decision
from pipeline.store.deployments import DeploymentLog
from pipeline.store.verdicts import change_hold, record_silence, record_verdict
from tests.support.families import made
from tests.support.remembering import (
    FIRST,
    START,
    TEXTS,
    MadeModel,
    gate_rows_of,
    make_model,
    recipe_with,
    validated_on,
)

#: Deployments that retention keeps.
KEPT = 2

#: Texts that a model answers wrong.
WRONG = st.frozensets(st.sampled_from(TEXTS), max_size=12)

Person = Literal["nobody", "approves", "rejects", "is silent"]
PERSONS: tuple[Person, ...] = ("nobody", "approves", "approves", "rejects", "is silent")


@dataclass(frozen=True)
class ServedModel:
    """A deployment's model and release; `waived` if a person let it pass although it could not be compared."""

    model: MadeModel
    release: str
    waived: bool


class Promises(RuleBasedStateMachine):
    """The nights of one recipe in a store of its own; `release_files` are those of any working release."""

    def __init__(self, release_files: Path) -> None:
        super().__init__()
        self.home = Path(tempfile.mkdtemp(prefix="promises-"))
        kept = {"home": self.home, "keep_deployments": KEPT, "keep_days": 0.0}
        self.settings = load_settings().model_copy(update=kept)
        self.store = open_store(self.settings)
        self.release_files = release_files
        self.recipe = recipe_with(load_recipe("nsmc", "embedded"), margin=0.1, names=0, mapped=False)
        self.names, self.day, self.runs, self.held = 0, 0, 0, False
        self.validated: dict[int, Artifact] = {}
        self.models: list[MadeModel] = []
        self.decided: list[tuple[MadeModel, Artifact, Recipe]] = []
        #: By deployment, the deployments that led to it.
        self.paths: dict[int, tuple[ServedModel, ...]] = {0: ()}
        #: Releases that retention could delete.
        self.outdated: set[str] = set()
        #: By content of a model, whether a person's newest word bars it.
        self.barred: dict[Any, bool] = {}

    def teardown(self) -> None:
        shutil.rmtree(self.home, ignore_errors=True)

    @property
    def path(self) -> tuple[ServedModel, ...]:
        return self.paths[max(self.paths)]

    # --- nights ---

    @rule(
        wrong=WRONG,
        worse=st.sampled_from((0, 3, 4)),
        passed=st.sampled_from((1, 1, 0)),
        back=st.sampled_from((0, 0, 0, 1, 3)),
    )
    def night(self, wrong: frozenset[str], worse: int, passed: int, back: int) -> None:
        """Train a model `passed` days after the last one; a backfill has the data of `back` days ago.

        If it is not 0, the model is wrong about `worse` texts more than the live one, as in a slow loss.
        """
        if worse and self.path:
            known = self.path[-1].model.wrong
            wrong = known | frozenset([text for text in TEXTS[:FIRST] if text not in known][:worse])
        self.day += passed
        self._new_model(wrong, max(0, self.day - back), 1.0, good=True, person="nobody")

    @rule(
        wrong=WRONG,
        again=st.booleans(),
        good=st.sampled_from((*[True] * 9, False)),
        share=st.sampled_from((1.0, 0.7)),
        person=st.sampled_from(PERSONS),
    )
    def unusual_night(self, wrong: frozenset[str], again: bool, good: bool, share: float, person: Person) -> None:
        """Train a model, or the same weights `again`, with another gate share, a failed threshold, or an approval."""
        if again and self.models:
            wrong = self.models[-1].wrong
        self.day += 1
        self._new_model(wrong, self.day, share, good=good, person=person)

    @precondition(lambda self: self.models)
    @rule(number=st.integers(0, 50), late=st.booleans(), person=st.sampled_from(PERSONS))
    def earlier_run_comes_again(self, number: int, late: bool, person: Person) -> None:
        """Deploy an earlier decision, as a task that was cleared does, or decide about an earlier model again."""
        if late:
            self._deploy(*self.decided[number % len(self.decided)])
        else:
            self._judged(self.models[number % len(self.models)], self.day, person)

    # --- people ---

    @precondition(lambda self: self.models)
    @rule(
        number=st.integers(0, 50),
        action=st.sampled_from(("approve", "reject", "hold", "margin", "labels", "renamed labels")),
        margin=st.sampled_from((0.06, 0.1, 0.2)),
    )
    def person_acts(self, number: int, action: str, margin: float) -> None:
        if action in {"approve", "reject"}:
            self._say(self.models[number % len(self.models)], action)
        elif action == "hold":
            self.held = not self.held
            change_hold(self.store, self.recipe.name, held=self.held, by="kim", why="")
        elif action == "margin":
            mapped = bool(self.recipe.renamed_labels)
            self.recipe = recipe_with(self.recipe, margin=margin, names=self.names, mapped=mapped)
        else:
            self.names = 1 - self.names
            mapped = action == "renamed labels"
            self.recipe = recipe_with(self.recipe, margin=margin, names=self.names, mapped=mapped)

    @precondition(lambda self: self.path)
    @rule(number=st.integers(0, 50), any_number=st.booleans())
    def rollback_by_person(self, number: int, any_number: bool) -> None:
        """Go back to the deployment that was live before, or to any that is kept, if there is one."""
        if not any_number:
            self._step_back()
            return
        number = 1 + number % max(self.paths)
        target = self.paths[number]
        if target[-1].release == self.path[-1].release:
            self._expect_refusal(number)
        elif number in self._kept():
            self._rolled_back(number, target)

    @precondition(lambda self: self.path)
    @rule()
    def old_artifacts_are_deleted(self) -> None:
        self.outdated |= {live.release for path in self.paths.values() for live in path} - self._promised()
        delete_outdated(self.store, self.settings, find_outdated(self.store, self.settings))
        for ref in self._promised() - self.outdated:
            self._complete(ref)

    # --- promises ---

    @invariant()
    def live_release_is_the_expected_one(self) -> None:
        latest = DeploymentLog(self.store).latest()
        served = latest.releases.get(self.recipe.name) if latest else None
        assert served == (self.path[-1].release if self.path else None)

    def _check_promotion(self, model: MadeModel, recipe: Recipe, decision: Decision) -> None:
        assert not self.held, "promoted while the recipe was on hold"
        assert not self.barred.get(model.content, False), "a rejected model is served"
        if not decision.promote:
            return  # A person let it pass.
        accepted = max((place for place, live in enumerate(self.path) if live.waived), default=0)
        share = min((score.held_out for score in decision.scores), default=model.share)
        for live in self.path[accepted:]:
            other = live.model
            assert other.names == model.names or recipe.renamed_labels, "compared with other labels"
            rows = set(gate_rows_of(model.day, share))
            behind = (len(model.wrong & rows) - len(other.wrong & rows)) / len(rows)
            assert behind <= recipe.gate.margin, f"worse by {behind} than an earlier model on the same rows"

    def _kept(self) -> set[int]:
        """Return the numbers of the newest deployments, which can be restored."""
        return {number for number in self.paths if number > max(0, max(self.paths) - KEPT)}

    def _promised(self) -> set[str]:
        """Return the releases that must be in the store: of the newest deployments, and of the next step back.

        After several steps back the next one may be outdated already: retention does not know how far people go back.
        """
        return {self.paths[number][-1].release for number in self._kept()} | {live.release for live in self.path[-2:]}

    def _complete(self, ref: str) -> None:
        """Check that a release and all that it was made from are in the store, with their files."""
        artifact = self.store.open(ref)
        assert all((artifact.path / name).is_file() for name in artifact.manifest.files)
        for item in artifact.manifest.inputs.values():
            self._complete(item.ref)

    # --- steps ---

    def _new_model(self, wrong: frozenset[str], day: int, share: float, *, good: bool, person: Person) -> None:
        if day not in self.validated or not self._readable(self.validated[day].ref):
            self.validated[day] = validated_on(self.store, day)
        model = make_model(self.validated[day], wrong, self.names, day, share, good=good)
        self.models.append(model)
        self._judged(model, day, person)

    def _say(self, model: MadeModel, action: str) -> None:
        try:
            trained = model.trained
        except PrunedError:
            return
        record_verdict(trained, "rejected" if action == "reject" else "approved", by="kim", run="by-hand", why="")
        self.barred[model.content] = action == "reject"

    def _job(self, day: int, recipe: Recipe) -> Job:
        self.runs += 1
        cutoff = START + timedelta(days=day + 1)
        return Job(recipe, self.settings, self.store, f"run-{self.runs}", cutoff=cutoff)

    def _readable(self, ref: str) -> bool:
        try:
            self.store.open(ref)
        except PrunedError:
            return False
        return True

    def _judged(self, model: MadeModel, day: int, person: Person) -> None:
        """Decide about a model, ask a person if there is one, and deploy it if it may be."""
        if not self._readable(model.evaluated.ref):
            return
        job = self._job(day, self.recipe)
        champion = DeploymentLog(self.store).champion(self.recipe.name)
        decided = decide(job, model.evaluated, champion)
        decision = read_decision(decided)
        self.decided.append((model, decided, self.recipe))
        if person != "nobody" and (decision.promote or decision.needs_person):
            self._ask(model, decided, job.run, person)
        self._deploy(model, decided, self.recipe)

    def _ask(self, model: MadeModel, decided: Artifact, run: str, person: Person) -> None:
        record_verdict(model.trained, "asked", by=None, run=run, decided=decided.ref)
        if person == "is silent":
            record_silence(model.trained, run, "nobody answered", decided.ref)
        else:
            answer: Literal["approved", "rejected"] = "approved" if person == "approves" else "rejected"
            record_verdict(model.trained, answer, by="kim", run=run, why="")
        self.barred[model.content] = person != "approves"

    def _deploy(self, model: MadeModel, decided: Artifact, recipe: Recipe) -> None:
        if not self._readable(model.evaluated.ref):
            return
        latest = DeploymentLog(self.store).latest()
        decision = read_decision(decided)
        release = self._release(model)
        try:
            record = deploy(self._job(self.day, recipe), release, decided, require_service=False)
        except (RefusedError, ConflictError):
            assert DeploymentLog(self.store).latest() == latest
            return
        if latest is not None and record.number == latest.number:
            return
        self._check_promotion(model, recipe, decision)
        self.paths[record.number] = (*self.path, ServedModel(model, release.ref, not decision.promote))

    def _release(self, model: MadeModel) -> Artifact:
        """Publish the release of a model, or find it again."""
        for ref in self.store.refs("release", self.recipe.name):
            release = self.store.open(ref)
            if release.input_ref("evaluated") == model.evaluated.ref:
                return release
        links = {"trained": model.trained, "evaluated": model.evaluated}
        files = {file.name: file.read_bytes() for file in self.release_files.iterdir() if file.name != "manifest.json"}
        return made(self.store, "release", files=files, **links)

    def _rolled_back(self, number: int | None, target: tuple[ServedModel, ...]) -> None:
        left = self.path[-1].model
        record = rollback(self.settings, self.store, f"back-{len(self.paths)}", number, by="kim")
        wanted = {self.recipe.name: target[-1].release}
        assert record.releases == wanted, "a rollback led to another deployment than the one that was live before"
        assert record.intent == "rollback"
        self.paths[record.number] = target
        self.barred[left.content] = True
        if self.barred.get(target[-1].model.content, False):
            self.barred[target[-1].model.content] = False

    def _step_back(self) -> None:
        if len(self.path) < 2:
            self._expect_refusal(None)
        elif self.path[-2].release in self.outdated and not self._readable(self.path[-2].release):
            self._expect_refusal(None, PrunedError)
        else:
            self._rolled_back(None, self.path[:-1])

    def _expect_refusal(self, number: int | None, error: type[SaebyeokError] = RefusedError) -> None:
        try:
            rollback(self.settings, self.store, f"back-{len(self.paths)}", number, by="kim")
        except error:
            return
        raise AssertionError("a rollback without a target was not refused")
