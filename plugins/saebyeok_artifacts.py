"""Airflow plugin that serves the reports and data docs of artifacts below `/saebyeok`, for the links on the tasks."""

import hashlib
import re
from collections.abc import Awaitable, Callable, MutableMapping
from functools import cache
from typing import TYPE_CHECKING, Any

from airflow.plugins_manager import AirflowPlugin

if TYPE_CHECKING:
    from fastapi import FastAPI

#: The data docs, and the tables that they link to.
DATA_DOCS = re.compile(r"docs/.+|(quarantine|overlap)\.tsv")
REPORT = re.compile(r"report\.html")
#: Failed behavioural cases, of which the report shows some.
BEHAVIOUR = re.compile(r"behaviour\.json")
#: Files that may be read, by kind of artifact.
READABLE = {
    "validate": DATA_DOCS,
    "rejected-data": DATA_DOCS,
    "evaluate": BEHAVIOUR,
    "decide": REPORT,
    "release": REPORT,
}
REF = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
#: Users who may read this DAG may read its artifacts.
DAG_ID = "nightly_retrain"
MEDIA_TYPES = {
    "css": "text/css; charset=utf-8",
    "html": "text/html; charset=utf-8",
    "json": "application/json",
    "png": "image/png",
    "svg": "image/svg+xml",
    "tsv": "text/tab-separated-values; charset=utf-8",
}
HEADERS = {
    # The pages quote lines of data files. If one gets through as a script, the sandbox keeps it from running, and
    # gives the page an origin of its own, without the reader's Airflow session.
    "Content-Security-Policy": "sandbox allow-popups allow-downloads; "
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "private, no-cache",
}


class NotServedError(Exception):
    """The artifact or file does not exist, or may not be read here."""


def read_file(kind: str, recipe: str, key: str, attempt: str, path: str) -> tuple[bytes, str]:
    """Return content and media type of one file of an artifact.

    Only files that the manifest lists are served, so no path leads out of the artifact. Raises NotServedError if the
    file is absent, damaged or not readable here, StoreError if the store cannot be reached.
    """
    from pipeline.errors import ArtifactError
    from pipeline.job import open_store
    from pipeline.settings import load_settings

    if kind not in READABLE or not READABLE[kind].fullmatch(path):
        raise NotServedError
    if not all(REF.fullmatch(part) for part in (recipe, key, attempt)):
        raise NotServedError
    try:
        artifact = open_store(load_settings()).open(f"{kind}/{recipe}/{key}/{attempt}")
    except ArtifactError as error:
        raise NotServedError from error
    entry = artifact.manifest.files.get(path)
    content = artifact.store.read(f"{artifact.ref}/{path}") if entry else None
    if entry is None or content is None or hashlib.sha256(content).hexdigest() != entry.sha256:
        raise NotServedError
    return content, MEDIA_TYPES.get(path.rsplit(".", 1)[-1].lower(), "application/octet-stream")


@cache
def build_app() -> "FastAPI":
    """Return the application that Airflow mounts; only users who may read the DAG can read its files."""
    from airflow.api_fastapi.app import get_auth_manager
    from airflow.api_fastapi.core_api.security import requires_access_dag
    from fastapi import Depends, FastAPI, HTTPException, Request, Response
    from fastapi.exception_handlers import http_exception_handler
    from fastapi.responses import RedirectResponse

    from pipeline.errors import StoreError

    app = FastAPI(title="Saebyeok's artifacts", docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False)

    @app.get(
        "/{kind}/{recipe}/{key}/{attempt}/{path:path}",
        dependencies=[Depends(requires_access_dag("GET", param_dag_id=DAG_ID))],
    )
    def read(kind: str, recipe: str, key: str, attempt: str, path: str) -> Response:
        try:
            content, media_type = read_file(kind, recipe, key, attempt, path)
        except NotServedError:
            raise HTTPException(404, "Page not found. Its artifact may have been deleted.") from None
        except StoreError as error:
            raise HTTPException(503, str(error)) from error
        return Response(content, media_type=media_type, headers=HEADERS)

    @app.exception_handler(HTTPException)
    async def to_login(request: Request, error: HTTPException) -> Response:
        if error.status_code == 401 and "text/html" in request.headers.get("accept", ""):
            return RedirectResponse(get_auth_manager().get_url_login(next_url=str(request.url)))
        return await http_exception_handler(request, error)

    return app


async def artifacts(
    scope: MutableMapping[str, Any],
    receive: Callable[[], Awaitable[MutableMapping[str, Any]]],
    send: Callable[[MutableMapping[str, Any]], Awaitable[None]],
) -> None:
    """Serve a request; the application is built on the first one, because only one Airflow process serves plugins."""
    await build_app()(scope, receive, send)


class SaebyeokPlugin(AirflowPlugin):
    """Registers the application with Airflow."""

    name = "saebyeok"
    fastapi_apps = [{"app": artifacts, "url_prefix": "/saebyeok", "name": "Saebyeok's artifacts"}]  # noqa: RUF012
