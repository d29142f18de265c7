"""HTTP requests to other services: to this machine without a proxy, and with certificates that are loaded once."""

from __future__ import annotations

import ssl
from functools import cache

import httpx

from pipeline.loopback import is_loopback


@cache
def certificates() -> ssl.SSLContext:
    """Return the certificates that verify servers. Loading takes 20 ms, which httpx would spend on every request."""
    return httpx.create_ssl_context()


def get(url: str, timeout: float) -> httpx.Response:
    """Return the answer to a GET request; `timeout` is in seconds. Raises httpx's errors."""
    return httpx.get(url, timeout=timeout, trust_env=not is_loopback(url), verify=certificates())
