"""`saebyeok up` end to end: a separate stack, the sample through Airflow, predictions, and a clean shutdown."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import httpx
import psutil
import pytest
from playwright.sync_api import sync_playwright

from pipeline.config_file import ROOT
from pipeline.job import open_store
from pipeline.recipes.loading import load_recipe
from pipeline.settings import Settings
from pipeline.stack.airflow_api import UNFINISHED, AirflowApi
from pipeline.stack.airflow_home import USER, read_password
from pipeline.stack.follow_run import RunFollower, follow
from pipeline.stack.lifecycle import DAG, DAGS, open_api, record_path
from pipeline.stack.processes import marked_processes, read_record
from pipeline.stack.terminal import Progress
from pipeline.store.deployments import DeploymentLog
from tests.support.hook import Hook, web_hook
from tests.support.running_service import free_url

pytestmark = [pytest.mark.airflow, pytest.mark.browser, pytest.mark.server, pytest.mark.torch, pytest.mark.slow]

SAEBYEOK = str(Path(sys.executable).parent / "saebyeok")


@dataclass(frozen=True)
class Stack:
    """A running stack and the output of `up`."""

    settings: Settings
    environment: dict[str, str]
    hook: Hook
    said: str = ""

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [SAEBYEOK, *arguments]
        return subprocess.run(command, env=self.environment, cwd=ROOT, capture_output=True, text=True, check=False)

    def releases(self) -> dict[str, Any]:
        return dict(httpx.get(f"{self.settings.service_url}/releases", timeout=10).json())


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    home = tmp_path_factory.mktemp("stack") / "home"
    settings = Settings(home=home, airflow_url=free_url(), service_url=free_url())
    with web_hook() as hook:
        environment = {
            **{name: value for name, value in os.environ.items() if name != "WANDB_MODE"},
            "SAEBYEOK_HOME": str(home),
            "SAEBYEOK_AIRFLOW_URL": settings.airflow_url,
            "SAEBYEOK_SERVICE_URL": settings.service_url,
            "SAEBYEOK_ALERT_WEBHOOK": hook.url,
        }
        stack = Stack(settings, environment, hook)
        result = stack.run("up")
        try:
            assert result.returncode == 0, result.stdout + result.stderr
            yield replace(stack, said=result.stdout)
        finally:
            stack.run("down")


@contextmanager
def signed_in(settings: Settings) -> Iterator[httpx.Client]:
    """Return a client that is logged in with the printed password."""
    with httpx.Client(base_url=settings.airflow_url, timeout=30) as client:
        answer = client.post("/auth/token", json={"username": USER, "password": read_password(settings)})
        client.headers["authorization"] = f"Bearer {answer.json()['access_token']}"
        yield client


def test_up_says_figures_answers_and_addresses(stack: Stack) -> None:
    for recipe, metric in (("nsmc", "accuracy"), ("klue-sts", "pearson")):
        assert re.search(rf"^{recipe} \[trained on the synthetic SAMPLE", stack.said, re.M)
        assert re.search(rf"^  {metric} +0\.\d+", stack.said, re.M)
    assert stack.said.count("\n  Promoted: ") == 2
    assert f"curl -s {stack.settings.service_url}/classify" in stack.said
    assert re.search(r'"label": ?"(negative|positive)"', stack.said)
    assert f"{stack.settings.airflow_url}  user admin  password {read_password(stack.settings)}" in stack.said


def test_up_links_to_report_and_data_docs(stack: Stack) -> None:
    links = re.findall(r"^  (report|data docs) +(http\S+)$", stack.said, re.M)
    assert len(links) == 4
    with signed_in(stack.settings) as airflow:
        for _, link in links:
            assert "<html" in airflow.get(link).raise_for_status().text.lower()
    for path in re.findall(r"^ +(/\S+\.html)$", stack.said, re.M):
        assert Path(path).is_file()


def test_first_up_compiles_the_libraries_of_the_tasks(stack: Stack) -> None:
    assert "Traceback" not in (stack.settings.home / "logs" / "compiling.log").read_text(encoding="utf-8")


def test_first_up_leaves_no_dag_paused(stack: Stack) -> None:
    with signed_in(stack.settings) as airflow:
        for dag in DAGS:
            assert airflow.get(f"/api/v2/dags/{dag}").json()["is_paused"] is False


@pytest.mark.parametrize("name", ["nsmc", "klue-sts"])
def test_the_samples_models_pass_and_not_by_luck(stack: Stack, name: str) -> None:
    store = open_store(stack.settings)
    (ref,) = store.refs("evaluate", name)
    figures = store.open(ref).manifest.figures["test"]
    for metric, floor in load_recipe(name, "embedded", sample=True).gate.floors.items():
        # Not by chance: the lower end of the interval reaches the threshold too.
        assert figures[metric]["low"] >= floor


@pytest.fixture
def api(stack: Stack) -> Iterator[AirflowApi]:
    with open_api(stack.settings) as api:
        yield api


def wait_for(api: AirflowApi, run: str) -> str:
    follower = RunFollower(
        api.task_order(DAG), Progress(sys.stderr), lambda task: "", lambda task: task.task_id, lambda task: ""
    )
    return follow(api, DAG, run, follower)


def states(api: AirflowApi, run: str) -> dict[str, str | None]:
    return {task.task_id: task.state for task in api.tasks(DAG, run)}


def events(stack: Stack, run: str) -> list[tuple[str, dict[str, Any]]]:
    """Return the assets that a run updated, with their extra fields."""
    with signed_in(stack.settings) as client:
        answer = client.get("/api/v2/assets/events", params={"source_run_id": run}).raise_for_status().json()
    return [(event["uri"], event["extra"]) for event in answer["asset_events"]]


def champions(stack: Stack) -> tuple[int, dict[str, Any]]:
    """Return the number of the live deployment, and its releases."""
    served = stack.releases()
    return served["deployment"], served["recipes"]


def test_up_again_starts_no_run_and_leaves_dags_paused(stack: Stack, api: AirflowApi) -> None:
    before, newest = champions(stack), api.newest_run(DAG, "success")
    with signed_in(stack.settings) as airflow:
        airflow.patch(f"/api/v2/dags/{DAG}", json={"is_paused": True}).raise_for_status()
    result = stack.run("up")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "reusing the running stack" in result.stdout
    assert f"No run was started, and {DAG} is left as it is." in result.stdout
    assert f"Paused:      {DAG};" in result.stdout
    assert f"curl -s {stack.settings.service_url}/classify" in result.stdout
    assert api.is_paused(DAG)
    assert api.newest_run(DAG, "success") == newest
    assert champions(stack) == before


def test_up_with_run_reuses_the_stack_and_the_stages(stack: Stack, api: AirflowApi) -> None:
    before = champions(stack)
    result = stack.run("up", "--run")
    assert not api.is_paused(DAG)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "reusing the running stack" in result.stdout
    for recipe in ("nsmc", "klue-sts"):
        assert re.search(rf" {recipe} +train +done in .+ s, reused from the store", result.stdout)
    run = api.newest_run(DAG, "success")
    assert run is not None
    assert states(api, run)["nsmc.deploy"] == "skipped"
    # DAGs that follow the champion are not triggered.
    assert events(stack, run) == []
    assert champions(stack) == before


def test_a_model_that_learnt_nothing_changes_nothing(stack: Stack, api: AirflowApi) -> None:
    before = champions(stack)
    barely = {"recipes": ["nsmc"], "base_model": "scratch", "learning_rate": "1e-9", "epochs": 1}
    run = api.trigger(DAG, barely, "hardly trained")
    assert wait_for(api, run) == "success"
    found = states(api, run)
    assert {state for task, state in found.items() if task.startswith("klue-sts.")} == {"skipped"}
    assert {found[f"nsmc.{task}"] for task in ("approve", "export", "deploy")} == {"skipped"}
    # The first run has sent one alert per recipe.
    promoted, also, alert = stack.hook.bodies
    assert (promoted["event"], also["event"]) == ("promoted", "promoted")
    assert (alert["event"], alert["recipe"], alert["run"]) == ("refused", "nsmc", run)
    assert (stack.settings.home / "store" / urlsplit(alert["report"]).path.removeprefix("/saebyeok/")).is_file()
    assert champions(stack) == before
    with signed_in(stack.settings) as client:
        note = client.get(f"/api/v2/dags/{DAG}/dagRuns/{quote(run)}").raise_for_status().json()["note"]
    assert note.startswith("nsmc refused: ")
    assert "\nklue-sts skipped: not among the chosen recipes: nsmc\n" in note
    assert note.endswith("\n\nhardly trained")


def wait_for_question(stack: Stack, api: AirflowApi, run: str) -> dict[str, Any]:
    """Wait for the approval request of a run and return it."""
    # Airflow 3.3 loses a response that arrives while its executor is releasing the task; no person is that quick.
    scheduler = stack.settings.home / "logs" / "airflow-scheduler.log"
    let_go = f"TaskInstance Finished: dag_id={DAG}, task_id=nsmc.approve, run_id={run}"
    with signed_in(stack.settings) as client:
        while True:
            answer = client.get(f"/api/v2/dags/{DAG}/dagRuns/{quote(run)}/hitlDetails").raise_for_status()
            asked = list(answer.json()["hitl_details"])
            if asked and let_go in scheduler.read_text(encoding="utf-8", errors="replace"):
                return dict(asked[0])
            assert api.run_state(DAG, run) in UNFINISHED, "the run ended and asked nobody"
            time.sleep(2)


def answer(stack: Stack, run: str, option: str) -> None:
    """Respond to the approval request of a run."""
    path = f"/api/v2/dags/{DAG}/dagRuns/{quote(run)}/taskInstances/nsmc.approve/-1/hitlDetails"
    with signed_in(stack.settings) as client:
        client.patch(path, json={"chosen_options": [option], "params_input": {"why": "a test"}}).raise_for_status()


ANOTHER = {"recipes": ["nsmc"], "epochs": 1, "batch_size": 24, "seed": 12}


def test_a_person_may_reject_what_passed_the_gate(stack: Stack, api: AirflowApi) -> None:
    before = champions(stack)
    run = api.trigger(DAG, ANOTHER | {"approval": True}, "to be rejected")
    question = wait_for_question(stack, api, run)
    assert question["subject"] == "nsmc: serve the new model?"
    assert "accuracy on new texts of the sample's test file" in question["body"]
    assert question["defaults"] == ["Reject"]
    answer(stack, run, "Reject")
    assert wait_for(api, run) == "success"
    assert states(api, run)["nsmc.export"] == "skipped"
    assert champions(stack) == before
    told = stack.hook.bodies[-1]
    assert (told["event"], told["run"]) == ("rejected", run)
    assert f"{USER} rejected it in run {run} (a test)." in told["text"]
    waiting = stack.hook.bodies[-2]
    assert (waiting["event"], waiting["run"]) == ("waiting", run)
    assert waiting["link"].endswith("/tasks/nsmc.approve/required_actions")


def approve_over_rest(stack: Stack, api: AirflowApi) -> str:
    """Trigger a run as `ANOTHER`, answer its question, and return its id."""
    run = api.trigger(DAG, ANOTHER | {"approval": True}, "to be approved")
    wait_for_question(stack, api, run)
    answer(stack, run, "Approve")
    return run


def approve_in_browser(stack: Stack, api: AirflowApi) -> str:
    """Do the same with the form and the page of Airflow's UI."""
    url = stack.settings.airflow_url
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(locale="en-US")
        page.goto(url)
        page.fill("input[name=username]", USER)
        page.fill("input[name=password]", read_password(stack.settings))
        page.click("button[type=submit]")
        page.wait_for_url(lambda address: "login" not in address)
        page.goto(f"{url}/dags/{DAG}")
        page.get_by_label("Trigger Dag").first.click()
        form = page.get_by_role("dialog")
        form.get_by_label("Remove Similarity of Korean sentences (KLUE-STS)").click()
        for name in ("Epochs", "Batch size", "Seed"):
            form.get_by_role("spinbutton", name=name).fill(str(ANOTHER[name.lower().replace(" ", "_")]))
        form.get_by_text("Ask for approval").click()
        known = api.newest_run(DAG, "success")
        form.get_by_role("button", name="Trigger", exact=True).click()
        form.wait_for(state="hidden")
        run = api.active_run(DAG)
        assert run is not None
        assert run != known
        # The page polls Airflow and updates itself.
        page.goto("about:blank")
        wait_for_question(stack, api, run)
        page.goto(f"{url}/dags/{DAG}/runs/{run}/tasks/nsmc.approve/required_actions")
        answered = page.expect_response(lambda it: "hitlDetails" in it.url and it.request.method == "PATCH")
        with answered as sent:
            page.get_by_role("button", name="Approve").click()
        # The same request as over REST.
        assert sent.value.request.post_data_json["chosen_options"] == ["Approve"]
        browser.close()
    return run


def test_approved_run_changes_what_is_served(stack: Stack, api: AirflowApi) -> None:
    number, before = champions(stack)
    # The model of the rejected run, which is asked about again.
    run = (approve_in_browser if shutil.which("chromium") else approve_over_rest)(stack, api)
    assert wait_for(api, run) == "success"
    with signed_in(stack.settings) as client:
        typed = client.get(f"/api/v2/dags/{DAG}/dagRuns/{quote(run)}").raise_for_status().json()["conf"]
    assert typed == typed | ANOTHER | {"approval": True}
    deployment = DeploymentLog(open_store(stack.settings)).get(number + 1)
    assert deployment.run == run
    release = deployment.releases["nsmc"]
    assert events(stack, run) == [("saebyeok://champion/nsmc", {"deployment": number + 1, "release": release})]
    served, after = champions(stack)
    assert served == number + 1
    assert after["nsmc"]["release"] != before["nsmc"]["release"]
    assert after["klue-sts"] == before["klue-sts"]
    trained = open_store(stack.settings).open(release).input("trained")
    assert (trained.manifest.fields["train"]["batch_size"], trained.manifest.fields["train"]["seed"]) == (24, 12)


def test_down_leaves_nothing_running(stack: Stack) -> None:
    record = read_record(record_path(stack.settings))
    assert record is not None
    assert marked_processes(record.mark)
    result = stack.run("down")
    assert result.returncode == 0, result.stdout + result.stderr
    assert marked_processes(record.mark) == []
    ours = [process for process in psutil.process_iter(["cmdline"]) if str(stack.settings.home) in str(process.info)]
    assert ours == []
    assert stack.run("down").stdout.startswith("nothing to stop")
