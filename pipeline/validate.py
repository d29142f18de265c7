"""The data gate: files that break a critical rule stop the run here, before a GPU is taken."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.artifacts import Artifact
from pipeline.data import (
    SPLITS,
    Split,
    finished,
    label_numbers,
    label_values,
    read_rows,
    row_unit,
    some_of,
    source_file,
    text_columns,
)
from pipeline.datadocs import Example, Page, PageFile, PageFinding, write_docs
from pipeline.errors import DataError
from pipeline.job import Job
from pipeline.manifest import file_digest, make_key
from pipeline.produce import produce
from pipeline.recipe import Recipe
from pipeline.suites import Finding, open_suite, project_digests, run_suite

VERSION = 1
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Source:
    """One of the two files."""

    path: Path
    digest: str
    table: pd.DataFrame


def validate(job: Job, directory: Path) -> Artifact:
    """Check both files of `directory` against the recipe's suite; kind `validate`.

    Files: `train.parquet` and `test.parquet` (columns of `data.read_split`; test also `in_train` bool:
    its exact text or pair occurs in train), `validation.json`, `docs/index.html` with the data docs.
    Figures: `train_rows`, `test_rows`, `test_in_train`, `warnings` (sentences), `sample`.
    Raises DataError naming file, rows and rule; where a suite refused, its data docs are published as an
    artifact of kind `rejected-data`, and the error names its address.
    """
    paths = {split: source_file(job.recipe, directory, split) for split in SPLITS}
    fields = _fields(job, paths)
    made = produce(
        job, "validate", VERSION, fields=fields, inputs={}, build=lambda draft, _: _build(job, paths, fields, draft)
    )
    for warning in made.figures["warnings"]:
        log.warning("%s: %s", job.recipe.name, warning)
    return made


def checked_table(recipe: Recipe, rows: pd.DataFrame, split: Split, train: pd.DataFrame) -> pd.DataFrame:
    """The table that a suite is run on: `rows` of `data.read_rows`, and what is derived from them.

    Derived: `split`; `label_number` (class number or score, NaN where not understood); `in_train` and
    `id_in_train` (of test rows, whether the exact text or the id occurs in train); `contradicts` (the
    text stands in this file under another label too).
    """
    texts = text_columns(recipe)
    is_test = split == "test"
    known = pd.MultiIndex.from_frame(train[texts])
    pairs = rows[[*texts, "label"]].drop_duplicates()
    disputed = pd.MultiIndex.from_frame(pairs.loc[pairs.duplicated(texts), texts])
    own = pd.MultiIndex.from_frame(rows[texts])
    return rows.assign(
        split=split,
        label_number=label_numbers(recipe, rows["label"]),
        in_train=own.isin(known) & is_test,
        id_in_train=rows["id"].isin(train["id"]) & is_test,
        contradicts=own.isin(disputed),
    )


def _fields(job: Job, paths: Mapping[Split, Path]) -> dict[str, Any]:
    recipe = job.recipe
    return {
        "files": {split: file_digest(path) for split, path in paths.items()},
        # How the training rows are cut later changes nothing here.
        "data": recipe.data.model_dump(mode="json", exclude={"validation_share", "gate_share"}),
        "kind": recipe.kind,
        "labels": list(recipe.labels),
        "score_range": recipe.score_range,
        "sample": recipe.sample,
        "suite": project_digests(job.settings.expectations, recipe.data.suite),
    }


def _build(job: Job, paths: Mapping[Split, Path], fields: Mapping[str, Any], draft: Path) -> dict[str, Any]:
    recipe = job.recipe
    rows = {split: read_rows(recipe, path) for split, path in paths.items()}
    sources = {
        split: Source(paths[split], fields["files"][split], checked_table(recipe, rows[split], split, rows["train"]))
        for split in SPLITS
    }
    findings = _check(job, sources, draft)
    critical = [item for item in findings if not item.passed and item.severity == "critical"]
    if critical:
        raise _refusal(job, fields, draft, [_sentence(recipe, sources, item) for item in critical])
    for split, source in sources.items():
        table = finished(recipe, rows[split], source.table["label_number"])
        if split == "test":
            table["in_train"] = source.table["in_train"]
        table.to_parquet(draft / f"{split}.parquet", index=False)
    return {
        "train_rows": len(rows["train"]),
        "test_rows": len(rows["test"]),
        "test_in_train": int(sources["test"].table["in_train"].sum()),
        "warnings": [_sentence(recipe, sources, item) for item in findings if not item.passed],
        "sample": recipe.sample,
    }


def _check(job: Job, sources: Mapping[Split, Source], draft: Path) -> list[Finding]:
    """Run the suite on both files; leaves `validation.json` and `docs/` in `draft`."""
    recipe = job.recipe
    suite = recipe.data.suite
    with job.store.draft() as project:
        opened = open_suite(job.settings.expectations, project, suite)
        findings = [
            finding
            for split, source in sources.items()
            for finding in run_suite(opened, split, source.table, suite_parameters(recipe, split))
        ]
        write_docs(project / "uncommitted" / "data_docs", draft / "docs", _page(job, sources, findings))
    document = {
        "recipe": recipe.name,
        "suite": suite,
        "run": job.run,
        "files": {split: {"path": str(item.path), "sha256": item.digest} for split, item in sources.items()},
        "findings": [item.model_dump(mode="json") for item in findings],
    }
    text = json.dumps(document, ensure_ascii=False, indent=1)
    (draft / "validation.json").write_text(text, encoding="utf-8")
    return findings


def suite_parameters(recipe: Recipe, split: Split) -> dict[str, Any]:
    """What a suite may ask for as `{"$PARAMETER": name}`."""
    parameters: dict[str, Any] = {
        "min_rows": recipe.data.min_train_rows if split == "train" else recipe.data.min_test_rows,
        "labels": list(label_values(recipe)),
    }
    if recipe.score_range is not None:
        parameters |= dict(zip(("score_low", "score_high"), recipe.score_range, strict=True))
    return parameters


def _refusal(job: Job, fields: Mapping[str, Any], draft: Path, sentences: list[str]) -> DataError:
    """Publish what was found, for the operator to open, and say where."""
    key = make_key("rejected-data", VERSION, fields, {})
    rejected = job.store.publish(
        draft,
        "rejected-data",
        job.recipe.name,
        key,
        run=job.run,
        inputs={},
        fields=dict(fields),
        figures={"reasons": sentences},
    )
    return DataError("\n".join([*sentences, f"Every rule and the failing rows: {rejected.uri}/docs/index.html"]))


def _sentence(recipe: Recipe, sources: Mapping[Split, Source], finding: Finding) -> str:
    """File, rows and rule of a rule that did not hold."""
    source = sources[finding.split]
    given = ", ".join(f"{name} {json.dumps(value, ensure_ascii=False)}" for name, value in finding.given.items())
    rule = f'the rule "{finding.rule}"' + (f" ({given})" if given else "")
    if finding.bad_rows is None:
        return f"{source.path}: the whole file (rows: {finding.rows:,}) breaks {rule}: found {finding.found}"
    by_row = source.table.set_index("row")
    places = [_place(recipe, by_row, row, finding.columns) for row in finding.examples]
    broken = f"{finding.bad_rows:,} of {finding.rows:,} rows {'breaks' if finding.bad_rows == 1 else 'break'} {rule}"
    return f"{source.path}: {broken}: {some_of(places, finding.bad_rows)}"


def _place(recipe: Recipe, by_row: pd.DataFrame, row: int, columns: list[str]) -> str:
    record = by_row.loc[row]
    shown = [f"id {record['id']}"]
    if "label" in columns or "label_number" in columns:
        shown.append("no label" if pd.isna(record["label"]) else f"label {record['label']}")
    return f"{row_unit(recipe)} {row} ({', '.join(shown)})"


def _page(job: Job, sources: Mapping[Split, Source], findings: list[Finding]) -> Page:
    recipe = job.recipe
    names = {"train": recipe.data.train, "test": recipe.data.test}
    texts = text_columns(recipe)
    tables = {split: source.table.set_index("row") for split, source in sources.items()}

    def shown(finding: Finding) -> PageFinding:
        records = [(row, tables[finding.split].loc[row]) for row in finding.examples]
        examples = [
            Example(row, _shown(record["id"]), [_shown(record[name]) for name in texts], _shown(record["label"]))
            for row, record in records
        ]
        return PageFinding(finding, names[finding.split], examples)

    return Page(
        title=recipe.title,
        recipe=recipe.name,
        run=job.run,
        sample=recipe.sample,
        unit=row_unit(recipe),
        texts=list(recipe.data.texts),
        files=[PageFile(split, names[split], len(item.table), item.digest) for split, item in sources.items()],
        findings=[shown(finding) for finding in findings],
    )


def _shown(value: Any) -> str:
    return "(none)" if pd.isna(value) else str(value)
