"""The command `saebyeok-client`: query a service, and print one JSON document per text or pair."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, get_args

from pydantic import BaseModel

from .client import TIMEOUT, Client, ClientError
from .responses import Method

URL = "http://127.0.0.1:3000"
#: Texts or pairs per request: enough to be fast, few enough that results appear soon.
INPUTS_PER_CALL = 100

Ask = Callable[[Client, argparse.Namespace, list[Any]], Any]


def main() -> None:
    """Run the command and exit: 0, 1 after an error, 2 after a wrong argument."""
    options = _parser().parse_args()
    try:
        with Client(options.url, os.environ.get("SAEBYEOK_API_KEY", ""), timeout=options.timeout) as client:
            for document in options.documents(client, options):
                sys.stdout.write(json.dumps(document, ensure_ascii=False) + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader has ended, such as `head`. The interpreter must not flush the pipe again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (ClientError, ValueError) as error:
        sys.exit(f"error: {error}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="saebyeok-client", description="Query a Saebyeok service. The API key is read from SAEBYEOK_API_KEY."
    )
    url = os.environ.get("SAEBYEOK_SERVICE_URL", URL)
    parser.add_argument("--url", default=url, help="URL of the service. Default: SAEBYEOK_SERVICE_URL, else " + URL)
    parser.add_argument("--timeout", type=float, default=TIMEOUT, help="seconds per request. Default: %(default)g")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    classify = _asking(commands, "classify", "print class and probabilities", _classify)
    classify.add_argument("--pairs", action="store_true", help="the inputs are pairs, with a tab between the texts")
    similarity = _asking(commands, "similarity", "print the similarity of pairs (a tab between the texts)", _similarity)
    similarity.add_argument("--method", choices=get_args(Method), help="default: the release's")
    similarity.set_defaults(pairs=True)
    _asking(commands, "score", "print the score of texts", _score).set_defaults(pairs=False)
    _asking(commands, "embed", "print the unit vector of texts", _embed).set_defaults(pairs=False)
    releases = commands.add_parser("releases", help="print the deployed releases")
    releases.set_defaults(documents=lambda client, _: [client.releases().model_dump(mode="json")])
    return parser


def _asking(commands: Any, name: str, text: str, ask: Ask) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
    parser.add_argument("inputs", nargs="*", metavar="TEXT", help="inputs. Default: the lines of standard input")
    parser.add_argument("--recipe", help="needed if several deployed recipes fit")
    parser.set_defaults(documents=lambda client, options: _documents(client, options, ask))
    return parser


def _classify(client: Client, options: argparse.Namespace, inputs: list[Any]) -> Any:
    return client.classify(recipe=options.recipe, **{"pairs" if options.pairs else "texts": inputs})


def _similarity(client: Client, options: argparse.Namespace, inputs: list[Any]) -> Any:
    return client.similarity(inputs, options.recipe, options.method)


def _score(client: Client, options: argparse.Namespace, inputs: list[Any]) -> Any:
    return client.score(inputs, options.recipe)


def _embed(client: Client, options: argparse.Namespace, inputs: list[Any]) -> Any:
    return client.embed(inputs, options.recipe)


def _documents(client: Client, options: argparse.Namespace, ask: Ask) -> Iterator[dict[str, Any]]:
    """Yield one document per input; the service is asked for `INPUTS_PER_CALL` inputs at a time."""
    name = "pair" if options.pairs else "text"
    inputs = _inputs(options.inputs or sys.stdin, pairs=options.pairs)
    while batch := list(islice(inputs, INPUTS_PER_CALL)):
        answer = ask(client, options, batch)
        of_release = answer.model_dump(include={"recipe", "release", "sample"})
        results: Sequence[BaseModel] = answer.results
        for item, result in zip(batch, results, strict=True):
            yield {name: item, **result.model_dump(), **of_release}


def _inputs(lines: Iterable[str], *, pairs: bool) -> Iterator[str | list[str]]:
    for number, line in enumerate(lines, start=1):
        text = line.rstrip("\r\n")
        if number == 1:
            # Editors on Windows write a byte order mark.
            text = text.removeprefix("\ufeff")
        # Python decodes bytes that are not UTF-8 as half characters, which no request can carry.
        if any("\ud800" <= character <= "\udfff" for character in text):
            raise ValueError(f"input {number} is not UTF-8; convert it to UTF-8")
        pair = text.split("\t")
        if pairs and len(pair) != 2:
            raise ValueError(f"input {number} is not a pair; write two texts with a tab between them")
        yield pair if pairs else text
