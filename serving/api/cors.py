"""Cross-origin resource sharing: which web pages of other origins may call the service from a browser."""

from __future__ import annotations

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from serving.api.middleware import REQUEST_ID_HEADER, SERVER_TIMING_HEADER
from serving.client.responses import DEPLOYMENT_HEADER, RELEASE_HEADER


def with_cors(app: ASGIApp, origins: str) -> ASGIApp:
    """Return `app` with responses that allow `origins`, separated by commas; `app` itself if there are none.

    Cookies are not allowed, because keys are sent in the `Authorization` header.
    """
    allowed = origins.replace(",", " ").split()
    if not allowed:
        return app
    return CORSMiddleware(
        app,
        allow_origins=allowed,
        allow_methods=["GET", "POST"],
        allow_headers=["Authorization", "Content-Type", REQUEST_ID_HEADER, RELEASE_HEADER, DEPLOYMENT_HEADER],
        expose_headers=["Retry-After", SERVER_TIMING_HEADER, REQUEST_ID_HEADER, DEPLOYMENT_HEADER],
    )
