"""Checks before an installation or start that takes minutes."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from pipeline.config_file import ROOT
from pipeline.settings import Settings
from pipeline.stack import bootstrap, preflight


def test_taken_port_message_names_port_and_variable(taken_port: int) -> None:
    problem = preflight.port_problem(f"http://127.0.0.1:{taken_port}", "SAEBYEOK_AIRFLOW_URL")
    assert problem is not None
    assert f"port {taken_port} on 127.0.0.1" in problem
    assert f"make up SAEBYEOK_AIRFLOW_URL=http://127.0.0.1:{taken_port + 1}" in problem


def test_a_free_port_is_no_problem(taken_port: int) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    assert preflight.port_problem(f"http://127.0.0.1:{port}", "X") is None


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:99999",
        "http://127.0.0.1:port",
        "http://127.0.0.1",
        "localhost:8081",
        "127.0.0.1:8081",
        "http://[::1]:8081",
        "https://127.0.0.1:8081",
    ],
)
def test_what_is_no_address_is_a_sentence(url: str) -> None:
    problem = preflight.port_problem(url, "SAEBYEOK_AIRFLOW_URL")
    assert problem == (
        f"SAEBYEOK_AIRFLOW_URL is {url!r}: set a host and a port from 1 to 65535, for example http://127.0.0.1:8080"
    )


def test_two_servers_want_two_ports() -> None:
    problem = preflight.same_port_problem("http://127.0.0.1:8080", "http://localhost:8080")
    assert problem is not None
    assert "have the same port" in problem
    assert preflight.same_port_problem(*bootstrap.URLS.values()) is None


def test_where_the_stack_listens_is_said_alike() -> None:
    fields = {name: Settings.model_fields[name.removeprefix("SAEBYEOK_").lower()].default for name in bootstrap.URLS}
    assert fields == bootstrap.URLS


@pytest.mark.parametrize("text", ["name = ", "name = 'own'", "data = 3", "[data]\ntest = 'a'", "\x80"])
def test_invalid_recipe_does_not_stop_the_others(text: str, tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_bytes(text.encode("latin-1"))
    assert preflight.data_problem(tmp_path, [tmp_path]) is None


def test_data_of_one_recipe_are_enough(tmp_path: Path) -> None:
    for name in ("own", "other"):
        (tmp_path / f"{name}.toml").write_text(f"[data]\ntrain = '{name}-train'\ntest = '{name}-test'\n")
    lacks = "lacks other-train, other-test, own-train, own-test: "
    assert lacks in (preflight.data_problem(tmp_path, [tmp_path]) or "")
    (tmp_path / "own-train").touch()
    assert "lacks other-train, other-test, own-test: " in (preflight.data_problem(tmp_path, [tmp_path]) or "")
    (tmp_path / "own-test").touch()
    assert preflight.data_problem(tmp_path, [tmp_path]) is None
    # Half of the files of a recipe is a mistake.
    (tmp_path / "other-test").touch()
    assert "lacks other-train: " in (preflight.data_problem(tmp_path, [tmp_path]) or "")


def test_too_small_disk_gives_a_message(tmp_path: Path) -> None:
    assert preflight.room_problem(tmp_path, 1) is None
    problem = preflight.room_problem(tmp_path, 10**18)
    assert problem is not None
    assert str(tmp_path) in problem
    assert "1000000000 GB are needed" in problem


def test_unwritable_home_gives_a_message(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert preflight.writing_problem(tmp_path / "new" / "home") is None
    problem = preflight.writing_problem(tmp_path / "file" / "home")
    assert problem is not None
    assert "is not writable (Not a directory)" in problem


def test_missing_published_files_are_named(tmp_path: Path) -> None:
    problem = preflight.data_problem(tmp_path, [ROOT / "pipeline" / "recipes"])
    assert problem is not None
    assert "lacks klue-sts/klue-sts-v1.1_train.json, klue-sts/klue-sts-v1.1_dev.json, nsmc/ratings_train.txt" in problem


@pytest.mark.parametrize(
    ("machine", "libc"), [("x86_64", ("glibc", "2.28")), ("x86_64", ("glibc", "3.0")), ("aarch64", ("glibc", "2.36"))]
)
def test_platform_with_wheels_is_no_problem(machine: str, libc: tuple[str, str]) -> None:
    assert preflight.platform_problem("Linux", machine, libc) is None


@pytest.mark.parametrize(
    ("system", "machine", "libc", "here"),
    [
        ("Darwin", "arm64", ("", ""), "this is Darwin on arm64."),
        ("Linux", "x86_64", ("glibc", "2.17"), "this is Linux on x86_64 with glibc 2.17."),
        ("Linux", "aarch64", ("glibc", "2.31"), "this is Linux on aarch64 with glibc 2.31."),
        ("Linux", "x86_64", ("", ""), "this is Linux on x86_64 with a C library other than glibc."),
        ("Linux", "riscv64", ("glibc", "2.40"), "this is Linux on riscv64 with glibc 2.40."),
    ],
)
def test_platform_without_wheels_is_named_with_a_way_out(
    system: str, machine: str, libc: tuple[str, str], here: str
) -> None:
    problem = preflight.platform_problem(system, machine, libc)
    assert problem is not None
    assert here in problem
    assert problem.endswith("pip install -c constraints.txt .")
