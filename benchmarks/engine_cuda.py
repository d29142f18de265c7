"""Compare the engine with torch on a GPU: same random model of BERT-base's size, same NSMC sentences.

python -m benchmarks.engine_cuda --data DIR [--shape 12x768] [--sentences 20000] [--rounds 5] [--device cuda] [--json]
`usual` is bf16 with sdpa, batches of 64 sentences in their order, padded to the longest sentence. The engine runs each
of the release's files for the device, with all sentences in one call. All ways start from texts and end with
probabilities on the host; the ways are interleaved. The median of one sentence per call is in milliseconds. Over HTTP:
python -m benchmarks.service --data DIR --release DIR --clients 1 --sentences 1 --ways saebyeok
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.engine import LENGTH, build, prepare

#: Sentences per batch of the usual way, and number of calls with one sentence.
BATCH, CALLS = 64, 200


def main() -> None:
    """Run the rounds and print a table, or one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, type=Path, help="directory with the published files")
    parser.add_argument("--shape", default="12x768", help="layers x hidden")
    parser.add_argument("--sentences", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    arguments = parser.parse_args()
    document = measure(arguments)
    if arguments.json:
        print(json.dumps(document, indent=1))
        return
    print(f"{document['machine']}, {document['sentences']:,} sentences, usual {document['usual']:,.0f} per second")
    for name, found in document["engine"].items():
        print(
            f"{name}: {found['rate']:,.0f} sentences per second, {found['ratio']:.1f} times "
            f"(rounds: {found['ratios']}); one sentence {found['one_ms']:.2f} ms"
        )


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the sentences per second of each way, medians over the rounds."""
    import torch

    from serving.engine.engine import Engine, EngineOptions

    recipe, tokenizer, texts = prepare(arguments)
    with tempfile.TemporaryDirectory() as directory:
        module = build(recipe, tokenizer, arguments.shape, Path(directory))
        module = module.to(arguments.device, torch.bfloat16)
        options = EngineOptions(device=arguments.device)
        first = Engine(Path(directory), options)
        count = len(first.card.variants[first.device])
        engines = [first, *(Engine(Path(directory), options, variant=number) for number in range(1, count))]
        ways: dict[str, Callable[[], object]] = {"usual": partial(usual, module, tokenizer, texts, arguments.device)}
        ways |= {engine.variant.name: partial(engine.classify, texts) for engine in engines}
        for way in ways.values():
            way()
        rounds = [{name: len(texts) / seconds(way) for name, way in ways.items()} for _ in range(arguments.rounds)]
        found = {}
        for engine in engines:
            ratios = [row[engine.variant.name] / row["usual"] for row in rounds]
            alone = [1000 * seconds(partial(engine.classify, [text])) for text in texts[:CALLS]]
            found[engine.variant.name] = {
                "rate": statistics.median(row[engine.variant.name] for row in rounds),
                "ratio": statistics.median(ratios),
                "ratios": [round(ratio, 1) for ratio in ratios],
                "one_ms": statistics.median(alone),
            }
    return {
        "machine": torch.cuda.get_device_name() if arguments.device == "cuda" else "cpu",
        "shape": arguments.shape,
        "sentences": len(texts),
        "usual": statistics.median(row["usual"] for row in rounds),
        "engine": found,
    }


def seconds(way: Callable[[], object]) -> float:
    """Return the seconds of one call of `way`, which returns when its answers are on the host."""
    started = time.perf_counter()
    way()
    return time.perf_counter() - started


def usual(module: Any, tokenizer: Any, texts: Sequence[str], device: str) -> list[Any]:
    """Return the probabilities of `texts` by transformers in bf16, each batch padded to its longest text."""
    import torch

    found = []
    with torch.inference_mode():
        for start in range(0, len(texts), BATCH):
            batch = list(texts[start : start + BATCH])
            inputs = tokenizer(batch, padding=True, truncation=True, max_length=LENGTH, return_tensors="pt").to(device)
            found.append(module(**inputs).logits.float().softmax(-1).cpu())
    return found


if __name__ == "__main__":
    main()
