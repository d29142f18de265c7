"""Write constraints.txt and constraints.lock: `make lock`, or `make lock UPGRADE="numpy scipy"`.

All pins stay as they are, except those of the packages to upgrade and of packages that nothing requires any more.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator

from pipeline.config_file import ROOT
from pipeline.stack.installer import canonical

HEADER = """\
# The packages of constraints.txt with the SHA-256 of their files; written by `make lock`. `make venv` installs only
# these files. torch: also the CPU builds of PyTorch's own index.
"""
#: CPU builds of torch, which are not on PyPI: version, and the SHA-256 of each file.
TORCH_CPU = (
    "2.13.0",
    {
        "cp311-manylinux_2_28_x86_64": "6746dbcbeb526eb61330b76b41ff1b4eb848951103a892eeb080dfa2b264667b",
        "cp311-manylinux_2_28_aarch64": "84453b69508ec79902f899c5ed9495acb9e2bbe9fda5f1d5d6f19e3c3842e1a7",
        "cp312-manylinux_2_28_x86_64": "4ca4a9394b0c771238a4f73590fdbbc4debad85ed0fa63d026ae1b085da7d6e2",
        "cp312-manylinux_2_28_aarch64": "6f307c2c32d764ffc6ff6893b801fad6d4752f3e67966cb8abf1843427c02604",
        "cp313-manylinux_2_28_x86_64": "3fbf9c9d1f3c10c2d59d04aca426dee9ccc6ceb32d255c61e93acc3b4f75fae6",
        "cp313-manylinux_2_28_aarch64": "0b8f7d0423027ae8b90c7977c627f3379f325363a08224dffad9b4b2d684a83d",
    },
)
#: Entries of uv's output for other platforms.
ELSEWHERE = re.compile(r"; .*sys_platform == '(?:win32|emscripten)'")


def main(upgraded: list[str]) -> None:
    """Resolve for all Pythons and platforms, and write both files."""
    names = {canonical(name) for name in upgraded}
    pins = [line for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines() if line]
    kept = "\n".join(pin for pin in pins if canonical(pin.split("==")[0]) not in names)
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write(kept)
        file.flush()
        command = [sys.executable, "-m", "uv", "pip", "compile", "pyproject.toml", "--all-extras", "--universal"]
        command += ["--generate-hashes", "--no-annotate", "--no-header", "-c", file.name]
        text = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout
    entries = list(locked_packages(text))
    (ROOT / "constraints.txt").write_text("".join(f"{pin}\n" for pin, _ in entries), encoding="utf-8")
    blocks = (" \\\n".join([pin, *(f"    --hash=sha256:{sha}" for sha in hashes)]) for pin, hashes in entries)
    (ROOT / "constraints.lock").write_text(HEADER + "".join(f"{block}\n" for block in blocks), encoding="utf-8")


def locked_packages(text: str) -> Iterator[tuple[str, list[str]]]:
    """Yield the pin and the hashes of each package in uv's output; torch also has those of `TORCH_CPU`."""
    for block in re.split(r"\n(?=\S)", text.strip()):
        if ELSEWHERE.search(block):
            continue
        pin = re.split(r"[ ;\\]", block)[0]
        hashes = set(re.findall(r"sha256:([0-9a-f]{64})", block))
        if pin.startswith("torch=="):
            version, built = TORCH_CPU
            if pin != f"torch=={version}":
                raise SystemExit(f"{pin} is new: replace the hashes of TORCH_CPU by those of its CPU builds")
            hashes |= set(built.values())
        yield pin, sorted(hashes)


if __name__ == "__main__":
    main(sys.argv[1:])
