"""Observer: an engine's reports about its work, for metrics."""

from __future__ import annotations

from pipeline.store.releases import Card


class Observer:
    """Receive reports from all threads of an engine; this base class ignores them."""

    def tokenized(self, seconds: float) -> None:
        """Report that tokenizing the texts of one call took `seconds`."""

    def computed(self, rows: int, tokens: int, padding: int, seconds: float) -> None:
        """Report that a sub-batch of `rows` texts or pairs, with `tokens` real and `padding` tokens, took `seconds`."""


def unobserved(_: Card) -> Observer:
    """Return an observer that ignores all reports."""
    return Observer()
