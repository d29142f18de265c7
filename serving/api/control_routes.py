"""Control routes: the deployed releases, staging, the OpenAPI document and the pages."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from pipeline.errors import ArtifactError
from pipeline.recipes.kinds.registry import KINDS
from pipeline.recipes.kinds.task_kind import Inputs, Kind, Method
from pipeline.settings import Settings
from serving.api.auth import is_authorized
from serving.api.compatible.openai import ModelsResponse, model_of
from serving.api.compatible.tei import info
from serving.api.errors import ApiError, parse, unexpected
from serving.api.pages import page_routes
from serving.client.responses import DEPLOYMENT_HEADER, LiveRelease, ReleasesResponse
from serving.deployed.follower import Follower
from serving.deployed.model_store import model_tag
from serving.engine.engine import Engine
from serving.schemas import ErrorType, StagedResponse, StageRequest

READS: Mapping[Inputs, str] = {found.inputs: found.reads for found in KINDS.values()}
#: A deployment's number in a header.
NUMBER = re.compile(r"[1-9][0-9]{0,8}")
CHALLENGE = {"WWW-Authenticate": "Bearer"}


@dataclass(frozen=True)
class Need:
    """Requirements of a request on a release."""

    kind: Kind | None = None
    inputs: Inputs | None = None
    method: Method | None = None
    vectors: bool = False

    def unmet_by(self, engine: Engine) -> str | None:
        """Describe how the release of `engine` differs from the requirements; None if it meets them."""
        card = engine.card
        if self.kind not in (None, card.kind):
            return f"a {card.kind} release, not {self.kind}"
        if self.inputs not in (None, card.inputs):
            return f"a release that reads {READS[card.inputs]}, not {READS[self.inputs]}"
        if self.method is not None and self.method not in engine.methods:
            return f"a release that compares by {' or '.join(engine.methods)}, not by {self.method}"
        if self.vectors and not engine.has_vectors:
            return "a release without sentence vectors, which only a bi-encoder has"
        return None

    def __str__(self) -> str:
        """Return the kind of release, as part of a sentence."""
        if self.vectors:
            return "release with sentence vectors"
        reads = [f"reads {READS[self.inputs]}"] if self.inputs else []
        compares = [f"compares by {self.method}"] if self.method else []
        does = " and ".join(reads + compares)
        return f"{self.kind} release" + (f" that {does}" if does else "")


class Live:
    """State that the routes share: the follower, the deploy token and the API keys."""

    def __init__(self, follower: Follower, token: str, keys: tuple[str, ...]) -> None:
        """`token` is the deploy token; if empty, staging is disabled. Without `keys` all other routes are open."""
        self.follower = follower
        self._token = token
        self._keys = (*keys, *filter(None, [token])) if keys else ()

    def authorize(self, header: str | None) -> None:
        """Raise ApiError UNAUTHORIZED unless an Authorization header contains the deploy token."""
        if not self.deploys(header):
            text = "this request requires `Authorization: Bearer <deploy token>`; see SAEBYEOK_DEPLOY_TOKEN"
            raise ApiError(ErrorType.UNAUTHORIZED, text, headers=CHALLENGE)

    def deploys(self, header: str | None) -> bool:
        """Return whether an Authorization header contains the deploy token."""
        return header is not None and bool(self._token) and is_authorized(header, self._token)

    def admit(self, header: str | None) -> None:
        """Raise ApiError UNAUTHORIZED if there are keys and the header contains neither a key nor the token."""
        if self._keys and not is_authorized(header, *self._keys):
            text = "this request requires `Authorization: Bearer <key>` with one of the service's API keys"
            raise ApiError(ErrorType.UNAUTHORIZED, text, headers=CHALLENGE)

    def select(self, need: Need, recipe: str | None) -> Engine:
        """Return the live engine of `recipe`, or of the only recipe that meets `need`.

        Raises ApiError UNAVAILABLE if nothing is deployed, NOT_FOUND if none fits, and INVALID_REQUEST if several fit
        or `recipe` does not meet `need`.
        """
        live = self.follower.snapshot.live
        if not live:
            raise ApiError(ErrorType.UNAVAILABLE, "no release is deployed yet; deploy one, then try again")
        if recipe is not None:
            return _named(recipe, live, need)
        fitting = {name: engine for name, engine in live.items() if need.unmet_by(engine) is None}
        if not fitting:
            raise ApiError(ErrorType.NOT_FOUND, f"no {need} is deployed; GET /releases lists the deployed releases")
        if len(fitting) > 1:
            known = ", ".join(sorted(fitting))
            raise ApiError(ErrorType.INVALID_REQUEST, f"several recipes fit; set `recipe` to one of {known}")
        return next(iter(fitting.values()))

    def addressed(self, name: str, need: Need, header: str | None) -> Engine:
        """Return the engine of a live release by ref or id; with the deploy token in `header` also of a staged one.

        Raises ApiError NOT_FOUND, INVALID_REQUEST, or UNAUTHORIZED for a staged release without the token.
        """
        snapshot = self.follower.snapshot
        # Staged releases first: two attempts at one key share their id.
        staged = [engine for ref, engine in snapshot.staged.items() if name in (ref, engine.card.id)]
        live = [engine for ref, engine in snapshot.live_engines().items() if name in (ref, engine.card.id)]
        found = [*staged, *live] if self.deploys(header) else live
        if found:
            if unmet := need.unmet_by(found[0]):
                raise ApiError(ErrorType.INVALID_REQUEST, f"{name} is {unmet}")
            return found[0]
        if staged:
            self.authorize(header)
        served = ", ".join(engine.card.id for engine in snapshot.live.values()) or "nothing"
        text = f"release {name} is neither staged nor live in this worker; deployment {snapshot.number} serves {served}"
        raise ApiError(ErrorType.NOT_FOUND, text)

    def check_deployment(self, wanted: str) -> None:
        """Raise ApiError unless the worker serves deployment number `wanted` or a newer one.

        CONFLICT for an older one, which another replica may have left already; INVALID_REQUEST if it is not a number.
        """
        number = self.follower.snapshot.number
        if not NUMBER.fullmatch(wanted):
            raise ApiError(ErrorType.INVALID_REQUEST, f"{DEPLOYMENT_HEADER} must be the number of a deployment, from 1")
        if number < int(wanted):
            text = f"this replica serves deployment {number}, which is older than {wanted}; try again"
            raise ApiError(ErrorType.CONFLICT, text, headers={"Retry-After": "1"})

    def releases(self) -> ReleasesResponse:
        """Return the current deployment and the state of all workers."""
        snapshot = self.follower.snapshot
        deployment = snapshot.deployment
        return ReleasesResponse(
            store=self.follower.source.store,
            replica=self.follower.source.replica,
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
        """Add or remove a staged release.

        Raises ApiError INVALID_REQUEST for an invalid ref, CONFLICT in a Bento, INTERNAL if the list cannot be written.
        """
        try:
            model_tag(ref)
        except ArtifactError as error:
            raise ApiError(ErrorType.INVALID_REQUEST, str(error)) from error
        staging = self.follower.source.staging
        if staging is None:
            text = "this service runs a Bento, which contains its releases; it cannot stage others"
            raise ApiError(ErrorType.CONFLICT, text)
        try:
            return StagedResponse(staged=staging.add(ref) if add else staging.remove(ref))
        except OSError as error:
            text = f"the list of staged releases cannot be written: {error.strerror}; check the disk with SAEBYEOK_HOME"
            raise ApiError(ErrorType.INTERNAL, text) from error


def control_app(settings: Settings, document: Mapping[str, Any]) -> Starlette:
    """Return the ASGI application of these routes, described by `document`; set its `state.live` before a request."""

    async def releases(request: Request) -> Response:
        return _json(_live(request).releases())

    async def stage(request: Request) -> Response:
        _live(request).authorize(request.headers.get("authorization"))
        wanted = parse(StageRequest, await request.body())
        return _json(_live(request).stage(wanted.release, add=request.method == "POST"), 202)

    async def models(request: Request) -> Response:
        live = _live(request).follower.snapshot.live
        return _json(ModelsResponse(data=[model_of(engine) for engine in live.values()]))

    async def model(request: Request) -> Response:
        return _json(model_of(_live(request).select(Need(), request.path_params["name"])))

    async def about(request: Request) -> Response:
        return _json(info(_live(request).follower.snapshot.live, settings.max_inputs))

    async def health(_: Request) -> Response:
        return Response()

    async def openapi(_: Request) -> Response:
        return JSONResponse(document)

    async def refuse(_: Request, error: Exception) -> Response:
        assert isinstance(error, ApiError)
        return error.response()

    async def fail(*_: object) -> Response:
        # Starlette's own answer would be plain text. It raises the error again, for the log.
        return unexpected().response()

    return Starlette(
        routes=[
            Route("/releases", releases, methods=["GET"]),
            Route("/releases/stage", stage, methods=["POST", "DELETE"]),
            Route("/v1/models", models, methods=["GET"]),
            Route("/v1/models/{name}", model, methods=["GET"]),
            Route("/info", about, methods=["GET"]),
            Route("/health", health, methods=["GET"]),
            Route("/docs.json", openapi, methods=["GET"]),
            *page_routes(),
        ],
        exception_handlers={ApiError: refuse, Exception: fail},
    )


def _named(recipe: str, live: Mapping[str, Engine], need: Need) -> Engine:
    if recipe not in live:
        deployed = ", ".join(sorted(live))
        raise ApiError(ErrorType.NOT_FOUND, f"no recipe {recipe!r} is deployed; deployed: {deployed}")
    if unmet := need.unmet_by(live[recipe]):
        raise ApiError(ErrorType.INVALID_REQUEST, f"recipe {recipe!r} has {unmet}")
    return live[recipe]


def _live_release(ref: str, engine: Engine) -> LiveRelease:
    card = engine.card
    return LiveRelease(
        release=card.id,
        ref=ref,
        title=card.title,
        kind=card.kind,
        inputs=card.inputs,
        route=card.route,
        labels=list(card.labels),
        score_range=card.score_range,
        similar_at=card.similar_at,
        max_length=card.max_length,
        methods=list(engine.methods),
        vectors=engine.has_vectors,
        sample=card.sample,
        figures=card.figures,
        provider=engine.provider,
        variant=engine.variant.name,
        rates=engine.rates,
        created=card.created,
    )


def _live(request: Request) -> Live:
    live: Live = request.app.state.live
    return live


def _json(model: BaseModel, status: int = 200) -> Response:
    return Response(model.model_dump_json(), status, media_type="application/json")
