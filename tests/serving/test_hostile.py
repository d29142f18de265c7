"""Hostile and broken bodies and connections, and the real service's responses."""

from __future__ import annotations

import gzip
import http.client
import itertools
import json
import pickle
import re
import socket
import struct
import zlib
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass

import pytest

from serving.api.protocol import NOT_HTTP
from tests.support.running_service import Service, serving
from tests.support.tiny_releases import TinyModel

pytestmark = pytest.mark.server

#: Small, so that a body beyond the limit is quick to create.
BODY_BYTES = 64 * 1024
GOOD = '{"texts": ["좋다"]}'.encode()
#: No HTTP response: the connection is closed.
CLOSED = 0
MEDIA = "unsupported_media_type"
#: Headers of a client that prefers HTTP/2.
H2C = {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c", "HTTP2_Settings": "AAMAAABkAAQAoAAAAAIAAAAA"}


@pytest.fixture(scope="module")
def strict(
    tmp_path_factory: pytest.TempPathFactory, classifier: TinyModel, sentence_encoder: TinyModel
) -> Iterator[Service]:
    """A service of one process with a small body limit and two kinds of live releases."""
    limits = {"SAEBYEOK_WORKERS": "1", "SAEBYEOK_MAX_BODY_BYTES": str(BODY_BYTES)}
    with serving(tmp_path_factory.mktemp("strict"), limits, classifier, sentence_encoder) as service:
        yield service
    # No request caused a server error or put a text into the log.
    lines = [json.loads(line) for line in service.log.read_text().splitlines() if line.startswith("{")]
    assert [line for line in lines if line.get("status", 0) >= 500 or "error" in line] == []
    assert "좋다" not in service.log.read_text()


@dataclass(frozen=True)
class Case:
    """A request and its response: `kind` is the error type, empty for a success."""

    name: str
    sent: Iterable[bytes]
    status: int
    kind: str = ""
    #: Sends, then closes the sending side, or resets the connection.
    end: str = ""


def request(body: bytes, path: str = "/classify", method: str = "POST", **headers: str | None) -> list[bytes]:
    """Return a request as bytes; headers that are None are omitted."""
    lines: dict[str, str | None] = {"Host": "x", "Content-Type": "application/json", "Content-Length": str(len(body))}
    lines |= {name.replace("_", "-"): value for name, value in headers.items()}
    told = "".join(f"{name}: {value}\r\n" for name, value in lines.items() if value is not None)
    return [f"{method} {path} HTTP/1.1\r\n{told}\r\n".encode() + body]


def chunked(parts: Iterable[bytes], **headers: str) -> Iterator[bytes]:
    """Return a request with a chunked body."""
    yield request(b"", Content_Length=None, Transfer_Encoding="chunked", **headers)[0]
    for part in parts:
        yield b"%x\r\n%s\r\n" % (len(part), part)
    yield b"0\r\n\r\n"


def classify(document: object) -> list[bytes]:
    return request(json.dumps(document).encode())


def similarity(document: object) -> list[bytes]:
    return request(json.dumps(document).encode(), "/similarity")


def packed(body: bytes, encoding: str = "gzip") -> list[bytes]:
    return request(body, Content_Encoding=encoding)


BOMB = b'{"texts": ["' + b"a" * 50_000_000 + b'"]}'
MALFORMED = {
    "nothing": b"",
    "half a document": b'{"texts": ["',
    "no JSON": b"hello",
    "a byte order mark": b"\xef\xbb\xbf" + GOOD,
    "UTF-16": GOOD.decode().encode("utf-16"),
    "CP949": '{"texts": ["좋다"]}'.encode("cp949"),
    "bytes that are no UTF-8": b'{"texts": ["\xff\xfe"]}',
    "overlong UTF-8": b'{"texts": ["\xc0\xaf"]}',
    "a surrogate in UTF-8": b'{"texts": ["\xed\xa0\x80"]}',
    "a lone high surrogate": rb'{"texts": ["\ud800"]}',
    "a lone low surrogate": rb'{"texts": ["\udc00"]}',
    "surrogates the wrong way round": rb'{"texts": ["\udc00\ud800"]}',
    "a NUL as it is": b'{"texts": ["a\x00b"]}',
    "a line break as it is": b'{"texts": ["a\nb"]}',
    "NaN": b'{"texts": [NaN]}',
    "minus infinity": b'{"texts": [-Infinity]}',
    "lists in lists": b'{"texts": ' + b"[" * 60_000,
    "lists in lists that end": b'{"texts": ' + b"[" * 30_000 + b"]" * 30_000 + b"}",
    "objects in objects": b'{"texts":' * 6_000,
    "something after the end": GOOD + b"x",
    "two documents": GOOD + GOOD,
    "single quotes": b"{'texts': ['a']}",
    "a comma too many": b'{"texts": ["a",]}',
    "a comment": b'{"texts": ["a"]} // a',
    "a number of 60,000 digits": b'{"texts": [' + b"9" * 60_000 + b"]}",
}
INVALID = {
    "null": b"null",
    "a list": b'["a"]',
    "a string": b'"texts"',
    "nothing in it": b"{}",
    "texts that are null": b'{"texts": null}',
    "texts that are a text": b'{"texts": "a"}',
    "texts that are an object": b'{"texts": {"0": "a"}}',
    "a number among texts": b'{"texts": ["a", 1]}',
    "a million numbers": b'{"texts": [' + b"1," * 30_000 + b"1]}",
    "true among texts": b'{"texts": [true]}',
    "a list among texts": b'{"texts": [["a"]]}',
    "another key": b'{"texts": ["a"], "text": "b"}',
    "a key of another class": b'{"texts": ["a"], "__class__": "os.system"}',
    "thousands of keys": json.dumps({f"k{number}": 1 for number in range(5_000)}).encode(),
    "a key as long as the body": b'{"' + b"k" * 60_000 + b'": 1}',
    "too many texts": b'{"texts": [' + b'"",' * 1_000 + b'""]}',
    "too long a text": b'{"texts": ["' + b"a" * 10_001 + b'"]}',
    "a recipe that is a number": b'{"texts": [], "recipe": 7}',
    "a recipe of another kind": b'{"texts": [], "recipe": "klue-sts"}',
    "a recipe that is too long": b'{"texts": [], "recipe": "' + b"r" * 101 + b'"}',
}
CASES = [
    *(Case(name, request(body), 400, "malformed") for name, body in MALFORMED.items()),
    *(Case(name, request(body), 422, "invalid_request") for name, body in INVALID.items()),
    Case("pairs of one", similarity({"pairs": [["a"]]}), 422, "invalid_request"),
    Case("pairs of three", similarity({"pairs": [["a", "b", "c"]]}), 422, "invalid_request"),
    Case("pairs of nothing", similarity({"pairs": [[]]}), 422, "invalid_request"),
    Case("pairs of unlike things", similarity({"pairs": [["a", {"b": 1}]]}), 422, "invalid_request"),
    Case("a method that is a list", similarity({"pairs": [], "method": ["cosine"]}), 422, "invalid_request"),
    Case("no such recipe", classify({"texts": [], "recipe": "../../etc/passwd"}), 404, "not_found"),
    # Unusual, but valid.
    Case("an escaped NUL", classify({"texts": ["a\0b", "\0"]}), 200),
    Case("control and direction marks", classify({"texts": ["\x01\x7f\u202e\u200b\ufeff\uffff\U0010ffff"]}), 200),
    Case("accents without end", classify({"texts": ["a" + "\u0301" * 9_000]}), 200),
    Case("no texts", classify({"texts": []}), 200),
    Case("the same key twice", request(b'{"texts": [1], "texts": ["a"]}'), 200),
    Case("no content type", request(GOOD, Content_Type=None), 200),
    Case("JSON as a form", request(GOOD, Content_Type="application/x-www-form-urlencoded"), 200),
    Case("gzip", packed(gzip.compress(GOOD)), 200),
    Case("deflate", packed(zlib.compress(GOOD), "deflate"), 200),
    Case("a body in chunks of a byte", chunked([GOOD[n : n + 1] for n in range(len(GOOD))]), 200),
    Case("a header of 60,000 bytes", request(GOOD, X_Long="x" * 60_000), 200),
    Case("HTTP/2 is offered", request(GOOD, **H2C), 200),
    Case("HTTP/2 is offered before chunks", chunked([GOOD[:9], GOOD[9:]], **H2C), 200),
    Case("a websocket is asked for", request(GOOD, Connection="upgrade", Upgrade="websocket"), 200),
    # Too much.
    Case("a large body", classify({"texts": ["a" * BODY_BYTES]}), 413, "too_large"),
    Case(
        "a large body that asks first", request(b"", Content_Length="99999999", Expect="100-continue"),
        413, "too_large",
    ),
    Case("a large body in chunks", chunked([b"a" * 10_000] * 10), 413, "too_large"),
    Case("a body without end", chunked(itertools.repeat(b"a" * 65_536)), 413, "too_large"),
    Case("a bomb by gzip", packed(gzip.compress(BOMB)), 413, "too_large"),
    Case("a bomb by deflate", packed(zlib.compress(BOMB, 9), "deflate"), 413, "too_large"),
    Case("a bomb in chunks", chunked([gzip.compress(BOMB)], Content_Encoding="gzip"), 413, "too_large"),
    Case("a bomb in a bomb", packed(gzip.compress(gzip.compress(BOMB))), 400, "malformed"),
    # The body is not what the headers declare.
    Case("invalid gzip", packed(GOOD), 400, "malformed"),
    Case("truncated gzip", packed(gzip.compress(GOOD)[:-9]), 400, "malformed"),
    Case("gzip with something after it", packed(gzip.compress(GOOD) + b"x"), 400, "malformed"),
    Case("gzip with a wrong sum", packed(gzip.compress(GOOD)[:-8] + b"\0" * 8), 400, "malformed"),
    Case("an unknown compression", packed(GOOD, "br"), 415, MEDIA),
    Case("a compression twice", packed(gzip.compress(gzip.compress(GOOD)), "gzip, gzip"), 415, MEDIA),
    Case("plain text", request(GOOD, Content_Type="text/plain"), 415, MEDIA),
    Case("a file", request(GOOD, Content_Type="multipart/form-data; boundary=x"), 415, MEDIA),
    Case("XML", request(b"<texts/>", Content_Type="application/xml"), 415, MEDIA),
    Case("a pickle", request(pickle.dumps({}), Content_Type="application/vnd.bentoml+pickle"), 415, MEDIA),
    Case("another charset", request(GOOD, Content_Type="application/json; charset=cp949"), 415, MEDIA),
    # The wrong route or method.
    Case("another method", request(GOOD, method="PUT"), 405, "method_not_allowed"),
    Case("GET", request(b"", method="GET"), 405, "method_not_allowed"),
    Case("TRACE", request(b"", method="TRACE"), 405, "method_not_allowed"),
    Case("another path", request(GOOD, "/classify/../secrets"), 404, "not_found"),
    Case("a path with a NUL", request(GOOD, "/classify%00"), 404, "not_found"),
    Case("a path of 30,000 letters", request(GOOD, "/" + "a" * 30_000), 404, "not_found"),
    Case("somebody else's release", request(GOOD, X_Saebyeok_Release="nsmc-x"), 404, "not_found"),
    Case("staging without a token", request(b'{"release": "a"}', "/releases/stage"), 401, "unauthorized"),
    Case("a token in Korean", request(b"{}", "/releases/stage", Authorization="Bearer 비밀"), 401, "unauthorized"),
    # Not HTTP, or malformed HTTP.
    Case("no HTTP at all", [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 200], 400, NOT_HTTP),
    Case("an unknown method", request(GOOD, method="STEAL"), 400, NOT_HTTP),
    Case("a length that is not a number", request(GOOD, Content_Length="many"), 400, NOT_HTTP),
    Case("a length below nothing", request(GOOD, Content_Length="-1"), 400, NOT_HTTP),
    Case("two lengths", request(GOOD, Content_Length="3\r\nContent-Length: 30"), 400, NOT_HTTP),
    Case("a length and chunks", request(GOOD, Transfer_Encoding="chunked"), 400, NOT_HTTP),
    Case("a chunk of no length", [next(chunked([])), b"zz\r\n"], 400, NOT_HTTP),
    # Closed or half-closed connections.
    Case("half closed in the body", request(GOOD, Content_Length="1000"), CLOSED, end="half"),
    Case("gone in the body", request(GOOD, Content_Length="1000"), CLOSED, end="reset"),
    Case("gone after the request", request(GOOD), CLOSED, end="reset"),
    Case("gone before the request", [b""], CLOSED, end="reset"),
    Case("half closed in a header", [b"POST /classify HTTP/1.1\r\nHo"], CLOSED, end="half"),
]  # fmt: skip


def connect(service: Service) -> socket.socket:
    port = int(service.settings.service_url.rsplit(":", 1)[1])
    connection = socket.create_connection(("127.0.0.1", port), timeout=60)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def exchange(service: Service, case: Case) -> tuple[int, dict[str, str], bytes]:
    """Return status, headers and body of the response; CLOSED if there is none."""
    with closing(connect(service)) as connection:
        try:
            for part in case.sent:
                connection.sendall(part)
        except (BrokenPipeError, ConnectionResetError):
            pass  # The response came before everything was sent.
        if case.end == "reset":
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return CLOSED, {}, b""
        if case.end == "half":
            connection.shutdown(socket.SHUT_WR)
        answer = http.client.HTTPResponse(connection)
        try:
            answer.begin()
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
        except http.client.RemoteDisconnected:
            return CLOSED, {}, b""


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_it_is_answered_and_others_are_too(strict: Service, case: Case) -> None:
    status, headers, body = exchange(strict, case)
    assert status == case.status, body[:300]
    if case.kind == NOT_HTTP:
        assert body.decode() == NOT_HTTP
    elif status != CLOSED:
        assert headers["x-request-id"]
        assert headers["content-type"].startswith("application/json")
        document = json.loads(body)
        if status == 200:
            assert "results" in document
        else:
            assert set(document) == {"error"}
            assert (document["error"]["type"], set(document["error"])) == (case.kind, {"type", "message", "index"})
            assert 0 < len(document["error"]["message"]) <= 500
    # There is only one process: if it hung or had died, this would fail.
    assert strict.client.classify(["좋다"]).recipe == "nsmc"


def test_half_closed_request_is_answered_or_dropped(strict: Service) -> None:
    # Either result is correct: the server may see the closed sending side first, which it takes for a disconnect.
    assert exchange(strict, Case("half closed after the request", request(GOOD), CLOSED, end="half"))[0] in (
        200,
        CLOSED,
    )
    assert strict.client.classify(["좋다"]).recipe == "nsmc"


#: Requests that get a response before their body has arrived.
EARLY = {
    "no such path": (request(b"", "/secrets", Content_Length=None), 404),
    "another method": (request(b"", method="PUT", Content_Length=None), 405),
    "a GET that is answered": (request(b"", "/livez", "GET", Content_Length=None), 200),
    "another media type": (request(b"", Content_Type="text/plain", Content_Length=None), 415),
}


@pytest.mark.parametrize("offer", [{}, H2C], ids=["HTTP/1.1", "h2c"])
@pytest.mark.parametrize(("sent", "status"), EARLY.values(), ids=EARLY)
def test_body_behind_its_answer_is_no_request(
    strict: Service, sent: list[bytes], status: int, offer: dict[str, str]
) -> None:
    (body,) = request(b"", "/releases", "GET")
    (last,) = request(b"", "/livez", "GET", Connection="close")
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in offer.items())
    head = sent[0].replace(b"\r\n\r\n", f"\r\n{lines}Content-Length: {len(body)}\r\n\r\n".encode())
    with closing(connect(strict)) as connection:
        connection.sendall(head)
        found = connection.recv(65_536)
        connection.sendall(body + last)
        while part := connection.recv(65_536):
            found += part
    assert [int(code) for code in re.findall(rb"HTTP/1\.1 (\d+)", found)] == [status, 200]
