"""Open ONNX Runtime sessions on the CPU or a GPU."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from pipeline.devices import cuda_devices
from pipeline.errors import ArtifactError
from pipeline.store.releases import Card, Variant
from serving.engine.cuda_graphs import Bound, Feed, in_lane

log = logging.getLogger(__name__)
Device = Literal["cpu", "cuda"]
Floats = NDArray[np.float32]
PROVIDERS: dict[Device, str] = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


@dataclass(frozen=True)
class Running:
    """A session, with the CUDA graphs of its small batches if available."""

    session: ort.InferenceSession
    bound: Bound | None = None
    device: Device = "cpu"

    def run(self, feed: Feed) -> Floats:
        """Return the model's output for one padded batch, (rows, ...)."""
        if self.bound is not None:
            return self.bound.run(feed)
        outputs = in_lane(lambda: self._outputs(feed)) if self.device == "cuda" else self._outputs(feed)
        return np.asarray(outputs[0], dtype=np.float32)

    def places(self, rows: int, length: int) -> int:
        """Return the number of tokens computed for a padded batch of that shape, by a file that computes padding."""
        return self.bound.places(rows, length) if self.bound else rows * length

    def _outputs(self, feed: Feed) -> Sequence[Any]:
        found: Sequence[Any] = self.session.run(None, dict(feed))
        return found


def open_variant(directory: Path, card: Card, device: Device | None, variant: int) -> tuple[Device, Running]:
    """Open file number `variant` of a release on `device` (None: a GPU if one works, else the CPU).

    Raises ArtifactError if CUDA is requested and cannot be used.
    """
    if device != "cpu" and card.variants.get("cuda") and (device == "cuda" or cuda_devices() > 0):
        running = _open_cuda(directory, card, card.variants["cuda"][variant])
        # Without its CUDA libraries ONNX Runtime falls back to the CPU; only this list shows it.
        if running.session.get_providers()[0] == PROVIDERS["cuda"]:
            return "cuda", running
        if device == "cuda":
            raise ArtifactError(f"{card.id}: CUDA was requested, but ONNX Runtime cannot use it; see its log above")
        log.warning("%s: this machine has a GPU, but ONNX Runtime cannot use it; running on the CPU", card.id)
    elif device == "cuda":
        raise ArtifactError(
            f"{card.id}: CUDA was requested, but the release has no file for it; set SAEBYEOK_DEVICE=cpu, or export "
            "again"
        )
    if not card.variants.get("cpu"):
        raise ArtifactError(f"{card.id}: the release has no file for a CPU; export it again")
    return "cpu", Running(_session(directory, card, "cpu", card.variants["cpu"][variant].file))


def _open_cuda(directory: Path, card: Card, chosen: Variant) -> Running:
    # A packed model reads the number of tokens back from the GPU, which a CUDA graph cannot do.
    if not chosen.packed:
        try:
            session = _session(directory, card, "cuda", chosen.file, recorded=True)
            if session.get_providers()[0] == PROVIDERS["cuda"]:
                return Running(session, Bound(session, card.max_length, "cuda"), "cuda")
        except Exception as error:  # noqa: BLE001 - ONNX Runtime's errors have no common base but Exception
            log.warning("%s: CUDA graphs are disabled for small batches (%s)", card.id, error)
    return Running(_session(directory, card, "cuda", chosen.file), device="cuda")


def _session(directory: Path, card: Card, device: Device, file: str, *, recorded: bool = False) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    # Spinning threads of several processes would compete for the cores.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    if device == "cuda":
        ort.preload_dlls()
    providers = [(PROVIDERS[device], {"enable_cuda_graph": "1"} if recorded else {})]

    def load() -> ort.InferenceSession:
        return ort.InferenceSession(str(directory / file), options, providers=providers)

    try:
        return in_lane(load) if device == "cuda" else load()
    except Exception as error:  # ONNX Runtime's errors have no common base but Exception
        raise ArtifactError(
            f"{card.id}: its {device} model {directory / file} cannot be loaded ({error}); export the release again, "
            "or use another device (SAEBYEOK_DEVICE)"
        ) from error
