"""One model trained by several processes, a GPU each, started as torchrun starts them; every batch is shared out."""

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
from typing import Any

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

#: Seconds that processes have for a checkpoint when they are to stop.
GRACE = 60
#: How long one waits for the others before it takes them for dead.
START_TIMEOUT = timedelta(minutes=10)


@dataclass(frozen=True)
class Order:
    """What each process is asked for."""

    learn: Callable[..., dict[str, Any]]
    "Trains with a tracker and as many `threads`, and says its figures; it can be pickled."
    checkpoints: Path
    threads: int
    "Of each process."


def spread(order: Order, tracker: Tracker, processes: int) -> dict[str, Any]:
    """Train in several processes of this machine; figures are those of the first.

    It writes model and checkpoints, and is recorded by `tracker`. SIGTERM has a checkpoint written. Raises what
    `order.learn` raises, and ProcessError where one of them dies; then all are ended.
    """
    # Once, and not in each process: it deletes what is not whole.
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
            raise TerminatedError("stopped by SIGTERM; the same again goes on from its newest checkpoint") from error
        except ChildFailedError as error:
            raise ProcessError(f"a process of the training died: {error}") from error
    if isinstance(found, SaebyeokError):
        raise found
    figures: dict[str, Any] = found
    return figures


@contextmanager
def _heard(tracker: Tracker) -> Iterator[Connection]:
    """Where another process says what is to be recorded."""
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
    """The launcher sets a handler for SIGTERM, and leaves it."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


@contextmanager
def _may_have_children() -> Iterator[None]:
    """A worker of Celery is daemonic and may start none; these here end with their parent (`_end_with_parent`)."""
    process = current_process()
    before, process.daemon = process.daemon, False
    try:
        yield
    finally:
        process.daemon = before


class Distant(Tracker):
    """A tracker in another process than the run."""

    def __init__(self, sender: Connection) -> None:
        """`sender` leads to `_heard`."""
        super().__init__(None)
        self._sender = sender

    @override
    def trainer_callbacks(self) -> list[Any]:
        return [_Telling(self._sender)]


class _Telling(TrainerCallback):
    """Sends what is logged, under the names that transformers' own callback uses."""

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


def _train(order: Order, sender: Connection, level: int) -> dict[str, Any] | SaebyeokError:
    """What one process does; its rank among them is in its environment."""
    first = os.environ["RANK"] == "0"
    # accelerate warns of what it would otherwise choose itself.
    os.environ.setdefault("OMP_NUM_THREADS", str(order.threads))
    logging.basicConfig(stream=sys.stderr, level=level if first else logging.ERROR)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    tracker = Distant(sender) if first else Tracker(None)
    _meet()
    try:
        return order.learn(tracker, threads=order.threads)
    except TerminatedError as error:
        # Returning would wait for the launcher, which has been told to end and takes nothing any more.
        log.warning("%s", error)
        raise SystemExit(1) from error
    except SaebyeokError as error:
        # All of them raise it, at the same step.
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
    """A process whose parent was killed must not go on writing checkpoints: somebody else may by then."""
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
