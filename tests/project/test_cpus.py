"""The runner of tests under other CPUs: which CPUs it emulates, which it skips, and its report."""

from __future__ import annotations

import os
import sys
from dataclasses import replace

import pytest

from tests.support import cpus
from tests.support.cpus import KINDS, Kind, command_of, flags_of, main, reason_to_skip

CPUINFO = "processor\t: 0\nvendor_id\t: GenuineIntel\nflags\t\t: fpu avx2 avx512f\n\nprocessor\t: 1\nflags\t\t: fpu\n"
HERE, VNNI, AVX2, EMULATED = KINDS
FULL = frozenset({"avx2", "avx512f", "avx512_vnni"})


def test_flags_are_those_of_the_first_cpu() -> None:
    assert flags_of(CPUINFO) == {"fpu", "avx2", "avx512f"}
    assert flags_of("processor : 0\nFeatures : fp asimd\n") == {"fp", "asimd"}
    assert flags_of("") == frozenset()


def test_kinds_need_their_flags() -> None:
    assert [reason_to_skip(kind, FULL, "x86_64") for kind in (HERE, VNNI, AVX2)] == [None] * 3
    assert reason_to_skip(VNNI, {"avx2", "avx512f"}, "x86_64") == "this CPU has no avx512_vnni"
    assert reason_to_skip(VNNI, {"avx2"}, "x86_64") == "this CPU has no avx512_vnni, avx512f"
    assert reason_to_skip(AVX2, set(), "x86_64") == "this CPU has no avx2"
    assert reason_to_skip(AVX2, FULL, "aarch64") == "this CPU is aarch64"
    assert reason_to_skip(HERE, set(), "aarch64") is None


def test_emulated_kind_needs_its_emulator() -> None:
    missing = reason_to_skip(replace(EMULATED, emulator="no-such-emulator"), FULL, "x86_64")
    assert missing == "no-such-emulator is not installed (Debian: apt-get install qemu-user)"
    assert reason_to_skip(replace(EMULATED, emulator="true"), FULL, "x86_64") is None


def test_kinds_without_bf16_keep_it_from_torch() -> None:
    # `has_bf16` reads it; test_forecast.py tests the values.
    assert VNNI.environment["ONEDNN_MAX_CPU_ISA"] == "AVX512_CORE_VNNI"
    assert AVX2.environment["ONEDNN_MAX_CPU_ISA"] == "AVX2"


def test_command_runs_the_tests_of_its_marker() -> None:
    for kind, marker in ((AVX2, "cpu"), (EMULATED, "emulated")):
        command = command_of(kind)
        # The first -m belongs to Python.
        assert command[command.index("-m", 2) + 1] == marker


@pytest.mark.parametrize(("code", "word"), [(0, "passed"), (1, "FAILED"), (5, "FAILED")])
def test_main_prints_each_kind_and_fails_with_one(
    code: int, word: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    played = Kind("played", environment={"PLAYED": "yes"})
    monkeypatch.setattr(cpus, "KINDS", (played, Kind("absent", frozenset({"no_such_flag"})), Kind("last")))
    # 5 is pytest's exit code for no collected tests.
    script = f"import os, sys; sys.exit({code} if os.environ.get('PLAYED') else 0)"
    monkeypatch.setattr(cpus, "command_of", lambda kind: [sys.executable, "-c", script])
    assert main() == (code != 0)
    lines = capfd.readouterr().out.strip().splitlines()
    assert lines[0].startswith(f"this CPU: {os.uname().machine}")
    assert [line.split()[:2] for line in lines[1:]] == [
        ["played", word], ["absent", "skipped:"], ["last", "passed"], ["arm64", "not"]
    ]  # fmt: skip
