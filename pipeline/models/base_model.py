"""Base models: one that ships, a hub id or a local directory, held to one revision from its first use on."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import ArtifactError, BaseModelError, HubUnreachableError
from pipeline.job import Job
from pipeline.recipes.schema import SCRATCH
from pipeline.store.artifacts import Store
from pipeline.store.manifest import file_digest

if TYPE_CHECKING:
    from huggingface_hub.errors import HfHubHTTPError

#: Where the encoders that ship lie, a directory each.
ENCODERS = Path(__file__).parent
NAME = re.compile(r"[a-z0-9-]+")


#: What is fetched of a base model: configuration, tokenizer and one form of the weights.
WEIGHTS = ("*.safetensors", "pytorch_model.bin")
PATTERNS = ("*.json", "*.txt", *WEIGHTS)
#: Kinds of encoder whose exported graph is fused; another kind would be refused only after its training.
KINDS = ("bert", "electra", "roberta")
#: Seconds for the hub to say its newest revision.
REACH_TIMEOUT = 10.0


@dataclass(frozen=True)
class Base:
    """A base model at one revision: a hub commit, or the digest of a directory."""

    name: str
    revision: str

    @property
    def identity(self) -> dict[str, str]:
        """What a key is made of."""
        return {"base": self.name, "revision": self.revision}

    def fetch(self, *, weights: bool = True) -> Path:
        """Its directory on this machine, downloaded where it is a hub id; without `weights`, all but those.

        Raises BaseModelError where a local directory has changed since it was resolved or is gone, or where the
        hub no longer has the revision or refuses access; HubUnreachableError where it is neither cached nor to be had.
        """
        directory = shipped(self.name) or Path(self.name)
        # A directory's name was made absolute when it was resolved, and a hub id never is.
        if directory.is_absolute():
            if not directory.is_dir():
                raise BaseModelError(f"base model {self.name} is gone from this machine; put it back, or name another")
            if _directory_digest(directory) != self.revision:
                raise BaseModelError(f"base model {self.name} has changed since its texts were tokenized; run again")
            return directory
        from huggingface_hub import snapshot_download

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
    """The base model called `name`, at the revision recorded in `store`, or at today's, which is recorded.

    Raises BaseModelError where there is no such model or the hub refuses access, HubUnreachableError where the hub
    does not answer.
    """
    if ours := shipped(name):
        # By its name and not its place, which is another one on each machine.
        return Base(name, _directory_digest(ours))
    directory = Path(name).expanduser()
    if directory.is_dir():
        return Base(str(directory.resolve()), _directory_digest(directory))
    ref = _record(name)
    recorded = store.read(ref)
    if recorded is None:
        store.create(ref, json.dumps({"base": name, "revision": _newest_revision(name)}, indent=1).encode())
        # Another machine may have recorded it first: what is in the store holds for all.
        recorded = store.read(ref)
    try:
        return Base(name, json.loads(recorded or b"")["revision"])
    except (ValueError, KeyError) as error:
        raise ArtifactError(
            f"{store.address(ref)} is damaged; delete it to take the base model's newest revision"
        ) from error


def find_base(job: Job) -> Base | None:
    """The base model of a job, or None where an encoder starts from scratch. Raises as `resolve_base` does."""
    name = job.recipe.model.base
    return None if name == SCRATCH else resolve_base(name, job.store)


def check_base(directory: Path, *, max_length: int, tokens: int) -> None:
    """Raise BaseModelError unless the model in `directory` can be exported and takes `max_length` and all `tokens`."""
    try:
        config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
        kind, places, known = (config[name] for name in ("model_type", "max_position_embeddings", "vocab_size"))
    except (OSError, ValueError, KeyError) as error:
        raise BaseModelError(f"base model {directory}: its config.json is not that of a BERT ({error!r})") from error
    if kind not in KINDS:
        raise BaseModelError(f"base model {directory} is a {kind}; only {', '.join(KINDS)} models can be exported")
    if kind == "roberta":
        # Its first places stand for padding.
        places -= config.get("pad_token_id", 1) + 1
    if max_length > places:
        raise BaseModelError(f"base model {directory} takes {places} tokens at most; lower model.max_length to that")
    if tokens > known:
        raise BaseModelError(f"base model {directory}: its tokenizer has {tokens} tokens and its weights only {known}")


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
        raise _hub_error(name, error, missing) from error
    if revision is None:
        raise HubUnreachableError(_unreachable(name, "it named no revision"))
    return revision


def _hub_error(name: str, error: Exception, missing: str) -> BaseModelError:
    """Return the error for `error` of the hub's client; `missing` is its text if the hub has no such model."""
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    # The client looks into its cache after a refusal, and what it raises then has the refusal as its cause.
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
    # By the hub itself: the storage behind it says 403 when a signature has expired, and a proxy may say it too.
    return error.response.status_code in (401, 403) and "X-Error-Message" in error.response.headers


def _line(error: Exception) -> str:
    # Addresses that the hub redirects to are signed in their query.
    return " ".join(re.sub(r"\?[^\s'\"]+", "", str(error)).split())


def _unreachable(name: str, why: str) -> str:
    return (
        f"base model {name} could not be fetched from the hub ({why}); check the network, or name a local directory "
        "that holds the model (--base-model)"
    )


def _directory_digest(directory: Path) -> str:
    files = sorted({path for pattern in PATTERNS for path in directory.glob(pattern)})
    if not (directory / "config.json").is_file() or not any(path.match(kind) for path in files for kind in WEIGHTS):
        raise BaseModelError(f"base model {directory}: a config.json and weights ({' or '.join(WEIGHTS)}) are needed")
    document = {path.name: file_digest(path) for path in files}
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def shipped(name: str) -> Path | None:
    """The directory of the encoder called `name` that ships with the project, if there is one."""
    directory = ENCODERS / name
    return directory if NAME.fullmatch(name) and (directory / "config.json").is_file() else None
