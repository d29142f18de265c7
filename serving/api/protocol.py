"""HTTP/1.1 on a connection: uvicorn's protocol, kept to one answer for each request."""

from __future__ import annotations

import httptools
import uvicorn.config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

#: The body of the 400 that answers malformed HTTP, in plain text.
NOT_HTTP = "Invalid HTTP request received."


class Protocol(HttpToolsProtocol):
    """A connection on which the parser and the application agree where each request ends.

    The `Upgrade` header is ignored, as RFC 9110, 7.8 allows. httptools stops at it and skips the body, which would then
    be read as the next request (Kludex/uvicorn#2722).
    """

    def data_received(self, data: bytes) -> None:
        """Parse what has arrived. Malformed HTTP ends the connection."""
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
        """Continue with a new parser: it gets the head that the old one has stopped after, without `Upgrade`."""
        version = self.parser.get_http_version().encode()
        lines = [b"%b %b HTTP/%b" % (self.parser.get_method(), self.url, version)]
        lines += [b"%b: %b" % header for header in self.headers if header[0] != b"upgrade"]
        self.parser = httptools.HttpRequestParser(self)
        self.parser.feed_data(b"\r\n".join([*lines, b"", b""]))

    def on_headers_complete(self) -> None:
        """Start the request, unless the parser stops here and a new one will read the head again."""
        if not self.parser.should_upgrade():
            super().on_headers_complete()
            # Trailers arrive by the same callback. The application has the list that it would add them to, and a
            # proxy that removes a header does not look for it behind the body (RFC 9110, 6.5.1).
            self.headers = []
        elif self.parser.get_method() == b"CONNECT":
            raise httptools.HttpParserError("CONNECT asks for a tunnel, and what follows is not HTTP")

    def on_message_complete(self) -> None:
        """End the body, unless the parser has skipped it."""
        if not self.parser.should_upgrade():
            super().on_message_complete()

    def _refuse(self) -> None:
        """Answer malformed HTTP with 400, but never in place of another answer, or as a second one."""
        self.logger.warning(NOT_HTTP)
        cycle = self.cycle
        if cycle is None or (cycle.response_complete and not cycle.more_body):
            self.send_400_response(NOT_HTTP)
        elif cycle.response_complete:
            self.transport.close()
        elif cycle.more_body and not cycle.response_started and not self.pipeline:
            self.send_400_response(NOT_HTTP)
            # Its own answer would still be sent until the connection is closed.
            cycle.disconnected = True
        else:
            # The requests before it are answered, then the connection is closed.
            cycle.keep_alive = False


def use_protocol() -> None:
    """Have uvicorn use Protocol in this process. BentoML, which starts it, does not pass the option on."""
    uvicorn.config.HTTP_PROTOCOLS["auto"] = f"{Protocol.__module__}:{Protocol.__qualname__}"
