"""CUDA graphs for small batches: record the kernels of a few fixed shapes once, then replay them.

For a small batch, launching a model's kernels one by one takes longer than running them. A CUDA graph launches all at
once, but needs the same shapes and the same memory each time, so batches are padded to one of a few shapes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from typing import Any, TypeVar

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

T = TypeVar("T")

Feed = Mapping[str, NDArray[np.int32]]

LANE = ThreadPoolExecutor(1, thread_name_prefix="cuda")

#: Rows of the shapes, and the shortest length in tokens; lengths double up to the model's maximum.
ROWS, SHORTEST = (1, 2, 4, 8), 16
#: Runs of a shape before its first request: one selects kernels, one records, one replays.
WARM_UP_RUNS = 3


class Shape:
    """Memory for batches of one shape, bound to a session."""

    def __init__(self, session: ort.InferenceSession, rows: int, length: int, device: str, number: int) -> None:
        """`number` identifies the graph within the session."""
        self._session, self._binding = session, session.io_binding()
        self._options = ort.RunOptions()
        self._options.add_run_config_entry("gpu_graph_id", str(number))
        self._inputs = {}
        for item in session.get_inputs():
            empty = np.zeros((rows, length), dtype=np.int32)
            self._inputs[item.name] = ort.OrtValue.ortvalue_from_numpy(_filled(item.name, empty, 0), device, 0)
            self._binding.bind_ortvalue_input(item.name, self._inputs[item.name])
        (output,) = session.get_outputs()
        # The first run determines the output's shape and allocates its memory, which is then reused.
        self._binding.bind_output(output.name, device, 0)
        self._session.run_with_iobinding(self._binding, _unrecorded())
        self._output = self._binding.get_outputs()[0]
        self._binding.bind_ortvalue_output(output.name, self._output)

    def run(self, feed: Feed) -> NDArray[np.float32]:
        """Return the output for a batch of at most this shape, (rows of the batch, ...)."""
        rows, length = feed["input_ids"].shape
        for name, value in self._inputs.items():
            filled = np.zeros(value.shape(), dtype=np.int32)
            filled[:rows, :length] = feed[name]
            value.update_inplace(_filled(name, filled, rows))
        self._binding.synchronize_inputs()
        self._session.run_with_iobinding(self._binding, self._options)
        self._binding.synchronize_outputs()
        # Copy: the next batch overwrites this memory.
        return np.array(self._output.numpy()[:rows], dtype=np.float32)


class Bound:
    """A session that replays graphs for small batches and runs larger ones directly."""

    def __init__(self, session: ort.InferenceSession, longest: int, device: str) -> None:
        """Record all shapes, so that no request waits for it; `longest` is the model's maximum length in tokens."""
        self._session = session
        lengths = [min(SHORTEST, longest)]
        while lengths[-1] < longest:
            lengths.append(min(2 * lengths[-1], longest))
        self._keys = list(product(ROWS, lengths))
        self._shapes = in_lane(lambda: self._record(device))

    def _record(self, device: str) -> dict[tuple[int, int], Shape]:
        names = [item.name for item in self._session.get_inputs()]
        shapes = {}
        for number, (rows, length) in enumerate(self._keys, start=1):
            shape = Shape(self._session, rows, length, device, number)
            empty = np.zeros((rows, length), dtype=np.int32)
            for _ in range(WARM_UP_RUNS):
                shape.run({name: _filled(name, empty, 0) for name in names})
            shapes[rows, length] = shape
        return shapes

    def places(self, rows: int, length: int) -> int:
        """Return the number of tokens computed for a batch of that shape, padding included."""
        filled_rows, filled_length = self._key(rows, length) or (rows, length)
        return filled_rows * filled_length

    def run(self, feed: Feed) -> NDArray[np.float32]:
        """Return the output for a batch of any shape, (rows, ...)."""
        return in_lane(lambda: self._run(feed))

    def _run(self, feed: Feed) -> NDArray[np.float32]:
        key = self._key(*feed["input_ids"].shape)
        if key is not None:
            return self._shapes[key].run(feed)
        output: Any = self._session.run(None, dict(feed), _unrecorded())[0]
        return np.asarray(output, dtype=np.float32)

    def _key(self, rows: int, length: int) -> tuple[int, int] | None:
        """Return the smallest shape that fits the batch, or None if it is too large for all."""
        return next((key for key in self._keys if key[0] >= rows and key[1] >= length), None)


def in_lane(work: Callable[[], T]) -> T:
    """Run `work` in the only thread of this process that uses CUDA, and return its result.

    ONNX Runtime keeps graphs per thread, and nothing else in the process may use the GPU while a graph is recorded.
    """
    return LANE.submit(work).result()


def _filled(name: str, values: NDArray[np.int32], rows: int) -> NDArray[np.int32]:
    """Put one token into each unused row, from `rows` on: the mean of a row without tokens is undefined."""
    if name != "token_type_ids":
        values[rows:, 0] = 1
    return values


def _unrecorded() -> ort.RunOptions:
    """Return options for a run without a CUDA graph."""
    options = ort.RunOptions()
    options.add_run_config_entry("gpu_graph_id", "-1")
    return options
