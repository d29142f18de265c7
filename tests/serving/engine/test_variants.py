"""Choice of a release's file: the fastest on this machine among those that answer as the card says."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import onnxruntime
import pytest
from prometheus_client import CollectorRegistry

from pipeline.store.artifacts import Store
from pipeline.store.releases import Variant
from serving.api.metrics import Metrics
from serving.engine.engine import Engine, EngineOptions
from serving.engine.variants import open_fastest
from tests.support.damage import damage_file, each_damage
from tests.support.tiny_releases import SENTENCES, TinyModel

CPU = EngineOptions(threads=1, device="cpu")
RECORD = {"device": "cpu", "runtime": onnxruntime.__version__}


@pytest.fixture
def release(light: TinyModel, store: Store, tmp_path: Path) -> Path:
    """A release's directory that a test may change."""
    return shutil.copytree(light.publish(store, "nsmc", key="a" * 16).path, tmp_path / "release")


def add(release: Path, *files: tuple[str, bytes]) -> None:
    """Add files for the CPU to the release."""
    card = Engine(release, CPU).card
    extra = []
    for name, content in files:
        (release / name).write_bytes(content)
        extra.append(Variant(file=name, precision="fp32", parity=None))
    changed = card.model_copy(update={"variants": card.variants | {"cpu": (*card.variants["cpu"], *extra)}})
    (release / "card.json").write_text(changed.model_dump_json(), encoding="utf-8")


def test_fastest_file_serves_and_rates_are_saved(release: Path) -> None:
    add(release, ("again.onnx", (release / "model.int8.onnx").read_bytes()))
    engine = open_fastest(release, CPU)
    assert engine.rates.keys() == {"int8", "fp32"}
    assert engine.rates[engine.variant.name] == max(engine.rates.values()) > 0
    assert engine.classify(SENTENCES).tolist() == Engine(release, CPU).classify(SENTENCES).tolist()


def test_the_only_file_is_not_measured(release: Path) -> None:
    engine = open_fastest(release, CPU)
    assert (engine.variant.name, engine.rates) == ("int8", {})


def test_file_with_wrong_answers_does_not_serve(
    release: Path, other_light: TinyModel, caplog: pytest.LogCaptureFixture
) -> None:
    other = (other_light.directory / "model.int8.onnx").read_bytes()
    add(release, ("broken.onnx", b"not a model"), ("other.onnx", other))
    engine = open_fastest(release, CPU)
    assert (engine.variant.name, set(engine.rates)) == ("int8", {"int8"})
    assert "broken.onnx cannot be loaded" in caplog.text
    assert "its card says" in caplog.text


def test_old_card_has_one_file_per_device(release: Path) -> None:
    card = json.loads((release / "card.json").read_text(encoding="utf-8"))
    card["variants"] = {
        "cpu": {"file": "model.int8.onnx", "precision": "int8", "parity": {"changed_labels": 0.0}},
        "cuda": {"file": "model.fp16.onnx", "precision": "fp16", "parity": {"changed_labels": 0.0}},
    }
    (release / "card.json").write_text(json.dumps(card), encoding="utf-8")
    engine = open_fastest(release, CPU)
    assert engine.variant.file == "model.int8.onnx"
    assert [item.name for item in engine.card.variants["cuda"]] == ["fp16"]


def test_workers_share_the_measured_rates(release: Path, tmp_path: Path) -> None:
    record = tmp_path / "rates" / "nsmc.json"
    add(release, ("again.onnx", (release / "model.int8.onnx").read_bytes()))
    first = open_fastest(release, CPU, record=record)
    assert open_fastest(release, CPU, record=record).rates == first.rates
    record.write_text(json.dumps(RECORD | {"rates": {"int8": 1.0, "fp32": 2.0}}), encoding="utf-8")
    told = open_fastest(release, CPU, record=record)
    assert (told.variant.name, told.rates) == ("fp32", {"int8": 1.0, "fp32": 2.0})
    assert told.variant.file == "again.onnx"


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        json.dumps(RECORD | {"device": "cuda", "rates": {"fp16": 9.0}}),
        json.dumps(RECORD | {"rates": {"int4": 9.0}}),
        json.dumps(RECORD | {"runtime": "1.0.0", "rates": {"int8": 9.0}}),
    ],
)
def test_record_of_other_files_is_measured_again(release: Path, tmp_path: Path, content: str) -> None:
    record = tmp_path / "nsmc.json"
    record.write_text(content, encoding="utf-8")
    add(release, ("again.onnx", (release / "model.int8.onnx").read_bytes()))
    found = open_fastest(release, CPU, record=record).rates
    assert found.keys() == {"int8", "fp32"}
    assert json.loads(record.read_text(encoding="utf-8")) == RECORD | {"rates": found}


def test_broken_recorded_file_falls_back_to_first(
    release: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    record = tmp_path / "nsmc.json"
    record.write_text(json.dumps(RECORD | {"rates": {"int8": 1.0, "fp32": 2.0}}), encoding="utf-8")
    add(release, ("broken.onnx", b"not a model"))
    assert open_fastest(release, CPU, record=record).variant.name == "int8"
    assert "broken.onnx cannot be loaded" in caplog.text


def test_rate_measurement_is_not_counted_as_traffic(release: Path) -> None:
    add(release, ("again.onnx", (release / "model.int8.onnx").read_bytes()))
    registry = CollectorRegistry()
    engine = open_fastest(release, CPU, Metrics(registry).observer)

    def tokenized() -> float:
        return registry.get_sample_value("saebyeok_tokenizing_seconds_count", {"recipe": "nsmc"}) or 0.0

    assert tokenized() == 0
    engine.classify(SENTENCES)
    assert tokenized() == 1


@each_damage
def test_a_damaged_record_is_measured_again(release: Path, tmp_path: Path, damage: str) -> None:
    record = tmp_path / "nsmc.json"
    add(release, ("again.onnx", (release / "model.int8.onnx").read_bytes()))
    open_fastest(release, CPU, record=record)
    damage_file(record, damage)
    found = open_fastest(release, CPU, record=record).rates
    assert json.loads(record.read_text(encoding="utf-8")) == RECORD | {"rates": found}


def test_unwritable_record_stops_no_release(release: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    add(release, ("again.onnx", (release / "model.int8.onnx").read_bytes()))
    (tmp_path / "nsmc.json" / "taken").mkdir(parents=True)
    assert open_fastest(release, CPU, record=tmp_path / "nsmc.json").rates.keys() == {"int8", "fp32"}
    assert "the measured speeds cannot be saved" in caplog.text
