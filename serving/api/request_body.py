"""Reading what a client sends: counted while it comes, unpacked no further than the limit."""

from __future__ import annotations

import zlib
from collections.abc import Mapping

from starlette.datastructures import Headers
from starlette.types import Receive

from serving.api.errors import ApiError
from serving.schemas import ErrorType

#: gzip or zlib, whichever the first bytes say.
ANY_WRAPPER = 47
#: So many times the limit is read of a body that is too large before it is refused: a client that is told while it
#: still sends may see a broken connection and not the answer.
DRAINED_LIMITS = 4
CLOSE: Mapping[str, str] = {"Connection": "close"}


class ClientGoneError(Exception):
    """Nobody is there any more to be answered."""


def check_media_type(headers: Headers) -> None:
    """Raise ApiError UNSUPPORTED_MEDIA_TYPE where a body says that it is no JSON, or packed in an unknown way.

    `curl -d` says that JSON is a form; there are no forms here.
    """
    kind, _, parameters = headers.get("content-type", "application/json").partition(";")
    if kind.strip().lower() not in ("application/json", "application/x-www-form-urlencoded"):
        raise ApiError(ErrorType.UNSUPPORTED_MEDIA_TYPE, "the body must be JSON: `Content-Type: application/json`")
    charset = parameters.lower().replace('"', "").replace(" ", "").partition("charset=")[2]
    if charset not in ("", "utf-8", "utf8"):
        raise ApiError(ErrorType.UNSUPPORTED_MEDIA_TYPE, "JSON is UTF-8; leave the charset out")
    if headers.get("content-encoding", "identity").strip().lower() not in ("identity", "gzip", "deflate"):
        raise ApiError(
            ErrorType.UNSUPPORTED_MEDIA_TYPE,
            "the body may be compressed by gzip or deflate, and by one of them once",
            headers={"Accept-Encoding": "gzip, deflate"},
        )


async def read_body(receive: Receive, headers: Headers, limit: int) -> bytes:
    """The whole body, unpacked; `limit`, in bytes, holds for it as it comes and as it is unpacked.

    Raises ApiError TOO_LARGE, or MALFORMED where it cannot be unpacked, and ClientGoneError.
    """
    packed = headers.get("content-encoding", "identity").strip().lower() != "identity"
    # Who asks first need not send it.
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
        raise ApiError(ErrorType.MALFORMED, "the compressed body ends too early, or is followed by something else")
    return b"".join(parts)


def _too_large(limit: int) -> ApiError:
    return ApiError(ErrorType.TOO_LARGE, f"the body is larger than {limit} bytes", headers=CLOSE)


def _unpack(unpacker: zlib._Decompress, part: bytes, most: int) -> bytes:
    try:
        return unpacker.decompress(part, most)
    except zlib.error as error:
        raise ApiError(ErrorType.MALFORMED, f"the body cannot be decompressed: {error}") from error


async def _drain(receive: Receive, most: int) -> None:
    """Read on and forget, until the body ends or `most` bytes have come."""
    while most > 0:
        message = await receive()
        most -= len(message.get("body", b""))
        if not message.get("more_body", False):
            return
