"""Airflow in this process: home, database, parsed DAGs, single tasks and whole runs."""

from __future__ import annotations

import importlib
import os
import secrets
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import pytest

from pipeline.config_file import ROOT
from pipeline.settings import Settings
from pipeline.store.artifacts import Artifact, Store
from pipeline.store.checks import TaskCheck
from pipeline.store.decisions import Decision
from pipeline.store.figures import DecisionFigures
from tests.support.light import build_light_model
from tests.support.made_figures import comparison, threshold
from tests.support.tiny_releases import TinyModel, make_artifact, make_trained

if TYPE_CHECKING:
    from airflow.dag_processing.dagbag import BundleDagBag
    from airflow.sdk import Context

RUN = "manual__2026-11-29"


@pytest.fixture(scope="session")
def airflow_home() -> Iterator[Path]:
    """Yield AIRFLOW_HOME of this session, with this checkout's DAGs and plugins, without a database."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "CORE__LOAD_EXAMPLES": "False",
            "CORE__DAGS_FOLDER": str(ROOT / "dags"),
            "CORE__PLUGINS_FOLDER": str(ROOT / "plugins"),
            "API_AUTH__JWT_SECRET": secrets.token_hex(64),
        }.items():
            patch.setenv(f"AIRFLOW__{name}", value)
        # As in Airflow: DAG files import each other by bare name.
        patch.syspath_prepend(str(ROOT / "dags"))
        yield Path(os.environ["AIRFLOW_HOME"])


@pytest.fixture(scope="session")
def database(airflow_home: Path) -> Path:
    """Return Airflow's database, created as by `airflow db migrate`."""
    from airflow.utils.db import initdb

    initdb()
    return airflow_home / "airflow.db"


def parse(folder: Path = ROOT / "dags") -> BundleDagBag:
    """Return the DAGs of a folder, as Airflow's DAG processor parses them."""
    from airflow.dag_processing.dagbag import BundleDagBag

    return BundleDagBag(str(folder), bundle_path=folder, bundle_name="dags-folder")


@pytest.fixture(scope="session")
def bag(airflow_home: Path) -> BundleDagBag:
    """Return the DAGs of this checkout; they are shared, so tests must not change them."""
    return parse()


@pytest.fixture(scope="session")
def wiring(airflow_home: Path) -> ModuleType:
    return importlib.import_module("wiring")


@pytest.fixture(scope="session")
def nightly(airflow_home: Path) -> ModuleType:
    return importlib.import_module("nightly_retrain")


@pytest.fixture(scope="session")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> TinyModel:
    """Return a text classifier."""
    return build_light_model(tmp_path_factory.mktemp("models") / "one", "classify", seed=51)


@pytest.fixture(scope="session")
def other_classifier(tmp_path_factory: pytest.TempPathFactory) -> TinyModel:
    """Return another text classifier, with different answers."""
    return build_light_model(tmp_path_factory.mktemp("models") / "other", "classify", seed=80)


@dataclass
class Instance:
    """The attributes of the running task instance that the DAGs use."""

    dag_id: str = "nightly_retrain"
    task_id: str = "nsmc.validate"
    map_index: int = -1
    id: UUID = field(default_factory=uuid4)
    pushed: dict[str, Any] = field(default_factory=dict)
    run_id: str = RUN

    def xcom_push(self, key: str, value: Any) -> None:
        self.pushed[key] = value


@pytest.fixture
def in_task(nightly: ModuleType, settings: Settings) -> Iterator[Callable[..., Context]]:
    """Return `in_task(**params)`, which makes this a task of run `RUN` with these parameters and form defaults."""
    from airflow.sdk.execution_time.context import OutletEventAccessors, set_current_context

    with ExitStack() as stack:

        def enter(**params: Any) -> Context:
            instance = Instance()
            context: Any = {
                "params": {name: param.resolve() for name, param in nightly.PARAMS.items()} | params,
                "run_id": RUN,
                "dag_run": SimpleNamespace(
                    run_after=datetime(2026, 11, 28, 18, tzinfo=UTC), triggering_user_name="kim"
                ),
                "logical_date": None,
                "ti": instance,
                "task_instance": instance,
                "outlet_events": OutletEventAccessors(),
            }
            entered: Context = stack.enter_context(set_current_context(context))
            return entered

        yield enter


@dataclass(frozen=True)
class DagRun:
    """A finished run."""

    id: str
    state: str
    tasks: dict[str, str]


@pytest.fixture
def airflow(database: Path, bag: BundleDagBag, settings: Settings) -> Callable[..., DagRun]:
    """Return `airflow(dag, **conf)`, which runs a DAG to its end in this process, in the test's own home."""

    def run(dag: str, **conf: Any) -> DagRun:
        return finished_run(database, bag, dag, conf)

    return run


def finished_run(database: Path, bag: BundleDagBag, dag: str, conf: dict[str, Any]) -> DagRun:
    """Run a DAG of `bag` to its end in this process."""
    made = bag.dags[dag].test(run_conf=conf)
    states = rows(
        database, "select task_id, state from task_instance where dag_id = ? and run_id = ?", dag, made.run_id
    )
    return DagRun(made.run_id, str(made.state), dict(states))


def rows(database: Path, query: str, *values: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(database)) as connection:
        return connection.execute(query, values).fetchall()


def make_decided(
    store: Store,
    *,
    promote: bool = True,
    champion: str | None = None,
    compared: bool = False,
    run: str = RUN,
    trained: Artifact | None = None,
    evaluated: Artifact | None = None,
    waivable: bool = False,
) -> Artifact:
    """Return a decision about a model of nsmc, a new one or `trained`; with `compared` it is not the champion's."""
    trained = trained or make_trained(store)
    inputs = {"trained": {"ref": trained.ref, "key": trained.key}}
    evaluated = evaluated or make_artifact(store, "evaluate", "nsmc", inputs)
    first = TaskCheck(value=0.0, bound=1.0, passed=promote, task="a", champions="b") if waivable else None
    checks = (
        first or threshold(0.8571, 0.84 if promote else 0.9),
        *([comparison(0.125, 0.01)] if compared else []),
    )
    decision = Decision(promote=promote, champion=champion, best=None, notes=(), checks=checks)
    with store.draft() as draft:
        (draft / "decision.json").write_text(decision.model_dump_json(), encoding="utf-8")
        return store.publish(
            draft,
            "decide",
            "nsmc",
            "d" * 16,
            run=run,
            inputs={"evaluated": {"ref": evaluated.ref, "key": evaluated.key}},
            fields={},
            figures=DecisionFigures(promote=promote, reason=decision.reason).document(),
        )
