"""Sources: download the published files, or load them from the hub, cache them, and verify their SHA-256."""

from __future__ import annotations

import csv
import importlib
import io
import json
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import fsspec
import httpx
from filelock import FileLock

from pipeline.atomic_files import replace_file
from pipeline.data.formats import columns_of
from pipeline.data.reading import SPLITS, Split, source_splits
from pipeline.errors import DataError, DownloadError, RecipeError
from pipeline.http_requests import certificates
from pipeline.recipes.data_schema import Download, HubData
from pipeline.recipes.schema import Recipe
from pipeline.store.manifest import file_digest
from pipeline.texts import without_secrets

ATTEMPTS = 5
#: Longest wait for the next bytes, in seconds.
READ_TIMEOUT_SECONDS = 30.0
#: HTTP statuses that the same request would get again.
FINAL = (400, 401, 403, 404, 410, 451)
RANGE = re.compile(r"bytes (\d+)-\d+/(\d+)")

log = logging.getLogger(__name__)


def fetch_published(recipe: Recipe, source: str, directory: Path) -> None:
    """Ensure that both published files of `recipe` exist below `directory`; `source` is `download` or `hub`.

    An existing file is verified against its SHA-256: the recipe's, or the one recorded at the first download.
    Raises RecipeError if the recipe does not define the source, DownloadError if the source cannot be reached, and
    DataError if its content has another SHA-256.
    """
    found = recipe.source and (recipe.source.hub if source == "hub" else recipe.source.train)
    if not found:
        urls = " and ".join(f"[source.{split}]" for split in source_splits(recipe))
        table = "[source.hub]" if source == "hub" else urls
        raise RecipeError(
            f"recipe {recipe.name} has no {table}; add it, or set SAEBYEOK_DATA to a directory with the files"
        )
    for split, name in zip(SPLITS, recipe.data.files, strict=False):
        target = directory / name
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(target.with_name(target.name + ".lock")):
            if isinstance(found, HubData):
                take_from_hub(recipe, found, split, target)
            else:
                download(getattr(recipe.source, split), target)


def download(wanted: Download, target: Path) -> None:
    """Ensure that the file of `wanted` exists at `target`; an interrupted download is resumed, also by a later run.

    Raises DownloadError after `ATTEMPTS` failures, DataError if the server refuses the request or if the content has
    another SHA-256, and RecipeError if the URL is invalid.
    """
    known = wanted.sha256 or _recorded(target)
    if _is_there(target, known):
        return
    part = target.with_name(target.name + ".part")
    place = without_secrets(wanted.url)
    for attempt in range(1, ATTEMPTS + 1):
        try:
            (_receive if wanted.url.startswith(("http://", "https://")) else _copy)(wanted.url, part)
            break
        except (httpx.InvalidURL, UnicodeError) as error:
            raise RecipeError(f"{place} is not a valid URL; correct it in the recipe's [source]") from error
        except (httpx.HTTPError, OSError, DownloadError) as error:
            reason = without_secrets(f"{type(error).__name__}: {error}")
            if isinstance(error, httpx.HTTPStatusError) and error.response.status_code in FINAL:
                raise DataError(
                    f"{place} could not be downloaded ({reason}); correct the URL in the recipe's [source], or set "
                    "SAEBYEOK_DATA to a directory with the file"
                ) from error
            log.warning("%s, attempt %d of %d: %s", place, attempt, ATTEMPTS, reason)
            if attempt == ATTEMPTS:
                raise DownloadError(
                    f"{place} could not be downloaded ({reason}). Run again to resume the download, or set "
                    "SAEBYEOK_DATA to a directory with the file"
                ) from error
    _keep(part, target, known, place)


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
    log.warning("%s has changed since it was downloaded; downloading it again", target)
    return False


def _keep(part: Path, target: Path, known: str | None, whence: str) -> None:
    """Move a complete download to `target`. Raises DataError if its SHA-256 is not `known`."""
    digest = file_digest(part)
    _validator(part).unlink(missing_ok=True)
    if known is not None and digest != known:
        part.unlink()
        raise DataError(
            f"{whence}: the file has SHA-256 {digest}, not {known} as expected: it has changed or was corrupted in "
            "transit, and was discarded. If the change is intended, write the new SHA-256 into the recipe; if the "
            f"recipe has none, delete {_record(target)}"
        )
    # Write the checksum first: a file without a checksum counts as changed.
    replace_file(_record(target), digest + "\n")
    # Not `replace_file`: an interrupted `part` is kept and resumed. The checksum reveals content lost in a power cut.
    part.replace(target)
    log.info("%s: %s", target, whence)


def _validator(part: Path) -> Path:
    """Return the file that holds the version (ETag or date) of the download in `part`."""
    return part.with_name(part.name + ".version")


def _receive(url: str, part: Path) -> None:
    """Download `url` into `part`; resume at the end of `part` if the server still has the same version."""
    headers = {"Accept-Encoding": "identity"}
    version = _validator(part)
    held = part.stat().st_size if part.is_file() and version.is_file() else 0
    if held:
        headers |= {"Range": f"bytes={held}-", "If-Range": version.read_text(encoding="utf-8")}
    limit, known = READ_TIMEOUT_SECONDS, certificates()
    with httpx.stream("GET", url, headers=headers, timeout=limit, follow_redirects=True, verify=known) as response:
        if response.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
            part.unlink()
            raise DownloadError("the partial download was of another version of the file and was deleted")
        response.raise_for_status()
        total = _begin(response, part, held)
        with part.open("ab") as file:
            # Without a chunk size: a partly filled chunk would be lost if the connection breaks.
            for chunk in response.iter_raw():
                file.write(chunk)
    if total is not None and part.stat().st_size != total:
        raise DownloadError(f"received {part.stat().st_size:,} of {total:,} bytes")


def _copy(url: str, part: Path) -> None:
    """Copy the file at `url` to `part` by fsspec. Raises RecipeError if a package for its protocol is missing."""
    try:
        system, path = fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise RecipeError(f"{without_secrets(url)} cannot be read: {error}") from error
    system.get_file(path, str(part))


def _begin(response: httpx.Response, part: Path, held: int) -> int | None:
    """Truncate `part` to the start of the response; return the size of the complete file, or None if unknown."""
    found = RANGE.fullmatch(response.headers.get("content-range", ""))
    if response.status_code == httpx.codes.PARTIAL_CONTENT and found and int(found[1]) == held:
        return int(found[2])
    part.write_bytes(b"")
    if response.status_code == httpx.codes.PARTIAL_CONTENT:
        raise DownloadError("the server sent a different byte range than requested")
    # A weak ETag does not guarantee identical bytes.
    tag = response.headers.get("etag", "")
    version = tag if tag and not tag.startswith("W/") else response.headers.get("last-modified", "")
    if version:
        _validator(part).write_text(version, encoding="utf-8")
    else:
        _validator(part).unlink(missing_ok=True)
    length = response.headers.get("content-length")
    if not length and "chunked" not in response.headers.get("transfer-encoding", ""):
        raise DownloadError("the server sends no Content-Length, so a truncated download would not be noticed")
    return int(length) if length else None


def take_from_hub(recipe: Recipe, hub: HubData, split: Split, target: Path) -> None:
    """Ensure that a split of a hub data set exists at `target`, in the recipe's format.

    Raises DataError if `datasets` is not installed, if the hub has no such data set or refuses access to it, or if the
    split has changed since it was first loaded, and DownloadError if the hub cannot be reached.
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
    except datasets.exceptions.DatasetNotFoundError as error:
        raise DataError(
            f"{whence} could not be loaded ({without_secrets(str(error))}); correct [source.hub] of recipe "
            f"{recipe.name}, or, if the data set is private or gated, accept its terms on the hub and set HF_TOKEN"
        ) from error
    except Exception as error:  # the client also raises errors of its HTTP library
        raise DownloadError(
            f"{whence} could not be loaded ({type(error).__name__}: {without_secrets(str(error))}); check the network "
            f"and [source.hub] of recipe {recipe.name}"
        ) from error
    part = target.with_name(target.name + ".part")
    part.write_bytes(_as_file(recipe, list(rows)))
    _keep(part, target, known, whence)


def _as_file(recipe: Recipe, rows: list[Mapping[str, Any]]) -> bytes:
    """Return the content of the recipe's file with these rows."""
    form = recipe.data.format
    if form == "parquet":
        # Imported here so that other formats do not wait for it.
        import pyarrow
        from pyarrow import parquet

        file = io.BytesIO()
        parquet.write_table(pyarrow.Table.from_pylist(rows), file)
        return file.getvalue()
    if form in ("json", "jsonl"):
        texts = [json.dumps(row, ensure_ascii=False) for row in rows]
        return (f"[{', '.join(texts)}]" if form == "json" else "\n".join(texts)).encode(recipe.data.encoding)
    names = list(columns_of(recipe.data).values())
    missing = [name for name in names if rows and name not in rows[0]]
    if missing:
        raise DataError(f"the hub data set has no column {', '.join(missing)}; it has: {', '.join(rows[0])}")
    cells = [names, *(["" if row[name] is None else str(row[name]) for name in names] for row in rows)]
    text = _as_csv(recipe, cells) if form == "csv" else _as_tsv(cells)
    return text.encode(recipe.data.encoding)


def _as_csv(recipe: Recipe, cells: list[list[str]]) -> str:
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=recipe.data.delimiter, lineterminator="\n").writerows(cells)
    return text.getvalue()


def _as_tsv(cells: list[list[str]]) -> str:
    # The published format has no escapes for tabs and line feeds.
    return "".join("\t".join(re.sub(r"[\t\n]", " ", cell) for cell in row) + "\n" for row in cells)
