"""Releases in this machine's own BentoML model store: copied from the store, checked by digest."""

from __future__ import annotations

import logging
import re
import shutil
from collections.abc import Iterable
from contextlib import suppress
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
from pipeline.store.manifest import MANIFEST, Manifest, verify_files
from pipeline.store.store_errors import full_disk_errors

log = logging.getLogger(__name__)

_MANIFEST = TypeAdapter(Manifest)
#: What a part of a ref may look like; it becomes a directory's name.
PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def model_tag(ref: str) -> str:
    """The BentoML tag of the release at `ref` (`release/nsmc/<key>/<attempt>`).

    Raises ArtifactError where `ref` does not look like that.
    """
    parts = ref.split("/")
    if len(parts) != 4 or parts[0] != "release" or not all(map(PART.fullmatch, parts)):
        raise ArtifactError(f"{ref!r} is not the ref of a release; one looks like release/nsmc/<key>/<attempt>")
    _, recipe, key, attempt = parts
    return f"saebyeok-{recipe}:{key}-{attempt}".lower()


def home_models(settings: Settings) -> ModelStore:
    """The model store below HOME, whatever BENTOML_HOME is in this process."""
    path = settings.home / "bentoml" / "models"
    path.mkdir(parents=True, exist_ok=True)
    return ModelStore(path)


def remove_damaged(items: ModelStore | BentoStore) -> None:
    """Remove what cannot be read from a store of BentoML's: models or Bentos, and the names of the newest.

    A kill or a power loss leaves such ones. BentoML reads all versions of a model or Bento in order to write or delete
    one, so a single damaged file would stop it for good. The caller keeps others from writing meanwhile.
    """
    directory = Path(items._path)
    for path in sorted(item for item in directory.glob("*/*") if item.is_dir()):
        try:
            items.get(f"{path.parent.name}:{path.name}")
        except Exception as error:  # noqa: BLE001 - YAML, cattrs and BentoML each have errors of their own
            log.warning("%s is damaged and removed: %s", path, error)
            shutil.rmtree(path)
    for newest in directory.glob("*/latest"):
        # Written again with the next version, and found out where it is missing.
        newest.unlink()


def import_release(release: Artifact, settings: Settings) -> Path:
    """The release's directory in this machine's model store, imported where it is not there or has changed.

    Raises ArtifactError where the release in the store is not what its manifest says.
    """
    tag = model_tag(release.ref)
    models = home_models(settings)
    # Workers start and load at the same time; only one may write a tag.
    with locked(settings.home / "service" / "import.lock"):
        remove_damaged(models)
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
    """Where it is kept how fast the files of the release at `ref` are on this machine."""
    return settings.home / "service" / "rates" / f"{model_tag(ref).replace(':', '-')}.json"


def forget_models(settings: Settings, refs: Iterable[str]) -> None:
    """Delete the releases at `refs` from this machine's model store, where they are in it."""
    models = home_models(settings)
    with locked(settings.home / "service" / "import.lock"):
        remove_damaged(models)
        for ref in refs:
            with suppress(NotFound):
                bentoml.models.delete(model_tag(ref), _model_store=models)
            measured = measured_file(settings, ref)
            for file in (measured, measured.with_suffix(".lock")):
                file.unlink(missing_ok=True)


def imported_release(ref: str) -> Path:
    """The directory of a release that a Bento carries, without the store that it came from.

    Raises ArtifactError where it is missing or not what its own manifest says.
    """
    tag = model_tag(ref)
    directory = _find(tag)
    if directory is None:
        raise ArtifactError(f"model {tag} is not in the Bento; build it again with `saebyeok deploy`")
    manifest = read_state(directory / MANIFEST, _MANIFEST)
    if manifest is None:
        raise ArtifactError(f"model {tag}: its {MANIFEST} cannot be read; build the Bento again with `saebyeok deploy`")
    _verify(directory, manifest, tag)
    return directory


def _find(tag: str, models: ModelStore | None = None) -> Path | None:
    """The directory of `tag` in `models`, or in the store that BentoML itself chose (a Bento's own)."""
    try:
        model = bentoml.models.get(tag) if models is None else bentoml.models.get(tag, _model_store=models)
    except NotFound:
        return None
    return Path(model.path)


def _verify(directory: Path, manifest: Manifest, name: str) -> None:
    verify_files(directory, manifest.files, f"model {name}")
