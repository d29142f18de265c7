"""Import the stages' heavy libraries once, in the process from which the local stack forks its tasks."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module

from pipeline.devices import cuda_devices

#: Modules that take seconds to import. None of Saebyeok's own: a task must use the code as of its own start.
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
    "wandb",
)
#: The process from which the executor's workers, and so all tasks, are forked.
PARENT = "scheduler"


def preload(arguments: Sequence[str]) -> None:
    """Import `HEAVY` if `arguments` are those of the parent of all tasks and the machine has no GPU.

    An initialised CUDA context does not survive a fork, and an import may initialise CUDA.
    """
    if list(arguments[1:2]) == [PARENT] and not cuda_devices():
        import_heavy()


def import_heavy() -> None:
    """Import `HEAVY`."""
    for name in HEAVY:
        import_module(name)


if __name__ == "__main__":
    import_heavy()
