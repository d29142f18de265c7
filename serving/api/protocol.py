"""HTTP/1.1 connections: uvicorn's protocol, restricted to exactly one response per request."""

from __future__ import annotations

import httptools
import uvicorn.config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

#: The body of the 400 that answers malformed HTTP, in plain text.
NOT_HTTP = "Invalid HTTP request received."


class Protocol(HttpToolsProtocol):
    """A connection on which parser and application agree on the end of each request (no request smuggling).

    The `Upgrade` header is ignored, as RFC 9110, 7.8 allows. httptools stops at it and skips the body, which would then
    be read as the next request (Kludex/uvicorn#2722).
    """

    def data_received(self, data: bytes) -> None:
        """Parse received bytes. Malformed HTTP ends the connection."""
        self._unset_keepalive_if_required()
        try:
            self._parse(data)
        except httptools.HttpParserError:
            self._refuse()

    def _parse(self, data: bytes | memoryview) -> None:
        while True:
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as stop:
                data = memoryview(data)[stop.args[0] :]
                self._parse_again()
            else:
                return

    def _parse_again(self) -> None:
        """Continue with a new parser, which gets the request's head without `Upgrade`."""
        version = self.parser.get_http_version().encode()
        lines = [b"%b %b HTTP/%b" % (self.parser.get_method(), self.url, version)]
        lines += [b"%b: %b" % header for header in self.headers if header[0] != b"upgrade"]
        self.parser = httptools.HttpRequestParser(self)
        self.parser.feed_data(b"\r\n".join([*lines, b"", b""]))

    def on_headers_complete(self) -> None:
        """Start the request, unless the parser stops here and a new one reads the head again."""
        if not self.parser.should_upgrade():
            super().on_headers_complete()
            # The parser passes trailers to the same callback, which would add them to the application's headers. A
            # proxy that removes a header does not remove it from the trailers (RFC 9110, 6.5.1).
            self.headers = []
        elif self.parser.get_method() == b"CONNECT":
            raise httptools.HttpParserError("CONNECT opens a tunnel; the bytes after it are not HTTP")

    def on_message_complete(self) -> None:
        """End the body, unless the parser skipped it."""
        if not self.parser.should_upgrade():
            super().on_message_complete()

    def _refuse(self) -> None:
        """Answer malformed HTTP with 400, but never instead of or after another request's response."""
        self.logger.warning(NOT_HTTP)
        cycle = self.cycle
        if cycle is None or (cycle.response_complete and not cycle.more_body):
            self.send_400_response(NOT_HTTP)
        elif cycle.response_complete:
            self.transport.close()
        elif cycle.more_body and not cycle.response_started and not self.pipeline:
            self.send_400_response(NOT_HTTP)
            # Otherwise the application's response would still be sent until the connection closes.
            cycle.disconnected = True
        else:
            # Answer the earlier requests, then close the connection.
            cycle.keep_alive = False


def use_protocol() -> None:
    """Make uvicorn use Protocol in this process; BentoML, which starts uvicorn, has no option for it."""
    uvicorn.config.HTTP_PROTOCOLS["auto"] = f"{Protocol.__module__}:{Protocol.__qualname__}"
