"""Film reviews in the format of NSMC, generated from `reviews.toml`."""

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.sample.korean import Dice, Predicate, Side, attach, conjugate, on_side

PHRASES = Path(__file__).with_name("reviews.toml")
SIZES: dict[Side, int] = {"train": 4000, "test": 1000}
SLOT = re.compile(r"\{(un)?([a-z]+)(\d?)(?::([가-힣]+))?\}")
POLARITIES = ("complaint", "praise")  # by label
LONGEST = 120

POSITIVE = 0.505
AMBIGUOUS = 0.012
FLIPPED = 0.02
HEADED, TAILED, MISSPELT, CRAMMED = 0.06, 0.4, 0.1, 0.12


@dataclass(frozen=True)
class Review:
    """A review: its text, its label, and the frame from which it was generated."""

    text: str
    label: int
    frame: str


class Book:
    """The phrases of one side: {group: {polarity: predicates}} and lists of words."""

    def __init__(self, raw: dict[str, Any], side: Side) -> None:
        self.frames: list[str] = raw["frames"][side]
        self.ambiguous: list[str] = raw["ambiguous"][side]
        self.parts: dict[str, list[str]] = {name: on_side(part["names"], side) for name, part in raw["parts"].items()}
        groups = {**raw["parts"], "feel": raw["feels"]}
        self.predicates = {
            (name, polarity): [Predicate.parse(text) for text in on_side(group[polarity], side)]
            for name, group in groups.items()
            for polarity in POLARITIES
        }
        self.words: dict[tuple[str, str], list[str]] = {
            (name, polarity): on_side(raw[table][polarity], side)
            for name, table in (("word", "words"), ("star", "stars"))
            for polarity in POLARITIES
        }
        self.neutral: dict[str, list[str]] = {name: on_side(words, side) for name, words in raw["neutral"].items()}
        self.typos: list[tuple[str, str]] = list(raw["typos"].items())


class Filling:
    """Fills the slots of one frame; `{part2}` and `{say2}` share a group, which differs from that of `{part}`."""

    def __init__(self, book: Book, label: int, dice: Dice) -> None:
        self.book, self.label, self.dice = book, label, dice
        self.groups: dict[str, str] = {}

    def fill(self, frame: str) -> str:
        """Return the frame with a phrase in each of its slots."""
        return SLOT.sub(self._slot, frame)

    def _slot(self, match: re.Match[str]) -> str:
        opposed, name, number, form = match.groups()
        if name == "part":
            return attach(self.dice.pick(self.book.parts[self._group(number)]), form or "")
        polarity = POLARITIES[1 - self.label if opposed else self.label]
        if name in ("word", "star"):
            return self.dice.pick(self.book.words[name, polarity])
        if name in self.book.neutral:
            return attach(self.dice.pick(self.book.neutral[name]), form or "")
        group = self._group(number) if name == "say" else name
        predicates = self.book.predicates[group, polarity]
        if form.startswith("지않"):
            predicates = [predicate for predicate in predicates if predicate.negatable]
        return conjugate(self.dice.pick(predicates), form, self.dice)

    def _group(self, number: str) -> str:
        if number not in self.groups:
            free = [name for name in self.book.parts if name not in self.groups.values()]
            self.groups[number] = self.dice.pick(free)
        return self.groups[number]


def review_phrases() -> dict[str, Any]:
    """Return the content of `reviews.toml`."""
    return tomllib.loads(PHRASES.read_text(encoding="utf-8"))


def review_frames(side: Side) -> list[str]:
    """Return the frames of the side, ambiguous ones last."""
    raw = review_phrases()
    return [*raw["frames"][side], *raw["ambiguous"][side]]


def make_reviews(seed: int, taken: set[str], side: Side) -> list[Review]:
    """Return the reviews of the side, with distinct texts that are not in `taken`; add their texts to `taken`."""
    book, dice = Book(review_phrases(), side), Dice(seed, "reviews", side)
    reviews: list[Review] = []
    while len(reviews) < SIZES[side]:
        review = _review(book, dice)
        if review.text not in taken and len(review.text) <= LONGEST:
            taken.add(review.text)
            reviews.append(review)
    return reviews


def make_ids(seed: int, count: int) -> list[int]:
    """Return unique review ids of up to eight digits, in random order."""
    dice = Dice(seed, "ids")
    ids: dict[int, None] = {}
    while len(ids) < count:
        ids[1_000_000 + int(dice.roll() * 9_500_000)] = None
    return list(ids)


def _review(book: Book, dice: Dice) -> Review:
    label = int(dice.chance(POSITIVE))
    frame = dice.pick(book.ambiguous if dice.chance(AMBIGUOUS) else book.frames)
    if frame[0] in "+-":
        label = int(frame[0] == "+")
    text = _roughen(Filling(book, label, dice).fill(frame.lstrip("+-")), book, dice)
    return Review(text, 1 - label if dice.chance(FLIPPED) else label, frame)


def _roughen(text: str, book: Book, dice: Dice) -> str:
    """Return the text as if typed in a hurry: exclamations, misspellings, missing spaces."""
    if dice.chance(HEADED):
        text = dice.pick(book.neutral["head"]) + text
    found = [typo for typo in book.typos if typo[0] in text]
    if found and dice.chance(MISSPELT):
        text = text.replace(*dice.pick(found))
    if dice.chance(CRAMMED):
        lost = 0.3 + 0.7 * dice.roll()
        text = "".join(sign for sign in text if sign != " " or not dice.chance(lost))
    return text + dice.pick(book.neutral["tail"]) if dice.chance(TAILED) else text
