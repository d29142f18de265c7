"""Saebyeok's errors. Each message says what happened, where and what to do; the class says whether a retry can help."""

from __future__ import annotations

#: Exit codes: an expected failure, a usage error (2, as in shell tools), a refusal by a gate, Ctrl-C (128 + SIGINT).
FAILED, USAGE, REFUSED, INTERRUPTED = 1, 2, 3, 130


class SaebyeokError(Exception):
    """Base of every error that Saebyeok raises on purpose; its message is written for users."""

    #: Whether the same call may succeed later without any change. Airflow retries only these errors.
    retryable = False


class RecipeError(SaebyeokError):
    """A recipe or an override is invalid. The message names file, key and allowed values."""


class SettingsError(SaebyeokError):
    """A setting is missing or invalid. The message names the variable and the allowed values."""


class DataError(SaebyeokError):
    """A data file is absent, unreadable or breaks a rule. The message names file, rows and rule."""


class AbsentDataError(DataError):
    """The data directory has no file of a recipe, but all files of another one."""


class RejectedDataError(DataError):
    """The data gate rejected the data. The artifact at `ref` has the findings, from the first run that it stopped."""

    def __init__(self, text: str, ref: str = "", run: str = "") -> None:
        """Create the error with its message `text` for users, and the id of that first run, `run`."""
        super().__init__(text)
        self.ref = ref
        self.run = run


class DownloadError(DataError):
    """A published file could not be downloaded."""

    retryable = True


class ArtifactError(SaebyeokError):
    """An artifact is absent, incomplete or does not match its manifest."""


class NewerFormatError(ArtifactError):
    """A newer version of Saebyeok wrote the record. The message names the record and both formats."""


class PrunedError(ArtifactError):
    """An artifact was deleted by retention, because no retained deployment needed it."""


class StoreError(SaebyeokError):
    """The store could not be reached or written, for example because the disk is full."""

    retryable = True


class BaseModelError(SaebyeokError):
    """The base model cannot be loaded by its name."""


class HubUnreachableError(BaseModelError):
    """The hub that has the base model did not answer."""

    retryable = True


class TrainingDivergedError(SaebyeokError):
    """The training diverged (NaN or infinite loss). The same data and settings would diverge again."""


class TerminatedError(SaebyeokError):
    """Training was stopped from outside after writing a checkpoint; a rerun resumes from it."""

    retryable = True


class ProcessError(SaebyeokError):
    """A process of a distributed training died; a rerun resumes from the newest checkpoint."""

    retryable = True


class GpuError(SaebyeokError):
    """The GPU has too little free memory, or another process uses it exclusively."""

    retryable = True


class BadInputError(SaebyeokError):
    """The model cannot read one of several inputs; `index` is its position, counted from 0."""

    def __init__(self, text: str, index: int = 0) -> None:
        """Create the error; `text` says why the input is invalid."""
        super().__init__(text)
        self.index = index


class BrokenModelError(SaebyeokError):
    """A trained model outputs NaN or infinity."""


class ParityError(SaebyeokError):
    """The exported model differs from the trained one by more than the recipe allows."""


class LatencyError(SaebyeokError):
    """The exported model is slower than the recipe's latency budget."""

    retryable = True


class ConflictError(SaebyeokError):
    """Another run was faster: the record exists already, or the champion has changed in the meantime."""


class RefusedError(SaebyeokError):
    """A gate refused the model, or the service refused the request."""


class ServiceError(SaebyeokError):
    """The service did not answer, or gave an invalid answer."""

    retryable = True


class GoldenMismatchError(SaebyeokError):
    """A staged or live release gave an answer to a golden sentence that differs from its card."""


class PublishError(SaebyeokError):
    """A model could not be published; the message names the directory or the repository."""


class TrackingError(SaebyeokError):
    """Weights & Biases did not answer, refused the request, or did not store all of the upload."""

    retryable = True


class StackError(SaebyeokError):
    """The local stack could not be started, stopped or queried."""
