"""Batches, losses and answers: padding, comparison of pairs, and answers that do not depend on padding."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import pearsonr
from transformers import BertConfig, BertModel

from pipeline.errors import BaseModelError, RecipeError
from pipeline.models.batches import Collate, Rows, load_rows
from pipeline.models.heads import correlation_loss
from pipeline.models.tokenizer import learn_tokenizer
from pipeline.recipes.kinds.score_line import ScoreLine
from pipeline.tasks.registry import task_of
from pipeline.tasks.trained import Trained
from tests.support.small_pipeline import small_recipe

pytestmark = pytest.mark.torch

TEXTS = [
    "정말 재미있는 영화였어요",
    "지루",
    "배우들의 연기가 좋았고 음악도 좋았고 화면도 좋았다 하지만 결말은 아쉬웠다",
    "오늘은 비가 온다",
    "처음부터 끝까지 눈을 뗄 수 없었다",
]
TOKENIZER = learn_tokenizer(TEXTS * 3, 500)


def untrained(name: str, **overrides: object) -> Trained:
    """Return a model with large random weights, so that different texts get different answers."""
    recipe = small_recipe(name, **overrides)
    torch.manual_seed(11)
    network = task_of(recipe).build(None, TOKENIZER)
    module = network.module.eval()
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.ndim > 1:
                parameter.mul_(15)
    calibration = ScoreLine(slope=0.5, intercept=2.0) if recipe.model.objective == "bi-encoder" else None
    return Trained(recipe, network, TOKENIZER, calibration, None, torch.device("cpu"))


MODELS = {
    "classifier": lambda: untrained("nsmc"),
    "cross-encoder": lambda: untrained("klue-sts", model__objective="cross-encoder"),
    "bi-encoder": lambda: untrained("klue-sts"),
    "classifier of means": lambda: untrained("nsmc", model__pooling="mean"),
    "cross-encoder of means": lambda: untrained("klue-sts", model__objective="cross-encoder", model__pooling="mean"),
    "bi-encoder of [CLS]": lambda: untrained("klue-sts", model__pooling="cls"),
}


@pytest.fixture(params=list(MODELS))
def model(request: pytest.FixtureRequest) -> Trained:
    return MODELS[request.param]()


def table(model: Trained) -> pd.DataFrame:
    frame = pd.DataFrame({"text": TEXTS})
    return frame if model.recipe.inputs == "text" else frame.assign(text_pair=TEXTS[::-1])


def test_padding_changes_no_answer(model: Trained) -> None:
    rows = table(model)
    together = model.answer(rows)
    alone = np.concatenate([model.answer(rows.iloc[[number]]) for number in range(len(rows))])
    # Texts differ in length, so all but one were padded; attending to padding would change the answers clearly.
    assert np.ptp(together, axis=0).max() > 0.01
    assert together == pytest.approx(alone, abs=1e-5)


def test_rows_are_the_same_by_length(tmp_path: Path) -> None:
    lengths = [3, 7, 1, 7]
    ids = [list(range(number, number + length)) for number, length in enumerate(lengths)]
    table = pd.DataFrame({"id": list("abcd"), "length": lengths, "input_ids": ids, "label": [0, 1, 2, 3]})
    table.to_parquet(tmp_path / "rows.parquet")
    plain, sorted_ = load_rows(tmp_path / "rows.parquet"), load_rows(tmp_path / "rows.parquet", by_length=True)
    assert [sorted_[at]["label"] for at in range(4)] == [1, 3, 0, 2]
    for at in range(4):
        row = sorted_[at]
        np.testing.assert_array_equal(row["input_ids"], plain[row["label"]]["input_ids"])


def test_answers_are_in_the_order_of_the_rows(model: Trained) -> None:
    rows = table(model)
    assert model.answer(rows[::-1]) == pytest.approx(model.answer(rows)[::-1], abs=1e-5)


def test_answers_have_the_shape_and_range_of_their_kind(model: Trained) -> None:
    answers = model.answer(table(model))
    if model.recipe.kind == "classification":
        assert answers.shape == (len(TEXTS), 2)
        assert answers.sum(axis=1) == pytest.approx(np.ones(len(TEXTS)))
    else:
        assert answers.shape == (len(TEXTS),)
        assert ((answers >= 0) & (answers <= 5)).all()


def test_vectors_are_unit_means_without_padding() -> None:
    module = untrained("klue-sts").network.module
    ids = torch.tensor([[2, 30, 31, 32, 3, 0, 0]])
    mask = torch.tensor([[1, 1, 1, 1, 1, 0, 0]])
    with torch.no_grad():
        hidden = module.encoder(input_ids=ids[:, :5], attention_mask=mask[:, :5]).last_hidden_state  # type: ignore[operator]
        (vector,) = module.vectors(ids, mask)  # type: ignore[operator]
    mean = hidden[0].mean(0)
    assert vector.norm().item() == pytest.approx(1.0, abs=1e-5)
    assert vector.numpy() == pytest.approx((mean / mean.norm()).numpy(), abs=1e-5)


def test_a_classifier_reads_what_the_recipe_says() -> None:
    ids = torch.tensor([[2, 30, 31, 32, 3, 0, 0]])
    mask = torch.tensor([[1, 1, 1, 1, 1, 0, 0]])
    module = untrained("nsmc", model__pooling="mean").network.module
    whole = module.classifier
    with torch.no_grad():
        hidden = whole.base_model(input_ids=ids[:, :5], attention_mask=mask[:, :5]).last_hidden_state  # type: ignore[union-attr]
        pooled = torch.tanh(whole.base_model.pooler.dense(hidden[0].mean(0)))  # type: ignore[union-attr]
        wanted = whole.classifier(pooled)  # type: ignore[operator, union-attr]
        found = module(ids, mask)["logits"][0]
        of_cls = untrained("nsmc", model__pooling="cls").network.module(input_ids=ids, attention_mask=mask)["logits"][0]
    assert found.numpy() == pytest.approx(wanted.numpy(), abs=1e-5)
    assert found.numpy() != pytest.approx(of_cls.numpy(), abs=1e-2)


def test_the_loss_of_pairs_is_what_their_correlation_lacks() -> None:
    draw = np.random.default_rng(5)
    cosines, labels = draw.normal(size=(2, 40))
    found = correlation_loss(torch.tensor(cosines), torch.tensor(labels)).item()
    assert found == pytest.approx(1 - pearsonr(cosines, labels).statistic, abs=1e-5)


@pytest.mark.parametrize("labels", [[2.0, 2.0, 2.0], [1.0, 2.0, 4.0]])
def test_constant_cosines_or_labels_have_finite_gradients(labels: list[float]) -> None:
    cosines = torch.full((3,), 0.4, requires_grad=True) if labels[0] == 1.0 else torch.rand(3, requires_grad=True)
    loss = correlation_loss(cosines, torch.tensor(labels))
    loss.backward()
    assert loss.item() == pytest.approx(1.0, abs=1e-6)
    assert cosines.grad is not None
    assert torch.isfinite(cosines.grad).all()


def test_the_loss_falls_when_a_pair_is_put_right() -> None:
    cosines = torch.tensor([0.5, 0.4, 0.2], requires_grad=True)
    correlation_loss(cosines, torch.tensor([1.0, 4.0, 0.5])).backward()
    assert cosines.grad is not None
    # A gradient step lowers the first cosine, whose pair is less similar, and raises the second.
    assert cosines.grad[0] > 0 > cosines.grad[1]


def test_batch_is_padded_right_to_its_longest_row() -> None:
    rows = [
        {"input_ids": np.array([2, 9, 8, 3]), "token_type_ids": np.array([0, 0, 1, 1]), "label": 1.5},
        {"input_ids": np.array([2, 3]), "token_type_ids": np.array([0, 1]), "label": 2.0},
    ]
    batch = Collate(7)(rows)
    assert batch["input_ids"].tolist() == [[2, 9, 8, 3], [2, 3, 7, 7]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1], [1, 1, 0, 0]]
    assert batch["token_type_ids"].tolist() == [[0, 0, 1, 1], [0, 1, 0, 0]]
    assert batch["labels"].dtype == torch.float32


def test_texts_of_a_pair_are_padded_separately() -> None:
    rows = [
        {"input_ids": np.array([2, 5, 3]), "input_ids_pair": np.array([2, 3]), "label": 0},
        {"input_ids": np.array([2, 3]), "input_ids_pair": np.array([2, 5, 6, 3]), "label": 1},
    ]
    batch = Collate(0)(rows)
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 1, 0]]
    assert batch["attention_mask_pair"].tolist() == [[1, 1, 0, 0], [1, 1, 1, 1]]
    assert batch["labels"].dtype == torch.long


def test_mask_follows_lengths_and_not_ids() -> None:
    # A text may contain the padding token itself.
    batch = Collate(0)([{"input_ids": np.array([2, 0, 3])}])
    assert batch["attention_mask"].tolist() == [[1, 1, 1]]


def test_rows_are_what_the_trainer_asks_for() -> None:
    rows = Rows(pd.DataFrame({"input_ids": [[1, 2], [3]], "label": [0, 1], "length": [2, 1]}), ["input_ids", "label"])
    assert len(rows) == 2
    assert rows[1] == {"input_ids": [3], "label": 1}


def test_model_from_scratch_has_the_recipes_shape() -> None:
    config = untrained("nsmc", model__pooling="cls").network.module.config
    assert (config.num_hidden_layers, config.hidden_size, config.intermediate_size) == (1, 32, 64)  # type: ignore[union-attr]
    assert (config.vocab_size, config.max_position_embeddings) == (len(TOKENIZER), 32)  # type: ignore[union-attr]
    assert config.id2label == {0: "negative", 1: "positive"}  # type: ignore[union-attr]


def save_base(directory: Path, **shape: int) -> Path:
    """Return the directory of a base model with random weights."""
    fields = {"vocab_size": len(TOKENIZER), "max_position_embeddings": 64} | shape
    config = BertConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64, **fields)
    BertModel(config).save_pretrained(directory)
    TOKENIZER.save_pretrained(directory)
    return directory


def test_dropout_comes_from_recipe_or_base_model(tmp_path: Path) -> None:
    base = save_base(tmp_path / "base")
    for share, found in ((None, 0.1), (0.3, 0.3), (0.0, 0.0)):
        recipe = small_recipe("nsmc", model__base=str(base), train__dropout=share)
        module = task_of(recipe).build(base, TOKENIZER).module
        drops = {part.p for part in module.modules() if isinstance(part, torch.nn.Dropout)}
        assert drops == {found}
    with pytest.raises(RecipeError, match=r"`model\.scratch\.dropout`"):
        small_recipe("nsmc", train__dropout=0.2)


def test_base_model_that_lacks_a_layer_is_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    directory = save_base(tmp_path / "base")
    # A new head is expected, so nothing is said of it.
    task_of(small_recipe("nsmc")).build(directory, TOKENIZER)
    assert capfd.readouterr() == ("", "")
    config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    (directory / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 2}), encoding="utf-8")
    # transformers would train the second layer from random weights.
    with pytest.raises(BaseModelError, match=r"lacks 16 weights of its encoder, such as bert\.encoder\.layer\.1\."):
        task_of(small_recipe("nsmc")).build(directory, TOKENIZER)


def test_a_base_model_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    directory = save_base(tmp_path / "base")
    (directory / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises(BaseModelError, match="base"):
        task_of(small_recipe("nsmc")).build(directory, TOKENIZER)
