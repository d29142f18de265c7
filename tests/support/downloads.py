"""A loopback server of one published file that can truncate, change the file, refuse ranges, or hang."""

from __future__ import annotations

import gzip
import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from pipeline.recipes.data_schema import Download
from tests.support.http_server import running

CONTENT = ("id\tdocument\tlabel\n" + "".join(f"{n}\t{n}번째 후기\t{n % 2}\n" for n in range(20_000))).encode()
OTHER = CONTENT.replace("후기".encode(), "평점".encode())


def sum_of(content: bytes) -> str:
    """Return the SHA-256 in hex."""
    return hashlib.sha256(content).hexdigest()


@dataclass
class FileServer:
    """The server's behaviour and its requests; `/moved.txt` redirects to the file."""

    content: bytes = CONTENT
    cut: int | None = None
    "Number of bytes after which responses end, although more were announced."
    ranges: bool = True
    tag: str | None = "auto"
    length: bool = True
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    shift: int = 0
    "Offset between the requested range and the one that is sent."
    silent: bool = False
    "Whether one response stops while its connection stays open."
    over: threading.Event = field(default_factory=threading.Event)
    asked: list[str | None] = field(default_factory=list)
    "Range header of each request."
    url: str = ""

    def wanted(self, content: bytes | None = None) -> Download:
        return Download(url=self.url, sha256=None if content is None else sum_of(content))


class _Quiet(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore errors of disconnected clients."""


@contextmanager
def serve_file() -> Iterator[FileServer]:
    """Yield a server of one file on a free port."""
    state = FileServer()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            if self.path == "/moved.txt":
                return self.answer(302, b"", {"Location": state.url})
            state.asked.append(self.headers["range"])
            version = {"ETag": f'"{sum_of(state.content)[:8]}"' if state.tag == "auto" else state.tag}
            headers = {name: value for name, value in (version | state.headers).items() if value}
            known = self.headers["if-range"] in headers.values()
            first = int((self.headers["range"] or "bytes=0-")[6:-1]) if state.ranges and known else 0
            if first >= len(state.content):
                return self.answer(416, b"", {"Content-Range": f"bytes */{len(state.content)}"})
            body = state.content[first:]
            if first:
                place = first + state.shift
                headers["Content-Range"] = f"bytes {place}-{len(state.content) - 1}/{len(state.content)}"
            elif "gzip" in (self.headers["accept-encoding"] or ""):
                body, headers["Content-Encoding"] = gzip.compress(body), "gzip"
            return self.answer(206 if first and state.status == 200 else state.status, body, headers)

        def answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            size = {"Content-Length": str(len(body))} if state.length else {}
            for name, value in (headers | size).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body[: state.cut])
            self.close_connection = not state.length or state.cut is not None
            if state.silent:
                state.silent = False
                state.over.wait()

        def log_message(self, *_: object) -> None:
            pass

    with running(_Quiet(("127.0.0.1", 0), Handler)) as url:
        state.url = f"{url}/reviews.txt"
        yield state
        state.over.set()
