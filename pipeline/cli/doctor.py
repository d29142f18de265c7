"""What may be wrong with this machine, and what to do about each."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Literal

import httpx
from pydantic import BaseModel, ConfigDict

from pipeline.devices import cuda_devices
from pipeline.errors import SaebyeokError
from pipeline.settings import ROOT, Settings
from pipeline.stack.preflight import RUN_BYTES, port_problem, room_problem, writing_problem
from pipeline.tracking.run_directories import run_directories

State = Literal["ok", "note", "problem"]


class Diagnosis(BaseModel):
    """One check: how it stands, and for a note or a problem what to do."""

    model_config = ConfigDict(frozen=True)

    check: str
    state: State
    text: str
    do: str = ""


def diagnose(settings: Settings, store: str | None = None) -> list[Diagnosis]:
    """All findings; a check that fails itself is a problem and stops no other."""
    checks: dict[str, Callable[[], Iterator[Diagnosis]]] = {
        "python": check_python,
        "packages": check_packages,
        "onnxruntime": check_onnxruntime,
        "gpu": check_gpu,
        "disk": lambda: check_disk(settings),
        "store": lambda: check_store(settings, store),
        "data": lambda: check_data(settings),
        "service": lambda: check_service(settings),
        "airflow": lambda: check_airflow(settings),
        "tracking": lambda: check_tracking(settings),
    }
    findings: list[Diagnosis] = []
    for name, check in checks.items():
        try:
            findings += check()
        except Exception as error:  # noqa: BLE001 - the doctor must not die of what it looks for
            findings.append(Diagnosis(check=name, state="problem", text=f"{type(error).__name__}: {error}"))
    return findings


def check_python() -> Iterator[Diagnosis]:
    """Python 3.11, which every pin is for."""
    version = ".".join(map(str, sys.version_info[:3]))
    good = sys.version_info[:2] == (3, 11)
    yield Diagnosis(
        check="python",
        state="ok" if good else "problem",
        text=f"Python {version} at {sys.executable}",
        do="" if good else "make the environment with Python 3.11: make up PYTHON=/path/to/python3.11",
    )


def check_packages(constraints: Path = ROOT / "constraints.txt") -> Iterator[Diagnosis]:
    """Installed versions against the constraints file."""
    if not constraints.is_file():
        yield Diagnosis(check="packages", state="note", text=f"there is no {constraints.name} to compare with")
        return
    wanted = dict(re.findall(r"^([A-Za-z0-9._-]+)==([^\s;#]+)", constraints.read_text(encoding="utf-8"), re.MULTILINE))
    installed = {_plain(item.name): item.version for item in metadata.distributions()}
    # A local part (2.13.0+cpu) says which build it is, not which version.
    differing = [
        f"{name} {installed[_plain(name)]} (not {version})"
        for name, version in wanted.items()
        if _plain(name) in installed and installed[_plain(name)].split("+")[0] != version.split("+")[0]
    ]
    known = sum(_plain(name) in installed for name in wanted)
    if not differing:
        yield Diagnosis(check="packages", state="ok", text=f"{known} packages are as {constraints.name} says")
        return
    yield Diagnosis(
        check="packages",
        state="problem",
        text=f"{len(differing)} of {known} packages differ from {constraints.name}: {', '.join(differing[:5])}",
        do=f'pip install -c {constraints.name} -e ".[airflow,train,serve,dev]"',
    )


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def check_onnxruntime() -> Iterator[Diagnosis]:
    """The CPU-only package shares its folder with the GPU one, and overwrites it."""
    installed = {_plain(item.name) for item in metadata.distributions()}
    if {"onnxruntime", "onnxruntime-gpu"} <= installed:
        yield Diagnosis(
            check="onnxruntime",
            state="problem",
            text="onnxruntime is installed beside onnxruntime-gpu and has overwritten part of it",
            do="pip uninstall -y onnxruntime onnxruntime-gpu, then install from constraints.txt again",
        )
    elif "onnxruntime-gpu" in installed:
        yield Diagnosis(check="onnxruntime", state="ok", text="onnxruntime-gpu is alone (it runs on CPUs, too)")
    else:
        yield Diagnosis(
            check="onnxruntime",
            state="note",
            text="onnxruntime-gpu is not installed: this machine can neither export nor serve",
            do='pip install -c constraints.txt -e ".[serve]"',
        )


def check_gpu() -> Iterator[Diagnosis]:
    """Whether the driver sees a GPU, and torch and ONNX Runtime really use it."""
    count = cuda_devices()
    if not count:
        yield Diagnosis(check="gpu", state="ok", text="no CUDA device is seen: training and serving use the CPU")
        return
    for library, works, reason in (("torch", *_torch_cuda()), ("onnxruntime", *_onnxruntime_cuda())):
        yield Diagnosis(
            check="gpu",
            state="ok" if works else "problem",
            text=f"{count} CUDA device(s); {library} {'uses them' if works else f'does not use them ({reason})'}",
            do="" if works else "install CUDA 13 builds as constraints.txt pins them, with cuDNN 9 (torch brings both)",
        )


def _torch_cuda() -> tuple[bool, str]:
    try:
        import torch
    except ImportError:
        return True, "not installed"
    return torch.cuda.is_available(), f"torch {torch.__version__} is built for CUDA {torch.version.cuda}"


def _onnxruntime_cuda() -> tuple[bool, str]:
    try:
        import onnxruntime
        from onnx import TensorProto, helper
    except ImportError as error:
        return False, f"{error.name} is not installed"
    onnxruntime.preload_dlls()
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Abs", ["x"], ["y"])], "probe", value[:1], value[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    # What it lists as available says nothing; only a session knows what it runs on.
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CUDAExecutionProvider"])
    return session.get_providers()[0] == "CUDAExecutionProvider", f"it fell back to {session.get_providers()[0]}"


def check_disk(settings: Settings) -> Iterator[Diagnosis]:
    """Whether SAEBYEOK_HOME can be written, with room for a run."""
    problem = writing_problem(settings.home) or room_problem(settings.home, RUN_BYTES)
    if problem:
        yield Diagnosis(check="disk", state="problem", text=problem)
    else:
        yield Diagnosis(check="disk", state="ok", text=f"{settings.home} can be written and has room for a run")


def check_store(settings: Settings, uri: str | None) -> Iterator[Diagnosis]:
    """Whether the store can be reached and written."""
    from pipeline.job import open_store

    try:
        store = open_store(settings, uri)
        kinds = store.list("")
        # Stays there: where it exists already, that the write is refused for this reason proves as much.
        store.create("doctor/probe.json", b"{}")
    except SaebyeokError as error:
        yield Diagnosis(
            check="store", state="problem", text=str(error), do="set SAEBYEOK_STORE to a place that can be written"
        )
        return
    yield Diagnosis(check="store", state="ok", text=f"{store.uri} can be read and written ({len(kinds)} entries)")


def check_data(settings: Settings) -> Iterator[Diagnosis]:
    """Which data a run would take."""
    if settings.data is None:
        text = "no data are named: runs take the shipped sample, whose figures mean nothing for real data"
        yield Diagnosis(
            check="data", state="note", text=text, do="set SAEBYEOK_DATA to the directory of the real files"
        )
    elif settings.source != "directory":
        text = f"runs take the published files by {settings.source}, kept in {settings.data}"
        yield Diagnosis(check="data", state="ok", text=text)
    elif not settings.data.is_dir():
        yield Diagnosis(
            check="data",
            state="problem",
            text=f"SAEBYEOK_DATA is {settings.data}, which is no directory",
            do="set it to the directory of the published files, or to nothing for the sample",
        )
    else:
        yield Diagnosis(check="data", state="ok", text=f"runs take the files in {settings.data}")


def check_service(settings: Settings) -> Iterator[Diagnosis]:
    """Whether the service answers, and with what."""
    url = settings.service_url
    try:
        alive = httpx.get(f"{url}/livez", timeout=5).is_success
        ready = httpx.get(f"{url}/readyz", timeout=5).is_success
    except httpx.HTTPError as error:
        yield _not_answering("service", url, "SAEBYEOK_SERVICE_URL", error)
        return
    if alive and ready:
        yield Diagnosis(check="service", state="ok", text=f"the service at {url} is ready")
    elif alive:
        text = f"the service at {url} is alive and not ready: nothing is deployed, or it cannot be loaded"
        yield Diagnosis(check="service", state="problem", text=text, do="saebyeok releases, then GET /releases there")
    else:
        text = f"what answers at {url} is not the service"
        yield Diagnosis(check="service", state="problem", text=text, do="choose another port in SAEBYEOK_SERVICE_URL")


def check_airflow(settings: Settings) -> Iterator[Diagnosis]:
    """Whether Airflow answers."""
    url = settings.airflow_url
    try:
        healthy = httpx.get(f"{url}/api/v2/monitor/health", timeout=5).is_success
    except httpx.HTTPError as error:
        yield _not_answering("airflow", url, "SAEBYEOK_AIRFLOW_URL", error)
        return
    if healthy:
        yield Diagnosis(check="airflow", state="ok", text=f"Airflow at {url} answers")
    else:
        text = f"what answers at {url} is not Airflow"
        yield Diagnosis(check="airflow", state="problem", text=text, do="choose another port in SAEBYEOK_AIRFLOW_URL")


def _not_answering(check: str, url: str, variable: str, error: httpx.HTTPError) -> Diagnosis:
    taken = port_problem(url, variable)
    if taken:
        return Diagnosis(check=check, state="problem", text=f"nothing useful answers at {url}: {error}", do=taken)
    return Diagnosis(check=check, state="note", text=f"nothing runs at {url}; the port is free", do="make up starts it")


def check_tracking(settings: Settings) -> Iterator[Diagnosis]:
    """Where Weights & Biases would record, and what waits to be sent there."""
    from pipeline.tracking.runs import choose_mode

    mode = choose_mode(os.environ)
    if mode == "online":
        yield Diagnosis(check="tracking", state="ok", text="Weights & Biases: online")
    elif os.environ.get("WANDB_API_KEY") and mode == "offline" and not os.environ.get("WANDB_MODE"):
        text = "Weights & Biases: a key is set and the server does not take it; runs are recorded offline"
        yield Diagnosis(
            check="tracking", state="problem", text=text, do="check the key, WANDB_BASE_URL and the network"
        )
    else:
        text = f"Weights & Biases: {mode}"
        yield Diagnosis(check="tracking", state="note", text=text, do="set WANDB_API_KEY to record online")
    if waiting := sum(not run.done for run in run_directories(settings.home)):
        text = f"{waiting} recorded runs are not at Weights & Biases"
        yield Diagnosis(check="tracking", state="note", text=text, do="saebyeok sync")
