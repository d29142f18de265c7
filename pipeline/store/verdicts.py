"""What people say about a model (asked, approved, rejected) and about a recipe's promotions (held, released).

A statement about a model belongs to its trained artifact and is found by the digest of the model's weights. It counts
for every decision and every release of that model. All records are append-only; the newest one counts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Literal, TypeVar

from pydantic import Field

from pipeline.errors import ArtifactError, RefusedError
from pipeline.store.artifacts import Artifact, Store
from pipeline.store.decisions import Decision, read_decision
from pipeline.store.figures import RejectionFigures
from pipeline.store.formats import Record
from pipeline.store.manifest import attempt_name
from pipeline.store.releases import find_release

VERDICTS, HOLDS = "verdicts", "holds"
#: Endings of the names of a model's text files: its configuration and its tokenizer.
TEXT_FILES = (".json", ".txt")
#: Kind of the artifacts that recorded a rejection in version 0.1. They belonged to one decision.
OLD_REJECTION = "rejection"


class Verdict(Record):
    """A statement about a model: a person was asked about it, approved it, or rejected it."""

    verdict: Literal["asked", "approved", "rejected"]
    recipe: str
    trained: str = Field(description="ref of the model's trained artifact")
    by: str | None = Field(description="the person; None if nobody answered, or for a question")
    why: str = Field(default="", description="the person's words, or the question's text")
    run: str
    created: datetime
    decided: str | None = Field(default=None, description="ref of the decision that the person saw")
    deadline: datetime | None = Field(default=None, description="end of the time to answer, for a question")
    link: str | None = Field(default=None, description="URL where to answer, for a question")

    def __str__(self) -> str:
        """Return the statement as part of a sentence, such as "kim rejected it in run r (wrong data)"."""
        if self.verdict == "asked":
            return f"run {self.run} asked for approval, and nobody has approved it yet"
        if self.by is None:
            return f"{self.why} in run {self.run}"
        return f"{self.by} {self.verdict} it in run {self.run}{f' ({self.why})' if self.why else ''}"

    @property
    def bars(self) -> bool:
        """Whether the model may not be promoted: it was rejected, or a person was asked and has not answered."""
        return self.verdict != "approved"


class Hold(Record):
    """The promotions of a recipe were stopped (`held`) or resumed."""

    recipe: str
    held: bool
    by: str | None
    why: str
    created: datetime

    def __str__(self) -> str:
        """Return the state as a sentence without a full stop."""
        who = f", by {self.by}" if self.by else ""
        why = f" ({self.why})" if self.why else ""
        state = "is on hold" if self.held else "is not on hold"
        return f"promotion of {self.recipe} {state} since {self.created:%Y-%m-%d %H:%M} UTC{who}{why}"


AnyRecord = TypeVar("AnyRecord", Verdict, Hold)


def model_of(artifact: Artifact) -> Artifact:
    """Return the trained artifact of a release, decision or evaluation, or `artifact` itself if it is one.

    Raises ArtifactError if `artifact` is none of these, or if an input on the way to the trained artifact no longer
    exists.
    """
    if artifact.manifest.kind == "train":
        return artifact
    return artifact.input("trained") if artifact.input_ref("trained") else artifact.input("evaluated").input("trained")


def find_model(store: Store, recipe: str, name: str | None) -> Artifact:
    """Return the trained artifact behind the ref or release id `name`, or behind the newest decision of `recipe`.

    Raises ArtifactError if there is none, or if `name` belongs to another recipe.
    """
    artifact = find_release(store, name) if name else store.newest("decide", recipe)
    if artifact is None:
        raise ArtifactError(f"store {store.uri} has no decision of {recipe} yet; run `saebyeok run {recipe}` first")
    if artifact.manifest.recipe != recipe:
        raise ArtifactError(f"{artifact.ref} belongs to recipe {artifact.manifest.recipe}; name a model of {recipe}")
    return model_of(artifact)


def record_verdict(
    trained: Artifact, verdict: Literal["asked", "approved", "rejected"], *, by: str | None, run: str, **details: Any
) -> Verdict:
    """Record a statement about the model of `trained`; `details` are further fields of `Verdict`."""
    recipe, now = trained.manifest.recipe, datetime.now(UTC)
    statement = Verdict(verdict=verdict, recipe=recipe, trained=trained.ref, by=by, run=run, created=now, **details)
    return _create(trained.store, f"{VERDICTS}/{recipe}/{_digest(trained)}", statement)


def record_silence(trained: Artifact, run: str, why: str, decided: str) -> Verdict:
    """Record that nobody answered the question of `run`, unless a person has spoken about the model since then.

    If another run has asked since then, its question stays open. Return the statement that counts.
    """
    known = find_verdict(trained)
    if known and (known.verdict, known.run) != ("asked", run):
        return known
    return record_verdict(trained, "rejected", by=None, run=run, why=why, decided=decided)


def find_verdict(trained: Artifact) -> Verdict | None:
    """Return the newest statement about the model of `trained`, or None.

    Models with the same weights are the same model, also if the training was repeated or labels were renamed.
    """
    store, recipe = trained.store, trained.manifest.recipe
    # Until November 2026, statements were kept under the digest of all files of the model.
    digests = (_digest(trained), _digest(trained, ignored=()))
    found = [_newest(store, f"{VERDICTS}/{recipe}/{digest}", Verdict) for digest in digests]
    found += _old_rejections(trained)
    return max(filter(None, found), key=lambda statement: statement.created, default=None)


def find_bar(decided: Artifact, decision: Decision) -> Verdict | None:
    """Return the statement that bars the model of `decision` from promotion, or None.

    The champion's own model can be barred, too: another release of it may be what a person rolled back from.
    """
    if not (decision.promote or decision.needs_person):
        return None
    verdict = find_verdict(model_of(decided))
    return verdict if verdict and verdict.bars else None


def find_waiver(decided: Artifact, decision: Decision) -> Verdict | None:
    """Return a person's approval of a model that cannot be compared with the champion, or None.

    An approval counts only if it was given after the decision, when the person could know its result.
    """
    verdict = find_verdict(model_of(decided)) if decision.needs_person else None
    given = verdict and verdict.verdict == "approved" and verdict.created >= decided.manifest.created
    return verdict if given else None


def asked_before(decided: Artifact) -> bool:
    """Return whether an earlier decision about the same evaluation found, too, that only a person may approve it."""
    store = decided.store
    for ref in store.refs("decide", decided.manifest.recipe):
        try:
            other = store.open(ref)
            same = ref != decided.ref and other.input_ref("evaluated") == decided.input_ref("evaluated")
            if same and read_decision(other).needs_person:
                return True
        except ArtifactError:
            continue
    return False


def check_verdicts(store: Store, decided: Artifact, decision: Decision) -> None:
    """Raise RefusedError if the model that `decision` would promote is barred, or its recipe is on hold."""
    recipe = decided.manifest.recipe
    if hold := find_hold(store, recipe):
        raise RefusedError(f"{hold}. To resume: `saebyeok release {recipe}`")
    if bar := find_bar(decided, decision):
        raise RefusedError(
            f"{bar}, so the model is not deployed. To deploy it: `saebyeok approve {recipe} --model {bar.trained}`, "
            "then run again"
        )


def check_asked(decided: Artifact, decision: Decision) -> None:
    """Raise RefusedError if a run that asks for approval would promote a model about which nobody was ever asked.

    That is so if a person marked the task `approve` as success before it ran.
    """
    if not decision.is_champion and find_verdict(model_of(decided)) is None:
        recipe = decided.manifest.recipe
        raise RefusedError(
            "this run asks for approval, and nobody was asked about the model. Clear the task `approve`, or run "
            f"`saebyeok approve {recipe} --model {decided.ref}` and clear this task"
        )


def open_questions(store: Store, now: datetime) -> Iterator[Verdict]:
    """Yield the questions that a person can still answer `now` (UTC), by recipe."""
    for recipe in store.list(VERDICTS):
        for model in store.list(f"{VERDICTS}/{recipe}"):
            verdict = _newest(store, f"{VERDICTS}/{recipe}/{model}", Verdict)
            if verdict and verdict.verdict == "asked" and verdict.deadline and now < verdict.deadline:
                yield verdict


def change_hold(store: Store, recipe: str, *, held: bool, by: str | None, why: str) -> Hold:
    """Stop the promotions of a recipe, or resume them. Raises RefusedError if there is nothing to resume."""
    if not held and find_hold(store, recipe) is None:
        raise RefusedError(f"promotion of {recipe} is not on hold")
    hold = Hold(recipe=recipe, held=held, by=by, why=why, created=datetime.now(UTC))
    return _create(store, f"{HOLDS}/{recipe}", hold)


def find_hold(store: Store, recipe: str) -> Hold | None:
    """Return the hold of a recipe, or None if its promotions are not stopped."""
    hold = _newest(store, f"{HOLDS}/{recipe}", Hold)
    return hold if hold and hold.held else None


def _create(store: Store, folder: str, record: AnyRecord) -> AnyRecord:
    content = record.model_dump_json(indent=1).encode()
    while not store.create(f"{folder}/{attempt_name(store.list(folder), record.created)}.json", content):
        pass  # another process took the name
    return record


def _newest(store: Store, folder: str, model: type[AnyRecord]) -> AnyRecord | None:
    """Return the newest record in `folder`. Raises ArtifactError if it is damaged: a verdict must not get lost."""
    names = store.list(folder)
    if not names:
        return None
    ref = f"{folder}/{names[-1]}"
    try:
        return model.parse(store.read(ref) or b"", store.address(ref))
    except ValueError as error:
        raise ArtifactError(f"{store.address(ref)} is damaged: {error}") from error


def _digest(trained: Artifact, ignored: tuple[str, ...] = TEXT_FILES) -> str:
    """Return 16 hex digits of the SHA-256 of the model's weights: of all files without the endings `ignored`.

    Its configuration, in text files, changes with the names of labels and the version of transformers.
    """
    files = trained.manifest.files.items()
    weights = sorted((name, entry.sha256) for name, entry in files if not name.endswith(ignored))
    return hashlib.sha256(repr(weights).encode()).hexdigest()[:16]


def _old_rejections(trained: Artifact) -> Iterator[Verdict]:
    """Yield the rejections of the model by version 0.1.

    A rejection is skipped if the inputs of its decision no longer exist, because they identify its model.
    """
    store, recipe = trained.store, trained.manifest.recipe
    for ref in store.refs(OLD_REJECTION, recipe):
        try:
            rejection = store.open(ref)
            decided = rejection.input("decided")
            model = model_of(decided)
        except ArtifactError:
            continue
        if _digest(model) == _digest(trained):
            # "kim rejected it", or "nobody answered within 12 hours".
            who, said, _ = RejectionFigures.read(rejection).by.partition(" rejected it")
            yield Verdict(
                verdict="rejected",
                recipe=recipe,
                trained=model.ref,
                by=who if said else None,
                why="" if said else who,
                run=rejection.manifest.run,
                created=rejection.manifest.created,
                decided=decided.ref,
            )
