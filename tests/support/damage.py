"""What a power loss, a full disk or a hand leaves of a small file."""

from __future__ import annotations

from pathlib import Path

import pytest

#: Contents of no state file of ours: of another JSON type, and no JSON at all.
FOREIGN = {
    "a number": b"7",
    "a list of lists": b"[[1]]",
    "another object": b'{"a": 1}',
    "garbage": b"\xff\xfe\x00\x81 {",
}
DAMAGES = ("empty", "half", *FOREIGN)

each_damage = pytest.mark.parametrize("damage", DAMAGES)


def damage_file(path: Path, damage: str) -> None:
    """Do to the file at `path` what `damage`, one of DAMAGES, says."""
    content = path.read_bytes()
    path.write_bytes(FOREIGN[damage] if damage in FOREIGN else content[: len(content) // 2 if damage == "half" else 0])
