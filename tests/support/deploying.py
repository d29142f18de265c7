"""Deployments of tiny releases for tests, and concurrent users."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import httpx
import pytest

from pipeline.job import Job, day_of, open_store
from pipeline.recipes.loading import load_recipe
from pipeline.settings import Settings
from pipeline.stages.deploy import deploy
from pipeline.store.artifacts import Artifact
from pipeline.store.deployments import Deployment, DeploymentLog
from tests.support.crowd import TimedAnswer
from tests.support.tiny_releases import SENTENCES, make_decision

#: What users ask about.
TEXTS = SENTENCES[:3]


def job_of(settings: Settings, recipe: str = "nsmc") -> Job:
    return Job(load_recipe(recipe, "embedded"), settings, open_store(settings), "test-run", cutoff=day_of(settings))


def put(settings: Settings, release: Artifact, *, service: bool = True) -> Deployment:
    """Deploy `release` with a decision that compared it with the current champion."""
    job = job_of(settings, release.manifest.recipe)
    champion = DeploymentLog(job.store).champion(job.recipe.name)
    decision = make_decision(job.store, release, champion.ref if champion else None)
    return deploy(job, release, decision, require_service=service)


def before_next_record(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    """Call `act` once, between the next read of the log's end and the record that follows it."""
    real, waiting = DeploymentLog.append, [act]

    def append(self: DeploymentLog, *arguments: object, **named: object) -> Deployment:
        if waiting:
            waiting.pop()()
        return real(self, *arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(DeploymentLog, "append", append)


@contextmanager
def hammering(url: str, *, threads: int = 2, pause: float = 0.0, recipe: str = "nsmc") -> Iterator[list[TimedAnswer]]:
    """Call /classify continuously from `threads` threads with `pause` seconds in between; yield the responses."""
    seen: list[TimedAnswer] = []
    stop = threading.Event()

    def hammer() -> None:
        while not stop.wait(pause):
            seen.append(ask(url, recipe))

    users = [threading.Thread(target=hammer) for _ in range(threads)]
    for user in users:
        user.start()
    try:
        yield seen
    finally:
        stop.set()
        for user in users:
            user.join()


def ask(url: str, recipe: str = "nsmc") -> TimedAnswer:
    """Send one request on a new connection, as a new user would."""
    asked = time.monotonic()
    body = {"texts": TEXTS, "recipe": recipe}
    try:
        answer = httpx.post(f"{url}/classify", json=body, timeout=60, trust_env=False)
        status, document = answer.status_code, answer.json()
    except (httpx.HTTPError, ValueError) as error:
        status, document = 0, {"release": repr(error)}
    values = tuple(result["probabilities"]["positive"] for result in document.get("results", ()))
    return TimedAnswer(status, document.get("release", ""), asked, time.monotonic(), values)
