"""`python -m serving`: start the service at SAEBYEOK_SERVICE_URL; it writes only below HOME, and counters in memory."""

from __future__ import annotations

import os
import sys
from urllib.parse import urlsplit

from pipeline.config_file import ROOT
from pipeline.errors import SaebyeokError, SettingsError
from pipeline.settings import Settings, library_environment, load_settings
from pipeline.texts import without_secrets
from serving.api.auth import api_keys, deploy_token
from serving.api.supervision import SUPERVISOR


def command(settings: Settings) -> list[str]:
    """Return the `bentoml serve` command line. Raises SettingsError if the URL has no host or port."""
    url = urlsplit(settings.service_url)
    if url.scheme != "http" or url.hostname is None or url.port is None:
        given = without_secrets(settings.service_url)
        raise SettingsError(f"SAEBYEOK_SERVICE_URL must look like http://127.0.0.1:3000, not {given!r}")
    # BentoML binds addresses, not names.
    host = "127.0.0.1" if url.hostname == "localhost" else url.hostname
    serve = ["serve", "serving.service:Saebyeok", "--working-dir", str(ROOT), "--host", host, "--port", str(url.port)]
    return [sys.executable, "-m", "bentoml", *serve]


def main() -> None:
    """Replace this process by the service."""
    try:
        settings = load_settings()
        deploy_token(settings)
        api_keys(settings)
        arguments = command(settings)
    except SaebyeokError as error:
        sys.exit(f"error: {error}")
    environment = {"SAEBYEOK_HOME": str(settings.home), SUPERVISOR: str(os.getpid())}
    environment |= library_environment(settings.home)
    os.execve(arguments[0], arguments, {**os.environ, **environment})  # noqa: S606 - our own interpreter


if __name__ == "__main__":
    main()
