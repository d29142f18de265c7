"""Distributed training: several processes with one GPU each, started as by torchrun, share every batch."""

from __future__ import annotations

import logging
import os
import secrets
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing import current_process, get_context, parent_process
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.integrations.integration_utils import rewrite_logs
from typing_extensions import override

from pipeline.errors import ProcessError, SaebyeokError, TerminatedError
from pipeline.models.hardware import best_device
from pipeline.tracking.tracker import STEP, Tracker
from pipeline.training.checkpoints import newest_checkpoint

log = logging.getLogger(__name__)

#: Seconds for processes to write a checkpoint before they are killed.
GRACE = 60
#: Time that a process waits for the others before it fails.
START_TIMEOUT = timedelta(minutes=10)
#: What a training returns: its figures, or a document.
Result = TypeVar("Result")


@dataclass(frozen=True)
class Order(Generic[Result]):
    """The work of each process."""

    learn: Callable[..., Result]
    "Trains with a tracker and `threads` threads; it and its result must be picklable."
    checkpoints: Path
    threads: int
    "Threads per process."


def spread(order: Order[Result], tracker: Tracker, processes: int) -> Result:
    """Train in several processes on this machine and return the result of the first.

    The first process writes model and checkpoints, and `tracker` records it. On SIGTERM, a checkpoint is written.
    Raises the errors of `order.learn`, and ProcessError if a process dies; all others are then ended.
    """
    # Call this once, not per process, because it deletes incomplete checkpoints.
    newest_checkpoint(order.checkpoints)
    log.info("training in %d processes", processes)
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id=secrets.token_hex(8),
        rdzv_backend="c10d",
        rdzv_endpoint="127.0.0.1:0",
        local_addr="127.0.0.1",
        max_restarts=0,
        signals_to_handle="SIGTERM",
        shutdown_timeout=GRACE,
        logs_specs=DefaultLogsSpecs(log_dir=str(order.checkpoints / "processes")),
    )
    with _heard(tracker) as sender, _signals_restored(), _may_have_children():
        try:
            found = elastic_launch(config, _train)(order, sender, logging.getLogger().level)[0]
        except SignalException as error:
            raise TerminatedError("stopped by SIGTERM; rerun the command to resume from a checkpoint") from error
        except ChildFailedError as error:
            raise ProcessError(f"a training process died; rerun the command to resume: {error}") from error
    if isinstance(found, SaebyeokError):
        raise found
    result: Result = found
    return result


@contextmanager
def _heard(tracker: Tracker) -> Iterator[Connection]:
    """Yield a connection through which another process sends log entries to `tracker`."""
    tracker.attempt(lambda run: run.define_metric("*", step_metric=STEP, step_sync=True))
    receiver, sender = get_context("spawn").Pipe(duplex=False)

    def listen() -> None:
        while True:
            try:
                tracker.log(*receiver.recv())
            except EOFError:
                return

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    try:
        yield sender
    finally:
        sender.close()
        listener.join()
        receiver.close()


@contextmanager
def _signals_restored() -> Iterator[None]:
    """Restore the handler of SIGTERM, which the launcher replaces."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


@contextmanager
def _may_have_children() -> Iterator[None]:
    """Let a daemonic process, such as a Celery worker, start children; they end with it (`_end_with_parent`)."""
    process = current_process()
    before, process.daemon = process.daemon, False
    try:
        yield
    finally:
        process.daemon = before


class Distant(Tracker):
    """A tracker that forwards to the run in the parent process."""

    def __init__(self, sender: Connection) -> None:
        """`sender` is the connection of `_heard`."""
        super().__init__(None)
        self._sender = sender

    @override
    def trainer_callbacks(self) -> list[Any]:
        return [_Telling(self._sender)]


class _Telling(TrainerCallback):
    """Callback that sends logged values, under the names that transformers' own W&B callback uses."""

    def __init__(self, sender: Connection) -> None:
        self._sender = sender

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        numbers = {name: float(value) for name, value in (logs or {}).items() if isinstance(value, int | float)}
        self._sender.send((rewrite_logs(numbers), state.global_step))  # type: ignore[no-untyped-call]


def _train(order: Order[Result], sender: Connection, level: int) -> Result | SaebyeokError:
    """Train in one process; its rank is in the environment."""
    first = os.environ["RANK"] == "0"
    # Otherwise accelerate chooses a value and warns about it.
    os.environ.setdefault("OMP_NUM_THREADS", str(order.threads))
    logging.basicConfig(stream=sys.stderr, level=level if first else logging.ERROR)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    tracker = Distant(sender) if first else Tracker(None)
    _meet()
    try:
        return order.learn(tracker, threads=order.threads)
    except TerminatedError as error:
        # Returning would wait for the launcher, which is ending and reads no more results.
        log.warning("%s", error)
        raise SystemExit(1) from error
    except SaebyeokError as error:
        # All processes raise it at the same step.
        return error
    finally:
        sender.close()
        torch.distributed.destroy_process_group()


def _meet() -> None:
    if best_device().type == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        torch.distributed.init_process_group("cpu:gloo,cuda:nccl", timeout=START_TIMEOUT)
    else:
        torch.distributed.init_process_group("gloo", timeout=START_TIMEOUT)


def _end_with_parent() -> None:
    """End this process when its parent dies, because a new run may be writing the same checkpoints by then."""
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
