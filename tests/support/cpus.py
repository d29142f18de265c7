"""The tests marked `cpu` under each kind of CPU that this machine can play: `make test-cpu`.

torch and oneDNN take their instructions from the environment. ONNX Runtime reads them from the CPU, so a few tests
(`emulated`) ask its kernels in a process under qemu-user, which is slow. A kind that this machine cannot play is
skipped with a sentence. docs/results/cpus.md names all kinds.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.config_file import ROOT

QEMU = "qemu-x86_64"
#: An Intel CPU of 2013: AVX2, and neither AVX-512 nor VNNI. Without what qemu does not emulate, of which it would warn.
HASWELL = (QEMU, "-cpu", "Haswell,-pcid,-x2apic,-tsc-deadline,-hle,-invpcid,-rtm")
#: Seconds after which a test that hangs says where.
PATIENCE = 600


@dataclass(frozen=True)
class Kind:
    """A kind of CPU: the flags that it needs, the environment that hides all others, and the marker of its tests."""

    name: str
    needs: frozenset[str] = frozenset()
    environment: Mapping[str, str] = field(default_factory=dict)
    emulator: str | None = None

    @property
    def marker(self) -> str:
        return "emulated" if self.emulator else "cpu"


KINDS = (
    Kind("this CPU"),
    Kind(
        "AVX-512 with VNNI, without bf16",
        frozenset({"avx512f", "avx512_vnni"}),
        {
            "ONEDNN_MAX_CPU_ISA": "AVX512_CORE_VNNI",
            "ATEN_CPU_CAPABILITY": "avx512",
            "MKL_ENABLE_INSTRUCTIONS": "AVX512",
        },
    ),
    Kind(
        "AVX2 only (torch)",
        frozenset({"avx2"}),
        {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"},
    ),
    Kind("AVX2 only (ONNX Runtime)", frozenset({"avx2"}), emulator=QEMU),
)


def flags_of(cpuinfo: str) -> frozenset[str]:
    """Return the flags of the first CPU in the text of /proc/cpuinfo."""
    lines = (line.partition(":") for line in cpuinfo.splitlines())
    return frozenset(next((flags for name, _, flags in lines if name.strip() in ("flags", "Features")), "").split())


def reason_to_skip(kind: Kind, flags: Set[str], machine: str) -> str | None:
    """Return why a machine with `flags` cannot play `kind`, or None if it can."""
    if kind.needs and machine != "x86_64":
        return f"this CPU is {machine}"
    if missing := sorted(kind.needs - flags):
        return f"this CPU has no {', '.join(missing)}"
    if kind.emulator and not shutil.which(kind.emulator):
        return f"{kind.emulator} is not installed (Debian: apt-get install qemu-user)"
    return None


def main() -> int:
    """Run every kind and print a line for each; the exit code is 1 if a test of one failed."""
    cpuinfo = Path("/proc/cpuinfo")
    flags = flags_of(cpuinfo.read_text(encoding="utf-8")) if cpuinfo.exists() else frozenset()
    shown = ", ".join(name for name in ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16") if name in flags)
    lines, failed = [f"this CPU: {os.uname().machine}, {shown or 'none of the flags that matter here'}"], False
    for kind in KINDS:
        if reason := reason_to_skip(kind, flags, os.uname().machine):
            lines.append(f"{kind.name:<32} skipped: {reason}")
            continue
        began = time.monotonic()
        code = subprocess.run(command_of(kind), cwd=ROOT, env=os.environ | kind.environment, check=False).returncode
        failed |= code != 0
        lines.append(f"{kind.name:<32} {'passed' if code == 0 else 'FAILED'} in {time.monotonic() - began:.0f} s")
    print("\n".join(["", *lines, f"{'arm64':<32} not tested"]))  # noqa: T201
    return int(failed)


def command_of(kind: Kind) -> list[str]:
    """Return the command that runs the tests of `kind`."""
    options = ["--basetemp=.pytest_cache/tmp", "-q", "-m", kind.marker, "--timeout", str(PATIENCE)]
    workers = [] if kind.emulator else ["-n", "2", "--dist", "loadfile", "--no-loadscope-reorder"]
    return [sys.executable, "-m", "pytest", *options, *workers, "tests/pipeline", "tests/serving"]


if __name__ == "__main__":
    sys.exit(main())
