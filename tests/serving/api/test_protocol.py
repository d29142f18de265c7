"""One response per request: raw bytes sent to uvicorn with our protocol and middlewares, in this process."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from enum import Enum
from typing import Any

import pytest
import uvicorn
from starlette.datastructures import Headers
from starlette.types import Message, Receive, Scope, Send

from serving.api.errors import ApiError
from serving.api.middleware import Front, Gate
from serving.api.protocol import NOT_HTTP, Protocol, use_protocol
from serving.schemas import ErrorType

H2C = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA"
WEBSOCKET = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: bm9uY2U="
UPGRADES = [
    H2C,
    WEBSOCKET,
    "Connection: x , UPGRADE\r\nUpgrade: foo/2, h2c",
    "Upgrade: h2c\r\nConnection: HTTP2-Settings\r\nConnection: upgrade",
]
KEY = "Authorization: Bearer key"
#: A body that would get a response if it were parsed as a request.
INNER = f"GET /inner HTTP/1.1\r\n{KEY}\r\n\r\n".encode()
#: Closes the connection, so that its end means that all responses have arrived.
LAST = f"GET /last HTTP/1.1\r\n{KEY}\r\nConnection: close\r\n\r\n".encode()
MALFORMED = (400, NOT_HTTP)
READ, LAST_READ = (200, f"POST /classify {INNER.decode()}"), (200, "GET /last ")
BODY_BYTES = 1024
#: Number of bytes; more than the socket buffers hold.
LARGE = 1 << 24


class ClientAction(Enum):
    """Action of a client between two writes."""

    READ_ANSWER = "wait for an answer"
    RELEASE = "let the application go on at /held and /begun"


class EchoServer:
    """uvicorn in a thread, with an application that echoes requests."""

    def __init__(self, keep_alive: float = 60) -> None:
        """`keep_alive` is the maximum idle time of a connection in seconds."""
        self.changed = threading.Condition()
        self.parsed: Counter[int] = Counter()
        self.released = threading.Event()
        self.socket = socket.create_server(("127.0.0.1", 0))
        app = Front(Gate(self.echo, admit=admit, body_bytes=BODY_BYTES, seconds=60))
        options: dict[str, Any] = {"lifespan": "off", "log_config": None, "timeout_keep_alive": keep_alive}
        self.server = uvicorn.Server(uvicorn.Config(app, http=self.protocol(), **options))
        self.thread = threading.Thread(target=self.server.run, args=([self.socket],))

    def protocol(self) -> type[Protocol]:
        """Protocol that counts the parsed bytes of each client."""
        note = self.note

        class Watched(Protocol):
            def data_received(self, data: bytes) -> None:
                super().data_received(data)
                assert self.client is not None
                note(self.client[1], len(data))

            def connection_lost(self, exc: Exception | None) -> None:
                super().connection_lost(exc)
                assert self.client is not None
                note(self.client[1], 1_000_000)

        return Watched

    def note(self, port: int, count: int) -> None:
        with self.changed:
            self.parsed[port] += count
            self.changed.notify_all()

    async def echo(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Respond with the body that was read (only POST /classify has one); /404 gets that status."""
        message: Message = {"body": b"", "more_body": scope["path"] == "/classify"}
        body = b""
        while message["more_body"]:
            message = await receive()
            body += message["body"]
        if scope["path"] == "/held":
            await asyncio.to_thread(self.released.wait, 60)
        late = " late" if "x-late" in Headers(scope=scope) else ""
        answer = f"{scope['method']} {scope['path']} {body.decode()}{late}".encode()
        answer += b"x" * LARGE if scope["path"] == "/large" else b""
        status = int(scope["path"][1:]) if scope["path"][1:].isdigit() else 200
        headers = [(b"content-length", b"%d" % len(answer))]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        if scope["path"] == "/begun":
            await send({"type": "http.response.body", "body": answer[:3], "more_body": True})
            await asyncio.to_thread(self.released.wait, 60)
            answer = answer[3:]
        await send({"type": "http.response.body", "body": answer})

    def run(self) -> Iterator[EchoServer]:
        self.thread.start()
        yield self
        self.server.should_exit = True
        self.thread.join()
        self.socket.close()

    def answers(self, *steps: bytes | ClientAction | Callable[[], None]) -> list[tuple[int, str]]:
        """Return status and body of every response until the connection closes; each write is parsed separately."""
        self.released.clear()
        with closing(socket.create_connection(self.socket.getsockname(), 60)) as client:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            port, sent, found = client.getsockname()[1], 0, b""
            for step in steps:
                if step is ClientAction.RELEASE:
                    self.released.set()
                elif step is ClientAction.READ_ANSWER:
                    found += client.recv(65_536)
                elif not isinstance(step, bytes):
                    step()
                else:
                    sent += send_if_open(client, step)
                    with self.changed:
                        assert self.changed.wait_for(lambda sent=sent: self.parsed[port] >= sent, 60)
            self.released.set()
            while part := receive_if_open(client):
                found += part
        return list(split(found))


def send_if_open(client: socket.socket, data: bytes) -> int:
    try:
        client.sendall(data)
    except (BrokenPipeError, ConnectionResetError):
        return 0
    return len(data)


def receive_if_open(client: socket.socket) -> bytes:
    try:
        return client.recv(65_536)
    except ConnectionResetError:
        return b""


def split(found: bytes) -> Iterator[tuple[int, str]]:
    """Return the responses in order, without the texts of errors."""
    while found:
        head, _, found = found.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines)
        # A response to HEAD has no body.
        size = 0 if found.startswith(b"HTTP/1.1 ") else int(headers.get("content-length", 0))
        text, found = found[:size].decode(), found[size:]
        yield int(first.split()[1]), "" if text.startswith('{"error"') else text


def admit(header: str | None) -> None:
    if header != "Bearer key":
        raise ApiError(ErrorType.UNAUTHORIZED, "no key")


@pytest.fixture(scope="module")
def server() -> Iterator[EchoServer]:
    yield from EchoServer().run()


def head(start: str, *lines: str) -> bytes:
    return "".join(f"{line}\r\n" for line in (f"{start} HTTP/1.1", KEY, *lines, "")).encode()


def measured(*lines: str, body: bytes = INNER, start: str = "POST /classify") -> tuple[bytes, bytes]:
    """Return head and body of a request with a Content-Length."""
    return head(start, *lines, f"Content-Length: {len(body)}"), body


def chunked(*lines: str, body: bytes = INNER, start: str = "POST /classify") -> tuple[bytes, bytes]:
    """Return head and body of a request in two chunks."""
    parts = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (body[:9], body[9:]))
    return head(start, *lines, "Transfer-Encoding: chunked"), parts + b"0\r\n\r\n"


framed = pytest.mark.parametrize("frame", [measured, chunked])


def in_one(*parts: bytes) -> list[bytes]:
    return [b"".join(parts)]


def by_bytes(*parts: bytes) -> list[bytes]:
    return [bytes([byte]) for part in parts for byte in part]


@framed
@pytest.mark.parametrize("cut", [in_one, lambda *parts: parts, by_bytes], ids=["one read", "head first", "bytes"])
@pytest.mark.parametrize("upgrade", UPGRADES)
def test_upgrade_that_is_offered_leaves_the_body_alone(server: EchoServer, upgrade: str, cut: Any, frame: Any) -> None:
    assert server.answers(*cut(*frame(upgrade)), LAST) == [READ, LAST_READ]
    assert server.answers(*cut(*frame(upgrade, start="GET /livez")), LAST) == [(200, "GET /livez "), LAST_READ]


@framed
@pytest.mark.parametrize("upgrade", UPGRADES)
def test_upgrades_in_a_row_are_each_answered_once(server: EchoServer, upgrade: str, frame: Any) -> None:
    plain, offered = b"".join(frame()), b"".join(frame(upgrade))
    assert server.answers(plain + offered + offered + plain + offered + LAST) == [READ] * 5 + [LAST_READ]


@pytest.mark.parametrize("upgrade", UPGRADES)
def test_upgrade_without_a_body_is_ignored(server: EchoServer, upgrade: str) -> None:
    get = head("GET /livez", upgrade)
    assert server.answers(get + LAST) == server.answers(get, LAST) == [(200, "GET /livez "), LAST_READ]
    closing_get = get.replace(b"Connection: ", b"Connection: close, ", 1)
    assert server.answers(closing_get + LAST) == [(200, "GET /livez ")]


@pytest.mark.parametrize("upgrade", UPGRADES)
@pytest.mark.parametrize("version", ["1.0", "0.9", "2.0"])
def test_upgrade_in_another_version_keeps_the_version(server: EchoServer, upgrade: str, version: str) -> None:
    request = b"".join(measured(upgrade)).replace(b"HTTP/1.1", f"HTTP/{version}".encode(), 1)
    assert server.answers(request) == [READ], "the connection is closed, as in that version"


@pytest.mark.parametrize("upgrade", ["", H2C])
@pytest.mark.parametrize("target", ["example.com:80", "/classify", "/livez"])
def test_connect_is_refused_and_nothing_behind_it_answered(server: EchoServer, target: str, upgrade: str) -> None:
    lines = [upgrade] if upgrade else []
    for parts in (measured(*lines, start=f"CONNECT {target}"), (head(f"CONNECT {target}", *lines), INNER)):
        assert server.answers(b"".join(parts) + LAST) == server.answers(*parts, LAST) == [MALFORMED]


def test_http2_preface_is_refused(server: EchoServer) -> None:
    assert server.answers(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0" + LAST) == [MALFORMED]


CHUNKS = b"5\r\nhello\r\n0\r\n\r\n"
BROKEN_HEADS = {
    "a length and chunks": "Content-Length: 5\r\nTransfer-Encoding: chunked",
    "chunks and a length": "Transfer-Encoding: chunked\r\nContent-Length: 5",
    "two lengths": "Content-Length: 5\r\nContent-Length: 6",
    "the same length twice": "Content-Length: 5\r\nContent-Length: 5",
    "a list of lengths": "Content-Length: 5, 5",
    "a length with a plus": "Content-Length: +5",
    "a length below nothing": "Content-Length: -5",
    "a length in hex": "Content-Length: 0x5",
    "a length with a point": "Content-Length: 5.0",
    "no length": "Content-Length: ",
    "a length of two numbers": "Content-Length: 5 5",
    "a length of 65 bits": "Content-Length: 18446744073709551621",
    "a length in Arabic digits": "Content-Length: ٥",
    "chunks that are not last": "Transfer-Encoding: chunked, identity",
    "chunks of chunks": "Transfer-Encoding: chunked, chunked",
    "chunks in two headers": "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
    "chunks and then identity": "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
    "no chunks": "Transfer-Encoding: identity",
    "an unknown coding": "Transfer-Encoding: xchunked",
    "a coding in quotes": 'Transfer-Encoding: "chunked"',
    "a coding with a parameter": "Transfer-Encoding: chunked;q=1",
    "a comma too many": "Transfer-Encoding: chunked,",
    "an empty coding": "Transfer-Encoding: ",
    "a vertical tab": "Transfer-Encoding: \x0bchunked",
    "a folded coding": "Transfer-Encoding: chu\r\n nked",
    "a coding on the next line": "Transfer-Encoding:\r\n chunked",
    "a folded header": "X-Long: a\r\n b\r\nContent-Length: 5",
    "a space before the colon": "Content-Length : 5",
    "a tab before the colon": "Transfer-Encoding\t: chunked",
    "a line feed alone": "X: a\nContent-Length: 5",
    "a carriage return alone": "X: a\rContent-Length: 5",
    "a NUL": "X: a\0b\r\nContent-Length: 5",
    "a line without a colon": "what\r\nContent-Length: 5",
    "a header without a name": ": 5\r\nContent-Length: 5",
    "a name with a space": "Content Length: 5",
}


@pytest.mark.parametrize("upgrade", ["X: y", H2C], ids=["plain", "h2c"])
@pytest.mark.parametrize("lines", BROKEN_HEADS.values(), ids=BROKEN_HEADS)
def test_ambiguous_head_is_refused(server: EchoServer, lines: str, upgrade: str) -> None:
    request = head("POST /classify", upgrade, lines)
    assert server.answers(request + CHUNKS + INNER + LAST) == [MALFORMED]
    assert server.answers(request, CHUNKS + INNER + LAST) == [MALFORMED]


def test_head_with_bare_line_feeds_is_refused(server: EchoServer) -> None:
    for line_feeds in (1, -1):
        request = head("POST /classify", "Content-Length: 5").replace(b"\r\n", b"\n", line_feeds)
        assert server.answers(request + b"hello" + INNER + LAST) == [MALFORMED]


BROKEN_CHUNKS = {
    "no number": b"zz\r\nhello\r\n",
    "nothing": b"\r\nhello\r\n",
    "a plus": b"+5\r\nhello\r\n",
    "a minus": b"-5\r\nhello\r\n",
    "0x": b"0x5\r\nhello\r\n",
    "65 bits": b"10000000000000005\r\nhello\r\n",
    "a space before": b" 5\r\nhello\r\n",
    "a space behind": b"5 \r\nhello\r\n",
    "a line feed alone": b"5\nhello\r\n",
    "a line feed in an extension": b"5;a\nhello\r\n",
    "a line end in quotes": b'5;a="\r\n"\r\nhello\r\n',
    "too short": b"3\r\nhello\r\n",
    "no line end behind": b"5\r\nhello0\r\n\r\n",
    "a length in the trailer": b"5\r\nhello\r\n0\r\nContent-Length: 3\r\n\r\n",
    "a coding in the trailer": b"5\r\nhello\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n",
    "a folded trailer": b"5\r\nhello\r\n0\r\nX: a\r\n b\r\n\r\n",
}


@pytest.mark.parametrize("upgrade", ["X: y", H2C], ids=["plain", "h2c"])
@pytest.mark.parametrize("chunks", BROKEN_CHUNKS.values(), ids=BROKEN_CHUNKS)
def test_chunks_that_are_broken_are_refused(server: EchoServer, chunks: bytes, upgrade: str) -> None:
    request = head("POST /classify", upgrade, "Transfer-Encoding: chunked")
    end = b"0\r\n\r\n" + INNER + LAST
    assert server.answers(request + chunks + end) == server.answers(request, chunks + end) == [MALFORMED]


ODD = {
    "zeros before the length": (head("POST /classify", "Content-Length: 0005"), b"hello"),
    "spaces around the length": (head("POST /classify", "Content-Length: \t 5  "), b"hello"),
    "another case": (head("POST /classify", "TRANSFER-ENCODING: ChunkeD"), CHUNKS),
    "chunks last of two": (head("POST /classify", "Transfer-Encoding: identity, chunked"), CHUNKS),
    "a chunk extension": (head("POST /classify", "Transfer-Encoding: chunked"), b'5;a=b;c="d"\r\nhello\r\n0;e\r\n\r\n'),
    "a last chunk of many zeros": (head("POST /classify", "Transfer-Encoding: chunked"), b"5\r\nhello\r\n0000\r\n\r\n"),
    "a trailer": (head("POST /classify", "Transfer-Encoding: chunked"), b"5\r\nhello\r\n0\r\nX-Late: 1\r\n\r\n"),
    "line ends before it": (b"\r\n\r\n" + head("POST /classify", "Content-Length: 5"), b"hello"),
    "line ends behind it": (head("POST /classify", "Content-Length: 5"), b"hello\r\n\r\n"),
    "a full URL": (head("POST http://x/classify", "Content-Length: 5"), b"hello"),
}  # fmt: skip


@pytest.mark.parametrize("parts", ODD.values(), ids=ODD)
def test_unusual_but_valid_request_is_read_completely(server: EchoServer, parts: tuple[bytes, bytes]) -> None:
    wanted = [(200, "POST /classify hello"), LAST_READ]
    assert server.answers(*parts, LAST) == server.answers(b"".join(parts) + LAST) == wanted


def test_key_in_a_trailer_opens_nothing(server: EchoServer) -> None:
    request = b"POST /classify HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n"
    assert server.answers(request + f"{KEY}\r\n\r\n".encode() + LAST) == [(401, ""), LAST_READ]


@framed
@pytest.mark.parametrize(
    ("start", "line", "answer"),
    [
        ("POST /404", "X: y", (404, "")),
        ("PUT /405", "X: y", (405, "")),
        ("POST /classify", "Content-Type: text/plain", (415, "")),
        ("POST /classify", "Content-Encoding: br", (415, "")),
        ("GET /inner", "X: y", (200, "GET /inner ")),
        ("HEAD /inner", "X: y", (200, "")),
        ("DELETE /inner", "X: y", (200, "DELETE /inner ")),
    ],
)  # fmt: skip
def test_unread_body_is_not_a_request(
    server: EchoServer, start: str, line: str, answer: tuple[int, str], frame: Any
) -> None:
    first, body = frame(line, start=start)
    wanted = [answer, LAST_READ]
    assert server.answers(first + body + LAST) == wanted
    assert server.answers(first, ClientAction.READ_ANSWER, body, LAST) == wanted
    assert server.answers(first, ClientAction.READ_ANSWER, body[:15], body[15:] + LAST) == wanted


@framed
def test_body_behind_a_refused_key_is_no_request(server: EchoServer, frame: Any) -> None:
    first, body = frame()
    first = first.replace(b"Bearer key", b"Bearer yek")
    for steps in ([first + body + LAST], [first, ClientAction.READ_ANSWER, body, LAST]):
        assert server.answers(*steps) == [(401, ""), LAST_READ]


@framed
def test_body_that_is_too_large_closes_the_connection(server: EchoServer, frame: Any) -> None:
    first, body = frame(body=INNER * 40)
    for steps in ([first + body + LAST], [first, body + LAST]):
        assert server.answers(*steps) == [(413, "")]


@pytest.mark.parametrize("start", ["POST /404", "GET /inner", "POST /classify"])
def test_unasked_expect_client_is_disconnected(server: EchoServer, start: str) -> None:
    # The server cannot tell whether the next bytes are its body or another request.
    first, body = measured("Expect: 100-continue", start=start)
    first = first.replace(b"Bearer key", b"Bearer yek") if start == "POST /classify" else first
    for more in (body, LAST):
        (_,) = server.answers(first, ClientAction.READ_ANSWER, more)
        (_,) = server.answers(first + more)


@framed
def test_expect_client_is_asked_for_its_body(server: EchoServer, frame: Any) -> None:
    first, body = frame("Expect: 100-continue")
    assert server.answers(first, ClientAction.READ_ANSWER, body, LAST) == [(100, ""), READ, LAST_READ]
    assert server.answers(first + body, LAST) in ([READ, LAST_READ], [(100, ""), READ, LAST_READ])


def test_request_behind_the_last_one_is_not_answered(server: EchoServer) -> None:
    assert server.answers(LAST + LAST + INNER) == [LAST_READ]


GARBAGE = b"this is no HTTP\r\n\r\n" + INNER
BROKEN = head("POST /held", "Transfer-Encoding: chunked")


@pytest.mark.parametrize("cut", [in_one, lambda *parts: parts])
def test_request_before_malformed_ones_gets_its_own_answer(server: EchoServer, cut: Any) -> None:
    held = head("POST /held")
    answer = (200, "POST /held ")
    assert server.answers(*cut(held, GARBAGE), ClientAction.RELEASE) == [answer]
    assert server.answers(*cut(held, held, GARBAGE), GARBAGE, ClientAction.RELEASE) == [answer, answer]


def test_malformed_request_behind_an_answer_gets_one(
    server: EchoServer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    # BentoML, once imported, gives uvicorn's logger handlers of its own and stops it from reaching the root's.
    logger = logging.getLogger("uvicorn.error")
    monkeypatch.setattr(logger, "propagate", False)
    monkeypatch.setattr(logger, "handlers", [caplog.handler])
    caplog.set_level(logging.WARNING, "uvicorn.error")
    assert server.answers(INNER, ClientAction.READ_ANSWER, GARBAGE, LAST) == [(200, "GET /inner "), MALFORMED]
    assert server.answers(GARBAGE, LAST) == [MALFORMED]
    assert caplog.messages.count(NOT_HTTP) == 2


def test_broken_body_after_its_response_gets_no_other(server: EchoServer) -> None:
    assert server.answers(
        head("GET /inner", "Transfer-Encoding: chunked"), ClientAction.READ_ANSWER, b"zz\r\n" + LAST
    ) == [(200, "GET /inner ")]


def test_body_that_breaks_before_its_answer_is_malformed(server: EchoServer) -> None:
    assert server.answers(BROKEN, b"zz\r\n", ClientAction.RELEASE) == [MALFORMED]
    assert server.answers(BROKEN + b"zz\r\n" + LAST, ClientAction.RELEASE) == [MALFORMED]
    assert server.answers(head("GET /inner", "Transfer-Encoding: chunked") + b"zz\r\n") == [MALFORMED]


def test_broken_body_during_its_response_completes_it(server: EchoServer) -> None:
    steps = BROKEN.replace(b"/held", b"/begun"), ClientAction.READ_ANSWER, b"zz\r\n", ClientAction.RELEASE
    assert server.answers(*steps) == [(200, "POST /begun ")]


def test_body_that_breaks_gets_no_late_answer(server: EchoServer) -> None:
    # The last write waits behind the large response, which the client reads only then.
    found = server.answers(head("GET /large"), head("GET /inner", "Transfer-Encoding: chunked") + b"zz\r\n")
    assert [status for status, _ in found] == [200, 400]


def test_broken_queued_body_spoils_no_earlier_response(server: EchoServer) -> None:
    steps = head("POST /held"), BROKEN + b"zz\r\n", ClientAction.RELEASE
    assert server.answers(*steps)[:1] == [(200, "POST /held ")]


@pytest.fixture
def hasty() -> Iterator[EchoServer]:
    """A server that closes idle connections early."""
    yield from EchoServer(keep_alive=0.2).run()


def test_connection_that_works_is_not_closed_as_idle(hasty: EchoServer) -> None:
    idle = socket.create_connection(hasty.socket.getsockname(), 60)

    def wait_until_idle_is_over() -> None:
        # Its response is later than that of the other connection, so it would close later.
        idle.sendall(INNER)
        while idle.recv(65_536):
            pass
        idle.close()

    steps = [INNER, ClientAction.READ_ANSWER, head("POST /held"), wait_until_idle_is_over, ClientAction.RELEASE, LAST]
    assert hasty.answers(*steps) == [(200, "GET /inner "), (200, "POST /held "), LAST_READ]


def test_uvicorn_uses_our_protocol(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(uvicorn.config.HTTP_PROTOCOLS, "auto", "none")
    use_protocol()
    config = uvicorn.Config("serving.api.protocol:Protocol")
    config.load()
    assert config.http_protocol_class is Protocol
