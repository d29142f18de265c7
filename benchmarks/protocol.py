"""Compare the CPU time of a request in the service's HTTP protocol with that in uvicorn's own, in one process.

python -m benchmarks.protocol [--requests 10000] [--rounds 20] [--json]
Both read the same request from memory, over one connection, and an application answers it at once. Rounds of both take
turns. `serving.api.protocol` says what the service's protocol adds.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import time
from typing import Any

import uvicorn
from starlette.types import Receive, Scope, Send
from typing_extensions import override
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from serving.api.protocol import Protocol

BODY = json.dumps({"texts": ["정말 재미있는 영화였다"]}).encode()
REQUEST = (
    b"POST /nsmc/classify HTTP/1.1\r\nHost: localhost:3000\r\nUser-Agent: python-httpx/0.28.1\r\nAccept: */*\r\n"
    b"Accept-Encoding: gzip, deflate\r\nConnection: keep-alive\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\n\r\n%b" % (len(BODY), BODY)
)


class MemoryTransport(asyncio.Transport):
    """The other end of a connection in memory; it takes all that is written."""

    @override
    def is_closing(self) -> bool:
        return False

    @override
    def write(self, data: bytes | bytearray | memoryview) -> None:
        pass

    @override
    def pause_reading(self) -> None:
        pass

    @override
    def resume_reading(self) -> None:
        pass


class EchoApplication:
    """An ASGI application that answers with the body of the request."""

    def __init__(self) -> None:
        self.answered = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        body = (await receive())["body"]
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
        await send({"type": "http.response.body", "body": body})
        self.answered.set()


def main() -> None:
    """Run the rounds, and print a line per figure or one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=10_000, help="requests per round")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    arguments = parser.parse_args()
    document = asyncio.run(measure(arguments.requests, arguments.rounds))
    if arguments.json:
        print(json.dumps(document, indent=1))
        return
    for name, (middle, low, high) in document.items():
        print(f"{name}: {middle:.2f} us per request ({low:.2f} to {high:.2f})")


async def measure(requests: int, rounds: int) -> dict[str, tuple[float, float, float]]:
    """Return median, minimum and maximum over the rounds of the CPU time in us per request, and of the difference."""
    connections = {"uvicorn": connect(HttpToolsProtocol), "Saebyeok": connect(Protocol)}
    for connection in connections.values():
        await seconds(*connection, requests)
    found: dict[str, list[float]] = {name: [] for name in connections}
    for number in range(rounds):
        for name in sorted(connections, reverse=bool(number % 2)):
            found[name].append(await seconds(*connections[name], requests) / requests * 1e6)
    found["difference"] = [ours - theirs for ours, theirs in zip(found["Saebyeok"], found["uvicorn"], strict=True)]
    return {name: (statistics.median(values), min(values), max(values)) for name, values in found.items()}


def connect(kind: type[HttpToolsProtocol]) -> tuple[HttpToolsProtocol, EchoApplication]:
    """Return a protocol that a client is connected to, and its application."""
    application = EchoApplication()
    config = uvicorn.Config(application, log_level="critical", access_log=False, lifespan="off")
    config.load()
    protocol: Any = kind(config=config, server_state=ServerState(), app_state={}, _loop=asyncio.get_running_loop())
    protocol.connection_made(MemoryTransport())
    return protocol, application


async def seconds(protocol: HttpToolsProtocol, application: EchoApplication, requests: int) -> float:
    """Send requests one after another; return the CPU seconds."""
    start = time.process_time()
    for _ in range(requests):
        protocol.data_received(REQUEST)
        await application.answered.wait()
        application.answered.clear()
    return time.process_time() - start


if __name__ == "__main__":
    main()
