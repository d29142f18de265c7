"""Checks of this machine, and a suggested fix for each problem."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Literal

import httpx
from pydantic import BaseModel, ConfigDict

from pipeline.config_file import ROOT
from pipeline.devices import cuda_devices
from pipeline.errors import RecipeError, SaebyeokError
from pipeline.http_requests import get
from pipeline.recipes.files import NAMING, misnamed_files, recipe_directories, shown
from pipeline.recipes.loading import load_recipe, recipe_names
from pipeline.settings import Settings
from pipeline.stack.installer import canonical
from pipeline.stack.preflight import RUN_BYTES, port_problem, room_problem, writing_problem
from pipeline.tracking.run_directories import run_directories

CheckState = Literal["ok", "note", "problem"]


class Diagnosis(BaseModel):
    """Result of one check; `do` is the suggested fix of a note or a problem."""

    model_config = ConfigDict(frozen=True)

    check: str
    state: CheckState
    text: str
    do: str = ""


def diagnose(settings: Settings, store: str | None = None) -> list[Diagnosis]:
    """Return all findings. A check that raises an error counts as a problem; the other checks still run."""
    checks: dict[str, Callable[[], Iterator[Diagnosis]]] = {
        "python": check_python,
        "packages": check_packages,
        "onnxruntime": check_onnxruntime,
        "gpu": check_gpu,
        "disk": lambda: check_disk(settings),
        "store": lambda: check_store(settings, store),
        "recipes": lambda: check_recipes(settings),
        "data": lambda: check_data(settings),
        "service": lambda: check_service(settings),
        "airflow": lambda: check_airflow(settings),
        "tracking": lambda: check_tracking(settings),
    }
    findings: list[Diagnosis] = []
    for name, check in checks.items():
        try:
            findings += check()
        except Exception as error:  # noqa: BLE001 - one broken check must not stop the others
            findings.append(Diagnosis(check=name, state="problem", text=f"{type(error).__name__}: {error}"))
    return findings


def check_python() -> Iterator[Diagnosis]:
    """Check that Python is one of the versions that constraints.txt is for."""
    version = ".".join(map(str, sys.version_info[:3]))
    good = (3, 11) <= sys.version_info[:2] <= (3, 13)
    yield Diagnosis(
        check="python",
        state="ok" if good else "problem",
        text=f"Python {version} at {sys.executable}",
        do="" if good else "create the environment with Python 3.11, 3.12 or 3.13: make up PYTHON=/path/to/python3.12",
    )


def check_packages(constraints: Path = ROOT / "constraints.txt") -> Iterator[Diagnosis]:
    """Compare the installed versions with the constraints file."""
    if not constraints.is_file():
        yield Diagnosis(check="packages", state="note", text=f"no {constraints.name} to compare the packages with")
        return
    wanted = dict(re.findall(r"^([A-Za-z0-9._-]+)==([^\s;#]+)", constraints.read_text(encoding="utf-8"), re.MULTILINE))
    # `name` and `version` of a distribution would parse its metadata twice.
    installed = {canonical(item["Name"]): item["Version"] for item in (d.metadata for d in metadata.distributions())}
    # The local part (2.13.0+cpu) names the build, not the version.
    differing = [
        f"{name} {installed[canonical(name)]} (not {version})"
        for name, version in wanted.items()
        if canonical(name) in installed and installed[canonical(name)].split("+")[0] != version.split("+")[0]
    ]
    known = sum(canonical(name) in installed for name in wanted)
    if not differing:
        yield Diagnosis(check="packages", state="ok", text=f"all {known} packages match {constraints.name}")
        return
    yield Diagnosis(
        check="packages",
        state="problem",
        text=f"{len(differing)} of {known} packages differ from {constraints.name}: {', '.join(differing[:5])}",
        do=f'pip install -c {constraints.name} -e ".[airflow,train,serve,dev]"',
    )


def check_onnxruntime() -> Iterator[Diagnosis]:
    """Check that onnxruntime-gpu is installed alone: the CPU package would overwrite its folder."""
    cpu, gpu = (any(metadata.distributions(name=name)) for name in ("onnxruntime", "onnxruntime-gpu"))
    if cpu and gpu:
        yield Diagnosis(
            check="onnxruntime",
            state="problem",
            text="both onnxruntime and onnxruntime-gpu are installed, and the first has overwritten part of the second",
            do="pip uninstall -y onnxruntime onnxruntime-gpu, then install from constraints.txt again",
        )
    elif gpu:
        yield Diagnosis(check="onnxruntime", state="ok", text="onnxruntime-gpu is installed (it also runs on CPUs)")
    else:
        yield Diagnosis(
            check="onnxruntime",
            state="note",
            text="onnxruntime-gpu is not installed, so this machine can neither export nor serve",
            do='pip install -c constraints.txt -e ".[serve]"',
        )


def check_gpu() -> Iterator[Diagnosis]:
    """Check whether the driver finds a GPU, whether torch and ONNX Runtime actually use it, and for a C compiler."""
    count = cuda_devices()
    if not count:
        yield Diagnosis(check="gpu", state="ok", text="no CUDA device found: training and serving use the CPU")
        return
    for library, works, reason in (("torch", *_torch_cuda()), ("onnxruntime", *_onnxruntime_cuda())):
        yield Diagnosis(
            check="gpu",
            state="ok" if works else "problem",
            text=f"{count} CUDA device(s); {library} {'uses them' if works else f'does not use them ({reason})'}",
            do="" if works else "delete .venv and run make venv: on a machine with a GPU it installs the CUDA builds",
        )
    yield _compiler()


def _compiler() -> Diagnosis:
    """Return whether there is a C compiler where Triton looks for one; torch compiles layers with it."""
    if found := os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang"):
        return Diagnosis(check="gpu", state="ok", text=f"C compiler for torch: {found}")
    return Diagnosis(
        check="gpu",
        state="problem",
        text="no C compiler found: a training that compiles its layers fails",
        do="install gcc and the headers of the C library (Debian: apt-get install gcc libc6-dev), or set CC",
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
    # ONNX Runtime lists providers as available that fail to load; only a session shows the provider in use.
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CUDAExecutionProvider"])
    return session.get_providers()[0] == "CUDAExecutionProvider", f"it fell back to {session.get_providers()[0]}"


def check_disk(settings: Settings) -> Iterator[Diagnosis]:
    """Check that SAEBYEOK_HOME is writable and has enough free space for a run."""
    problem = writing_problem(settings.home) or room_problem(settings.home, RUN_BYTES)
    if problem:
        yield Diagnosis(check="disk", state="problem", text=problem)
    else:
        yield Diagnosis(
            check="disk", state="ok", text=f"{settings.home} is writable and has enough free space for a run"
        )


def check_store(settings: Settings, uri: str | None) -> Iterator[Diagnosis]:
    """Check that the store is reachable and writable."""
    from pipeline.job import open_store

    try:
        store = open_store(settings, uri)
        kinds = store.list("")
        # The probe stays in the store. If it exists already, the refused write proves access just as well.
        store.create("doctor/probe.json", b"{}")
    except SaebyeokError as error:
        yield Diagnosis(check="store", state="problem", text=str(error), do="set SAEBYEOK_STORE to a writable location")
        return
    yield Diagnosis(check="store", state="ok", text=f"{store.uri} is readable and writable ({len(kinds)} entries)")


def check_recipes(settings: Settings) -> Iterator[Diagnosis]:
    """Check that every recipe is valid, and that no directory is missing and no file ignored because of its name."""
    places = recipe_directories(settings.recipes)
    names = recipe_names(places)
    problems = [f"SAEBYEOK_RECIPES names {place}, which is not a directory" for place in places if not place.is_dir()]
    problems += [f"{shown(path)} is ignored; {NAMING}" for path in misnamed_files(places)]
    for name in names:
        try:
            load_recipe(name, settings.profile, directories=places)
        except RecipeError as error:
            problems.append(str(error))
    if problems:
        for problem in problems:
            yield Diagnosis(check="recipes", state="problem", text=problem, do="correct it, or move it away")
    else:
        yield Diagnosis(check="recipes", state="ok", text=f"the recipes are valid: {', '.join(names)}")


def check_data(settings: Settings) -> Iterator[Diagnosis]:
    """Report which data a run would use."""
    if settings.data is None:
        text = "SAEBYEOK_DATA is not set: runs use the synthetic sample, whose metrics say nothing about real data"
        yield Diagnosis(
            check="data", state="note", text=text, do="set SAEBYEOK_DATA to the directory of the published files"
        )
    elif settings.source != "directory":
        text = f"runs get the published files by {settings.source} and keep them in {settings.data}"
        yield Diagnosis(check="data", state="ok", text=text)
    elif not settings.data.is_dir():
        yield Diagnosis(
            check="data",
            state="problem",
            text=f"SAEBYEOK_DATA is {settings.data}, which is not a directory",
            do="set it to the directory of the published files, or unset it to use the sample",
        )
    else:
        yield Diagnosis(check="data", state="ok", text=f"runs use the files in {settings.data}")


def check_service(settings: Settings) -> Iterator[Diagnosis]:
    """Check whether the service answers, and whether it is ready."""
    url = settings.service_url
    try:
        alive, ready = (get(f"{url}{path}", timeout=5).is_success for path in ("/livez", "/readyz"))
    except httpx.HTTPError as error:
        yield _not_answering("service", url, "SAEBYEOK_SERVICE_URL", error)
        return
    if alive and ready:
        yield Diagnosis(check="service", state="ok", text=f"the service at {url} is ready")
    elif alive:
        text = f"the service at {url} is alive but not ready: nothing is deployed, or the release cannot be loaded"
        yield Diagnosis(check="service", state="problem", text=text, do="run `saebyeok releases`, then GET /releases")
    else:
        text = f"another program answers at {url}, not the service"
        yield Diagnosis(check="service", state="problem", text=text, do="choose another port in SAEBYEOK_SERVICE_URL")


def check_airflow(settings: Settings) -> Iterator[Diagnosis]:
    """Check whether Airflow answers."""
    url = settings.airflow_url
    try:
        healthy = get(f"{url}/api/v2/monitor/health", timeout=5).is_success
    except httpx.HTTPError as error:
        yield _not_answering("airflow", url, "SAEBYEOK_AIRFLOW_URL", error)
        return
    if healthy:
        yield Diagnosis(check="airflow", state="ok", text=f"Airflow at {url} answers")
    else:
        text = f"another program answers at {url}, not Airflow"
        yield Diagnosis(check="airflow", state="problem", text=text, do="choose another port in SAEBYEOK_AIRFLOW_URL")


def _not_answering(check: str, url: str, variable: str, error: httpx.HTTPError) -> Diagnosis:
    taken = port_problem(url, variable)
    if taken:
        return Diagnosis(check=check, state="problem", text=f"no valid answer from {url}: {error}", do=taken)
    return Diagnosis(check=check, state="note", text=f"nothing runs at {url}; the port is free", do="start it: make up")


def check_tracking(settings: Settings) -> Iterator[Diagnosis]:
    """Report the Weights & Biases mode, and how many offline runs wait for upload."""
    from pipeline.tracking.runs import find_destination

    mode = find_destination(os.environ).mode
    if mode == "online":
        yield Diagnosis(check="tracking", state="ok", text="Weights & Biases: online")
    elif os.environ.get("WANDB_API_KEY") and mode == "offline" and not os.environ.get("WANDB_MODE"):
        text = "Weights & Biases: the server does not accept WANDB_API_KEY, so runs are recorded offline"
        yield Diagnosis(
            check="tracking", state="problem", text=text, do="check the key, WANDB_BASE_URL and the network"
        )
    else:
        text = f"Weights & Biases: {mode}"
        yield Diagnosis(check="tracking", state="note", text=text, do="set WANDB_API_KEY to record online")
    if waiting := sum(not run.done for run in run_directories(settings.home)):
        text = f"{waiting} offline runs are not uploaded to Weights & Biases yet"
        yield Diagnosis(check="tracking", state="note", text=text, do="saebyeok sync")
