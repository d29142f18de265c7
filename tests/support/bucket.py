"""A real S3 server in this process (moto), with injectable failures."""

from __future__ import annotations

import secrets
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import boto3
from moto.moto_server.werkzeug_app import MotoRequestHandler
from moto.server import ThreadedMotoServer
from s3fs import S3FileSystem

Environ = dict[str, Any]
Application = Callable[[Environ, Callable[..., Any]], Iterable[bytes]]
Answer = Callable[[Application, Environ, Callable[..., Any]], Iterable[bytes]]
#: Environment that leads a client to the server; it accepts any keys.
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}


def refuse(status: str, code: str) -> Answer:
    """Return a failure: S3 refuses the request, as in `refuse("503 Slow Down", "SlowDown")`."""
    document = f"<Error><Code>{code}</Code><Message>{code}</Message></Error>".encode()

    def answer(_: Application, environ: Environ, start: Callable[..., Any]) -> list[bytes]:
        environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        start(status, [("Content-Type", "application/xml"), ("Content-Length", str(len(document)))])
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [document]

    return answer


def lose(application: Application, environ: Environ, _: Callable[..., Any]) -> list[bytes]:
    """Execute the request, then break the connection before the response."""
    list(application(environ, lambda *_: None))
    environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
    raise ConnectionResetError


def cut(application: Application, environ: Environ, start: Callable[..., Any]) -> list[bytes]:
    """Break the connection in the middle of the response body."""
    body = b"".join(application(environ, start))
    return [body[: len(body) // 2]]


@dataclass
class Silence:
    """Accept the request's head, then send nothing, not even "100 Continue", until `over` is set."""

    over: threading.Event = field(default_factory=threading.Event)


@dataclass
class Fault:
    """A failure for `times` requests of `method` whose key ends with `key`, after the first `after` of them."""

    answer: Answer | Silence
    method: str
    key: str
    times: int
    after: int
    seen: int = 0

    def befalls(self, method: str, path: str) -> bool:
        """Return whether this request fails; counts the request."""
        if method != self.method or not path.partition("?")[0].endswith(self.key):
            return False
        self.seen += 1
        return self.after < self.seen <= self.after + self.times


@dataclass
class BucketServer:
    """WSGI middleware: requests are handled one by one, as S3 guarantees for one object and moto does not."""

    application: Application
    faults: list[Fault] = field(default_factory=list)
    #: Method and path (without query) of all requests.
    requests: list[tuple[str, str]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, environ: Environ, start: Callable[..., Any]) -> Iterable[bytes]:
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        self.requests.append((method, path))
        answer = self.take(method, path, silent=False)
        return self._serve(environ, start) if answer is None else answer(self._serve, environ, start)

    def _serve(self, environ: Environ, start: Callable[..., Any]) -> list[bytes]:
        with self.lock:
            return list(self.application(environ, start))

    def take(self, method: str, path: str, *, silent: bool) -> Any:
        """Return the failure for a request, or None."""
        for fault in self.faults:
            if isinstance(fault.answer, Silence) == silent and fault.befalls(method, path):
                return fault.answer
        return None

    def heal(self) -> None:
        for fault in self.faults:
            if isinstance(fault.answer, Silence):
                fault.answer.over.set()
        self.faults.clear()
        self.requests.clear()


class BucketHandler(MotoRequestHandler):
    """Moto's handler; silence starts here, because it sends "100 Continue" before the middleware is called."""

    def run_wsgi(self) -> None:
        silence = self.server.app.take(self.command, self.path, silent=True)
        if silence is None:
            super().run_wsgi()
        else:
            self.server.app.requests.append((self.command, self.path))
            silence.over.wait()
            self.close_connection = True


@contextmanager
def s3_server(address: str = "127.0.0.1", port: int = 0) -> Iterator[tuple[str, BucketServer]]:
    """Yield a server on this port, or a free one: its URL and its middleware."""
    moto = ThreadedMotoServer(ip_address=address, port=port, verbose=False)
    moto.start()
    host, port = moto.get_host_and_port()
    moto._server.app = server = BucketServer(moto._server.app)
    moto._server.RequestHandlerClass = BucketHandler
    try:
        yield f"http://{host}:{port}", server
    finally:
        S3FileSystem.clear_instance_cache()
        moto.stop()


@dataclass
class Bucket:
    """The bucket of one test; `uri` is a store in it."""

    server: BucketServer
    endpoint: str
    name: str = field(default_factory=lambda: f"test-{secrets.token_hex(6)}")
    prefix: str = "models/nightly"

    @property
    def uri(self) -> str:
        return f"s3://{self.name}/{self.prefix}"

    @cached_property
    def client(self) -> Any:
        return boto3.client("s3", endpoint_url=self.endpoint)

    def refs(self) -> list[str]:
        found = self.client.list_objects_v2(Bucket=self.name).get("Contents", [])
        return sorted(item["Key"].removeprefix(f"{self.prefix}/") for item in found)

    def put(self, ref: str, content: bytes) -> None:
        self.client.put_object(Bucket=self.name, Key=f"{self.prefix}/{ref}", Body=content)

    def delete(self, ref: str) -> None:
        self.client.delete_object(Bucket=self.name, Key=f"{self.prefix}/{ref}")

    def fail(self, answer: Answer | Silence, method: str, key: str = "", *, times: int = 1, after: int = 0) -> Fault:
        """Make `times` requests of `method` whose key ends with `key` fail, after the first `after`."""
        self.server.faults.append(fault := Fault(answer, method, key, times, after))
        return fault

    def asked(self, method: str) -> list[str]:
        """Return the refs of all requests of `method`, in order."""
        start = f"/{self.name}/{self.prefix}/"
        return [path.removeprefix(start) for asked, path in self.server.requests if asked == method]
