"""The reference page of the DAGs matches the DAG files."""

from __future__ import annotations

from pathlib import Path

import pytest

from docs.generated import filled, generator

pytestmark = pytest.mark.airflow


def test_page_matches_the_dag_files(airflow_home: Path) -> None:
    found = generator("dag_parameters")
    assert filled(found.PAGE, found.sections()) == found.PAGE.read_text(encoding="utf-8"), "run: make reference"
