"""The command line: run single stages or the whole pipeline without Airflow, and query the served models."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.cli import arrivals, machine, pretrain_and_tune, recipes, served
from pipeline.cli import options as opt
from pipeline.cli.console import Session, claim_stdout, log_to_stderr, say, session, usage_error
from pipeline.errors import FAILED, REFUSED, USAGE
from pipeline.progress import progress

if TYPE_CHECKING:
    from serving.engine.engine import Engine

# Libraries take seconds to import. Each command imports only the ones it needs, so that `--help` stays quick.

WHOLE, STAGE = "The whole pipeline", "Single stages"

app = typer.Typer(
    name="saebyeok",
    help="Retrain Korean BERT models and serve them.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """Run the command line. A usage error prints one line on standard error, and a document with `--json`."""
    try:
        code = app(standalone_mode=False)
    except typer.TyperException as error:
        if not error.format_message():  # no arguments: typer has already printed the help
            sys.exit(USAGE)
        sys.exit(usage_error(error, claim_stdout(), "--json" in sys.argv))
    except typer.Abort:
        sys.exit(FAILED)
    sys.exit(code if isinstance(code, int) else 0)


def _show_version(value: bool) -> None:
    if value:
        from pipeline.store.manifest import code_version

        typer.echo(f"saebyeok {code_version()}")
        raise typer.Exit


@app.callback()
def root(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log more to standard error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Retrain Korean BERT models and serve them."""
    log_to_stderr(verbose=verbose)


@app.command(rich_help_panel=WHOLE)
def run(
    recipe: opt.RecipeArgument,
    profile: opt.Profile = None,
    data: opt.Data = None,
    store: opt.StoreUri = None,
    force: opt.Force = False,
    run_id: opt.RunId = None,
    date: opt.Date = None,
    base_model: opt.BaseModel = None,
    epochs: opt.Epochs = None,
    learning_rate: opt.LearningRate = None,
    batch_size: opt.BatchSize = None,
    max_length: opt.MaxLength = None,
    seed: opt.Seed = None,
    sets: opt.Sets = None,
    overrides: opt.Overrides = None,
    deploy: Annotated[bool, typer.Option("--deploy/--no-deploy", help="Deploy the release if the gates pass.")] = True,
    as_json: opt.Json = False,
) -> None:
    """Run all stages: validate, tokenize, train, evaluate, decide, export, deploy. Exit code 3: a gate refused."""
    with session(as_json=as_json, data=data) as current:
        from pipeline.cli.output import print_run, run_document
        from pipeline.cli.run import run_all

        chosen = opt.overrides(
            sets,
            overrides,
            base_model=base_model,
            epochs=epochs,
            learning_rate=learning_rate,
            batch_size=batch_size,
            max_length=max_length,
            seed=seed,
        )
        job = opt.open_job_of(
            current.settings,
            recipe,
            profile=profile,
            overrides=chosen,
            run=run_id,
            force=force,
            store=store,
            cutoff=date.date() if date else None,
        )
        outcome = run_all(job, with_deploy=deploy)
        if as_json:
            current.document(run_document(outcome))
        else:
            print_run(current, outcome)
        if "release" not in outcome.made:
            raise typer.Exit(REFUSED)


def _stage_command(name: str) -> Callable[..., None]:
    def command(
        recipe: opt.RecipeArgument,
        profile: opt.Profile = None,
        data: opt.Data = None,
        store: opt.StoreUri = None,
        force: opt.Force = False,
        run_id: opt.RunId = None,
        date: opt.Date = None,
        inputs: opt.InputRefs = None,
        sets: opt.Sets = None,
        overrides: opt.Overrides = None,
        as_json: opt.Json = False,
    ) -> None:
        with session(as_json=as_json, data=data) as current:
            job = opt.open_job_of(
                current.settings,
                recipe,
                profile=profile,
                overrides=opt.overrides(sets, overrides),
                run=run_id,
                force=force,
                store=store,
                cutoff=date.date() if date else None,
            )
            _one_stage(current, name, job, inputs or [])

    return command


def _one_stage(current: Session, name: str, job: Any, refs: list[str]) -> None:
    from pipeline.cli.output import print_stage
    from pipeline.cli.run import run_one

    document = run_one(job, name, refs)
    if current.as_json:
        current.document(document)
    else:
        print_stage(current, document)
    if document.get("promoted") is False:
        raise typer.Exit(REFUSED)


def _add_stages(**helps: str) -> None:
    for name, text in helps.items():
        app.command(name, help=text, rich_help_panel=STAGE)(_stage_command(name))


_add_stages(
    validate="Check the data files against the recipe's expectations, and store them with their data docs.",
    tokenize="Split and tokenize the validated data.",
    train="Fine-tune the base model on the tokenized data.",
)


@app.command(rich_help_panel=STAGE)
def evaluate(
    recipe: opt.RecipeArgument,
    file: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            help="A labelled file in the recipe's format, to evaluate the deployed release on.",
        ),
    ] = None,
    release: opt.Release = None,
    profile: opt.Profile = None,
    data: opt.Data = None,
    store: opt.StoreUri = None,
    force: opt.Force = False,
    run_id: opt.RunId = None,
    inputs: opt.InputRefs = None,
    sets: opt.Sets = None,
    overrides: opt.Overrides = None,
    as_json: opt.Json = False,
) -> None:
    """Evaluate the trained model on the test file, or with --file the deployed release on any labelled file."""
    if file is None:
        if release:
            raise typer.BadParameter(
                "needs --file; without it the stage evaluates a trained model (--input)", param_hint="--release"
            )
        stage = _stage_command("evaluate")
        given: dict[str, Any] = {"inputs": inputs, "sets": sets, "overrides": overrides}
        stage(recipe, profile, data, store, force, run_id, **given, as_json=as_json)
        return
    with session(as_json=as_json, data=data) as current:
        from pipeline.cli.output import print_metrics
        from pipeline.cli.predict import evaluate_file

        job = opt.open_job_of(
            current.settings, recipe, profile=profile, overrides=opt.overrides(sets, overrides), run=run_id, store=store
        )
        engine = _open_engine(current, job, release)
        document = evaluate_file(engine, job.recipe, file)
        if as_json:
            current.document(document)
        else:
            print_metrics(current, document)


_add_stages(
    decide="Check the evaluation against the thresholds and the champion, and write the report.",
    export="Export the trained model to ONNX files, check parity and latency, and create a release.",
    deploy="Deploy an approved release.",
)


def _open_engine(current: Session, job: Any, ref: str | None) -> Engine:
    from pipeline.cli.predict import champion
    from serving.engine.engine import EngineOptions
    from serving.engine.variants import open_fastest

    # Uses the service's own engine, so that the evaluated model is exactly the served one.
    return open_fastest(champion(job.store, job.recipe.name, ref).path, EngineOptions.from_settings(current.settings))


@app.command(rich_help_panel=served.PANEL)
def predict(
    recipe: opt.RecipeArgument,
    file: Annotated[
        str, typer.Argument(metavar="[FILE]", help="File with one text per line; - reads standard input.")
    ] = "-",
    release: opt.Release = None,
    store: opt.StoreUri = None,
) -> None:
    """Predict with the deployed release: read one text per line and print one JSON document per line.

    Write a pair as two texts with a tab between them, or as ["a", "b"]. Files of any size are processed as they are
    read. For an invalid line the output document has `line` and `error`, the error is also printed on standard error,
    and the exit code is 1 after the last line. A line has at most 65,536 bytes.
    """
    with session() as current:
        from pipeline.cli.predict import INPUTS_PER_CALL, open_lines, predict_lines, read_lines

        job = opt.open_job_of(current.settings, recipe, store=store)
        with open_lines(file) as stream:
            engine = _open_engine(current, job, release)
            # A user who types expects an answer after each line.
            chunk = 1 if stream.isatty() else INPUTS_PER_CALL
            bad = 0
            # On a terminal the answers themselves show the progress.
            with progress("answering", bar=not current.stdout.isatty()) as advance:
                for document in predict_lines(engine, read_lines(stream), chunk):
                    if "error" in document:
                        bad += 1
                        say(f"error: {file} line {document['line']}: {document['error']}")
                    current.write(document)
                    advance(1)
        if bad:
            raise typer.Exit(FAILED)


recipes.add_to(app)
app.add_typer(arrivals.app, name="arrivals", rich_help_panel="Daily arrivals")
for commands in (served, pretrain_and_tune, machine):
    commands.add_to(app)
