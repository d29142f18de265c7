"""Nested tables as flat ones."""

from __future__ import annotations

from pipeline.nested import flatten

TABLE = {"title": "t", "train": {"epochs": 2, "threads": {"batch": 4}}, "labels": ["a", "b"], "none": None, "empty": {}}


def test_flatten_names_values_by_path_in_order() -> None:
    flat = {"title": "t", "train.epochs": 2, "train.threads.batch": 4, "labels": ["a", "b"], "none": None}
    assert list(flatten(TABLE).items()) == list(flat.items())


def test_flatten_joins_paths_with_separator() -> None:
    assert flatten({"test": {"accuracy": {"value": 0.9}}}, separator="/") == {"test/accuracy/value": 0.9}


def test_flatten_extends_keys_that_are_paths() -> None:
    assert flatten({"model.scratch": {"layers": 1}}) == {"model.scratch.layers": 1}
