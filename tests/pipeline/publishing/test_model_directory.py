"""Published directories: loaded by transformers and sentence-transformers, they answer as the service does."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unicodedata import normalize

import numpy as np
import onnxruntime
import pytest
import torch
from huggingface_hub import ModelCard
from tokenizers import Tokenizer
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer, pipeline

from pipeline.errors import ArtifactError
from pipeline.models.heads import PooledClassifier
from pipeline.models.mean_pooled import (
    MeanPooledBertForSequenceClassification,
    MeanPooledElectraForSequenceClassification,
    MeanPooledRobertaForSequenceClassification,
)
from pipeline.publishing.model_card import render_card
from pipeline.publishing.model_directory import write_model, write_tokenizer
from pipeline.store.figures import TrainingFigures
from pipeline.store.releases import read_card
from serving.engine.engine import Engine, EngineOptions
from tests.support.small_pipeline import Road, small_recipe
from tests.support.tiny_releases import SENTENCES

pytestmark = pytest.mark.torch

#: Also decomposed Hangul, capitals, unknown characters, and more tokens than the model reads.
TEXTS = (*SENTENCES[:4], normalize("NFD", SENTENCES[0]), "  GOOD Movie 영화", "☃☃ ㅋㅋ", "정말 좋았다 " * 40)
PAIRS = tuple(zip(TEXTS, (*TEXTS[1:], TEXTS[0]), strict=True))
#: Difference that the order of additions in fp32 explains.
ROUNDING = 2e-5


@pytest.fixture(autouse=True)
def own_modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the copies of published code that transformers imports in the test's directory."""
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))


@pytest.fixture
def publish(tmp_path: Path) -> Callable[[Road], Path]:
    def write(road: Road) -> Path:
        directory = tmp_path / "published"
        directory.mkdir()
        write_model(road.recipe, road.released, directory)
        return directory

    return write


def engine_of(road: Road, precision: str) -> Engine:
    """Return the service's engine with the file for the CPU of this precision."""
    variants = read_card(road.released).variants["cpu"]
    number = next(place for place, variant in enumerate(variants) if variant.precision == precision)
    return Engine(road.released.path, EngineOptions(device="cpu", threads=1), variant=number)


def check_answers(road: Road, inputs: Any, found: Any) -> None:
    """Compare `found` with the service's answers by the fp32 file, and by the file that it prefers."""
    card = read_card(road.released)
    low, high = card.task.answer_range(card)
    exact, served = (
        engine_of(road, name).answer(inputs).values for name in ("fp32", card.variants["cpu"][0].precision)
    )
    found = np.clip(np.asarray(found).reshape(exact.shape), low, high)
    np.testing.assert_allclose(found, exact, atol=ROUNDING * (high - low))
    np.testing.assert_allclose(found, served, atol=card.golden_tolerance)


def probabilities(classify: Any, inputs: Any, labels: tuple[str, ...], **options: Any) -> list[list[float]]:
    answers = classify(inputs, truncation=True, top_k=None)
    return [
        [next(item["score"] for item in answer if item["label"] == label) for label in labels] for answer in answers
    ]


def test_classifier_with_mean_pooling_answers_as_the_service(reviews: Road, publish: Callable[[Road], Path]) -> None:
    directory = publish(reviews)
    classify = pipeline("text-classification", str(directory), trust_remote_code=True, device="cpu")
    labels = reviews.recipe.labels
    # One at a time, and in one padded batch.
    for size in (1, len(TEXTS)):
        found = probabilities(classify, list(TEXTS), labels, batch_size=size)
        check_answers(reviews, [(text,) for text in TEXTS], found)


def test_mean_pooling_is_not_loaded_as_a_plain_bert(reviews: Road, publish: Callable[[Road], Path]) -> None:
    directory = publish(reviews)
    with pytest.raises(ValueError, match="trust_remote_code"):
        AutoModelForSequenceClassification.from_pretrained(directory, trust_remote_code=False)


def test_classifier_that_reads_cls_needs_no_code(reviews: Road, publish: Callable[[Road], Path]) -> None:
    road = reviews.with_recipe(small_recipe("nsmc", model__pooling="cls", train__epochs=1))
    directory = publish(road)
    assert not list(directory.glob("*.py"))
    classify = pipeline("text-classification", str(directory), device="cpu")
    check_answers(road, [(text,) for text in TEXTS], probabilities(classify, list(TEXTS), road.recipe.labels))


def test_cross_encoder_scores_as_the_service(pairs: Road, publish: Callable[[Road], Path]) -> None:
    road = pairs.with_recipe(small_recipe("klue-sts", model__objective="cross-encoder", train__epochs=1))
    score = pipeline("text-classification", str(publish(road)), trust_remote_code=True, device="cpu")
    found = [score({"text": first, "text_pair": second}, truncation=True) for first, second in PAIRS]
    assert {item["label"] for item in found} == {"score"}
    check_answers(road, list(PAIRS), [item["score"] for item in found])


def test_bi_encoder_embeds_and_scores_as_the_service(pairs: Road, publish: Callable[[Road], Path]) -> None:
    sentence_transformers = pytest.importorskip("sentence_transformers")
    directory = publish(pairs)
    model = sentence_transformers.SentenceTransformer(str(directory), device="cpu")
    vectors = model.encode(list(TEXTS))
    np.testing.assert_allclose(vectors, engine_of(pairs, "fp32").embed(TEXTS), atol=ROUNDING)
    line = json.loads((directory / "config.json").read_text())["saebyeok"]["calibration"]
    cosines = np.einsum("ij,ij->i", vectors, np.roll(vectors, -1, axis=0))
    check_answers(pairs, list(PAIRS), line["slope"] * cosines + line["intercept"])


def test_tokens_are_those_of_the_service(reviews: Road, publish: Callable[[Road], Path]) -> None:
    directory = publish(reviews)
    tokenizer = AutoTokenizer.from_pretrained(directory)
    engine = engine_of(reviews, "fp32")
    found = tokenizer(list(TEXTS), truncation=True)["input_ids"]
    lengths = engine.answer([(text,) for text in TEXTS]).tokens
    assert [len(ids) - 2 for ids in found] == lengths.tolist()
    assert max(map(len, found)) == reviews.recipe.model.max_length
    assert found[0] == found[4], "decomposed Hangul"


def test_tokenizer_without_normalizer_composes_too(reviews: Road, tmp_path: Path) -> None:
    # A base model's tokenizer need not compose Hangul; the service composes before it.
    source = tmp_path / "trained"
    shutil.copytree(reviews.trained.path / "model", source)
    tokenizer = Tokenizer.from_file(str(source / "tokenizer.json"))
    tokenizer.normalizer = None  # type: ignore[assignment]
    tokenizer.save(str(source / "tokenizer.json"))
    (tmp_path / "target").mkdir()
    write_tokenizer(source, tmp_path / "target", 32)
    found = AutoTokenizer.from_pretrained(tmp_path / "target")
    assert found(normalize("NFD", "영화")).input_ids == found("영화").input_ids


@pytest.mark.parametrize("precision", ["model.onnx", "model_int8.onnx", "model_fp16.onnx"])
def test_onnx_files_are_those_of_the_release(reviews: Road, publish: Callable[[Road], Path], precision: str) -> None:
    session = onnxruntime.InferenceSession(publish(reviews) / "onnx" / precision, providers=["CPUExecutionProvider"])
    ids = np.array([[2, 5, 3]], np.int32)
    (logits,) = session.run(None, {"input_ids": ids, "attention_mask": np.ones_like(ids)})
    assert logits.shape == (1, len(reviews.recipe.labels))


def test_configuration_names_labels_and_release(reviews: Road, publish: Callable[[Road], Path]) -> None:
    config: Any = AutoConfig.from_pretrained(publish(reviews), trust_remote_code=True)
    assert config.id2label == {0: "negative", 1: "positive"}
    assert config.label2id == {"negative": 0, "positive": 1}
    assert config.saebyeok["release"] == read_card(reviews.released).id


def test_card_states_data_metrics_and_limits(reviews: Road, publish: Callable[[Road], Path]) -> None:
    card = ModelCard.load(publish(reviews) / "README.md")
    assert (card.data.language, card.data.pipeline_tag) == ("ko", "text-classification")
    assert card.data.eval_results is None, "the sample's figures must not be compared with others"
    figures = reviews.evaluated.manifest.figures["test"]["accuracy"]
    assert f"{figures['value']:.4f} ({figures['low']:.4f} to {figures['high']:.4f})" in card.text
    for sentence in ("Trained on synthetic sample data", "trained from scratch", "trust_remote_code=True", "400 rows"):
        assert sentence in card.text


def test_card_of_real_data_states_source_and_licence(reviews: Road) -> None:
    card = read_card(reviews.released).model_copy(update={"sample": False})
    training = TrainingFigures.read(reviews.trained)
    found = ModelCard(render_card(reviews.recipe, card, training, reviews.evaluated, custom_code=False))
    assert found.data.datasets == ["e9t/nsmc"]
    assert {item.metric_type for item in found.data.eval_results or ()} == {"accuracy", "f1"}
    assert "Licence: cc0-1.0" in found.text
    assert "https://raw.githubusercontent.com/e9t/nsmc" in found.text
    assert "synthetic" not in found.text


def test_no_text_of_the_data_is_published(reviews: Road, publish: Callable[[Road], Path]) -> None:
    texts = {text.encode() for text in reviews.rows["test"]["text"] if len(text) > 12}
    content = b"".join(path.read_bytes() for path in publish(reviews).rglob("*") if path.is_file())
    assert len(texts) > 100
    assert [text for text in texts if text in content] == []


def test_deleted_model_is_reported(reviews: Road, publish: Callable[[Road], Path]) -> None:
    # In this worker's copy of the store.
    (reviews.trained.path / "model" / "config.json").rename(reviews.trained.path / "config.json")
    try:
        with pytest.raises(ArtifactError, match=r"config\.json"):
            publish(reviews)
    finally:
        (reviews.trained.path / "config.json").rename(reviews.trained.path / "model" / "config.json")


@pytest.mark.parametrize(
    "made",
    [
        MeanPooledBertForSequenceClassification,
        MeanPooledElectraForSequenceClassification,
        MeanPooledRobertaForSequenceClassification,
    ],
)
def test_published_code_computes_what_was_trained(made: Any, tmp_path: Path) -> None:
    torch.manual_seed(3)
    shape = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = made.config_class(**shape, intermediate_size=32, max_position_embeddings=20, num_labels=3, pad_token_id=0)
    model = made(config).eval()
    model.save_pretrained(tmp_path)
    model = made.from_pretrained(tmp_path).eval()
    plain = made.__mro__[2].from_pretrained(tmp_path).eval()
    ids = torch.tensor([[2, 7, 9, 3], [2, 8, 3, 0]])
    mask = (ids != 0).long()
    with torch.inference_mode():
        found = model(input_ids=ids, attention_mask=mask)
        expected = PooledClassifier(plain, "mean")(ids, mask)["logits"]
        assert not torch.allclose(found.logits, plain(input_ids=ids, attention_mask=mask).logits, atol=1e-3)
        alone = model(input_ids=ids[1:, :3])
    torch.testing.assert_close(found.logits, expected)
    torch.testing.assert_close(alone.logits, expected[1:])
    assert model(input_ids=ids, attention_mask=mask, labels=torch.tensor([0, 2])).loss.requires_grad
