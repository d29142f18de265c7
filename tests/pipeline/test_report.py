"""The report: says what was decided, beside everything it was decided on, in one file."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pipeline.artifacts import Artifact, Store
from pipeline.recipe import Recipe, load_recipe
from pipeline.releases import Card, Check, Decision, Variant
from pipeline.report import epoch_table, metric_rows, render_report

Publish = Callable[..., Artifact]
VOID = {"meta", "img", "br", "link", "input", "hr"}


class Page(HTMLParser):
    """Text, addresses and open elements of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.text, self.addresses, self.open = "", [], []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.addresses += [value for name, value in attrs if name in ("src", "href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += " ".join(data.split()) + " " if data.strip() else ""


@pytest.fixture
def publish(store: Store) -> Publish:
    def make(kind: str, recipe: str, figures: dict[str, Any], files: dict[str, str] | None = None) -> Artifact:
        with store.draft() as draft:
            for name, content in (files or {}).items():
                (draft / name).write_text(content, encoding="utf-8")
            return store.publish(draft, kind, recipe, "0" * 16, run="r", inputs={}, fields={}, figures=figures)

    return make


@pytest.fixture
def plot(tmp_path: Path) -> Path:
    path = tmp_path / "plot.png"
    Image.new("RGB", (640, 480), "white").save(path)
    return path


def interval(value: float) -> dict[str, float]:
    return {"value": value, "low": value - 0.01, "high": value + 0.012}


def champion(publish: Publish, recipe: Recipe) -> Artifact:
    card = Card(
        id=f"{recipe.name}-0",
        recipe=recipe.name,
        title=recipe.title,
        kind=recipe.kind,
        inputs=recipe.inputs,
        objective=recipe.model.objective,
        sample=recipe.sample,
        labels=recipe.labels,
        score_range=recipe.score_range,
        similar_at=recipe.similar_at,
        calibration=None,
        max_length=recipe.model.max_length,
        variants={"cpu": Variant(file="model.int8.onnx", precision="int8", parity={})},
        golden=(),
        golden_tolerance=0.01,
        figures=dict.fromkeys(recipe.metrics, 0.8765),
        trained="train/x/y/z",
        created=datetime(2026, 1, 1, tzinfo=UTC),
    )
    return publish("release", recipe.name, {}, {"card.json": card.model_dump_json()})


def render(recipe: Recipe, decision: Decision, publish: Publish, plot: Path, **validated: Any) -> str:
    metrics = {metric: interval(0.8612) for metric in recipe.metrics}
    unseen = {metric: interval(0.8431) for metric in recipe.metrics}
    data = {"train_rows": 150000, "test_rows": 50000, "test_in_train": 1234, "warnings": [], "sample": recipe.sample}
    history = [
        {"epoch": 1.0, "loss": 0.53, "learning_rate": 3e-4},
        {"epoch": 2.0, "loss": 0.38, "eval_accuracy": 0.84, "eval_runtime": 3.2},
    ]
    trained = {
        "seconds": 341.2,
        "samples_per_second": 527.3,
        "best_epoch": 2.0,
        "validation": {recipe.metrics[0]: 0.8523},
        "history": history,
        "parameters": 7654321,
        "device": "cpu",
        "precision": "bf16",
    }
    evaluated = {"test": metrics, "test_without_train_texts": unseen, "test_rows": 50000}
    return render_report(
        recipe,
        "scheduled__2026-11-21T18:00",
        decision,
        publish("validate", recipe.name, data | validated),
        publish("train", recipe.name, trained),
        publish("evaluate", recipe.name, evaluated),
        plot,
    )


def decision(promote: bool, reason: str = "It holds.", champion: str | None = None) -> Decision:
    checks = (Check(name="accuracy floor", value=0.8612, bound=0.84, passed=promote),)
    return Decision(promote=promote, reason=reason, champion=champion, checks=checks)


@pytest.mark.parametrize("name", ["nsmc", "klue-sts"])
@pytest.mark.parametrize(("promote", "said"), [(True, "Promoted"), (False, "Refused")])
def test_it_says_the_decision_first_and_why(name: str, promote: bool, said: str, publish: Publish, plot: Path) -> None:
    recipe = load_recipe(name, "embedded")
    page = Page(render(recipe, decision(promote, f"{said}: the reason, in a sentence."), publish, plot))
    text = page.text
    assert page.open == []
    assert said in text
    assert ("Refused" if promote else "Promoted") not in text
    assert text.index(said) < text.index("The reason, in a sentence.") < text.index("Figures on the test file")


def test_it_shows_figures_with_intervals_floors_history_and_refs(publish: Publish, plot: Path) -> None:
    recipe = load_recipe("nsmc", "embedded")
    text = Page(render(recipe, decision(True), publish, plot)).text
    for wanted in (
        "0.8612 (0.8512 – 0.8732)",
        "0.8431 (0.8331 – 0.8551)",
        "floor 0.8400",
        "150,000",
        "1,234",
        "7,654,321",
        "5 min 41 s",
        "cpu, bf16",
        "scheduled__2026-11-21T18:00",
        "train.learning_rate",
        "train/nsmc/0000000000000000/",
    ):
        assert wanted in text, wanted
    assert "eval runtime" not in text
    assert "There was no champion" in text


def test_the_champion_stands_beside(publish: Publish, plot: Path) -> None:
    recipe = load_recipe("nsmc", "embedded")
    best = champion(publish, recipe)
    text = Page(render(recipe, decision(False, champion=best.ref), publish, plot)).text
    assert "champion 0.8765" in text
    assert "this very model" in text
    assert f"{best.ref} goes on serving" in text


def test_a_comparison_names_the_champion_and_where(publish: Publish, plot: Path) -> None:
    recipe = load_recipe("nsmc", "embedded")
    best = champion(publish, recipe)
    floors = tuple(Check(name=f"{name} floor", value=0.9, bound=0.84, passed=True) for name in recipe.metrics)
    against = Check(name="against the champion", value=-0.0123, bound=-0.005, passed=False)
    held = Decision(promote=False, reason="Refused: worse.", champion=best.ref, checks=(*floors, against))
    text = Page(render(recipe, held, publish, plot)).text
    assert "-0.0123 -0.0050 failed" in text
    assert f"Compared with {best.ref} , on the gate split" in text


def test_a_champion_that_cannot_be_read_costs_its_column_only(publish: Publish, plot: Path) -> None:
    recipe = load_recipe("nsmc", "embedded")
    text = Page(render(recipe, decision(True, champion="release/nsmc/gone/1"), publish, plot)).text
    assert "champion 0." not in text
    assert "release/nsmc/gone/1" in text


def test_sample_is_said_wherever_results_show(publish: Publish, plot: Path) -> None:
    sample = render(load_recipe("nsmc", "embedded", sample=True), decision(True), publish, plot)
    real = render(load_recipe("nsmc", "embedded"), decision(True), publish, plot)
    headings = re.findall(r"<h[12]>.*?</h[12]>", sample, re.DOTALL)
    assert sum("sample data" in heading for heading in headings) >= 3
    assert "nothing about real reviews" in sample
    assert "sample data" not in real


def test_it_needs_no_other_file(publish: Publish, plot: Path) -> None:
    html = render(load_recipe("klue-sts", "embedded"), decision(True), publish, plot)
    page = Page(html)
    (picture,) = page.addresses
    assert picture is not None
    assert base64.b64decode(picture.removeprefix("data:image/png;base64,")) == plot.read_bytes()
    assert "url(" not in html
    assert "<script" not in html


def test_text_from_the_data_is_escaped(publish: Publish, plot: Path) -> None:
    recipe = load_recipe("nsmc", "embedded")
    html = render(recipe, decision(False, "<b>bold</b>"), publish, plot, warnings=["<script>alert(1)</script>"])
    assert "<script>" not in html
    assert "<b>bold</b>" not in html
    assert "<script>alert(1)</script>" in Page(html).text


def test_all_that_is_drawn_is_on_the_scale(publish: Publish) -> None:
    recipe = load_recipe("nsmc", "embedded")
    figures = {"test": {metric: interval(0.5) for metric in recipe.metrics}}
    for row in metric_rows(recipe, decision(False), publish("evaluate", "nsmc", figures)):
        places = [row.scale.place(value) for value in (row.test.low, row.test.value, row.test.high, row.floor)]
        assert places == sorted(places)
        assert places[0] > 0
        assert places[-1] < 100


def test_an_epoch_may_lack_a_column() -> None:
    columns, rows = epoch_table([{"loss": 1.0, "epoch": 1}, {"epoch": 2, "eval_f1": 0.5, "eval_runtime": 9.0}])
    assert columns == ["epoch", "loss", "eval_f1"]
    assert rows == [[1, 1.0, None], [2, None, 0.5]]
    assert epoch_table([]) == ([], [])
