"""Draft the files of a new recipe from a look at its data: recipe, expectation suite and behavioural tests."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.atomic_files import replace_file
from pipeline.drafting.inspection import Inspection
from pipeline.errors import RecipeError
from pipeline.recipes.files import read_toml, shown
from pipeline.recipes.kinds.inputs import TEXTS
from pipeline.recipes.labels import check_labels
from pipeline.recipes.standard_suite import NAMES, rule, standard_suite

#: Rows on which models are compared, and on which the best epoch is chosen, if there are enough.
HELD_OUT_ROWS = 200
#: Rows that a training should see in all epochs together.
ROWS_SEEN = 6_000
#: Longest input of `mini`, in tokens.
LONGEST_INPUT = 128


@dataclass(frozen=True)
class Draft:
    """The drafted files of a recipe, by their path in its directory."""

    name: str
    files: dict[str, str]


def draft_recipe(name: str, data_file: str, found: Inspection) -> Draft:
    """Return the draft of recipe `name`; `data_file` is the path of its file below the data directory.

    Raises RecipeError if a recipe cannot have the labels of the data.
    """
    try:
        check_labels(list(found.labels))
    except ValueError as error:
        raise RecipeError(f"column {found.label!r} of {data_file}: {error}; correct the labels in the file") from error
    if not found.scores and len(found.labels) < 2:
        raise RecipeError(f"column {found.label!r} of {data_file} has fewer than two labels")
    files = {
        f"{name}.toml": _recipe(name, data_file, found),
        f"expectations/{name}.json": json.dumps(_suite(name, found), ensure_ascii=False, indent=2) + "\n",
        f"behaviour/{name}.toml": _behaviour(name, found),
    }
    return Draft(name, files)


def append_table(path: Path, table: str, text: str) -> None:
    """Append `text`, which defines `table`, to the recipe file `path`. Raises RecipeError if it has this table."""
    name = shown(path)
    if table in read_toml(path, name):
        raise RecipeError(f"{name} has a table [{table}] already; copy the values into it")
    content = path.read_text(encoding="utf-8-sig")
    replace_file(path, f"{content.rstrip()}\n\n{text}" if text else content)


def _recipe(name: str, data_file: str, found: Inspection) -> str:
    share = min(0.2, max(0.05, round(HELD_OUT_ROWS / found.rows, 2)))
    test = round(found.rows * 0.2)
    lines = [
        f"# Drafted by `saebyeok new` from {found.rows:,} rows of {data_file}. Check it, then: saebyeok check {name}",
        f"title = {_toml(name)}",
        f"kind = {_toml('regression' if found.scores else 'classification')}",
        f"inputs = {_toml('pair' if len(found.texts) > 1 else 'text')}",
        *_labels(found),
        "",
        "[data]",
        f"train = {_toml(data_file)}",
        *(f"{key} = {_toml(value)}" for key, value in found.table.settings.items()),
        *([f"id = {_toml(found.id)}"] if found.id else ["# Without a column of ids, rows are named by file and line."]),
        f"texts = {_toml(list(found.texts))}",
        f"label = {_toml(found.label)}",
        f"suite = {_toml(name)}",
        "# There is no test file: this share of the texts is for testing, selected by a hash of the text.",
        "test_share = 0.2",
        "# 80% of the rows that there are now. A file that was cut short is refused.",
        f"min_train_rows = {max(1, int((found.rows - test) * 0.8))}",
        f"min_test_rows = {max(1, int(test * 0.8))}",
        "# Shares of the training texts on which the best epoch is chosen, and on which two models are compared.",
        f"validation_share = {share}",
        f"gate_share = {share}",
        "",
        f"# Now {found.duplicates:.1%} of the rows repeat an earlier text, and {found.two_labels:.1%} have a text that",
        "# also has another label. The bounds are twice as high.",
        "[data.overlap]",
        f"two_labels = {_bound(found.two_labels, 0.02)}",
        f"duplicates = {_bound(found.duplicates, 0.05)}",
        "",
        *_model(found),
        "",
        "# Thresholds are not measured yet, so every model is refused. This trains a few models and writes them:",
        f"#   saebyeok propose-floors {name} --write",
    ]
    return "\n".join(lines) + "\n"


def _labels(found: Inspection) -> list[str]:
    if found.score_range:
        low, high = found.score_range
        positive = "# Scores from here on count as positive for F1."
        return [f"score_range = [{low}, {high}]", positive, f"similar_at = {(low + high) / 2}"]
    shown_labels = ", ".join(f"{label} {count:,}" for label, count in found.labels.items())
    rare = min(found.labels.values()) * 5 < max(found.labels.values())
    note = ["# The rarest label has less than a fifth of the rows of the most frequent one: watch F1, not accuracy."]
    return [f"# Rows per label: {shown_labels}", *(note if rare else []), f"labels = {_toml(list(found.labels))}"]


def _model(found: Inspection) -> list[str]:
    median, long, longest = found.lengths
    length = min(LONGEST_INPUT, max(16, -(-long // 16) * 16))
    epochs = min(15, max(2, -(-ROWS_SEEN // found.rows)))
    pairs = ['objective = "cross-encoder"'] if len(found.texts) > 1 else []
    return [
        "# `mini` ships with Saebyeok and is trained on the CPU. With a GPU, try klue/bert-base with",
        '# train.learning_rate = 5e-5, train.weight_decay = 0.0 and model.pooling = "cls".',
        "[model]",
        'base = "mini"',
        *pairs,
        f"# Characters per input: median {median:,}, 99th percentile {long:,}, maximum {longest:,}.",
        f"max_length = {length}",
        "",
        "[train]",
        f"epochs = {epochs}",
    ]


def _suite(name: str, found: Inspection) -> dict[str, Any]:
    columns = TEXTS[: len(found.texts)]
    suite = standard_suite(name, columns, len(found.labels))
    for column, words in zip(columns, NAMES[len(columns)], strict=True):
        suite["expectations"] += _own_rules(column, words, found)
    return suite


def _own_rules(column: str, words: str, found: Inspection) -> list[dict[str, Any]]:
    limit = max(50, 2 * found.lengths[2])
    rules = [
        rule(
            "column_value_lengths_to_be_between",
            "warning",
            f"999 of 1,000 times a {words} has at most {limit:,} characters",
            f"The longest had {found.lengths[2]:,} when the recipe was drafted; longer ones hint at lost line ends.",
            column=column,
            max_value=limit,
            mostly=0.999,
        )
    ]
    if found.hangul > 0.9:
        rules.append(
            rule(
                "column_values_to_match_regex",
                "warning",
                f"at least 8 in 10 times a {words} contains Hangul",
                f"{found.hangul:.0%} did when the recipe was drafted. Text in a wrong encoding has none.",
                column=column,
                regex="[ᄀ-ᇿㄱ-ㆎ가-힣]",
                mostly=0.8,
            )
        )
    return rules


def _behaviour(name: str, found: Inspection) -> str:
    """Return stubs of behavioural tests, as comments: tests need cases that a person has written."""
    single = len(found.texts) == 1
    text: Any = "문장을 여기에" if single else ["첫째 문장", "둘째 문장"]
    changed: Any = "문장을 여기에!!" if single else ["첫째 문장", "둘째 문장!!"]
    lines = [
        f"# Behavioural tests of {name}: expectations apart from the test file. These are stubs: replace the cases",
        "# by your own sentences, remove the `#`, and set a bound per capability in the recipe:",
        "#   [gate.behaviour]",
        "#   basics = 0.8",
        "",
    ]
    cases: list[tuple[str, str, str, dict[str, Any], Any]] = [
        ("minimum", "basics", f"plain cases of {label}", {"label": label}, text) for label in found.labels
    ]
    within = {}
    if found.score_range:
        low, high = found.score_range
        within = {"within": round((high - low) / 10, 3)}
        cases.append(("minimum", "basics", "a high score", {"score": [(low + high) / 2, high]}, text))
    cases.append(("invariance", "basics", "punctuation does not matter", within, [text, changed]))
    for kind, capability, title, fields, case in cases:
        table = {"capability": capability, "name": title, "kind": kind, **fields, "cases": [case]}
        lines += ["# [[tests]]", *(f"# {key} = {_toml(value)}" for key, value in table.items()), "#"]
    return "\n".join(lines) + "\n"


def _bound(share: float, least: float) -> float:
    return max(least, min(0.99, round(share * 2, 3)))


def _toml(value: Any) -> str:
    # Texts, numbers and lists of them look the same in JSON and TOML.
    return json.dumps(value, ensure_ascii=False)
