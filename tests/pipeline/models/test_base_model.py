"""Shipped and local base models: identified by content, and checked for support."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from pipeline.errors import BaseModelError
from pipeline.models.base_model import check_base, resolve_base
from pipeline.store.artifacts import Store
from tests.support.hub import CONFIG, write_base


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Create a directory with the files of a base model; these tests do not read the weights."""
    return write_base(tmp_path / "base")


# --- shipped models ---


def test_shipped_base_is_identified_by_name_and_content(
    directory: Path, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.models.base_model.SHIPPED", directory.parent)
    base = resolve_base("base", store)
    assert (base.name, base.fetch()) == ("base", directory)
    # The path differs on another machine.
    monkeypatch.setattr("pipeline.models.base_model.SHIPPED", tmp_path / "other")
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
    # Nothing is recorded, because the digest is the revision.
    assert store.list("bases") == []


def test_files_that_are_not_fetched_do_not_count(directory: Path, store: Store) -> None:
    base = resolve_base(str(directory), store)
    (directory / "README.md").write_text("notes", encoding="utf-8")
    assert resolve_base(str(directory), store) == base


def test_a_directory_with_a_file_renamed_is_another_model(directory: Path, store: Store) -> None:
    base = resolve_base(str(directory), store)
    (directory / "tokenizer.json").rename(directory / "tokenizer_config.json")
    assert resolve_base(str(directory), store) != base


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


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors"])
def test_a_directory_without_what_a_model_needs_is_refused(missing: str, directory: Path, store: Store) -> None:
    (directory / missing).unlink()
    with pytest.raises(BaseModelError, match=r"lacks a config\.json or weights"):
        resolve_base(str(directory), store)


# --- supported models ---


@pytest.mark.parametrize(
    "config",
    [
        {},
        # Positions of a RoBERTa begin after that of its padding token, which is 1 by default.
        {"model_type": "roberta", "max_position_embeddings": 66},
        {"model_type": "roberta", "max_position_embeddings": 65, "pad_token_id": 0},
    ],
)
def test_a_model_that_just_fits_is_let_through(config: dict[str, object], directory: Path) -> None:
    (directory / "config.json").write_text(json.dumps(CONFIG | config), encoding="utf-8")
    check_base(directory, max_length=64, tokens=100)


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"max_position_embeddings": 63}, "takes at most 63 tokens, but model.max_length is 64; lower it"),
        ({"model_type": "roberta", "max_position_embeddings": 65}, "takes at most 63 tokens"),
        ({"vocab_size": 99}, "its tokenizer has 100 tokens, but its weights only 99"),
        ({"model_type": "distilbert"}, "is a distilbert, which cannot be exported; use one of bert, electra, roberta"),
    ],
)
def test_unsupported_base_is_refused_before_training(config: dict[str, object], named: str, directory: Path) -> None:
    (directory / "config.json").write_text(json.dumps(CONFIG | config), encoding="utf-8")
    with pytest.raises(BaseModelError, match=named):
        check_base(directory, max_length=64, tokens=100)


def test_other_architecture_is_named_whatever_its_config_lacks(directory: Path) -> None:
    (directory / "config.json").write_text('{"model_type": "gpt2", "n_positions": 1024}', encoding="utf-8")
    with pytest.raises(BaseModelError, match="is a gpt2, which cannot be exported; use one of bert, electra, roberta"):
        check_base(directory, max_length=64, tokens=100)


@pytest.mark.parametrize("content", ["{", "{}", "[]"])
def test_a_config_that_says_nothing_is_refused(content: str, directory: Path) -> None:
    (directory / "config.json").write_text(content, encoding="utf-8")
    with pytest.raises(BaseModelError, match=r"config\.json is missing or not that of a BERT"):
        check_base(directory, max_length=64, tokens=100)
