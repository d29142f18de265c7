"""A web hook that records its requests."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

from tests.support.http_server import running


@dataclass
class Hook:
    """Its URL and the received bodies."""

    url: str = ""
    bodies: list[Any] = field(default_factory=list)


@contextmanager
def web_hook() -> Iterator[Hook]:
    """Yield a hook on a loopback port; paths below `/broken` return 500."""
    hook = Hook()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            hook.bodies.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(500 if self.path == "/broken" else 204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with running(HTTPServer(("127.0.0.1", 0), Handler)) as hook.url:
        yield hook
