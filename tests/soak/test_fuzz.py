"""Many more generated requests than in `make test`, with and without keys, different in each run."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.fuzzing import KEY, fuzz
from tests.support.running_service import serving
from tests.support.tiny_releases import TinyModel

pytestmark = pytest.mark.soak

CASES = 20_000


@pytest.mark.parametrize("key", [None, KEY], ids=["open", "with keys"])
def test_every_answer_is_in_the_document(
    key: str | None,
    tmp_path: Path,
    classifier: TinyModel,
    sentence_encoder: TinyModel,
    text_scorer: TinyModel,
    record_property: pytest.RecordProperty,
) -> None:
    with serving(tmp_path, {"SAEBYEOK_API_KEYS": key or ""}, classifier, sentence_encoder, text_scorer) as service:
        statuses = fuzz(service, CASES // 2, key, same_again=False)
    assert statuses.total() >= CASES // 2
    counts = ", ".join(f"{count} times {status}" for status, count in sorted(statuses.items()))
    record_property("note", f"{statuses.total()} requests: {counts}")
