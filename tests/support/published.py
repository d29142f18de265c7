"""Small data files in the published formats."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

#: Overrides for `load_recipe` that allow small files.
SMALL = {"data.min_train_rows": 40, "data.min_test_rows": 20}
#: The same, and no row may be set aside: a share of which so few rows may have none.
STRICT = SMALL | {"data.quarantine": 1e-6}
Row = tuple[str, str, str]


def reviews(count: int, first: int) -> list[Row]:
    return [(str(first + n), f"{first + n}번째 영화, {'좋다' if n % 2 else '싫다'}", str(n % 2)) for n in range(count)]


def write_reviews(data: Path, train: list[Row], test: list[Row]) -> None:
    (data / "nsmc").mkdir(parents=True, exist_ok=True)
    for name, rows in (("ratings_train", train), ("ratings_test", test)):
        lines = ["id\tdocument\tlabel", *("\t".join(row) for row in rows)]
        (data / "nsmc" / f"{name}.txt").write_bytes(("\n".join(lines) + "\n").encode())


def pairs(count: int, name: str) -> list[dict[str, Any]]:
    return [
        {
            "guid": f"{name}-{n}",
            "source": "made-up",
            "sentence1": f"{name} {n}번 버스가 온다.",
            "sentence2": f"{n}번 버스가 갔다.",
            "labels": {"real-label": n % 6},
        }
        for n in range(count)
    ]


def write_pairs(data: Path, train: Any, test: Any, *, ascii_only: bool = False) -> None:
    (data / "klue-sts").mkdir(parents=True, exist_ok=True)
    for name, items in (("train", train), ("dev", test)):
        text = json.dumps(items, ensure_ascii=ascii_only)
        (data / "klue-sts" / f"klue-sts-v1.1_{name}.json").write_text(text, encoding="utf-8")
