"""The text of constraints.lock: one requirement per package, with the hashes of its files. Standard library only."""

from __future__ import annotations

import re


def locked(name: str, lock: str) -> str:
    """Return the requirement of `name` in the text of constraints.lock, with its hashes."""
    found = re.search(rf"^{re.escape(name)}==.*(?:\n .*)*\n", lock, re.M)
    if found is None:
        raise ValueError(f"constraints.lock has no {name}: restore the file from the repository")
    return found[0]


def pinned(name: str, lock: str) -> str:
    """Return the version of `name` in the text of constraints.lock."""
    return re.split(r"==|[ ;\\]", locked(name, lock))[1]
