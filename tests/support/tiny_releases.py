"""Releases for tests: a model's files with card and golden sentences, published like an export."""

from __future__ import annotations

import secrets
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnxruntime as ort
from tokenizers import Tokenizer
from tokenizers.implementations import BertWordPieceTokenizer
from tokenizers.processors import BertProcessing

from pipeline.recipes.kinds.score_line import ScoreLine
from pipeline.recipes.kinds.task_kind import Inputs, Kind, Objective
from pipeline.store.artifacts import Artifact, Store
from pipeline.store.checks import Check, TaskCheck
from pipeline.store.decisions import Decision
from pipeline.store.releases import Card, Golden, Variant
from tests.support.made_figures import comparison, threshold

Head = Literal["classify", "classify-pairs", "score", "cross-encoder", "bi-encoder"]

SENTENCES = (
    "정말 재미있는 영화였어요",
    "시간이 아까웠다 다시는 보지 않겠다",
    "배우들의 연기가 좋았고 음악도 좋았다",
    "처음부터 끝까지 지루했다",
    "오늘은 비가 온다",
    "오늘은 비가 내린다",
    "내일 회의는 몇 시에 시작하나요",
    "회의가 내일 언제 열리나요",
    "ㅋㅋㅋ 최고",
    "이 영화를 보고 많이 울었다 그리고 많이 웃었다 가족과 함께 보기에 좋은 영화라고 생각한다",
)
MAX_LENGTH = 32
#: Card fields of a release by head.
HEADS: dict[Head, tuple[Kind, Inputs, Objective | None]] = {
    "classify": ("classification", "text", None),
    "classify-pairs": ("classification", "pair", "cross-encoder"),
    "score": ("regression", "text", None),
    "cross-encoder": ("regression", "pair", "cross-encoder"),
    "bi-encoder": ("regression", "pair", "bi-encoder"),
}


def classifies(head: Head) -> bool:
    """Whether it answers with class probabilities."""
    return HEADS[head][0] == "classification"


@dataclass(frozen=True)
class TinyModel:
    """A directory with tokenizer.json and the ONNX files, and the model's properties."""

    directory: Path
    head: Head

    def publish(
        self, store: Store, recipe: str, *, key: str, sample: bool = True, lies: bool = False, breaks: bool = False
    ) -> Artifact:
        """Publish a release of this model; `lies` makes its card wrong, `breaks` makes its model file unloadable."""
        trained = make_trained(store, recipe, key)
        evaluated = make_artifact(store, "evaluate", recipe, linked(trained=trained))
        with store.draft() as draft:
            shutil.copytree(self.directory, draft, dirs_exist_ok=True)
            if breaks:
                (draft / "model.int8.onnx").write_bytes(b"not a model")
            card = self._card(recipe, key, sample=sample, lies=lies)
            (draft / "card.json").write_text(card.model_dump_json(), encoding="utf-8")
            return store.publish(
                draft, "release", recipe, key, run="test", inputs=linked(evaluated=evaluated), fields={}, figures={}
            )

    def _card(self, recipe: str, key: str, *, sample: bool, lies: bool) -> Card:
        kind, inputs, objective = HEADS[self.head]
        classes = classifies(self.head)
        calibration = ScoreLine(slope=2.5, intercept=2.5) if self.head == "bi-encoder" else None
        files = {"cpu": ("model.int8.onnx", "int8"), "cuda": ("model.fp16.onnx", "fp16")}
        return Card(
            id=f"{recipe}-{key}",
            recipe=recipe,
            title=f"A tiny {self.head} model",
            kind=kind,
            inputs=inputs,
            objective=objective,
            sample=sample,
            labels=("negative", "positive") if classes else (),
            score_range=None if classes else (0.0, 5.0),
            similar_at=None if classes else 3.0,
            calibration=calibration,
            euclidean=ScoreLine(slope=-2.5, intercept=5.0) if calibration else None,
            max_length=MAX_LENGTH,
            variants={
                name: (Variant(file=file, precision=precision, parity=None),)
                for name, (file, precision) in files.items()
            },
            golden=self._golden(lies=lies),
            # The engine computes both sentences of a pair in one batch, which determines the int8 scale.
            golden_tolerance=0.2 if self.head == "bi-encoder" else 1e-3,
            figures={"accuracy": 0.5},
            trained=f"train/{recipe}/{key}/attempt",
            created=datetime.now(UTC),
        )

    def _golden(self, *, lies: bool) -> tuple[Golden, ...]:
        inputs: list[tuple[str, ...]] = [(text,) for text in SENTENCES[:4]]
        if HEADS[self.head][1] == "pair":
            inputs = list(zip(SENTENCES[0:8:2], SENTENCES[1:8:2], strict=True))
        answers = [expected(self, item) for item in inputs]
        if lies:
            answers = [[1 - value if classifies(self.head) else 5 - value for value in row] for row in answers]
        return tuple(Golden(texts=item, expected=tuple(row)) for item, row in zip(inputs, answers, strict=True))


def expected(model: TinyModel, texts: tuple[str, ...]) -> list[float]:
    """Return the expected answer to one input, computed without the engine."""
    tokenizer, session = _loaded(model.directory)

    def run(encoding: Any) -> Any:
        feed = {
            "input_ids": encoding.ids,
            "attention_mask": encoding.attention_mask,
            "token_type_ids": encoding.type_ids,
        }
        return session.run(None, {name: np.array([value], dtype=np.int32) for name, value in feed.items()})[0][0]

    if classifies(model.head):
        powers = np.exp(run(tokenizer.encode(*texts)).astype(np.float64))
        return (powers / powers.sum()).tolist()
    if model.head != "bi-encoder":
        return [float(np.clip(run(tokenizer.encode(*texts))[0], 0, 5))]
    left, right = (run(tokenizer.encode(text)) for text in texts)
    return [float(np.clip(2.5 * (left @ right) + 2.5, 0, 5))]


@cache
def _loaded(directory: Path) -> tuple[Tokenizer, ort.InferenceSession]:
    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    tokenizer.enable_truncation(MAX_LENGTH)
    return tokenizer, ort.InferenceSession(str(directory / "model.int8.onnx"), providers=["CPUExecutionProvider"])


def make_tokenizer() -> BertWordPieceTokenizer:
    """Return a deterministic tokenizer of the words in SENTENCES, with start and end tokens."""
    learnt = BertWordPieceTokenizer(lowercase=False, strip_accents=False)
    learnt.train_from_iterator(SENTENCES * 3, vocab_size=300, min_frequency=1, show_progress=False)
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    # Training yields the same tokens in varying order; sort them, so that a seed always gives the same model.
    tokens = [*special, *sorted(learnt.get_vocab().keys() - set(special))]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    wordpiece = BertWordPieceTokenizer(vocabulary, lowercase=False, strip_accents=False)
    wordpiece.post_processor = BertProcessing(*((token, vocabulary[token]) for token in ("[SEP]", "[CLS]")))
    return wordpiece


def make_decision(
    store: Store,
    release: Artifact,
    champion: str | None,
    *,
    promote: bool = True,
    waivable: bool = False,
    compared: bool = True,
) -> Artifact:
    """Publish a decide artifact about `release`; it is not `compared` with the champion if it is of the same model."""
    check: Check = threshold(0.9 if promote else 0.7, 0.8)
    if waivable:
        check = TaskCheck(value=0.0, bound=1.0, passed=promote, task="a", champions="b")
    elif champion and compared:
        check = comparison(0.125 if promote else 0.0, 0.01)
    decision = Decision(promote=promote, champion=champion, best=None, notes=(), checks=(check,))
    inputs = {name: item.model_dump() for name, item in release.manifest.inputs.items()}
    return make_artifact(
        store, "decide", release.manifest.recipe, inputs, {"decision.json": decision.model_dump_json()}
    )


def make_trained(store: Store, recipe: str = "nsmc", weights: str | None = None) -> Artifact:
    """Publish a trained artifact; its weights are random without `weights`."""
    return make_artifact(store, "train", recipe, {}, {"model.safetensors": weights or secrets.token_hex(8)})


def make_artifact(
    store: Store, kind: str, recipe: str, inputs: dict[str, Any], files: dict[str, str] | None = None
) -> Artifact:
    """Publish a small artifact."""
    with store.draft() as draft:
        for name, content in (files or {"file.txt": kind}).items():
            (draft / name).write_text(content, encoding="utf-8")
        return store.publish(draft, kind, recipe, "0" * 16, run="test", inputs=inputs, fields={}, figures={})


def linked(**artifacts: Artifact) -> dict[str, Any]:
    """Return the inputs of a manifest."""
    return {name: {"ref": item.ref, "key": item.key} for name, item in artifacts.items()}
