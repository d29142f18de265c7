"""The train stage: reproducible by seed, resumed after a kill, stopped when it diverges, and nothing left behind."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import Trainer, TrainerControl, TrainerState, TrainingArguments

from pipeline.errors import BaseModelError, GpuError, RecipeError, TerminatedError, TrainingDivergedError
from pipeline.job import open_store
from pipeline.models.hardware import has_bf16
from pipeline.stages.train import alone, train
from pipeline.store.artifacts import Artifact
from pipeline.tasks.registry import task_of
from pipeline.tasks.trained import load_trained
from pipeline.training.checkpoints import COMPLETE, CheckpointCallback, newest_checkpoint, seconds_behind
from pipeline.training.shared_checkpoints import SHARED
from tests.support.killed import Killed
from tests.support.running_service import eventually
from tests.support.small_pipeline import Road, open_road, save_base, small_recipe, weights

pytestmark = [pytest.mark.torch, pytest.mark.cpu]


def same_weights(one: Artifact, other: Artifact) -> bool:
    left, right = weights(one), weights(other)
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def work_of(road: Road) -> list[Path]:
    """Return the working files of training, its lock included."""
    return list((road.job.settings.home / "work").glob("*"))


def checkpoints_of(road: Road) -> Path:
    (directory,) = (path for path in work_of(road) if path.is_dir())
    return directory


def kill_at(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Kill training just before it logs `step`."""
    before = CheckpointCallback.on_step_end

    def on_step_end(
        self: CheckpointCallback, args: TrainingArguments, state: TrainerState, control: TrainerControl, **rest: Any
    ) -> Any:
        if state.global_step == step:
            raise Killed
        return before(self, args, state, control, **rest)

    monkeypatch.setattr(CheckpointCallback, "on_step_end", on_step_end)


@pytest.fixture
def two_epochs(tmp_path: Path) -> Road:
    """Return a road with two short epochs."""
    return open_road(small_recipe("nsmc"), tmp_path / "home", train=300, test=40)


# --- figures ---


def test_figures_say_what_was_trained(reviews: Road) -> None:
    figures, rows = reviews.trained.manifest.figures, reviews.tokenized.manifest.figures["train"]["rows"]
    assert figures["seconds"] > 0
    assert figures["samples_per_second"] == pytest.approx(2 * rows / figures["seconds"])
    assert figures["best_epoch"] in (1, 2)
    rows = pd.read_parquet(reviews.tokenized.path / "train.parquet")["length"]
    assert 0 < figures["padding"] < 1 - rows.mean() / rows.max()
    assert set(figures["validation"]) == {"accuracy", "f1"}
    assert figures["device"] == "cpu" or torch.cuda.is_available()
    assert figures["precision"] == ("bf16" if has_bf16() else "fp32")
    assert figures["parameters"] == sum(tensor.numel() for tensor in weights(reviews.trained).values())
    assert figures["calibration"] is None
    assert figures["base"] == {"base": "scratch", "revision": None}
    assert [epoch["epoch"] for epoch in figures["history"]] == [1, 2]
    for epoch in figures["history"]:
        assert {"loss", "learning_rate", "grad_norm", "eval_loss", "eval_f1"} <= epoch.keys()
    assert figures["history"][figures["best_epoch"] - 1]["eval_accuracy"] == figures["validation"]["accuracy"]


def test_validation_figures_are_those_of_the_saved_model(reviews: Road, pairs: Road) -> None:
    for road in (reviews, pairs):
        rows = pd.read_parquet(road.tokenized.path / "validation.parquet")
        answers = load_trained(road.recipe, road.trained).answer_encoded(rows)
        found = task_of(road.recipe).metrics(rows["label"].to_numpy(), answers)
        # Validation may run in bf16, but the loaded model answers in fp32.
        assert found == pytest.approx(road.trained.manifest.figures["validation"], abs=0.03)


def test_a_bi_encoder_is_calibrated_to_its_scores(pairs: Road) -> None:
    figures = pairs.trained.manifest.figures
    assert figures["calibration"]["slope"] > 0
    rows = pd.read_parquet(pairs.tokenized.path / "validation.parquet")
    answers = load_trained(pairs.recipe, pairs.trained).answer_encoded(rows)
    assert answers.mean() == pytest.approx(rows["label"].mean(), abs=0.3)
    # A larger distance means less similar.
    assert figures["euclidean"]["slope"] < 0


def test_it_learns(reviews: Road) -> None:
    labels = pd.read_parquet(reviews.tokenized.path / "validation.parquet")["label"]
    majority = max(labels.mean(), 1 - labels.mean())
    assert reviews.trained.manifest.figures["validation"]["accuracy"] > majority + 0.05


def test_the_run_is_tracked_without_a_network(tracking_on: None, two_epochs: Road) -> None:
    assert two_epochs.trained.manifest.figures["seconds"] > 0
    runs = [file.read_bytes() for file in (two_epochs.job.settings.home / "wandb").rglob("offline-run-*/run-*.wandb")]
    (trained,) = [content for content in runs if b"eval/accuracy" in content]
    assert b"samples_per_second" in trained
    assert b"train/tokens_per_second" in trained
    # Every stage is a run of its own, and all are in one group.
    assert len(runs) == 3
    assert all(b"test-run" in content for content in runs)


# --- reproducibility ---


def test_the_same_seed_gives_the_same_weights(two_epochs: Road) -> None:
    first = two_epochs.trained
    again = train(replace(two_epochs.job, force=True), two_epochs.tokenized)
    assert again.ref != first.ref
    assert same_weights(again, first)


def test_another_seed_gives_others(two_epochs: Road) -> None:
    other = replace(two_epochs.job, recipe=small_recipe("nsmc", train__seed=8))
    assert not same_weights(train(other, two_epochs.tokenized), two_epochs.trained)


def test_only_what_changes_the_weights_trains_again(reviews: Road) -> None:
    gate = small_recipe("nsmc", gate__floors__accuracy=0.99, gate__margin=0.4, export__latency_ms=1.0)
    assert train(replace(reviews.job, recipe=gate), reviews.tokenized).ref == reviews.trained.ref


def test_nothing_is_left_to_work_with_after_success(two_epochs: Road) -> None:
    assert (two_epochs.trained.path / "model" / "config.json").is_file()
    assert work_of(two_epochs) == []


def test_best_epoch_is_kept(tmp_path: Path) -> None:
    # A learning rate at which a good first epoch is followed by worse ones.
    recipe = small_recipe("nsmc", train__epochs=3, train__learning_rate=2e-2, train__batch_size=16)
    road = open_road(recipe, tmp_path / "home", train=500, test=40)
    figures = road.trained.manifest.figures
    scores = [epoch["eval_accuracy"] for epoch in figures["history"]]
    assert len(scores) == 3
    assert figures["best_epoch"] == 1 + scores.index(max(scores))
    assert figures["validation"]["accuracy"] == max(scores)
    rows = pd.read_parquet(road.tokenized.path / "validation.parquet")
    answers = load_trained(recipe, road.trained).answer_encoded(rows)
    assert task_of(recipe).metrics(rows["label"].to_numpy(), answers)["accuracy"] == pytest.approx(
        max(scores), abs=0.03
    )


# --- interrupted runs ---


def test_a_killed_run_goes_on_where_it_was(two_epochs: Road, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = two_epochs.tokenized.manifest.figures["train"]["rows"]
    steps = math.ceil(rows / 32)
    with monkeypatch.context() as patch:
        kill_at(patch, steps + 2)
        with pytest.raises(Killed):
            train(two_epochs.job, two_epochs.tokenized)
    assert two_epochs.job.store.newest("train", "nsmc") is None
    work = checkpoints_of(two_epochs)
    checkpoint = work / f"checkpoint-{steps}"
    assert newest_checkpoint(work) == str(checkpoint)
    assert seconds_behind(str(checkpoint)) > 0
    # As if the first epoch had been long: the time before the kill counts.
    mark = json.loads((checkpoint / COMPLETE).read_text(encoding="utf-8"))
    (checkpoint / COMPLETE).write_text(json.dumps(mark | {"seconds": 1000.0}), encoding="utf-8")
    resumed = two_epochs.trained.manifest.figures
    assert 1000 < resumed["seconds"] < 2000
    assert resumed["samples_per_second"] == pytest.approx(2 * rows / resumed["seconds"])
    assert [epoch["epoch"] for epoch in resumed["history"]] == [1, 2]
    assert work_of(two_epochs) == []


def test_resumed_run_equals_an_uninterrupted_one(two_epochs: Road, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        kill_at(patch, math.ceil(two_epochs.tokenized.manifest.figures["train"]["rows"] / 32) + 2)
        with pytest.raises(Killed):
            train(two_epochs.job, two_epochs.tokenized)
    resumed = two_epochs.trained
    whole = train(replace(two_epochs.job, force=True), two_epochs.tokenized)
    assert same_weights(resumed, whole)
    assert resumed.manifest.figures["validation"] == whole.manifest.figures["validation"]


@pytest.mark.parametrize(
    ("name", "mixed"),
    [
        ("nsmc", {}),
        ("klue-sts", {}),
        ("klue-sts", {"train__left_out": 0.1, "train__strangers": 0.1, "train__joined": 0.3}),
    ],
)
def test_run_killed_within_epoch_gives_same_weights(
    name: str, mixed: dict[str, float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    road = open_road(small_recipe(name, **mixed), tmp_path / "home", train=300, test=40)
    whole = road.trained
    again = replace(road.job, force=False, settings=road.job.settings.model_copy(update={"home": tmp_path / "other"}))
    again = replace(again, store=open_store(again.settings))
    tokenized = Road(again, road.rows).tokenized
    with monkeypatch.context() as patch:
        kill_at(patch, 6)
        # A checkpoint after every step.
        patch.setattr("pipeline.training.checkpoints.EVERY", 0.0)
        patch.setattr("pipeline.training.checkpoints.TIMES", 0.0)
        with pytest.raises(Killed):
            train(again, tokenized)
    (work,) = (path for path in (tmp_path / "other" / "work").iterdir() if path.is_dir())
    # The newest checkpoint, and at most one more.
    assert sorted(path.name for path in work.iterdir()) == ["checkpoint-4", "checkpoint-5"]
    (work / "checkpoint-5" / "optimizer.pt").write_bytes(b"cut sho")
    resumed = train(again, tokenized)
    assert same_weights(resumed, whole)
    assert resumed.manifest.figures["validation"] == whole.manifest.figures["validation"]


@pytest.mark.parametrize(("epochs", "step"), [(2, 3), (1, -1), (2, -1)], ids=["within", "last of all", "last of one"])
def test_sigterm_is_obeyed_once_there_is_a_checkpoint(
    epochs: int, step: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    road = open_road(small_recipe("nsmc", train__epochs=epochs), tmp_path / "home", train=300, test=40)
    stop = step if step > 0 else math.ceil(road.tokenized.manifest.figures["train"]["rows"] / 32)
    before, after_step = signal.getsignal(signal.SIGTERM), CheckpointCallback.on_step_end

    def terminated(self: CheckpointCallback, args: Any, state: Any, control: Any, **rest: Any) -> Any:
        if state.global_step == stop:
            os.kill(os.getpid(), signal.SIGTERM)
        return after_step(self, args, state, control, **rest)

    with monkeypatch.context() as patch:
        patch.setattr(CheckpointCallback, "on_step_end", terminated)
        with pytest.raises(TerminatedError, match=f"after step {stop}; rerun the command to resume"):
            train(road.job, road.tokenized)
    assert signal.getsignal(signal.SIGTERM) == before
    assert newest_checkpoint(checkpoints_of(road)) == str(checkpoints_of(road) / f"checkpoint-{stop}")
    resumed = road.trained
    whole = train(replace(road.job, force=True), road.tokenized)
    assert same_weights(resumed, whole)
    assert resumed.manifest.figures["validation"] == whole.manifest.figures["validation"]
    assert [epoch["eval_f1"] for epoch in resumed.manifest.figures["history"]] == [
        epoch["eval_f1"] for epoch in whole.manifest.figures["history"]
    ]


def test_other_host_resumes_from_the_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    monkeypatch.setattr("pipeline.training.shared_checkpoints.LAST_UPLOAD", 600.0)
    road = open_road(small_recipe("nsmc", train__epochs=2), tmp_path / "home", train=300, test=40)
    shared = {"store": str(tmp_path / "store")}
    homes = [road.job.settings.model_copy(update={"home": tmp_path / name, **shared}) for name in ("one", "two")]
    first, second = (replace(road.job, settings=home, store=open_store(home)) for home in homes)
    tokenized = Road(first, road.rows).tokenized
    steps = math.ceil(tokenized.manifest.figures["train"]["rows"] / 32)
    after_step = CheckpointCallback.on_step_end

    def terminated(self: CheckpointCallback, args: Any, state: Any, control: Any, **rest: Any) -> Any:
        if state.global_step == steps + 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return after_step(self, args, state, control, **rest)

    with monkeypatch.context() as patch:
        patch.setattr(CheckpointCallback, "on_step_end", terminated)
        with pytest.raises(TerminatedError, match=f"after step {steps + 2}; rerun"):
            train(first, tokenized)
    (key,) = first.store.list("checkpoint/nsmc")
    assert len(first.store.list(f"checkpoint/nsmc/{key}")) == 1
    # The other host has no access to the files of the first.
    shutil.rmtree(tmp_path / "one" / "work")
    resumed = train(second, tokenized)
    assert f"step {steps + 2} comes from {first.store.uri}/checkpoint/nsmc/" in caplog.text
    assert [epoch["epoch"] for epoch in resumed.manifest.figures["history"]] == [1, 2]
    assert (second.store.list("checkpoint/nsmc"), second.store.list("leases/train/nsmc")) == ([], [])
    whole = train(replace(road.job, force=True), road.tokenized)
    assert same_weights(resumed, whole)


def test_training_ends_when_another_host_has_taken_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    road = open_road(small_recipe("nsmc"), tmp_path / "home", train=300, test=40)
    settings = road.job.settings.model_copy(update={"store": str(tmp_path / "store")})
    job = replace(road.job, settings=settings, store=open_store(settings))
    tokenized = Road(job, road.rows).tokenized
    monkeypatch.setattr("pipeline.store.leases.RENEWAL", 0.01)
    after_step = CheckpointCallback.on_step_end

    def taken_over(self: CheckpointCallback, args: Any, state: Any, control: Any, **rest: Any) -> Any:
        if state.global_step == 2:
            (key,) = job.store.list("leases/train/nsmc")
            job.store.create(f"leases/train/nsmc/{key}/000002.json", b"{}")
            eventually("it hears of it", lambda: not list((settings.home / "work").glob(f"*/{SHARED}")))
        return after_step(self, args, state, control, **rest)

    monkeypatch.setattr(CheckpointCallback, "on_step_end", taken_over)
    with pytest.raises(TerminatedError, match="another host has taken over this training"):
        train(job, tokenized)
    assert job.store.newest("train", "nsmc") is None


def test_batch_exceeding_memory_is_computed_in_parts(
    two_epochs: Road, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    recipe = small_recipe("nsmc", model__scratch__dropout=0.0)
    road = two_epochs.with_recipe(recipe)
    whole = road.trained
    compute_loss = Trainer.compute_loss

    def small_memory(self: Trainer, model: Any, inputs: dict[str, Any], *args: Any, **options: Any) -> Any:
        if model.training and inputs["input_ids"].numel() > 300:
            raise torch.OutOfMemoryError
        return compute_loss(self, model, inputs, *args, **options)

    monkeypatch.setattr(Trainer, "compute_loss", small_memory)
    parted = train(replace(road.job, force=True), road.tokenized)
    assert parted.manifest.figures["parts"] > whole.manifest.figures["parts"] == 1
    assert "out of memory: from now on batches are computed in 2 parts" in caplog.text
    for name, tensor in weights(whole).items():
        # The same gradients, summed in another order and in bf16.
        torch.testing.assert_close(weights(parted)[name], tensor, atol=0.02, rtol=0.1)
    monkeypatch.setattr(Trainer, "compute_loss", lambda *_, **__: (_ for _ in ()).throw(torch.OutOfMemoryError()))
    with pytest.raises(GpuError, match="wait for them or end them") as found:
        train(replace(road.job, force=True), road.tokenized)
    assert found.value.retryable


def test_force_forgets_what_was_begun(two_epochs: Road, monkeypatch: pytest.MonkeyPatch) -> None:
    _ = two_epochs.tokenized
    with monkeypatch.context() as patch:
        kill_at(patch, 12)
        with pytest.raises(Killed):
            train(two_epochs.job, two_epochs.tokenized)
    checkpoint = newest_checkpoint(checkpoints_of(two_epochs))
    assert checkpoint is not None
    # If it were used, the run would fail.
    (Path(checkpoint) / "model.safetensors").write_bytes(b"not weights")
    train(replace(two_epochs.job, force=True), two_epochs.tokenized)


def test_of_two_that_train_the_same_one_waits(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    order: list[str] = []

    def second() -> None:
        with alone(tmp_path / "work" / "nsmc-key"):
            order.append("second")

    waiter = threading.Thread(target=second)
    with alone(tmp_path / "work" / "nsmc-key"):
        waiter.start()
        while "another run trains the same" not in caplog.text:
            assert waiter.is_alive()
        order.append("first")
    waiter.join()
    assert order == ["first", "second"]
    assert list((tmp_path / "work").iterdir()) == []


# --- divergence ---


@pytest.mark.parametrize("name", ["nsmc", "klue-sts"])
def test_nan_loss_stops_training_for_good(name: str, tmp_path: Path) -> None:
    base = save_base(tmp_path / "base", ["정말 재미있는 영화"])
    tensors = load_file(base / "model.safetensors")
    tensors["embeddings.word_embeddings.weight"][:] = math.nan
    save_file(tensors, base / "model.safetensors", {"format": "pt"})
    road = open_road(small_recipe(name, model__base=str(base)), tmp_path / "home", train=200, test=20)
    with pytest.raises(TrainingDivergedError, match=r"is nan at step \d+: training has diverged") as caught:
        _ = road.trained
    assert not caught.value.retryable
    assert road.job.store.newest("train", name) is None


def test_a_base_model_that_changes_between_stages_stops(tmp_path: Path) -> None:
    base = save_base(tmp_path / "base", ["정말 재미있는 영화"])
    road = open_road(small_recipe("nsmc", model__base=str(base)), tmp_path / "home", train=200, test=20)
    _ = road.tokenized
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(config | {"layer_norm_eps": 1e-5}), encoding="utf-8")
    with pytest.raises(BaseModelError, match="has changed"):
        _ = road.trained


def test_steep_layer_decay_trains_only_the_head(tmp_path: Path) -> None:
    base = save_base(tmp_path / "base", ["정말 재미있는 영화"])
    recipe = small_recipe("nsmc", model__base=str(base), train__layer_decay=1e-6, train__epochs=1)
    road = open_road(recipe, tmp_path / "home", train=200, test=20)
    before, after = load_file(base / "model.safetensors"), weights(road.trained)
    moved = {name: float((tensor - after[f"bert.{name}"]).abs().max()) for name, tensor in before.items()}
    assert moved["pooler.dense.weight"] > 1e-3
    assert max(value for name, value in moved.items() if not name.startswith("pooler")) < 1e-5


@pytest.mark.parametrize("kind", ["bert", "electra"])
def test_frozen_layers_and_embeddings_stay_unchanged(kind: str, tmp_path: Path) -> None:
    narrow = {"embedding_size": 16} if kind == "electra" else {}
    base = save_base(tmp_path / "base", ["정말 재미있는 영화"], kind=kind, num_hidden_layers=2, **narrow)
    recipe = small_recipe("nsmc", model__base=str(base), train__frozen_layers=2, train__epochs=1)
    road = open_road(recipe, tmp_path / "home", train=200, test=20)
    before, after = load_file(base / "model.safetensors"), weights(road.trained)
    encoder = {name: tensor for name, tensor in before.items() if not name.startswith("pooler")}
    same = {name for name, tensor in encoder.items() if torch.equal(tensor, after[f"{kind}.{name}"])}
    assert same == {name for name in encoder if name.startswith(("embeddings", "encoder.layer.0."))}
    deep = small_recipe("nsmc", model__base=str(base), train__frozen_layers=3)
    with pytest.raises(BaseModelError, match=r"train\.frozen_layers = 3 leaves no layer to train; set it to 2 or less"):
        _ = road.with_recipe(deep).trained


def test_frozen_layers_refused_from_scratch_or_head_only() -> None:
    with pytest.raises(RecipeError, match="no layer is pretrained"):
        small_recipe("nsmc", train__frozen_layers=1)
    with pytest.raises(RecipeError, match="which freezes all layers"):
        small_recipe("nsmc", model__base="klue/bert-base", train__tune="head", train__frozen_layers=1)


def test_a_base_model_is_what_training_starts_from(tmp_path: Path) -> None:
    base = save_base(tmp_path / "base", ["정말 재미있는 영화"])
    recipe = small_recipe("nsmc", model__base=str(base), train__learning_rate=1e-9)
    road = open_road(recipe, tmp_path / "home", train=100, test=20)
    before, after = load_file(base / "model.safetensors"), weights(road.trained)
    name = "embeddings.word_embeddings.weight"
    assert torch.allclose(before[name], after[f"bert.{name}"], atol=1e-5)
    assert road.trained.manifest.figures["base"]["revision"] == road.tokenized.manifest.figures["base"]["revision"]


@pytest.mark.parametrize("objective", ["cross-encoder", "bi-encoder"])
def test_an_electra_trains_too(objective: str, tmp_path: Path) -> None:
    base = save_base(tmp_path / "base", ["정말 재미있는 영화"], kind="electra", embedding_size=16)
    recipe = small_recipe("klue-sts", model__base=str(base), model__objective=objective)
    road = open_road(recipe, tmp_path / "home", train=200, test=30)
    assert 0 <= load_trained(recipe, road.trained).answer(road.rows["test"]).min() <= 5
