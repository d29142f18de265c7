"""Releases in the machine's model store: complete copies, verification, and replacement of damaged files."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import bentoml
import pytest
from bentoml._internal.configuration.containers import BentoMLContainer

from pipeline.errors import ArtifactError
from pipeline.settings import Settings
from pipeline.store.artifacts import Artifact, Store
from serving.deployed.model_store import (
    forget_models,
    home_models,
    import_release,
    imported_release,
    keep_models,
    measured_file,
    model_tag,
    remove_damaged,
)
from tests.support.damage import damage_file, each_damage
from tests.support.tiny_releases import TinyModel

REF = f"release/nsmc/{'a' * 16}/20260101T000000000000-aB12"


@pytest.fixture
def releases(store: Store, light: TinyModel) -> list[Artifact]:
    """Publish two releases of one recipe."""
    return [light.publish(store, "nsmc", key=letter * 16) for letter in "ab"]


def tags(settings: Settings) -> set[str]:
    return {str(model.tag) for model in bentoml.models.list(_model_store=home_models(settings))}


def test_tag_is_made_of_recipe_key_and_attempt() -> None:
    assert model_tag(REF) == f"saebyeok-nsmc:{'a' * 16}-20260101t000000000000-ab12"


@pytest.mark.parametrize(
    "ref",
    ["release/nsmc/key", f"{REF}/more", REF.replace("release", "train"), "release/../key/x", "release/n/.k/x", ""],
)
def test_tag_of_an_invalid_ref_is_refused(ref: str) -> None:
    with pytest.raises(ArtifactError, match="is not the ref of a release"):
        model_tag(ref)


def test_import_copies_all_files_and_the_manifest(settings: Settings, releases: list[Artifact]) -> None:
    found = import_release(releases[0], settings)
    assert found.is_relative_to(settings.home / "bentoml" / "models")
    for name in (*releases[0].manifest.files, "manifest.json"):
        assert (found / name).is_file()
    assert (found / "card.json").read_bytes() == (releases[0].path / "card.json").read_bytes()
    (model,) = bentoml.models.list(_model_store=home_models(settings))
    assert (str(model.tag), model.info.labels) == (model_tag(releases[0].ref), {"recipe": "nsmc"})


def test_import_copies_files_in_subdirectories(settings: Settings, store: Store) -> None:
    with store.draft() as draft:
        (draft / "a" / "b").mkdir(parents=True)
        (draft / "a" / "b" / "c.txt").write_text("c", encoding="utf-8")
        made = store.publish(draft, "release", "nsmc", "a" * 16, run="test", inputs={}, fields={}, figures={})
    assert (import_release(made, settings) / "a" / "b" / "c.txt").read_text(encoding="utf-8") == "c"


def test_existing_release_is_not_imported_again(settings: Settings, releases: list[Artifact]) -> None:
    found = import_release(releases[0], settings)
    before = (found / "card.json").stat().st_ino
    assert import_release(releases[0], settings) == found
    assert (found / "card.json").stat().st_ino == before


def test_import_by_several_at_once_writes_one(settings: Settings, releases: list[Artifact]) -> None:
    with ThreadPoolExecutor(4) as pool:
        found = set(pool.map(lambda _: import_release(releases[0], settings), range(4)))
    assert len(found) == 1
    assert tags(settings) == {model_tag(releases[0].ref)}


def test_import_of_a_changed_release_raises(settings: Settings, releases: list[Artifact]) -> None:
    (releases[0].path / "card.json").write_text("{}")
    with pytest.raises(ArtifactError, match=r"card\.json"):
        import_release(releases[0].store.open(releases[0].ref), settings)
    assert tags(settings) == set()


def test_copy_that_went_wrong_is_not_kept(
    settings: Settings, releases: list[Artifact], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "copyfile", lambda _, target: target.write_bytes(b""))
    with pytest.raises(ArtifactError, match=rf"model {model_tag(releases[0].ref)}"):
        import_release(releases[0], settings)
    assert tags(settings) == set()


@each_damage
def test_import_over_a_damaged_record_makes_it_again(
    settings: Settings, releases: list[Artifact], damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    found = import_release(releases[0], settings)
    damage_file(found / "model.yaml", damage)
    assert import_release(releases[0], settings) == found
    assert caplog.text.count(f"{found} is damaged and was removed") == 1
    assert tags(settings) == {model_tag(releases[0].ref)}


@each_damage
def test_damaged_record_of_another_version_stops_nothing(
    settings: Settings, releases: list[Artifact], damage: str
) -> None:
    damage_file(import_release(releases[0], settings) / "model.yaml", damage)
    import_release(releases[1], settings)
    assert tags(settings) == {model_tag(releases[1].ref)}


@each_damage
def test_damaged_name_of_the_newest_stops_nothing(settings: Settings, releases: list[Artifact], damage: str) -> None:
    found = import_release(releases[0], settings)
    damage_file(found.parent / "latest", damage)
    import_release(releases[1], settings)
    assert tags(settings) == {model_tag(release.ref) for release in releases}


def test_interrupted_import_is_repeated(settings: Settings, releases: list[Artifact]) -> None:
    found = import_release(releases[0], settings)
    (found / "model.yaml").unlink()
    (found / "tokenizer.json").unlink()
    assert import_release(releases[0], settings) == found
    assert (found / "tokenizer.json").is_file()


def test_changed_file_of_an_import_is_replaced(settings: Settings, releases: list[Artifact]) -> None:
    found = import_release(releases[0], settings)
    (found / "card.json").write_text("{}", encoding="utf-8")
    assert import_release(releases[0], settings) == found
    assert (found / "card.json").read_bytes() == (releases[0].path / "card.json").read_bytes()


def test_remove_damaged_keeps_readable_models(settings: Settings, releases: list[Artifact]) -> None:
    for release in releases:
        import_release(release, settings)
    remove_damaged(home_models(settings))
    assert tags(settings) == {model_tag(release.ref) for release in releases}


@pytest.mark.parametrize("damage", [None, "empty"])
def test_forget_deletes_just_what_is_named(settings: Settings, releases: list[Artifact], damage: str | None) -> None:
    paths = [import_release(release, settings) for release in releases]
    for release in releases:
        for file in (measured_file(settings, release.ref), measured_file(settings, release.ref).with_suffix(".lock")):
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
    if damage:
        damage_file(paths[0] / "model.yaml", damage)
    never = releases[0].ref.replace("a" * 16, "c" * 16)
    forget_models(settings, [never, releases[0].ref])
    assert tags(settings) == {model_tag(releases[1].ref)}
    left = {path.name for path in (settings.home / "service" / "rates").iterdir()}
    stem = model_tag(releases[1].ref).replace(":", "-")
    assert left == {f"{stem}.json", f"{stem}.lock"}


def test_keep_deletes_releases_that_are_not_needed(settings: Settings, releases: list[Artifact]) -> None:
    for release in releases:
        import_release(release, settings)
    with bentoml.models.create("of-another-service", _model_store=home_models(settings)) as other:
        pass
    keep_models(settings, lambda: [releases[1].ref])
    assert tags(settings) == {model_tag(releases[1].ref), str(other.tag)}


@pytest.fixture
def baked(settings: Settings, releases: list[Artifact]) -> Iterator[Path]:
    """Import the first release into BentoML's default model store, as in a Bento."""
    found = import_release(releases[0], settings)
    BentoMLContainer.model_store.set(home_models(settings))
    yield found
    BentoMLContainer.model_store.reset()


def test_release_of_a_bento_is_found_and_checked(baked: Path, releases: list[Artifact]) -> None:
    assert imported_release(releases[0].ref) == baked
    with pytest.raises(ArtifactError, match="is not in the Bento"):
        imported_release(releases[1].ref)
    (baked / "card.json").write_text("{}")
    with pytest.raises(ArtifactError, match=r"card\.json"):
        imported_release(releases[0].ref)


@each_damage
def test_bento_release_with_damaged_manifest_is_refused(baked: Path, releases: list[Artifact], damage: str) -> None:
    damage_file(baked / "manifest.json", damage)
    with pytest.raises(ArtifactError, match=r"its manifest\.json cannot be read"):
        imported_release(releases[0].ref)
