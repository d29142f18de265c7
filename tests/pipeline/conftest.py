"""What more than one test of the pipeline needs: a real S3 server in this process (moto's), and tiny models."""

from __future__ import annotations

import gc
import shutil
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, tzinfo
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pipeline.store.artifacts import Store
from tests.support.shared import build_once, shared_directory

# What a fixture needs it imports itself: of moto, boto3 and torch each takes a second or more.
if TYPE_CHECKING:
    from pipeline.data.expectation_suite import OpenSuite
    from tests.support.bucket import Bucket, BucketServer
    from tests.support.small_pipeline import Road
    from tests.support.wandb_server import WandbServer


@pytest.fixture(scope="session")
def s3() -> Iterator[tuple[str, BucketServer]]:
    """A real S3 server in this process (moto's), its URL first."""
    from tests.support.bucket import s3_server

    with s3_server() as running:
        yield running


@pytest.fixture
def bucket(s3: tuple[str, BucketServer], monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    """An empty bucket; AWS's variables lead to it, also for subprocesses."""
    from tests.support.bucket import CREDENTIALS, Bucket

    endpoint, server = s3
    for name, value in {"AWS_ENDPOINT_URL": endpoint, **CREDENTIALS}.items():
        monkeypatch.setenv(name, value)
    made = Bucket(server, endpoint)
    made.client.create_bucket(Bucket=made.name)
    server.heal()
    yield made
    server.heal()


@pytest.fixture
def two_tries(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """S3 clients that ask no more than twice; a test may add to their configuration before one is made."""
    import fsspec
    from s3fs import S3FileSystem

    configuration: dict[str, Any] = {"retries": {"max_attempts": 0}}
    monkeypatch.setitem(fsspec.config.conf, "s3", {"config_kwargs": configuration})
    monkeypatch.setattr(S3FileSystem, "retries", 2)
    yield configuration
    # s3fs leaves broken connections to the collector, at which they warn: not in another test.
    gc.collect()


@pytest.fixture(params=["disk", "bucket"])
def uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a store is: a directory, and a bucket."""
    return str(tmp_path / "store") if request.param == "disk" else str(request.getfixturevalue("bucket").uri)


@pytest.fixture
def open_again(uri: str, tmp_path: Path) -> Callable[[], Store]:
    """Opens the same store as another process on the same machine would."""
    return lambda: Store(uri, tmp_path / "cache")


@pytest.fixture
def set_clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[timedelta], None]:
    """Sets the clock by which artifacts are made, so far from the right one."""

    def set_clock(error: timedelta) -> None:
        class Wrong(datetime):
            @classmethod
            def now(cls, tz: tzinfo | None = None) -> Any:
                return datetime.now(tz) + error

        monkeypatch.setattr("pipeline.store.artifacts.datetime", Wrong)

    return set_clock


@pytest.fixture
def forked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Training processes that are forked from one with the libraries; each would import them, for 7 CPU seconds."""
    from torch.distributed.launcher.api import LaunchConfig

    get_context("forkserver").set_forkserver_preload(["pipeline.training.fine_tune", "pipeline.pretraining.pretrain"])
    monkeypatch.setattr("pipeline.training.distributed.LaunchConfig", partial(LaunchConfig, start_method="forkserver"))


@pytest.fixture
def wandb_online(tracking_on: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[WandbServer]:
    """A Weights & Biases on loopback, and a key for it."""
    from tests.support.wandb_server import KEY, wandb_server

    with wandb_server() as server:
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        yield server


@pytest.fixture(scope="session")
def compiled_templates(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Great Expectations' page templates, compiled once for all workers; it compiles 37 of them per validation."""
    from jinja2 import Environment, FileSystemBytecodeCache

    directory = shared_directory(tmp_path_factory) / "templates"
    directory.mkdir(exist_ok=True)
    cached = partial(Environment, bytecode_cache=FileSystemBytecodeCache(str(directory)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("great_expectations.render.view.view.Environment", cached)
        yield


@pytest.fixture
def no_rule_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Validate without Great Expectations' pages, a third of the time for a few rules; `test_validate` opens them."""

    def build_site(opened: OpenSuite) -> Path:
        page = opened.project / "pages" / "expectations" / "suite.html"
        page.parent.mkdir(parents=True)
        page.write_text("<html><head></head></html>", encoding="utf-8")
        return page.parents[1]

    monkeypatch.setattr("pipeline.data.data_gate.build_site", build_site)


@pytest.fixture(scope="session")
def reviews(tmp_path_factory: pytest.TempPathFactory) -> Road:
    """A tiny classifier of single texts, and all that it was made from; shared, so never change it."""
    return _road(tmp_path_factory, "nsmc")


@pytest.fixture(scope="session")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Road:
    """A tiny bi-encoder, and all that it was made from; shared, so never change it."""
    return _road(tmp_path_factory, "klue-sts")


def _road(factory: pytest.TempPathFactory, name: str) -> Road:
    """A pipeline that is trained and evaluated once, in a copy for this worker, which may publish more in it."""
    from tests.support.small_pipeline import open_road, small_recipe

    def opened(home: Path) -> Road:
        return open_road(small_recipe(name), home, train=2000, test=400)

    evaluated = build_once(factory, f"road-{name}", lambda home: opened(home).evaluated)
    return opened(shutil.copytree(evaluated, factory.mktemp(name) / "home"))
