"""Lineage at Weights & Biases."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from pipeline.job import open_store
from pipeline.settings import Settings
from pipeline.store.artifacts import Artifact, Store
from pipeline.tracking.lineage import described, hosted_artifact, hosted_name, sources

if TYPE_CHECKING:
    from tests.pipeline.conftest import Bucket

TEXT = "정말 재미있게 봤어요"


def publish(
    store: Store,
    kind: str,
    files: dict[str, str],
    inputs: dict[str, Artifact] | None = None,
    started_from: dict[str, Artifact] | None = None,
) -> Artifact:
    with store.draft() as draft:
        for name, content in files.items():
            (draft / name).write_text(content, encoding="utf-8")
        refs: Any = {name: {"ref": item.ref, "key": item.key} for name, item in (inputs or {}).items()}
        refs |= {
            name: {"ref": item.ref, "key": item.key, "role": "started_from"}
            for name, item in (started_from or {}).items()
        }
        figures = {"rows": 3, "sample": True, "warnings": [f"odd: {TEXT}"], "arrivals": [{"date": "2026-01-01"}]}
        return store.publish(draft, kind, "nsmc", "a" * 16, run="r", inputs=refs, fields={}, figures=figures)


def release(store: Store) -> Artifact:
    return publish(store, "release", {"model.int8.onnx": "model", "card.json": TEXT, "report.html": TEXT})


def test_the_nearest_of_the_ancestry_are_named_once(store: Store) -> None:
    data = publish(store, "validate", {})
    tokens = publish(store, "tokenize", {}, {"validated": data})
    trained = publish(store, "train", {}, {"tokenized": tokens})
    champion = publish(store, "release", {}, {"trained": trained})
    evaluated = publish(store, "evaluate", {}, {"validated": data, "trained": trained})
    # Not the champion's inputs: they are not this model's.
    assert sources([evaluated, champion]) == [data.ref, champion.ref]


def test_chain_of_started_trainings_has_its_own_data_set(store: Store) -> None:
    start = None
    for _ in range(3):
        data = publish(store, "validate", {})
        tokens = publish(store, "tokenize", {}, {"validated": data})
        start = publish(store, "train", {}, {"tokenized": tokens}, started_from={"start": start} if start else {})
    assert start is not None
    assert sources([start]) == [data.ref]


def test_data_set_and_model_have_separate_names(store: Store) -> None:
    data = publish(store, "validate", {})
    attempt = data.ref.rsplit("/", 1)[1]
    assert hosted_name(data.ref) == ("nsmc-data", attempt)
    assert hosted_name(data.ref.replace("validate/", "release/")) == ("nsmc", attempt)


def test_sentences_that_may_quote_rows_are_omitted(store: Store) -> None:
    document = described(publish(store, "validate", {"train.parquet": TEXT}))
    assert TEXT not in json.dumps(document, ensure_ascii=False)
    assert document["figures"] == {"rows": 3, "sample": True, "arrivals": [{"date": "2026-01-01"}]}
    assert set(document["files"]) == {"train.parquet"}


@pytest.mark.parametrize(
    ("texts", "names"),
    [
        (False, {"manifest.json", "model.int8.onnx"}),
        (True, {"manifest.json", "model.int8.onnx", "card.json", "report.html"}),
    ],
)
def test_model_texts_are_included_only_when_enabled(store: Store, texts: bool, names: set[str]) -> None:
    made = hosted_artifact(release(store), texts=texts)
    assert (made.type, set(made.manifest.entries)) == ("model", names)


def test_data_set_rows_are_included_only_when_enabled(store: Store) -> None:
    data = publish(store, "validate", {"train.parquet": TEXT, "quarantine.tsv": TEXT})
    assert set(hosted_artifact(data, texts=False).manifest.entries) == {"manifest.json"}
    assert set(hosted_artifact(data, texts=True).manifest.entries) == {"manifest.json", *data.manifest.files}


def test_bucket_artifact_is_referenced_without_download(settings: Settings, bucket: Bucket) -> None:
    made = release(open_store(settings, bucket.uri))
    entry = hosted_artifact(made, texts=False).manifest.entries["model.int8.onnx"]
    assert entry.ref == f"{bucket.uri}/{made.ref}/model.int8.onnx"
    assert not (settings.home / "cache" / "store" / "artifacts").exists()
