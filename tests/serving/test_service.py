"""The real service: BentoML with two workers, over HTTP."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from pipeline.config_file import ROOT
from pipeline.deployment.service_client import ServiceClient, service_answers
from pipeline.errors import RefusedError, ServiceError, SettingsError
from pipeline.job import open_store
from pipeline.recipes.kinds.task_kind import Method
from pipeline.store.artifacts import Artifact, Store
from pipeline.store.deployments import DeploymentLog
from pipeline.store.releases import read_card
from serving.api.auth import deploy_token
from serving.api.counter_files import counter_directory
from serving.api.openapi import COMMITTED
from serving.api.supervision import SUPERVISOR
from serving.client import AsyncClient, CallError, Client
from serving.client.responses import ScoreResponse
from serving.engine.engine import Engine
from serving.engine.golden import check_golden
from serving.schemas import ReadyResponse
from tests.support.running_service import Service, eventually, model_files, service_settings
from tests.support.snippets import GUIDES, Snippet, snippets
from tests.support.tiny_releases import SENTENCES, TinyModel, expected

pytestmark = pytest.mark.server

# int8 activations are scaled per sub-batch, so the other rows change an answer slightly.
COMPANY = 0.05
PAIRS = list(zip(SENTENCES[0::2], SENTENCES[1::2], strict=True))


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One service for the module, with two live recipes and a staged release."""
    service = Service(service_settings(tmp_path_factory.mktemp("service")))
    try:
        service.wait_live()
        yield service
    finally:
        assert service.stop() == 0


@pytest.fixture(scope="module")
def store(running: Service) -> Store:
    return open_store(running.settings)


@pytest.fixture(scope="module")
def unready(running: Service) -> tuple[int, int, int, str]:
    """Return the statuses of /livez, /readyz and /classify before the first deployment, and the error type."""
    url = running.settings.service_url
    answer = httpx.post(f"{url}/classify", json={"texts": ["가"]})
    paths = [httpx.get(f"{url}{path}").status_code for path in ("/livez", "/readyz")]
    return paths[0], paths[1], answer.status_code, answer.json()["error"]["type"]


@pytest.fixture(scope="module")
def live(
    running: Service,
    store: Store,
    unready: object,
    classifier: TinyModel,
    sentence_encoder: TinyModel,
) -> dict[str, Artifact]:
    releases = {
        "nsmc": classifier.publish(store, "nsmc", key="a" * 16),
        "klue-sts": sentence_encoder.publish(store, "klue-sts", key="b" * 16, sample=False),
    }
    refs = {recipe: release.ref for recipe, release in releases.items()}
    DeploymentLog(store).append(refs, after=0, run="test", reason="the first")
    eventually("both workers serve it", lambda: [w.deployment for w in running.client.releases().workers] == [1, 1])
    return releases


@pytest.fixture(scope="module")
def staged(running: Service, store: Store, live: object, other_classifier: TinyModel) -> Artifact:
    release = other_classifier.publish(store, "nsmc", key="c" * 16)
    assert running.client.stage(release.ref) == [release.ref]
    eventually(
        "both workers stage it", lambda: [w.staged for w in running.client.releases().workers] == [[release.ref]] * 2
    )
    return release


def ask(running: Service, path: str, body: object, **headers: str) -> httpx.Response:
    return httpx.post(f"{running.settings.service_url}{path}", json=body, headers=headers)


def test_service_is_live_but_not_ready_before_deployment(unready: tuple[int, int, int, str]) -> None:
    assert unready == (200, 503, 503, "unavailable")


def test_workers_know_their_supervisor(running: Service) -> None:
    workers = [psutil.Process(pid) for pid in running.pids()]
    assert [worker.environ()[SUPERVISOR] for worker in workers] == [str(worker.ppid()) for worker in workers]
    assert workers


def test_classify_answers_as_the_engine_does(running: Service, live: dict[str, Artifact]) -> None:
    assert running.client.is_ready()
    ready = ReadyResponse.model_validate_json(httpx.get(f"{running.settings.service_url}/readyz").content)
    served = running.client.releases()
    providers = {recipe: release.provider for recipe, release in served.recipes.items()}
    assert (ready.deployment, ready.providers) == (served.deployment, providers)
    body = ask(running, "/classify", {"texts": list(SENTENCES)}).json()
    assert (body["recipe"], body["release"], body["sample"]) == ("nsmc", "nsmc-" + "a" * 16, True)
    wanted = Engine(live["nsmc"].path).classify(SENTENCES)
    for result, row in zip(body["results"], wanted.tolist(), strict=True):
        assert result["probabilities"] == pytest.approx({"negative": row[0], "positive": row[1]}, abs=1e-6)
        assert result["score"] == max(result["probabilities"].values())
        assert result["probabilities"][result["label"]] == result["score"]
        assert result["truncated"] is False


def test_similarity_answers_as_the_engine_does(running: Service, live: dict[str, Artifact]) -> None:
    body = ask(running, "/similarity", {"pairs": PAIRS, "recipe": "klue-sts"}).json()
    assert (body["recipe"], body["release"], body["sample"]) == ("klue-sts", "klue-sts-" + "b" * 16, False)
    scores = Engine(live["klue-sts"].path).score(PAIRS).tolist()
    assert [result["score"] for result in body["results"]] == pytest.approx(scores, abs=1e-5)
    assert [result["similar"] for result in body["results"]] == [score >= 3 for score in scores]


def test_applications_have_a_client(running: Service, live: object) -> None:
    url = running.settings.service_url

    async def ask() -> tuple[object, ...]:
        async with AsyncClient(url) as client:
            answers = await client.classify(["좋다"]), await client.similarity(PAIRS), await client.embed(["좋다"])
            return *answers, (await client.releases()).recipes

    with Client(url) as client:
        answers = client.classify(["좋다"]), client.similarity(PAIRS), client.embed(["좋다"])
        asked = *answers, client.releases().recipes
        with pytest.raises(CallError) as caught:
            client.classify(["가"], recipe="unknown")
    assert asyncio.run(ask()) == asked
    assert (caught.value.status, caught.value.type) == (404, "not_found")


@pytest.mark.parametrize("method", ["cosine", "euclidean"])
def test_pairs_are_compared_as_the_request_says(running: Service, live: dict[str, Artifact], method: Method) -> None:
    body = ask(running, "/similarity", {"pairs": PAIRS, "method": method}).json()
    assert body["method"] == method
    scores = Engine(live["klue-sts"].path).answer(PAIRS, method=method).values[:, 0].tolist()
    assert [result["score"] for result in body["results"]] == pytest.approx(scores, abs=1e-5)


def test_without_a_method_it_is_the_releases_own(running: Service, live: object) -> None:
    named = ask(running, "/similarity", {"pairs": PAIRS, "method": "cosine"}).json()
    assert ask(running, "/similarity", {"pairs": PAIRS}).json() == named
    other = ask(running, "/similarity", {"pairs": PAIRS, "method": "euclidean"}).json()
    assert other["results"] != named["results"]


def test_embed_answers_as_the_engine_does(running: Service, live: dict[str, Artifact]) -> None:
    body = ask(running, "/embed", {"texts": list(SENTENCES)}).json()
    assert (body["recipe"], body["release"], body["dimensions"]) == ("klue-sts", "klue-sts-" + "b" * 16, 32)
    wanted = Engine(live["klue-sts"].path).embed(SENTENCES)
    np.testing.assert_allclose([result["vector"] for result in body["results"]], wanted, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(wanted, axis=1), 1, atol=1e-3)


def test_answer_counts_read_tokens(running: Service, live: object) -> None:
    known = SENTENCES[0]
    texts = [
        known,
        unicodedata.normalize("NFD", known),
        "\U0001f600\U0001f600",
        "☃",
        f"{known} \U0001f600",
        "",
        "영화 " * 400,
    ]
    results = ask(running, "/classify", {"texts": texts}).json()["results"]
    shares = [result["unknown_share"] for result in results]
    # Decomposed Hangul equals composed Hangul; an emoji unknown to training is one unknown token.
    assert shares[:4] == [0, 0, 1, 1]
    assert results[1]["probabilities"] == pytest.approx(results[0]["probabilities"], abs=COMPANY)
    assert 0 < shares[4] < 0.5
    assert shares[5] == 0, "an empty text has nothing unknown"
    assert [result["truncated"] for result in results] == [False] * 6 + [True]
    (pair,) = ask(running, "/similarity", {"pairs": [[known, "\U0001f600"]]}).json()["results"]
    assert 0 < pair["unknown_share"] < 1
    (vector,) = ask(running, "/embed", {"texts": ["☃"]}).json()["results"]
    assert (vector["unknown_share"], vector["truncated"]) == (1, False)


def test_empty_request_and_truncated_text_are_answered(running: Service, live: object) -> None:
    assert running.client.classify([]).results == []
    assert [item.truncated for item in running.client.classify(["영화", "영화 " * 400]).results] == [False, True]


ANSWERED = [found for found in snippets(*GUIDES) if "run by tests/serving/test_service.py" in found.note]


@pytest.mark.parametrize("snippet", ANSWERED, ids=str)
def test_snippet_of_the_guides_is_answered(running: Service, live: object, snippet: Snippet) -> None:
    code = snippet.code.replace("http://127.0.0.1:3000", running.settings.service_url)
    if snippet.language == "sh":
        code = code.replace("curl ", "curl --silent --show-error --fail ")
        subprocess.run(["bash", "-e", "-c", code], check=True)
    else:
        exec(compile(code, str(snippet), "exec"), {})


def test_curl_without_a_content_type_is_understood(running: Service, live: object) -> None:
    url = f"{running.settings.service_url}/classify"
    headers = {"content-type": "application/x-www-form-urlencoded"}
    assert httpx.post(url, content='{"texts": ["좋다"]}'.encode(), headers=headers).status_code == 200


@pytest.mark.parametrize(
    ("path", "body", "status", "kind", "index"),
    [
        ("/classify", {"texts": ["가"], "recipe": "unknown"}, 404, "not_found", None),
        ("/classify", {"texts": ["가"], "recipe": "klue-sts"}, 422, "invalid_request", None),
        ("/classify", {"texts": ["가", 1]}, 422, "invalid_request", 1),
        ("/classify", {"texts": ["가", "나", "다" * 10_001]}, 422, "invalid_request", 2),
        ("/classify", {"texts": ["가"] * 1_001}, 422, "invalid_request", None),
        ("/classify", {"text": ["가"]}, 422, "invalid_request", None),
        ("/classify", {"recipe": "nsmc"}, 422, "invalid_request", None),
        ("/classify", {"texts": ["가"], "pairs": []}, 422, "invalid_request", None),
        ("/classify", {"pairs": [["가", "나"]]}, 404, "not_found", None),
        ("/classify", {"pairs": [["가", "나"]], "recipe": "nsmc"}, 422, "invalid_request", None),
        ("/classify", {"pairs": [["가", "나"], ["가"]]}, 422, "invalid_request", 1),
        ("/classify", {"texts": "가"}, 422, "invalid_request", None),
        ("/classify", ["가"], 422, "invalid_request", None),
        ("/similarity", {"pairs": [["가", "나"], ["가"]]}, 422, "invalid_request", 1),
        ("/similarity", {"pairs": [["가", "나", "다"]]}, 422, "invalid_request", 0),
        ("/similarity", {"pairs": [["가", "나"], ["가", "나" * 10_001]]}, 422, "invalid_request", 1),
        ("/similarity", {"pairs": [["가", "나"]], "method": "cross-encoder"}, 404, "not_found", None),
        ("/similarity", {"pairs": [], "recipe": "klue-sts", "method": "cross-encoder"}, 422, "invalid_request", None),
        ("/similarity", {"pairs": [], "method": "manhattan"}, 422, "invalid_request", None),
        ("/score", {"texts": ["가"]}, 404, "not_found", None),
        ("/score", {"texts": ["가"], "recipe": "nsmc"}, 422, "invalid_request", None),
        ("/score", {"texts": ["가", 1]}, 422, "invalid_request", 1),
        ("/score", {"pairs": [["가", "나"]]}, 422, "invalid_request", None),
        ("/embed", {"texts": ["가"], "recipe": "nsmc"}, 422, "invalid_request", None),
        ("/embed", {"texts": ["가"], "normalize": True}, 422, "invalid_request", None),
        ("/nowhere", {}, 404, "not_found", None),
        ("/releases", {}, 405, "method_not_allowed", None),
        ("/releases/stage", {"release": "release/nsmc/x/y"}, 401, "unauthorized", None),
    ],
)
def test_every_error_has_one_shape(
    running: Service, live: object, path: str, body: object, status: int, kind: str, index: int | None
) -> None:
    answer = ask(running, path, body)
    assert answer.status_code == status
    assert set(answer.json()) == {"error"}
    error = answer.json()["error"]
    assert (error["type"], error["index"]) == (kind, index)
    assert error["message"]
    assert "Traceback" not in error["message"]


def test_releases_route_lists_releases_and_workers(running: Service, live: dict[str, Artifact]) -> None:
    body = running.client.releases()
    # Other tests deploy releases and roll back.
    latest = DeploymentLog(open_store(running.settings)).latest()
    assert latest is not None
    assert (body.deployment, body.run, body.reason) == (latest.number, latest.run, latest.reason)
    assert body.created == latest.created
    assert {recipe: item.ref for recipe, item in body.recipes.items()} == {r: a.ref for r, a in live.items()}
    assert body.recipes["nsmc"].sample is True
    assert body.recipes["nsmc"].figures == {"accuracy": 0.5}
    assert body.recipes["nsmc"].provider in ("CPUExecutionProvider", "CUDAExecutionProvider")
    assert body.worker in {worker.pid for worker in body.workers}
    assert len(body.workers) == 2


def test_service_of_another_store_is_recognised(
    running: Service, store: Store, live: object, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert running.client.serves(store)
    assert caplog.text == ""
    assert not running.client.serves(Store(str(tmp_path / "store"), tmp_path / "cache"))
    assert f"the service at {running.client.url} serves another store than {tmp_path / 'store'}" in caplog.text
    answer = httpx.get(f"{running.settings.service_url}/releases").text
    assert store.digest in answer
    assert str(running.settings.home) not in answer
    with ServiceClient(service_settings(tmp_path).service_url) as nobody:
        assert not nobody.serves(store)


def test_staged_release_requires_the_token(running: Service, staged: Artifact) -> None:
    name = "nsmc-" + "c" * 16
    answer = running.client.classify(SENTENCES, release=name)
    assert answer.release == name
    wanted = Engine(staged.path).classify(SENTENCES)[:, 1].tolist()
    assert [item.probabilities["positive"] for item in answer.results] == pytest.approx(wanted, abs=1e-6)
    assert running.client.classify(["가"], release=staged.ref).release == name
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": deploy_token(running.settings)}):
        refused = ask(running, "/classify", {"texts": ["가"]}, **{"X-Saebyeok-Release": name}, **headers)
        assert (refused.status_code, refused.json()["error"]["type"]) == (401, "unauthorized")
    for _ in range(20):
        assert running.client.classify(["가"]).release == "nsmc-" + "a" * 16


def test_unloaded_release_address_is_not_found(running: Service, staged: Artifact) -> None:
    with pytest.raises(ServiceError, match="neither staged nor live"):
        running.client.classify(["가"], release="nsmc-" + "f" * 16)
    with pytest.raises(RefusedError, match="classification release, not regression"):
        running.client.similarity([("가", "나")], release=staged.ref)


def test_a_wrong_token_cannot_stage(running: Service, staged: Artifact) -> None:
    with (
        ServiceClient(running.settings.service_url, "wrong") as stranger,
        pytest.raises(SettingsError, match="another deploy token"),
    ):
        stranger.unstage(staged.ref)
    with pytest.raises(RefusedError, match="not the ref of a release"):
        running.client.stage("../../etc/passwd")
    assert running.client.releases().staged == [staged.ref]


def test_several_recipes_of_a_kind_must_be_named(
    running: Service, store: Store, staged: object, classifier: TinyModel
) -> None:
    second = classifier.publish(store, "reviews", key="d" * 16)
    with running.deployed(second):
        answer = ask(running, "/classify", {"texts": ["가"]})
        assert answer.status_code == 422
        assert "nsmc, reviews" in answer.json()["error"]["message"]
        assert running.client.classify(["가"], recipe="reviews").recipe == "reviews"


def test_pairs_are_classified_by_a_pair_classifier(
    running: Service, store: Store, staged: object, pair_classifier: TinyModel
) -> None:
    same = pair_classifier.publish(store, "same", key="e" * 16)
    with running.deployed(same):
        card = read_card(same)
        check_golden(card, service_answers(running.client, card))
        recipe = running.client.releases().recipes["same"]
        assert (recipe.inputs, recipe.methods) == ("pair", [])
        answer = running.client.classify(pairs=PAIRS)
        assert answer.recipe == "same"
        for pair, result in zip(PAIRS, answer.results, strict=True):
            assert list(result.probabilities.values()) == pytest.approx(expected(pair_classifier, pair), abs=COMPANY)
        # If there is one recipe for texts and one for pairs, the request's input decides.
        assert running.client.classify(["가"]).recipe == "nsmc"
        refused = ask(running, "/classify", {"texts": ["가"], "recipe": "same"})
        assert refused.status_code == 422
        assert "reads pairs of texts, not single texts" in refused.json()["error"]["message"]
        assert ask(running, "/similarity", {"pairs": [["가", "나"]], "recipe": "same"}).status_code == 422


async def score_with_asyncio(url: str) -> ScoreResponse:
    async with AsyncClient(url) as client:
        return await client.score(SENTENCES[:1])


def test_texts_are_scored_by_a_text_regression(
    running: Service, store: Store, staged: object, text_scorer: TinyModel
) -> None:
    stars = text_scorer.publish(store, "stars", key="f" * 16)
    with running.deployed(stars):
        card = read_card(stars)
        check_golden(card, service_answers(running.client, card))
        recipe = running.client.releases().recipes["stars"]
        assert (recipe.inputs, recipe.route, recipe.methods) == ("text", "/score", [])
        answer = running.client.score(SENTENCES)
        assert (answer.recipe, answer.release) == ("stars", card.id)
        for text, result in zip(SENTENCES, answer.results, strict=True):
            assert [result.score] == pytest.approx(expected(text_scorer, (text,)), abs=COMPANY)
        asked = [result.score for result in answer.results]
        assert np.corrcoef(asked, [expected(text_scorer, (text,))[0] for text in SENTENCES])[0, 1] > 0.99
        with_asyncio = asyncio.run(score_with_asyncio(running.settings.service_url))
        assert with_asyncio == running.client.score(SENTENCES[:1])
        # Neither kind of request is answered by the other's release.
        assert running.client.similarity(PAIRS).recipe == "klue-sts"
        for recipe_name, path in (("stars", "/classify"), ("nsmc", "/score"), ("klue-sts", "/score")):
            refused = ask(running, path, {"texts": ["가"], "recipe": recipe_name})
            assert (refused.status_code, refused.json()["error"]["type"]) == (422, "invalid_request")
        refused = ask(running, "/similarity", {"pairs": [["가", "나"]], "recipe": "stars"})
        assert "reads single texts, not pairs of texts" in refused.json()["error"]["message"]
    assert ask(running, "/score", {"texts": ["가"]}).status_code == 404


def test_openapi_document_is_committed_except_for_limits(running: Service) -> None:
    document = httpx.get(f"{running.settings.service_url}/docs.json").json()
    assert document == json.loads(COMMITTED.read_text(encoding="utf-8"))


def test_the_docs_page_loads_nothing_from_elsewhere(running: Service) -> None:
    url = running.settings.service_url
    assert 'href="./docs"' in httpx.get(url).text
    page = httpx.get(f"{url}/docs").text
    names = re.findall(r'(?:src|href)="([^"]+)"', page)
    own = [name for name in names if not name.startswith("data:")]
    assert len(own) == 2
    assert all(name.startswith("./") and httpx.get(f"{url}/{name[2:]}").is_success for name in own)
    assert "://" not in page


Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def metrics(running: Service) -> Samples:
    """Return the value of every sample by name and labels."""
    families = text_string_to_metric_families(httpx.get(f"{running.settings.service_url}/metrics").text)
    return {(item.name, frozenset(item.labels.items())): item.value for family in families for item in family.samples}


def total(samples: Samples, name: str, **labels: str) -> float:
    return sum(value for (found, has), value in samples.items() if found == name and has >= labels.items())


def test_any_worker_returns_metrics_of_all(running: Service, live: object) -> None:
    before = metrics(running)
    for _ in range(12):
        running.client.classify(["가", "영화"])
    ask(running, "/classify", {"text": "가"})
    after = metrics(running)

    def grown(name: str, **labels: str) -> float:
        return total(after, name, **labels) - total(before, name, **labels)

    requests = "bentoml_service_request_total"
    assert grown(requests, endpoint="/classify", http_response_code="200") == 12
    assert grown(requests, endpoint="/classify", http_response_code="422") == 1
    assert grown("saebyeok_queue_seconds_count") == 12
    assert grown("saebyeok_tokenizing_seconds_count", recipe="nsmc") == 12
    assert grown("saebyeok_batch_rows_sum", recipe="nsmc") == 24
    assert grown("saebyeok_batch_rows_sum", recipe="klue-sts") == 0
    assert grown("saebyeok_real_tokens_total", recipe="nsmc") > 24
    assert total(after, "saebyeok_release_info", recipe="nsmc", release="nsmc-" + "a" * 16, sample="true") == 1
    assert total(after, "saebyeok_workers") == 2
    assert total(after, "saebyeok_deployment") >= 1


def test_invented_paths_are_not_counted(running: Service, live: object) -> None:
    for path in ("/made-up", "/classify/made-up", "/page/made-up.js"):
        assert ask(running, path, {}).status_code in (404, 405)
    asked = {dict(labels).get("endpoint") for _, labels in metrics(running)}
    assert "/classify" in asked
    assert not [path for path in asked if path and "made-up" in path]


def test_dashboard_queries_existing_metrics(running: Service, live: object) -> None:
    running.client.classify(["가"])
    names = {name for name, _ in metrics(running)}
    dashboard = json.loads((ROOT / "docker" / "monitoring" / "dashboards" / "saebyeok.json").read_text())
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    asked = set(re.findall(r"(?:saebyeok|bentoml)_\w+", " ".join(queries)))
    assert len(asked) > 12
    assert asked <= names
    own = {name.removesuffix("_bucket").removesuffix("_count").removesuffix("_sum") for name in names}
    shown = {name.removesuffix("_bucket").removesuffix("_count").removesuffix("_sum") for name in asked}
    assert {name for name in own - shown if name.startswith("saebyeok") and not name.endswith("_created")} == set()


def test_all_that_is_written_lies_below_home(running: Service, live: dict[str, Artifact]) -> None:
    names = {path.name for path in model_files(running.settings.home)}
    assert {"card.json", "tokenizer.json", "model.int8.onnx", "manifest.json"} <= names


@pytest.mark.slow
def test_workers_do_not_outlive_a_killed_supervisor(service: Service) -> None:
    pids = service.pids()
    assert len(pids) == 2
    service.process.kill()
    service.process.wait()
    eventually("the workers are gone", lambda: not any(psutil.pid_exists(pid) for pid in pids))
    eventually("their files too", lambda: not list((service.settings.home / "service" / "workers").glob("*.json")))
    # The next start would empty this directory, which may be outside the home.
    shutil.rmtree(counter_directory(service.settings.home))
