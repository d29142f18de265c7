"""Calls to this machine: they never go through a proxy, whatever the environment says."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address
from urllib.parse import urlsplit

#: Hosts that NO_PROXY must contain: no library knows the whole network 127.0.0.0/8.
HOSTS = ("127.0.0.1", "localhost", "::1", "0.0.0.0")  # noqa: S104 - a name to call, not to bind


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
