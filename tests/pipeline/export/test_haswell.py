"""Releases on another type of CPU: exported on this one and served with AVX2 only, and the reverse.

ONNX Runtime chooses its kernels by the CPU, so a second process runs under qemu-user.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from pipeline.config_file import ROOT
from pipeline.export.convert import GRAPH_BOUND
from pipeline.store.artifacts import Artifact, Store
from pipeline.store.releases import read_card
from tests.support.cpus import HASWELL, QEMU
from tests.support.golden_answers import answers
from tests.support.small_pipeline import Road
from tests.support.tiny_releases import TinyModel

pytestmark = [
    pytest.mark.torch,
    pytest.mark.emulated,
    pytest.mark.skipif(shutil.which(QEMU) is None, reason=f"{QEMU} is not installed"),
]

Answers = dict[str, list[list[float]]]


@pytest.fixture(scope="module")
def releases(reviews: Road, pairs: Road) -> list[Artifact]:
    return [reviews.released, pairs.released]


@pytest.fixture(scope="module")
def haswell(releases: list[Artifact]) -> list[Answers]:
    return on_haswell(*releases)


def on_haswell(*releases: Artifact) -> list[Answers]:
    """Return the answers of these releases with AVX2 only."""
    command = [
        *HASWELL,
        sys.executable,
        "-m",
        "tests.support.golden_answers",
        *(str(release.path) for release in releases),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found: list[Answers] = json.loads(done.stdout)
    return found


def largest(left: Any, right: Any) -> float:
    return float(np.abs(np.array(left) - np.array(right)).max())


@pytest.mark.parametrize("place", [0, 1])
def test_release_answers_its_golden_sentences_on_another_kind(
    place: int, releases: list[Artifact], haswell: list[Answers]
) -> None:
    card, there = read_card(releases[place]), haswell[place]
    assert set(there) == {"int8", "fp32"}
    for found in there.values():
        assert largest(found, [golden.expected for golden in card.golden]) <= card.golden_tolerance


@pytest.mark.parametrize("place", [0, 1])
def test_both_kinds_answer_alike(place: int, releases: list[Artifact], haswell: list[Answers]) -> None:
    card, here = read_card(releases[place]), answers(releases[place].path)
    low, high = card.score_range or (0.0, 1.0)
    assert largest(here["fp32"], haswell[place]["fp32"]) <= GRAPH_BOUND * (high - low)
    # Sums of int8 products are integers and equal on both CPUs. Rounding in the preceding fp32 operations may move an
    # activation to the next quantization step.
    assert largest(here["int8"], haswell[place]["int8"]) <= 0.01 * (high - low)


def test_the_tests_own_models_answer_alike(store: Store, text_scorer: TinyModel) -> None:
    release = text_scorer.publish(store, "stars", key="a" * 16)
    card, (there,) = read_card(release), on_haswell(release)
    assert largest(there["int8"], [golden.expected for golden in card.golden]) <= card.golden_tolerance
