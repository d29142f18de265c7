"""The report at the end of `up`: metrics, example requests with their answers, and addresses."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx

from pipeline.errors import ArtifactError, RefusedError
from pipeline.http_requests import get, options_for
from pipeline.job import open_store
from pipeline.recipes.files import recipe_directories
from pipeline.recipes.kinds.registry import KINDS
from pipeline.recipes.loading import recipe_names
from pipeline.settings import Settings
from pipeline.stack.airflow_api import AirflowApi
from pipeline.stack.airflow_home import USER, read_password
from pipeline.stages.stage import STAGES
from pipeline.store.artifacts import Artifact, Store
from pipeline.store.decisions import Decision, decision_lines, read_decision
from pipeline.store.deployments import DeploymentLog
from pipeline.store.figures import EvaluationFigures, ValidationFigures
from pipeline.store.releases import Card, read_card

#: Settings that later commands must be run with too.
VARIABLES = {"SAEBYEOK_HOME", "SAEBYEOK_STORE", "SAEBYEOK_AIRFLOW_URL", "SAEBYEOK_SERVICE_URL"}
#: Tasks that return the ref of an artifact; the others return nothing or a deployment.
ARTIFACT_TASKS = tuple(stage.name for stage in STAGES)


@dataclass(frozen=True)
class RecipeOutcome:
    """The artifacts of one recipe's tasks in a run, by stage; a stage without an artifact is absent."""

    recipe: str
    run: str
    made: dict[str, Artifact]

    @property
    def decision(self) -> Decision | None:
        """Return the decision of this run, or None if the run did not reach it."""
        artifact = self.made.get("decide")
        return read_decision(artifact) if artifact else None

    def is_reused(self, stage: str) -> bool:
        """Return whether the stage reused an artifact from the store."""
        return stage in self.made and self.made[stage].manifest.run != self.run


def outcomes(settings: Settings, api: AirflowApi, dag: str, run: str) -> list[RecipeOutcome]:
    """Return the outcome of every recipe of a run."""
    store = open_store(settings)
    found = []
    for recipe in recipe_names(recipe_directories(settings.recipes)):
        made = {}
        for stage in ARTIFACT_TASKS:
            if artifact := made_by(api, store, dag, run, f"{recipe}.{stage}"):
                made[stage] = artifact
        if made:
            found.append(RecipeOutcome(recipe, run, made))
    return found


def made_by(api: AirflowApi, store: Store, dag: str, run: str, task: str) -> Artifact | None:
    """Return the artifact whose ref a task returned, or None if it returned none or the artifact is gone."""
    ref = api.returned(dag, run, task)
    if not isinstance(ref, str):
        return None
    try:
        return store.open(ref)
    except ArtifactError:
        return None


def is_sample(validated: Artifact | None) -> bool:
    """Return whether `validated` is the shipped sample; False if nothing was validated."""
    return validated is not None and ValidationFigures.read(validated).sample


def figures_text(outcome: RecipeOutcome, settings: Settings) -> Iterator[str]:
    """Yield the lines about one recipe: metrics, checks of the gate, decision, and links to the reports."""
    sample = " [trained on the synthetic SAMPLE, not on real data]" if is_sample(outcome.made.get("validate")) else ""
    yield f"{outcome.recipe}{sample}"
    if artifact := outcome.made.get("evaluate"):
        figures = EvaluationFigures.read(artifact)
        for metric, figure in figures.test.items():
            interval = f"95% interval {figure.low:.4f} to {figure.high:.4f}"
            yield f"  {metric:<10} {figure.value:.4f}  ({interval}, {figures.test_rows} test rows)"
    if decision := outcome.decision:
        yield from (f"  {line}" for line in decision_lines(decision))
        yield f"  {decision.reason}"
    reused = [stage for stage in ARTIFACT_TASKS if outcome.is_reused(stage)]
    if reused:
        yield f"  reused from the store: {', '.join(reused)}"
    for stage, file, label in (("decide", "report.html", "report"), ("validate", "docs/index.html", "data docs")):
        if artifact := outcome.made.get(stage):
            yield f"  {label:<10} {settings.airflow_url}/saebyeok/{artifact.ref}/{file}"
            if artifact.store.local:
                yield f"  {'':<10} {artifact.path / file}"


@dataclass(frozen=True)
class ExampleRequest:
    """One request: path, body of a POST, and the number of lines and characters of the answer to show."""

    path: str
    body: dict[str, Any] | None = None
    lines: int | None = None
    characters: int = 600


def example_requests(store: Store, live: dict[str, Any]) -> list[ExampleRequest]:
    """Return one request per endpoint, for the deployed recipes in `live` (`recipes` of `GET /releases`)."""
    found = [ExampleRequest("/livez"), ExampleRequest("/readyz")]
    cards = {name: read_card(store.open(release["ref"])) for name, release in sorted(live.items())}
    for route, inputs in dict.fromkeys((found.route, found.inputs) for found in KINDS.values()):
        fitting = {name: card for name, card in cards.items() if (card.route, card.inputs) == (route, inputs)}
        for name, card in fitting.items():
            found.append(ExampleRequest(route, example_body(card) | ({"recipe": name} if len(fitting) > 1 else {})))
    return [
        *found,
        ExampleRequest("/releases"),
        ExampleRequest("/metrics", lines=2),
        ExampleRequest("/docs.json", characters=200),
    ]


def example_body(card: Card) -> dict[str, Any]:
    """Return an example body for a release: its golden sentences (or pairs) with the lowest and the highest answer."""
    ordered = sorted(card.golden, key=lambda golden: golden.expected)
    return card.task.body([golden.texts for golden in (ordered[0], ordered[-1])])


def ask(settings: Settings, request: ExampleRequest) -> Iterator[str]:
    """Yield a `curl` command line for `request`, and the service's current answer to it."""
    url = f"{settings.service_url}{request.path}"
    body = json.dumps(request.body, ensure_ascii=False) if request.body else None
    extra = f" -H 'content-type: application/json' -d {shlex.quote(body)}" if body else ""
    yield f"  curl -s {url}{extra}{f' | head -n {request.lines}' if request.lines else ''}"
    try:
        answer = httpx.request(
            "POST" if body else "GET",
            url,
            content=body.encode() if body else None,
            headers={"content-type": "application/json"} if body else None,
            timeout=30,
            **options_for(url),
        )
    except httpx.HTTPError as error:
        yield f"    no answer: {error}"
        return
    for line in answer.text.strip().splitlines()[: request.lines] or ["ok"]:
        shown = line if len(line) <= request.characters else f"{line[: request.characters]} ..."
        yield f"    {'' if answer.is_success else f'{answer.status_code} '}{shown}"


def live_recipes(settings: Settings) -> dict[str, Any]:
    """Return the deployed releases by recipe, as the service reports them; empty if it does not answer."""
    try:
        url = f"{settings.service_url}/releases"
        answer = get(url, timeout=10)
        return dict(answer.json()["recipes"]) if answer.is_success else {}
    except (httpx.HTTPError, ValueError, KeyError):
        return {}


def summary(settings: Settings, results: list[RecipeOutcome], *, paused: list[str], succeeded: bool) -> Iterator[str]:
    """Yield the lines that `up` prints at its end; `paused` names the DAGs that do not run."""
    live, store = live_recipes(settings), open_store(settings)
    for outcome in results:
        yield ""
        yield from figures_text(outcome, settings)
        if release := live.get(outcome.recipe):
            yield f"  served     {release['release']}"
    yield ""
    yield "The service:"
    for request in example_requests(store, live):
        yield from ask(settings, request)
    yield ""
    yield f"Airflow:     {settings.airflow_url}  user {USER}  password {read_password(settings)}"
    if paused:
        yield f"Paused:      {', '.join(paused)}; unpause a DAG on its page in Airflow"
    if "nightly_retrain" not in paused:
        yield f"Nightly:     {settings.schedule} (cron, {settings.time_zone}), while the stack runs"
    yield f"Logs:        {settings.home / 'logs'}"
    if succeeded:
        yield from next_steps(settings, store, live)


def next_steps(settings: Settings, store: Store, live: dict[str, Any]) -> Iterator[str]:
    """Yield the lines that suggest next steps."""
    classifier = next((name for name, release in sorted(live.items()) if release["labels"]), "nsmc")
    yield ""
    yield f"Next steps{' (set the same environment variables)' if VARIABLES & os.environ.keys() else ''}:"
    yield f"  run with other parameters            {settings.airflow_url}/dags/nightly_retrain (Trigger)"
    if can_roll_back(store):
        yield "  roll back to the last deployment     .venv/bin/saebyeok rollback"
    yield f"  evaluate on your labelled file       .venv/bin/saebyeok evaluate {classifier} --file FILE --json"
    if settings.data is None:
        yield "  use the real data                    make up DATA=DIR RUN=yes (nsmc/..., klue-sts/... as published)"
    yield f"  browse the API                       {settings.service_url}/docs"
    yield "  check or stop the stack              make status, make down"


def can_roll_back(store: Store) -> bool:
    """Return whether an earlier deployment exists that has a release of every live recipe."""
    try:
        DeploymentLog(store).one_back()
    except RefusedError:
        return False
    return True
