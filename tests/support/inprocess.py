"""The service in this process: its own routes, limits and followers behind a real socket, without BentoML's processes.

Workers poll the log at each request instead of periodically, so that tests neither wait nor depend on time.
"""

from __future__ import annotations

import socket
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import cycle
from types import SimpleNamespace
from typing import Any

import uvicorn
from pydantic_core import to_json
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route
from starlette.types import Message, Receive, Scope, Send

from pipeline.job import open_store
from pipeline.settings import Settings
from serving.api.auth import deploy_token
from serving.api.control_routes import Live, control_app
from serving.api.errors import ApiError, parse
from serving.api.middleware import Front, Gate
from serving.api.request_batching import Sharing
from serving.client.responses import RELEASE_HEADER
from serving.deployed.follower import Follower, LogSource
from serving.engine.engine import EngineOptions
from tests.support.running_service import eventually

with warnings.catch_warnings():
    # BentoML uses an API that pydantic has deprecated.
    warnings.simplefilter("ignore")
    from serving.service import DOCUMENT, SETTINGS, Saebyeok

#: Called for each request; it may return a response to send instead.
Script = Callable[[Request], Response | None]


class InProcess:
    """A service with two workers, which answer in turn; `settings` are the client's.

    Before each request, `script` is called, and each worker polls the log once, except those in `held` (pids).
    `rewrite` changes the bodies of /classify responses to users (without a release header), as a proxy might.
    """

    def __init__(self, settings: Settings, sock: socket.socket) -> None:
        url = f"http://127.0.0.1:{sock.getsockname()[1]}"
        self.settings = settings.model_copy(update={"service_url": url, "deploy_seconds": 0.3})
        self.store = open_store(settings)
        self.held: set[int] = set()
        self.script: Script = lambda _: None
        self.rewrite: Callable[[bytes], bytes] = bytes
        self.asked: list[str] = []
        self.followers = [Follower(LogSource(self.settings, self.store), EngineOptions(threads=1)) for _ in range(2)]
        self._turns = cycle([_worker(follower, deploy_token(settings)) for follower in self.followers])
        for place, follower in enumerate(self.followers, 1):
            follower.pid = place
        self.look()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope)
        self.asked.append(f"{request.method} {request.url.path}")
        answer = self.script(request)
        self.look()
        users = request.url.path == "/classify" and RELEASE_HEADER not in request.headers

        async def pass_on(message: Message) -> None:
            await send({**message, "body": self.rewrite(message["body"])} if users and "body" in message else message)

        await (answer or next(self._turns))(scope, receive, pass_on)

    def look(self) -> None:
        """Make each worker that is not held poll the log."""
        for follower in self.followers:
            if follower.pid not in self.held:
                follower.step()

    def on(self, asked: str, act: Callable[[], object]) -> None:
        """Call `act` once, right before the first request `asked` (such as "POST /releases/stage")."""
        before, waiting = self.script, [act]

        def script(request: Request) -> Response | None:
            if self.asked[-1] == asked and waiting:
                waiting.pop()()
            return before(request)

        self.script = script


@contextmanager
def in_process(settings: Settings) -> Iterator[InProcess]:
    """Yield a running service for the store of `settings`."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        service = InProcess(settings, sock)
        server = uvicorn.Server(uvicorn.Config(service, log_level="critical", lifespan="off", ws="none"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]})
        thread.start()
        try:
            eventually("it listens", lambda: server.started, pause=0.002)
            yield service
        finally:
            server.should_exit = True
            thread.join()
            for follower in service.followers:
                follower.close()


def _worker(follower: Follower, token: str) -> Front:
    """Return one worker's application, assembled as BentoML does."""
    live = Live(follower, token, ())
    control = control_app(SETTINGS, DOCUMENT)
    control.state.live = live
    service: Any = object.__new__(Saebyeok.inner)
    service._live, service._sharing = live, Sharing(1, SETTINGS.max_queue, lambda _: None)

    async def ask(request: Request) -> Response:
        api = Saebyeok.apis[request.url.path.strip("/")]
        body = parse(api.input_spec, await request.body())
        answer = await api.func(service, body, ctx=SimpleNamespace(request=request))
        return Response(to_json(answer), media_type="application/json")

    async def healthy(_: Request) -> Response:
        return Response()

    async def ready(_: Request) -> Response:
        return Response(to_json(service.readiness()))

    async def refuse(_: Request, error: Exception) -> Response:
        assert isinstance(error, ApiError)
        return error.response()

    routes = [Route(api.route, ask, methods=["POST"]) for api in Saebyeok.apis.values()]
    app = Starlette(
        routes=[*routes, Route("/livez", healthy), Route("/readyz", ready), Mount("/", control)],
        exception_handlers={ApiError: refuse},
    )
    return Front(Gate(app, admit=live.admit, body_bytes=SETTINGS.max_body_bytes, seconds=SETTINGS.request_seconds))
