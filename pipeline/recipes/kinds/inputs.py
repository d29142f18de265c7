"""Inputs of a task: single texts, or pairs of texts that are encoded together or separately."""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType
from typing import Any

from pipeline.recipes.kinds.task_kind import TaskKind

#: Names of the text columns in artifacts, independent of the data file.
TEXTS = ("text", "text_pair")


class SingleText(TaskKind):
    """A kind whose inputs are single texts."""

    inputs = "text"
    objective = None
    texts = TEXTS[:1]
    reads = "single texts"
    encodings = MappingProxyType({"input_ids": TEXTS[:1]})

    def body(self, inputs: Sequence[tuple[str, ...]]) -> dict[str, Any]:
        """Return the field `texts`."""
        return {"texts": [text for (text,) in inputs]}


class TextPair(TaskKind):
    """A kind whose inputs are pairs of texts."""

    inputs = "pair"
    texts = TEXTS
    reads = "pairs of texts"

    def body(self, inputs: Sequence[tuple[str, ...]]) -> dict[str, Any]:
        """Return the field `pairs`."""
        return {"pairs": [list(pair) for pair in inputs]}


class JoinedPair(TextPair):
    """A kind whose model reads both texts of a pair at once (cross-encoder)."""

    objective = "cross-encoder"
    encodings = MappingProxyType({"input_ids": TEXTS})


class SeparatePair(TextPair):
    """A kind whose model reads each text of a pair on its own (bi-encoder)."""

    objective = "bi-encoder"
    encodings = MappingProxyType({"input_ids": TEXTS[:1], "input_ids_pair": TEXTS[1:]})
