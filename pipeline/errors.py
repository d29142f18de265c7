"""What can go wrong: each error says what, where and what to do, and whether a retry can help."""

from __future__ import annotations

#: Exit codes: what failed on purpose, what was asked for wrongly (as the shell's own tools), a gate that refused.
FAILED, USAGE, REFUSED, INTERRUPTED = 1, 2, 3, 130


class SaebyeokError(Exception):
    """Base of every error that Saebyeok raises on purpose; its text is fit for a user to read."""

    #: Whether the same call may succeed later with nothing changed. Airflow retries only those.
    retryable = False


class RecipeError(SaebyeokError):
    """A recipe (or an override of one) is not valid: the text names file, key and what is allowed."""


class SettingsError(SaebyeokError):
    """A setting is missing or not valid: the text names the variable and what is allowed."""


class DataError(SaebyeokError):
    """A data file is absent, unreadable or breaks a rule: the text names file, rows and rule."""


class RejectedDataError(DataError):
    """Data broke rules; what was found is the artifact at `ref`, made by the first run that they stopped."""

    def __init__(self, text: str, ref: str = "", run: str = "") -> None:
        """`text` is for a user, `run` the identifier of that run."""
        super().__init__(text)
        self.ref = ref
        self.run = run


class DownloadError(DataError):
    """A published file could not be had from where it is published."""

    retryable = True


class ArtifactError(SaebyeokError):
    """An artifact is absent, incomplete or not what its manifest says."""


class PrunedError(ArtifactError):
    """An artifact was deleted on purpose: no deployment that is kept needed it."""


class StoreError(SaebyeokError):
    """The store could not be reached or written: disk full, bucket away."""

    retryable = True


class BaseModelError(SaebyeokError):
    """The base model cannot be loaded as named."""


class HubUnreachableError(BaseModelError):
    """The base model is on the hub and the hub did not answer."""

    retryable = True


class TrainingDivergedError(SaebyeokError):
    """The loss became NaN or infinite: the same data and settings would diverge again."""


class TerminatedError(SaebyeokError):
    """Training was stopped from outside after a checkpoint was written; the same again goes on from it."""

    retryable = True


class ProcessError(SaebyeokError):
    """One of the processes that train a model together died; the same again goes on from the newest checkpoint."""

    retryable = True


class BadInputError(SaebyeokError):
    """One of several inputs is none that a model could read: `index` says which, counted from 0."""

    def __init__(self, text: str, index: int = 0) -> None:
        """`text` says what is wrong with it."""
        super().__init__(text)
        self.index = index


class BrokenModelError(SaebyeokError):
    """A trained model answers with what is no number."""


class ParityError(SaebyeokError):
    """The exported model differs from the trained one by more than the recipe allows."""


class LatencyError(SaebyeokError):
    """The exported model is slower than the recipe's latency budget."""

    retryable = True


class ConflictError(SaebyeokError):
    """Another run got there first: the record exists, or the champion has changed since."""


class RefusedError(SaebyeokError):
    """What was asked is not allowed as things stand: a gate said no, or the service refused the request."""


class ServiceError(SaebyeokError):
    """The service did not answer, or not as it must."""

    retryable = True


class GoldenMismatchError(SaebyeokError):
    """A staged or live release answered a golden sentence differently from its card."""


class TrackingError(SaebyeokError):
    """Weights & Biases did not answer, refused, or did not take all of what it was sent."""

    retryable = True


class StackError(SaebyeokError):
    """The local stack could not be started, stopped or asked."""
