"""The order of the tests: the files that it names exist."""

from __future__ import annotations

from pipeline.config_file import ROOT
from tests.support.order import FIRST_OF_GROUP, LONGEST


def test_named_files_exist() -> None:
    assert [name for name in (*LONGEST, *FIRST_OF_GROUP) if not (ROOT / name).is_file()] == []
