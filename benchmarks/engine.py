"""Compare the engine with transformers in fp32 on one CPU core: same random model, same NSMC sentences.

python -m benchmarks.engine --data DIR [--shape 4x256 2x128] [--sentences 2000] [--rounds 5] [--json]
`usual` is fp32 with sdpa, each sentence padded to 128 tokens, batches of 32; the engine has an int8 release. Both start
from texts. The process is pinned to one core and times are CPU times, to reduce the effect of other load; the ways are
interleaved. Random weights are as fast as trained ones. 32 concurrent requests of one sentence each are answered one by
one (`alone`) and with dynamic batching (`shared`).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

SHAPES = ("4x256", "2x128")
#: Size of the vocabulary, and tokens per padded sentence.
VOCABULARY, LENGTH = 16_000, 128
#: Sentences per batch and per round of the usual way, and concurrent requests.
BATCH, USUAL, CLIENTS = 32, 96, 32
#: Size of the square matrices whose product gives the peak, and the number of its measurements.
SQUARE, PRODUCTS = 1024, 8


def main() -> None:
    """Run the rounds and print a table, or one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, type=Path, help="directory with the published files")
    parser.add_argument("--shape", nargs="+", choices=SHAPES, default=SHAPES, help="layers x hidden")
    parser.add_argument("--sentences", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    arguments = parser.parse_args()
    # Must precede the imports of torch and the tokenizer, which count the cores.
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    document = measure(arguments)
    if arguments.json:
        print(json.dumps(document, indent=1))
        return
    print(f"{document['machine']}, one of {document['cores']} cores; int8 peak {document['peak_gops']:.0f} GOP/s")
    for shape, found in document["shapes"].items():
        print(
            f"{shape}: {found['engine']:,.0f} sentences per second, usual {found['usual']:,.1f}: {found['ratio']:.1f} "
            f"times (rounds: {found['ratios']}); {found['share_of_peak']:.0%} of the peak; "
            f"tokenizing {found['tokenizing']:.0%}, ONNX Runtime {found['session']:.0%}; "
            f"one per request {found['alone']:,.0f}, shared {found['shared']:,.0f}"
        )


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the figures of each shape and of the machine."""
    import torch

    torch.set_num_threads(1)
    recipe, tokenizer, texts = prepare(arguments)
    shapes = {}
    peak = int8_peak()
    for shape in arguments.shape:
        with tempfile.TemporaryDirectory() as directory:
            module = build(recipe, tokenizer, shape, Path(directory))
            shapes[shape] = one_shape(module, tokenizer, Path(directory), texts, arguments.rounds, peak)
    return {
        "machine": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "sentences": len(texts),
        "peak_gops": peak / 1e9,
        "shapes": shapes,
    }


def prepare(arguments: argparse.Namespace) -> tuple[Any, Any, list[str]]:
    """Return a recipe with [CLS] pooling, a tokenizer trained on the train file, and the sentences to classify."""
    from transformers.utils import logging

    from pipeline.data.reading import read_split
    from pipeline.models.tokenizer import learn_tokenizer
    from pipeline.recipes.loading import load_recipe

    logging.disable_progress_bar()
    recipe = load_recipe("nsmc", "embedded", overrides={"model.pooling": "cls"})
    train, test = (read_split(recipe, arguments.data, split)["text"].tolist() for split in ("train", "test"))
    return recipe, learn_tokenizer(train[:50_000], VOCABULARY), test[: arguments.sentences]


def build(recipe: Any, tokenizer: Any, shape: str, directory: Path) -> Any:
    """Return a random transformers classifier and write its release to `directory`."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    from pipeline.export.convert import write_graphs
    from pipeline.export.onnx_graph import to_fp16
    from pipeline.export.quantization import to_int8
    from pipeline.models.network import classifier_network
    from pipeline.store.releases import Card, Variant
    from pipeline.tasks.trained import Trained

    layers, hidden = map(int, shape.split("x"))
    torch.manual_seed(7)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 64,
        intermediate_size=4 * hidden,
        max_position_embeddings=LENGTH,
        pad_token_id=tokenizer.pad_token_id,
    )
    module = BertForSequenceClassification(config).eval()
    fused, exact, packed, small, half = (
        directory / f"model.{name}.onnx" for name in ("fused", "fp32", "packed", "int8", "fp16")
    )
    network = classifier_network(module, recipe.model.pooling)
    write_graphs(Trained(recipe, network, tokenizer, None, None, torch.device("cpu")), fused, exact, packed)
    # Random weights have no outlier channels.
    to_int8(exact, small, ())
    to_fp16(fused, half)
    # Remove the padding and truncation that transformers has set.
    tokenizer.backend_tokenizer.no_padding()
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.backend_tokenizer.save(str(directory / "tokenizer.json"))
    card = Card(
        id=f"random-{shape}",
        **recipe.model_dump(include={"title", "kind", "inputs", "labels", "score_range", "similar_at", "sample"}),
        recipe=recipe.name,
        objective=None,
        calibration=None,
        max_length=LENGTH,
        variants={
            "cpu": (Variant(file=small.name, precision="int8", parity=None),),
            "cuda": (
                Variant(file=half.name, precision="fp16", parity=None),
                Variant(file=packed.name, precision="fp16", packed=True, parity=None),
            ),
        },
        golden=(),
        golden_tolerance=0.0,
        figures={},
        trained="none",
        created=datetime.now(UTC),
    )
    (directory / "card.json").write_text(card.model_dump_json(), encoding="utf-8")
    # Tracing has switched the model to eager attention.
    module.set_attn_implementation("sdpa")
    return module


def one_shape(
    module: Any, tokenizer: Any, directory: Path, texts: Sequence[str], rounds: int, peak: float
) -> dict[str, Any]:
    """Return medians over the rounds and the ratio of each round; rates are in sentences per second."""
    from serving.engine.engine import Engine, EngineOptions

    engine = Engine(directory, EngineOptions(threads=1, device="cpu"))
    lengths, tokenize, compute = parts(directory, texts)
    few, single = texts[:USUAL], texts[: 4 * USUAL]
    ways: dict[str, tuple[int, Callable[[], object]]] = {
        "engine": (len(texts), lambda: engine.classify(texts)),
        "tokenize": (len(texts), tokenize),
        "compute": (len(texts), compute),
        "alone": (len(single), lambda: one_a_request(engine, single, shared=False)),
        "shared": (len(single), lambda: one_a_request(engine, single, shared=True)),
        "usual": (len(few), lambda: usual(module, tokenizer, few)),
    }
    for _, way in ways.values():
        way()
    seen = [{name: count / processor_seconds(way) for name, (count, way) in ways.items()} for _ in range(rounds)]
    middle = {name: statistics.median(row[name] for row in seen) for name in ways}
    ratios = [row["engine"] / row["usual"] for row in seen]
    return {
        **{name: middle[name] for name in ("engine", "usual", "alone", "shared")},
        "ratio": statistics.median(ratios),
        "ratios": [round(ratio, 1) for ratio in ratios],
        "tokenizing": middle["engine"] / middle["tokenize"],
        "session": middle["engine"] / middle["compute"],
        "mean_tokens": statistics.mean(lengths),
        "share_of_peak": middle["engine"] * statistics.mean(work(module.config, length) for length in lengths) / peak,
    }


def processor_seconds(way: Callable[[], object]) -> float:
    """Return the CPU seconds of one call of `way`."""
    started = time.process_time()
    way()
    return time.process_time() - started


def usual(module: Any, tokenizer: Any, texts: Sequence[str]) -> None:
    """Classify `texts` with transformers, padded to 128 tokens."""
    import torch

    with torch.inference_mode():
        for start in range(0, len(texts), BATCH):
            batch = texts[start : start + BATCH]
            inputs = tokenizer(batch, padding="max_length", truncation=True, max_length=LENGTH, return_tensors="pt")
            module(**inputs).logits.softmax(-1)


def parts(directory: Path, texts: Sequence[str]) -> tuple[list[int], Callable[[], object], Callable[[], object]]:
    """Return the lengths of `texts` in tokens, and two parts of the engine's work: tokenizing and ONNX Runtime."""
    import numpy as np
    from tokenizers import Tokenizer

    from serving.engine.engine import TOKEN_BUDGET, sub_batches

    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    tokenizer.enable_truncation(LENGTH)
    session = open_session((directory / "model.int8.onnx").read_bytes())
    lengths = np.array([len(item) for item in tokenizer.encode_batch_fast(texts)])
    feeds = []
    for rows in sub_batches(lengths, TOKEN_BUDGET["cpu"]):
        mask = (np.arange(lengths[rows].max()) < lengths[rows][:, None]).astype(np.int32)
        feeds.append({"input_ids": mask * 7, "attention_mask": mask})
    return (
        lengths.tolist(),
        lambda: tokenizer.encode_batch_fast(texts),
        lambda: [session.run(None, feed) for feed in feeds],
    )


def one_a_request(engine: Any, texts: Sequence[str], *, shared: bool) -> None:
    """Answer `texts` as one request each, 32 of them concurrent, with one thread."""
    from serving.api.request_batching import Sharing

    async def all_of_them() -> None:
        loop, sharing, left = asyncio.get_running_loop(), Sharing(1, CLIENTS, lambda _: None), iter(texts)

        async def client() -> None:
            for text in left:
                if shared:
                    await sharing.answer(engine.answer, [(text,)])
                else:
                    await loop.run_in_executor(pool, engine.answer, [(text,)])

        await asyncio.gather(*(client() for _ in range(CLIENTS)))
        sharing.close()

    with ThreadPoolExecutor(1) as pool:
        asyncio.run(all_of_them())


def work(config: Any, length: int) -> float:
    """Return the operations of the layers for a sentence of `length` tokens; the last layer computes only [CLS]."""
    hidden, wide = config.hidden_size, config.intermediate_size
    queried, read = 2 * (2 * hidden * hidden + 2 * hidden * wide), 2 * 2 * hidden * hidden
    attended = 4 * hidden * length
    rows = (config.num_hidden_layers - 1) * length + 1
    return float(rows * (queried + attended) + config.num_hidden_layers * length * read)


def open_session(model: bytes) -> Any:
    """Return an ONNX Runtime session with one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def int8_peak() -> float:
    """Return the operations per second of ONNX Runtime's int8 matrix product on this core."""
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    generator = np.random.default_rng(0)
    left = generator.integers(0, 255, (SQUARE, SQUARE), dtype=np.uint8)
    right = numpy_helper.from_array(generator.integers(-64, 64, (SQUARE, SQUARE), dtype=np.int8), "right")
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["left", "right"], ["product"])],
        "product",
        [helper.make_tensor_value_info("left", TensorProto.UINT8, [SQUARE, SQUARE])],
        [helper.make_tensor_value_info("product", TensorProto.INT32, [SQUARE, SQUARE])],
        [right],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    session = open_session(model.SerializeToString())
    best = min(processor_seconds(lambda: session.run(None, {"left": left})) for _ in range(PRODUCTS))
    return 2.0 * SQUARE**3 / best


if __name__ == "__main__":
    main()
