"""Publish a release as a directory on this machine or as a repository on the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from pipeline.errors import PublishError
from pipeline.publishing.model_directory import write_model
from pipeline.recipes.schema import Recipe
from pipeline.store.artifacts import Artifact

#: Start of a target on the hub; a hub id alone would look like a relative path.
HUB = "hf://"


def publish(recipe: Recipe, release: Artifact, target: str) -> str:
    """Write the model of `release` to `target`, a directory or `hf://OWNER/NAME`, and return its path or URL.

    Raises PublishError if the directory is not empty or the hub refuses, and ArtifactError if the trained model was
    deleted.
    """
    if target.startswith(HUB):
        with TemporaryDirectory() as directory:
            name = write_model(recipe, release, Path(directory)).id
            return _upload(Path(directory), target.removeprefix(HUB), f"Publish release {name}")
    return str(_write(recipe, release, Path(target).expanduser().absolute()))


def _write(recipe: Recipe, release: Artifact, directory: Path) -> Path:
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise PublishError(f"{directory} exists and is not an empty directory; name another one, or delete it")
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=f".{directory.name}-", dir=directory.parent) as draft:
            # The directory appears under its name only when it is complete.
            made = Path(draft) / "model"
            made.mkdir()
            write_model(recipe, release, made)
            return made.rename(directory)
    except OSError as error:
        raise PublishError(f"cannot write {directory} ({error}); name another directory, or free disk space") from error


def _upload(directory: Path, repository: str, message: str) -> str:
    """Upload the files of `directory` as one commit; a new repository is private. Return the URL of the commit."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HFValidationError

    try:
        api = HfApi()
        api.create_repo(repository, private=True, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repository,
            folder_path=directory,
            commit_message=message,
            # This release may lack a file that an earlier one had.
            delete_patterns="onnx/*",
        )
    except HFValidationError as error:
        raise PublishError(f"{repository} is not a hub id; write {HUB}OWNER/NAME") from error
    except Exception as error:  # the client lets its transport's own errors through
        raise _refusal(repository, error) from error
    return str(commit.commit_url)


def _refusal(repository: str, error: Exception) -> PublishError:
    status = getattr(getattr(error, "response", None), "status_code", None)
    reason = " ".join(str(error).split())
    if status in (401, 403):
        return PublishError(
            f"the hub refuses to write {repository} ({reason}); set HF_TOKEN to a token that may write it"
        )
    return PublishError(f"{repository} was not uploaded to the hub ({reason}); run the command again")
