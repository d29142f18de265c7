"""The end of a worker when BentoML's supervisor is killed."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

#: Environment variable with the process id of the supervisor, which `python -m serving` becomes.
SUPERVISOR = "SAEBYEOK_SUPERVISOR_PID"


def end_with_supervisor() -> None:
    """Make Linux stop this worker when its supervisor dies; in its own session it would keep running.

    A supervisor that died while this worker was starting sends no signal any more, so this worker stops at once. Only
    `python -m serving` names the supervisor; `bentoml serve` does not.
    """
    if sys.platform == "linux":
        set_parent_death_signal = 1
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGTERM)
    parent = str(os.getppid())
    if os.environ.get(SUPERVISOR, parent) != parent:
        os.kill(os.getpid(), signal.SIGTERM)
