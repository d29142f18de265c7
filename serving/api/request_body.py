"""Read request bodies: count bytes on arrival, and decompress only up to the limit."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator, Mapping

from starlette.datastructures import Headers
from starlette.types import Receive

from serving.api.errors import ApiError
from serving.schemas import ErrorType

#: zlib's `wbits` for gzip or zlib, detected from the first bytes.
ANY_WRAPPER = 47
#: zlib's `wbits` for gzip only.
GZIP = 31
#: First byte of a gzip member.
GZIP_MAGIC = b"\x1f"
INCOMPLETE = "the compressed body is truncated or followed by other data"
#: Maximum members of a gzip body. Each costs time whatever its size, and an empty one has only 20 bytes.
MOST_MEMBERS = 10_000
#: Parameters of a media type (RFC 9110, 5.6.6): any number, each may be empty, and a quoted value may contain `;`.
PARAMETER = re.compile(r';[ \t]*(?:([^\s;="]+)[ \t]*=[ \t]*("(?:[^"\\]|\\.)*"|[^;]*))?')
UTF_8 = ("utf-8", "utf8")
#: A too large body is read up to this multiple of the limit before it is refused: a client that is still sending may
#: see a broken connection instead of the response.
DRAINED_LIMITS = 4
CLOSE: Mapping[str, str] = {"Connection": "close"}


class ClientGoneError(Exception):
    """The client closed the connection."""


def check_media_type(headers: Headers) -> None:
    """Raise ApiError UNSUPPORTED_MEDIA_TYPE unless the headers declare JSON and a supported compression.

    Form data is accepted as JSON, because `curl -d` declares it by default.
    """
    kind, _, parameters = headers.get("content-type", "application/json").partition(";")
    if kind.strip().lower() not in ("application/json", "application/x-www-form-urlencoded"):
        raise ApiError(ErrorType.UNSUPPORTED_MEDIA_TYPE, "the body must be JSON: `Content-Type: application/json`")
    if any(charset not in UTF_8 for charset in _charsets(f";{parameters}")):
        raise ApiError(ErrorType.UNSUPPORTED_MEDIA_TYPE, "JSON must be UTF-8; omit the charset")
    encoding = _encoding(headers)
    if encoding not in ("identity", "gzip", "deflate"):
        raise ApiError(
            ErrorType.UNSUPPORTED_MEDIA_TYPE,
            f"Content-Encoding {encoding!r} is not supported; compress the body once with gzip or deflate, or not at "
            "all",
            headers={"Accept-Encoding": "gzip, deflate"},
        )


def _encoding(headers: Headers) -> str:
    """Return the encodings of a body, in lower case and separated by commas; `identity` if it has none."""
    given = headers.get("content-encoding")
    if given is None:
        return "identity"
    # A list may have empty elements (RFC 9110, 5.6.1), and x-gzip is another name of gzip (8.4.1.3).
    names = [name.strip().lower() for name in given.split(",")]
    return ", ".join(name.removeprefix("x-") for name in names if name not in ("", "identity")) or "identity"


def _charsets(parameters: str) -> Iterator[str]:
    for parameter in PARAMETER.finditer(parameters):
        name, value = parameter.groups(default="")
        if name.lower() == "charset":
            yield value.strip().strip('"').strip().lower()


async def read_body(receive: Receive, headers: Headers, limit: int) -> bytes:
    """Return the complete, decompressed body; neither compressed nor decompressed may it exceed `limit` bytes.

    Raises ApiError TOO_LARGE, ApiError MALFORMED if it cannot be decompressed, and ClientGoneError.
    """
    packed = _encoding(headers) != "identity"
    # A client that sends `Expect` learns this before it sends the body.
    if "expect" in headers and int(headers.get("content-length", "0")) > limit:
        raise _too_large(limit)
    unpacker = _Unpacker() if packed else None
    parts: list[bytes] = []
    came = size = 0
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGoneError
        part, more = message.get("body", b""), message.get("more_body", False)
        came += len(part)
        if came <= limit and unpacker is not None:
            part = unpacker.unpack(part, limit - size + 1)
        size += len(part)
        parts.append(part)
        if came > limit or size > limit:
            if more:
                await _drain(receive, DRAINED_LIMITS * limit)
            raise _too_large(limit)
    if unpacker is not None and not unpacker.is_complete:
        raise ApiError(ErrorType.MALFORMED, INCOMPLETE)
    return b"".join(parts)


def _too_large(limit: int) -> ApiError:
    return ApiError(ErrorType.TOO_LARGE, f"the body is larger than {limit} bytes", headers=CLOSE)


class _Unpacker:
    """Decompressor of one body: a zlib stream, or gzip members one after another (RFC 1952, 2.2)."""

    def __init__(self) -> None:
        self._stream = zlib.decompressobj(ANY_WRAPPER)
        self._members = 0
        self._is_gzip = False

    @property
    def is_complete(self) -> bool:
        return self._stream.eof

    def unpack(self, part: bytes, most: int) -> bytes:
        """Return the decompressed content of `part`, up to `most` bytes. Raises ApiError MALFORMED."""
        found: list[bytes] = []
        while part and most > 0:
            if not self._members or self._stream.eof:
                self._begin_member(part)
            try:
                found.append(self._stream.decompress(part, most))
            except zlib.error as error:
                raise ApiError(ErrorType.MALFORMED, f"the body cannot be decompressed: {error}") from error
            most -= len(found[-1])
            part = self._stream.unused_data
        return b"".join(found)

    def _begin_member(self, part: bytes) -> None:
        if not self._members:
            self._is_gzip = part[:1] == GZIP_MAGIC
        elif not self._is_gzip:
            raise ApiError(ErrorType.MALFORMED, INCOMPLETE)
        elif self._members == MOST_MEMBERS:
            raise ApiError(ErrorType.MALFORMED, f"the compressed body has more than {MOST_MEMBERS:,} gzip members")
        else:
            self._stream = zlib.decompressobj(GZIP)
        self._members += 1


async def _drain(receive: Receive, most: int) -> None:
    """Read and discard until the body ends or `most` bytes have arrived."""
    while most > 0:
        message = await receive()
        most -= len(message.get("body", b""))
        if not message.get("more_body", False):
            return
