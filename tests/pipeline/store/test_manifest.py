"""Keys, names of attempts, and the files in a manifest."""

from __future__ import annotations

import hashlib
import json
import math
import re
import subprocess
import sys
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from pydantic import BaseModel, ValidationError

from pipeline import __version__
from pipeline.config_file import ROOT
from pipeline.errors import ArtifactError
from pipeline.store import manifest
from pipeline.store.manifest import (
    FileEntry,
    Input,
    Manifest,
    attempt_name,
    attempt_of,
    code_version,
    file_digest,
    make_key,
    verify_files,
)
from tests.support.strict import check_strict

NOW = datetime(2026, 11, 29, 12, 30, 15, 123456, UTC)
MICROSECOND = timedelta(microseconds=1)


class Dated(BaseModel):
    """A record with a value that JSON does not have."""

    day: date


def moment(name: str) -> datetime:
    assert re.fullmatch(r"\d{8}T\d{12}-[0-9a-f]{4}", name)
    return datetime.strptime(name[:21] + "+0000", "%Y%m%dT%H%M%S%f%z")


# --- keys ---------------------------------------------------------------------------------------


def test_key_depends_on_all_its_parts() -> None:
    base = make_key("train", 1, {"epochs": 1, "texts": ("a", "b")}, {"tokenized": "k"})
    assert len(base) == 16
    assert base == make_key("train", 1, {"texts": ["a", "b"], "epochs": 1}, {"tokenized": "k"})
    others = {
        make_key("tokenize", 1, {"epochs": 1, "texts": ("a", "b")}, {"tokenized": "k"}),
        make_key("train", 2, {"epochs": 1, "texts": ("a", "b")}, {"tokenized": "k"}),
        make_key("train", 1, {"epochs": 2, "texts": ("a", "b")}, {"tokenized": "k"}),
        make_key("train", 1, {"epochs": 1, "texts": ("b", "a")}, {"tokenized": "k"}),
        make_key("train", 1, {"epochs": 1, "texts": ("a", "b")}, {"tokenized": "l"}),
        make_key("train", 1, {"epochs": 1, "texts": ("a", "b")}, {"other": "k"}),
    }
    assert len(others) == 6
    assert base not in others


def test_a_key_stays_what_it_was() -> None:
    # With other keys, everything in existing stores would be rebuilt.
    document = '{"fields": {"a": [1.5, null], "b": "한"}, "inputs": {"x": "y"}, "stage": "train", "version": 3}'
    expected = hashlib.sha256(document.encode()).hexdigest()[:16]
    assert make_key("train", 3, {"b": "한", "a": (1.5, None)}, {"x": "y"}) == expected


def test_a_model_counts_by_its_content() -> None:
    entry = FileEntry(sha256="0", size=1)
    assert make_key("t", 1, {"file": entry}, {}) == make_key("t", 1, {"file": {"sha256": "0", "size": 1}}, {})
    dated = Dated(day=date(2026, 1, 2))
    assert make_key("t", 1, {"file": dated}, {}) == make_key("t", 1, {"file": {"day": "2026-01-02"}}, {})


def test_a_key_is_the_same_in_every_process() -> None:
    code = (
        "from pipeline.store.manifest import make_key; print(make_key('t', 1, {'b': 1, 'a': [1.5, None]}, {'x': 'y'}))"
    )
    keys = set()
    for seed in ("1", "2"):
        environment = {"PYTHONPATH": str(ROOT), "PYTHONHASHSEED": seed}
        keys.add(subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=True).stdout)
    assert len(keys) == 1


def test_key_refuses_values_without_stable_text() -> None:
    with pytest.raises(TypeError, match="set cannot be part of a key"):
        make_key("train", 1, {"labels": {"a", "b"}}, {})
    assert make_key("train", 1, {"base": Path("models/x")}, {}) == make_key("train", 1, {"base": "models/x"}, {})


# --- records ------------------------------------------------------------------------------------

ENTRY = FileEntry(sha256="0", size=0)
INPUT = Input(ref="train/nsmc/k/1", key="k")
MANIFEST = Manifest(
    kind="train", recipe="nsmc", run="r", key="k", created=NOW, code="0.1.0", inputs={"tokenized": INPUT},
    fields={"seed": 7}, figures={"r": float("nan"), "loss": float("-inf")}, files={"deep/a.bin": ENTRY},
)  # fmt: skip


@pytest.mark.parametrize("record", [ENTRY, INPUT, MANIFEST], ids=lambda record: type(record).__name__)
def test_a_record_is_strict(record: BaseModel) -> None:
    check_strict(record)


def test_names_and_format_of_existing_stores_are_unchanged() -> None:
    assert (manifest.MANIFEST, manifest.CHECKPOINT, MANIFEST.format) == ("manifest.json", "checkpoint", 2)


def test_a_manifest_survives_its_file() -> None:
    read = Manifest.model_validate_json(MANIFEST.model_dump_json())
    assert read.model_dump(exclude={"figures"}) == MANIFEST.model_dump(exclude={"figures"})
    assert math.isnan(read.figures["r"])
    assert read.figures["loss"] == -math.inf


@pytest.mark.parametrize("name", ["../escaped", "deep/../../escaped", "/etc/passwd", ".", ""])
def test_a_file_name_that_leads_out_is_refused(name: str) -> None:
    with pytest.raises(ValidationError, match=f"file name '{name}' is not inside the artifact"):
        Manifest.model_validate({**dict(MANIFEST), "files": {"a.bin": ENTRY, name: ENTRY}})


# --- names of attempts --------------------------------------------------------------------------


def test_attempt_is_named_by_the_clock() -> None:
    assert attempt_name([], NOW).startswith("20261129T123015123456-")
    assert moment(attempt_name(["20261129T123015123455-ffff", "20250101T000000000000-ffff"], NOW)) == NOW
    assert len({attempt_name([], NOW) for _ in range(3)}) > 1


@pytest.mark.parametrize("ahead", [timedelta(0), MICROSECOND, timedelta(hours=1), timedelta(days=3650)])
def test_an_attempt_sorts_behind_all_that_there_are(ahead: timedelta) -> None:
    newest = f"{NOW + ahead:%Y%m%dT%H%M%S%f}-ffff"
    made = attempt_name(["20250101T000000000000-ffff", newest, "20250102T000000000000-ffff"], NOW)
    assert made > newest
    assert moment(made) == NOW + ahead + MICROSECOND


def test_copy_of_an_attempt_counts_as_one() -> None:
    assert (
        moment(attempt_name(["20270101T000000000000-ffff-copy"], NOW)) == datetime(2027, 1, 1, tzinfo=UTC) + MICROSECOND
    )


def test_names_that_are_no_attempts_give_no_time() -> None:
    strangers = ["notes.txt", "zz", "", "1", "20271301T000000000000-ffff", "2027-01-01T00:00:00"]
    assert moment(attempt_name(strangers, NOW)) == NOW


def test_attempt_of_a_ref_is_its_last_name() -> None:
    assert attempt_of("train/nsmc/k1/20261129T123015123456-ab12") == "20261129T123015123456-ab12"


# --- files ----------------------------------------------------------------------------------------


def test_files_are_told_by_their_sha256(tmp_path: Path) -> None:
    (tmp_path / "weights.bin").write_bytes(b"\x00" * 3_000_000)
    assert file_digest(tmp_path / "weights.bin") == hashlib.sha256(b"\x00" * 3_000_000).hexdigest()


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (None, r"^run: file deep/a\.bin is missing; run its stage again$"),
        (b"", r"^run: file deep/a\.bin is 0 bytes long, not 3; run its stage again$"),
        (b"abcd", r"^run: file deep/a\.bin is 4 bytes long, not 3; run its stage again$"),
        (b"abd", r"^run: file deep/a\.bin has changed since it was written; run its stage with --force$"),
    ],
)
def test_a_damaged_file_is_named(content: bytes | None, text: str, tmp_path: Path) -> None:
    files = {name: FileEntry(sha256=hashlib.sha256(b"abc").hexdigest(), size=3) for name in ("a.bin", "deep/a.bin")}
    (tmp_path / "deep").mkdir()
    for name in files:
        (tmp_path / name).write_bytes(b"abc")
    verify_files(tmp_path, files, "run")
    (tmp_path / "deep" / "a.bin").unlink()
    if content is not None:
        (tmp_path / "deep" / "a.bin").write_bytes(content)
    with pytest.raises(ArtifactError, match=text):
        verify_files(tmp_path, files, "run")


def test_directory_instead_of_a_file_is_damage(tmp_path: Path) -> None:
    (tmp_path / "a.bin").mkdir()
    size = (tmp_path / "a.bin").stat().st_size
    with pytest.raises(ArtifactError, match="is missing"):
        verify_files(tmp_path, {"a.bin": FileEntry(sha256="0", size=size)}, "run")


def test_a_file_has_no_less_than_no_bytes() -> None:
    assert FileEntry(sha256="0", size=0).size == 0
    with pytest.raises(ValidationError):
        FileEntry(sha256="0", size=-1)


# --- code -----------------------------------------------------------------------------------------


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory in place of the package's parent; not a checkout yet."""
    (tmp_path / "pipeline" / "store").mkdir(parents=True)
    monkeypatch.setattr(manifest, "__file__", str(tmp_path / "pipeline" / "store" / "manifest.py"))
    return tmp_path


def version() -> str:
    return code_version.__wrapped__()


def git(directory: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
    command = ["git", "-C", str(directory), *identity, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_an_installed_package_is_named_by_its_version(checkout: Path) -> None:
    assert version() == __version__


def test_a_checkout_is_named_by_its_commit(checkout: Path) -> None:
    git(checkout, "init", "--quiet")
    # `git describe` fails in a repository without commits.
    assert version() == __version__
    (checkout / "pipeline" / "code.py").touch()
    git(checkout, "add", ".")
    git(checkout, "commit", "--quiet", "--message", "first")
    commit = git(checkout, "rev-parse", "--short", "HEAD")
    assert version() == f"{__version__}+{commit}"
    (checkout / "pipeline" / "code.py").write_text("changed")
    assert version() == f"{__version__}+{commit}-dirty"


def test_package_inside_another_checkout_has_its_own_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # As in a virtual environment of another project.
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "commit", "--quiet", "--allow-empty", "--message", "first")
    (tmp_path / "site-packages" / "pipeline" / "store").mkdir(parents=True)
    monkeypatch.setattr(manifest, "__file__", str(tmp_path / "site-packages" / "pipeline" / "store" / "manifest.py"))
    assert version() == __version__


def test_checkout_without_git_has_the_package_version(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    git(checkout, "init", "--quiet")
    monkeypatch.setenv("PATH", str(checkout))
    assert version() == __version__


def test_this_code_is_named_once_a_process() -> None:
    assert code_version() == code_version() == version()
    assert code_version().startswith("0.1.0")


# --- roles of inputs ----------------------------------------------------------------------------


def old_manifest(kind: str, **inputs: object) -> bytes:
    """Return a manifest of format 1, whose inputs had no roles."""
    told = {"kind": kind, "recipe": "nsmc", "run": "r", "key": "k", "created": str(NOW), "code": "c"}
    return json.dumps(told | {"inputs": inputs, "fields": {}, "figures": {}, "files": {}}).encode()


@pytest.mark.parametrize(
    ("kind", "name", "role"),
    [
        ("train", "start", "started_from"),
        ("train", "tokenized", "made_from"),
        ("decide", "champion", "compared_with"),
        ("decide", "best", "compared_with"),
        ("decide", "evaluated", "made_from"),
        ("release", "champion", "made_from"),
    ],
)
def test_old_inputs_get_the_role_that_their_stage_gave_them(kind: str, name: str, role: str) -> None:
    read = Manifest.parse(old_manifest(kind, **{name: {"ref": "a/b", "key": "k"}}), "manifest.json")
    assert read.inputs == {name: Input(ref="a/b", key="k", role=role)}  # type: ignore[arg-type]
    assert Manifest.parse(read.model_dump_json(), "manifest.json") == read


@pytest.mark.parametrize(
    "damage", [{"start": 3}, {"start": {"ref": "a"}}, {"start": {"ref": "a", "key": "k", "role": "x"}}]
)
def test_damaged_inputs_are_damage(damage: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"^inputs\.start"):
        Manifest.parse(old_manifest("tokenize", **damage), "manifest.json")
    if damage != {"start": {"ref": "a", "key": "k", "role": "x"}}:
        with pytest.raises(ValueError, match=r"^inputs\.start"):
            Manifest.parse(old_manifest("train", **damage), "manifest.json")


@pytest.mark.parametrize("inputs", [3, None, ["a"]])
def test_inputs_that_are_no_map_are_damage(inputs: object) -> None:
    document = json.loads(old_manifest("train")) | {"inputs": inputs}
    with pytest.raises(ValueError, match=r"^inputs: Input should be a valid dictionary"):
        Manifest.parse(json.dumps(document), "manifest.json")
