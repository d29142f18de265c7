"""Sources: published files downloaded or taken from the hub, cached, and held to one content from then on."""

from __future__ import annotations

import importlib
import json
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
from filelock import FileLock

from pipeline.data.reading import SPLITS, Split, columns_of
from pipeline.errors import DataError, DownloadError, RecipeError
from pipeline.recipes.data_schema import Download, HubData
from pipeline.recipes.schema import Recipe
from pipeline.store.manifest import file_digest

ATTEMPTS = 5
#: Seconds without a byte.
READ_TIMEOUT_SECONDS = 30.0
RANGE = re.compile(r"bytes (\d+)-\d+/(\d+)")

log = logging.getLogger(__name__)


def fetch_published(recipe: Recipe, source: str, directory: Path) -> None:
    """Have both published files of `recipe` below `directory`, from `source`: `download` or `hub`.

    A file that is there already is held to its SHA-256: the recipe's, or the one recorded when it first came.
    Raises RecipeError where the recipe names no such source, DownloadError where it does not answer, DataError
    where what it gives is not the file that was wanted.
    """
    if recipe.source is None or (source == "hub" and recipe.source.hub is None):
        table = "[source.hub]" if source == "hub" else "[source.train] and [source.test]"
        raise RecipeError(f"recipe {recipe.name} has no {table}; set SAEBYEOK_DATA to a directory with its files")
    names: dict[Split, str] = {"train": recipe.data.train, "test": recipe.data.test}
    for split in SPLITS:
        target = directory / names[split]
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(target.with_name(target.name + ".lock")):
            if source == "hub" and recipe.source.hub is not None:
                take_from_hub(recipe, recipe.source.hub, split, target)
            else:
                download(getattr(recipe.source, split), target)


def download(wanted: Download, target: Path) -> None:
    """Have the file of `wanted` at `target`; what was cut off goes on where it ended, also in another run."""
    known = wanted.sha256 or _recorded(target)
    if _is_there(target, known):
        return
    part = target.with_name(target.name + ".part")
    for attempt in range(1, ATTEMPTS + 1):
        try:
            _receive(wanted.url, part)
            break
        except (httpx.HTTPError, DownloadError) as error:
            log.warning("%s, attempt %d of %d: %s", wanted.url, attempt, ATTEMPTS, error)
            if attempt == ATTEMPTS:
                raise DownloadError(
                    f"{wanted.url} could not be downloaded ({type(error).__name__}: {error}); what came is kept and "
                    "the next run goes on from there; or set SAEBYEOK_DATA to a directory with the file"
                ) from error
    _keep(part, target, known, wanted.url)


def _recorded(target: Path) -> str | None:
    record = _record(target)
    return record.read_text(encoding="utf-8").strip() if record.is_file() else None


def _record(target: Path) -> Path:
    return target.with_name(target.name + ".sha256")


def _is_there(target: Path, known: str | None) -> bool:
    if known is None or not target.is_file():
        return False
    if file_digest(target) == known:
        return True
    log.warning("%s has changed since it came; it is fetched again", target)
    return False


def _keep(part: Path, target: Path, known: str | None, whence: str) -> None:
    """Put a whole file in its place. Raises DataError where it is another than it was or must be."""
    digest = file_digest(part)
    _validator(part).unlink(missing_ok=True)
    if known is not None and digest != known:
        part.unlink()
        raise DataError(
            f"{whence} gave a file with SHA-256 {digest}, and {known} is wanted: it has changed, or was spoilt on the "
            "way, and is not used. If the change is meant, write the new sum into the recipe, or delete "
            f"{_record(target)} where the recipe has none"
        )
    # The sum first: a file without one would be taken for changed, and one that has a sum is held to it.
    _record(target).write_text(digest + "\n", encoding="utf-8")
    part.replace(target)
    log.info("%s: %s", target, whence)


def _validator(part: Path) -> Path:
    """Holds what tells the version of the file that `part` is the beginning of."""
    return part.with_name(part.name + ".version")


def _receive(url: str, part: Path) -> None:
    """Receive `url` into `part` to its end, going on where it ends if the server still has that version."""
    headers = {"Accept-Encoding": "identity"}
    version = _validator(part)
    held = part.stat().st_size if part.is_file() and version.is_file() else 0
    if held:
        headers |= {"Range": f"bytes={held}-", "If-Range": version.read_text(encoding="utf-8")}
    with httpx.stream("GET", url, headers=headers, timeout=READ_TIMEOUT_SECONDS, follow_redirects=True) as response:
        if response.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
            part.unlink()
            raise DownloadError("what came before is not the beginning of this file; it begins anew")
        response.raise_for_status()
        total = _begin(response, part, held)
        with part.open("ab") as file:
            # As it comes: a chunk that were filled up first would be lost where the answer is cut off.
            for chunk in response.iter_raw():
                file.write(chunk)
    if total is not None and part.stat().st_size != total:
        raise DownloadError(f"{part.stat().st_size:,} of {total:,} bytes came")


def _begin(response: httpx.Response, part: Path, held: int) -> int | None:
    """Cut `part` to where the answer begins; the size of the whole file, where the answer says it."""
    found = RANGE.fullmatch(response.headers.get("content-range", ""))
    if response.status_code == httpx.codes.PARTIAL_CONTENT and found and int(found[1]) == held:
        return int(found[2])
    part.write_bytes(b"")
    if response.status_code == httpx.codes.PARTIAL_CONTENT:
        raise DownloadError("the server sent another part than was asked for")
    # A weak one does not tell one byte from another.
    tag = response.headers.get("etag", "")
    version = tag if tag and not tag.startswith("W/") else response.headers.get("last-modified", "")
    if version:
        _validator(part).write_text(version, encoding="utf-8")
    else:
        _validator(part).unlink(missing_ok=True)
    length = response.headers.get("content-length")
    if not length and "chunked" not in response.headers.get("transfer-encoding", ""):
        raise DownloadError("the server does not say where the file ends, so a part could be taken for the whole")
    return int(length) if length else None


def take_from_hub(recipe: Recipe, hub: HubData, split: Split, target: Path) -> None:
    """Have a split of a data set of the hub at `target`, written in the recipe's own format.

    Raises DataError where `datasets` is not installed or the split has changed since it first came.
    """
    known = _recorded(target)
    if _is_there(target, known):
        return
    try:
        datasets: Any = importlib.import_module("datasets")
    except ImportError as error:
        raise DataError(
            "SAEBYEOK_SOURCE=hub needs the package `datasets`: pip install -c constraints.txt datasets"
        ) from error
    whence = f"hub data set {hub.dataset}, split {getattr(hub, split)}"
    try:
        rows = datasets.load_dataset(hub.dataset, hub.config, split=getattr(hub, split), revision=hub.revision)
    except Exception as error:  # the client lets its transport's own errors through
        raise DownloadError(
            f"{whence} could not be had ({type(error).__name__}: {error}); check the network"
        ) from error
    part = target.with_name(target.name + ".part")
    part.write_text(_as_file(recipe, list(rows)), encoding="utf-8", newline="\n")
    _keep(part, target, known, whence)


def _as_file(recipe: Recipe, rows: list[Mapping[str, Any]]) -> str:
    if recipe.data.format == "json":
        return json.dumps(rows, ensure_ascii=False)
    names = list(columns_of(recipe).values())
    missing = [name for name in names if rows and name not in rows[0]]
    if missing:
        raise DataError(f"the hub's data set has no column {', '.join(missing)}; it has: {', '.join(rows[0])}")
    # What would end a cell or a line cannot stand in the published format either.
    cells = ([re.sub(r"[\t\n]", " ", "" if row[name] is None else str(row[name])) for name in names] for row in rows)
    return "\n".join(["\t".join(names), *("\t".join(row) for row in cells)]) + "\n"
