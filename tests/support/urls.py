"""URLs to which no request can be sent."""

from __future__ import annotations

MALFORMED = (
    "box:3000",
    "//box",
    "ftp://box",
    "http://",
    "http:/box",
    "http://:3000",
    "http://box:port",
    "http://box:99999",
    "http://box:-1",
    "http://box:0",
    "http://[::1",
    "http://b ox",
    "http://bo\nx",
    "http://box\u200b",
    "http://a..b",
    f"http://{'a' * 64}.kr",
    "http://box?a=b",
    "http://box/#a",
)
