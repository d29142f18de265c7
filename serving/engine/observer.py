"""What an engine says of its work while it does it, for whoever measures."""

from __future__ import annotations

from pipeline.store.releases import Card


class Observer:
    """Is told by all threads of an engine; this one takes no notice."""

    def tokenized(self, seconds: float) -> None:
        """The texts of one call took `seconds` to become tokens."""

    def computed(self, rows: int, tokens: int, padding: int, seconds: float) -> None:
        """A sub-batch of `rows` texts or pairs, of `tokens` real and `padding` filled-in tokens, took `seconds`."""


def unobserved(_: Card) -> Observer:
    """The observer of an engine that nobody measures."""
    return Observer()
