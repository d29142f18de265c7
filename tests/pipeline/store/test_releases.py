"""The card of a release."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from pipeline.errors import ArtifactError
from pipeline.recipes.kinds.score_line import ScoreLine
from pipeline.store.artifacts import Artifact, Store
from pipeline.store.releases import Card, Golden, Variant, find_release, read_card, release_id
from tests.support.strict import check_strict

CARD: dict[str, Any] = {
    "id": "i", "recipe": "nsmc", "title": "t", "kind": "classification", "inputs": "text", "objective": None,
    "sample": True, "labels": ["0", "1"], "score_range": None, "similar_at": None, "calibration": None,
    "max_length": 64, "variants": {}, "golden": [], "golden_tolerance": 0.1, "figures": {}, "trained": "train/nsmc/k/1",
    "created": "2026-11-29T00:00:00Z",
}  # fmt: skip


def make_release(store: Store, key: str = "k1", card: bytes = b"{}", recipe: str = "nsmc") -> Artifact:
    with store.draft() as draft:
        (draft / "card.json").write_bytes(card)
        return store.publish(draft, "release", recipe, key, run="test", inputs={}, fields={}, figures={})


VARIANT = Variant(file="model.onnx", precision="int8", parity=None)
RECORDS: list[BaseModel] = [
    ScoreLine(slope=1.0, intercept=0.0),
    VARIANT,
    Golden(texts=("a",), expected=(1.0,)),
    Card.model_validate(CARD),
]


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_a_record_is_strict(record: BaseModel) -> None:
    check_strict(record)


@pytest.mark.parametrize("precision", ["int8", "fp16", "fp32"])
def test_variant_is_named_by_its_precision(precision: str) -> None:
    assert Variant.model_validate({"file": "model.onnx", "precision": precision, "parity": None}).name == precision


def test_card_optional_fields_have_defaults() -> None:
    assert Card.model_validate(CARD).euclidean is None
    assert not VARIANT.packed


@pytest.mark.parametrize(
    ("kind", "inputs", "objective", "route"),
    [
        ("classification", "text", None, "/classify"),
        ("classification", "pair", "cross-encoder", "/classify"),
        ("regression", "pair", "cross-encoder", "/similarity"),
        ("regression", "pair", "bi-encoder", "/similarity"),
        ("regression", "text", None, "/score"),
    ],
)
def test_card_returns_its_route(kind: str, inputs: str, objective: str | None, route: str) -> None:
    card = Card.model_validate(CARD | {"kind": kind, "inputs": inputs, "objective": objective})
    assert card.route == card.task.route == route


def test_older_card_has_one_file_per_device(store: Store) -> None:
    old = CARD | {"variants": {"cpu": {"file": "model.onnx", "precision": "int8", "parity": None}}}
    card = read_card(make_release(store, card=json.dumps(old).encode()))
    (variant,) = card.variants["cpu"]
    assert (variant.file, variant.packed, variant.name) == ("model.onnx", False, "int8")
    new = CARD | {"variants": {"cpu": [variant.model_dump() | {"packed": True}]}}
    assert [item.name for item in Card.model_validate(new).variants["cpu"]] == ["packed int8"]
    with pytest.raises(ValidationError):
        Card.model_validate(CARD | {"variants": 3})


@pytest.mark.parametrize("content", [b"", b"{", b'{"id": 3}', b'{"id": "x", "unknown": 1}'])
def test_damaged_card_raises(store: Store, content: bytes) -> None:
    with pytest.raises(ArtifactError, match=r"card\.json is missing or damaged"):
        read_card(make_release(store, card=content))


def test_release_without_a_card_raises(store: Store) -> None:
    with store.draft() as draft:
        release = store.publish(draft, "release", "nsmc", "k", run="r", inputs={}, fields={}, figures={})
    with pytest.raises(ArtifactError, match=r"has no file card\.json"):
        read_card(release)


def named(store: Store, name: str, recipe: str) -> Artifact:
    return make_release(store, card=json.dumps(CARD | {"id": name}).encode(), recipe=recipe)


@pytest.mark.parametrize("recipe", ["nsmc", "klue-sts"])
def test_release_is_found_by_id_and_by_ref(store: Store, recipe: str) -> None:
    wanted = named(store, f"{recipe}-1", recipe)
    named(store, f"{recipe}-2", recipe)
    damaged = make_release(store, recipe=recipe)
    assert find_release(store, f"{recipe}-1").ref == wanted.ref
    assert find_release(store, damaged.ref).ref == damaged.ref


@pytest.mark.parametrize("name", ["nsmc-3", "nsmc", "other-1", "-1"])
def test_unknown_release_is_named_in_the_error(store: Store, name: str) -> None:
    named(store, "nsmc-1", "nsmc")
    with pytest.raises(ArtifactError, match=f"has no release {name}; `saebyeok releases` lists the deployed ones"):
        find_release(store, name)


def test_unreadable_release_is_named_by_its_ref(store: Store) -> None:
    lost, damaged = named(store, "nsmc-1", "nsmc"), make_release(store)
    assert release_id(store, lost.ref) == "nsmc-1"
    store.prune(lost)
    assert release_id(store, lost.ref) == lost.ref
    assert release_id(store, damaged.ref) == damaged.ref
