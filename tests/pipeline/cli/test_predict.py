"""Predictions and metrics of the served model, through the same engine as the service."""

from __future__ import annotations

import io
import json
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.cli.predict import LONGEST_LINE, champion, open_lines, predict_lines, read_lines
from pipeline.errors import ArtifactError, DataError
from pipeline.store.artifacts import Artifact, Store
from pipeline.store.deployments import DeploymentLog
from serving.engine.engine import Engine, EngineOptions
from tests.support.tiny_releases import SENTENCES, TinyModel, expected

ENDINGS = (b"\n", b"\r\n")


def engine_of(release: Artifact) -> Engine:
    return Engine(release.path, EngineOptions(threads=1, device="cpu"))


@pytest.fixture
def text_engine(classifier: TinyModel, store: Store) -> Engine:
    return engine_of(classifier.publish(store, "nsmc", key="a"))


@pytest.fixture
def pair_engine(cross_encoder: TinyModel, store: Store) -> Engine:
    return engine_of(cross_encoder.publish(store, "klue-sts", key="a"))


def predictions(engine: Engine, content: bytes, chunk: int = 3) -> list[dict[str, Any]]:
    return list(predict_lines(engine, read_lines(io.BytesIO(content)), chunk))


@pytest.mark.parametrize("ending", ENDINGS)
def test_predictions_keep_order_and_equal_the_models(ending: bytes, classifier: TinyModel, text_engine: Engine) -> None:
    # One at a time: int8 scales activations by the whole batch, so other inputs of a batch change an answer slightly.
    found = predictions(text_engine, ending.join(text.encode() for text in SENTENCES), chunk=1)
    assert [item["text"] for item in found] == list(SENTENCES)
    for item in found:
        values = expected(classifier, (item["text"],))
        assert list(item["probabilities"].values()) == pytest.approx(values, abs=1e-4)
        assert item["label"] == max(item["probabilities"], key=item["probabilities"].__getitem__)
        assert item["score"] == item["probabilities"][item["label"]]
        assert item["release"] == "nsmc-a"


@pytest.mark.parametrize("sample", [True, False])
def test_every_prediction_says_whether_trained_on_sample(sample: bool, classifier: TinyModel, store: Store) -> None:
    engine = engine_of(classifier.publish(store, "nsmc", key="a", sample=sample))
    assert [item["sample"] for item in predictions(engine, "좋다\n나쁘다\n".encode())] == [sample, sample]


def test_order_is_kept_across_chunks(text_engine: Engine) -> None:
    content = "\n".join(SENTENCES).encode()
    for chunk in (1, 3, len(SENTENCES), 1000):
        assert [item["text"] for item in predictions(text_engine, content, chunk)] == list(SENTENCES)


def test_a_long_text_says_that_it_was_cut(text_engine: Engine) -> None:
    (short, long) = predictions(text_engine, f"좋다\n{'정말 좋은 영화 ' * 50}\n".encode())
    assert (short["truncated"], long["truncated"]) == (False, True)


def test_pairs_come_with_a_tab_or_as_json(cross_encoder: TinyModel, pair_engine: Engine) -> None:
    a, b = SENTENCES[4:6]
    lines = [f"{a}\t{b}", json.dumps([a, b]), json.dumps([a, b], ensure_ascii=False), f"[속보] {a}\t{b}"]
    found = predictions(pair_engine, "\n".join(lines).encode(), chunk=1)
    assert [item["pair"] for item in found] == [[a, b]] * 3 + [[f"[속보] {a}", b]]
    (score,) = expected(cross_encoder, (a, b))
    for item in found[:3]:
        assert item["score"] == pytest.approx(score, abs=1e-4)
        assert item["similar"] == (item["score"] >= 3.0)


def test_invalid_line_is_reported_and_others_are_answered(text_engine: Engine) -> None:
    content = "좋다\n".encode() + "나쁘다\n".encode("cp949") + "\n   \n그저 그렇다".encode()
    found = predictions(text_engine, content)
    assert [item.get("text") for item in found] == ["좋다", None, None, None, "그저 그렇다"]
    assert [item.get("line") for item in found] == [None, 2, 3, 4, None]
    assert "UTF-8" in found[1]["error"]
    assert "empty" in found[2]["error"]


@pytest.mark.parametrize(
    "line", ["하나", "하나\t", '["하나"]', '["하나", 2]', "하나\t둘\t셋", '["하나", "둘", "셋"]', '["", "둘"]']
)
def test_invalid_pair_error_shows_the_format(line: str, pair_engine: Engine) -> None:
    (found,) = predictions(pair_engine, line.encode())
    assert found["line"] == 1
    assert '["a", "b"]' in found["error"]


def test_a_byte_order_mark_belongs_to_no_text(text_engine: Engine) -> None:
    (found,) = predictions(text_engine, b"\xef\xbb\xbf" + "좋다".encode())
    assert found["text"] == "좋다"


def test_answers_flow_before_the_input_ends(text_engine: Engine) -> None:
    read = []

    def lines() -> Iterator[bytes]:
        for text in SENTENCES:
            read.append(text)
            yield text.encode()

    answers = predict_lines(text_engine, lines(), 2)
    next(answers)
    assert len(read) == 2
    assert len(list(answers)) == len(SENTENCES) - 1


def test_half_a_character_costs_nobody_else_the_answer(pair_engine: Engine) -> None:
    found = predictions(pair_engine, '["가", "나"]\n["가", "\\ud800"]\n["다", "라"]'.encode())
    assert [item.get("pair") for item in found] == [["가", "나"], None, ["다", "라"]]
    assert found[1]["line"] == 2
    assert "half of a character" in found[1]["error"]


@pytest.mark.parametrize(
    "size", [LONGEST_LINE - 1, LONGEST_LINE, LONGEST_LINE + 1, 3 * LONGEST_LINE, 3 * LONGEST_LINE + 7]
)
def test_too_long_line_is_reported_and_skipped(size: int, text_engine: Engine) -> None:
    found = predictions(text_engine, b"first\n" + b"x" * (size - 1) + b"\nlast")
    assert found[0]["text"] == "first"
    assert found[2]["text"] == "last"
    assert len(found) == 3
    assert found[1].get("error") == (
        "the line is longer than 65,536 bytes; write one input per line" if size > LONGEST_LINE else None
    )


def test_file_without_line_ends_stays_within_memory(text_engine: Engine) -> None:
    class Endless(io.RawIOBase):
        left = 64 * 2**20

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: Any) -> int:
            count = min(len(buffer), self.left)
            self.left -= count
            buffer[:count] = b"x" * count
            return count

    endless = Endless()
    tracemalloc.start()
    try:
        (found,) = predict_lines(text_engine, read_lines(io.BufferedReader(endless)), 3)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (found["line"], endless.left) == (1, 0)
    assert peak < 2**21


def test_no_lines_are_no_answers(text_engine: Engine) -> None:
    assert predictions(text_engine, b"") == []


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot read .*gone\.txt"), open_lines(str(tmp_path / "gone.txt")):
        pass


def test_the_champion_is_what_the_newest_deployment_names(
    classifier: TinyModel, other_classifier: TinyModel, store: Store
) -> None:
    with pytest.raises(ArtifactError, match="no release of nsmc is deployed"):
        champion(store, "nsmc")
    first = classifier.publish(store, "nsmc", key="a")
    second = other_classifier.publish(store, "nsmc", key="b")
    records = DeploymentLog(store)
    records.append({"nsmc": first.ref}, after=0, run="r", reason="first")
    records.append({"nsmc": second.ref}, after=1, run="r", reason="second")
    assert champion(store, "nsmc").ref == second.ref
    assert champion(store, "nsmc", first.ref).ref == first.ref


def test_a_release_of_another_recipe_is_refused(classifier: TinyModel, store: Store) -> None:
    release = classifier.publish(store, "nsmc", key="a")
    with pytest.raises(ArtifactError, match="is a release of recipe nsmc; name a release of klue-sts"):
        champion(store, "klue-sts", release.ref)
