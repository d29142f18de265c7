"""Base models: a directory by its content, a hub id by the revision that was recorded first."""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

from pipeline.artifacts import Store
from pipeline.base import Base, check_base, resolve_base
from pipeline.errors import ArtifactError, BaseModelError, HubUnreachableError
from tests.hub import Hub, serve_hub

CONFIG = {"model_type": "bert", "max_position_embeddings": 64, "vocab_size": 100}
OLD, NEW = "a" * 40, "b" * 40


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A directory that looks like a base model; nothing here reads its weights."""
    made = tmp_path / "base"
    made.mkdir()
    (made / "config.json").write_text(json.dumps(CONFIG), encoding="utf-8")
    (made / "model.safetensors").write_bytes(b"weights")
    (made / "tokenizer.json").write_text("{}", encoding="utf-8")
    return made


@pytest.fixture
def hub(directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub on loopback that has `team/encoder`, and a cache of this test's own."""
    with serve_hub(Hub("team/encoder", directory, OLD)) as served:
        _point_to(served.url, tmp_path, monkeypatch)
        yield served


def _point_to(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # What HF_ENDPOINT and HF_HUB_CACHE set; the client reads both when it is imported.
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub-cache"))


@pytest.fixture
def no_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An endpoint where nobody listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    _point_to(f"http://127.0.0.1:{port}", tmp_path, monkeypatch)


# --- what ships ---


def test_a_base_model_that_ships_is_known_by_its_name_and_content(
    directory: Path, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.encoder.ENCODERS", directory.parent)
    base = resolve_base("base", store)
    assert (base.name, base.fetch()) == ("base", directory)
    # Another machine has it elsewhere.
    monkeypatch.setattr("pipeline.encoder.ENCODERS", tmp_path / "other")
    shutil.copytree(directory, tmp_path / "other" / "base")
    assert resolve_base("base", store) == base
    assert base.fetch() == tmp_path / "other" / "base"
    (tmp_path / "other" / "base" / "model.safetensors").write_bytes(b"others!")
    with pytest.raises(BaseModelError, match="base model base has changed"):
        base.fetch()
    assert store.list("bases") == []


# --- directories ---


def test_a_directory_is_known_by_its_content(directory: Path, store: Store, tmp_path: Path) -> None:
    base = resolve_base(str(directory), store)
    copy = tmp_path / "copy"
    directory.rename(copy)
    assert resolve_base(str(copy), store).revision == base.revision
    (copy / "model.safetensors").write_bytes(b"others!")
    assert resolve_base(str(copy), store).revision != base.revision
    # Nothing is recorded: the digest itself is the record.
    assert store.list("bases") == []


def test_files_that_are_not_fetched_do_not_count(directory: Path, store: Store) -> None:
    base = resolve_base(str(directory), store)
    (directory / "README.md").write_text("notes", encoding="utf-8")
    assert resolve_base(str(directory), store) == base


def test_a_relative_directory_is_made_absolute(
    directory: Path, store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(directory.parent)
    base = resolve_base("base", store)
    monkeypatch.chdir(tmp_path.parent)
    assert base.fetch() == directory.resolve()


def test_a_directory_that_changes_during_a_run_stops_it(directory: Path, store: Store) -> None:
    base = resolve_base(str(directory), store)
    (directory / "tokenizer.json").write_text('{"other": 1}', encoding="utf-8")
    with pytest.raises(BaseModelError, match="has changed") as caught:
        base.fetch()
    assert not caught.value.retryable


def test_a_directory_that_is_gone_is_not_looked_for_on_the_hub(directory: Path, store: Store, hub: Hub) -> None:
    base = resolve_base(str(directory), store)
    directory.rename(directory.parent / "elsewhere")
    with pytest.raises(BaseModelError, match="is gone from this machine") as caught:
        base.fetch()
    assert not caught.value.retryable
    assert hub.asked == []


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors"])
def test_a_directory_without_what_a_model_needs_is_refused(missing: str, directory: Path, store: Store) -> None:
    (directory / missing).unlink()
    with pytest.raises(BaseModelError, match=r"a config\.json and weights"):
        resolve_base(str(directory), store)


# --- the hub ---


def test_the_revision_of_a_hub_id_is_recorded_once_and_used_from_then_on(hub: Hub, store: Store) -> None:
    first = resolve_base("team/encoder", store)
    assert first == Base("team/encoder", OLD)
    assert json.loads(store.read("bases/team--encoder.json") or b"") == {"base": "team/encoder", "revision": OLD}
    hub.revision = NEW
    hub.asked.clear()
    assert resolve_base("team/encoder", store) == first
    assert hub.asked == []


def test_a_hub_model_is_fetched_once_at_its_recorded_revision(hub: Hub, store: Store, directory: Path) -> None:
    (directory / "flax_model.msgpack").write_bytes(b"other weights")
    base = resolve_base("team/encoder", store)
    fetched = base.fetch()
    assert (fetched / "model.safetensors").read_bytes() == b"weights"
    assert not (fetched / "flax_model.msgpack").exists()
    hub.asked.clear()
    assert base.fetch() == fetched
    assert not [path for path in hub.asked if path.endswith("safetensors")]


def test_a_tokenizer_is_had_without_the_weights(hub: Hub, store: Store) -> None:
    fetched = resolve_base("team/encoder", store).fetch(weights=False)
    assert sorted(file.name for file in fetched.iterdir()) == ["config.json", "tokenizer.json"]
    assert not [path for path in hub.asked if path.endswith("safetensors")]


def test_a_fetched_model_is_there_without_the_hub(
    hub: Hub, store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    base = resolve_base("team/encoder", store)
    fetched = base.fetch()
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert base.fetch() == fetched


def test_a_revision_that_the_hub_has_lost_is_not_retried(hub: Hub, store: Store) -> None:
    base = resolve_base("team/encoder", store)
    hub.revision = NEW
    with pytest.raises(BaseModelError, match=rf"no longer has revision {OLD}.*bases/team--encoder\.json") as caught:
        base.fetch()
    assert not caught.value.retryable


@pytest.mark.usefixtures("no_hub")
def test_a_hub_that_does_not_answer_may_be_retried(store: Store) -> None:
    with pytest.raises(HubUnreachableError, match=r"team/encoder could not be fetched.*--base-model") as caught:
        resolve_base("team/encoder", store)
    assert caught.value.retryable
    # What was not learnt is not recorded.
    assert store.read("bases/team--encoder.json") is None


def test_a_download_that_cannot_be_had_may_be_retried(no_hub: None, monkeypatch: pytest.MonkeyPatch) -> None:
    # As HF_HUB_OFFLINE does; without it the client itself tries again for 20 seconds.
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(HubUnreachableError, match="could not be fetched") as caught:
        Base("team/encoder", OLD).fetch()
    assert caught.value.retryable


@pytest.mark.parametrize("name", ["team/other", "no such model!", "/no/such/directory", "../nowhere", "a/b/c"])
def test_a_name_that_is_no_model_is_not_retried(name: str, hub: Hub, store: Store) -> None:
    with pytest.raises(BaseModelError, match="neither a directory here nor a model on the hub") as caught:
        resolve_base(name, store)
    assert not caught.value.retryable


def test_a_damaged_record_is_named(hub: Hub, store: Store) -> None:
    store.create("bases/team--encoder.json", b"{")
    with pytest.raises(ArtifactError, match=r"bases/team--encoder\.json is damaged"):
        resolve_base("team/encoder", store)


# --- what can be used ---


def test_a_model_that_fits_is_let_through(directory: Path) -> None:
    check_base(directory, max_length=64, tokens=100)


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"max_position_embeddings": 32}, "takes 32 tokens at most; lower model.max_length"),
        ({"vocab_size": 99}, "its tokenizer has 100 tokens and its weights only 99"),
        ({"model_type": "distilbert"}, "is a distilbert; only bert, electra, roberta"),
    ],
)
def test_a_model_that_cannot_be_used_is_refused_before_training(
    config: dict[str, object], named: str, directory: Path
) -> None:
    (directory / "config.json").write_text(json.dumps(CONFIG | config), encoding="utf-8")
    with pytest.raises(BaseModelError, match=named):
        check_base(directory, max_length=64, tokens=100)


@pytest.mark.parametrize("content", ["{", "{}"])
def test_a_config_that_says_nothing_is_refused(content: str, directory: Path) -> None:
    (directory / "config.json").write_text(content, encoding="utf-8")
    with pytest.raises(BaseModelError, match=r"config\.json is not that of a BERT"):
        check_base(directory, max_length=64, tokens=100)
