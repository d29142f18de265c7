"""Kinds of task: look-up by names, and requests and results of the service in the form of each kind."""

from __future__ import annotations

import pytest

from pipeline.recipes.kinds.registry import KINDS, kind_of
from pipeline.recipes.kinds.task_kind import TaskKind
from pipeline.recipes.loading import load_recipe
from pipeline.recipes.schema import Recipe

REVIEWS, PAIRS = (load_recipe(name, "embedded") for name in ("nsmc", "klue-sts"))
every_kind = pytest.mark.parametrize("kind", KINDS.values(), ids=lambda kind: type(kind).__name__)


def fields_of(kind: TaskKind) -> Recipe:
    """Return a recipe with labels or scores, as `kind` needs them."""
    return REVIEWS if kind.answers == REVIEWS.task.answers else PAIRS


@every_kind
def test_kind_is_found_by_its_names(kind: TaskKind) -> None:
    assert kind_of(kind.kind, kind.inputs, kind.objective) is kind


@pytest.mark.parametrize(("inputs", "objective"), [("text", "cross-encoder"), ("text", "bi-encoder"), ("pair", None)])
@pytest.mark.parametrize("kind", ["classification", "regression"])
def test_objective_is_for_pairs_and_only_for_pairs(kind: str, inputs: str, objective: str | None) -> None:
    with pytest.raises(ValueError, match=r"`model\.objective` .* required for pairs and only for pairs"):
        kind_of(kind, inputs, objective)


def test_bi_encoder_needs_a_regression() -> None:
    with pytest.raises(ValueError, match=r"`model\.objective` = bi-encoder is only for `kind` = regression"):
        kind_of("classification", "pair", "bi-encoder")


@every_kind
def test_result_of_an_answer_gives_the_answer_back(kind: TaskKind) -> None:
    fields = fields_of(kind)
    answer = [0.25, 0.75] if kind.answers == "probabilities" else [3.5]
    assert kind.answer(fields, kind.result(fields, answer)) == answer


def test_result_of_each_kind_has_its_fields() -> None:
    text, pair, cross, bi, score = KINDS.values()
    for kind in (text, pair):
        assert kind.result(REVIEWS, [0.25, 0.75]) == {
            "label": "positive",
            "score": 0.75,
            "probabilities": {"negative": 0.25, "positive": 0.75},
        }
    for kind in (cross, bi):
        # A pair at `similar_at` is similar.
        assert kind.result(PAIRS, [3.0]) == {"score": 3.0, "similar": True}
        assert kind.result(PAIRS, [2.75]) == {"score": 2.75, "similar": False}
    assert score.result(PAIRS, [2.75]) == {"score": 2.75}


@every_kind
def test_body_has_texts_or_pairs(kind: TaskKind) -> None:
    if len(kind.texts) == 1:
        assert kind.body([("a",), ("b",)]) == {"texts": ["a", "b"]}
    else:
        assert kind.body([("a", "b")]) == {"pairs": [["a", "b"]]}


@every_kind
def test_encodings_cover_every_text_once(kind: TaskKind) -> None:
    assert [text for texts in kind.encodings.values() for text in texts] == list(kind.texts)
    assert kind.joins_texts == (len(kind.texts) > len(kind.encodings))


@every_kind
def test_kind_that_lacks_its_fields_is_refused(kind: TaskKind) -> None:
    other = PAIRS if kind.answers == "probabilities" else REVIEWS
    with pytest.raises(ValueError, match=f"a {kind.kind} recipe needs"):
        kind.check(other)
    kind.check(fields_of(kind))
