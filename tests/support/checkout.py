"""The checkout in which the tests run, as git knows it."""

from __future__ import annotations

import subprocess
from pathlib import Path

#: End of the name of a commit if files differ from it.
CHANGED = " with changes"


def git(root: Path, *arguments: str) -> str:
    """Return the output of a git command in `root`. Raises CalledProcessError if it fails."""
    return subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=True).stdout.strip()


def commit_besides(root: Path, document: Path) -> str:
    """Return the current commit, with `CHANGED` at its end if files other than `document` differ from it."""
    state = git(root, "status", "--porcelain", "--", ".", f":!{document.relative_to(root)}")
    return git(root, "rev-parse", "--short=10", "HEAD") + (CHANGED if state else "")
