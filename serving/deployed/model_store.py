"""Releases in this machine's BentoML model store: copied from the store and verified by digest."""

from __future__ import annotations

import logging
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import bentoml
from bentoml._internal.bento.bento import BentoStore
from bentoml._internal.models import ModelStore
from bentoml.exceptions import NotFound
from pydantic import TypeAdapter

from pipeline.atomic_files import locked, read_state
from pipeline.errors import ArtifactError
from pipeline.settings import Settings
from pipeline.store.artifacts import Artifact
from pipeline.store.files.store_errors import full_disk_errors
from pipeline.store.manifest import MANIFEST, Manifest, verify_files

log = logging.getLogger(__name__)

_MANIFEST = TypeAdapter(Manifest)
#: Start of the names of all releases.
PREFIX = "saebyeok-"
#: Valid part of a ref; it becomes part of a directory name.
PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def model_tag(ref: str) -> str:
    """Return the BentoML tag of the release at `ref` (`release/nsmc/<key>/<attempt>`).

    Raises ArtifactError if `ref` does not have this form.
    """
    parts = ref.split("/")
    if len(parts) != 4 or parts[0] != "release" or not all(map(PART.fullmatch, parts)):
        raise ArtifactError(f"{ref!r} is not the ref of a release; its form is release/<recipe>/<key>/<attempt>")
    _, recipe, key, attempt = parts
    return f"{PREFIX}{recipe}:{key}-{attempt}".lower()


def home_models(settings: Settings) -> ModelStore:
    """Return the model store below HOME, regardless of BENTOML_HOME."""
    path = settings.home / "bentoml" / "models"
    path.mkdir(parents=True, exist_ok=True)
    return ModelStore(path)


def remove_damaged(items: ModelStore | BentoStore) -> None:
    """Remove unreadable models or Bentos from a BentoML store, and the `latest` files.

    A kill or a power loss can damage them. BentoML reads all versions of a model or Bento before it writes or deletes
    one, so a single damaged file would block it permanently. The caller must hold the lock against other writers.
    """
    directory = Path(items._path)
    for path in sorted(item for item in directory.glob("*/*") if item.is_dir()):
        try:
            items.get(f"{path.parent.name}:{path.name}")
        except Exception as error:  # noqa: BLE001 - YAML, cattrs and BentoML each have errors of their own
            log.warning("%s is damaged and was removed: %s", path, error)
            shutil.rmtree(path)
    for newest in directory.glob("*/latest"):
        # BentoML works without this file, and writes it again with the next version.
        newest.unlink()


def import_release(release: Artifact, settings: Settings) -> Path:
    """Return the release's directory in this machine's model store; import it if it is missing or has changed.

    Raises ArtifactError if the release in the store does not match its manifest.
    """
    tag = model_tag(release.ref)
    # Workers load concurrently; only one may write a tag.
    with _writing(settings) as models:
        found = _find(tag, models)
        if found is not None:
            try:
                _verify(found, release.manifest, tag)
            except ArtifactError:
                bentoml.models.delete(tag, _model_store=models)
            else:
                return found
        labels = {"recipe": release.manifest.recipe}
        home = str(settings.home)
        with full_disk_errors(home), bentoml.models.create(tag, labels=labels, _model_store=models) as model:
            target = Path(model.path)
            for relative in release.manifest.files:
                (target / relative).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(release.path / relative, target / relative)
            (target / MANIFEST).write_text(release.manifest.model_dump_json(indent=1), encoding="utf-8")
            _verify(target, release.manifest, tag)
        return Path(bentoml.models.get(tag, _model_store=models).path)


def measured_file(settings: Settings, ref: str) -> Path:
    """Return the path of the file that records the speed of each file of the release at `ref` on this machine."""
    return _measured_file(settings, model_tag(ref))


def _measured_file(settings: Settings, tag: str) -> Path:
    return settings.home / "service" / "rates" / f"{tag.replace(':', '-')}.json"


def forget_models(settings: Settings, refs: Iterable[str]) -> None:
    """Delete the releases at `refs` from this machine's model store, if present."""
    with _writing(settings) as models:
        for ref in refs:
            _delete(settings, models, model_tag(ref))


def keep_models(settings: Settings, needed: Callable[[], Iterable[str]]) -> None:
    """Delete all releases from this machine's model store except those at the refs that `needed` returns."""
    with _writing(settings) as models:
        # Asked while no release is imported: a later import is not deleted, an earlier one is known.
        kept = {model_tag(ref) for ref in needed()}
        for model in bentoml.models.list(_model_store=models):
            if model.tag.name.startswith(PREFIX) and str(model.tag) not in kept:
                log.info("no retained deployment needs %s; deleted", model.tag)
                _delete(settings, models, str(model.tag))


@contextmanager
def _writing(settings: Settings) -> Iterator[ModelStore]:
    """Yield this machine's model store, without damaged models and locked against other writers."""
    models = home_models(settings)
    with locked(settings.home / "service" / "import.lock"):
        remove_damaged(models)
        yield models


def _delete(settings: Settings, models: ModelStore, tag: str) -> None:
    with suppress(NotFound):
        bentoml.models.delete(tag, _model_store=models)
    measured = _measured_file(settings, tag)
    for file in (measured, measured.with_suffix(".lock")):
        file.unlink(missing_ok=True)


def imported_release(ref: str) -> Path:
    """Return the directory of a release inside a Bento.

    Raises ArtifactError if it is missing or does not match its manifest.
    """
    tag = model_tag(ref)
    directory = _find(tag)
    if directory is None:
        raise ArtifactError(f"model {tag} is not in the Bento; rebuild the Bento with `saebyeok deploy`")
    manifest = read_state(directory / MANIFEST, _MANIFEST)
    if manifest is None:
        raise ArtifactError(f"model {tag}: its {MANIFEST} cannot be read; rebuild the Bento with `saebyeok deploy`")
    _verify(directory, manifest, tag)
    return directory


def _find(tag: str, models: ModelStore | None = None) -> Path | None:
    """Return the directory of `tag` in `models`, or in BentoML's default store (inside a Bento: the Bento's own)."""
    try:
        model = bentoml.models.get(tag) if models is None else bentoml.models.get(tag, _model_store=models)
    except NotFound:
        return None
    return Path(model.path)


def _verify(directory: Path, manifest: Manifest, name: str) -> None:
    verify_files(directory, manifest.files, f"model {name}")
