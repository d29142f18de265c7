"""The benchmark of the HTTP protocol: both protocols answer all requests."""

from __future__ import annotations

import asyncio

import pytest
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from benchmarks import protocol
from serving.api.protocol import Protocol


@pytest.mark.parametrize("kind", [HttpToolsProtocol, Protocol])
def test_each_request_is_answered_with_its_body(kind: type[HttpToolsProtocol], monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[bytes] = []
    monkeypatch.setattr(protocol.MemoryTransport, "write", lambda _, data: written.append(bytes(data)))

    async def send() -> None:
        await protocol.seconds(*protocol.connect(kind), 3)

    asyncio.run(send())
    answers = b"".join(written)
    assert answers.count(b"HTTP/1.1 200 OK\r\n") == 3
    assert answers.count(b"\r\n\r\n" + protocol.BODY) == 3


def test_difference_is_between_rounds_next_to_each_other() -> None:
    found = asyncio.run(protocol.measure(2, 3))
    assert found.keys() == {"uvicorn", "Saebyeok", "difference"}
    for middle, low, high in found.values():
        assert low <= middle <= high
