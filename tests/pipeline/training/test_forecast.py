"""The forecast of a training's time on a CPU without bf16."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
import torch
from transformers import TrainerControl, TrainerState, TrainingArguments

from pipeline.models import hardware
from pipeline.models.hardware import has_bf16
from pipeline.training import forecast
from pipeline.training.forecast import Forecast, forecasts
from tests.support.small_pipeline import Road, small_recipe

pytestmark = [pytest.mark.torch, pytest.mark.cpu]

SLOW = "this CPU has no bf16, so training runs in fp32, which takes longer; an estimate of the time follows"


def said(ends: Iterable[float], caplog: pytest.LogCaptureFixture, *, before: int = 0, steps: int = 100) -> list[str]:
    """Return the log if steps end at these seconds, after `before` steps of an earlier attempt."""
    caplog.set_level("INFO")
    caplog.clear()
    at = iter(ends)
    clock = [0.0]
    told = Forecast(lambda: clock[0])
    arguments, control = TrainingArguments(use_cpu=True, report_to="none"), TrainerControl()
    for number, clock[0] in enumerate(at, before + 1):
        told.on_step_end(arguments, TrainerState(global_step=number, max_steps=steps), control)
    return [record.getMessage() for record in caplog.records if record.name == forecast.__name__]


def test_forecast_is_the_remaining_steps_at_the_measured_pace(caplog: pytest.LogCaptureFixture) -> None:
    # The first two steps take 20 s and are not measured. Four steps of 2.5 s are: 94 x 2.5 s = 235 s.
    ends = [17.5, 20.0, 22.5, 25.0, 27.5, 30.0, 90.0, 95.0]
    told = ["about 3 min 55 s for the remaining 94 of 100 steps, at 2.5 s per step, without the evaluations"]
    assert said(ends, caplog) == told


def test_forecast_waits_for_ten_seconds_and_three_steps(caplog: pytest.LogCaptureFixture) -> None:
    assert said([0.0, 0.0, 3.0, 6.0, 9.99], caplog) == []
    assert said([0.0, 0.0, 50.0, 100.0], caplog) == []
    assert len(said([0.0, 0.0, 3.0, 6.0, 10.0], caplog)) == 1


def test_forecast_of_a_resumed_training_counts_what_is_left(caplog: pytest.LogCaptureFixture) -> None:
    (told,) = said([0.0, 0.0, 4.0, 8.0, 12.0], caplog, before=90)
    assert told.startswith("about 20.0 s for the remaining 5 of 100 steps")


@pytest.mark.parametrize(("device", "bf16", "count"), [("cpu", False, 1), ("cpu", True, 0), ("cuda", False, 0)])
def test_only_a_cpu_without_bf16_has_a_forecast(
    device: str, bf16: bool, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forecast, "best_device", lambda: torch.device(device))
    monkeypatch.setattr(forecast, "has_bf16", lambda: bf16)
    assert len(forecasts()) == count


@pytest.mark.parametrize(
    ("limit", "bf16"),
    [("", True), ("ALL", True), ("AVX512_CORE_BF16", True), ("AVX512_CORE_AMX", True), ("DEFAULT", True)]
    + [(name, False) for name in ("AVX2", "avx2", "AVX512_CORE", "AVX512_CORE_VNNI", "SSE41", "AVX2_VNNI_2")],
)
def test_bf16_is_what_onednn_may_use(limit: str, bf16: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "best_device", lambda: torch.device("cpu"))
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", limit)
    assert has_bf16() == bf16


@pytest.mark.parametrize(("avx512", "amx"), [(True, False), (False, True), (False, False)])
def test_bf16_is_had_by_avx512_or_amx(avx512: bool, amx: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "best_device", lambda: torch.device("cpu"))
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    assert has_bf16() == (avx512 or amx)


@pytest.mark.skipif(hardware.best_device().type != "cpu", reason="this machine trains on a GPU")
def test_training_without_bf16_says_so_at_its_start(
    reviews: Road, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level("INFO")
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    trained = reviews.with_recipe(small_recipe("nsmc", train__epochs=1)).trained
    assert trained.manifest.figures["precision"] == "fp32"
    lines = [record.getMessage() for record in caplog.records]
    steps = [place for place, line in enumerate(lines) if line.startswith("step ")]
    assert lines.index(SLOW) < steps[0]
