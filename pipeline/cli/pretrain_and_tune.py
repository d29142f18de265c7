"""Commands that train apart from runs: pretraining and the search for hyperparameters."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli import options as opt
from pipeline.cli.console import say, session


def add_to(app: typer.Typer) -> None:
    """Register the commands with `app`."""
    app.command(rich_help_panel="Pretraining")(pretrain)
    app.command(rich_help_panel="Hyperparameter search")(tune)


def pretrain(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE...", exists=True, dir_okay=False, help="Raw text files, one text per line; .gz files too."
        ),
    ],
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="Output directory. An interrupted run in it is resumed.")
    ],
    encoder: Annotated[
        str, typer.Option(help="Encoder configuration: mini, or a TOML file in the same format.")
    ] = "mini",
    start: Annotated[
        Path | None,
        typer.Option(metavar="DIR", exists=True, file_okay=False, help="Pretrained encoder to continue from."),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Number of steps. Default: the encoder configuration's.")
    ] = None,
    save_steps: Annotated[int, typer.Option(min=1, help="Steps between checkpoints.")] = 500,
    as_json: opt.Json = False,
) -> None:
    """Pretrain a vocabulary and an encoder on raw texts; use DIR/encoder as `--base-model`."""
    with session(as_json=as_json) as current:
        from pipeline.pretraining.spec import load_encoder

        # Before the imports that take seconds, so that a mistake is reported at once.
        spec = load_encoder(encoder, steps=steps)
        from pipeline.pretraining.pretrain import pretrain as train_encoder

        directory = out.expanduser().resolve()
        document = train_encoder(
            spec, files, directory, start=start, threads=current.settings.threads, save_steps=save_steps
        )
        if as_json:
            current.document(document)
            return
        current.line(f"{document['encoder']}: {document['parameters']:,} parameters, {document['steps']:,} steps")
        current.line(f"to fine-tune it: saebyeok run nsmc --base-model {document['encoder']}")


Trials = Annotated[int, typer.Option(min=1, help="Total number of trials, including finished ones from earlier runs.")]


def tune(
    recipe: opt.RecipeArgument,
    trials: Trials = 20,
    fields: Annotated[
        list[str] | None,
        typer.Option(
            "--search",
            metavar="KEY=LOW..HIGH|A,B",
            help="Field to search instead of the defaults: train.learning_rate=1e-4..1e-3, train.epochs=1,2,3.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            dir_okay=False,
            help="File for the best values, for `--overrides`. Default: below SAEBYEOK_HOME.",
        ),
    ] = None,
    profile: opt.Profile = None,
    data: opt.Data = None,
    store: opt.StoreUri = None,
    run_id: opt.RunId = None,
    date: opt.Date = None,
    sets: opt.Sets = None,
    overrides: opt.Overrides = None,
    as_json: opt.Json = False,
) -> None:
    """Search for better hyperparameters on the validation split. Rerun the command to resume an interrupted search.

    The first trial uses the recipe unchanged. Without --search, the search varies learning rate, epochs, batch size,
    warm-up, weight decay and, for a pretrained base model, layer decay around the recipe's values.
    """
    with session(as_json=as_json, data=data) as current:
        from pipeline.tuning.space import open_search

        chosen = opt.overrides(sets, overrides)
        job = opt.open_job_of(
            current.settings,
            recipe,
            profile=profile,
            overrides=chosen,
            run=run_id,
            store=store,
            cutoff=date.date() if date else None,
        )
        # Before the imports that take seconds, so that a mistake is reported at once.
        search = open_search(job, chosen, fields or [])
        for key, field in search.space.items():
            say(f"searching {key}: {field} (recipe: {search.own[key]})")
        from pipeline.cli.output import print_tuned
        from pipeline.tuning.search import tune as tune_recipe

        document = tune_recipe(search, trials, out.expanduser().resolve() if out else None, say)
        if as_json:
            current.document(document)
        else:
            print_tuned(current, document)
