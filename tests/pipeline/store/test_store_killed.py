"""A publisher killed at any point leaves a complete artifact or none."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pipeline.config_file import ROOT
from pipeline.store.artifacts import Store
from tests.support.stores import find, read_all

#: Sorted after `manifest.json`; the first is uploaded to a bucket in two parts.
CONTENTS = {"model/large.bin": b"m" * 2000, "tokenizer.json": b"{}"}

#: For each number that it reads, a copy of itself publishes two files and kills itself just before the n-th time that
#: it opens, makes or renames something of the store, or sends something that a bucket is to keep; how the copy ended is
#: written.
PUBLISHER = """
import os, signal, socket, sys
from pathlib import Path
import fsspec, s3fs
from aiobotocore.session import AioSession
from pipeline.store.artifacts import Store
from pipeline.store.manifest import code_version
from tests.pipeline.store.test_store_killed import CONTENTS

s3fs.core.calculate_chunksize = lambda size, chunksize: 1000
# Once, and not in every copy: what takes time and decides nothing.
code_version()
session = AioSession()
for name in ("service-2", "endpoint-rule-set-1"):
    session.get_component("data_loader").load_service_model("s3", name)
fsspec.config.conf["s3"] = {"session": session}

def publish(uri, cache, point):
    seen = 0

    def step():
        nonlocal seen
        seen += 1
        if seen == point:
            os.kill(os.getpid(), signal.SIGKILL)

    def hook(event, args):
        if event in ("open", "os.mkdir", "os.rename") and str(args[0]).startswith(uri):
            step()

    def send(connection, content):
        if not bytes(content).startswith((b"GET", b"HEAD", b"\\0")):
            step()
        return sent(connection, content)

    sent = socket.socket.send
    store = Store(uri, cache)
    with store.draft() as draft:
        for name, content in CONTENTS.items():
            (draft / name).parent.mkdir(exist_ok=True)
            (draft / name).write_bytes(content)
        sys.addaudithook(hook)
        socket.socket.send = send
        store.publish(draft, "train", "nsmc", "k1", run="killed", inputs={}, fields={}, figures={})

for line in sys.stdin:
    child = os.fork()
    if child == 0:
        code = 1
        try:
            publish(f"{sys.argv[1]}/{int(line)}", Path(sys.argv[2]), int(line))
            code = 0
        finally:
            os._exit(code)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@contextmanager
def publisher(uri: str, cache: Path) -> Iterator[Callable[[int], int]]:
    """`kill_at(point)`: how one ended that published in a store of its own, and was to be killed at its n-th step."""
    with subprocess.Popen(
        [sys.executable, "-c", PUBLISHER, uri, str(cache)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:

        def kill_at(point: int) -> int:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(f"{point}\n")
            process.stdin.flush()
            return int(process.stdout.readline())

        yield kill_at


def test_killed_publisher_leaves_complete_artifact_or_none(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if uri.startswith("s3://"):
        monkeypatch.setattr("moto.s3.models.S3_UPLOAD_PART_MIN_SIZE", 1000)
    appeared = []
    with publisher(uri, tmp_path / "cache") as kill_at:
        for point in range(1, 60):
            code = kill_at(point)
            found = find(Store(f"{uri}/{point}", tmp_path / "cache"))
            appeared.append(found is not None)
            if found is not None:
                assert read_all(found) == CONTENTS
            if code == 0:
                break
            assert code == -signal.SIGKILL
    assert len(appeared) > 9, "the hooks saw too little to mean anything"
    assert appeared[-1]
    # Only the last step completes it: the manifest's last byte, or the flush of the rename.
    assert not any(appeared[:-2])
