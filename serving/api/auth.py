"""The deploy token, which opens staging and staged releases, and the API keys, which open the rest."""

from __future__ import annotations

import hmac
import os
import secrets
from hashlib import sha256

from pipeline.errors import SettingsError
from pipeline.settings import Settings

SHORTEST_KEY = 16


def deploy_token(settings: Settings) -> str:
    """The token of `settings`, or the one in HOME/deploy.token, which is made where it does not exist.

    Raises SettingsError where the file is empty, cannot be read or is not text.
    """
    if settings.deploy_token is not None:
        return settings.deploy_token.get_secret_value()
    path = settings.deploy_token_file
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_urlsafe(32) + "\n")
        try:
            # A link appears whole or not at all, and only one of several processes makes it.
            os.link(beside, path)
        except FileExistsError:
            pass
        finally:
            beside.unlink()
    try:
        token = path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise SettingsError(f"{path}: {error.strerror}; set SAEBYEOK_DEPLOY_TOKEN or make it readable") from error
    except UnicodeDecodeError as error:
        raise SettingsError(f"{path} is not text; remove it and a new token is made") from error
    if not token:
        raise SettingsError(f"{path} is empty; remove it and a new token is made, or set SAEBYEOK_DEPLOY_TOKEN")
    return token


def api_keys(settings: Settings) -> tuple[str, ...]:
    """The keys of `settings`; none leaves the service open. Raises SettingsError where one is too short."""
    text = settings.api_keys.get_secret_value() if settings.api_keys else ""
    keys = tuple(text.replace(",", " ").split())
    if any(len(key) < SHORTEST_KEY for key in keys):
        raise SettingsError(f"SAEBYEOK_API_KEYS: each key must have {SHORTEST_KEY} characters or more")
    return keys


def is_authorized(header: str | None, *secrets: str) -> bool:
    """Whether an `Authorization` header carries one of `secrets`; it takes the same time however much of which."""
    scheme, _, given = (header or "").partition(" ")
    # Digests are of one length, so that not even that of a secret shows; each is compared, also after a match.
    digest = sha256(given.strip().encode()).digest()
    matches = [hmac.compare_digest(digest, sha256(secret.encode()).digest()) for secret in secrets]
    return scheme.lower() == "bearer" and any(matches)
