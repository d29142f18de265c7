"""Authorization: the deploy token for staging and staged releases, and API keys for all other routes."""

from __future__ import annotations

import hmac
import secrets
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256

from pipeline.atomic_files import create_file
from pipeline.errors import SettingsError
from pipeline.settings import Settings
from serving.api.errors import ApiError
from serving.schemas import ErrorType

SHORTEST_KEY = 16


def deploy_token(settings: Settings) -> str:
    """Return the token of `settings`, or the one in HOME/deploy.token, which is created if it does not exist.

    Raises SettingsError if the file is empty, unreadable or not text, or if no HTTP header can contain the token.
    """
    if settings.deploy_token is not None:
        return _sendable(settings.deploy_token.get_secret_value(), "SAEBYEOK_DEPLOY_TOKEN")
    path = settings.deploy_token_file
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        # If another process creates it first, its token is the one to use.
        create_file(path, secrets.token_urlsafe(32) + "\n", mode=0o600)
    try:
        token = path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise SettingsError(f"{path}: {error.strerror}; set SAEBYEOK_DEPLOY_TOKEN or make the file readable") from error
    except UnicodeDecodeError as error:
        raise SettingsError(f"{path} is not text; delete it to create a new token") from error
    if not token:
        raise SettingsError(f"{path} is empty; delete it to create a new token, or set SAEBYEOK_DEPLOY_TOKEN")
    return _sendable(token, str(path))


def _sendable(secret: str, source: str) -> str:
    if secret.isascii() and secret.isprintable():
        return secret
    raise SettingsError(
        f"{source} contains a line break or a character outside ASCII, which no HTTP header can contain; remove it"
    )


def api_keys(settings: Settings) -> tuple[str, ...]:
    """Return the API keys of `settings`; without keys the service is open.

    Raises SettingsError if a key is short, or if no HTTP header can contain it.
    """
    text = settings.api_keys.get_secret_value() if settings.api_keys else ""
    keys = tuple(text.replace(",", " ").split())
    if any(len(key) < SHORTEST_KEY for key in keys):
        raise SettingsError(f"SAEBYEOK_API_KEYS: each key must have at least {SHORTEST_KEY} characters")
    return tuple(_sendable(key, "SAEBYEOK_API_KEYS") for key in keys)


class KeyLimit:
    """Limit on the concurrent requests of each API key, so that one application cannot fill the queue."""

    def __init__(self, most: int) -> None:
        """`most` is the maximum per key; 0 is no limit."""
        self._most = most
        self._running: Counter[str] = Counter()

    @contextmanager
    def counted(self, header: str | None) -> Iterator[None]:
        """Count a request with this `Authorization` header while it runs.

        Raises ApiError OVERLOADED if its key has too many.
        """
        if not self._most or header is None:
            yield
            return
        if self._running[header] >= self._most:
            text = f"this API key has {self._most} requests already, the most at the same time; wait for an answer"
            raise ApiError(ErrorType.OVERLOADED, text)
        self._running[header] += 1
        try:
            yield
        finally:
            self._running[header] -= 1
            if not self._running[header]:
                del self._running[header]


def is_authorized(header: str | None, *secrets: str) -> bool:
    """Return whether an `Authorization` header contains one of `secrets`, in the same time for any header."""
    scheme, _, given = (header or "").partition(" ")
    # Compare digests, which have equal lengths, and compare all of them, so that timing reveals nothing.
    digest = sha256(given.strip().encode()).digest()
    matches = [hmac.compare_digest(digest, sha256(secret.encode()).digest()) for secret in secrets]
    return scheme.lower() == "bearer" and any(matches)
