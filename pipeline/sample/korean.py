"""Korean grammar for filling templates (particles, verb endings), and seeded random draws."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

T = TypeVar("T")
Side = Literal["train", "test"]

FIRST_SYLLABLE, LAST_SYLLABLE, FINALS = 0xAC00, 0xD7A3, 28
RIEUL = 8  # ㄹ among the final consonants

# Particle in a template -> (form after a consonant, form after a vowel). Other particles do not change.
PARTICLES = {
    "은": ("은", "는"),
    "이": ("이", "가"),
    "을": ("을", "를"),
    "과": ("과", "와"),
    "이랑": ("이랑", "랑"),
    "으로": ("으로", "로"),
    "이나": ("이나", "나"),
    "이다": ("이다", "다"),
    "이었": ("이었", "였"),
    "이에요": ("이에요", "예요"),
}

# Form of a predicate in a template -> ways to build it: (stem, ending).
FORMS: dict[str, tuple[tuple[str, str], ...]] = {
    "고": (("stem", "고"), ("past", "고")),
    "지만": (("stem", "지만"), ("past", "지만")),
    "는데": (("past", "는데"), ("stem", "던데")),
    "는데도": (("past", "는데도"),),
    "인": (("adnominal", ""),),
    "지않": (("stem", "지 않았다"), ("stem", "지 않네요"), ("stem", "지 않음"), ("stem", "지는 않았어요")),
    "지않고": (("stem", "지 않고"), ("stem", "지 않았고")),
    "끝": (
        *(("plain", ""), ("stem", "네요"), ("stem", "네"), ("stem", "더라"), ("stem", "더라구요")),
        *(("past", "다"), ("past", "어요"), ("past", "음"), ("past", "습니다"), ("past", "네")),
    ),
}


class Dice:
    """Seeded draws that use only `random()`, the single method whose sequence Python guarantees across versions."""

    def __init__(self, *seed: object) -> None:
        self._source = random.Random()  # noqa: S311 (the sample needs repeatable draws, not secret ones)
        self._source.seed(":".join(str(part) for part in seed), version=2)

    def roll(self) -> float:
        """Return a random number from 0 to below 1."""
        return self._source.random()

    def chance(self, probability: float) -> bool:
        """Return True with the given probability."""
        return self.roll() < probability

    def pick(self, items: Sequence[T]) -> T:
        """Return a random item."""
        return items[int(self.roll() * len(items))]


@dataclass(frozen=True)
class Predicate:
    """A verb or adjective, as the stems to which its endings attach."""

    stem: str
    adnominal: str
    past: str
    plain: str

    @classmethod
    def parse(cls, text: str) -> "Predicate":
        """Return the predicate written as `stem|adnominal|past` or `stem|adnominal|past|plain`."""
        stem, adnominal, past, *plain = text.split("|")
        return cls(stem, adnominal, past, plain[0] if plain else stem + "다")

    @property
    def negatable(self) -> bool:
        """Return whether `-지 않다` sounds natural; it does not after a phrase or another negation."""
        return " " not in self.stem and not self.stem.endswith(("없", "않"))


def conjugate(predicate: Predicate, form: str, dice: Dice) -> str:
    """Return a random way to write the predicate in the form."""
    which, ending = dice.pick(FORMS[form])
    stem: str = getattr(predicate, which)
    if ending.startswith("네") and _final(stem) == RIEUL:  # 들 + 네 is 드네
        stem = stem[:-1] + chr(ord(stem[-1]) - RIEUL)
    return stem + ending


def attach(noun: str, particle: str) -> str:
    """Return the noun with the form of the particle that its last sound requires."""
    after_consonant, after_vowel = PARTICLES.get(particle, (particle, particle))
    final = _final(noun)
    closed = final > 0 and not (particle == "으로" and final == RIEUL)
    return noun + (after_consonant if closed else after_vowel)


def _final(text: str) -> int:
    """Return the number of the last syllable's final consonant, 0 for none; letters such as OST end in a vowel."""
    code = ord(text[-1])
    return (code - FIRST_SYLLABLE) % FINALS if FIRST_SYLLABLE <= code <= LAST_SYLLABLE else 0


def on_side(items: Sequence[T], side: Side) -> list[T]:
    """Return the items of one side: of 20, 5 are only in train and 1 only in test, so that test has new words."""
    other = (5,) if side == "train" else (0, 1, 2, 3, 4)
    return [item for place, item in enumerate(items) if place * 7 % 20 not in other]
