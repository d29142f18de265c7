"""Sentence pairs in the format of KLUE-STS, generated from `pairs.toml`, with a known similarity."""

import re
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.sample.korean import Dice, Side, attach

PHRASES = Path(__file__).with_name("pairs.toml")
SIZES: dict[Side, int] = {"train": 3000, "test": 600}
GUID = {"train": "sample-sts-v1_train_{:05d}", "test": "sample-sts-v1_dev_{:05d}"}
SLOT = re.compile(r"\{([a-z]+)(?::([가-힣]+))?\}")
MINOR = "{+}"

ANNOTATORS = 7
DRIFT, DISAGREEMENT = 0.4, 0.9  # spread of a pair's score around its grade, and of a vote around the pair's score
PLAIN = 0.6  # share of sentences without a minor detail
SAME_WORDING = 0.3  # share of pairs with the same wording, in grades that do not need another wording
GRADES = (5, 5, 5, 4, 4, 4, 3, 3, 3, 2, 2, 2, 1, 1, 0, 0, 0)

Values = dict[str, str]


@dataclass(frozen=True)
class Act:
    """A proposition: its wordings, and the minor details that may be added to each."""

    say: list[str]
    minor: list[str]


@dataclass(frozen=True)
class Topic:
    """The propositions of one side about a subject, and the details that matter in them."""

    name: str
    slots: dict[str, list[str]]
    acts: list[Act]


@dataclass(frozen=True)
class Saying:
    """All parts of one sentence."""

    topic: Topic
    act: Act
    wording: str
    values: Values
    minor: str

    def text(self) -> str:
        """Return the sentence."""
        frame = self.wording.replace(MINOR, self.minor)
        return SLOT.sub(lambda slot: attach(self.values[slot[1]], slot[2] or ""), frame)


def pair_frames(side: Side) -> list[str]:
    """Return the wordings of the side."""
    return [wording for topic in _topics(side) for act in topic.acts for wording in act.say]


def make_pairs(seed: int, side: Side) -> list[dict[str, Any]]:
    """Return the pairs of the side in the format of KLUE-STS, no pair twice in either order."""
    topics, dice = _topics(side), Dice(seed, "pairs", side)
    rows: list[dict[str, Any]] = []
    taken: set[frozenset[str]] = set()
    while len(rows) < SIZES[side]:
        grade = dice.pick(GRADES)
        one = _first(topics, dice)
        texts = one.text(), _LIKENESS[grade](one, topics, dice).text()
        if len(set(texts)) == 2 and frozenset(texts) not in taken:
            taken.add(frozenset(texts))
            rows.append(_row(GUID[side].format(len(rows)), one.topic.name, texts, _score(grade, dice)))
    return rows


def _topics(side: Side) -> list[Topic]:
    raw = tomllib.loads(PHRASES.read_text(encoding="utf-8"))
    return [
        Topic(name, topic["slots"], [Act(**act) for act in topic[side]]) for name, topic in raw.items() if side in topic
    ]


def _row(guid: str, topic: str, texts: tuple[str, str], score: float) -> dict[str, Any]:
    labels = {"label": round(score, 1), "real-label": score, "binary-label": int(score >= 3)}
    return {"guid": guid, "source": f"sample-{topic}", "sentence1": texts[0], "sentence2": texts[1], "labels": labels}


def _score(grade: int, dice: Dice) -> float:
    """Return the mean of seven annotators' votes, each a whole number from 0 to 5."""
    centre = grade + DRIFT * (2 * dice.roll() - 1)
    votes = (round(centre + DISAGREEMENT * (2 * dice.roll() - 1)) for _ in range(ANNOTATORS))
    return sum(min(5, max(0, vote)) for vote in votes) / ANNOTATORS


def _first(topics: list[Topic], dice: Dice) -> Saying:
    topic = dice.pick(topics)
    act = dice.pick(topic.acts)
    values = {name: dice.pick(choices) for name, choices in topic.slots.items()}
    return Saying(topic, act, dice.pick(act.say), values, _minor(act, dice))


def _minor(act: Act, dice: Dice) -> str:
    return "" if dice.chance(PLAIN) else dice.pick(act.minor)


def _wording(one: Saying, dice: Dice) -> str:
    return one.wording if dice.chance(SAME_WORDING) else dice.pick(one.act.say)


def _change(values: Values, names: list[str], topic: Topic, dice: Dice) -> Values:
    changed = {name: dice.pick([v for v in topic.slots[name] if v != values[name]]) for name in names}
    return {**values, **changed}


def _reworded(one: Saying, topics: list[Topic], dice: Dice) -> Saying:
    """Return the second sentence of a pair of grade 5: the same content in another wording."""
    wording = dice.pick([wording for wording in one.act.say if wording != one.wording])
    return Saying(one.topic, one.act, wording, one.values, one.minor)


def _detailed(one: Saying, topics: list[Topic], dice: Dice) -> Saying:
    """Return the second sentence of a pair of grade 4: a minor detail is added, dropped or changed."""
    minor = dice.pick([minor for minor in ("", *one.act.minor) if minor != one.minor])
    return Saying(one.topic, one.act, _wording(one, dice), one.values, minor)


def _elsewhere(one: Saying, topics: list[Topic], dice: Dice) -> Saying:
    """Return the second sentence of a pair of grade 3: another place, time or number."""
    values = _change(one.values, [dice.pick(list(one.values))], one.topic, dice)
    return Saying(one.topic, one.act, _wording(one, dice), values, one.minor)


def _other_act(one: Saying, topics: list[Topic], dice: Dice) -> Saying:
    """Return the second sentence of a pair of grade 2: the same place and time, but another content."""
    act = dice.pick([act for act in one.topic.acts if act is not one.act])
    return Saying(one.topic, act, dice.pick(act.say), one.values, _minor(act, dice))


def _same_domain(one: Saying, topics: list[Topic], dice: Dice) -> Saying:
    """Return the second sentence of a pair of grade 1: only the topic in common."""
    other = _other_act(one, topics, dice)
    values = _change(one.values, list(one.values), one.topic, dice)
    return Saying(other.topic, other.act, other.wording, values, other.minor)


def _unrelated(one: Saying, topics: list[Topic], dice: Dice) -> Saying:
    """Return the second sentence of a pair of grade 0: nothing in common."""
    return _first([topic for topic in topics if topic is not one.topic], dice)


_LIKENESS: dict[int, Callable[[Saying, list[Topic], Dice], Saying]] = {
    5: _reworded,
    4: _detailed,
    3: _elsewhere,
    2: _other_act,
    1: _same_domain,
    0: _unrelated,
}
