"""What a run came to: figures, answers of the service, and where everything is, as text for the end of `up`."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx

from pipeline.artifacts import Artifact, Store
from pipeline.errors import ArtifactError
from pipeline.recipe import recipe_names
from pipeline.releases import Decision, read_decision
from pipeline.settings import Settings
from pipeline.stack.airflow_api import AirflowApi
from pipeline.stack.airflow_home import USER, read_password
from pipeline.summary import check_line

#: Settings that every later command must be given too.
VARIABLES = {"SAEBYEOK_HOME", "SAEBYEOK_STORE", "SAEBYEOK_AIRFLOW_URL", "SAEBYEOK_SERVICE_URL"}
#: Tasks that return the ref of an artifact; the others return nothing, or a deployment.
STAGES = ("validate", "tokenize", "train", "evaluate", "decide", "export")
TEXTS = ["정말 재미있게 봤어요. 또 보고 싶은 영화입니다.", "지루해서 중간에 나왔다. 시간이 아깝다."]
PAIRS = [
    ["오늘 날씨가 정말 좋네요.", "오늘은 날씨가 참 좋습니다."],
    ["회의는 몇 시에 시작하나요?", "강아지가 공원에서 뛰어놀아요."],
]


@dataclass(frozen=True)
class Outcome:
    """What one recipe's tasks made in a run, by stage; a stage that made nothing is absent."""

    recipe: str
    run: str
    made: dict[str, Artifact]

    @property
    def decision(self) -> Decision | None:
        """The decision of this run, or None where it did not come to one."""
        artifact = self.made.get("decide")
        return read_decision(artifact) if artifact else None

    def is_reused(self, stage: str) -> bool:
        """Whether the stage found its result in the store."""
        return stage in self.made and self.made[stage].manifest.run != self.run


def outcomes(api: AirflowApi, store: Store, dag: str, run: str) -> list[Outcome]:
    """The outcome of every recipe of a run."""
    found = []
    for recipe in recipe_names():
        made = {}
        for stage in STAGES:
            if artifact := made_by(api, store, dag, run, f"{recipe}.{stage}"):
                made[stage] = artifact
        if made:
            found.append(Outcome(recipe, run, made))
    return found


def made_by(api: AirflowApi, store: Store, dag: str, run: str, task: str) -> Artifact | None:
    """The artifact whose ref a task returned, or None where it returned none."""
    ref = api.returned(dag, run, task)
    if not isinstance(ref, str):
        return None
    try:
        return store.open(ref)
    except ArtifactError:
        return None


def is_sample(validated: Artifact | None) -> bool:
    """Whether the shipped sample was validated, and so trained on; not where nothing was."""
    return validated is not None and bool(validated.figures["sample"])


def figures_text(outcome: Outcome, settings: Settings) -> Iterator[str]:
    """Figures against their thresholds, the decision, and where the reports are."""
    sample = " [trained on the shipped SAMPLE, not on real data]" if is_sample(outcome.made.get("validate")) else ""
    yield f"{outcome.recipe}{sample}"
    evaluated = outcome.made.get("evaluate")
    if evaluated:
        rows = evaluated.figures.get("test_rows")
        for metric, figure in evaluated.figures["test"].items():
            if isinstance(figure, dict):
                interval = f"95% interval {figure['low']:.4f} to {figure['high']:.4f}"
                yield f"  {metric:<10} {figure['value']:.4f}  ({interval}, {rows} test rows)"
    if decision := outcome.decision:
        for check in decision.checks:
            yield f"  {check_line(check)}"
        yield f"  {decision.reason}"
    reused = [stage for stage in STAGES if outcome.is_reused(stage)]
    if reused:
        yield f"  reused from the store: {', '.join(reused)}"
    for stage, file, label in (("decide", "report.html", "report"), ("validate", "docs/index.html", "data docs")):
        if artifact := outcome.made.get(stage):
            yield f"  {label:<10} {settings.airflow_url}/saebyeok/{artifact.ref}/{file}"
            if artifact.store.local:
                yield f"  {'':<10} {artifact.path / file}"


@dataclass(frozen=True)
class Call:
    """One endpoint: method, path and body."""

    method: str
    path: str
    body: dict[str, Any] | None = None


def calls(live: dict[str, Any]) -> list[Call]:
    """One call for each kind of endpoint, fitting what is deployed (`recipes` of `GET /releases`)."""
    found = [Call("GET", "/readyz")]
    for kind, path, body in (
        ("classification", "/classify", {"texts": TEXTS}),
        ("regression", "/similarity", {"pairs": PAIRS}),
    ):
        fitting = sorted(name for name, release in live.items() if release["kind"] == kind)
        for name in fitting:
            found.append(Call("POST", path, body | ({"recipe": name} if len(fitting) > 1 else {})))
    return [*found, Call("GET", "/releases")]


def ask(settings: Settings, call: Call) -> Iterator[str]:
    """A `curl` command line for `call`, and the answer that the service gives to it now."""
    url = f"{settings.service_url}{call.path}"
    body = json.dumps(call.body, ensure_ascii=False) if call.body else None
    extra = f" -H 'content-type: application/json' -d {shlex.quote(body)}" if body else ""
    yield f"  curl -s {url}{extra}"
    try:
        answer = httpx.request(
            call.method,
            url,
            content=body.encode() if body else None,
            headers={"content-type": "application/json"} if body else None,
            timeout=30,
        )
    except httpx.HTTPError as error:
        yield f"    no answer: {error}"
        return
    text = " ".join(answer.text.split())
    shown = text if len(text) <= 600 else f"{text[:600]} ..."
    yield f"    {'' if answer.is_success else f'{answer.status_code} '}{shown or 'ok'}"


def live_recipes(settings: Settings) -> dict[str, Any]:
    """What the service has deployed, by recipe; empty where it does not say."""
    try:
        answer = httpx.get(f"{settings.service_url}/releases", timeout=10)
        return dict(answer.json()["recipes"]) if answer.is_success else {}
    except (httpx.HTTPError, ValueError, KeyError):
        return {}


def summary(settings: Settings, results: list[Outcome], *, succeeded: bool) -> Iterator[str]:
    """Everything that `up` says at its end, line by line."""
    live = live_recipes(settings)
    for outcome in results:
        yield ""
        yield from figures_text(outcome, settings)
        if release := live.get(outcome.recipe):
            yield f"  served     {release['release']}"
    yield ""
    yield "The service:"
    for call in calls(live):
        yield from ask(settings, call)
    yield ""
    yield f"Airflow:     {settings.airflow_url}  user {USER}  password {read_password(settings)}"
    yield f"Nightly:     03:00 Asia/Seoul, as long as the stack is up; logs below {settings.home / 'logs'}"
    if succeeded:
        yield from next_steps(settings, live)


def next_steps(settings: Settings, live: dict[str, Any]) -> Iterator[str]:
    """What to try now."""
    classifier = next((name for name, release in sorted(live.items()) if release["kind"] == "classification"), "nsmc")
    yield ""
    yield f"What to try next{', each with the same variables before it' if VARIABLES & os.environ.keys() else ''}:"
    yield f"  another run with other parameters    {settings.airflow_url}/dags/nightly_retrain (Trigger)"
    yield "  back to the deployment before        .venv/bin/saebyeok rollback"
    yield f"  the champion on labelled rows        .venv/bin/saebyeok evaluate {classifier} --file FILE --json"
    if settings.data is None:
        yield "  the real data                        make up DATA=DIR (nsmc/..., klue-sts/... as published)"
    yield "  is all well, and stop it             make status, make down"
