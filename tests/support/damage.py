"""Damage to a small file, as from a power loss, a full disk or manual editing."""

from __future__ import annotations

from pathlib import Path

import pytest

#: Invalid contents of a state file: another JSON type, and no JSON.
FOREIGN = {
    "a number": b"7",
    "a list of lists": b"[[1]]",
    "another object": b'{"a": 1}',
    "garbage": b"\xff\xfe\x00\x81 {",
}
DAMAGES = ("empty", "half", *FOREIGN)

each_damage = pytest.mark.parametrize("damage", DAMAGES)


def damage_file(path: Path, damage: str) -> None:
    """Damage the file at `path` as `damage`, one of DAMAGES, describes."""
    content = path.read_bytes()
    path.write_bytes(FOREIGN[damage] if damage in FOREIGN else content[: len(content) // 2 if damage == "half" else 0])
