"""Write a release as a model directory: weights, configuration, tokenizer, ONNX files and model card."""

from __future__ import annotations

import inspect
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, normalizers

from pipeline.errors import ArtifactError
from pipeline.models import heads, mean_pooled
from pipeline.publishing.model_card import render_card
from pipeline.recipes.schema import Recipe
from pipeline.store.artifacts import Artifact
from pipeline.store.figures import TrainingFigures
from pipeline.store.releases import Card, Precision, read_card
from pipeline.tasks.trained import pooling_of

#: Names that the hub's tools use for ONNX files of each precision.
ONNX_FILES: Mapping[Precision, str] = {"fp32": "model.onnx", "int8": "model_int8.onnx", "fp16": "model_fp16.onnx"}
SPECIAL_TOKENS = tuple(f"{name}_token" for name in ("bos", "eos", "unk", "sep", "pad", "cls", "mask"))
#: Class names by the model type in config.json, for classifiers with mean pooling.
MEAN_POOLED = {"bert": "MeanPooledBert", "electra": "MeanPooledElectra", "roberta": "MeanPooledRoberta"}


def write_model(recipe: Recipe, release: Artifact, directory: Path) -> Card:
    """Write the model of `release` into the empty `directory` and return the release's card.

    `recipe` describes the data. Raises ArtifactError if the trained model or its evaluation was deleted or is damaged.
    """
    card = read_card(release)
    trained, evaluated = release.input("trained"), release.input("evaluated")
    source = trained.path / "model"
    shutil.copyfile(source / "model.safetensors", directory / "model.safetensors")
    write_tokenizer(source, directory, card.max_length)
    _copy_onnx(release, card, directory / "onnx")
    pooling = pooling_of(trained.manifest.fields)
    config = _read(source / "config.json") | {"saebyeok": _answer_fields(card, pooling)}
    if card.task.has_vectors:
        _write_modules(directory, config["hidden_size"], pooling, card.max_length)
    else:
        config |= _head_fields(card)
        if pooling == "mean":
            config |= _mean_pooled_fields(config["model_type"])
            for module in (heads, mean_pooled):
                shutil.copy(inspect.getfile(module), directory)
    _write(directory / "config.json", config)
    text = render_card(recipe, card, TrainingFigures.read(trained), evaluated, custom_code="auto_map" in config)
    (directory / "README.md").write_text(text, encoding="utf-8")
    return card


def _read(file: Path) -> dict[str, Any]:
    try:
        document: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{file} cannot be read ({error}); train the model again with --force") from error
    return document


def _write(file: Path, document: Any) -> None:
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(document, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def write_tokenizer(source: Path, directory: Path, max_length: int) -> None:
    """Write the tokenizer, which composes Hangul (NFC) as the service does and has the release's maximum length."""
    tokenizer = Tokenizer.from_file(str(source / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    before = tokenizer.normalizer
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), *([before] if before else [])])
    tokenizer.save(str(directory / "tokenizer.json"))
    config = _read(source / "tokenizer_config.json")
    special = {name: config[name] for name in SPECIAL_TOKENS if config.get(name) is not None}
    # This class reads tokenizer.json as it is. Those of an architecture build their own normalizer.
    fields = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": max_length, **special}
    _write(directory / "tokenizer_config.json", fields)


def _copy_onnx(release: Artifact, card: Card, directory: Path) -> None:
    directory.mkdir()
    for variants in card.variants.values():
        for variant in variants:
            # The padding-free graph needs the service's batches.
            if not variant.packed:
                shutil.copyfile(release.path / variant.file, directory / ONNX_FILES[variant.precision])


def _answer_fields(card: Card, pooling: str) -> dict[str, Any]:
    """Return what the service does with the model's output, for readers of config.json."""
    document = card.model_dump(mode="json", include={"score_range", "similar_at", "calibration", "euclidean"})
    return {"release": card.id, "pooling": pooling, **document}


def _head_fields(card: Card) -> dict[str, Any]:
    names = card.labels or ("score",)
    return {
        "id2label": {str(number): name for number, name in enumerate(names)},
        "label2id": {name: number for number, name in enumerate(names)},
        "problem_type": "single_label_classification" if card.labels else "regression",
    }


def _mean_pooled_fields(model_type: str) -> dict[str, Any]:
    name = MEAN_POOLED[model_type]
    model = f"{name}ForSequenceClassification"
    return {
        "architectures": [model],
        "model_type": f"mean_pooled_{model_type}",
        "auto_map": {
            "AutoConfig": f"mean_pooled.{name}Config",
            "AutoModelForSequenceClassification": f"mean_pooled.{model}",
        },
    }


def _write_modules(directory: Path, dimensions: int, pooling: str, max_length: int) -> None:
    """Write the files by which sentence-transformers knows the modules around the encoder."""
    kinds = {"Transformer": "", "Pooling": "1_Pooling", "Normalize": "2_Normalize"}
    modules = [
        {"idx": number, "name": str(number), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for number, (kind, path) in enumerate(kinds.items())
    ]
    _write(directory / "modules.json", modules)
    _write(directory / "sentence_bert_config.json", {"max_seq_length": max_length, "do_lower_case": False})
    _write(directory / "config_sentence_transformers.json", {"similarity_fn_name": "cosine"})
    modes = {f"pooling_mode_{name}": name.startswith(pooling) for name in ("cls_token", "mean_tokens")}
    _write(directory / "1_Pooling" / "config.json", {"word_embedding_dimension": dimensions, **modes})
    _write(directory / "2_Normalize" / "config.json", {})
