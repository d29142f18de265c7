"""The command line as a user meets it: its two streams and its exit code."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import typer

from pipeline.cli.app import app
from pipeline.cli.console import exit_code
from pipeline.cli.options import overrides
from pipeline.config_file import ROOT
from pipeline.errors import FAILED, REFUSED, USAGE, ArtifactError, ParityError, RecipeError, StoreError
from pipeline.job import Job
from pipeline.recipes.loading import load_recipe, recipe_names
from pipeline.settings import Settings
from pipeline.stages.stage import DEPLOY_INPUTS, EVALUATE, EXPORT, STAGES, TRAIN, find_inputs
from pipeline.store.artifacts import Artifact, Store
from pipeline.store.deployments import DeploymentLog
from pipeline.store.releases import read_card
from pipeline.store.verdicts import model_of
from tests.support.cli import run_here
from tests.support.log_levels import NAMES, log_levels_kept
from tests.support.tiny_releases import TinyModel, make_artifact, make_decision

COMMANDS = ["run", *(stage.name for stage in STAGES), "deploy", "predict", "releases", "rollback"]
COMMANDS += ["hold", "release", "approve", "reject", "new", "recipes", "check", "propose-floors"]
COMMANDS += ["pretrain", "tune", "doctor", "prune", "runs", "report", "publish", "sample", "sync", "test-alert"]
COMMANDS += ["up", "down", "status"]


@dataclass(frozen=True)
class Finished:
    """A finished command."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """Return standard output, which must be exactly one JSON document."""
        return json.loads(self.out)


Saebyeok = Callable[..., Finished]


@pytest.fixture
def saebyeok(settings: Settings) -> Saebyeok:
    """Return `saebyeok("run", "nsmc", stdin=b"", SAEBYEOK_DATA="...")`: the command line, in the test's own home.

    It runs in this process, because Python takes half a second to start and to import the command line.
    """

    def call(*arguments: str, stdin: bytes = b"", **environment: str) -> Finished:
        done = run_here(arguments, {**os.environ, **environment}, stdin)
        return Finished(done.returncode, done.stdout, done.stderr)

    return call


@pytest.fixture
def saebyeok_process(settings: Settings) -> Saebyeok:
    """Return the same in a process of its own."""

    def call(*arguments: str, stdin: bytes = b"", **environment: str) -> Finished:
        result = subprocess.run(
            [sys.executable, "-m", "pipeline.cli", *arguments],
            cwd=ROOT,
            env={**os.environ, **environment},
            input=stdin,
            capture_output=True,
            timeout=600,
        )
        return Finished(result.returncode, result.stdout.decode(), result.stderr.decode())

    return call


def python(code: str) -> Finished:
    """Run a script in a separate process."""
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    return Finished(result.returncode, result.stdout, result.stderr)


def test_help_names_every_command(saebyeok: Saebyeok) -> None:
    result = saebyeok("--help")
    assert result.code == 0
    names = {line.split()[1] for line in result.out.splitlines() if line.startswith("│ ") and line[2] != " "}
    assert set(COMMANDS) <= names


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str, saebyeok: Saebyeok) -> None:
    result = saebyeok(command, "--help")
    assert result.code == 0
    assert f"saebyeok {command}" in result.out


def test_help_imports_nothing_heavy() -> None:
    heavy = ["torch", "transformers", "great_expectations", "wandb", "onnxruntime", "bentoml", "pandas", "airflow"]
    heavy += ["optuna"]
    result = python(f"import sys, pipeline.cli; print(sorted(set({heavy}) & set(sys.modules)))")
    assert result.out.strip() == "[]"


def test_version(saebyeok: Saebyeok) -> None:
    assert saebyeok("--version").out.startswith("saebyeok 0.")


def test_an_unknown_recipe_is_one_line(saebyeok: Saebyeok) -> None:
    result = saebyeok("run", "imdb")
    assert (result.code, result.out) == (USAGE, "")
    assert result.err == f"error: no recipe 'imdb'; the recipes are: {', '.join(recipe_names())}\n"


@pytest.mark.parametrize(
    ("arguments", "kind", "says"),
    [
        (["run", "imdb"], "RecipeError", "no recipe 'imdb'"),
        (["run", "nsmc", "--epochs", "0"], "RecipeError", "train.epochs"),
        (["run", "nsmc", "--set", "train.speed=9"], "RecipeError", "unknown key `train.speed`"),
        (["run", "nsmc", "--profile", "huge"], "RecipeError", "no profile 'huge'"),
        (["run", "nsmc", "--epochs", "many"], "UsageError", "--epochs"),
        (["run", "nsmc", "--set", "epochs"], "UsageError", "not KEY=VALUE"),
        (["run"], "UsageError", "RECIPE"),
        (["evaluate", "nsmc", "--file", "/nowhere.txt"], "UsageError", "/nowhere.txt"),
        (["evaluate", "nsmc", "--release", "release/nsmc/a/b"], "UsageError", "--file"),
    ],
)
def test_usage_error_is_one_line_or_json_document(
    arguments: list[str], kind: str, says: str, saebyeok: Saebyeok
) -> None:
    result = saebyeok(*arguments, "--json")
    assert result.code == USAGE
    assert result.document["error"]["type"] == kind
    assert says in result.document["error"]["message"]
    assert result.err.startswith("error: ")
    assert result.err.count("\n") == 1
    assert "Traceback" not in result.err


def test_a_bad_setting_names_its_variable(saebyeok: Saebyeok) -> None:
    result = saebyeok("releases", SAEBYEOK_THREADS="some")
    assert result.code == USAGE
    assert result.err.startswith("error: SAEBYEOK_THREADS: ")


def test_data_that_are_not_there_are_named(saebyeok: Saebyeok, tmp_path: Path) -> None:
    result = saebyeok("validate", "nsmc", "--data", str(tmp_path / "nowhere"), "--json")
    assert result.code == FAILED
    assert str(tmp_path / "nowhere") in result.document["error"]["message"]
    assert "Traceback" not in result.err


NOISY = """
import os, subprocess, sys
from pipeline.cli.console import session
print("before the command, as C code would: nothing is promised yet", file=sys.stderr)
with session(as_json=True) as current:
    print("a library prints")
    sys.stdout.write("another writes\\n")
    os.write(1, b"C code writes\\n")
    subprocess.run(["echo", "a child writes"])
    {then}
print("and one at the end")
"""


def test_stdout_holds_the_document_and_nothing_else() -> None:
    result = python(NOISY.format(then='current.document({"answer": "예"})'))
    assert result.code == 0, result.err
    assert result.out == '{"answer": "예"}\n'
    for noise in ("a library prints", "another writes", "C code writes", "a child writes", "and one at the end"):
        assert noise in result.err


def test_unexpected_error_prints_document_and_traceback() -> None:
    result = python(NOISY.format(then="1 / 0"))
    assert result.code == 1
    assert result.document["error"]["type"] == "ZeroDivisionError"
    assert "Traceback" in result.err


def test_a_reader_that_leaves_early_is_no_error() -> None:
    code = """
import sys, typer
from pipeline.cli.console import session
try:
    with session() as current:
        for number in range(100_000):
            current.write({"line": number})
except typer.Exit as end:
    sys.exit(end.exit_code)
"""
    writer = f"{sys.executable} -c '{code}'"
    result = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {writer} | head -n 2"], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == '{"line": 0}\n{"line": 1}\n'


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (RecipeError("x"), USAGE),
        (ParityError("x"), REFUSED),
        (ArtifactError("x"), FAILED),
        (StoreError("x"), FAILED),
    ],
)
def test_exit_codes(error: Any, code: int) -> None:
    assert exit_code(error) == code


def test_override_values_are_toml_or_text() -> None:
    chosen = overrides(
        ["train.warmup=0.1", "train.seed = 3", "model.base=klue/bert-base", "labels=['a', 'b']", "title=1\nx=2"],
        epochs=2,
        seed=None,
    )
    assert chosen == {
        "train.warmup": 0.1,
        "train.seed": 3,
        "model.base": "klue/bert-base",
        "labels": ["a", "b"],
        "title": "1\nx=2",
        "epochs": 2,
    }
    with pytest.raises(typer.BadParameter, match="not KEY=VALUE"):
        overrides(["=3"])


def test_stage_without_input_names_the_earlier_stage(saebyeok: Saebyeok) -> None:
    result = saebyeok("tokenize", "nsmc")
    assert result.code == FAILED
    assert result.err.startswith("error: ")
    assert "run `saebyeok validate nsmc` first" in result.err


def test_releases_before_and_after_a_deployment(saebyeok: Saebyeok, store: Store) -> None:
    assert saebyeok("releases", "--json").document == {"live": None, "rollback": None, "deployments": []}
    records = DeploymentLog(store)
    records.append({"nsmc": "release/nsmc/a/1"}, after=0, run="r1", reason="first")
    records.append({"nsmc": "release/nsmc/b/1"}, after=1, run="r2", reason="second")
    document = saebyeok("releases", "--json").document
    assert document["live"] == 2
    assert [item["number"] for item in document["deployments"]] == [2, 1]
    lines = saebyeok("releases").out.splitlines()
    assert [line for line in lines if " live " in line] == [lines[0]]
    assert "second" in lines[0]
    # Its release is not in the store, so it cannot be served again.
    assert (document["rollback"], document["deployments"][1]["deleted"]) == (1, ["nsmc"])
    assert lines[3].split()[:2] == ["1", "deleted"]
    assert "nsmc: release/nsmc/a/1 (deleted)" in lines[4]


def test_releases_have_one_name_in_api_and_commands(saebyeok: Saebyeok, store: Store, light: TinyModel) -> None:
    records, releases = DeploymentLog(store), []
    for number in (1, 2, 3):
        releases.append(light.publish(store, "nsmc", key=f"{number}" * 16))
        records.append({"nsmc": releases[-1].ref}, after=number - 1, run="r", reason="test")
    document = saebyeok("releases", "--json").document
    ids = [read_card(release).id for release in reversed(releases)]
    assert [item["ids"] for item in document["deployments"]] == [{"nsmc": name} for name in ids]
    assert (document["rollback"], document["deployments"][0]["deleted"]) == (2, [])
    shown = saebyeok("releases").out
    assert [line.split()[1] for line in shown.splitlines()[0:6:3]] == ["live", "back"]
    assert f"nsmc: {ids[0]}" in shown
    assert "release/" not in shown
    # A command takes the same name.
    assert saebyeok("reject", "nsmc", "--why", "w", "--model", ids[2]).out == f"rejected {model_of(releases[0]).ref}\n"
    missing = saebyeok("predict", "nsmc", "--release", "nsmc-none")
    assert (missing.code, "has no release nsmc-none" in missing.err) == (FAILED, True)


def test_runs_of_an_empty_store(saebyeok: Saebyeok) -> None:
    assert saebyeok("runs", "--json").document == {"runs": []}
    assert "no run has come to a decision yet" in saebyeok("runs", "nsmc").out
    assert saebyeok("runs", "--count", "0").code == USAGE


def test_report_is_that_of_the_newest_run(saebyeok: Saebyeok, store: Store, tmp_path: Path) -> None:
    missing = saebyeok("report", "nsmc")
    assert (missing.code, missing.err) == (FAILED, "error: no run of nsmc has come to a decision yet\n")
    release = make_artifact(store, "release", "nsmc", {})
    decided = make_decision(store, release, None)
    page = f"{decided.uri}/report.html"
    assert saebyeok("report").out == f"{page}\n"
    assert saebyeok("report", "nsmc", "--json").document["page"] == page


@pytest.mark.parametrize("code", [0, 4])
def test_report_is_opened_in_the_browser(saebyeok_process: Saebyeok, store: Store, tmp_path: Path, code: int) -> None:
    decided = make_decision(store, make_artifact(store, "release", "nsmc", {}), None)
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\nprintf %s "$1" > {tmp_path}/opened\nexit {code}\n', encoding="utf-8")
    browser.chmod(0o755)
    # No other browser is found.
    result = saebyeok_process("report", "--open", BROWSER=f"{browser} %s", DISPLAY="", TERM="", PATH="")
    page = f"{decided.uri}/report.html"
    assert (tmp_path / "opened").read_text(encoding="utf-8") == f"file://{page}"
    assert (result.code, result.out) == (FAILED if code else 0, f"{page}\n")
    assert ("no browser of this machine opens" in result.err) is bool(code)


def test_shell_completes_commands_and_options() -> None:
    for words, count, completed in (("saebyeok pub", 1, "publish"), ("saebyeok publish --rel", 2, "--release")):
        variables = {"_SAEBYEOK_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(count)}
        command = [str(Path(sys.executable).with_name("saebyeok"))]
        found = subprocess.run(command, env=os.environ | variables, stdout=subprocess.PIPE, text=True)
        assert found.stdout.split() == [completed]


def test_rollback_of_nothing_is_refused(saebyeok: Saebyeok) -> None:
    result = saebyeok("rollback", "--json")
    assert result.code == REFUSED
    assert result.document["error"]["type"] == "RefusedError"


Publish = Callable[..., Artifact]


@pytest.fixture
def job(make_job: Callable[..., Job]) -> Job:
    return make_job(load_recipe("nsmc", "embedded", sample=True))


@pytest.fixture
def publish(store: Store) -> Publish:
    def make(kind: str, *inputs: Artifact, recipe: str = "nsmc") -> Artifact:
        with store.draft() as draft:
            (draft / "file").write_text(kind)
            named = {item.manifest.kind: {"ref": item.ref, "key": item.key} for item in inputs}
            return store.publish(draft, kind, recipe, "0" * 16, run="r", inputs=named, fields={}, figures={})

    return make


def test_inputs_are_the_newest_and_of_one_lineage(job: Job, publish: Publish) -> None:
    validated = publish("validate")
    tokenized = publish("tokenize", validated)
    trained = publish("train", tokenized)
    # Newer than the data of the newest model.
    newer = publish("tokenize", publish("validate"))
    assert [item.ref for item in find_inputs(job, EVALUATE.inputs)] == [validated.ref, tokenized.ref, trained.ref]
    assert [item.ref for item in find_inputs(job, TRAIN.inputs)] == [newer.ref]


def test_named_inputs_win(job: Job, publish: Publish) -> None:
    validated = publish("validate")
    tokenized = publish("tokenize", validated)
    trained = publish("train", tokenized)
    evaluated = publish("evaluate", validated, tokenized, trained)
    publish("evaluate", validated, tokenized, publish("train", tokenized))
    decided = publish("decide", evaluated)
    publish("decide", publish("evaluate", validated, tokenized, trained))
    found = find_inputs(job, EXPORT.inputs, [decided.ref])
    assert [item.ref for item in found] == [validated.ref, trained.ref, evaluated.ref, decided.ref]


def test_compared_champion_is_not_the_decided_release(job: Job, publish: Publish) -> None:
    evaluated = publish("evaluate")
    champion = publish("release", evaluated)
    release = publish("release", publish("evaluate"))
    with job.store.draft() as draft:
        (draft / "decision.json").write_text("{}")
        held = {
            "evaluated": {"ref": evaluated.ref, "key": "k"},
            "champion": {"ref": champion.ref, "key": "k", "role": "compared_with"},
        }
        decided = job.store.publish(draft, "decide", "nsmc", "0" * 16, run="r", inputs=held, fields={}, figures={})
    assert [item.ref for item in find_inputs(job, DEPLOY_INPUTS)] == [release.ref, decided.ref]


def test_an_input_that_does_not_fit_is_refused(job: Job, publish: Publish) -> None:
    with pytest.raises(ArtifactError, match="is a validate artifact; name one of: tokenize"):
        find_inputs(job, TRAIN.inputs, [publish("validate").ref])
    with pytest.raises(ArtifactError, match="belongs to recipe klue-sts; name an artifact of nsmc"):
        find_inputs(job, TRAIN.inputs, [publish("tokenize", recipe="klue-sts").ref])
    with pytest.raises(ArtifactError, match="no such artifact"):
        find_inputs(job, TRAIN.inputs, ["tokenize/nsmc/none/none"])


def test_the_app_is_what_the_entry_point_runs() -> None:
    assert sorted(
        command.name or command.callback.__name__.replace("_", "-") for command in app.registered_commands
    ) == sorted(COMMANDS)  # type: ignore[union-attr]


@pytest.fixture
def deployed(classifier: TinyModel, store: Store) -> Artifact:
    """Return a tiny classifier that is the champion of nsmc."""
    release = classifier.publish(store, "nsmc", key="a")
    DeploymentLog(store).append({"nsmc": release.ref}, after=0, run="r", reason="first")
    return release


def test_predict_reads_standard_input_and_writes_json_lines(saebyeok_process: Saebyeok, deployed: Artifact) -> None:
    result = saebyeok_process("predict", "nsmc", stdin="정말 좋은 영화\n\n지루했다\n".encode())
    assert result.code == FAILED
    documents = [json.loads(line) for line in result.out.splitlines()]
    assert [item.get("text", item.get("error")) for item in documents] == [
        "정말 좋은 영화",
        "the line is empty; write one input per line",
        "지루했다",
    ]
    assert result.err == "error: - line 2: the line is empty; write one input per line\n"


def test_predict_reads_file_with_named_release(saebyeok: Saebyeok, deployed: Artifact, tmp_path: Path) -> None:
    file = tmp_path / "reviews.txt"
    file.write_text("좋다\n나쁘다\n", encoding="utf-8")
    champion = saebyeok("predict", "nsmc", str(file))
    named = saebyeok("predict", "nsmc", str(file), "--release", deployed.ref)
    assert (champion.code, champion.err) == (0, "")
    assert champion.out == named.out
    assert len(champion.out.splitlines()) == 2


def test_predict_without_deployment_says_what_to_do(saebyeok: Saebyeok) -> None:
    result = saebyeok("predict", "nsmc", stdin="좋다\n".encode())
    assert (result.code, result.out) == (FAILED, "")
    assert "run `saebyeok run nsmc` first" in result.err


def test_log_levels_that_a_command_sets_are_put_back() -> None:
    levels = [logging.getLogger(name).level for name in NAMES]
    with log_levels_kept():
        for name in NAMES:
            logging.getLogger(name).setLevel(logging.CRITICAL)
    assert [logging.getLogger(name).level for name in NAMES] == levels
