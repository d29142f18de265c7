"""A data set of one's own: 900 headlines with Korean class names."""

from __future__ import annotations

import csv
import random
from pathlib import Path

WORDS = {
    "정치": ("국회", "대통령", "선거", "여당", "야당", "법안", "장관"),
    "경제": ("주가", "금리", "수출", "환율", "물가", "부동산", "은행"),
    "스포츠": ("야구", "축구", "감독", "결승", "선수", "우승", "경기장"),
}
ENDS = ("관련 소식이 전해졌다", "두고 전망이 엇갈린다", "오늘 크게 주목받았다", "내일 결과가 나온다")


def headlines(rows: int = 900, seed: int = 3) -> list[dict[str, str]]:
    """Return headlines whose words tell their topic, with 5% of wrong labels."""
    drawn = random.Random(seed)
    made = []
    for number in range(rows):
        topic = drawn.choice(list(WORDS))
        words = drawn.sample(WORDS[topic], 3)
        label = drawn.choice(list(WORDS)) if drawn.random() < 0.05 else topic
        made.append({"제목": f"{', '.join(words)} {number}건 {drawn.choice(ENDS)}", "분야": label})
    return made


def write_headlines(path: Path, *, encoding: str = "utf-8", delimiter: str = ",") -> Path:
    """Write the headlines as a CSV."""
    with path.open("w", encoding=encoding, newline="") as file:
        writer = csv.DictWriter(file, ["제목", "분야"], delimiter=delimiter)
        writer.writeheader()
        writer.writerows(headlines())
    return path
