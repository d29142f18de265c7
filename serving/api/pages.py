"""The page at `/` and that of the API docs: files beside this module, which load nothing from elsewhere."""

from __future__ import annotations

from pathlib import Path

from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import BaseRoute, Route

PAGE = Path(__file__).with_name("page")
DOCS = Path(__file__).with_name("docs.html")
#: The page runs no script but its own, asks nobody but this service, and is framed by nobody.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    # After an update none of its files may be of the version before.
    "Cache-Control": "no-cache",
}


def page_routes() -> list[BaseRoute]:
    """A route for `/`, one for each file that it loads, and `/docs`."""
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
