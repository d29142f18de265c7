"""Text: the one form that every model reads, and forms for messages, without invisible characters or passwords."""

from __future__ import annotations

import re
from unicodedata import normalize


def composed(text: str) -> str:
    """Return `text` in NFC. Vocabularies contain composed syllables; macOS writes decomposed ones (NFD)."""
    return normalize("NFC", text)


def visible(text: str) -> str:
    """Return `text` with escapes for characters that are invisible or look like ASCII, quoted if any of it is so."""
    shown = "".join(map(_escaped, text))
    return shown if shown == text == text.strip() and text else f"'{shown}'"


def without_password(text: str) -> str:
    """Return `text` with the user names and passwords in its URLs replaced by `***`."""
    return re.sub(r"://[^/\s@]+@", "://***@", text)


def _escaped(character: str) -> str:
    # `１` looks like 1.
    poses = not character.isascii() and normalize("NFKC", character).isascii()
    return character if character.isprintable() and not poses else ascii(character)[1:-1]
