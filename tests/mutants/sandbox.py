"""A copy of the checkout, in which a mutant is let loose."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path


def copy_checkout(root: Path, target: Path) -> Path:
    """What git has or would have of the checkout at `root`, in a fresh directory `target`."""
    shutil.rmtree(target, ignore_errors=True)
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=root, capture_output=True, text=True, check=True).stdout.split("\0")
    for name in filter(None, names):
        # A file that was deleted and not yet committed is listed as well.
        if (root / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(root / name, target / name)
    return target


def environment(root: Path, tree: Path, home: Path) -> dict[str, str]:
    """Variables for tests in the copy `tree`: they import its code, and find the checkout's data."""
    data = os.environ.get("SAEBYEOK_TEST_DATA") or str(root.parent / "shared" / "data")
    return os.environ | {
        "PYTHONPATH": str(tree),
        "SAEBYEOK_TEST_DATA": data,
        "TMPDIR": str(home),
        "OMP_NUM_THREADS": "1",
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "PYTHONHASHSEED": "0",
    }
