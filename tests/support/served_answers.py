"""The right answers to the users of `hammering`, computed from the files of the release that each answer names."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pipeline.store.artifacts import Artifact, Store
from pipeline.store.decisions import read_decision
from pipeline.store.deployments import DeploymentLog
from pipeline.store.releases import read_card, release_id
from serving.engine.engine import Engine, EngineOptions
from serving.engine.golden import engine_answers
from tests.support.crowd import TimedAnswer
from tests.support.deploying import TEXTS


@dataclass(frozen=True)
class RightAnswer:
    """Probabilities of `positive`, one per text, and the difference that other variants of the model may have."""

    values: tuple[float, ...]
    tolerance: float

    def allows(self, values: Sequence[float]) -> bool:
        """Return whether an answer is this one."""
        return all(abs(one - other) <= self.tolerance for one, other in zip(self.values, values, strict=True))


def right_answer(release: Artifact) -> RightAnswer:
    """Return the answer of a release, computed in this process."""
    engine = Engine(release.path, EngineOptions(device="cpu", threads=1))
    ask, positive = engine_answers(engine), engine.card.labels.index("positive")
    return RightAnswer(tuple(ask([(text,)])[0][positive] for text in TEXTS), engine.card.golden_tolerance)


def deployed(store: Store, recipe: str = "nsmc") -> dict[str, str]:
    """Return the refs of all releases in the log of deployments, by id, the first one first."""
    log = DeploymentLog(store)
    refs = [log.get(number).releases.get(recipe) for number in log.numbers()]
    return {release_id(store, ref): ref for ref in refs if ref}


def promoted(store: Store, recipe: str = "nsmc") -> set[str]:
    """Return the ids of the releases whose models have passed every gate."""
    decisions = map(store.open, store.refs("decide", recipe))
    models = {decision.input_ref("evaluated") for decision in decisions if read_decision(decision).promote}
    releases = map(store.open, store.refs("release", recipe))
    return {read_card(release).id for release in releases if release.input_ref("evaluated") in models}


def wrong_answers(store: Store, seen: Iterable[TimedAnswer], recipe: str = "nsmc") -> list[TimedAnswer]:
    """Return the answers by a release that was never deployed, or other than those of their release."""
    refs, answers = deployed(store, recipe), [answer for answer in seen if answer.status == 200]
    named = {answer.release for answer in answers} & refs.keys()
    right = {name: right_answer(store.open(refs[name])) for name in named}
    return [item for item in answers if item.release not in named or not right[item.release].allows(item.values)]
