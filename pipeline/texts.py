"""Text: its normal form for models (NFC), and forms for messages, without invisible characters or secrets."""

from __future__ import annotations

import re
from collections.abc import Sequence
from unicodedata import normalize

#: Items named in a message before "and N more".
SHOWN = 3


def composed(text: str) -> str:
    """Return `text` in NFC. Vocabularies contain composed syllables; macOS writes decomposed ones (NFD)."""
    return normalize("NFC", text)


def visible(text: str) -> str:
    """Return `text` with escapes for characters that are invisible or look like ASCII.

    It is quoted if it has such a character, is empty, or begins or ends with white space.
    """
    shown = "".join(map(_escaped, text))
    return shown if shown == text == text.strip() and text else f"'{shown}'"


def without_secrets(text: str) -> str:
    """Return `text` with user names, passwords and queries (signatures, tokens) in its URLs replaced by `***`."""
    return re.sub(r"(://[^\s?'\"]*\?)[^\s'\"]+", r"\1***", re.sub(r"://[^/\s]+@", "://***@", text))


def some_of(places: Sequence[str], count: int | None = None) -> str:
    """Return the first few of `places` and the number of further ones; `count` is their total, if not all are given."""
    more = (len(places) if count is None else count) - min(len(places), SHOWN)
    return ", ".join(places[:SHOWN]) + (f" and {more:,} more" if more else "")


def _escaped(character: str) -> str:
    # `１` looks like 1.
    poses = not character.isascii() and normalize("NFKC", character).isascii()
    return character if character.isprintable() and not poses else ascii(character)[1:-1]
