"""Fuzzing: the service answers any request as the committed OpenAPI document says."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.fuzzing import KEY, fuzz
from tests.support.running_service import Service, serving
from tests.support.tiny_releases import TinyModel

pytestmark = [pytest.mark.server, pytest.mark.slow]

#: Number in `make test-slow`; `make soak` sends many more.
CASES = 500


@pytest.fixture(scope="module", params=[None, KEY], ids=["open", "with keys"])
def fuzzed(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    classifier: TinyModel,
    sentence_encoder: TinyModel,
    text_scorer: TinyModel,
) -> Iterator[tuple[Service, str | None]]:
    env = {"SAEBYEOK_API_KEYS": request.param or "", "SAEBYEOK_WORKERS": "1"}
    with serving(tmp_path_factory.mktemp("fuzzed"), env, classifier, sentence_encoder, text_scorer) as service:
        yield service, request.param


def test_every_answer_is_in_the_document(fuzzed: tuple[Service, str | None]) -> None:
    service, key = fuzzed
    statuses = fuzz(service, CASES // 2, key, same_again=True)
    assert statuses.total() >= CASES // 2
    # Both valid and invalid requests were generated and recognised.
    assert {200, 404, 422} <= statuses.keys()
    if key is not None:
        assert fuzz(service, 20, None, same_again=True).keys() <= {200, 401, 422}
