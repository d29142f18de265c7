"""Arrivals: which ones a run knows, which ones it rejects, and their effect on the run."""

from __future__ import annotations

import json
import random
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import pandas as pd
import pytest

from pipeline.data.arrival_checks import Arrival, check_arrivals
from pipeline.data.data_gate import read_published
from pipeline.data.input_files import find_files, read_part
from pipeline.errors import BaseModelError, DataError
from pipeline.job import Job
from pipeline.recipes.loading import load_recipe
from pipeline.recipes.schema import Recipe
from pipeline.stages.validate import validate
from pipeline.store.artifacts import Artifact, Store
from tests.support.daily import DAYS, ROWS, day_of, reviews_of, write_day, write_usual_days
from tests.support.published import SMALL, Row, reviews, write_reviews
from tests.support.small_pipeline import save_base
from tests.support.tiny_releases import make_artifact

pytestmark = [pytest.mark.torch, pytest.mark.usefixtures("compiled_templates")]

LEAKED = "rows of the test file"
Change = Callable[[list[Row]], Sequence[Row | str]]


@pytest.fixture
def recipe() -> Recipe:
    return load_recipe("nsmc", "embedded", overrides=SMALL)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Write published files and six usual days."""
    return write_usual_days(tmp_path)


@pytest.fixture
def job(recipe: Recipe, make_job: Callable[..., Job]) -> Job:
    """Return a run on the day after the last arrival."""
    return replace(make_job(recipe), cutoff=day_of(DAYS))


def checked(recipe: Recipe, data: Path, cutoff: date | None = None) -> list[Arrival]:
    inputs = find_files(recipe, data, cutoff or day_of(DAYS + 1))
    published = read_published(recipe, inputs)
    return [arrival for arrival, _ in check_arrivals(recipe, published, inputs.arrivals, {}, None, {})]


def test_run_knows_only_arrivals_before_its_day(job: Job, data: Path) -> None:
    for number in (0, 1, 3):
        made = validate(replace(job, cutoff=day_of(number)), data)
        table = pd.read_parquet(made.path / "train.parquet")
        assert made.manifest.figures["train_rows"] == len(table) == 60 + number * ROWS
        assert made.manifest.figures["cutoff"] == (str(day_of(number - 1)) if number else None)
        assert set(table["id"].iloc[60:].str.split("-").str[0]) == {str(n) for n in range(number)}


def test_day_without_arrivals_reuses_the_validation(job: Job, data: Path) -> None:
    made = validate(job, data)
    assert validate(replace(job, cutoff=job.cutoff + timedelta(days=300), run="later"), data).ref == made.ref
    write_day(data, DAYS, reviews_of(DAYS))
    assert validate(job, data).ref == made.ref, "what arrived on the day itself is not known yet"
    assert validate(replace(job, cutoff=day_of(DAYS + 1)), data).key != made.key


def flipped(rows: list[Row]) -> list[Row]:
    draw = random.Random(1)
    return [(a, b, str(1 - int(c)) if draw.random() < 0.3 else c) for a, b, c in rows]


#: A change that makes a day unusual, and the measure that detects it.
ODD: list[tuple[Change, str]] = [
    (flipped, "labels"),
    (lambda _: reviews_of(DAYS, 10 * ROWS), "rows"),
    (lambda _: reviews_of(DAYS, ROWS // 5), "rows"),
    (lambda rows: [(a, b if n % 2 else "", c) for n, (a, b, c) in enumerate(rows)], "lengths"),
    (lambda rows: [(a, "짧다", c) for a, _, c in rows], "lengths"),
    (lambda _: reviews_of(2), "rows seen before"),
    (lambda _: [(f"new-{id}", text, label) for id, text, label in reviews_of(2)], "rows seen before"),
    (lambda rows: [(a, b.replace("좋다", "占쏙옙"), c) for a, b, c in rows], "unknown words"),
    (lambda rows: [*rows[60:], *((f"new-{a}", f"{b}  ", c) for a, b, c in reviews(60, 5000))], LEAKED),
    (lambda rows: [*rows[60:], *((str(n), f"{n}번 좋다", "1") for n in range(5000, 5060))], LEAKED),
    (lambda rows: [(a, b, "긍정" if n < 9 else c) for n, (a, b, c) in enumerate(rows)], "unusable rows"),
    (lambda rows: [(a, b, "\t" if n < 9 else c) for n, (a, b, c) in enumerate(rows)], "unusable rows"),
    (lambda rows: [",".join(row) for row in rows], "unusable rows"),
]


@pytest.mark.parametrize(("change", "measure"), ODD)
def test_unusual_day_is_distinguished_from_usual_days(recipe: Recipe, data: Path, change: Change, measure: str) -> None:
    write_day(data, DAYS, change(reviews_of(DAYS)))
    *usual, odd = checked(recipe, data)
    assert {arrival.level for arrival in usual} == {"ok"}
    assert any(item.name.startswith(measure) and item.level == "critical" for item in odd.measures), odd


# The last one is unique.
@pytest.mark.parametrize("change", {measure: change for change, measure in ODD}.values())
def test_rejected_day_does_not_change_the_usual_values(recipe: Recipe, data: Path, change: Change) -> None:
    # Different sizes, so that one more day changes the median.
    for number in range(DAYS):
        write_day(data, number, reviews_of(number, 200 + 20 * number))
    # A corrected file is compared with the usual values as if the bad file had never existed.
    write_day(data, DAYS + 1, reviews_of(DAYS))
    *_, without = checked(recipe, data, day_of(DAYS + 2))
    write_day(data, DAYS, change(reviews_of(DAYS)))
    *_, rejected, again = checked(recipe, data, day_of(DAYS + 2))
    assert rejected.level == "critical"
    assert again.level == "ok"
    assert again.measures == without.measures


def test_unknown_words_are_those_of_the_base_model(make_job: Callable[..., Job], data: Path, tmp_path: Path) -> None:
    # No word of the train file contains 쀍, but the base model knows it.
    texts = [text for _, text, _ in reviews_of(0)]
    bases = {word: save_base(tmp_path / word, [*texts, word]) for word in ("좋다", "쀍다")}
    write_day(data, DAYS, [(a, b.replace("좋다", "쀍다"), c) for a, b, c in reviews_of(DAYS)])
    job = make_job(load_recipe("nsmc", "full", overrides=SMALL | {"model.base": str(bases["쀍다"])}))
    assert validate(replace(job, cutoff=day_of(DAYS + 1)), data).manifest.figures["cutoff"] == str(day_of(DAYS))
    job = make_job(load_recipe("nsmc", "full", overrides=SMALL | {"model.base": str(bases["좋다"])}))
    with pytest.raises(DataError, match=r"unknown words: [5-9]\d\.\d+% \(usual: 0\.00%\)"):
        validate(replace(job, cutoff=day_of(DAYS + 1)), data)


def test_single_text_in_another_script_is_accepted(recipe: Recipe, data: Path) -> None:
    # Each of its characters is a separate word.
    rows = reviews_of(DAYS)
    write_day(data, DAYS, [(rows[0][0], "".join(map(chr, range(0x4E00, 0x4E00 + 100))), "1"), *rows[1:]])
    *_, day = checked(recipe, data)
    (measure,) = [item for item in day.measures if item.name == "unknown words"]
    assert measure.level == "ok"
    assert float(measure.found[:-1]) > float(measure.usual[:-1]) + 2


def test_base_model_is_loaded_only_for_arrivals(make_job: Callable[..., Job], data: Path) -> None:
    job = make_job(load_recipe("nsmc", "full", overrides=SMALL | {"model.base": "no model, and no directory"}))
    with pytest.raises(BaseModelError, match="neither a directory here nor a model on the hub"):
        validate(replace(job, cutoff=day_of(DAYS)), data)
    shutil.rmtree(data / "nsmc" / "daily")
    assert validate(job, data).manifest.figures["arrivals"] == []


@pytest.mark.parametrize(
    ("change", "measure"),
    [
        (flipped, "labels"),
        (lambda rows: [",".join(row) for row in rows], "unusable rows"),
    ],
)
def test_unusual_day_stops_its_run_and_is_skipped(job: Job, data: Path, change: Change, measure: str) -> None:
    file = write_day(data, DAYS, change(reviews_of(DAYS)))
    night = replace(job, cutoff=day_of(DAYS + 1))
    with pytest.raises(DataError, match="the newest arrival failed its checks: .*" + measure) as caught:
        validate(night, data)
    assert str(caught.value).startswith(str(file))
    write_day(data, DAYS + 1, reviews_of(DAYS + 1))
    made = validate(replace(job, cutoff=day_of(DAYS + 2)), data)
    assert made.manifest.figures["cutoff"] == str(day_of(DAYS + 1))
    assert made.manifest.figures["train_rows"] == 60 + (DAYS + 1) * ROWS
    [left_out] = made.manifest.figures["left_out"]
    assert left_out in made.manifest.figures["warnings"]
    assert left_out.startswith(f"left out: nsmc/daily/{day_of(DAYS)}.txt: ")


@pytest.mark.parametrize(
    ("overrides", "change", "found"),
    [
        ({}, lambda rows: [*rows, *rows[:9]], r"rows that break a rule: 9 of 309 \(usual: at most 7, by 0.5%\)"),
        pytest.param(
            {},
            lambda rows: [("" if n < 9 else a, b, c) for n, (a, b, c) in enumerate(rows)],
            "rows that break a rule",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            {},
            lambda rows: [(a, "" if n < 9 else b, c) for n, (a, b, c) in enumerate(rows)],
            "combined.*1 row in 1,0",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            {"data.overlap.duplicates": 0.01},
            lambda rows: [(a, rows[0][1] if n < 30 else b, c) for n, (a, b, c) in enumerate(rows)],
            "combined data: .*data.overlap.duplicates allows 1.0%",
            marks=pytest.mark.slow,
        ),
    ],
    ids=["repeated ids", "empty ids", "empty documents", "duplicates"],
)  # fmt: skip
def test_day_that_breaks_combined_rules_is_left_out(
    make_job: Callable[..., Job], data: Path, overrides: dict[str, float], change: Change, found: str
) -> None:
    recipe = load_recipe("nsmc", "embedded", overrides=SMALL | overrides)
    spoilt = write_day(data, 2, change(reviews_of(2)))
    job = make_job(recipe)
    with pytest.raises(DataError, match=f"newest arrival failed its checks: .*{found}"):
        validate(replace(job, cutoff=day_of(3)), data)
    made = validate(replace(job, cutoff=day_of(DAYS)), data)
    assert made.manifest.figures["train_rows"] == 60 + (DAYS - 1) * ROWS
    assert {item["date"] for item in made.manifest.figures["arrivals"]} == {
        str(day_of(n)) for n in range(DAYS) if n != 2
    }
    (left_out,) = made.manifest.figures["left_out"]
    assert left_out.startswith(f"left out: nsmc/daily/{spoilt.name}: ")
    assert re.search(found, left_out)


def test_day_is_blamed_despite_broken_published_files(make_job: Callable[..., Job], data: Path) -> None:
    # Together with the arrivals they are enough.
    recipe = load_recipe(
        "nsmc", "embedded", overrides=SMALL | {"data.min_train_rows": 300, "data.overlap.duplicates": 0.01}
    )
    write_day(data, 2, [(a, reviews_of(2)[0][1] if n < 30 else b, c) for n, (a, b, c) in enumerate(reviews_of(2))])
    made = validate(replace(make_job(recipe), cutoff=day_of(DAYS)), data)
    (left_out,) = made.manifest.figures["left_out"]
    assert left_out.startswith(f"left out: nsmc/daily/{day_of(2)}.txt: ")


def test_empty_documents_do_not_count_as_repeated(recipe: Recipe, data: Path) -> None:
    write_reviews(data, [*reviews(60, 1), ("blank", "", "1")], [*reviews(60, 5000), ("empty", " ", "0")])
    write_day(data, DAYS, [(a, b if n % 2 else "", c) for n, (a, b, c) in enumerate(reviews_of(DAYS))])
    *_, odd = checked(recipe, data)
    levels = {item.name: item.level for item in odd.measures}
    assert (levels["rows seen before"], levels[LEAKED], levels["lengths"]) == ("ok", "ok", "critical")


def test_rows_without_an_id_repeat_no_row(make_job: Callable[..., Job], data: Path) -> None:
    files = {f"data.{split}": f"nsmc/{split}.jsonl" for split in ("train", "test")}
    recipe = load_recipe("nsmc", "embedded", overrides=SMALL | files | {"data.format": "jsonl"})
    nameless = {"train": reviews(60, 1), "test": reviews(60, 5000), f"daily/{day_of(0)}": reviews_of(0)}
    for name, rows in nameless.items():
        # The first row of each published file and every row of the day have a null id.
        items = [
            {"id": id if n and "daily" not in name else None, "document": text, "label": int(label)}
            for n, (id, text, label) in enumerate(rows)
        ]
        lines = "".join(f"{json.dumps(item, ensure_ascii=False)}\n" for item in items)
        (data / "nsmc" / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    (arrival,) = checked(recipe, data)
    found = {item.name: (item.found, item.level) for item in arrival.measures}
    assert found["rows seen before"] == found[LEAKED] == ("0.0%", "ok")
    made = validate(replace(make_job(recipe), cutoff=day_of(1)), data)
    assert (made.manifest.figures["train_rows"], made.manifest.figures["quarantined"]) == (60 + ROWS, 0)


def test_rules_broken_by_published_files_blame_no_day(make_job: Callable[..., Job], data: Path) -> None:
    recipe = load_recipe("nsmc", "embedded", overrides=SMALL | {"data.overlap.duplicates": 0.01})
    train = [(a, b if n > 9 else "같은 말", "0" if n < 10 else c) for n, (a, b, c) in enumerate(reviews(60, 1))]
    write_reviews(data, train, reviews(60, 5000))
    job = make_job(recipe)
    with pytest.raises(DataError, match=r"ratings_train\.txt with 1 arrivals: .*data\.overlap\.") as caught:
        validate(replace(job, cutoff=day_of(1)), data)
    assert "newest arrival" not in str(caught.value)


def test_arrived_test_rows_are_set_aside(make_job: Callable[..., Job], data: Path) -> None:
    recipe = load_recipe("nsmc", "embedded", overrides=SMALL)
    write_day(data, 2, [("5007", "다른 말로 적은 글이다", "1"), *reviews_of(2)[1:]])
    made = validate(replace(make_job(recipe), cutoff=day_of(DAYS)), data)
    assert made.manifest.figures["test_rows"] == 60
    (row,) = (made.path / "quarantine.tsv").read_text("utf-8").splitlines()[1:]
    assert row.startswith(f"nsmc/daily/{day_of(2)}.txt\t2\tno row to learn from has an id of the test file\t5007\t")


@pytest.mark.parametrize("content", ["cp949", "utf-16", "empty"])
def test_unreadable_day_stops_its_run(job: Job, data: Path, content: str) -> None:
    file = write_day(data, DAYS, reviews_of(DAYS), "utf-8" if content == "empty" else content)
    if content == "empty":
        file.write_bytes(b"")
    with pytest.raises(DataError, match="failed its checks: .*reading: "):  # noqa: RUF043
        validate(replace(job, cutoff=day_of(DAYS + 1)), data)


def test_first_days_are_not_compared(recipe: Recipe, data: Path) -> None:
    write_day(data, 1, reviews_of(1, 10 * ROWS))
    assert [arrival.level for arrival in checked(recipe, data)[:3]] == ["ok"] * 3


def test_fourth_day_is_the_first_that_is_compared(recipe: Recipe, data: Path) -> None:
    compared = [{item.name for item in arrival.measures} >= {"rows", "labels"} for arrival in checked(recipe, data)]
    assert compared == [False] * 3 + [True] * (DAYS - 3)
    # Of the accepted days.
    write_day(data, 1, [",".join(row) for row in reviews_of(1)])
    compared = [{item.name for item in arrival.measures} >= {"rows", "labels"} for arrival in checked(recipe, data)]
    assert compared == [False] * 4 + [True] * (DAYS - 4)


def test_only_the_recent_days_say_what_is_usual(data: Path) -> None:
    recipe = load_recipe("nsmc", "embedded", overrides=SMALL | {"data.arrivals.recent": 3})
    for number, count in ((3, 900), (4, 900), (5, 900)):
        write_day(data, number, reviews_of(number, count))
    write_day(data, DAYS, reviews_of(DAYS))
    rows = [next(item for item in arrival.measures if item.name == "rows") for arrival in checked(recipe, data)[3:]]
    assert [(item.found, item.usual) for item in rows] == [
        ("900", "300"),
        ("900", "300"),
        ("900", "900"),
        ("300", "900"),
    ]
    assert {item.level for item in rows} == {"warning", "ok"}


def test_bad_arrival_row_is_set_aside_with_file(make_job: Callable[..., Job], data: Path) -> None:
    recipe = load_recipe("nsmc", "embedded", overrides=SMALL)
    rows = reviews_of(2)
    write_day(data, 2, [*rows[:9], ("2-9", "애매하다", "7"), *rows[10:]])
    made = validate(replace(make_job(recipe), cutoff=day_of(DAYS)), data)
    lines = (made.path / "quarantine.tsv").read_text("utf-8").splitlines()
    assert lines[1:] == [f"nsmc/daily/{day_of(2)}.txt\t11\tevery label is one of the recipe's\t2-9\t애매하다\t7"]
    assert made.manifest.figures["train_rows"] == 60 + DAYS * ROWS - 1


def test_stray_files_stop_no_run_and_are_named_once(job: Job, data: Path) -> None:
    usual = validate(job, data)
    for suffix in (".bak", ".filepart", ".md5", ".part", ".txt.gz"):
        (data / "nsmc" / "daily" / f"{day_of(DAYS - 1)}{suffix}").write_text("half of a")
    made = validate(replace(job, force=True), data)
    assert (made.key, made.manifest.figures["train_rows"]) == (usual.key, usual.manifest.figures["train_rows"])
    (warning,) = [item for item in made.manifest.figures["warnings"] if "ignored" in item]
    day = day_of(DAYS - 1)
    assert warning == (
        f"ignored in nsmc/daily: {day}.bak, {day}.filepart, {day}.md5 and 2 more; an arrival is named by its date: "
        "YYYY-MM-DD.txt"
    )


def test_unfinished_day_waits_for_the_next_run(
    job: Job, data: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    file = write_day(data, DAYS, reviews_of(DAYS)[:150])
    night = replace(job, cutoff=day_of(DAYS + 1))
    # The upload goes on between the two looks at the file.
    uploads(monkeypatch, file)
    made = validate(night, data)
    assert made.manifest.figures["cutoff"] == str(day_of(DAYS - 1))
    assert f"nsmc: nsmc/daily/{file.name} is still being written; this run skips it" in caplog.messages
    monkeypatch.undo()
    made = validate(replace(night, cutoff=day_of(DAYS + 2)), data)
    assert made.manifest.figures["cutoff"] == str(day_of(DAYS))


def uploads(monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    """Make the file recent, and add a row to it whenever somebody waits for it to be finished."""
    file.touch()

    def wait(_: float) -> None:
        with file.open("a", encoding="utf-8") as stream:
            stream.write("late\t늦게 온 후기\t1\n")

    monkeypatch.setattr("pipeline.data.input_files.time.sleep", wait)


def test_file_that_grows_after_it_was_read_is_used_as_read(job: Job, data: Path) -> None:
    file = write_day(data, DAYS, reviews_of(DAYS)[:250])
    inputs = find_files(job.recipe, data, day_of(DAYS + 1))
    write_day(data, DAYS, reviews_of(DAYS, 600))
    (digest,) = [item.digest for item in inputs.arrivals if item.path == file]
    part = read_part(job.recipe, inputs.arrivals[-1])
    # The digest of 250 rows must not name 600.
    assert (part.count, part.file.digest) == (250, digest)
    assert find_files(job.recipe, data, day_of(DAYS + 1)).arrivals[-1].digest != digest


def champion_of(store: Store, validated: Artifact) -> Artifact:
    """Return a release with the part that names the arrivals it was trained on."""
    return make_artifact(store, "release", "nsmc", {"validated": {"ref": validated.ref, "key": validated.key}})


def gone(made: Artifact) -> list[str]:
    """Return the warnings about arrivals that are gone."""
    return [warning for warning in made.manifest.figures["warnings"] if "no file any more" in warning]


def test_days_that_vanish_are_named(job: Job, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # All that the champion was trained on is known to it, so it is not asked for answers.
    champion = champion_of(job.store, validate(job, data))
    monkeypatch.setattr("pipeline.stages.validate.try_champion", lambda *_: {})
    assert gone(validate(job, data, champion)) == []
    for number in range(DAYS - 1):
        (data / "nsmc" / "daily" / f"{day_of(number)}.txt").unlink()
    assert gone(validate(job, data, champion)) == [
        "5 days of arrivals that the champion was trained on have no file any more: 2015-08-01, 2015-08-02, 2015-08-03 "
        "and 2 more; restore the files unless they were deleted on purpose"
    ]
    # With no day left, too, and in the key: a run that knows of no champion has another result.
    (data / "nsmc" / "daily" / f"{day_of(DAYS - 1)}.txt").unlink()
    assert gone(validate(job, data, champion))[0].startswith("6 days of arrivals")
    assert gone(validate(job, data)) == []


def test_days_after_the_runs_date_have_not_vanished(job: Job, data: Path) -> None:
    champion = champion_of(job.store, validate(job, data))
    shutil.rmtree(data / "nsmc" / "daily")
    backfilled = replace(job, cutoff=day_of(2))
    assert gone(validate(backfilled, data, champion))[0].startswith("2 days of arrivals")


def test_corrected_or_unfinished_day_has_not_vanished(job: Job, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    champion = champion_of(job.store, validate(job, data))
    monkeypatch.setattr("pipeline.stages.validate.try_champion", lambda *_: {})
    write_day(data, 1, reviews_of(1)[1:])
    uploads(monkeypatch, data / "nsmc" / "daily" / f"{day_of(2)}.txt")
    assert gone(validate(job, data, champion)) == []
