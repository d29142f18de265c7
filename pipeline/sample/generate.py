"""Write the sample: reviews and sentence pairs in the formats of NSMC and KLUE-STS."""

import json
from collections.abc import Mapping
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from pipeline.atomic_files import replace_file
from pipeline.errors import DataError
from pipeline.sample import pairs, reviews

VERSION = 1  # raise it by hand when a code change alters the files for the same phrases and seed
CARD = "SAMPLE.json"
NOTE = "This is Saebyeok's shipped sample, generated from templates; it is not NSMC or KLUE-STS."


def write_sample(directory: Path, seed: int = 7) -> Path:
    """Write the sample to `directory`, unless it is there already, and return `directory`.

    Raises DataError if a file of another origin would be overwritten. Several processes may call this at once; a killed
    one leaves complete files or none.
    """
    card = _read_card(directory)
    inputs = _digest_inputs(seed)
    if card.get("inputs") == inputs and _present(directory, card) == card["files"]:
        return directory
    files = build_sample(seed)
    digests = {name: sha256(content).hexdigest() for name, content in files.items()}
    _clear_stale(directory, card, digests)
    new = {"note": NOTE, "version": VERSION, "seed": seed, "inputs": inputs, "files": digests}
    if directory.exists() and not directory.is_dir():
        raise DataError(f"{directory} is a file; name a directory for the sample")
    # Write the card first: if the process dies, the next call recognises the files by the digests in the card.
    directory.mkdir(parents=True, exist_ok=True)
    replace_file(directory / CARD, json.dumps(new, indent=1) + "\n")
    for name, content in files.items():
        (directory / name).parent.mkdir(exist_ok=True)
        replace_file(directory / name, content)
    return directory


def is_sample(directory: Path) -> bool:
    """Return whether `directory` has the shipped sample, according to its SAMPLE.json."""
    return _read_card(directory).get("note") == NOTE


@cache
def build_sample(seed: int) -> Mapping[str, bytes]:
    """Return the sample's files by path; the same seed gives the same bytes on any machine."""
    taken: set[str] = set()
    train = reviews.make_reviews(seed, taken, "train")
    test = reviews.make_reviews(seed, taken, "test")
    ids = reviews.make_ids(seed, len(train) + len(test))
    return {
        "nsmc/ratings_train.txt": _nsmc(train, ids[: len(train)]),
        "nsmc/ratings_test.txt": _nsmc(test, ids[len(train) :]),
        "klue-sts/klue-sts-v1.1_train.json": _klue(pairs.make_pairs(seed, "train")),
        "klue-sts/klue-sts-v1.1_dev.json": _klue(pairs.make_pairs(seed, "test")),
    }


def _nsmc(rows: list[reviews.Review], ids: list[int]) -> bytes:
    lines = [f"{number}\t{row.text}\t{row.label}" for number, row in zip(ids, rows, strict=True)]
    return "\n".join(["id\tdocument\tlabel", *lines, ""]).encode()


def _klue(rows: list[dict[str, Any]]) -> bytes:
    return (json.dumps(rows, ensure_ascii=False, indent=1) + "\n").encode()


def _digest_inputs(seed: int) -> str:
    phrases = [path.read_text(encoding="utf-8") for path in (reviews.PHRASES, pairs.PHRASES)]
    return sha256("\0".join([str(VERSION), str(seed), *phrases]).encode()).hexdigest()


def _read_card(directory: Path) -> dict[str, Any]:
    """Return the directory's SAMPLE.json, or an empty dictionary if it is absent or damaged."""
    try:
        card = json.loads((directory / CARD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return card if isinstance(card, dict) and isinstance(card.get("files"), dict) else {}


def _present(directory: Path, card: dict[str, Any]) -> dict[str, str]:
    """Return the digests of the card's files that exist."""
    paths = {name: directory / name for name in card["files"]}
    return {name: sha256(path.read_bytes()).hexdigest() for name, path in paths.items() if path.is_file()}


def _clear_stale(directory: Path, card: dict[str, Any], digests: dict[str, str]) -> None:
    """Remove files of an older sample. Raises DataError if a file belongs neither to it nor to this sample."""
    written = card.get("files", {})
    present = _present(directory, {"files": digests})
    for name, digest in present.items():
        if digest not in (digests[name], written.get(name)):
            raise DataError(
                f"{directory / name} is not from Saebyeok's sample, which would overwrite it: "
                "move it away, or name another directory for the sample"
            )
    for name, digest in present.items():
        if digest != digests[name]:
            (directory / name).unlink(missing_ok=True)
