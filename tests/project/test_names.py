"""One name for one thing: public classes of the project's modules."""

from __future__ import annotations

import ast
from collections import defaultdict

from tests.support.module_graph import modules


def test_public_classes_have_distinct_names() -> None:
    places = defaultdict(list)
    for module in modules():
        for node in ast.parse(module.path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].append(module.name)
    assert places["Recipe"] == ["pipeline.recipes.schema"]
    assert {name: found for name, found in places.items() if len(found) > 1} == {}
