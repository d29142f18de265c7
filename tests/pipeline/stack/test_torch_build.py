"""The choice of torch's build, without installing it."""

from __future__ import annotations

import sys
from pathlib import Path

from pipeline.stack.torch_build import choose_torch, lock_for

LOCK = """\
tool==1.0 \\
    --hash=sha256:aa
torch==2.0 \\
    --hash=sha256:bb \\
    --hash=sha256:cc
torchvision==3.0 \\
    --hash=sha256:dd
"""


def test_uvs_own_variable_decides(tmp_path: Path) -> None:
    build = choose_torch(sys.executable, LOCK, {"UV_TORCH_BACKEND": "cu126"}, tmp_path)
    assert (build.text, build.arguments) == ("torch: the build cu126, as UV_TORCH_BACKEND says", [])


def test_hashes_of_torch_apply_to_the_builds_they_are_of(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    lock.write_text(LOCK, encoding="utf-8")
    for environment in ({}, {"UV_TORCH_BACKEND": "cpu"}):
        assert lock_for(lock, environment, tmp_path) == lock
    other = lock_for(lock, {"UV_TORCH_BACKEND": "cu126"}, tmp_path).read_text(encoding="utf-8")
    assert other.split() == LOCK.replace(" \\\n    --hash=sha256:bb \\\n    --hash=sha256:cc", "").split()
