"""Downloads from a loopback server that truncates, changes its file, refuses ranges or omits headers."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pipeline.data.download import download, fetch_published
from pipeline.data.reading import read_split
from pipeline.errors import DataError, DownloadError, RecipeError, SettingsError
from pipeline.recipes.data_schema import Download
from pipeline.recipes.loading import load_recipe
from pipeline.recipes.schema import Recipe
from pipeline.settings import Settings, load_settings
from tests.support.downloads import CONTENT, OTHER, FileServer, serve_file, sum_of
from tests.support.http_server import running

if TYPE_CHECKING:
    from tests.support.bucket import Bucket


@pytest.fixture
def server() -> Iterator[FileServer]:
    with serve_file() as running:
        yield running


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "reviews.txt"


def test_a_file_is_downloaded_once(server: FileServer, target: Path) -> None:
    for _ in range(2):
        download(server.wanted(CONTENT), target)
        assert target.read_bytes() == CONTENT
    assert len(server.asked) == 1
    assert sorted(path.name for path in target.parent.iterdir()) == ["reviews.txt", "reviews.txt.sha256"]


def test_interrupted_download_resumes_at_its_end(server: FileServer, target: Path) -> None:
    server.cut = 150_000
    download(server.wanted(CONTENT), target)
    assert target.read_bytes() == CONTENT
    assert server.asked == [None, "bytes=150000-", "bytes=300000-", "bytes=450000-"][: len(server.asked)]
    assert len(server.asked) > 2


def test_partial_download_is_kept_for_the_next_run(server: FileServer, target: Path) -> None:
    server.cut = 1_000
    with pytest.raises(DownloadError, match="Run again to resume the download") as caught:
        download(server.wanted(CONTENT), target)
    assert caught.value.retryable
    assert not target.exists(), "a part must never be taken for the file"
    server.cut = None
    download(server.wanted(CONTENT), target)
    assert target.read_bytes() == CONTENT
    assert server.asked[-1] == "bytes=5000-"


def test_unwritten_checksum_does_not_block_the_next_run(
    server: FileServer, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as full:
        full.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(OSError, match="No space left"):
            download(server.wanted(), target)
    # A part of a checksum would match no file.
    assert not target.with_name("reviews.txt.sha256").exists()
    download(server.wanted(), target)
    assert target.read_bytes() == CONTENT


@pytest.mark.parametrize("known", [True, False])
def test_file_changed_between_parts_is_downloaded_again(server: FileServer, target: Path, known: bool) -> None:
    server.cut = 1_000
    with pytest.raises(DownloadError):
        download(server.wanted(), target)
    server.cut, server.content = None, OTHER
    download(server.wanted(OTHER if known else None), target)
    assert target.read_bytes() == OTHER


def test_server_without_ranges_sends_the_whole_file(server: FileServer, target: Path) -> None:
    server.cut, server.ranges = 1_000, False
    with pytest.raises(DownloadError):
        download(server.wanted(CONTENT), target)
    server.cut = None
    download(server.wanted(CONTENT), target)
    assert target.read_bytes() == CONTENT


@pytest.mark.parametrize("tag", [None, 'W/"weak"'])
def test_without_a_version_nothing_is_joined(server: FileServer, target: Path, tag: str | None) -> None:
    server.cut, server.tag = 1_000, tag
    with pytest.raises(DownloadError):
        download(server.wanted(), target)
    server.cut, server.content = None, OTHER
    download(server.wanted(), target)
    assert target.read_bytes() == OTHER
    assert set(server.asked) == {None}


def test_download_without_etag_resumes_by_last_modified(server: FileServer, target: Path) -> None:
    server.tag, server.headers = None, {"Last-Modified": "Sat, 21 Nov 2026 03:00:00 GMT"}
    server.cut = 300_000
    download(server.wanted(CONTENT), target)
    assert target.read_bytes() == CONTENT
    assert server.asked[1] == "bytes=300000-"


def test_part_as_long_as_the_file_is_restarted(server: FileServer, target: Path) -> None:
    server.cut = 1_000
    with pytest.raises(DownloadError):
        download(server.wanted(CONTENT), target)
    server.cut = None
    # As if the process was killed between the last byte and the check.
    target.with_name("reviews.txt.part").write_bytes(CONTENT)
    server.asked.clear()
    download(server.wanted(CONTENT), target)
    assert target.read_bytes() == CONTENT
    assert server.asked == [f"bytes={len(CONTENT)}-", None]


def test_unrequested_range_is_not_appended(server: FileServer, target: Path) -> None:
    server.cut = 1_000
    with pytest.raises(DownloadError):
        download(server.wanted(), target)
    server.cut, server.shift = None, 10
    download(server.wanted(), target)
    assert target.read_bytes() == CONTENT
    assert server.asked[-2:] == ["bytes=5000-", None]


def test_silent_server_is_retried(server: FileServer, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.data.download.READ_TIMEOUT_SECONDS", 1.0)
    server.silent, server.cut = True, 400_000
    download(server.wanted(CONTENT), target)
    assert target.read_bytes() == CONTENT
    assert server.asked[:2] == [None, "bytes=400000-"]


def test_a_redirect_is_followed(server: FileServer, target: Path) -> None:
    download(Download(url=server.url.replace("reviews", "moved"), sha256=sum_of(CONTENT)), target)
    assert target.read_bytes() == CONTENT


@pytest.mark.parametrize("whole", [True, False])
def test_a_chunked_answer_is_believed_with_its_end(server: FileServer, target: Path, whole: bool) -> None:
    server.length, server.tag, server.headers = False, None, {"Transfer-Encoding": "chunked"}
    server.content = b"%x\r\n%b\r\n" % (len(CONTENT), CONTENT) + (b"0\r\n\r\n" if whole else b"")
    if whole:
        download(server.wanted(CONTENT), target)
        assert target.read_bytes() == CONTENT
    else:
        with pytest.raises(DownloadError, match="incomplete chunked read"):
            download(server.wanted(), target)
        assert not target.exists()


def test_file_with_another_checksum_is_refused(server: FileServer, target: Path) -> None:
    server.content = OTHER
    with pytest.raises(DataError, match=f"SHA-256 {sum_of(OTHER)}, not {sum_of(CONTENT)} as expected") as caught:
        download(server.wanted(CONTENT), target)
    assert not caught.value.retryable
    assert list(target.parent.iterdir()) == []


def test_first_download_sets_an_unknown_checksum(server: FileServer, target: Path) -> None:
    download(server.wanted(), target)
    target.unlink()
    server.content = OTHER
    with pytest.raises(DataError, match="it has changed"):
        download(server.wanted(), target)
    assert not target.exists()
    server.content = CONTENT
    download(server.wanted(), target)
    assert target.read_bytes() == CONTENT


@pytest.mark.parametrize("known", [True, False])
def test_locally_changed_file_is_downloaded_again(server: FileServer, target: Path, known: bool) -> None:
    wanted = server.wanted(CONTENT if known else None)
    download(wanted, target)
    target.write_bytes(OTHER)
    download(wanted, target)
    assert target.read_bytes() == CONTENT


def test_response_without_content_length_is_refused(server: FileServer, target: Path) -> None:
    server.length, server.cut = False, 1_000
    with pytest.raises(DownloadError, match="the server sends no Content-Length"):
        download(server.wanted(), target)
    assert not target.exists()


@pytest.mark.parametrize(
    ("status", "error", "asked"), [(404, DataError, 1), (403, DataError, 1), (500, DownloadError, 5)]
)
def test_an_error_page_is_no_file(
    server: FileServer, target: Path, status: int, error: type[DataError], asked: int
) -> None:
    server.status = status
    with pytest.raises(error, match=str(status)) as caught:
        download(server.wanted(), target)
    assert caught.value.retryable is (asked > 1)
    assert len(server.asked) == asked
    assert not target.exists()


def test_secrets_of_a_url_are_in_no_message(server: FileServer, target: Path, caplog: pytest.LogCaptureFixture) -> None:
    url = server.url.replace("://", "://me:p%40ss@") + "?sig=s3cret"
    for status in (403, 500):
        server.status = status
        with pytest.raises(DataError, match=r"://\*\*\*@127\.0\.0\.1.*\?\*\*\*") as caught:
            download(Download(url=url), target)
        assert not re.search("s3cret|p%40ss", f"{caught.value}{caplog.text}")


@pytest.mark.parametrize("url", ["https://box:port/x", "https://a..b/x", "https://bo\u200bx/x"])
def test_malformed_url_is_named(target: Path, url: str) -> None:
    with pytest.raises(RecipeError, match="is not a valid URL"):
        download(Download(url=url), target)


def from_server(name: str, server: FileServer) -> Recipe:
    place = {"url": server.url, "sha256": sum_of(server.content)}
    return load_recipe(name, "embedded", overrides={"source.train": place, "source.test": place})


def test_published_files_get_the_names_of_the_recipe(server: FileServer, tmp_path: Path) -> None:
    recipe = from_server("nsmc", server)
    fetch_published(recipe, "download", tmp_path)
    assert len(read_split(recipe, tmp_path, "train")) == len(read_split(recipe, tmp_path, "test")) == 20_000


def test_recipe_without_a_source_raises(tmp_path: Path) -> None:
    recipe = load_recipe("nsmc", "embedded").model_copy(update={"source": None})
    with pytest.raises(RecipeError, match=r"no \[source.train\].*SAEBYEOK_DATA"):
        fetch_published(recipe, "download", tmp_path)
    with pytest.raises(RecipeError, match=r"no \[source.hub\]"):
        fetch_published(recipe, "hub", tmp_path)


def test_downloads_lie_below_home(settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SAEBYEOK_SOURCE", "download")
    assert load_settings().data == settings.home / "data" / "download"
    monkeypatch.setenv("SAEBYEOK_DATA", str(tmp_path))
    with pytest.raises(SettingsError, match="name two sources; set only one"):
        load_settings()


def test_missing_datasets_library_error_names_its_install_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As if it is not installed: the import fails.
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match=r"pip install -c constraints.txt datasets"):
        fetch_published(load_recipe("klue-sts", "embedded"), "hub", tmp_path)


@pytest.mark.parametrize("name", ["nsmc", "klue-sts"])
def test_hub_data_set_is_written_in_published_format(name: str, tmp_path: Path) -> None:
    pair = {"sentence1": "비가 온다.", "sentence2": "비가\t온다.", "source": "x", "labels": {"real-label": 5.0}}
    rows = [
        {"guid": f"g{n}", **pair} if name == "klue-sts" else {"id": f"{n}", "document": "좋다", "label": 1}
        for n in range(3)
    ]
    if name == "nsmc":
        # The published file has such rows, with empty cells.
        rows.append({"id": "3", "document": None, "label": 1})
    (tmp_path / "set").mkdir()
    for split in ("train", "test"):
        lines = [json.dumps(row, ensure_ascii=False) for row in rows]
        (tmp_path / "set" / f"{split}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    hub = {"dataset": str(tmp_path / "set"), "config": None, "revision": None, "train": "train", "test": "test"}
    recipe = load_recipe(name, "embedded", overrides={f"source.hub.{key}": value for key, value in hub.items()})
    fetch_published(recipe, "hub", tmp_path / "data")
    table = read_split(recipe, tmp_path / "data", "test")
    assert table["label"].tolist() == [5.0 if name == "klue-sts" else 1] * len(rows)
    assert table["text"].tolist()[3:] == ([""] if name == "nsmc" else [])


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_hub_needs_neither_urls_nor_a_test_split(form: str, tmp_path: Path) -> None:
    rows = [{"글": f'{n}번째 글, "좋다"\n둘째 줄', "평": "좋다" if n % 2 else "싫다"} for n in range(4)]
    (tmp_path / "set").mkdir()
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    (tmp_path / "set" / "train.jsonl").write_text("\n".join(lines), encoding="utf-8")
    (tmp_path / "own.toml").write_text(
        f"""
kind = "classification"
labels = ["싫다", "좋다"]
[data]
train = "own.{form}"
texts = ["글"]
label = "평"
[source.hub]
dataset = "{tmp_path / "set"}"
train = "train"
""",
        encoding="utf-8",
    )
    recipe = load_recipe("own", "embedded", directories=[tmp_path])
    fetch_published(recipe, "hub", tmp_path / "data")
    table = read_split(recipe, tmp_path / "data", "train")
    assert table["text"].tolist() == [row["글"] for row in rows]
    assert table["label"].tolist() == [0, 1, 0, 1]
    with pytest.raises(RecipeError, match=r"recipe own has no \[source\.train\]; add it"):
        fetch_published(recipe, "download", tmp_path)


class RefusingHub(BaseHTTPRequestHandler):
    """Refuses every request with the status and the error code of its class."""

    status, code = 403, "GatedRepo"

    def do_GET(self) -> None:
        self.send_response(self.status)
        self.send_header("X-Error-Code", self.code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_HEAD(self) -> None:
        self.do_GET()

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.parametrize(("status", "code"), [(403, "GatedRepo"), (404, "RepoNotFound")])
def test_hub_that_refuses_access_is_not_asked_again(
    status: int, code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    handler = type("Handler", (RefusingHub,), {"status": status, "code": code})
    with running(HTTPServer(("127.0.0.1", 0), handler)) as url:
        monkeypatch.setattr(datasets.config, "HF_ENDPOINT", url)
        recipe = load_recipe("nsmc", "embedded", overrides={"source.hub.dataset": "team/reviews"})
        with pytest.raises(DataError, match="accept its terms on the hub and set HF_TOKEN") as caught:
            fetch_published(recipe, "hub", tmp_path)
    assert not caught.value.retryable


def test_half_a_source_is_named() -> None:
    for key in ("source.test", "source.hub.test"):
        with pytest.raises(RecipeError, match=r"`source(\.hub)?` must have `train`, and `test` only if"):
            load_recipe("nsmc", "embedded", overrides={key: None})


def test_file_in_a_bucket_is_copied_and_verified(bucket: Bucket, target: Path) -> None:
    bucket.client.put_object(Bucket=bucket.name, Key="data/reviews.txt", Body=CONTENT)
    wanted = Download(url=f"s3://{bucket.name}/data/reviews.txt", sha256=sum_of(CONTENT))
    download(wanted, target)
    assert target.read_bytes() == CONTENT
    bucket.client.put_object(Bucket=bucket.name, Key="data/reviews.txt", Body=OTHER)
    download(wanted, target)
    assert target.read_bytes() == CONTENT
    target.unlink()
    with pytest.raises(DataError, match="the file has SHA-256"):
        download(wanted, target)


def test_missing_file_and_unknown_protocol_are_sentences(bucket: Bucket, target: Path) -> None:
    with pytest.raises(DownloadError, match=r"s3://.*/absent could not be downloaded \(FileNotFoundError"):
        download(Download(url=f"s3://{bucket.name}/absent"), target)
    with pytest.raises(RecipeError, match=r"carrier-pigeon://x/y cannot be read: Protocol not known"):
        download(Download(url="carrier-pigeon://x/y"), target)
