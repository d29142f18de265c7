"""Test order: the slowest files first, or a random order with `--shuffle SEED`.

Workers take file after file, so the longest must not come last. With `--plain`, one worker takes all files of a group
in `TOGETHER`. `--shuffle` orders files by the seed, and also the tests of a file that needs nothing (see
`tests.support.needs`). Tests that share a server often depend on their order, so they keep it.
"""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING

import pytest

from pipeline.config_file import ROOT
from tests.support.needs import needs_of

if TYPE_CHECKING:
    from xdist.remote import Producer
    from xdist.scheduler import LoadFileScheduling

#: Files by time, the slowest first.
LONGEST = (
    "tests/e2e/test_up.py",
    "tests/project/test_gates.py",
    "tests/pipeline/tracking/test_sync.py",
    "tests/pipeline/deployment/test_deployer.py",
    "tests/pipeline/data/test_arrival_checks.py",
    "tests/serving/test_page.py",
    "tests/pipeline/training/test_distributed.py",
    "tests/docker/test_images.py",
    "tests/pipeline/stages/test_validate.py",
    "tests/dags/test_runs.py",
    "tests/pipeline/stages/test_export.py",
    "tests/pipeline/stages/test_train.py",
    "tests/pipeline/evaluation/test_champion_trial.py",
    "tests/pipeline/stack/test_installer.py",
    "tests/project/test_extras.py",
    "tests/pipeline/training/test_packing.py",
    "tests/pipeline/data/test_expectation_suite.py",
    "tests/pipeline/deployment/test_bento.py",
    "tests/pipeline/tracking/test_runs.py",
    "tests/serving/test_fuzz.py",
)
#: Groups of plain files whose worker needs seconds for something that the other files of the group need, too.
TOGETHER = (
    # The import of Great Expectations.
    (
        "tests/pipeline/cli/test_recipes.py",
        "tests/pipeline/data/test_expectation_suite.py",
        "tests/pipeline/data/test_overlap.py",
        "tests/pipeline/data/test_quarantine.py",
        "tests/pipeline/recipes/test_examples.py",
        "tests/pipeline/stages/test_validate.py",
        "tests/pipeline/stages/test_validate_own_data.py",
        "tests/pipeline/stages/test_validate_refusals.py",
        "tests/pipeline/stages/test_validate_reuse.py",
    ),
    # The graph of all modules.
    (
        "tests/project/test_extras.py",
        "tests/project/test_imports.py",
        "tests/project/test_kinds.py",
        "tests/project/test_longer.py",
    ),
)
FIRST_OF_GROUP = {file: group[0] for group in TOGETHER for file in group}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--shuffle", metavar="SEED", help="run tests in an order that follows from SEED")


def pytest_report_header(config: pytest.Config) -> str | None:
    seed = config.getoption("--shuffle")
    return f"the same order again: --shuffle {seed}" if seed else None


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadFileScheduling | None:
    if not config.getoption("--plain") or config.getoption("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class PlainScheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = super()._split_scope(nodeid)
            return FIRST_OF_GROUP.get(file, file)

    return PlainScheduling(config, log)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item], config: pytest.Config) -> None:
    seed = config.getoption("--shuffle")
    needy = {item.path for item in items if needs_of(item)}

    def by_length(item: pytest.Item) -> tuple[int, bool]:
        path = item.path.relative_to(ROOT).as_posix() if item.path.is_relative_to(ROOT) else ""
        return LONGEST.index(path) if path in LONGEST else len(LONGEST), item.path not in needy

    def by_seed(item: pytest.Item) -> tuple[bytes, bytes]:
        return drawn(seed, item.path), b"" if item.path in needy else drawn(seed, item.nodeid)

    items.sort(key=by_seed if seed else by_length)


def drawn(seed: str, name: object) -> bytes:
    """Return the sort key of `name` for `seed`."""
    return sha256(f"{seed} {name}".encode()).digest()
