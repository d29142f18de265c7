"""Comparison of `make up` of two commits: each run is a fresh clone with empty caches, and the ratio is by rounds."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from benchmarks.checkouts import up
from benchmarks.checkouts.up import one_up, summarize
from tests.support.hook import web_hook

#: Notes the commit, what the clone and the caches held before, and the settings; the second `up` would find `.venv`.
MAKEFILE = """\
up:
\t@mkdir .venv $$UV_CACHE_DIR $$PIP_CACHE_DIR
\t@echo "up $$(git log -1 --format=%s) $(PYTHON) $(RUN) $(DATA) $$SAEBYEOK_HOME" >> {notes}
down:
\t@echo down >> {notes}
"""


def git(directory: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.com"]
    subprocess.run(["git", *identity, *arguments], cwd=directory, check=True)


@pytest.fixture
def notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The notes of each `make up` and `make down` of a project with the commits `first` and `second`."""
    project, notes = tmp_path / "project", tmp_path / "notes"
    git(tmp_path, "init", "--quiet", "project")
    (project / "Makefile").write_text(MAKEFILE.format(notes=notes))
    git(project, "add", ".")
    git(project, "commit", "--quiet", "--message", "first")
    git(project, "commit", "--quiet", "--allow-empty", "--message", "second")
    monkeypatch.setattr(up, "ROOT", project)
    for name in ("SAEBYEOK_HOME", "PYTHON", "RUN", "DATA"):
        monkeypatch.setenv(name, "not-for-the-clones")
    return notes


def test_each_run_is_a_fresh_clone_with_empty_caches(notes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with web_hook() as service:
        monkeypatch.setattr(up, "ENDPOINT", service.url)
        assert one_up("HEAD", "") > 0
        assert one_up("HEAD~1", "some-python") > 0
    assert notes.read_text().split() == ["up", "second", "down", "up", "first", "some-python", "down"]


def test_up_that_leaves_no_answer_is_stopped(notes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(up, "ENDPOINT", "http://127.0.0.1:1/classify")
    with pytest.raises(OSError, match="refused"):
        one_up("HEAD", "")
    assert notes.read_text().split() == ["up", "second", "down"]


def test_ratio_is_the_mean_of_the_rounds() -> None:
    found = summarize([(240, 600), (250, 500)])
    assert found["ratio"] == pytest.approx(0.2**0.5)
    assert (found["low"], found["high"]) == (0.4, 0.5)
    assert (found["here"], found["there"]) == ([240, 250], [600, 500])
