"""The data gate on small files, with real Great Expectations runs, in a store of the test's own."""

from __future__ import annotations

import random
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from pipeline.errors import DataError
from pipeline.job import Job
from pipeline.recipes.loading import load_recipe
from pipeline.recipes.schema import Recipe
from pipeline.settings import Settings
from pipeline.stages.validate import validate
from pipeline.store.artifacts import Artifact, Store
from tests.support.published import SMALL, pairs, reviews, write_pairs, write_reviews
from tests.support.suites import with_rules, without_warnings

pytestmark = pytest.mark.usefixtures("compiled_templates")

MakeJob = Callable[..., Job]


def rejected(store: Store, recipe: str) -> Artifact:
    found = store.newest("rejected-data", recipe)
    assert found is not None
    return found


def test_good_reviews_become_an_artifact(nsmc: Recipe, make_job: MakeJob, data: Path) -> None:
    test = reviews(29, 5000)
    write_reviews(data, reviews(60, 1), [*test, ("9000", "2번째 영화, 좋다", "1")])
    made = validate(make_job(nsmc), data)
    train_table = pd.read_parquet(made.path / "train.parquet")
    test_table = pd.read_parquet(made.path / "test.parquet")
    assert train_table.columns.tolist() == ["id", "text", "label"]
    assert test_table.columns.tolist() == ["id", "text", "label", "in_train"]
    assert train_table["label"].tolist() == [0, 1] * 30
    assert test_table.loc[test_table["in_train"], "id"].tolist() == ["9000"]
    assert made.manifest.figures == {
        "train_rows": 60,
        "test_rows": 30,
        "test_in_train": 1,
        "warnings": [],
        "sample": False,
        "cutoff": None,
        "arrivals": [],
        "left_out": [],
        "quarantined": 0,
        "overlap": {
            "test_in_train": 1,
            "train_two_labels": 0,
            "train_duplicates": 0,
            "test_two_labels": 0,
            "test_duplicates": 0,
        },
    }
    findings = made.read_json("validation.json")["findings"]
    assert {item["split"] for item in findings} == {"train", "test"}
    assert all(item["passed"] and item["reason"] for item in findings)


def test_good_pairs_become_an_artifact(
    sts: Recipe, make_job: MakeJob, data: Path, settings: Settings, tmp_path: Path
) -> None:
    swapped = pairs(1, "train")[0] | {
        "guid": "swapped",
        "sentence1": "0번 버스가 갔다.",
        "sentence2": "train 0번 버스가 온다.",
    }
    write_pairs(data, pairs(60, "train"), [*pairs(30, "dev"), swapped])
    made = validate(replace(make_job(sts), settings=without_warnings(settings, tmp_path)), data)
    table = pd.read_parquet(made.path / "test.parquet")
    assert table.columns.tolist() == ["id", "text", "text_pair", "label", "source", "in_train"]
    assert table["label"].dtype == "float64"
    # Only the exact pair counts, with the order of its two sentences.
    assert made.manifest.figures["test_in_train"] == 0


def test_warnings_are_sentences_and_rows_of_the_docs(
    nsmc: Recipe, make_job: MakeJob, data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    test = [("10", "<script>alert('나쁜 후기')</script>", "0"), *reviews(30, 5000)]
    write_reviews(data, [*reviews(60, 100), ("11", " ", "1")], test)
    made = validate(make_job(nsmc), data)
    [warning] = made.manifest.figures["warnings"]
    assert warning.endswith('ratings_train.txt: 1 of 61 rows breaks the rule "no document is blank": line 62 (id 11)')
    assert warning in caplog.text
    pages = {path.relative_to(made.path).as_posix(): path.read_text("utf-8") for path in made.path.rglob("*.html")}
    assert "docs/index.html" in pages
    assert len(pages) == 4  # the suite, and one validation per file
    for page in pages.values():
        assert not re.findall(r"<script|<img|<link|src=|url\(|https?://|onclick=", page)
        assert "default-src 'none'" in page
    front = pages["docs/index.html"]
    assert "no document is blank" in front
    assert '<td class="short">11</td>' in front
    for target in re.findall(r'href="([^"#]+)"', front):
        assert (made.path / "docs" / target).is_file()


@pytest.mark.browser
def test_browser_shows_korean_without_other_requests(nsmc: Recipe, make_job: MakeJob, data: Path) -> None:
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("chromium is not installed, so the data docs are not opened in a browser")
    sync_api = pytest.importorskip("playwright.sync_api")
    write_reviews(data, [*reviews(60, 100), ("11", "빵점", "영점")], reviews(30, 5000))
    job = make_job(nsmc)
    with pytest.raises(DataError):
        validate(job, data)
    docs = rejected(job.store, "nsmc").path / "docs"
    asked: list[str] = []
    said: list[str] = []
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: said.append(message.text))
        page.goto((docs / "index.html").as_uri())
        row = page.get_by_role("row").filter(has_text="빵점").first
        assert row.inner_text().split("\t") == ["62", "11", "빵점", "영점"]
        page.get_by_role("link", name="validation of the train rows").click()
        page.get_by_text("every label is one of the recipe's").wait_for()
        assert page.get_by_text("영점").is_visible()
        browser.close()
    assert len(asked) == 2
    assert all(url.startswith("file://") for url in asked)
    assert said == []


def test_shuffled_labels_are_found_by_repeated_texts(
    make_job: MakeJob, data: Path, settings: Settings, tmp_path: Path
) -> None:
    shuffle = random.Random(7)
    train = [(str(n), f"후기 {n % 20}", str(shuffle.randrange(2))) for n in range(100)]
    write_reviews(data, train, reviews(30, 5000))
    wide = {f"data.overlap.{kind}": 0.99 for kind in ("two_labels", "duplicates")}
    job = make_job(load_recipe("nsmc", "embedded", overrides=SMALL | wide))
    rule = "at most 1 row in 50 has a text that also stands under another label"
    [warning] = validate(replace(job, settings=with_rules(settings, tmp_path, rule)), data).manifest.figures["warnings"]
    assert rule in warning


def test_recipe_of_required_keys_reads_one_csv(make_job: MakeJob, data: Path, tmp_path: Path) -> None:
    columns = '[data]\ntrain = "news.csv"\ntexts = ["글"]\nlabel = "평"\n'
    (tmp_path / "news.toml").write_text(f'kind = "classification"\nlabels = ["좋다", "싫다"]\n{columns}', "utf-8")
    recipe = load_recipe("news", "embedded", directories=[tmp_path])
    rows = [f'"{n}번째 영화, {n * 7919}",{"좋다" if n % 2 else "싫다"}' for n in range(400)]
    data.mkdir()
    # Two copies that differ in a letter's repetition are one text for the test rows, too.
    (data / "news.csv").write_text(
        "\n".join(["글,평", *rows, "재밌어 ㅋㅋ,좋다", "재밌어ㅋㅋㅋㅋ,좋다"]), encoding="utf-8"
    )
    made = validate(make_job(recipe), data)
    train, test = (pd.read_parquet(made.path / f"{split}.parquet") for split in ("train", "test"))
    assert len(train) + len(test) == 402
    assert 0.1 < len(test) / 402 < 0.3
    assert set(train["id"]) | set(test["id"]) == {f"news.csv:{line}" for line in range(2, 404)}
    assert len({side for side, rows in enumerate((train, test)) if rows["text"].str.startswith("재밌어").any()}) == 1
    assert made.manifest.figures["overlap"]["test_in_train"] == 0
    findings = made.read_json("validation.json")["findings"]
    assert all(item["passed"] and item["reason"] for item in findings)
    # More rows do not move the earlier ones.
    more = [f'"{n}번째 책, {n}",싫다' for n in range(100)]
    with (data / "news.csv").open("a", encoding="utf-8") as file:
        file.write("\n" + "\n".join(more))
    grown = pd.read_parquet(validate(make_job(recipe), data).path / "test.parquet")
    assert set(test["id"]) <= set(grown["id"])
