"""Fixtures that the tests of more than one package share; each of their conftest.py files imports them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.service import Service, service_settings

if TYPE_CHECKING:
    from tests.releases import TinyModel

__all__ = [
    "classifier",
    "cross_encoder",
    "other_classifier",
    "pair_classifier",
    "sentence_encoder",
    "service",
    "text_scorer",
]


@pytest.fixture(scope="session")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> TinyModel:
    """A text classifier."""
    return _build(tmp_path_factory, "classify", seed=51)


@pytest.fixture(scope="session")
def other_classifier(tmp_path_factory: pytest.TempPathFactory) -> TinyModel:
    """Another text classifier, which answers differently."""
    return _build(tmp_path_factory, "classify", seed=80)


@pytest.fixture(scope="session")
def cross_encoder(tmp_path_factory: pytest.TempPathFactory) -> TinyModel:
    """A regression model that reads both sentences at once."""
    return _build(tmp_path_factory, "cross-encoder", seed=3)


@pytest.fixture(scope="session")
def pair_classifier(tmp_path_factory: pytest.TempPathFactory) -> TinyModel:
    """A classifier that reads both sentences at once."""
    return _build(tmp_path_factory, "classify-pairs", seed=11)


@pytest.fixture(scope="session")
def text_scorer(tmp_path_factory: pytest.TempPathFactory) -> TinyModel:
    """A regression model that reads single texts."""
    return _build(tmp_path_factory, "score", seed=5)


@pytest.fixture(scope="session")
def sentence_encoder(tmp_path_factory: pytest.TempPathFactory) -> TinyModel:
    """A regression model that compares sentence vectors."""
    return _build(tmp_path_factory, "bi-encoder", seed=29)


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    """A service of two workers with nothing deployed, in a home of its own."""
    running = Service(service_settings(tmp_path / "home"))
    try:
        running.wait_live()
        yield running
    finally:
        running.stop()


def _build(factory: pytest.TempPathFactory, head: str, seed: int) -> TinyModel:
    # Here and not at the top: torch takes seconds, and most tests need none of this.
    from tests.releases import build_model

    return build_model(factory.mktemp("models") / head, head, seed)
