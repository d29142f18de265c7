"""Daily files of reviews."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Sequence
from datetime import date, timedelta
from pathlib import Path

from tests.support.published import Row, reviews, write_reviews

FIRST = date(2015, 8, 1)
#: Number of usual days in most tests, and of the rows of a day.
DAYS, ROWS = 6, 300
HEADER = "id\tdocument\tlabel"


def day_of(number: int) -> date:
    return FIRST + timedelta(days=number)


def reviews_of(number: int, count: int = ROWS) -> list[Row]:
    """Return a usual day: 80% positive, with the same lengths and words as other days."""
    draw = random.Random(number)
    return [
        (f"{number}-{n}", f"{number}일 {n}번 영화 " + "좋다 " * draw.randrange(1, 9), str(int(draw.random() < 0.8)))
        for n in range(count)
    ]


def write_usual_days(data: Path) -> Path:
    """Write published files and six usual days below `data`, and return it."""
    write_reviews(data, reviews(60, 1), reviews(60, 5000))
    for number in range(DAYS):
        write_day(data, number, reviews_of(number))
    return data


def write_day(data: Path, number: int, rows: Sequence[Row | str], encoding: str = "utf-8") -> Path:
    """Write the file of a day. Its upload ended an hour ago."""
    file = data / "nsmc" / "daily" / f"{day_of(number)}.txt"
    file.parent.mkdir(parents=True, exist_ok=True)
    lines = [HEADER, *(row if isinstance(row, str) else "\t".join(row) for row in rows), ""]
    file.write_bytes("\n".join(lines).encode(encoding))
    ended = time.time() - 3600
    os.utime(file, (ended, ended))
    return file
