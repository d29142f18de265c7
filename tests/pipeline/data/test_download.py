"""Downloads from a server on loopback that cuts off, changes its file, refuses ranges or says too little."""

from __future__ import annotations

import hashlib
import json
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from pipeline.data.download import download, fetch_published
from pipeline.data.reading import read_split
from pipeline.errors import DataError, DownloadError, RecipeError, SettingsError
from pipeline.recipes.data_schema import Download
from pipeline.recipes.loading import load_recipe
from pipeline.recipes.schema import Recipe
from pipeline.settings import Settings, load_settings

CONTENT = ("id\tdocument\tlabel\n" + "".join(f"{n}\t{n}번째 후기\t{n % 2}\n" for n in range(20_000))).encode()
OTHER = CONTENT.replace("후기".encode(), "평점".encode())


def sum_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@dataclass
class Server:
    """What it answers, and what it was asked."""

    content: bytes = CONTENT
    cut: int | None = None
    "Answers end after so many bytes, though more were promised."
    ranges: bool = True
    tag: str | None = "auto"
    length: bool = True
    status: int = 200
    asked: list[str | None] = field(default_factory=list)
    "The Range of each request."
    url: str = ""

    def wanted(self, content: bytes | None = None) -> Download:
        return Download(url=self.url, sha256=None if content is None else sum_of(content))


@pytest.fixture
def server() -> Iterator[Server]:
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.asked.append(self.headers["range"])
            tag = f'"{sum_of(state.content)[:8]}"' if state.tag == "auto" else state.tag
            first = 0
            if state.ranges and self.headers["range"] and self.headers["if-range"] == tag:
                first = int(self.headers["range"].removeprefix("bytes=").rstrip("-"))
            body = state.content[first:]
            self.send_response(206 if first and state.status == 200 else state.status)
            if first:
                self.send_header("Content-Range", f"bytes {first}-{len(state.content) - 1}/{len(state.content)}")
            if tag:
                self.send_header("ETag", tag)
            if state.length:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: state.cut])

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        state.url = f"http://127.0.0.1:{running.server_port}/reviews.txt"
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield state
        running.shutdown()
        thread.join()


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "reviews.txt"


def test_a_file_is_downloaded_once(server: Server, target: Path) -> None:
    for _ in range(2):
        download(server.wanted(CONTENT), target)
        assert target.read_bytes() == CONTENT
    assert len(server.asked) == 1
    assert sorted(path.name for path in target.parent.iterdir()) == ["reviews.txt", "reviews.txt.sha256"]


def test_a_download_that_is_cut_off_goes_on_where_it_ended(server: Server, target: Path) -> None:
    server.cut = 150_000
    download(server.wanted(CONTENT), target)
    assert target.read_bytes() == CONTENT
    assert server.asked == [None, "bytes=150000-", "bytes=300000-", "bytes=450000-"][: len(server.asked)]
    assert len(server.asked) > 2


def test_what_came_is_kept_for_the_next_run(server: Server, target: Path) -> None:
    server.cut = 1_000
    with pytest.raises(DownloadError, match="the next run goes on from there") as caught:
        download(server.wanted(CONTENT), target)
    assert caught.value.retryable
    assert not target.exists(), "a part must never be taken for the file"
    server.cut = None
    download(server.wanted(CONTENT), target)
    assert target.read_bytes() == CONTENT
    assert server.asked[-1] == "bytes=5000-"


@pytest.mark.parametrize("known", [True, False])
def test_a_file_that_changes_between_two_parts_is_begun_anew(server: Server, target: Path, known: bool) -> None:
    server.cut = 1_000
    with pytest.raises(DownloadError):
        download(server.wanted(), target)
    server.cut, server.content = None, OTHER
    download(server.wanted(OTHER if known else None), target)
    assert target.read_bytes() == OTHER


def test_a_server_that_knows_no_ranges_is_asked_for_all_again(server: Server, target: Path) -> None:
    server.cut, server.ranges = 1_000, False
    with pytest.raises(DownloadError):
        download(server.wanted(CONTENT), target)
    server.cut = None
    download(server.wanted(CONTENT), target)
    assert target.read_bytes() == CONTENT


@pytest.mark.parametrize("tag", [None, 'W/"weak"'])
def test_without_a_version_nothing_is_joined(server: Server, target: Path, tag: str | None) -> None:
    server.cut, server.tag = 1_000, tag
    with pytest.raises(DownloadError):
        download(server.wanted(), target)
    server.cut, server.content = None, OTHER
    download(server.wanted(), target)
    assert target.read_bytes() == OTHER
    assert set(server.asked) == {None}


def test_another_file_than_the_recipe_names_is_not_used(server: Server, target: Path) -> None:
    server.content = OTHER
    with pytest.raises(DataError, match=f"SHA-256 {sum_of(OTHER)}, and {sum_of(CONTENT)} is wanted") as caught:
        download(server.wanted(CONTENT), target)
    assert not caught.value.retryable
    assert list(target.parent.iterdir()) == []


def test_where_no_sum_is_known_the_first_file_is_held_to(server: Server, target: Path) -> None:
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
def test_a_file_that_was_changed_here_is_fetched_again(server: Server, target: Path, known: bool) -> None:
    wanted = server.wanted(CONTENT if known else None)
    download(wanted, target)
    target.write_bytes(OTHER)
    download(wanted, target)
    assert target.read_bytes() == CONTENT


def test_a_server_that_does_not_say_where_the_file_ends_is_not_believed(server: Server, target: Path) -> None:
    server.length, server.cut = False, 1_000
    with pytest.raises(DownloadError, match="does not say where the file ends"):
        download(server.wanted(), target)
    assert not target.exists()


@pytest.mark.parametrize("status", [404, 500])
def test_an_error_page_is_no_file(server: Server, target: Path, status: int) -> None:
    server.status = status
    with pytest.raises(DownloadError, match=str(status)):
        download(server.wanted(), target)
    assert not target.exists()


def from_server(name: str, server: Server) -> Recipe:
    place = {"url": server.url, "sha256": sum_of(server.content)}
    return load_recipe(name, "embedded", overrides={"source.train": place, "source.test": place})


def test_both_published_files_come_under_the_names_that_the_recipe_reads(server: Server, tmp_path: Path) -> None:
    recipe = from_server("nsmc", server)
    fetch_published(recipe, "download", tmp_path)
    assert len(read_split(recipe, tmp_path, "train")) == len(read_split(recipe, tmp_path, "test")) == 20_000


def test_a_recipe_without_a_source_says_so(tmp_path: Path) -> None:
    recipe = load_recipe("nsmc", "embedded").model_copy(update={"source": None})
    with pytest.raises(RecipeError, match=r"no \[source.train\].*SAEBYEOK_DATA"):
        fetch_published(recipe, "download", tmp_path)
    with pytest.raises(RecipeError, match=r"no \[source.hub\]"):
        fetch_published(recipe, "hub", tmp_path)


def test_downloads_lie_below_home(settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SAEBYEOK_SOURCE", "download")
    assert load_settings().data == settings.home / "data" / "download"
    monkeypatch.setenv("SAEBYEOK_DATA", str(tmp_path))
    with pytest.raises(SettingsError, match="name two places; set one of them"):
        load_settings()


def test_without_the_hubs_library_the_error_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # As where it is not installed: importing it fails.
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match=r"pip install -c constraints.txt datasets"):
        fetch_published(load_recipe("klue-sts", "embedded"), "hub", tmp_path)


@pytest.mark.parametrize("name", ["nsmc", "klue-sts"])
def test_a_data_set_of_the_hub_is_written_as_published(name: str, tmp_path: Path) -> None:
    pair = {"sentence1": "비가 온다.", "sentence2": "비가\t온다.", "source": "x", "labels": {"real-label": 5.0}}
    rows = [
        {"guid": f"g{n}", **pair} if name == "klue-sts" else {"id": f"{n}", "document": "좋다", "label": 1}
        for n in range(3)
    ]
    if name == "nsmc":
        # The published file has such rows, with nothing between the tabs.
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
