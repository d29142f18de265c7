"""An older version of the project, for upgrades and the way back."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from pipeline.config_file import ROOT
from tests.topology.runner.images import CACHE

#: The oldest commit whose images start here with every password.
OLDER = "87561a8aca"


def older_checkout() -> Path | None:
    """Return a directory with the files of the commit OLDER; None if this clone does not have it."""
    archive = subprocess.run(["git", "archive", OLDER], cwd=ROOT, capture_output=True, check=False)
    if archive.returncode:
        return None
    target = CACHE / "older"
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    subprocess.run(["tar", "--extract", "--directory", target], input=archive.stdout, check=True)
    return target
