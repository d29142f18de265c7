"""The page at `/` and the API docs: files next to this module that load nothing from other hosts."""

from __future__ import annotations

from pathlib import Path

from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import BaseRoute, Route

PAGE = Path(__file__).with_name("page")
DOCS = Path(__file__).with_name("docs.html")
#: The page may run only its own scripts, call only this service, and not be framed.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    # After an update all files must be of the same version.
    "Cache-Control": "no-cache",
}


def page_routes() -> list[BaseRoute]:
    """Return routes for `/`, for each file that it loads, and for `/docs`."""
    files = [path for path in sorted(PAGE.iterdir()) if path.name != "index.html"]
    return [
        _file("/", PAGE / "index.html", HEADERS),
        *(_file(f"/page/{path.name}", path, HEADERS) for path in files),
        # BentoML's own page at / loads a tracker from another host.
        _file("/docs", DOCS, {}),
    ]


def _file(route: str, path: Path, headers: dict[str, str]) -> Route:
    async def answer(_: Request) -> Response:
        return FileResponse(path, headers=headers)

    return Route(route, answer, methods=["GET"])
