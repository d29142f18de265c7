"""Imports what the stages build with where the local stack's task processes are forked from."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module

from pipeline.devices import cuda_devices

#: Seconds of imports each. Nothing of Saebyeok's own: a task must see the code as it is when the task starts.
HEAVY = (
    "great_expectations",
    "matplotlib.figure",
    "onnx",
    "pandas",
    "scipy.stats",
    "sklearn.metrics",
    "torch",
    "transformers.models.auto.modeling_auto",
    "transformers.models.auto.tokenization_auto",
    "transformers.models.bert.modeling_bert",
    "transformers.trainer",
)
#: The process that the executor's workers, and with them all tasks, are forked from.
PARENT = "scheduler"


def preload(arguments: Sequence[str]) -> None:
    """Import `HEAVY` where `arguments` are those of the parent of all tasks, and there is no GPU.

    What CUDA has set up does not survive a fork, and whether an import sets it up is not ours to say.
    """
    if list(arguments[1:2]) == [PARENT] and not cuda_devices():
        for name in HEAVY:
            import_module(name)
