"""Reading of bodies: size limits, compression, and disconnected clients."""

from __future__ import annotations

import asyncio
import gzip
import os
import tracemalloc
import zlib
from dataclasses import dataclass

import pytest
from starlette.datastructures import Headers
from starlette.types import Message

from serving.api.errors import ApiError
from serving.api.request_body import INCOMPLETE, ClientGoneError, check_media_type, read_body
from serving.schemas import ErrorType

LIMIT = 5000
#: Decompressed bytes of a zip bomb, a thousand times its compressed size and far more than everything else in memory.
BOMB = 1 << 22
PACKERS = {"gzip": gzip.compress, "deflate": zlib.compress}
packings = pytest.mark.parametrize("encoding", PACKERS)


@dataclass
class BodySource:
    """Send `parts`, the last of which ends the body unless `endless`, and count those that are read."""

    parts: list[bytes | None]
    endless: bool = False
    taken: int = 0

    async def receive(self) -> Message:
        part = self.parts[self.taken]
        self.taken += 1
        if part is None:
            return {"type": "http.disconnect"}
        # Empty and false fields may be omitted.
        message: Message = {"type": "http.request"} | ({"body": part} if part else {})
        return message | ({"more_body": True} if self.endless or self.taken < len(self.parts) else {})

    def read(self, limit: int = LIMIT, **headers: str) -> bytes:
        named = Headers({name.replace("_", "-"): value for name, value in headers.items()})
        return asyncio.run(read_body(self.receive, named, limit))


def sent(*parts: bytes | None) -> BodySource:
    return BodySource(list(parts))


def cut(body: bytes, size: int = 70) -> list[bytes | None]:
    return [body[start : start + size] for start in range(0, len(body), size)]


def refusal(client: BodySource, **headers: str) -> ApiError:
    with pytest.raises(ApiError) as caught:
        client.read(**headers)
    return caught.value


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"content-type": "application/json"},
        {"content-type": " Application/JSON ; charset=UTF-8"},
        {"content-type": 'application/json;charset="utf8"'},
        {"content-type": "application/json; charset = utf-8"},
        {"content-type": "application/json;"},
        {"content-type": "application/json;; charset=UTF-8 ;"},
        {"content-type": "application/json; charset=utf-8; odata.metadata=minimal"},
        {"content-type": 'application/json; note="a; charset=cp949 \\" b"; charset="utf-8"'},
        {"content-type": "application/json; x-charset=cp949"},
        {"content-type": "application/x-www-form-urlencoded"},
        {"content-encoding": "identity"},
        {"content-encoding": " GZIP "},
        {"content-encoding": "Deflate"},
        {"content-encoding": "X-GZIP"},
        {"content-encoding": "gzip,"},
        {"content-encoding": " identity, gzip"},
        {"content-encoding": ""},
    ],
)
def test_media_type_that_is_json_is_taken(headers: dict[str, str]) -> None:
    check_media_type(Headers(headers))


@pytest.mark.parametrize(
    ("headers", "message", "more"),
    [
        ({"content-type": "text/plain"}, "the body must be JSON: `Content-Type: application/json`", {}),
        ({"content-type": "application/json5"}, "the body must be JSON: `Content-Type: application/json`", {}),
        ({"content-type": ""}, "the body must be JSON: `Content-Type: application/json`", {}),
        ({"content-type": "application/json; charset=cp949"}, "JSON must be UTF-8; omit the charset", {}),
        ({"content-type": "application/json; charset=utf-16"}, "JSON must be UTF-8; omit the charset", {}),
        ({"content-type": "application/json; charset=utf-8X"}, "JSON must be UTF-8; omit the charset", {}),
        ({"content-type": 'application/json;; a="b" ; Charset = "cp949";'}, "JSON must be UTF-8; omit the charset", {}),
        (
            {"content-type": "application/json; charset=utf-8; charset=cp949"},
            "JSON must be UTF-8; omit the charset",
            {},
        ),
        (
            {"content-type": "application/json; charset=cp949; charset=utf-8"},
            "JSON must be UTF-8; omit the charset",
            {},
        ),
        *(
            (
                {"content-encoding": encoding},
                f"Content-Encoding {encoding!r} is not supported; compress the body once with gzip or deflate, or not "
                "at all",
                {"Accept-Encoding": "gzip, deflate"},
            )
            for encoding in ("br", "gzip, gzip", "gzip, deflate", "zstd")
        ),
    ],
)
def test_media_type_that_is_another_is_refused(headers: dict[str, str], message: str, more: dict[str, str]) -> None:
    with pytest.raises(ApiError) as caught:
        check_media_type(Headers(headers))
    error = caught.value
    assert (error.kind, str(error), error.headers) == (ErrorType.UNSUPPORTED_MEDIA_TYPE, message, more)


def test_body_is_read_in_order_and_no_further() -> None:
    client = sent(b"ab", b"", b"cd", b"e")
    assert client.read() == b"abcde"
    assert client.taken == 4
    assert sent(b"").read() == b""


@pytest.mark.parametrize("encoding", ["X-Gzip", "gzip, ", "identity, gzip"])
def test_every_spelling_of_gzip_is_unpacked(encoding: str) -> None:
    assert sent(gzip.compress(b"[1]")).read(content_encoding=encoding) == b"[1]"


@pytest.mark.parametrize("encoding", ["", " Identity ", "identity,"])
def test_body_at_the_limit_is_accepted(encoding: str) -> None:
    headers = {"content_encoding": encoding} if encoding else {}
    assert sent(bytes(LIMIT)).read(**headers) == sent(*cut(bytes(LIMIT))).read(**headers) == bytes(LIMIT)
    for parts in ([bytes(LIMIT + 1)], cut(bytes(LIMIT + 1))):
        client = sent(*parts)
        error = refusal(client, **headers)
        assert (error.kind, str(error)) == (ErrorType.TOO_LARGE, "the body is larger than 5000 bytes")
        assert error.headers == {"Connection": "close"}
        assert client.taken == len(parts)


@packings
def test_compressed_body_at_the_limit_is_accepted(encoding: str) -> None:
    for body in (bytes(LIMIT), bytes(LIMIT - 1) + b"x"):
        packed = PACKERS[encoding](body)
        assert sent(packed).read(content_encoding=encoding) == body
        assert sent(*cut(packed)).read(content_encoding=f" {encoding.upper()} ") == body
    larger = PACKERS[encoding](bytes(LIMIT + 1))
    for parts in ([larger], cut(larger)):
        assert refusal(sent(*parts), content_encoding=encoding).kind is ErrorType.TOO_LARGE


@packings
def test_limit_holds_for_the_packed_body_too(encoding: str) -> None:
    # Random bytes do not compress.
    packed = PACKERS[encoding](os.urandom(LIMIT))
    assert len(packed) > LIMIT
    assert refusal(sent(packed), content_encoding=encoding).kind is ErrorType.TOO_LARGE
    # Refused before its content is parsed.
    assert refusal(sent(bytes(LIMIT + 1)), content_encoding=encoding).kind is ErrorType.TOO_LARGE
    assert len(sent(packed).read(len(packed), content_encoding=encoding)) == LIMIT


@pytest.mark.parametrize("size", [LIMIT * 2, 7])
def test_limit_holds_for_a_packed_body_of_nothing(size: int) -> None:
    # As many empty blocks (RFC 1951, 3.2.4) as the limit has bytes, between header and checksum of RFC 1950.
    packed = b"\x78\x9c" + b"\0\0\0\xff\xff" * (LIMIT // 5) + b"\1\0\0\xff\xff" + (1).to_bytes(4, "big")
    assert zlib.decompress(packed) == b""
    assert refusal(sent(*cut(packed, size)), content_encoding="deflate").kind is ErrorType.TOO_LARGE


@pytest.mark.parametrize("size", [1, 7, LIMIT])
def test_gzip_of_several_members_is_one_body(size: int) -> None:
    """As `pigz` or an appended stream writes it; an empty member is valid, too."""
    packed = b"".join(map(gzip.compress, (b"[1, ", b"", b"2", b"]")))
    assert sent(*cut(packed, size)).read(content_encoding="gzip") == b"[1, 2]"
    for body in (packed[:-1], packed + gzip.compress(b"3")[:4]):
        assert str(refusal(sent(*cut(body, size)), content_encoding="gzip")) == INCOMPLETE
    error = refusal(sent(*cut(packed + b"xy", size)), content_encoding="gzip")
    assert (error.kind, str(error)[:35]) == (ErrorType.MALFORMED, "the body cannot be decompressed: Er")


def test_zlib_stream_is_one_stream_only() -> None:
    for second in (zlib.compress(b"b"), gzip.compress(b"b")):
        error = refusal(sent(zlib.compress(b"a") + second), content_encoding="deflate")
        assert (error.kind, str(error)) == (ErrorType.MALFORMED, INCOMPLETE)


@pytest.mark.parametrize("size", [LIMIT * 2, 64])
def test_limits_hold_for_all_gzip_members_together(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    halves = [gzip.compress(bytes(LIMIT // 2)), gzip.compress(bytes(LIMIT // 2))]
    assert sent(*cut(b"".join(halves), size)).read(content_encoding="gzip") == bytes(LIMIT)
    larger = cut(b"".join([*halves, gzip.compress(b"x")]), size)
    assert refusal(sent(*larger), content_encoding="gzip").kind is ErrorType.TOO_LARGE
    monkeypatch.setattr("serving.api.request_body.MOST_MEMBERS", 3)
    assert sent(*cut(gzip.compress(b"x") * 3, size)).read(content_encoding="gzip") == b"xxx"
    error = refusal(sent(*cut(gzip.compress(b"x") * 4, size)), content_encoding="gzip")
    assert (error.kind, str(error)) == (ErrorType.MALFORMED, "the compressed body has more than 3 gzip members")


@packings
@pytest.mark.parametrize("size", [BOMB, 100])
@pytest.mark.parametrize("before", [0, 1, LIMIT - 1, LIMIT])
def test_bomb_is_not_unpacked_beyond_the_limit(encoding: str, size: int, before: int) -> None:
    """The part before the bomb uses most or all of the limit."""
    packer = zlib.compressobj(wbits=31 if encoding == "gzip" else 15)
    first = packer.compress(bytes(before)) + packer.flush(zlib.Z_FULL_FLUSH)
    client = sent(first, *cut(packer.compress(bytes(BOMB)) + packer.flush(), size))
    tracemalloc.start()
    error = refusal(client, content_encoding=encoding)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert error.kind is ErrorType.TOO_LARGE
    assert peak < BOMB / 10, "nothing near the whole of it was in memory at once"


class Counting:
    """zlib's decompressor, and the total number of bytes that all of them returned."""

    given = 0

    def __init__(self, wrapper: int) -> None:
        self.inner = make_unpacker(wrapper)

    def __getattr__(self, name: str) -> object:
        return getattr(self.inner, name)

    def decompress(self, part: bytes, most: int) -> bytes:
        found = self.inner.decompress(part, most)
        Counting.given += len(found)
        return found


make_unpacker = zlib.decompressobj


@pytest.mark.parametrize("before", [0, 1, LIMIT - 1, LIMIT])
def test_bomb_is_unpacked_by_one_byte_too_many(monkeypatch: pytest.MonkeyPatch, before: int) -> None:
    monkeypatch.setattr(zlib, "decompressobj", Counting)
    monkeypatch.setattr(Counting, "given", 0)
    packer = zlib.compressobj()
    first = packer.compress(bytes(before)) + packer.flush(zlib.Z_FULL_FLUSH)
    refusal(sent(first, *cut(packer.compress(bytes(BOMB)) + packer.flush(), 100)), content_encoding="deflate")
    assert Counting.given == LIMIT + 1


@pytest.mark.parametrize("before", [[LIMIT + 1], [0, LIMIT], [0, 1, LIMIT - 1]], ids=str)
def test_bomb_behind_other_members_is_not_unpacked(monkeypatch: pytest.MonkeyPatch, before: list[int]) -> None:
    # All members share one limit. Once it is used up, nothing may be unpacked: zlib takes a maximum of 0 as no limit.
    monkeypatch.setattr(zlib, "decompressobj", Counting)
    monkeypatch.setattr(Counting, "given", 0)
    packed = b"".join(gzip.compress(bytes(size)) for size in (*before, BOMB))
    assert refusal(sent(packed), content_encoding="gzip").kind is ErrorType.TOO_LARGE
    assert Counting.given == LIMIT + 1


def test_member_behind_gzip_is_gzip_of_any_window() -> None:
    # The second copy is 20,000 bytes behind the first, in a window of 32 KiB.
    body = os.urandom(20_000) * 2
    assert sent(gzip.compress(b"") + gzip.compress(body)).read(50_000, content_encoding="gzip") == body
    error = refusal(sent(gzip.compress(b"a") + zlib.compress(b"b")), content_encoding="gzip")
    assert (error.kind, str(error)[:35]) == (ErrorType.MALFORMED, "the body cannot be decompressed: Er")


def test_ten_thousand_members_are_the_most() -> None:
    empty = gzip.compress(b"")
    assert sent(empty * 10_000).read(10**6, content_encoding="gzip") == b""
    with pytest.raises(ApiError, match="more than 10,000 gzip members"):
        sent(empty * 10_001).read(10**6, content_encoding="gzip")


@packings
def test_incomplete_compressed_body_is_malformed(encoding: str) -> None:
    good = PACKERS[encoding](b"hello")
    ends = "the compressed body is truncated or followed by other data"
    for body in (b"", good[:-1], good[:4], good + b"x"):
        for parts in ([body], cut(body, 3) or [b""]):
            error = refusal(sent(*parts), content_encoding=encoding)
            assert (error.kind, str(error), error.headers) == (ErrorType.MALFORMED, ends, {})
    for body in (b"hello", good[:-4] + b"\0" * 4, zlib.compress(b"hello", wbits=-15)):
        error = refusal(sent(body), content_encoding=encoding)
        assert error.kind is ErrorType.MALFORMED
        assert str(error).startswith("the body cannot be decompressed: Error -3")


@pytest.mark.parametrize("wrong", PACKERS)
@packings
def test_packed_body_may_name_the_other_wrapper(encoding: str, wrong: str) -> None:
    assert sent(PACKERS[wrong](b"hello")).read(content_encoding=encoding) == b"hello"


def test_disconnect_differs_from_end_of_body() -> None:
    for parts in ([None], [b"ab", None]):
        with pytest.raises(ClientGoneError):
            sent(*parts).read()


def test_expect_client_is_refused_before_a_large_body() -> None:
    client = sent(bytes(LIMIT + 1))
    error = refusal(client, expect="100-continue", content_length=str(LIMIT + 1))
    assert (error.kind, client.taken) == (ErrorType.TOO_LARGE, 0)
    assert sent(bytes(LIMIT)).read(expect="100-continue", content_length=str(LIMIT)) == bytes(LIMIT)
    assert sent(b"ab", b"c").read(expect="100-continue") == b"abc"
    # A client without `Expect` is already sending.
    client = sent(bytes(LIMIT + 1))
    refusal(client, content_length=str(LIMIT + 1))
    assert client.taken == 1


@pytest.mark.parametrize(
    ("sizes", "read_on"), [([LIMIT] * 9, 4), ([2 * LIMIT] * 9, 2), ([4 * LIMIT] * 9, 1), ([4 * LIMIT - 1, 1, 1], 2)]
)
def test_large_body_is_drained_up_to_a_limit(sizes: list[int], read_on: int) -> None:
    # One byte beyond the limit, then parts of these sizes, of which four times the limit is read.
    client = BodySource([bytes(LIMIT + 1), *map(bytes, sizes)], endless=True)
    assert refusal(client).kind is ErrorType.TOO_LARGE
    assert client.taken == 1 + read_on


def test_large_body_is_drained_to_its_end() -> None:
    client = sent(bytes(LIMIT + 1), b"x", b"y")
    assert refusal(client).kind is ErrorType.TOO_LARGE
    assert client.taken == 3
    gone = sent(bytes(LIMIT + 1), b"x", None, b"y")
    assert refusal(gone).kind is ErrorType.TOO_LARGE
    assert gone.taken == 3
