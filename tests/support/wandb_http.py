"""HTTP interface of the small Weights & Biases: its key, responses, and injectable failures."""

from __future__ import annotations

import base64
import gzip
import json
import re
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.support.wandb_server import WandbServer

#: Injectable error statuses.
REFUSE, FORBID, LIMIT, ERROR, AWAY = 401, 403, 429, 500, 503
#: Other failures: never answer, drop the connection, send one byte at a time forever, serve a login page.
HANG, DROP, DRIP, PORTAL = 0, -1, -2, -3
RETRY_AFTER = 1
MESSAGES = {REFUSE: "user is not logged in", FORBID: "permission denied", LIMIT: "rate limit exceeded"}


class WandbHttpServer(ThreadingHTTPServer):
    """Serve `place` on a free loopback port to clients with `key`."""

    daemon_threads = True

    def __init__(self, place: WandbServer, key: str) -> None:
        super().__init__(("127.0.0.1", 0), _WandbHandler)
        self.place = place
        self.authorization = "Basic " + base64.b64encode(f"api:{key}".encode()).decode()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore errors of disconnected clients."""


class _WandbHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: WandbHttpServer

    def _handle(self) -> None:
        place = self.server.place
        announced = int(self.headers.get("content-length") or 0)
        body = self.rfile.read(announced)
        if len(body) < announced:
            place.torn.append(self.path)
            self.close_connection = True
            return
        if self.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        document = json.loads(body) if self.path.startswith(("/graphql", "/files")) else None
        operation = _operation(self.path, document)
        with place.lock:
            place.asked.append(operation)
            place.bodies.append(body)
        place.meanwhile(operation)
        failure = place.fail(operation, body)
        if failure is None and not self._allowed():
            failure = REFUSE
        if failure is None:
            self._succeed(operation, document, body)
        else:
            self._fail(failure)

    do_POST = do_PUT = do_GET = do_HEAD = _handle  # noqa: N815 - the names that http.server calls

    def _allowed(self) -> bool:
        # Upload URLs are secret and work without the key.
        return self.path.startswith("/upload/") or self.headers.get("authorization") == self.server.authorization

    def _succeed(self, operation: str, document: Any, body: bytes) -> None:
        place = self.server.place
        try:
            with place.lock:
                answer = _dispatch(place, self.path, operation, document, body)
        except Exception as error:
            place.broken.append(f"{operation}: {error!r}")
            raise
        self._answer(200, answer)

    def _fail(self, failure: int) -> None:
        if failure > 0:
            self._answer(failure, {"errors": [{"message": MESSAGES.get(failure, "not today")}]})
            return
        self.close_connection = True
        if failure == HANG:
            self.server.place.released.wait()
        elif failure == DRIP:
            self._drip()
        elif failure == PORTAL:
            self._answer(200, "<html>Welcome to our network</html>")

    def _drip(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "1000000")
        self.end_headers()
        while not self.server.place.released.wait(0.05):
            self.wfile.write(b" ")

    def _answer(self, status: int, document: Any) -> None:
        content = document.encode() if isinstance(document, str) else json.dumps(document).encode()
        self.send_response(status)
        if status == LIMIT:
            self.send_header("Retry-After", str(RETRY_AFTER))
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        pass


def _operation(path: str, document: Any) -> str:
    if not path.startswith("/graphql"):
        return "file_stream" if path.endswith("file_stream") else path.strip("/").split("/")[0]
    named = document.get("operationName") or re.search(r"(?:query|mutation)\s+(\w+)", document["query"])
    if isinstance(named, re.Match):
        return named[1]
    return named or "unnamed"


def _dispatch(place: WandbServer, path: str, operation: str, document: Any, body: bytes) -> Any:
    if path.startswith("/graphql"):
        method = re.sub(r"(?<!^)(?=[A-Z])", "_", operation).lower()
        answer = getattr(place, method, None)
        if answer is None:
            raise NotImplementedError(operation)
        return {"data": answer(document.get("variables") or {})}
    if operation == "file_stream":
        return place.stream(path, document)
    place.store(path.split("/")[-1], body)
    return {}
