"""The upload process of a run: timeout and error messages."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipeline.errors import TrackingError
from pipeline.tracking.run_directories import RunDirectory
from pipeline.tracking.upload import Upload, find_shortfall

Start = Callable[[str], Upload]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Return `start(script)`, which starts a substitute upload process that logs to standard error."""
    (tmp_path / "upload").mkdir()
    started = []

    def run(script: str) -> Upload:
        with (tmp_path / "upload" / "log.txt").open("wb") as log:
            process = subprocess.Popen([sys.executable, "-S", "-c", script], stdin=subprocess.PIPE, stderr=log)
        started.append(process)
        return Upload(RunDirectory(tmp_path), process)

    yield run
    for process in started:
        process.kill()
        process.communicate()


def mark(upload: Upload, *marks: str) -> None:
    for name in marks:
        upload.run.mark(name)


def test_an_upload_out_of_time_is_ended(start: Start) -> None:
    upload = start("import time; time.sleep(600)")
    mark(upload, "uploaded", "linked")
    with pytest.raises(TrackingError, match=r"^the upload took longer than 0\.1 s; run `saebyeok sync`"):
        upload.finish(0.1)
    assert upload.process.returncode == -9


def test_finished_upload_raises_nothing(start: Start) -> None:
    upload = start("")
    mark(upload, "uploaded", "linked")
    upload.finish(60)


@pytest.mark.parametrize("marks", [(), ("uploaded",), ("linked",)])
def test_upload_with_missing_marks_raises(start: Start, marks: tuple[str, ...]) -> None:
    upload = start("")
    mark(upload, *marks)
    with pytest.raises(TrackingError, match=r"^the upload process died without an error message$"):
        upload.finish(60)


def test_failed_upload_raises_its_last_log_line(start: Start) -> None:
    upload = start("import sys; sys.stderr.write('wandb: hello\\nerror: the key is refused\\n\\n'); sys.exit(1)")
    with pytest.raises(TrackingError, match=r"^the key is refused$"):
        upload.finish(60)


TORN = "runsync: incomplete transaction log: error reading: unexpected EOF"
LOST = "filetransfer: uploader: error uploading"


@pytest.mark.parametrize(
    ("problems", "synced", "says"),
    [
        ([], True, None),
        ([TORN], False, None),
        ([], False, "did not upload the run"),
        ([LOST], True, LOST),
        ([TORN, LOST], False, LOST),
        ([LOST, TORN], True, LOST),
        ([TORN + " of another kind"], False, "of another kind"),
    ],
)
def test_shortfall_is_any_problem_except_a_torn_file(problems: list[str], synced: bool, says: str | None) -> None:
    found = find_shortfall(problems, synced=synced)
    assert found is None if says is None else found is not None and says in found
