"""HTTP requests to other services: to this machine without a proxy, and with certificates that are loaded once."""

from __future__ import annotations

import ssl
from functools import cache
from typing import TypedDict

import httpx

from pipeline.loopback import is_loopback


class Options(TypedDict):
    """Options of httpx."""

    trust_env: bool
    verify: ssl.SSLContext


@cache
def certificates(*, trust_env: bool = True) -> ssl.SSLContext:
    """Return the certificates that verify servers; with `trust_env`, those that SSL_CERT_FILE and SSL_CERT_DIR name.

    Loading takes 20 ms, which httpx would spend on every request. Raises OSError if the file cannot be read.
    """
    return httpx.create_ssl_context(trust_env=trust_env)


def options_for(url: str) -> Options:
    """Return the options for requests to `url`: the environment does not count for this machine."""
    trust_env = not is_loopback(url)
    return {"trust_env": trust_env, "verify": certificates(trust_env=trust_env)}


def get(url: str, timeout: float) -> httpx.Response:
    """Return the answer to a GET request; `timeout` is in seconds. Raises httpx's errors."""
    return httpx.get(url, timeout=timeout, **options_for(url))
