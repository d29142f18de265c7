"""Base models: a shipped one, a hub id or a local directory, pinned to one revision from the first use on."""

from __future__ import annotations

import hashlib
import json
import logging
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import ArtifactError, BaseModelError, HubUnreachableError
from pipeline.recipes.schema import SCRATCH, Recipe
from pipeline.store.artifacts import Store
from pipeline.store.formats import Record
from pipeline.store.manifest import file_digest
from pipeline.texts import without_secrets

if TYPE_CHECKING:
    from huggingface_hub.errors import HfHubHTTPError

#: Contains one directory per shipped encoder.
SHIPPED = Path(__file__).parent
SHIPPED_NAME = re.compile(r"[a-z0-9-]+")
log = logging.getLogger(__name__)


#: Files to download of a base model: configuration, tokenizer and the weights in one format.
WEIGHTS = ("*.safetensors", "pytorch_model.bin")
PATTERNS = ("*.json", "*.txt", *WEIGHTS)
#: Model types whose exported graph can be fused. Checked early; otherwise export would fail after the training.
MODEL_TYPES = ("bert", "electra", "roberta")
#: Timeout in seconds when asking the hub for the newest revision.
REACH_TIMEOUT = 10.0


class BaseRecord(Record):
    """The revision at which a store uses a base model of the hub."""

    base: str
    revision: str


@dataclass(frozen=True)
class Base:
    """A base model at one revision: a hub commit, or the digest of a directory."""

    name: str
    revision: str

    @property
    def identity(self) -> dict[str, str]:
        """Return the fields that enter artifact keys."""
        return {"base": self.name, "revision": self.revision}

    def fetch(self, *, weights: bool = True) -> Path:
        """Return the local directory of the model, downloading a hub model first; optionally without `weights`.

        Raises BaseModelError if a local directory has changed since it was resolved or is gone, or if the hub no
        longer has the revision or refuses access; HubUnreachableError if the model is not cached and the hub does not
        answer.
        """
        directory = shipped(self.name) or Path(self.name)
        # `resolve_base` makes the name of a directory absolute; a hub id never is.
        if directory.is_absolute():
            if not directory.is_dir():
                raise BaseModelError(f"base model {self.name} is gone from this machine; restore it, or name another")
            if _directory_digest(directory) != self.revision:
                raise BaseModelError(f"base model {self.name} has changed since its texts were tokenized; run again")
            return directory
        from huggingface_hub import snapshot_download
        from huggingface_hub.utils.tqdm import disable_progress_bars

        if not sys.stderr.isatty():
            # Airflow logs the lines of a progress bar as errors.
            disable_progress_bars()
        patterns = [pattern for pattern in PATTERNS if weights or pattern not in WEIGHTS]
        try:
            return Path(snapshot_download(self.name, revision=self.revision, allow_patterns=patterns))
        except Exception as error:  # the client lets its transport's own errors through
            missing = (
                f"base model {self.name}: the hub no longer has revision {self.revision}, which this store recorded; "
                f"delete {_record(self.name)} from the store to take its newest one (a private model needs HF_TOKEN)"
            )
            raise _hub_error(self.name, error, missing) from error


def resolve_base(name: str, store: Store) -> Base:
    """Return the base model `name` at the revision recorded in `store`; if none is, record the newest one.

    If the hub does not answer, the newest revision in the local cache is used. Raises BaseModelError if there is no
    such model or the hub refuses access, HubUnreachableError if neither hub nor cache has one, and ArtifactError if the
    record is damaged or of a newer format.
    """
    if ours := shipped(name):
        # Use the name, because the path differs between machines.
        return Base(name, _directory_digest(ours))
    directory = Path(name).expanduser()
    if directory.is_dir():
        return Base(str(directory.resolve()), _directory_digest(directory))
    ref = _record(name)
    recorded = store.read(ref)
    if recorded is None:
        store.create(ref, BaseRecord(base=name, revision=_newest_revision(name)).model_dump_json(indent=1).encode())
        # Read it back: if another machine has recorded a revision first, that one is used.
        recorded = store.read(ref)
    try:
        return Base(name, BaseRecord.parse(recorded or b"", store.address(ref)).revision)
    except ValueError as error:
        raise ArtifactError(
            f"{store.address(ref)} is damaged; delete it to take the base model's newest revision"
        ) from error


def find_base(recipe: Recipe, store: Store) -> Base | None:
    """Return the base model of a recipe, or None if it trains an encoder from scratch. Raises as `resolve_base`."""
    name = recipe.model.base
    return None if name == SCRATCH else resolve_base(name, store)


def check_base(directory: Path, *, max_length: int, tokens: int) -> None:
    """Raise BaseModelError unless the model in `directory` can be exported and takes `max_length` and all `tokens`."""
    try:
        config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
        kind = config["model_type"]
        if kind not in MODEL_TYPES:
            supported = ", ".join(MODEL_TYPES)
            raise BaseModelError(
                f"base model {directory} is a {kind}, which cannot be exported; use one of {supported}"
            )
        places, known = config["max_position_embeddings"], config["vocab_size"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BaseModelError(
            f"base model {directory}: its config.json is missing or not that of a BERT ({error!r}); name another base "
            "model"
        ) from error
    if kind == "roberta":
        # Its first position embeddings are reserved for padding.
        places -= config.get("pad_token_id", 1) + 1
    if max_length > places:
        raise BaseModelError(
            f"base model {directory} takes at most {places} tokens, but model.max_length is {max_length}; lower it"
        )
    if tokens > known:
        raise BaseModelError(
            f"base model {directory}: its tokenizer has {tokens} tokens, but its weights only {known}; check that both "
            "belong together"
        )


def _record(name: str) -> str:
    return f"bases/{name.replace('/', '--')}.json"


def _newest_revision(name: str) -> str:
    from huggingface_hub import HfApi

    try:
        revision = HfApi().model_info(name, timeout=REACH_TIMEOUT).sha
    except Exception as error:  # the client lets its transport's own errors through
        missing = (
            f"base model {name!r} is neither a directory here nor a model on the hub (a private one needs HF_TOKEN)"
        )
        reason = _hub_error(name, error, missing)
        if isinstance(reason, HubUnreachableError) and (cached := _cached_revision(name)):
            log.warning("%s; using revision %s, which is in the cache", reason, cached)
            return cached
        raise reason from error
    if revision is None:
        raise HubUnreachableError(_unreachable(name, "it returned no revision"))
    return revision


def _cached_revision(name: str) -> str | None:
    """Return the newest revision of a hub model in the local cache, for an offline machine; None if there is none."""
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    snapshots = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=name, repo_type="model") / "snapshots"
    found = [path.parent for path in snapshots.glob("*/config.json")]
    return max(found, key=lambda path: path.stat().st_mtime).name if found else None


def _hub_error(name: str, error: Exception, missing: str) -> BaseModelError:
    """Return the error for `error` of the hub's client; `missing` is its text if the hub has no such model."""
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    # After a refusal the client tries its cache, and raises an error whose cause is the refusal.
    refusal = error.__cause__ if isinstance(error.__cause__, HfHubHTTPError) else error
    if isinstance(refusal, GatedRepoError):
        return BaseModelError(
            f"base model {name} is gated on the hub; accept its terms at https://huggingface.co/{name}, and set "
            "HF_TOKEN to a token of the account that did"
        )
    if isinstance(refusal, HFValidationError | RepositoryNotFoundError | RevisionNotFoundError):
        return BaseModelError(missing)
    if isinstance(refusal, HfHubHTTPError) and _is_denied(refusal):
        return BaseModelError(
            f"the hub refuses access to base model {name} ({_line(refusal)}); check that HF_TOKEN is valid and may "
            "read it, or name a local directory that holds the model (--base-model)"
        )
    return HubUnreachableError(_unreachable(name, f"{type(error).__name__}: {_line(error)}"))


def _is_denied(error: HfHubHTTPError) -> bool:
    # Only an answer of the hub itself: its storage returns 403 for an expired signature, and a proxy may do so too.
    return error.response.status_code in (401, 403) and "X-Error-Message" in error.response.headers


def _line(error: Exception) -> str:
    # The hub redirects to signed URLs.
    return " ".join(without_secrets(str(error)).split())


def _unreachable(name: str, why: str) -> str:
    return (
        f"base model {name} could not be fetched from the hub ({why}); check the network, or name a local directory "
        "that holds the model (--base-model)"
    )


def _directory_digest(directory: Path) -> str:
    files = sorted({path for pattern in PATTERNS for path in directory.glob(pattern)})
    if not (directory / "config.json").is_file() or not any(path.match(kind) for path in files for kind in WEIGHTS):
        raise BaseModelError(
            f"base model {directory} lacks a config.json or weights ({' or '.join(WEIGHTS)}); add them, or name "
            "another directory"
        )
    document = {path.name: file_digest(path) for path in files}
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def shipped(name: str) -> Path | None:
    """Return the directory of the shipped encoder `name`, or None if there is none."""
    directory = SHIPPED / name
    return directory if SHIPPED_NAME.fullmatch(name) and (directory / "config.json").is_file() else None
