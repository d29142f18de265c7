"""Artifacts for tests of stores."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import TypeVar

from pipeline.store.artifacts import Artifact, Store

T = TypeVar("T")
#: Some names sort after `manifest.json`, which must still be written last.
FILES = {
    "docs/manifest.json": b"{}",
    "tokenizer.json": b"{}",
    "weights.bin": b"\x00\x01" * 500,
}


def publish(store: Store, key: str = "k1", files: Mapping[str, bytes] = FILES, **inputs: Artifact) -> Artifact:
    with store.draft() as draft:
        for name, content in files.items():
            (draft / name).parent.mkdir(parents=True, exist_ok=True)
            (draft / name).write_bytes(content)
        return store.publish(
            draft,
            "train",
            "nsmc",
            key,
            run="test",
            inputs={name: {"ref": item.ref, "key": item.key} for name, item in inputs.items()},
            fields={"seed": 7},
            figures={"seconds": 1.5, "history": [{"loss": 0.5}]},
        )


def find(store: Store, key: str = "k1", **inputs: Artifact) -> Artifact | None:
    return store.find("train", "nsmc", key, inputs)


def found_ref(store: Store) -> str | None:
    artifact = find(store)
    return artifact.ref if artifact else None


def read_all(artifact: Artifact) -> dict[str, bytes]:
    """Return its verified files."""
    return {name: (artifact.path / name).read_bytes() for name in artifact.manifest.files}


def run_together(calls: list[Callable[[], T]]) -> list[T]:
    """Return the results of calls that start simultaneously in threads."""
    barrier = threading.Barrier(len(calls))
    results: dict[int, T] = {}

    def run(number: int) -> None:
        barrier.wait()
        results[number] = calls[number]()

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [results[number] for number in range(len(calls))]
