"""The data that a model has seen, which determines on which rows two models can be compared."""

from __future__ import annotations

from pipeline.errors import ArtifactError, PrunedError
from pipeline.store.artifacts import Artifact
from pipeline.store.figures import SeenData, TrainingFigures, ValidationFigures


def seen_by(trained: Artifact) -> SeenData:
    """Return the data that a model has seen: recorded with its training or, by older versions, with its inputs.

    Raises ArtifactError if an input is needed and cannot be read.
    """
    recorded = TrainingFigures.read(trained).seen
    if recorded is not None:
        return recorded
    return seen_in_training(trained.input("tokenized"), _start_of(trained))


def seen_in_training(tokenized: Artifact, start: SeenData | None) -> SeenData:
    """Return the data that a training on `tokenized` sees; `start` is that of the model that it starts from."""
    share = tokenized.manifest.fields.get("gate_share")
    if share is None:
        raise ArtifactError(
            f"{tokenized.uri}: its manifest has no gate_share, so its gate rows are unknown; run tokenize with --force"
        )
    newest = ValidationFigures.read(tokenized.input("validated")).cutoff
    if start is None:
        return SeenData(held_out=share, newest=newest)
    dates = [date for date in (newest, start.newest) if date is not None]
    return SeenData(held_out=min(share, start.held_out), newest=max(dates, default=None))


def _start_of(trained: Artifact) -> SeenData | None:
    if trained.input_ref("start") is None:
        return None
    try:
        return seen_by(trained.input("start"))
    except PrunedError:
        # The share is not known any more, so no row counts as held out.
        return SeenData(held_out=0.0, newest=None)
