"""URLs of services: their form, and calls to this machine, which never go through a proxy."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address
from urllib.parse import urlsplit

#: Hosts that NO_PROXY must contain: no library knows the whole network 127.0.0.0/8.
HOSTS = ("127.0.0.1", "localhost", "::1", "0.0.0.0")  # noqa: S104 - a name to call, not to bind


def is_service_url(url: str) -> bool:
    """Return whether requests can be sent to paths below `url`: HTTP or HTTPS, a host, and no query or fragment."""
    try:
        parts = urlsplit(url)
        port = 80 if parts.port is None else parts.port
        # Host names have labels of 1 to 63 characters.
        host = (parts.hostname or "").encode("idna")
    except ValueError:
        return False
    plain = url.isprintable() and " " not in url and not (parts.query or parts.fragment)
    return plain and parts.scheme in ("http", "https") and bool(host) and port > 0


def is_loopback(url: str) -> bool:
    """Return whether `url` names this machine."""
    try:
        host = urlsplit(url).hostname or ""
        return host == "localhost" or ip_address(host).is_loopback or ip_address(host).is_unspecified
    except ValueError:
        return False


def without_proxy(environment: Mapping[str, str]) -> dict[str, str]:
    """Return NO_PROXY and no_proxy (programs read one or the other) of `environment`, with all of `HOSTS` added."""
    known = environment.get("no_proxy") or environment.get("NO_PROXY") or ""
    hosts = [host.strip() for host in known.split(",") if host.strip()]
    # Programs recognize `*` (no proxy at all) only if it is alone.
    value = known if "*" in hosts else ",".join(dict.fromkeys([*hosts, *HOSTS]))
    return {"NO_PROXY": value, "no_proxy": value}
