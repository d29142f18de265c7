"""Formats of records: older ones are read, newer ones are named, damaged ones are neither."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline import __version__
from pipeline.errors import ArtifactError, NewerFormatError
from pipeline.models.base_model import BaseRecord
from pipeline.store.artifacts import Artifact, Store
from pipeline.store.decisions import Decision, read_decision
from pipeline.store.deployments import Deployment
from pipeline.store.formats import Record
from pipeline.store.manifest import Manifest
from pipeline.store.releases import Card, read_card
from pipeline.store.verdicts import Hold, Verdict


class Note(Record):
    """A record whose format 3 replaced `name` by `title`."""

    format: int = 3
    title: str

    @classmethod
    def upgraded(cls, document: dict[str, Any]) -> dict[str, Any]:
        return {"title": document["name"]}


@pytest.mark.parametrize("record", [Manifest, Card, Decision, Deployment, Verdict, Hold, BaseRecord])
def test_every_record_of_the_store_has_a_format(record: type[Record]) -> None:
    assert issubclass(record, Record)
    assert record.newest_format() >= 1


def test_new_record_is_written_with_its_format() -> None:
    assert json.loads(Note(title="a").model_dump_json()) == {"format": 3, "title": "a"}


@pytest.mark.parametrize("old", [{"name": "a"}, {"format": 1, "name": "a"}, {"format": 2, "name": "a"}])
def test_older_format_is_upgraded(old: dict[str, Any]) -> None:
    assert Note.parse(json.dumps(old), "note.json") == Note(title="a")


@pytest.mark.parametrize("unknown", [{"title": "a"}, {"heading": "a", "colour": "red"}])
def test_newer_format_is_named_with_what_to_do(unknown: dict[str, Any]) -> None:
    with pytest.raises(NewerFormatError) as caught:
        Note.parse(json.dumps({"format": 4, **unknown}), "s3://models/note.json")
    assert str(caught.value) == (
        f"s3://models/note.json has format 4; version {__version__} reads formats up to 3. A newer version of Saebyeok "
        "wrote it: update Saebyeok here"
    )
    assert not caught.value.retryable


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"", "Invalid JSON: EOF while parsing a value at line 1 column 0"),
        (b"[]", "Input should be a valid dictionary"),
        (b'{"format": 3}', "title: Field required"),
        (b'{"format": 3, "title": "a", "colour": "red"}', "colour: Extra inputs are not permitted"),
        (b'{"format": "new", "name": "a"}', "unable to parse string as an integer"),
    ],
)
def test_damaged_record_is_no_newer_one(content: bytes, fault: str) -> None:
    with pytest.raises(ValueError, match=fault) as caught:
        Note.parse(content, "note.json")
    assert not isinstance(caught.value, NewerFormatError)
    assert "\n" not in str(caught.value)


def of_the_future(store: Store, kind: str, file: str) -> Artifact:
    with store.draft() as draft:
        (draft / file).write_text('{"format": 99, "wings": 2}', encoding="utf-8")
        return store.publish(draft, kind, "nsmc", "k" * 16, run="r", inputs={}, fields={}, figures={})


def test_card_and_decision_of_a_newer_version_are_named(store: Store) -> None:
    release, decided = of_the_future(store, "release", "card.json"), of_the_future(store, "decide", "decision.json")
    with pytest.raises(NewerFormatError, match=rf"{release.uri}/card\.json has format 99"):
        read_card(release)
    with pytest.raises(NewerFormatError, match=rf"{decided.uri}/decision\.json has format 99"):
        read_decision(decided)


def test_manifest_of_a_newer_version_is_named(store: Store) -> None:
    made = of_the_future(store, "train", "weights")
    path = Path(store.uri) / made.ref / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | {"format": 3}), encoding="utf-8")
    with pytest.raises(NewerFormatError, match=r"manifest\.json has format 3; .* up to 2\."):
        store.open(made.ref)


def test_unknown_field_of_a_known_format_is_damage(store: Store) -> None:
    made = of_the_future(store, "train", "weights")
    path = Path(store.uri) / made.ref / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | {"wings": 2}), encoding="utf-8")
    with pytest.raises(ArtifactError, match=r"manifest\.json is damaged: wings: Extra inputs are not permitted"):
        store.open(made.ref)
