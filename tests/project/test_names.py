"""One name for one thing: public classes of the project and of the modules that its tests share."""

from __future__ import annotations

import re
from collections import defaultdict

from pipeline.config_file import ROOT
from tests.support.module_graph import FOLDERS


def test_public_classes_have_distinct_names() -> None:
    places = defaultdict(list)
    for path in (
        path for folder in (*FOLDERS, "benchmarks", "tests/support") for path in (ROOT / folder).rglob("*.py")
    ):
        for name in re.findall(r"^class ([A-Za-z]\w*)", path.read_text(encoding="utf-8"), re.MULTILINE):
            places[name].append(str(path.relative_to(ROOT)))
    assert places["Recipe"] == ["pipeline/recipes/schema.py"]
    assert {name: found for name, found in places.items() if len(found) > 1} == {}
