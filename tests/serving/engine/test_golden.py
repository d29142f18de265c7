"""Golden sentences: compared values, tolerance, and the release that must answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pipeline.deployment.service_client import ServiceClient, service_answers
from pipeline.errors import GoldenMismatchError
from pipeline.settings import Settings
from pipeline.store.deployments import DeploymentLog
from pipeline.store.releases import Card, Golden, read_card
from serving.api.auth import deploy_token
from serving.engine.engine import Engine, EngineOptions
from serving.engine.golden import check_golden, engine_answers
from tests.support.light import build_light_model
from tests.support.tiny_releases import Head

if TYPE_CHECKING:
    from tests.support.inprocess import InProcess

EXPECTED = {"하나": (0.25, 0.75), "둘": (0.5, 0.5)}
#: A tolerance that floats represent exactly.
TOLERANCE = 0.125


def card(**changes: object) -> Card:
    """Return a card with the golden sentences EXPECTED."""
    golden = tuple(Golden(texts=(text,), expected=row) for text, row in EXPECTED.items())
    fields = {
        "id": "nsmc-1", "recipe": "nsmc", "title": "t", "kind": "classification", "inputs": "text", "objective": None,
        "sample": True, "labels": ("a", "b"), "score_range": None, "similar_at": None, "calibration": None,
        "max_length": 8, "variants": {}, "golden": golden, "golden_tolerance": TOLERANCE, "figures": {},
        "trained": "train/nsmc/1/1", "created": datetime.now(UTC),
    }  # fmt: skip
    return Card.model_validate(fields | changes)


def off_by(text: str, *differences: float) -> Callable[[Sequence[tuple[str, ...]]], list[list[float]]]:
    """Return a function that answers as expected, except for these differences for `text`."""

    def ask(inputs: Sequence[tuple[str, ...]]) -> list[list[float]]:
        ((asked,),) = inputs
        row = EXPECTED[asked]
        return [[value + extra for value, extra in zip(row, differences, strict=True)] if asked == text else [*row]]

    return ask


@pytest.mark.parametrize("text", EXPECTED)
@pytest.mark.parametrize("difference", [0.0, TOLERANCE, -TOLERANCE])
def test_answers_within_the_tolerance_pass(text: str, difference: float) -> None:
    check_golden(card(), off_by(text, difference, -difference))


@pytest.mark.parametrize("text", EXPECTED)
@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize("difference", [TOLERANCE + 1e-6, -TOLERANCE - 1e-6, float("nan"), float("inf")])
def test_answers_beyond_the_tolerance_or_no_numbers_fail(text: str, place: int, difference: float) -> None:
    differences = [0.0, 0.0]
    differences[place] = difference
    with pytest.raises(GoldenMismatchError, match=f"nsmc-1 answers .* to '{text}'; its card says"):
        check_golden(card(), off_by(text, *differences))


@pytest.mark.parametrize("row", [[], [0.25], [0.25, 0.75, 0.0]], ids=len)
def test_answers_of_another_length_fail(row: list[float]) -> None:
    with pytest.raises(GoldenMismatchError):
        check_golden(card(), lambda _: [row])


@pytest.mark.parametrize("answers", [[], [[0.25, 0.75], [0.25, 0.75]]], ids=len)
def test_no_answer_and_two_answers_fail(answers: list[list[float]]) -> None:
    with pytest.raises(GoldenMismatchError):
        check_golden(card(), lambda _: answers)


def test_mismatch_error_names_input_answer_and_expectation() -> None:
    pair = card(golden=[{"texts": ("왼쪽", "오른쪽"), "expected": (0.123456,)}])
    with pytest.raises(GoldenMismatchError) as caught:
        check_golden(pair, lambda _: [[0.987654]])
    wanted = "nsmc-1 answers [0.9877] to '왼쪽 | 오른쪽'; its card says [0.1235], within 0.125"
    assert str(caught.value) == wanted


def test_card_without_golden_sentences_vouches_for_nothing() -> None:
    with pytest.raises(GoldenMismatchError, match="has no golden sentences"):
        check_golden(card(golden=()), lambda _: [])


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcess]:
    """A service in this process with one live and one staged release of every kind."""
    from tests.support.inprocess import in_process

    home = tmp_path_factory.mktemp("golden")
    with in_process(Settings(home=home)) as service:
        heads: tuple[Head, ...] = ("classify", "classify-pairs", "score", "cross-encoder", "bi-encoder")
        live = {}
        staging = service.followers[0].source.staging
        assert staging is not None
        for number, head in enumerate(heads):
            for seed, key in enumerate("ab"):
                model = build_light_model(Path(home / f"{head}-{key}"), head, seed)
                release = model.publish(service.store, f"recipe-{number}", key=key * 16)
                if key == "a":
                    live[f"recipe-{number}"] = release.ref
                else:
                    staging.add(release.ref)
        DeploymentLog(service.store).append(live, after=0, run="test", reason="test")
        yield service


def test_service_answers_for_releases_of_every_kind(service: InProcess) -> None:
    for follower in service.followers:
        follower.step()
    live = service.followers[0].snapshot
    assert live.deployment is not None
    assert (len(live.live), len(live.staged)) == (5, 5)
    with ServiceClient(service.settings.service_url, deploy_token(service.settings)) as client:
        for ref in live.deployment.releases.values():
            check_golden(
                read_card(service.store.open(ref)), service_answers(client, read_card(service.store.open(ref)))
            )
        for ref in live.staged:
            staged = read_card(service.store.open(ref))
            check_golden(staged, service_answers(client, staged, ref))
            # Users get the live release, whose answers differ.
            with pytest.raises(GoldenMismatchError, match=f"answered with release .* instead of {staged.id}"):
                check_golden(staged, service_answers(client, staged))


def test_engine_answers_with_its_own_numbers(tmp_path: Path, service: InProcess) -> None:
    model = build_light_model(tmp_path / "model", "classify", 7)
    made = model.publish(service.store, "alone", key="c" * 16)
    engine = Engine(made.path, EngineOptions(device="cpu", threads=1))
    check_golden(engine.card, engine_answers(engine))
    with pytest.raises(GoldenMismatchError):
        check_golden(engine.card.model_copy(update={"golden": card().golden}), engine_answers(engine))
