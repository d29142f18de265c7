"""Fixtures for every test: settings and a store in a temporary home, jobs, tiny models, the service, and real data."""

from __future__ import annotations

import gc
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from subprocess import CalledProcessError
from typing import TYPE_CHECKING

import pytest

from pipeline.config_file import ROOT
from pipeline.job import Job, day_of, open_store
from pipeline.recipes.schema import Recipe
from pipeline.settings import Settings, library_environment, load_settings
from pipeline.store.artifacts import Store
from tests.support.hook import Hook, web_hook
from tests.support.log_levels import log_levels_kept
from tests.support.shared import build_once

if TYPE_CHECKING:
    from tests.support.running_service import Service
    from tests.support.tiny_releases import Head, TinyModel

pytest_plugins = ("tests.support.needs", "tests.support.order")
SESSION_HOME = pytest.StashKey[Path]()
REAL_FILES = (
    "nsmc/ratings_train.txt",
    "nsmc/ratings_test.txt",
    "klue-sts/klue-sts-v1.1_train.json",
    "klue-sts/klue-sts-v1.1_dev.json",
)


def pytest_configure(config: pytest.Config) -> None:
    # Before any test module imports a library: what it caches goes to a directory that goes away,
    # and neither the user's settings nor the user's keys reach a test.
    home = Path(tempfile.mkdtemp(prefix="saebyeok-tests-"))
    config.stash[SESSION_HOME] = home
    # This run's options are not those of the pytest processes that tests start.
    os.environ.pop("PYTEST_ADDOPTS", None)
    for name in list(os.environ):
        ours = name.startswith(("SAEBYEOK_TEST_", "SAEBYEOK_SOAK_"))
        if name == "WANDB_API_KEY" or (name.startswith("SAEBYEOK_") and not ours):
            del os.environ[name]
    os.environ["SAEBYEOK_HOME"] = str(home)
    # The checkout's own configuration file is none of a test's business, either.
    os.environ["SAEBYEOK_CONFIG"] = os.devnull
    os.environ.update(library_environment(home))
    # Each process would list the fonts of the machine again.
    os.environ["MPLCONFIGDIR"] = str(ROOT / ".pytest_cache" / "matplotlib")
    # The cores go to pytest's workers; threads of theirs would wait for each other.
    os.environ["OMP_NUM_THREADS"] = "1"
    # A run of W&B takes a second or two; the tests that are about it switch it on (`tracking_on`).
    os.environ["WANDB_MODE"] = "disabled"
    # Files of tests need not survive a power cut: `tests/support/powercut.py` simulates one. Waiting for the disk would
    # double the time of tests that publish many artifacts.
    os.fsync = lambda descriptor: None
    # Nothing listens on port 1: a stack that `make up` left running is none of a test's business.
    os.environ["SAEBYEOK_SERVICE_URL"] = os.environ["SAEBYEOK_AIRFLOW_URL"] = "http://127.0.0.1:1"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    # Plain tests rarely wait, and each worker collects all of them. xdist itself counts cores that are not ours, too.
    return len(os.sched_getaffinity(0))


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    # The libraries and the tests last as long as the process. Searching them for garbage takes a seventh of the time of
    # their imports, and later half of the time of a tiny training: transformers collects garbage after each.
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    # Of the whole suite, and once. The plain tests run often, and the summary takes a second.
    part = config.args_source is not pytest.Config.ArgsSource.TESTPATHS or config.getoption("--plain")
    if part or hasattr(config, "workerinput"):
        return
    from tests.support.freshness import results, summary

    with suppress(OSError, CalledProcessError):  # without git nothing is known of it
        if line := summary(results()):
            terminalreporter.write_line(f"WARNING: {line}", yellow=True)


def pytest_unconfigure(config: pytest.Config) -> None:
    shutil.rmtree(config.stash[SESSION_HOME], ignore_errors=True)


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hook]:
    """Yield a web hook that receives the alerts."""
    with web_hook() as hook:
        monkeypatch.setenv("SAEBYEOK_ALERT_WEBHOOK", hook.url)
        yield hook


@pytest.fixture(autouse=True)
def kept_log_levels() -> Iterator[None]:
    """Put back the log levels that a test sets as a command of the command line does."""
    with log_levels_kept():
        yield


@pytest.fixture
def tracking_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights & Biases as a user has it who set nothing: offline."""
    monkeypatch.delenv("WANDB_MODE")


@pytest.fixture
def retries_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients of the service retry without a pause, for tests in which nothing answers."""
    from serving.client.calls import Backoff

    monkeypatch.setattr("serving.client.client.Backoff", lambda: Backoff(first=0.0))


@pytest.fixture
def no_bentos(monkeypatch: pytest.MonkeyPatch) -> None:
    """Deploy without the Bento, which takes several times as long as the rest; `test_bento` builds them."""
    monkeypatch.setattr("pipeline.deployment.deployer.ensure_bento", lambda *_: "")


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Default settings, with SAEBYEOK_HOME (in the environment too) in the test's own directory."""
    monkeypatch.setenv("SAEBYEOK_HOME", str(tmp_path / "home"))
    return load_settings()


@pytest.fixture
def store(settings: Settings) -> Store:
    """An empty local store."""
    return open_store(settings)


@pytest.fixture
def make_job(settings: Settings, store: Store) -> Callable[..., Job]:
    """`make_job(recipe, run="test-run", force=False)`: a job in the store of this test."""

    def make(recipe: Recipe, *, run: str = "test-run", force: bool = False) -> Job:
        return Job(recipe=recipe, settings=settings, store=store, run=run, force=force, cutoff=day_of(settings))

    return make


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The directory of the published files; the test skips where it is absent."""
    named = os.environ.get("SAEBYEOK_TEST_DATA")
    directory = Path(named).expanduser() if named else ROOT.parent / "shared" / "data"
    missing = [name for name in REAL_FILES if not (directory / name).is_file()]
    if missing:
        pytest.skip(f"{directory} does not hold {missing[0]}; name a directory that does in SAEBYEOK_TEST_DATA")
    return directory.resolve()


@pytest.fixture(scope="session")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> TinyModel:
    """A text classifier."""
    return _build(tmp_path_factory, "classify", seed=51)


@pytest.fixture(scope="session")
def other_classifier(tmp_path_factory: pytest.TempPathFactory) -> TinyModel:
    """Another text classifier, which answers differently."""
    return _build(tmp_path_factory, "classify", seed=80)


@pytest.fixture(scope="session")
def cross_encoder(tmp_path_factory: pytest.TempPathFactory) -> TinyModel:
    """A regression model that reads both sentences at once."""
    return _build(tmp_path_factory, "cross-encoder", seed=3)


@pytest.fixture(scope="session")
def pair_classifier(tmp_path_factory: pytest.TempPathFactory) -> TinyModel:
    """A classifier that reads both sentences at once."""
    return _build(tmp_path_factory, "classify-pairs", seed=11)


@pytest.fixture(scope="session")
def text_scorer(tmp_path_factory: pytest.TempPathFactory) -> TinyModel:
    """A regression model that reads single texts."""
    return _build(tmp_path_factory, "score", seed=5)


@pytest.fixture(scope="session")
def sentence_encoder(tmp_path_factory: pytest.TempPathFactory) -> TinyModel:
    """A regression model that compares sentence vectors."""
    return _build(tmp_path_factory, "bi-encoder", seed=29)


@pytest.fixture(scope="session")
def light(tmp_path_factory: pytest.TempPathFactory) -> TinyModel:
    """A text classifier made without torch, for tests that ask nothing of the model."""
    return _build_light(tmp_path_factory, seed=51)


@pytest.fixture(scope="session")
def other_light(tmp_path_factory: pytest.TempPathFactory) -> TinyModel:
    """Another one, which answers differently."""
    return _build_light(tmp_path_factory, seed=80)


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    """A service of two workers with nothing deployed, in a home of its own."""
    from tests.support.running_service import Service, service_settings

    running = Service(service_settings(tmp_path / "home"))
    try:
        running.wait_live()
        yield running
    finally:
        running.stop()


def _build(factory: pytest.TempPathFactory, head: Head, seed: int) -> TinyModel:
    """A model that is built once, whichever worker is first to ask for it."""
    from tests.support.tiny_releases import TinyModel

    def build(directory: Path) -> None:
        # Here and not at the top: torch takes seconds, and most tests need none of this.
        from tests.support.exported import build_model

        build_model(directory, head, seed)

    return TinyModel(build_once(factory, f"{head}-{seed}", build), head)


def _build_light(factory: pytest.TempPathFactory, seed: int) -> TinyModel:
    from tests.support.light import build_light_model

    return build_light_model(factory.mktemp("models") / "light", "classify", seed)
