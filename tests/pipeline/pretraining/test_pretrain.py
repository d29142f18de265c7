"""Pretraining end to end: output, resuming after a kill, and fine-tuning of the encoder."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.image import imread
from safetensors.torch import load_file

from pipeline.errors import RecipeError
from pipeline.models.tokenizer import load_tokenizer
from pipeline.pretraining.pretrain import pretrain
from pipeline.pretraining.spec import ENCODERS, EncoderSpec, load_encoder
from pipeline.recipes.schema import ScratchSpec
from pipeline.sample import write_sample
from pipeline.training.checkpoints import CheckpointCallback
from tests.support.cli import PlaceHere
from tests.support.killed import Killed
from tests.support.small_pipeline import open_road, small_recipe

pytestmark = pytest.mark.torch

SHAPE = ScratchSpec(vocabulary=1000, layers=1, hidden=32, heads=2, intermediate=64, dropout=0.1)


def small(objective: str = "replaced-tokens", **changes: Any) -> EncoderSpec:
    """Return the shipped encoder's specification, a thousand times smaller."""
    update = {"objective": objective, "shape": SHAPE, "generator": 16, "batch_tokens": 256, "steps": 12}
    update |= {"warmup_steps": 2, "decay_steps": 4} | changes
    return EncoderSpec.model_validate(load_encoder("mini").model_dump() | update | {"shape": SHAPE})


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the sample's reviews without their labels."""
    sample = write_sample(tmp_path_factory.mktemp("sample"))
    rows = (sample / "nsmc" / "ratings_train.txt").read_text(encoding="utf-8").splitlines()[1:]
    file = sample / "lines.txt"
    file.write_text("\n".join(row.split("\t")[1] for row in rows), encoding="utf-8")
    return file


def run(spec: EncoderSpec, lines: Path, directory: Path) -> dict[str, Any]:
    return pretrain(spec, [lines], directory, threads=1, save_steps=4)


@pytest.fixture(scope="module")
def pretrained(lines: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return run(small(), lines, tmp_path_factory.mktemp("pretrained"))


def test_pretrain_writes_encoder_curve_and_document(pretrained: dict[str, Any], lines: Path) -> None:
    directory = Path(pretrained["encoder"])
    weights = load_file(directory / "model.safetensors")
    assert {weight.dtype for weight in weights.values()} == {torch.float16}
    assert all(torch.isfinite(weight).all() for weight in weights.values())
    assert sum(weight.numel() for weight in weights.values()) == pretrained["parameters"]
    said = json.loads((directory / "pretraining.json").read_text(encoding="utf-8"))
    # The document must not contain the local directory.
    assert {"encoder": str(directory), **said} == json.loads(json.dumps(pretrained))
    assert list(said["files"]) == [lines.name]
    assert [entry["step"] for entry in said["history"] if "eval_loss" in entry] == [4, 8, 12]
    assert {"loss", "guessed", "telling", "told", "learning_rate"} <= said["history"][0].keys()
    assert len(load_tokenizer(directory)) == 1000
    assert np.ptp(imread(directory / "curve.png")[..., :3]) > 0.5


def test_the_rate_rises_stays_and_falls(pretrained: dict[str, Any]) -> None:
    rates = {entry["step"]: entry["learning_rate"] for entry in pretrained["history"] if "loss" in entry}
    assert rates == {4: pytest.approx(1e-3), 8: pytest.approx(1e-3), 12: pytest.approx(2.5e-4)}


@pytest.mark.parametrize("objective", ["masked-language", "replaced-tokens", "contrastive"])
def test_killed_pretraining_resumes_with_the_same_result(
    objective: str, lines: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = small(objective)
    whole = run(spec, lines, tmp_path / "whole")
    with monkeypatch.context() as patch:
        after_step = CheckpointCallback.on_step_end

        def killed(self: CheckpointCallback, args: Any, state: Any, control: Any, **rest: Any) -> Any:
            if state.global_step == 7:
                raise Killed
            return after_step(self, args, state, control, **rest)

        patch.setattr(CheckpointCallback, "on_step_end", killed)
        with pytest.raises(Killed):
            run(spec, lines, tmp_path / "cut")
    assert [path.name for path in (tmp_path / "cut" / "checkpoints").iterdir()] == ["checkpoint-4"]
    resumed = run(spec, lines, tmp_path / "cut")
    one, other = (load_file(Path(item["encoder"]) / "model.safetensors") for item in (whole, resumed))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.slow
@pytest.mark.usefixtures("forked")
@pytest.mark.parametrize("objective", ["masked-language", "replaced-tokens"])
def test_two_processes_share_each_batch(
    objective: str, lines: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = small(objective)
    alone = run(spec, lines, tmp_path / "alone")
    monkeypatch.setattr("pipeline.pretraining.pretrain.training_processes", lambda rows: 2)
    made = run(spec, lines, tmp_path / "two")
    assert made["steps"] == alone["steps"]
    for ours, theirs in zip(made["history"], alone["history"], strict=True):
        assert (ours["step"], ours["epoch"]) == (theirs["step"], theirs["epoch"])
        for name in {"loss", "eval_loss"} & ours.keys():
            # They mask other tokens.
            assert ours[name] == pytest.approx(theirs[name], rel=0.05)
    assert len(load_file(Path(made["encoder"]) / "model.safetensors")) > 10
    assert json.loads((Path(made["encoder"]) / "pretraining.json").read_text(encoding="utf-8"))["steps"] == spec.steps


def test_sentences_are_learnt_from_where_words_were_left(
    pretrained: dict[str, Any], lines: Path, tmp_path: Path
) -> None:
    start = Path(pretrained["encoder"])
    spec = small("contrastive", steps=4, warmup_steps=1, decay_steps=3, masked=0.3, learning_rate=1e-6)
    made = pretrain(spec, [lines], tmp_path, start=start, threads=1, save_steps=4)
    assert made["start"]["history"] == json.loads(json.dumps(pretrained))["history"]
    assert {"loss", "found"} <= made["history"][0].keys()
    before, after = (load_file(Path(item["encoder"]) / "model.safetensors") for item in (pretrained, made))
    assert before.keys() == after.keys()
    for name, weight in after.items():
        # With this small learning rate the fp16 weights hardly change.
        torch.testing.assert_close(weight, before[name], atol=1e-3, rtol=1e-2)
    assert (Path(made["encoder"]) / "tokenizer.json").read_bytes() == (start / "tokenizer.json").read_bytes()
    wider = spec.model_copy(update={"shape": SHAPE.model_copy(update={"hidden": 64})})
    with pytest.raises(RecipeError, match="has another shape than the one to train"):
        pretrain(wider, [lines], tmp_path / "wider", start=start, threads=1, save_steps=4)
    with pytest.raises(RecipeError, match="no encoder of `saebyeok pretrain`"):
        pretrain(spec, [lines], tmp_path / "empty", start=tmp_path / "nothing", threads=1, save_steps=4)
    untold = shutil.copytree(start, tmp_path / "untold")
    (untold / "pretraining.json").unlink()
    with pytest.raises(RecipeError, match=r"pretraining\.json"):
        pretrain(spec, [lines], tmp_path / "early", start=untold, threads=1, save_steps=4)
    # It is reported before the training.
    assert not (tmp_path / "early").exists()


def test_pretrained_encoder_can_be_fine_tuned_in_fp32(pretrained: dict[str, Any], tmp_path: Path) -> None:
    recipe = small_recipe("nsmc", model__base=pretrained["encoder"], train__epochs=1)
    road = open_road(recipe, tmp_path / "home", train=300, test=40)
    weights = load_file(road.trained.path / "model" / "model.safetensors")
    assert {weight.dtype for weight in weights.values()} == {torch.float32}
    assert road.tokenized.manifest.figures["base"]["base"] == pretrained["encoder"]


def test_the_command_line_pretrains(lines: Path, tmp_path: Path) -> None:
    toml = (ENCODERS / "mini.toml").read_text(encoding="utf-8")
    numbers = {"vocabulary": 1_000, "layers": 1, "hidden": 32, "heads": 2, "intermediate": 64, "generator": 16}
    for name, value in (numbers | {"batch_tokens": 256, "warmup_steps": 1, "decay_steps": 1}).items():
        toml, found = re.subn(rf"^{name} = .+$", f"{name} = {value}", toml, flags=re.MULTILINE)
        assert found == 1
    (tmp_path / "own.toml").write_text(toml, encoding="utf-8")
    place, out = PlaceHere(tmp_path / "home"), tmp_path / "out"
    said = place.call(
        "pretrain", str(lines), "--encoder", str(tmp_path / "own.toml"), "--out", str(out), "--steps", "3"
    )
    assert (said["steps"], said["encoder"]) == (3, str(out / "encoder"))
    assert (out / "encoder" / "model.safetensors").is_file()


@pytest.mark.parametrize(
    ("name", "steps", "says"),
    [
        ("mini", 10, "mini.toml: `steps` must be at least the sum of `warmup_steps` and `decay_steps`"),
        ("maxi", None, "no encoder 'maxi'; give a TOML file, or one of: mini, mini-sentences"),
    ],
)
def test_invalid_encoder_is_explained(name: str, steps: int | None, says: str) -> None:
    with pytest.raises(RecipeError, match=re.escape(says)):
        load_encoder(name, steps=steps)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "objective = 'guess'",
            "own.toml: `objective` Input should be 'masked-language', 'replaced-tokens' or 'contrastive'",
        ),
        ("speed = 3", "own.toml: unknown key `speed`; allowed there: batch_tokens"),
        ("[shape]\nlayers = 0", "own.toml: `shape.layers` Input should be greater than or equal to 1 (it is 0)"),
        ("steps = ", "own.toml is not TOML"),
    ],
)
def test_an_encoder_that_is_not_valid_is_explained(text: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text(text, encoding="utf-8")
    with pytest.raises(RecipeError) as caught:
        load_encoder(str(tmp_path / "own.toml"))
    assert says in str(caught.value)
