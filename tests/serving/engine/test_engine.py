"""The engine: answers, order, sub-batches, devices."""

from __future__ import annotations

import gc
import json
import shutil
import unicodedata
import weakref
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from pipeline.devices import cuda_devices
from pipeline.errors import ArtifactError, BadInputError
from pipeline.models.row_encoder import Encoder
from pipeline.recipes.kinds.task_kind import Method
from pipeline.settings import load_settings
from pipeline.store.artifacts import Store
from serving.engine.engine import PADDING, Engine, EngineOptions, sub_batches
from serving.engine.session import Device
from tests.support.properties import given
from tests.support.tiny_releases import SENTENCES, TinyModel, expected

pytestmark = [pytest.mark.cpu, pytest.mark.torch]

# int8 activations are scaled per sub-batch, so the other rows change an answer slightly. By how much is the same on
# every CPU, because the sums of int8 products are whole numbers.
COMPANY = 0.05


@pytest.fixture
def release(store: Store, classifier: TinyModel) -> Path:
    return classifier.publish(store, "nsmc", key="a" * 16).path


def test_one_text_gets_the_models_answer(release: Path, classifier: TinyModel) -> None:
    engine = Engine(release, EngineOptions(device="cpu"))
    for text in SENTENCES:
        np.testing.assert_allclose(engine.classify([text])[0], expected(classifier, (text,)), atol=1e-5)


def test_many_texts_keep_their_order(release: Path, classifier: TinyModel) -> None:
    engine = Engine(release, EngineOptions(threads=3))
    texts = [SENTENCES[i % len(SENTENCES)] + " 좋다" * (i % 7) for i in range(200)]
    answer = engine.classify(texts)
    assert answer.shape == (200, 2)
    assert answer.dtype == np.float32
    np.testing.assert_allclose(answer.sum(axis=1), 1, atol=1e-5)
    alone = np.array([expected(classifier, (text,)) for text in texts[:40]])
    # Other rows change answers slightly; mixed-up rows would differ much more.
    assert np.corrcoef(answer[:40, 0], alone[:, 0])[0, 1] > 0.9


def test_no_texts_are_no_answers(release: Path, store: Store, sentence_encoder: TinyModel) -> None:
    assert Engine(release).classify([]).shape == (0, 2)
    pairs = Engine(sentence_encoder.publish(store, "klue-sts", key="b" * 16).path)
    assert pairs.score([]).shape == (0,)
    assert pairs.embed([]).shape[0] == 0


@pytest.mark.parametrize("name", ["cross_encoder", "sentence_encoder"])
def test_pairs_get_a_score_in_range(name: str, store: Store, request: pytest.FixtureRequest) -> None:
    model = request.getfixturevalue(name)
    engine = Engine(model.publish(store, "klue-sts", key="c" * 16).path)
    pairs = [(left, right) for left in SENTENCES for right in SENTENCES]
    scores = engine.score(pairs)
    assert scores.shape == (100,)
    assert scores.min() >= 0
    assert scores.max() <= 5
    alone = np.array([expected(model, pair)[0] for pair in pairs[:20]])
    np.testing.assert_allclose(engine.score(pairs[:1])[0], alone[0], atol=1e-4)
    assert np.abs(scores[:20] - alone).max() < 0.3


def test_scores_are_clipped(store: Store, sentence_encoder: TinyModel, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(sentence_encoder.publish(store, "klue-sts", key="d" * 16).path, copy)
    card = json.loads((copy / "card.json").read_text())
    for intercept, bound in ((100.0, 5.0), (-100.0, 0.0)):
        card["calibration"]["intercept"] = intercept
        (copy / "card.json").write_text(json.dumps(card))
        assert Engine(copy).score([(SENTENCES[0], SENTENCES[1])]).tolist() == [bound]


def test_vectors_are_unit_vectors_of_one_text_each(store: Store, sentence_encoder: TinyModel) -> None:
    engine = Engine(sentence_encoder.publish(store, "klue-sts", key="e" * 16).path)
    vectors = engine.embed(SENTENCES)
    assert vectors.shape == (len(SENTENCES), 32)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-3)


def test_long_text_is_truncated_and_flagged(release: Path, classifier: TinyModel) -> None:
    long = "영화 " * 500
    answer = Engine(release).answer([("영화",), (long,)])
    assert answer.truncated.tolist() == [False, True]
    np.testing.assert_allclose(Engine(release).classify([long])[0], expected(classifier, (long,)), atol=1e-5)


def test_unsupported_request_is_refused(release: Path) -> None:
    engine = Engine(release)
    with pytest.raises(ValueError, match="classification release, not regression"):
        engine.score([("가", "나")])
    with pytest.raises(ValueError, match="no sentence vectors"):
        engine.embed(["가"])


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (("가", "나"), "not one text"),
        ((), "not one text"),
        ("가", "not one text"),
        ((7,), "not int"),
        (("좋\ud83d다",), "at index 1"),
    ],
)
def test_a_bad_input_is_named(bad: Any, why: str, release: Path) -> None:
    engine = Engine(release)
    with pytest.raises(BadInputError, match=why) as caught:
        engine.answer([("좋다",), ("싫다",), bad, bad])
    assert caught.value.index == 2
    assert why in (engine.problem(bad) or "")
    assert engine.problem(("좋다",)) is None


def test_a_pair_is_two_texts_of_whole_characters(store: Store, sentence_encoder: TinyModel) -> None:
    engine = Engine(sentence_encoder.publish(store, "klue-sts", key="b" * 16).path)
    for bad in (("가",), ("가", None), "가나", ("가", "\udcff")):
        with pytest.raises(BadInputError) as caught:
            engine.answer([("가", "나"), bad])  # type: ignore[list-item]
        assert caught.value.index == 1
    with pytest.raises(BadInputError) as caught:
        engine.embed(["가", "\udcff"])
    assert caught.value.index == 1


def test_the_settings_say_how_it_computes(release: Path) -> None:
    settings = load_settings().model_copy(update={"device": "cpu", "batch_tokens": 64, "threads": 3})
    assert EngineOptions.from_settings(settings) == EngineOptions(threads=3, device="cpu", batch_tokens=64)
    assert EngineOptions.from_settings(settings, threads=1).threads == 1
    assert EngineOptions.from_settings(load_settings()).device is None
    texts = [text for text in SENTENCES for _ in range(4)]
    wanted = Engine(release, EngineOptions(device="cpu", batch_tokens=1)).classify(texts)
    # One sub-batch per row, because int8 answers depend on the other rows.
    np.testing.assert_array_equal(wanted[::4], wanted[1::4])
    alone = Engine(release, EngineOptions(device="cpu")).classify([texts[0]])
    np.testing.assert_array_equal(wanted[:1], alone)


@pytest.mark.parametrize("file", ["card.json", "tokenizer.json", "model.int8.onnx"])
def test_a_damaged_release_cannot_be_loaded(file: str, release: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(release, copy)
    (copy / file).write_bytes(b"{")
    with pytest.raises(ArtifactError):
        Engine(copy, EngineOptions(device="cpu"))


@pytest.mark.skipif(cuda_devices() > 0, reason="this machine has a CUDA device")
def test_without_cuda_the_cpu_is_used(release: Path) -> None:
    engine = Engine(release)
    assert (engine.device, engine.provider) == ("cpu", "CPUExecutionProvider")
    with pytest.raises(ArtifactError, match="CUDA"):
        Engine(release, EngineOptions(device="cuda"))


@pytest.mark.parametrize(("device", "left"), [("cuda", "cpu"), ("cpu", "cuda")])
def test_missing_device_file_raises(release: Path, tmp_path: Path, device: Device, left: Device) -> None:
    copy = shutil.copytree(release, tmp_path / "copy")
    card = Engine(release, EngineOptions(device="cpu")).card
    some = card.model_copy(update={"variants": {left: card.variants[left]}})
    (copy / "card.json").write_text(some.model_dump_json(), encoding="utf-8")
    with pytest.raises(ArtifactError, match="the release has no file for"):
        Engine(copy, EngineOptions(device=device))


@pytest.mark.skipif(cuda_devices() == 0, reason="this machine has no CUDA device")
def test_with_cuda_it_is_used(release: Path, classifier: TinyModel) -> None:
    engine = Engine(release)
    assert (engine.device, engine.provider) == ("cuda", "CUDAExecutionProvider")
    np.testing.assert_allclose(engine.classify(SENTENCES[:1])[0], expected(classifier, SENTENCES[:1]), atol=COMPANY)


def test_an_engine_is_freed_without_the_collector(release: Path) -> None:
    engine = Engine(release, EngineOptions(threads=2))
    engine.classify(SENTENCES * 20)
    gone = weakref.ref(engine)
    gc.disable()
    try:
        del engine
        assert gone() is None
    finally:
        gc.enable()


@given(st.lists(st.integers(1, 128), max_size=80), st.integers(1, 512))
def test_sub_batches_cover_rows_within_the_budget(lengths: list[int], budget: int) -> None:
    groups = list(sub_batches(np.array(lengths, dtype=np.int64), budget))
    assert sorted(row for group in groups for row in group) == list(range(len(lengths)))
    for group in groups:
        longest = max(lengths[row] for row in group)
        assert len(group) == 1 or longest * len(group) <= budget
        assert sum(longest - lengths[row] for row in group) <= PADDING * budget


@pytest.mark.parametrize("method", ["cosine", "euclidean"])
def test_a_bi_encoder_compares_by_cosine_or_distance(store: Store, sentence_encoder: TinyModel, method: Method) -> None:
    engine = Engine(sentence_encoder.publish(store, "klue-sts", key="e" * 16).path)
    assert engine.methods == ("cosine", "euclidean")
    pairs = list(zip(SENTENCES[0::2], SENTENCES[1::2], strict=True))
    # The same sub-batches as in the engine.
    vectors = engine.embed([text for side in zip(*pairs, strict=True) for text in side])
    left, right = vectors[: len(pairs)], vectors[len(pairs) :]
    cosines = (left * right).sum(axis=1)
    wanted = 2.5 * cosines + 2.5 if method == "cosine" else 5 - 2.5 * np.sqrt(2 - 2 * cosines)
    np.testing.assert_allclose(engine.answer(pairs, method=method).values[:, 0], np.clip(wanted, 0, 5), atol=1e-3)


def test_unsupported_method_is_refused(release: Path, store: Store, cross_encoder: TinyModel) -> None:
    engine = Engine(cross_encoder.publish(store, "klue-sts", key="f" * 16).path)
    assert engine.methods == ("cross-encoder",)
    with pytest.raises(ValueError, match="no method cosine"):
        engine.answer([("가", "나")], method="cosine")
    assert Engine(release).methods == ()


def test_unknown_tokens_are_counted(release: Path, store: Store, cross_encoder: TinyModel) -> None:
    known, snowman = SENTENCES[0], "☃"
    answer = Engine(release).answer(
        [(known,), (snowman,), (f"{snowman} {known} {snowman}",), ("",), (f"{snowman} " * 9,)]
    )
    assert answer.unknown.tolist() == [0, 1, 2, 0, 9]
    assert answer.tokens.tolist() == [answer.tokens[0], 1, answer.tokens[0] + 2, 0, 9]
    assert answer.unknown_share.tolist() == [0, 1, 2 / (answer.tokens[0] + 2), 0, 1]
    engine = Engine(cross_encoder.publish(store, "klue-sts", key="f" * 16).path)
    assert engine.answer([(known, snowman)]).unknown_share.tolist() == [1 / (answer.tokens[0] + 1)]


#: Hangul as it is typed, taken apart, and letters that a vocabulary may lack.
ANY_TEXT = st.text(
    st.sampled_from("영화정말재미ㅋㅠ☃é 👍🏽" + unicodedata.normalize("NFD", "영화정말재미é")), max_size=60
)


def test_training_and_serving_read_the_same_tokens(release: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(release)
    fed: list[list[int]] = []
    running = engine._running

    def record(feed: dict[str, np.ndarray[Any, Any]]) -> Any:
        fed.append(feed["input_ids"][0].tolist())
        return running.run(feed)

    recorder = SimpleNamespace(session=running.session, places=running.places, run=record)
    monkeypatch.setattr(engine, "_running", recorder)
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(release / "tokenizer.json"), unk_token="[UNK]")
    # The most common tokenizers do not compose by themselves.
    assert tokenizer.tokenize(unicodedata.normalize("NFD", "영화")) != tokenizer.tokenize("영화")
    encoder = Encoder(tokenizer, engine.card.max_length, engine.card.task.encodings)

    @given(ANY_TEXT)
    def check(text: str) -> None:
        fed.clear()
        engine.classify([text])
        (learnt,) = encoder.encode(pd.DataFrame({"text": [text]})).rows["input_ids"]
        assert fed == [learnt.tolist()]

    check()


def test_hangul_that_is_taken_apart_is_put_together(release: Path) -> None:
    engine = Engine(release)
    for text in SENTENCES:
        apart = unicodedata.normalize("NFD", text)
        assert apart != text
        np.testing.assert_array_equal(engine.classify([apart]), engine.classify([text]))
