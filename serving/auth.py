"""The deploy token: who holds it may stage releases and ask staged ones."""

from __future__ import annotations

import hmac
import os
import secrets

from pipeline.errors import SettingsError
from pipeline.settings import Settings


def deploy_token(settings: Settings) -> str:
    """The token of `settings`, or the one in HOME/deploy.token, which is made where it does not exist.

    Raises SettingsError where the file is empty or cannot be read.
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
    if not token:
        raise SettingsError(f"{path} is empty; remove it and a new token is made, or set SAEBYEOK_DEPLOY_TOKEN")
    return token


def is_authorized(header: str | None, token: str) -> bool:
    """Whether an `Authorization` header carries `token`; takes the same time however much of it is right."""
    scheme, _, given = (header or "").partition(" ")
    return scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), token.encode())
