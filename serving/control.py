"""The routes beside the models': what is deployed, staging, and the OpenAPI document with all of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from pydantic import BaseModel, ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from pipeline import __version__
from pipeline.errors import ArtifactError
from serving.auth import is_authorized
from serving.engine import Engine
from serving.live import Follower
from serving.middleware import ApiError
from serving.modelstore import model_tag
from serving.pages import page_routes
from serving.schemas import ErrorResponse, LiveRelease, ReleasesResponse, StagedResponse, StageRequest

RELEASE_HEADER = "X-Saebyeok-Release"
ABOUT = "Korean BERT models, retrained overnight and served by morning. Every error has the shape of ErrorResponse."
EXAMPLES = {
    "/classify": {"texts": ["정말 재미있는 영화였어요", "시간이 아까웠다"]},
    "/similarity": {"pairs": [["오늘은 비가 온다", "오늘은 비가 내린다"]]},
}
REFERENCE = "#/components/schemas/{model}"


class Live:
    """What the routes share: the follower, and the token that opens staging."""

    def __init__(self, follower: Follower, token: str) -> None:
        """`token` is the deploy token; empty closes staging for good."""
        self.follower = follower
        self._token = token

    def authorize(self, header: str | None) -> None:
        """Raise ApiError 401 unless an Authorization header carries the deploy token."""
        if not self._token or not is_authorized(header, self._token):
            raise ApiError(401, "this needs `Authorization: Bearer <deploy token>`; see SAEBYEOK_DEPLOY_TOKEN")

    def select(self, kind: Literal["classification", "regression"], recipe: str | None) -> Engine:
        """The live engine for users: that of `recipe`, or of the only recipe of `kind`.

        Raises ApiError 503 (none), 404 (unknown) or 400 (several, or another kind).
        """
        live = self.follower.snapshot.live
        fitting = {name: engine for name, engine in live.items() if engine.card.kind == kind}
        known = ", ".join(sorted(fitting))
        if recipe is not None and live:
            return _named(recipe, live, fitting, kind)
        if not fitting:
            raise ApiError(503, f"no {kind} release is deployed yet; GET /releases says what is")
        if len(fitting) > 1:
            raise ApiError(400, f"several recipes could answer: name one of {known} in `recipe`")
        return next(iter(fitting.values()))

    def addressed(self, name: str, kind: str) -> Engine:
        """The engine of a staged (or live) release, by ref or id. Raises ApiError 404 or 400."""
        snapshot = self.follower.snapshot
        # Staged ones first: two attempts at one key share their id.
        for ref, engine in [*snapshot.staged.items(), *snapshot.engines().items()]:
            if name in (ref, engine.card.id):
                if engine.card.kind != kind:
                    raise ApiError(400, f"release {name} is a {engine.card.kind} release, not {kind}")
                return engine
        raise ApiError(404, f"release {name} is neither staged nor live in this worker")

    def releases(self) -> ReleasesResponse:
        """What is deployed here, and what the workers say."""
        snapshot = self.follower.snapshot
        deployment = snapshot.deployment
        return ReleasesResponse(
            store=self.follower.source.store,
            deployment=deployment.number if deployment else 0,
            created=deployment.created if deployment else None,
            run=deployment.run if deployment else None,
            reason=deployment.reason if deployment else None,
            recipes={
                recipe: _live_release(deployment.releases[recipe], engine)
                for recipe, engine in snapshot.live.items()
                if deployment
            },
            staged=list(snapshot.staged),
            worker=self.follower.pid,
            workers=self.follower.source.workers(),
        )

    def stage(self, ref: str, *, add: bool) -> StagedResponse:
        """Add or remove a staged release. Raises ApiError 400 (not a ref) or 409 (a Bento)."""
        try:
            model_tag(ref)
        except ArtifactError as error:
            raise ApiError(400, str(error)) from error
        staging = self.follower.source.staging
        if staging is None:
            raise ApiError(409, "this service runs a Bento with its releases baked in: it cannot stage another")
        return StagedResponse(staged=staging.add(ref) if add else staging.remove(ref))


def control_app(openapi: Callable[[], dict[str, Any]]) -> Starlette:
    """The routes as an ASGI app; its `state.live` (a Live) is set when a worker starts."""

    async def releases(request: Request) -> Response:
        return _json(_live(request).releases())

    async def stage(request: Request) -> Response:
        try:
            _live(request).authorize(request.headers.get("authorization"))
            wanted = StageRequest.model_validate_json(await request.body())
            return _json(_live(request).stage(wanted.release, add=request.method == "POST"), 202)
        except ValidationError as error:
            return ApiError(400, f"the body must be {{'release': ref}}: {error.errors()[0]['msg']}").response()
        except ApiError as error:
            return error.response()

    async def document(_: Request) -> Response:
        return JSONResponse(describe(openapi()))

    return Starlette(
        routes=[
            Route("/releases", releases, methods=["GET"]),
            Route("/releases/stage", stage, methods=["POST", "DELETE"]),
            Route("/docs.json", document, methods=["GET"]),
            *page_routes(),
        ]
    )


def describe(document: dict[str, Any]) -> dict[str, Any]:
    """BentoML's OpenAPI document with these routes added and every error in its real shape."""
    document["info"] = {"title": "Saebyeok", "description": ABOUT, "version": __version__}
    schemas = document["components"]["schemas"]
    for model in (ReleasesResponse, StageRequest, StagedResponse, ErrorResponse):
        schema = model.model_json_schema(ref_template=REFERENCE)
        schemas |= schema.pop("$defs", {})
        schemas[model.__name__] = schema
    paths = document["paths"]
    for name, example in EXAMPLES.items():
        paths[name]["post"]["requestBody"]["content"]["application/json"]["example"] = example
    paths["/releases"] = {"get": _operation("What is deployed", ReleasesResponse, 200)}
    body = {"required": True, "content": _content(StageRequest)}
    token = {"in": "header", "name": "Authorization", "required": True, "schema": {"type": "string"}}
    for method, summary in (("post", "Stage a release"), ("delete", "Unstage a release")):
        operation = _operation(summary, StagedResponse, 202)
        paths["/releases/stage"] = paths.get("/releases/stage", {}) | {
            method: operation | {"requestBody": body, "parameters": [token]}
        }
    for path in paths.values():
        for operation in path.values():
            for status in [item for item in operation["responses"] if int(item) >= 400]:
                operation["responses"][status]["content"] = _content(ErrorResponse)
    return document


def _operation(summary: str, model: type[BaseModel], status: int) -> dict[str, Any]:
    return {
        "tags": ["Service APIs"],
        "summary": summary,
        "responses": {str(status): {"description": "Success", "content": _content(model)}},
    }


def _content(model: type[BaseModel]) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": REFERENCE.format(model=model.__name__)}}}


def _named(recipe: str, live: Any, fitting: dict[str, Engine], kind: str) -> Engine:
    if recipe in fitting:
        return fitting[recipe]
    if recipe in live:
        raise ApiError(400, f"recipe {recipe!r} is a {live[recipe].card.kind} recipe, not {kind}")
    deployed = ", ".join(sorted(live)) or "none"
    raise ApiError(404, f"no recipe {recipe!r} is deployed; deployed: {deployed}")


def _live_release(ref: str, engine: Engine) -> LiveRelease:
    card = engine.card
    return LiveRelease(
        release=card.id,
        ref=ref,
        title=card.title,
        kind=card.kind,
        labels=list(card.labels),
        score_range=card.score_range,
        similar_at=card.similar_at,
        max_length=card.max_length,
        sample=card.sample,
        figures=card.figures,
        provider=engine.provider,
        created=card.created,
    )


def _live(request: Request) -> Live:
    live: Live = request.app.state.live
    return live


def _json(model: BaseModel, status: int = 200) -> Response:
    return Response(model.model_dump_json(), status, media_type="application/json")
