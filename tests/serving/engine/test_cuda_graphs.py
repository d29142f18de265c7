"""CUDA graph shapes: padded batches in fixed memory give the same answers as direct runs."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnxruntime as ort
import pytest

from serving.engine.cuda_graphs import ROWS, Bound, Feed
from serving.engine.session import Running
from tests.support.tiny_releases import MAX_LENGTH, TinyModel


@pytest.fixture(scope="module")
def session(cross_encoder: TinyModel) -> ort.InferenceSession:
    """A model with token types in fp16, whose answers do not depend on the batch."""
    return ort.InferenceSession(str(cross_encoder.directory / "model.fp16.onnx"), providers=["CPUExecutionProvider"])


def batch(session: ort.InferenceSession, rows: int, length: int, seed: int) -> Feed:
    """Return random tokens in rows of random lengths."""
    generator = np.random.default_rng(seed)
    mask = (np.arange(length) < generator.integers(1, length + 1, (rows, 1))).astype(np.int32)
    feed = {
        "input_ids": generator.integers(5, 40, (rows, length)).astype(np.int32) * mask,
        "attention_mask": mask,
        "token_type_ids": mask * (np.arange(length) > length // 2).astype(np.int32),
    }
    return {item.name: feed[item.name] for item in session.get_inputs()}


def test_batches_of_all_shapes_are_answered_as_without(session: ort.InferenceSession) -> None:
    bound = Bound(session, MAX_LENGTH, "cpu")
    for seed, (rows, length) in enumerate(
        [(1, 1), (1, 16), (1, 17), (1, MAX_LENGTH), (3, 5), (8, 32), (9, 4), (40, MAX_LENGTH)]
    ):
        feed = batch(session, rows, length, seed)
        np.testing.assert_allclose(bound.run(feed), session.run(None, dict(feed))[0], atol=1e-3)


def test_it_says_what_is_computed_for_a_batch(session: ort.InferenceSession) -> None:
    replayed, plain = Running(session, Bound(session, MAX_LENGTH, "cpu")), Running(session)
    batches = [(1, 1), (1, 17), (3, 5), (8, 32), (9, 4)]
    assert [replayed.places(*shape) for shape in batches] == [16, MAX_LENGTH, 4 * 16, 8 * MAX_LENGTH, 9 * 4]
    assert [plain.places(*shape) for shape in batches] == [rows * length for rows, length in batches]


def test_earlier_batch_does_not_affect_the_next(session: ort.InferenceSession) -> None:
    bound = Bound(session, MAX_LENGTH, "cpu")
    small = batch(session, 1, 3, 1)
    before = bound.run(small)
    bound.run(batch(session, ROWS[-1], MAX_LENGTH, 2))
    bound.run(batch(session, 1, 16, 3))
    np.testing.assert_array_equal(bound.run(small), before)


def test_threads_do_not_write_over_each_other(session: ort.InferenceSession) -> None:
    bound = Bound(session, MAX_LENGTH, "cpu")
    feeds = [batch(session, 2, 9, seed) for seed in range(40)]
    wanted = [session.run(None, dict(feed))[0] for feed in feeds]
    with ThreadPoolExecutor(4) as pool:
        for found, right in zip(pool.map(bound.run, feeds), wanted, strict=True):
            np.testing.assert_allclose(found, right, atol=1e-3)
