"""Read request bodies: count bytes on arrival, and decompress only up to the limit."""

from __future__ import annotations

import zlib
from collections.abc import Mapping

from starlette.datastructures import Headers
from starlette.types import Receive

from serving.api.errors import ApiError
from serving.schemas import ErrorType

#: zlib's `wbits` for gzip or zlib, detected from the first bytes.
ANY_WRAPPER = 47
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
    charset = parameters.lower().replace('"', "").replace(" ", "").partition("charset=")[2]
    if charset not in ("", "utf-8", "utf8"):
        raise ApiError(ErrorType.UNSUPPORTED_MEDIA_TYPE, "JSON must be UTF-8; omit the charset")
    if headers.get("content-encoding", "identity").strip().lower() not in ("identity", "gzip", "deflate"):
        raise ApiError(
            ErrorType.UNSUPPORTED_MEDIA_TYPE,
            "the body may be compressed once, by gzip or deflate",
            headers={"Accept-Encoding": "gzip, deflate"},
        )


async def read_body(receive: Receive, headers: Headers, limit: int) -> bytes:
    """Return the complete, decompressed body; neither compressed nor decompressed may it exceed `limit` bytes.

    Raises ApiError TOO_LARGE, ApiError MALFORMED if it cannot be decompressed, and ClientGoneError.
    """
    packed = headers.get("content-encoding", "identity").strip().lower() != "identity"
    # A client that sends `Expect` learns this before it sends the body.
    if "expect" in headers and int(headers.get("content-length", "0")) > limit:
        raise _too_large(limit)
    unpacker = zlib.decompressobj(ANY_WRAPPER) if packed else None
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
            part = _unpack(unpacker, part, limit - size + 1)
        size += len(part)
        parts.append(part)
        if came > limit or size > limit:
            if more:
                await _drain(receive, DRAINED_LIMITS * limit)
            raise _too_large(limit)
    if unpacker is not None and not (unpacker.eof and not unpacker.unused_data):
        raise ApiError(ErrorType.MALFORMED, "the compressed body is truncated or followed by other data")
    return b"".join(parts)


def _too_large(limit: int) -> ApiError:
    return ApiError(ErrorType.TOO_LARGE, f"the body is larger than {limit} bytes", headers=CLOSE)


def _unpack(unpacker: zlib._Decompress, part: bytes, most: int) -> bytes:
    try:
        return unpacker.decompress(part, most)
    except zlib.error as error:
        raise ApiError(ErrorType.MALFORMED, f"the body cannot be decompressed: {error}") from error


async def _drain(receive: Receive, most: int) -> None:
    """Read and discard until the body ends or `most` bytes have arrived."""
    while most > 0:
        message = await receive()
        most -= len(message.get("body", b""))
        if not message.get("more_body", False):
            return
