"""What more than one test of the pipeline needs: a real S3 server in this process (moto's), and tiny models."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

# What a fixture needs it imports itself: of moto, boto3 and torch each takes a second or more.
if TYPE_CHECKING:
    from tests.tiny import Road
    from tests.wandb_server import WandbServer


@dataclass
class Bucket:
    """A bucket of one test; `uri` is a store in it."""

    name: str
    endpoint: str
    lose_answers: Callable[[int], None]
    prefix: str = "models/nightly"

    @property
    def uri(self) -> str:
        return f"s3://{self.name}/{self.prefix}"

    @property
    def client(self) -> Any:
        import boto3

        return boto3.client("s3", endpoint_url=self.endpoint)

    def refs(self) -> list[str]:
        found = self.client.list_objects_v2(Bucket=self.name).get("Contents", [])
        return sorted(item["Key"].removeprefix(f"{self.prefix}/") for item in found)

    def put(self, ref: str, content: bytes) -> None:
        self.client.put_object(Bucket=self.name, Key=f"{self.prefix}/{ref}", Body=content)

    def delete(self, ref: str) -> None:
        self.client.delete_object(Bucket=self.name, Key=f"{self.prefix}/{ref}")


@dataclass
class OneAtATime:
    """WSGI middleware: requests are handled one by one, as S3 guarantees for one object and moto does not."""

    application: Callable[..., Iterable[bytes]]
    lost: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        with self.lock:
            answer = self.application(environ, start) if not self._loses(environ) else self._lose(environ, start)
            return list(answer)

    def _loses(self, environ: dict[str, Any]) -> bool:
        return self.lost > 0 and environ["REQUEST_METHOD"] == "PUT"

    def _lose(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        # The request is carried out, and its answer gets lost on the way back.
        self.lost -= 1
        list(self.application(environ, lambda *_: None))
        start("503 Service Unavailable", [("Content-Length", "0")])
        return []


@pytest.fixture(scope="session")
def s3_server() -> Iterator[tuple[str, OneAtATime]]:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    middleware = OneAtATime(server._server.app)
    server._server.app = middleware
    yield f"http://{host}:{port}", middleware
    server.stop()


@pytest.fixture
def bucket(s3_server: tuple[str, OneAtATime], monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    """An empty bucket; AWS's variables lead to it, also for subprocesses."""
    from s3fs import S3FileSystem

    endpoint, middleware = s3_server
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    S3FileSystem.clear_instance_cache()

    def lose(count: int) -> None:
        middleware.lost = count

    made = Bucket(f"test-{secrets.token_hex(6)}", endpoint, lose)
    made.client.create_bucket(Bucket=made.name)
    yield made
    middleware.lost = 0
    S3FileSystem.clear_instance_cache()


@pytest.fixture
def wandb_online(tracking_on: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[WandbServer]:
    """A Weights & Biases on loopback, and a key for it."""
    from tests.wandb_server import KEY, wandb_server

    with wandb_server() as server:
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        yield server


@pytest.fixture(scope="session")
def reviews(tmp_path_factory: pytest.TempPathFactory) -> Road:
    """A tiny classifier of single texts, and all that it was made from; shared, so never change it."""
    return _road(tmp_path_factory, "nsmc")


@pytest.fixture(scope="session")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Road:
    """A tiny bi-encoder, and all that it was made from; shared, so never change it."""
    return _road(tmp_path_factory, "klue-sts")


def _road(factory: pytest.TempPathFactory, name: str) -> Road:
    from tests.tiny import open_road, small_recipe

    return open_road(small_recipe(name), factory.mktemp(name), train=2000, test=400)
