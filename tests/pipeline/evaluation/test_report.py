"""The report: one file with the decision and everything that it is based on."""

from __future__ import annotations

import base64
import io
import json
import math
import re
from datetime import date
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pipeline.evaluation.changes import Change
from pipeline.evaluation.report import (
    OVERLAPS,
    SHOWN_FAILURES,
    SHOWN_MISTAKES,
    epoch_table,
    metric_rows,
    render_report,
    setting_rows,
)
from pipeline.metrics.intervals import share_interval
from pipeline.recipes.loading import load_recipe
from pipeline.recipes.schema import Recipe
from pipeline.store.acceptances import Acceptance, record_acceptance
from pipeline.store.artifacts import Artifact, Store
from pipeline.store.checks import AgeCheck, Check, ComparisonCheck, RivalName
from pipeline.store.decisions import Decision, Score
from pipeline.store.figures import Estimate, EvaluationFigures, ReleaseFigures
from pipeline.store.verdicts import record_verdict
from pipeline.tracking.tables import without_texts
from tests.support.gate_releases import release_of, republished
from tests.support.judged import inputs_of
from tests.support.made_figures import threshold
from tests.support.tiny_releases import TinyModel, linked

pytestmark = pytest.mark.torch

VOID = {"meta", "img", "br", "link", "input", "hr"}
EXPORTED = ReleaseFigures(
    id="nsmc-0",
    latency_ms=7.25,
    variants={"cpu": ("int8", "fp32"), "cuda": ("fp16", "packed fp16")},
    parity={
        precision: {
            "changed_labels": 0.00123,
            "metric_change": 0.00045,
            "metric_error": 0.0001,
            "largest_difference": 0.03456,
            "mean_difference": 0.001,
        }
        for precision in ("int8", "fp32", "fp16")
    },
)


class PageParser(HTMLParser):
    """Parser that collects the text, addresses, links, classes and open elements of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.text, self.addresses, self.links, self.open, self.classes = "", [], [], [], []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.addresses += [value for name, value in attrs if name == "src"]
        self.links += [value for name, value in attrs if name == "href"]
        self.classes += [value for name, value in attrs if name == "class"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += " ".join(data.split()) + " " if data.strip() else ""


def interval(value: float) -> dict[str, float]:
    return {"value": value, "low": value - 0.01, "high": value + 0.012}


def picture(color: str) -> bytes:
    content = io.BytesIO()
    Image.new("RGB", (64, 48), color).save(content, "PNG")
    return content.getvalue()


def publish(
    store: Store, kind: str, recipe: str, figures: Any, *, files: dict[str, bytes] | None = None, **inputs: Artifact
) -> Artifact:
    with store.draft() as draft:
        for name, content in (files or {}).items():
            (draft / name).write_bytes(content)
        return store.publish(
            draft, kind, recipe, "0" * 16, run="r", inputs=linked(**inputs), fields={}, figures=figures
        )


def evaluation(
    store: Store, recipe: Recipe, *, figure: float = 0.8812, new_texts: float = 0.8731, **changes: Any
) -> Artifact:
    """Publish an evaluation as `evaluate` does; `changes` replace figures, `mistakes`, `failures` or `warnings`."""
    metrics = {metric: interval(figure) for metric in recipe.metrics}
    behaviour = {
        name: {
            "rate": share_interval(30, 40),
            "cases": 40,
            "passed": 30,
            "tests": [{"name": f"a test of {name}", "kind": "minimum", "cases": 40, "passed": 30}],
        }
        for name in recipe.gate.behaviour
    }
    figures: dict[str, Any] = {
        "test": metrics,
        "test_without_train_texts": {metric: interval(new_texts) for metric in recipe.metrics},
        "test_without_train_texts_rows": 48_766,
        "test_rows": 50_000,
        "gate": metrics,
        "gate_rows": 8_991,
        "behaviour": behaviour,
        "slices": [
            {"slice": "length", "part": "1 to 20 characters", "rows": 30_000, "figure": interval(0.8321)},
            {"slice": "length", "part": "21 to 140 characters", "rows": 20_000, "figure": interval(0.8812)},
            {"slice": "source", "part": "policy-news", "rows": 7, "figure": None},
        ],
        "sample": recipe.sample,
    }
    files = {
        "plot.png": picture("white"),
        "mistakes.json": json.dumps(changes.pop("mistakes", mistakes(recipe, 9))).encode(),
        "behaviour.json": json.dumps(changes.pop("failures", failures(recipe))).encode(),
    }
    if recipe.kind == "classification":
        figures["calibration"] = {"ece": 0.0345, "bins": 15, "curve": []}
        files["reliability.png"] = picture("blue")
    data = {
        "train_rows": 150_000,
        "test_rows": 50_000,
        "test_in_train": 1_234,
        "warnings": changes.pop("warnings", []),
        "sample": recipe.sample,
        "cutoff": "2015-08-27",
        "arrivals": [{"date": f"2015-08-{day:02}", "sha256": "a" * 64} for day in range(1, 28)],
        "left_out": ["left out: nsmc/daily/2015-08-06.txt: champion: 62.6% right (usual: 83.6%)"],
        "quarantined": 41,
        "overlap": dict.fromkeys(OVERLAPS, 77),
    }
    history = [
        {"epoch": 1.0, "loss": 0.53, "learning_rate": 3e-4},
        {"epoch": 2.0, "loss": 0.38, "eval_accuracy": 0.84, "eval_runtime": 3.2},
    ]
    trained = {
        "seconds": 341.2,
        "samples_per_second": 527.3,
        "padding": 0.031,
        "best_epoch": 2.0,
        "validation": {recipe.metrics[0]: 0.8523},
        "history": history,
        "parameters": 7_654_321,
        "device": "NVIDIA L4",
        "precision": "bf16",
        "gpu_memory_gib": 11.2437,
        "base": {"base": "scratch", "revision": None},
    }
    inputs = {
        "validated": publish(store, "validate", recipe.name, data),
        "trained": publish(store, "train", recipe.name, trained),
    }
    return publish(store, "evaluate", recipe.name, figures | changes, files=files, **inputs)


def mistakes(recipe: Recipe, count: int, text: str = "최고의 영화") -> list[dict[str, Any]]:
    if recipe.kind == "classification":
        told: dict[str, Any] = {"label": "positive", "prediction": "negative", "probability": 0.9876}
    else:
        told = {"text_pair": "비가 온다.", "label": 0.4286, "prediction": 3.507, "error": 3.0784}
    return [
        {"id": f"row-{number}", "text": f"{text} {number}", "in_train": number == 0} | told for number in range(count)
    ]


def failures(recipe: Recipe, text: str = "하나도 안 좋다") -> list[dict[str, Any]]:
    asked = [[text], [f"{text}?"]] if recipe.inputs == "text" else [[text, "좋다"], [text, "싫다"]]
    return [
        {
            "capability": name,
            "test": f"a test of {name}",
            "kind": "direction",
            "asked": asked,
            "answers": [0.4321, -0.5],
        }
        for name in recipe.gate.behaviour
        for _ in range(10)
    ]


def decision(promote: bool, reason: str = "It holds.", *checks: Check, **changes: Any) -> Decision:
    floor = threshold(0.8812, 0.84 if promote else 0.9)
    told: dict[str, Any] = {"champion": None, "best": None, "notes": ()} | changes
    return Decision(promote=promote, reason=reason, checks=(floor, *checks), **told)


def against(rival: RivalName, value: float) -> ComparisonCheck:
    low, high = value - 0.0111, value + 0.0099
    return ComparisonCheck(
        value=low,
        bound=-0.005,
        passed=low >= -0.005,
        estimate=Estimate(value=value, low=low, high=high),
        metric="accuracy",
        rival=rival,
        rows=2_100,
        fewest=400,
        gate_rows=8_991,
    )


def render(recipe: Recipe, told: Decision, evaluated: Artifact, exported: Any = None) -> str:
    return render_report(recipe, "scheduled__2026-11-21T18:00", told, evaluated, exported)


def served(store: Store, recipe: Recipe) -> Artifact:
    """Return a champion whose figures in its own run differ."""
    evaluated = evaluation(store, recipe, new_texts=0.8765)
    return release_of(evaluated.input("trained"), evaluated)


def recipe_of(name: str = "nsmc", *, sample: bool = False) -> Recipe:
    return load_recipe(name, "embedded", sample=sample)


# --- the decision ---


@pytest.mark.parametrize("name", ["nsmc", "klue-sts"])
@pytest.mark.parametrize(("promote", "said"), [(True, "Promoted"), (False, "Refused")])
def test_it_says_the_decision_first_and_why(name: str, promote: bool, said: str, store: Store) -> None:
    recipe = recipe_of(name)
    told = decision(promote, f"{said}: the reason, in a sentence.")
    page = PageParser(render(recipe, told, evaluation(store, recipe)))
    text = page.text
    assert page.open == []
    assert text.startswith(f"{said}: {recipe.title} (scheduled__")
    assert ("Refused" if promote else "Promoted") not in text
    order = [
        "The reason, in a sentence.",
        "Checks",
        "Figures on the test file",
        "Behaviour",
        "Training",
        "Data",
    ]
    places = [text.index(item) for item in order]
    assert places == sorted(places)


@pytest.mark.parametrize(
    ("promote", "champion", "exported", "said"),
    [
        (True, None, None, "The next steps are export and deployment"),
        (True, None, EXPORTED, "The model was exported and compared with the trained model"),
        (False, "release/nsmc/gone/1", None, "Nothing changes for users: release/nsmc/gone/1 stays live"),
        (False, None, None, "No model is live for this recipe"),
    ],
)
def test_it_says_what_comes_of_it(promote: bool, champion: str | None, exported: Any, said: str, store: Store) -> None:
    recipe = recipe_of()
    told = decision(promote, champion=champion)
    assert said in PageParser(render(recipe, told, evaluation(store, recipe), exported)).text


def test_notes_are_shown_with_the_decision(store: Store) -> None:
    recipe = recipe_of()
    text = PageParser(render(recipe, decision(True, notes=("one release was lost",)), evaluation(store, recipe))).text
    assert text.index("Note: one release was lost.") < text.index("Checks")


# --- figures ---


def test_it_shows_figures_with_intervals_floors_history_and_refs(store: Store) -> None:
    recipe = recipe_of()
    evaluated = evaluation(store, recipe)
    text = PageParser(render(recipe, decision(True), evaluated)).text
    for wanted in (
        "0.8812 (0.8712 – 0.8932)",
        "0.8731 (0.8631 – 0.8851)",
        "threshold 0.8650",
        "threshold reached",
        "150,000",
        "1,234",
        "7,654,321",
        "5 min 41 s",
        "NVIDIA L4, bf16, 11.2 GiB",
        "27, 2015-08-01 to 2015-08-27",
        "Quarantined rows",
        "Duplicate train rows",
        "scheduled__2026-11-21T18:00",
        "train.learning_rate",
        evaluated.input("trained").ref,
        evaluated.ref,
        "There is no champion",
    ):
        assert wanted in text, wanted
    assert "eval runtime" not in text
    assert "below the threshold" not in text


def test_a_figure_below_its_floor_says_so(store: Store) -> None:
    recipe = recipe_of()
    text = PageParser(render(recipe, decision(False), evaluation(store, recipe, new_texts=0.7))).text
    assert "below the threshold" in text
    assert "threshold reached" not in text


def test_a_figure_without_a_value_is_shown_as_none(store: Store) -> None:
    recipe = recipe_of("klue-sts")
    nothing = dict.fromkeys(("value", "low", "high"), math.nan)
    evaluated = evaluation(store, recipe, test_without_train_texts={"pearson": nothing, "f1": interval(0.5)})
    page = PageParser(render(recipe, decision(False), evaluated))
    assert "Pearson r –" in page.text
    assert "nan" not in page.text
    assert page.open == []


def test_all_that_is_drawn_is_on_the_scale(store: Store) -> None:
    recipe = recipe_of()
    for row in metric_rows(recipe, EvaluationFigures.read(evaluation(store, recipe, new_texts=0.5)), {}):
        drawn = (row.judged.low, row.judged.value, row.judged.high, row.floor)
        places = [row.lines[0].scale.place(value) for value in drawn]
        assert places == sorted(places)
        assert places[0] > 0
        assert places[-1] < 100


# --- champions ---


def test_the_champion_stands_beside(store: Store) -> None:
    recipe = recipe_of()
    champion = served(store, recipe)
    text = PageParser(render(recipe, decision(False, champion=champion.ref), evaluation(store, recipe))).text
    assert "champion 0.8765" in text
    assert "0.8765 (0.8665 – 0.8885)" in text
    assert "this very model" in text
    assert f"{champion.ref} stays live" in text
    assert "Comparison with earlier models" not in text


def test_comparisons_are_shown_with_their_intervals_and_where(store: Store) -> None:
    recipe = recipe_of()
    champion, best = served(store, recipe), served(store, recipe)
    checks = (against("champion", 0.0072), against("best", -0.0123))
    scores = (
        Score(model="challenger", ref="train/nsmc/k/2", value=0.8812, held_out=0.4),
        Score(model="champion", ref=champion.ref, value=0.874, held_out=0.1),
        Score(model="earlier", ref="release/nsmc/k/0", value=0.861, held_out=0.4),
        Score(model="earlier", ref=best.ref, value=0.8935, held_out=0.4),
    )
    told = decision(False, "Refused: worse.", *checks, champion=champion.ref, best=best.ref, scores=scores)
    text = PageParser(render(recipe, told, evaluation(store, recipe))).text
    assert "accuracy against the best before it (-0.0123), at worst −0.0234 −0.0050 failed" in text
    assert f"Compared with {champion.ref} and with {best.ref} , on 2,100 of 8,991 gate rows." in text
    assert "over 2,100 of 8,991 gate rows, which the training of every compared model held out" in text
    assert f"this model train/nsmc/k/2 0.8812 40% the champion {champion.ref} 0.8740 10% an earlier release " in text
    assert f"an earlier release release/nsmc/k/0 0.8610 40% the best earlier release {best.ref} 0.8935 40%" in text
    assert "the champion 0.0072 (−0.0039 – 0.0171)" in text
    assert "the best earlier release −0.0123 (−0.0234 – −0.0024)" in text
    # The margin of 0.005 is less than half of what the interval allows for: Phi(1.645 * (1 - 0.005 / 0.0111)) = 0.817.
    for other in ("the champion", "the best earlier release"):
        assert (
            f"Against {other}: A model that is worse by 0.005 is refused with a probability of 95%, one that is "
            "better by 0.0061 with 50%, and an equally good one in 82% of all nights."
        ) in text
    assert "this very model" not in text


def test_fall_of_the_champion_on_these_rows_is_said(store: Store) -> None:
    recipe = recipe_of()
    champion, new = served(store, recipe), evaluation(store, recipe)
    own = EvaluationFigures.read(champion.input("evaluated")).gate["accuracy"]
    for today in (own.low - 0.01, own.low):
        scores = (
            Score(model="challenger", ref="train/nsmc/k/2", value=0.8812, held_out=0.4),
            Score(model="champion", ref=champion.ref, value=today, held_out=0.1),
        )
        told = decision(True, "Promoted.", against("champion", 0.0617), champion=champion.ref, scores=scores)
        text = PageParser(render(recipe, told, new)).text
        said = f"The champion scores {today:.4f} on these rows, and {own.value:.4f} ({own.low:.4f} – {own.high:.4f})"
        assert (said in text) is (today < own.low)
        assert ("The rows have changed, not the champion" in text) is (today < own.low)


def test_pages_behind_the_report_are_linked(store: Store) -> None:
    recipe, up = recipe_of(), "../../../.."
    champion, best, new = served(store, recipe), served(store, recipe), evaluation(store, recipe)
    cases = failures(recipe)
    told = decision(False, "Refused.", against("champion", 0.01), champion=champion.ref, best=best.ref)
    links = PageParser(render(recipe, told, evaluation(store, recipe, failures=cases))).links
    for ref in (champion.ref, best.ref):
        assert f"{up}/{ref}/report.html" in links
    assert f"{up}/../dags/nightly_retrain/runs/scheduled__2026-11-21T18%3A00" in links
    assert [link for link in links if link.endswith("/docs/index.html")]
    assert len([link for link in links if link.endswith("/behaviour.json")]) == len(recipe.gate.behaviour)
    # Airflow has no page about a run of the command line.
    by_hand = PageParser(render_report(recipe, "cli-20261121T180000-00ff", told, new))
    assert "cli-20261121T180000-00ff" in by_hand.text
    assert not [link for link in by_hand.links if "/dags/" in link]


def test_uploaded_run_is_linked(store: Store) -> None:
    recipe, address = recipe_of(), "https://wandb.ai/team/saebyeok/runs/ab12cd34"
    new = evaluation(store, recipe)
    uploaded = PageParser(render_report(recipe, "r", decision(True), new, tracked=address))
    assert address in uploaded.links
    assert "W&B run" in uploaded.text
    assert "W&B" not in PageParser(render(recipe, decision(True), new)).text


def test_release_is_named_as_in_the_api(store: Store, light: TinyModel) -> None:
    recipe = recipe_of()
    champion = light.publish(store, "nsmc", key="a" * 16)
    text = PageParser(render(recipe, decision(False, champion=champion.ref), evaluation(store, recipe))).text
    assert f"nsmc-{'a' * 16} stays live" in text
    assert champion.ref not in text


def test_overridden_settings_are_marked(store: Store) -> None:
    recipe = load_recipe("nsmc", "embedded", overrides={"train.epochs": 9})
    text = PageParser(render(recipe, decision(True), evaluation(store, recipe))).text
    assert "train.epochs 9 set for this run" in text
    assert text.count("set for this run") == 1


def test_settings_that_differ_from_the_champion_are_marked(store: Store) -> None:
    recipe = recipe_of()
    rows = setting_rows(recipe, [Change("recipe", "train.epochs", "9", "1"), Change("data", "train.seed", "9", "1")])
    assert [(row.key, row.champion) for row in rows if row.champion] == [("train.epochs", "9")]


def test_changes_since_the_champion_are_shown(store: Store) -> None:
    recipe = recipe_of()
    champion = served(store, recipe)
    old = recipe.model_dump(mode="json")
    decided = publish(store, "decide", "nsmc", {}, evaluated=champion.input("evaluated"))
    told, new = decision(True, champion=champion.ref), evaluation(store, recipe)
    file = Path(store.uri) / decided.ref / "manifest.json"
    for epochs, shown in ((9, f"recipe train.epochs 9 {recipe.train.epochs}"), (recipe.train.epochs, "None: data,")):
        fields = old | {"train": old["train"] | {"epochs": epochs}}
        file.write_text(json.dumps(json.loads(file.read_text()) | {"fields": fields}))
        text = PageParser(render(recipe, told, new)).text
        assert "Changes since the champion" in text
        assert shown in text
    assert "Changes since" not in PageParser(render(recipe, decision(True), new)).text


def test_people_are_named_with_time_and_reason(store: Store) -> None:
    recipe = recipe_of()
    new = evaluation(store, recipe)
    assert "Decisions of people" not in PageParser(render(recipe, decision(True), new)).text
    given = Acceptance(by="lee", why="a new source")
    record_acceptance(store, "nsmc", "2015-08-02.txt", "a" * 64, given, "r")
    validated = republished(new.input("validated"), fields={"accepted": ["a" * 64]})
    verdict = record_verdict(new.input("trained"), "approved", by="kim", run="r7", why="checked by hand")
    html = render(recipe, decision(True), republished(new, inputs=inputs_of(new, validated=validated)))
    text = PageParser(html).text
    assert f"This model: kim approved it in run r7 (checked by hand), {verdict.created:%Y-%m-%d %H:%M} UTC." in text
    assert "Unusual arrivals of 2015-08-02: accepted by lee: a new source." in text
    # Their words may quote the data.
    assert "kim" not in without_texts(html)


def test_champion_without_predictions_is_not_called_compared(store: Store) -> None:
    recipe = recipe_of()
    champion = served(store, recipe)
    older = AgeCheck(value=-1, bound=0, passed=False, newest=date(2015, 8, 5), champions=date(2015, 8, 6))
    text = PageParser(
        render(recipe, decision(False, "Refused.", older, champion=champion.ref), evaluation(store, recipe))
    ).text
    assert "no predictions were compared" in text
    assert "Compared with" not in text
    assert "Comparison with earlier models" not in text


def test_unreadable_champion_omits_its_column_only(store: Store) -> None:
    recipe = recipe_of()
    text = PageParser(render(recipe, decision(True, champion="release/nsmc/gone/1"), evaluation(store, recipe))).text
    assert "champion 0." not in text
    assert "release/nsmc/gone/1" in text


# --- slices, behaviour, mistakes ---


def test_slices_are_shown_and_too_few_rows_are_said(store: Store) -> None:
    recipe = recipe_of()
    text = PageParser(render(recipe, decision(True), evaluation(store, recipe))).text
    assert "Accuracy on parts of the test file" in text
    assert "1 to 20 characters 30,000 rows 0.8321 (0.8221 – 0.8441)" in text
    assert "policy-news 7 rows too few rows for a figure" in text


def test_behaviour_shows_shares_bounds_and_some_failed_cases(store: Store) -> None:
    recipe = recipe_of()
    html = render(recipe, decision(True), evaluation(store, recipe))
    text = PageParser(html).text
    for capability, bound in recipe.gate.behaviour.items():
        assert f"{capability} 30 of 40 cases 0.7500 (0.5981 – 0.8581)" in text
        assert f"bound {bound:.4f}" in html
        assert f"a test of {capability} minimum 30 of 40" in text
    assert text.count("하나도 안 좋다 0.4321 → 하나도 안 좋다? −0.5000") == SHOWN_FAILURES * len(recipe.gate.behaviour)
    assert text.count(f"and {10 - SHOWN_FAILURES} more in behaviour.json") == len(recipe.gate.behaviour)


def test_failed_cases_are_shown_from_all_over_a_test(store: Store) -> None:
    recipe = recipe_of()
    (name, *_) = recipe.gate.behaviour
    cases = [
        {
            "capability": name,
            "test": f"a test of {name}",
            "kind": "minimum",
            "asked": [[f"글 {number}"]],
            "answers": [0.1],
        }
        for number in range(20)
    ]
    text = PageParser(render(recipe, decision(True), evaluation(store, recipe, failures=cases))).text
    shown = [int(number) for number in re.findall(r"글 (\d+)", text)]
    assert len(shown) == SHOWN_FAILURES
    assert shown == sorted(set(shown))
    assert shown[-1] > 10


def test_pairs_are_shown_as_pairs(store: Store) -> None:
    recipe = recipe_of("klue-sts")
    text = PageParser(render(recipe, decision(True), evaluation(store, recipe))).text
    assert "하나도 안 좋다 / 좋다 0.4321 → 하나도 안 좋다 / 싫다 −0.5000" in text
    assert "최고의 영화 1 비가 온다. labelled 0.4286 , predicted 3.507 · row-1" in text
    assert "Largest score errors" in text
    assert "Predicted against labelled scores" in text
    assert "Calibration" not in text


def test_similarity_measures_are_shown_side_by_side(store: Store) -> None:
    recipe = recipe_of("klue-sts")
    evaluated = evaluation(store, recipe)
    assert "Similarity measures" not in PageParser(render(recipe, decision(True), evaluated)).text
    by = {
        "cosine": evaluated.manifest.figures["test"],
        "euclidean": {"pearson": {"value": 0.4321, "low": 0.4, "high": 0.46}},
    }
    found = republished(evaluated, figures=evaluated.manifest.figures | {"similarity": by})
    text = PageParser(render(recipe, decision(True), found)).text
    assert "by Euclidean distance" in text
    assert "0.4321 (0.4000 – 0.4600)" in text


def test_without_behavioural_tests_there_is_no_such_section(store: Store) -> None:
    recipe = recipe_of()
    bare = recipe.model_copy(update={"gate": recipe.gate.model_copy(update={"behaviour": {}})})
    text = PageParser(render(bare, decision(True), evaluation(store, bare))).text
    assert "Behaviour" not in text
    assert "Accuracy on parts of the test file" in text


def test_mistakes_are_shown_the_first_few_at_once(store: Store) -> None:
    recipe = recipe_of()
    html = render(recipe, decision(True), evaluation(store, recipe))
    text = PageParser(html).text
    first = "최고의 영화 0 labelled positive , predicted negative with 0.9876, its text is in train too · row-0"
    assert first in text
    assert text.count("its text is in train too") == 1
    assert f"{9 - SHOWN_MISTAKES} more" in text
    assert f'<ol class="mistakes" start="{SHOWN_MISTAKES + 1}">' in html
    assert "최고의 영화 8" in text


def test_no_mistake_is_said_too(store: Store) -> None:
    recipe = recipe_of()
    assert (
        "mistakes none Training"
        in PageParser(render(recipe, decision(True), evaluation(store, recipe, mistakes=[]))).text
    )


# --- the exported model ---


def test_parity_and_latency_stand_beside_their_bounds(store: Store) -> None:
    recipe = recipe_of()
    text = PageParser(render(recipe, decision(True), evaluation(store, recipe), EXPORTED)).text
    for wanted in (
        # Of 1,000 rows, a share of 0.005 allows 13; test_bounds.py explains why.
        "ONNX int8: share of changed labels 0.00123 0.005 (13 rows)",
        "ONNX fp16: share of changed labels 0.00123 0.001 (5 rows)",
        "ONNX fp16: change of Accuracy 0.00045 ± 0.00031 0.0005",
        "ONNX int8: largest difference of an output 0.03456 –",
        "ONNX fp32: largest difference of an output 0.03456 –",
        f"Latency of one input on the CPU, p95, milliseconds 7.25 {recipe.export.latency_ms:g}",
        f"on {recipe.export.sentences:,} rows of the test file",
    ):
        assert wanted in text, wanted


def test_report_before_export_has_no_export_section(store: Store) -> None:
    recipe = recipe_of()
    assert "Exported model" not in PageParser(render(recipe, decision(True), evaluation(store, recipe))).text


# --- the page ---


@pytest.mark.parametrize("name", ["nsmc", "klue-sts"])
def test_sample_is_said_wherever_results_show(name: str, store: Store) -> None:
    sample, real = recipe_of(name, sample=True), recipe_of(name)
    html = render(sample, decision(True), evaluation(store, sample), EXPORTED)
    headings = re.findall(r"<h2>.*?</h2>", html, re.DOTALL)
    assert len(headings) >= 9
    assert [item for item in headings if "sample data" not in item] == ["<h2>Artifacts</h2>"]
    assert "nothing about real reviews" in html
    assert "sample data" not in render(real, decision(True), evaluation(store, real), EXPORTED)


def test_it_needs_no_other_file(store: Store) -> None:
    recipe = recipe_of()
    html = render(recipe, decision(True), evaluation(store, recipe), EXPORTED)
    contents = [
        base64.b64decode(str(item).removeprefix("data:image/png;base64,")) for item in PageParser(html).addresses
    ]
    assert contents == [picture("white"), picture("blue")]
    assert not re.search(r"url\(|@import|<script|<link", html)


def test_text_from_the_data_is_escaped(store: Store) -> None:
    recipe = recipe_of()
    script = "<script>alert(1)</script>"
    evaluated = evaluation(
        store,
        recipe,
        warnings=[f"warning {script}"],
        mistakes=mistakes(recipe, 1, f"mistake {script}"),
        failures=failures(recipe, f"failure {script}"),
        slices=[{"slice": "source", "part": f"part {script}", "rows": 7, "figure": None}],
    )
    html = render(recipe, decision(False, f"reason {script}", notes=(f"note {script}",)), evaluated)
    assert "<script" not in html
    text = PageParser(html).text
    for place in ("warning", "mistake", "failure", "part", "reason", "note"):
        assert f"{place} {script}" in text.replace("Reason", "reason"), place


def test_an_epoch_may_lack_a_column() -> None:
    columns, rows = epoch_table([{"loss": 1.0, "epoch": 1}, {"epoch": 2, "eval_f1": 0.5, "eval_runtime": 9.0}])
    assert columns == ["epoch", "loss", "eval_f1"]
    assert rows == [[1, 1.0, None], [2, None, 0.5]]
    assert epoch_table([]) == ([], [])


def test_without_texts_it_quotes_nothing(store: Store) -> None:
    recipe = recipe_of()
    evaluated = evaluation(store, recipe, warnings=["left out: 2015-08-06.txt: reading: found: 6-0, 하나도 재미없다"])
    page = render(recipe, decision(True), evaluated)
    quoted = ("하나도 재미없다", "최고의 영화", "하나도 안 좋다")
    assert all(text in page for text in quoted)
    shown = without_texts(page)
    assert not any(text in shown for text in quoted)
    assert "0.8812" in shown
    assert PageParser(shown).open == []
