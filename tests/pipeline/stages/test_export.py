"""The export stage: a release that answers like the trained model, or an error."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from tokenizers import Tokenizer

from pipeline.errors import ArtifactError, LatencyError, ParityError
from pipeline.export import convert
from pipeline.export.convert import check_graph
from pipeline.export.onnx_graph import fuse, simplify, to_cpu, to_fp16, trace
from pipeline.export.onnx_session import open_session, run_onnx
from pipeline.export.quantization import to_int8
from pipeline.stages.decide import decide
from pipeline.stages.evaluate import evaluate
from pipeline.stages.export import export
from pipeline.store.artifacts import Artifact
from pipeline.store.releases import Card, read_card
from pipeline.tasks.trained import load_trained
from serving.engine.engine import Engine, EngineOptions
from serving.engine.golden import check_golden, engine_answers
from tests.support.small_pipeline import Road, open_road, save_base, small_recipe

pytestmark = [pytest.mark.torch, pytest.mark.cpu]

#: Measurements of each exported file.
FIGURES = ("largest_difference", "mean_difference", "changed_labels", "metric_change", "metric_error")


@pytest.fixture(scope="module")
def crossed(tmp_path_factory: pytest.TempPathFactory) -> Road:
    """Return a cross-encoder of pairs from a base model that reads token types."""
    home = tmp_path_factory.mktemp("crossed")
    probe = open_road(small_recipe("klue-sts"), home / "probe", train=1000, test=120)
    base = save_base(home / "base", probe.rows["train"]["text"].tolist(), num_hidden_layers=2, initializer_range=0.3)
    # Trained very little, so that the large random weights give each pair a distinct answer.
    bounds = {"changed_labels": 0.2, "metric_change": 0.2}
    recipe = small_recipe(
        "klue-sts",
        model__base=str(base),
        model__objective="cross-encoder",
        train__epochs=1,
        train__learning_rate=1e-3,
        export__int8=bounds,
        export__fp16=bounds,
    )
    return Road(open_road(recipe, home / "home", 1, 1).job, probe.rows)


@pytest.fixture(scope="module")
def averaged(crossed: Road) -> Road:
    """Return the same model, with the mean of all states."""
    model = crossed.recipe.model.model_copy(update={"pooling": "mean"})
    return crossed.with_recipe(crossed.recipe.model_copy(update={"model": model}))


@pytest.fixture(params=["nsmc", "klue-sts", "cross-encoder", "cross-encoder of means"])
def road(request: pytest.FixtureRequest, reviews: Road, pairs: Road, crossed: Road, averaged: Road) -> Road:
    roads = {"nsmc": reviews, "klue-sts": pairs, "cross-encoder": crossed, "cross-encoder of means": averaged}
    return roads[request.param]


def counts(file: Path) -> dict[str, int]:
    found: dict[str, int] = {}
    for node in onnx.load(file).graph.node:
        found[node.op_type] = found.get(node.op_type, 0) + 1
    return found


def names_of(card: Card) -> dict[str, list[str]]:
    return {device: [item.name for item in items] for device, items in card.variants.items()}


def one_by_one(card: Card, release: Artifact, texts: tuple[str, ...]) -> list[float]:
    """Return the answer to one input, computed from the release's files without exporter or engine."""
    tokenizer = Tokenizer.from_file(str(release.path / "tokenizer.json"))
    tokenizer.enable_truncation(card.max_length)
    session = onnxruntime.InferenceSession(
        str(release.path / card.variants["cpu"][0].file), providers=["CPUExecutionProvider"]
    )

    def run(encoding: Any) -> Any:
        feed = {"input_ids": encoding.ids, "attention_mask": [1] * len(encoding.ids)}
        if card.objective == "cross-encoder":
            feed["token_type_ids"] = encoding.type_ids
        return session.run(None, {name: np.array([value], np.int32) for name, value in feed.items()})[0][0]

    if card.kind == "classification":
        powers = np.exp(run(tokenizer.encode(texts[0])))
        return (powers / powers.sum()).tolist()
    low, high = card.score_range or (0.0, 0.0)
    if card.objective == "cross-encoder":
        return [float(np.clip(run(tokenizer.encode(*texts))[0], low, high))]
    assert card.calibration is not None
    left, right = (run(tokenizer.encode(text)) for text in texts)
    assert np.linalg.norm(left) == pytest.approx(1, abs=1e-3)
    return [float(np.clip(card.calibration.slope * (left @ right) + card.calibration.intercept, low, high))]


# --- the release ---


def test_weights_that_were_made_again_have_another_name(tmp_path: Path) -> None:
    bounds = {"changed_labels": 0.2, "metric_change": 0.2}
    recipe = small_recipe("nsmc", train__epochs=1, export__int8=bounds, export__fp16=bounds)
    road = open_road(recipe, tmp_path / "home", train=200, test=40)
    first, forced = road.released, replace(road.job, force=True)
    evaluated = evaluate(forced, road.validated, road.tokenized, road.trained)
    decided = decide(road.job, evaluated, None)
    again = export(road.job, road.validated, road.trained, evaluated, decided)
    assert again.key == first.key
    assert read_card(again).id != read_card(first).id
    same = export(forced, road.validated, road.trained, evaluated, decided)
    assert same.ref != again.ref
    assert read_card(same).id == read_card(again).id


def test_release_report_has_parity_and_latency(road: Road) -> None:
    report = (road.released.path / "report.html").read_text(encoding="utf-8")
    parity = road.released.manifest.figures["parity"]["int8"]["largest_difference"]
    assert f"{parity:.5f}" in report
    assert f"{road.released.manifest.figures['latency_ms']:.2f}" in report
    assert "Exported model" in report
    # The decision existed before.
    assert "Exported model" not in (road.decided.path / "report.html").read_text(encoding="utf-8")


def test_a_decision_about_another_evaluation_is_not_taken(reviews: Road, pairs: Road) -> None:
    with pytest.raises(ArtifactError, match="does not belong to evaluation"):
        export(reviews.job, reviews.validated, reviews.trained, reviews.evaluated, pairs.decided)


def test_a_release_holds_what_serving_needs(road: Road) -> None:
    release = road.released
    models = {f"model.{name}.onnx" for name in ("int8", "fp32", "fp16", "packed")}
    assert set(release.manifest.files) == models | {"card.json", "tokenizer.json", "report.html"}
    card = read_card(release)
    recipe = road.recipe
    assert re.fullmatch(rf"{recipe.name}-[0-9a-f]{{16}}", card.id)
    assert card.id == release.manifest.figures["id"]
    assert (card.recipe, card.kind, card.inputs, card.objective) == (
        recipe.name,
        recipe.kind,
        recipe.inputs,
        recipe.model.objective,
    )
    assert (card.labels, card.score_range, card.similar_at) == (recipe.labels, recipe.score_range, recipe.similar_at)
    assert (card.sample, card.max_length) == (True, 32)
    assert card.trained == road.trained.ref
    paired = recipe.model.objective == "bi-encoder"
    assert (card.calibration is not None, card.euclidean is not None) == (paired, paired)
    assert card.figures == {name: road.evaluated.manifest.figures["test"][name]["value"] for name in recipe.metrics}
    assert names_of(card) == {"cpu": ["int8", "fp32"], "cuda": ["fp16", "packed fp16"]}
    assert release.manifest.figures["variants"] == names_of(card)


def test_golden_sentences_are_answered_again_by_anyone(road: Road) -> None:
    card = read_card(road.released)
    assert len(card.golden) == 12
    assert 0 < card.golden_tolerance < 0.5 * ((card.score_range or (0, 1))[1])
    for golden in card.golden:
        found = one_by_one(card, road.released, golden.texts)
        assert found == pytest.approx(golden.expected, abs=1e-4)
        if card.kind == "classification":
            assert sum(golden.expected) == pytest.approx(1)


def test_the_engine_of_the_service_takes_it(road: Road) -> None:
    engine = Engine(road.released.path, EngineOptions(threads=1, device="cpu"))
    check_golden(engine.card, engine_answers(engine))
    columns = [name for name in ("text", "text_pair") if name in road.rows["test"]]
    inputs = list(road.rows["test"].head(60)[columns].itertuples(index=False, name=None))
    reference = load_trained(road.recipe, road.trained).answer(road.rows["test"].head(60))
    # The engine's batches differ from those of the parity check, and batches change int8 answers slightly.
    difference = np.abs(engine.answer(inputs).values.reshape(reference.shape) - reference)
    measured = road.released.manifest.figures["parity"][engine.variant.precision]["mean_difference"]
    assert difference.mean() <= 2 * measured + 1e-3 * ((engine.card.score_range or (0, 1))[1])


def test_parity_is_told_on_each_file(road: Road) -> None:
    card, figures = read_card(road.released), road.released.manifest.figures
    for variant in (*card.variants["cpu"], card.variants["cuda"][0]):
        assert variant.parity == figures["parity"][variant.precision]
        assert set(variant.parity) == set(FIGURES)
        assert 0 < variant.parity["mean_difference"] <= variant.parity["largest_difference"]
    assert figures["parity"]["fp32"]["largest_difference"] < 1e-3
    # Rounding to fp16 is off by a share of 2**-11 at most; there are fewer than a hundred roundings in a row.
    low, high = card.score_range or (0, 1)
    assert figures["parity"]["fp16"]["largest_difference"] < 100 * 2**-11 * (high - low)
    # Only a GPU can run it, and this test does not use one.
    assert card.variants["cuda"][1].parity is None
    assert figures["latency_ms"] > 0


def test_parity_is_what_the_files_give(road: Road) -> None:
    model = load_trained(road.recipe, road.trained)
    rows = road.rows["test"].head(50)
    answers = run_onnx(model, rows, open_session(road.released.path / "model.fp16.onnx"), 32)
    assert (
        np.abs(answers - model.answer(rows)).max()
        <= 2 * road.released.manifest.figures["parity"]["fp16"]["largest_difference"] + 1e-3
    )


def test_the_tokenizer_neither_cuts_nor_pads(road: Road) -> None:
    document = json.loads((road.released.path / "tokenizer.json").read_text(encoding="utf-8"))
    assert document["truncation"] is None
    assert document["padding"] is None
    tokenizer = Tokenizer.from_file(str(road.released.path / "tokenizer.json"))
    assert len(tokenizer.encode("정말 재미있는 영화 " * 100).ids) > 100


def test_files_are_as_small_as_their_precision(road: Road) -> None:
    numbers = road.trained.manifest.figures["parameters"]
    sizes = {name: (road.released.path / f"model.{name}.onnx").stat().st_size for name in ("int8", "fp16")}
    # Two bytes per weight, plus the graph.
    assert 2 * numbers * 0.9 < sizes["fp16"] < 2 * numbers + 60_000
    assert sizes["int8"] < 4 * numbers


def test_sums_of_int8_products_fit_in_16_bits(road: Road) -> None:
    # CPUs with only AVX2 add two products of an activation (0 to 255) and a weight in 16 bits, with saturation.
    graph = onnx.load(road.released.path / "model.int8.onnx").graph
    int8 = [item for item in graph.initializer if item.data_type == onnx.TensorProto.INT8 and len(item.dims) == 2]
    assert len(int8) >= 4
    largest = max(int(np.abs(onnx.numpy_helper.to_array(item).astype(int)).max()) for item in int8)
    assert 2 * 255 * largest <= 2**15 - 1


def test_graphs_take_any_shape_of_int32(road: Road) -> None:
    card = read_card(road.released)
    for variant in (*card.variants["cpu"], card.variants["cuda"][0]):
        session = open_session(road.released.path / variant.file)
        # The token types of single texts are constant, and some of the weights.
        names = ["input_ids", "attention_mask", *(["token_type_ids"] if card.objective == "cross-encoder" else [])]
        assert [item.name for item in session.get_inputs()] == names
        assert {item.type for item in session.get_inputs()} == {"tensor(int32)"}
        (output,) = session.get_outputs()
        assert output.type == "tensor(float)"
        assert output.name == ("vectors" if card.objective == "bi-encoder" else "logits")
        for batch, length in ((1, 3), (5, 32)):
            ids = np.full((batch, length), 7, np.int32)
            feed = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
            assert session.run(None, {name: feed[name] for name in names})[0].shape[0] == batch


def test_graphs_are_fused(road: Road) -> None:
    layers = 2 if road.recipe.model.objective == "cross-encoder" else 1
    # A head that reads only [CLS] needs only that row of the last layer, which gives another operator.
    narrow = road.recipe.model.pooling == "cls"
    half = counts(road.released.path / "model.fp16.onnx")
    assert half["EmbedLayerNormalization"] == 1
    assert (half.get("Attention", 0), half.get("MultiHeadAttention", 0)) == (layers - narrow, narrow)
    assert half["SkipLayerNormalization"] == 2 * layers
    whole = counts(road.released.path / "model.int8.onnx")
    assert whole["MultiHeadAttention"] == layers
    assert whole["InstanceNormalization"] == 2 * layers + 1
    # All products of the layers are int8; a narrow layer has one more, for its queries. Those of the head are not.
    assert whole["MatMulInteger"] == 4 * layers + narrow
    assert whole.get("MatMul", 0) == (0 if road.recipe.model.objective == "bi-encoder" else 2)
    assert not whole.keys() & {"Softmax", "Erf", "BiasGelu", "SkipLayerNormalization", "QAttention"}


def test_the_packed_graph_computes_no_padding(road: Road) -> None:
    packed = counts(road.released.path / "model.packed.onnx")
    layers = 2 if road.recipe.model.objective == "cross-encoder" else 1
    assert packed["PackedMultiHeadAttention"] == layers
    assert packed["SkipLayerNormalization"] == 2 * layers
    assert (packed["RemovePadding"], packed["RestorePadding"]) == (1, 1)
    assert not packed.keys() & {"Attention", "MultiHeadAttention"}
    model = onnx.load(road.released.path / "model.packed.onnx")
    onnx.checker.check_model(model)
    nodes = [item.op_type for item in model.graph.node]
    # There is no padding between the embeddings and the last norm of the last layer.
    last = max(place for place, kind in enumerate(nodes) if kind == "SkipLayerNormalization")
    assert nodes.index("RemovePadding") < nodes.index("PackedMultiHeadAttention") < last < nodes.index("RestorePadding")
    weights = [item for item in model.graph.initializer if item.dims and np.prod(item.dims) > 1000]
    assert {item.data_type for item in weights} == {onnx.TensorProto.FLOAT16}


def test_a_second_export_is_the_first(reviews: Road) -> None:
    again = Road(reviews.job, reviews.rows)
    assert again.released.ref == reviews.released.ref


# --- refusals ---


def without_signs(convert_graph: Callable[..., None]) -> Callable[..., None]:
    """Return a conversion that removes the signs of all large weights of the target."""

    def broken(source: Path, target: Path, *options: Any) -> None:
        convert_graph(source, target, *options)
        graph = onnx.load(target)
        for item in graph.graph.initializer:
            weights = onnx.numpy_helper.to_array(item)
            if weights.size > 1000 and weights.dtype != np.int64:
                item.CopyFrom(onnx.numpy_helper.from_array(np.abs(weights), item.name))
        onnx.save(graph, target)

    return broken


def exported_anew(road: Road, latency_ms: float) -> Road:
    """Return the same recipe with another bound that everything meets, so that it is exported again."""
    export = road.recipe.export.model_copy(update={"latency_ms": latency_ms})
    return road.with_recipe(road.recipe.model_copy(update={"export": export}))


@pytest.mark.parametrize("name", ["reviews", "pairs"])
def test_fp16_beyond_its_bound_is_not_released(
    name: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    road: Road = request.getfixturevalue(name)
    before = road.job.store.refs("release", road.recipe.name)
    monkeypatch.setattr(convert, "to_fp16", without_signs(to_fp16))
    with pytest.raises(ParityError, match=r"fp16: changed_labels is [\d.]+ on 100 rows.*nothing was") as caught:
        _ = exported_anew(road, 4999.0).released
    assert not caught.value.retryable
    assert road.job.store.refs("release", road.recipe.name) == before
    kept = road.job.settings.home / "refused" / road.recipe.name
    assert str(kept) in str(caught.value)
    rows = road.rows["test"].head(8)
    reference = load_trained(road.recipe, road.trained).answer(rows)
    exact, half = (
        run_onnx(load_trained(road.recipe, road.trained), rows, open_session(kept / file), 8)
        for file in ("fused.onnx", "model.fp16.onnx")
    )
    np.testing.assert_allclose(exact, reference, atol=1e-3)
    assert np.abs(half - reference).max() > 0.05


def test_int8_beyond_bound_gives_cpus_fp32(
    pairs: Road, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(convert, "to_int8", without_signs(to_int8))
    exact = exported_anew(pairs, 4998.0).released
    assert "int8: changed_labels is" in caplog.text
    card = read_card(exact)
    assert names_of(card)["cpu"] == ["fp32"]
    assert "model.int8.onnx" not in exact.manifest.files
    # The int8 measurements are reported in any case.
    assert exact.manifest.figures["parity"]["int8"]["changed_labels"] > pairs.recipe.export.int8.changed_labels
    report = (exact.path / "report.html").read_text(encoding="utf-8")
    assert "The int8 model exceeds its bound" in report
    check_golden(card, engine_answers(Engine(exact.path, EngineOptions(threads=1, device="cpu"))))


def test_a_model_beyond_its_time_is_not_released(reviews: Road) -> None:
    before = reviews.job.store.refs("release", "nsmc")
    hurried = reviews.with_recipe(small_recipe("nsmc", export__latency_ms=1e-6))
    with pytest.raises(
        LatencyError, match=r"one input takes \d+\.\d ms \(p95, CPU\), above export\.latency_ms"
    ) as caught:
        _ = hurried.released
    assert caught.value.retryable
    assert reviews.job.store.refs("release", "nsmc") == before


def without_mask(file: Path) -> None:
    """Make every Attention node of a fused graph attend to padding."""
    graph = onnx.load(file)
    for node in graph.graph.node:
        if node.op_type in ("Attention", "MultiHeadAttention"):
            del node.input[3 if node.op_type == "Attention" else 4 :]
    onnx.save(graph, file)


def test_graph_ignoring_the_mask_is_not_released(road: Road, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(source: Path, target: Path) -> None:
        to_cpu(source, target)
        without_mask(target)

    monkeypatch.setattr(convert, "to_cpu", broken)
    with pytest.raises(ParityError, match=r"the exported graph differs from the trained model by up to"):
        _ = exported_anew(road, 4997.0).released


def test_a_graph_of_other_weights_is_not_released(reviews: Road, tmp_path: Path) -> None:
    model = load_trained(reviews.recipe, reviews.trained)
    rows = reviews.rows["test"].head(40)
    trace(model, tmp_path / "traced.onnx")
    fuse(model.network.transformer, tmp_path / "traced.onnx", tmp_path / "fused.onnx")
    fused = tmp_path / "fused.onnx"
    simplify(fused, fused, with_types=False, first_row=reviews.recipe.model.pooling == "cls")
    reference = model.answer(rows)
    check_graph(model, rows, reference, tmp_path / "fused.onnx")
    with pytest.raises(ParityError, match="in fp32"):
        check_graph(model, rows, reference + 0.01, tmp_path / "fused.onnx")
    with pytest.raises(ParityError, match="nan"):
        check_graph(model, rows, reference * np.nan, tmp_path / "fused.onnx")


def test_a_graph_that_is_not_fused_is_refused(reviews: Road, tmp_path: Path) -> None:
    model = load_trained(reviews.recipe, reviews.trained)
    trace(model, tmp_path / "traced.onnx")
    transformer: Any = model.network.transformer
    transformer.config.num_hidden_layers = 3
    with pytest.raises(ParityError, match="fused 1 of 3 Attention operators"):
        fuse(transformer, tmp_path / "traced.onnx", tmp_path / "fused.onnx")
    assert not (tmp_path / "fused.onnx").exists()


def test_the_sentences_are_rows_of_the_test_file(reviews: Road) -> None:
    texts = set(reviews.rows["test"]["text"])
    golden = [item.texts for item in read_card(reviews.released).golden]
    assert len(set(golden)) > 6
    assert all(item[0] in texts for item in golden)
