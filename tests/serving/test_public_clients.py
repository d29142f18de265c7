"""Clients that people have: OpenAI's, the Hugging Face hub's, and plain HTTP in the form of TEI."""

from __future__ import annotations

import base64
import gzip
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import httpx
import numpy as np
import openai
import pytest
from huggingface_hub import InferenceClient
from huggingface_hub.errors import HfHubHTTPError

from pipeline.config_file import ROOT
from serving.api.openapi import COMMITTED
from serving.client import Client
from tests.support.running_service import serving
from tests.support.tiny_releases import SENTENCES, TinyModel

pytestmark = pytest.mark.server

KEY = "a-key-of-the-tests"
TEXTS = SENTENCES[:4]
GENERATOR = "openapi-python-client==0.29.1"
#: A program in TypeScript, with the versions of the generator, of the library that calls, and of the compiler.
TYPESCRIPT = ROOT / "tests" / "typescript"


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory, classifier: TinyModel, sentence_encoder: TinyModel) -> Iterator[str]:
    """The URL of a service with a classifier and a bi-encoder, which requires a key."""
    settings = {"SAEBYEOK_API_KEYS": KEY, "SAEBYEOK_WORKERS": "1"}
    with serving(tmp_path_factory.mktemp("clients"), settings, classifier, sentence_encoder) as service:
        yield service.settings.service_url


@pytest.fixture(scope="module")
def vectors(url: str) -> np.ndarray:
    """The vectors of TEXTS by the project's own route."""
    with Client(url, KEY) as client:
        return np.array([result.vector for result in client.embed(TEXTS).results], np.float32)


@pytest.fixture
def ask(url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {KEY}"}) as client:
        yield client


@pytest.fixture
def asker(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0) as client:
        yield client


@pytest.mark.parametrize("form", ["float", "base64", None])
def test_openai_client_gets_the_vectors(asker: openai.OpenAI, vectors: np.ndarray, form: str | None) -> None:
    # Without a format the client asks for base64 and decodes it.
    options = {"encoding_format": form} if form else {}
    answer = asker.embeddings.create(model="klue-sts", input=TEXTS, **options)
    found = [item.embedding for item in answer.data]
    if form == "base64":
        found = [np.frombuffer(base64.b64decode(item), "<f4") for item in found]
    np.testing.assert_array_equal(np.array(found, np.float32), vectors)
    assert [item.index for item in answer.data] == [0, 1, 2, 3]
    assert answer.model == "klue-sts"
    assert answer.usage.prompt_tokens == answer.usage.total_tokens > len(TEXTS)


def test_openai_client_embeds_one_text(asker: openai.OpenAI, vectors: np.ndarray) -> None:
    (only,) = asker.embeddings.create(model="klue-sts", input=TEXTS[0], dimensions=vectors.shape[1]).data
    np.testing.assert_allclose(only.embedding, vectors[0], atol=0.05)


def test_openai_client_lists_the_models(asker: openai.OpenAI) -> None:
    assert {model.id for model in asker.models.list()} == {"nsmc", "klue-sts"}
    assert asker.models.retrieve("nsmc").owned_by == "saebyeok"
    with pytest.raises(openai.NotFoundError, match="no recipe 'gpt'"):
        asker.models.retrieve("gpt")


def test_openai_client_is_told_what_is_wrong(asker: openai.OpenAI, url: str) -> None:
    with pytest.raises(openai.NotFoundError, match="no recipe 'text-embedding-3-small' is deployed"):
        asker.embeddings.create(model="text-embedding-3-small", input=TEXTS)
    with pytest.raises(openai.UnprocessableEntityError, match="without sentence vectors"):
        asker.embeddings.create(model="nsmc", input=TEXTS)
    with pytest.raises(openai.NotFoundError, match="cannot be shortened"):
        asker.embeddings.create(model="klue-sts", input=TEXTS, dimensions=3)
    with pytest.raises(openai.UnprocessableEntityError, match="valid string"):
        asker.embeddings.create(model="klue-sts", input=[[1, 2, 3]])
    with openai.OpenAI(base_url=f"{url}/v1", api_key="another", max_retries=0) as stranger:
        with pytest.raises(openai.AuthenticationError):
            stranger.embeddings.create(model="klue-sts", input=TEXTS)
        with pytest.raises(openai.AuthenticationError):
            stranger.models.list()


def test_hub_client_gets_the_vectors(url: str, vectors: np.ndarray) -> None:
    client = InferenceClient(token=KEY)
    found = client.feature_extraction(TEXTS, model=f"{url}/embed", normalize=True)
    np.testing.assert_array_equal(found, vectors)
    (one,) = client.feature_extraction(TEXTS[0], model=f"{url}/embed")
    np.testing.assert_allclose(one, vectors[0], atol=0.05)
    with pytest.raises(HfHubHTTPError, match="422"):
        client.feature_extraction(TEXTS, model=f"{url}/embed", normalize=False)


def test_hub_client_classifies(url: str, ask: httpx.Client) -> None:
    client = InferenceClient(token=KEY)
    own = ask.post("/classify", json={"texts": TEXTS[:1]}).json()["results"][0]
    found = client.text_classification(TEXTS[0], model=f"{url}/predict")
    assert {item.label: item.score for item in found} == own["probabilities"]
    assert found[0].label == own["label"]
    (best,) = client.text_classification(TEXTS[0], model=f"{url}/predict", top_k=1)
    assert best.label == own["label"]


def test_hub_client_sees_health_and_models(url: str) -> None:
    client = InferenceClient(model=url, token=KEY, provider="hf-inference")
    assert client.health_check()
    about = client.get_endpoint_info()
    assert set(about["model_id"].split(",")) == {"nsmc", "klue-sts"}
    assert about["model_type"].keys() == {"classifier", "embedding"}
    assert about["model_type"]["classifier"]["id2label"] == {"0": "negative", "1": "positive"}


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a client that openapi-python-client generated; skips if the generator cannot be installed.

    It needs other versions of the project's packages, so it has an environment of its own.
    """
    directory = tmp_path_factory.mktemp("generator")
    settings = directory / "settings.yaml"
    settings.write_text("post_hooks: []\n")
    command = [sys.executable, "-m", "uv", "tool", "run", "--cache-dir", str(directory / "cache"), "--from", GENERATOR]
    found = subprocess.run([*command, "openapi-python-client", "--version"], capture_output=True, text=True)
    if found.returncode:
        pytest.skip(f"{GENERATOR} cannot be installed: {found.stderr.strip().splitlines()[-1]}")
    command += ["openapi-python-client", "generate", "--path", str(COMMITTED), "--meta", "none", "--fail-on-warning"]
    subprocess.run([*command, "--config", str(settings), "--output-path", str(directory / "generated")], check=True)
    return directory


@pytest.mark.slow
def test_generated_client_asks_and_reads_answers(url: str, generated: Path, ask: httpx.Client) -> None:
    code = f"""
from generated.api.models import classify
from generated.api.tei import predict
from generated.client import AuthenticatedClient
from generated.models import ClassifyRequest, PredictRequest

client = AuthenticatedClient("{url}", token="{KEY}")
found = classify.sync(client=client, body=ClassifyRequest(texts=["{TEXTS[0]}"]))
print(found.results[0].label, found.release)
print(predict.sync(client=client, body=PredictRequest(inputs="{TEXTS[0]}"))[0].label)
refused = classify.sync(client=client, body=ClassifyRequest(texts=["{TEXTS[0]}"], recipe="none"))
print(refused.error.type_)
"""
    command = [sys.executable, "-c", code]
    said = subprocess.run(command, cwd=generated, stdout=subprocess.PIPE, text=True, check=True).stdout
    own = ask.post("/classify", json={"texts": TEXTS[:1]}).json()
    label = own["results"][0]["label"]
    assert said.split() == [label, own["release"], label, "not_found"]


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program that calls the service from TypeScript, compiled; skips if its packages cannot be installed."""
    directory = tmp_path_factory.mktemp("typescript")
    shutil.copytree(TYPESCRIPT, directory, dirs_exist_ok=True)
    (directory / "node_modules").symlink_to(node_modules())
    commands = directory / "node_modules" / ".bin"
    subprocess.run([commands / "openapi-typescript", COMMITTED, "--output", "schema.d.ts"], cwd=directory, check=True)
    checked = subprocess.run([commands / "tsc", "--project", "."], cwd=directory, stdout=subprocess.PIPE, text=True)
    assert checked.returncode == 0, checked.stdout
    return directory / "call.js"


def node_modules() -> Path:
    """Return the packages of `TYPESCRIPT`, installed at the first test run; skip if npm cannot install them."""
    if not (shutil.which("node") and shutil.which("npm")):
        pytest.skip("Node or npm is not installed, so no client in TypeScript is made")
    digest = sha256((TYPESCRIPT / "package-lock.json").read_bytes()).hexdigest()[:16]
    installed = ROOT / ".pytest_cache" / "typescript" / digest
    if not installed.exists():
        unfinished = installed.with_name(f".{digest}")
        shutil.copytree(TYPESCRIPT, unfinished, dirs_exist_ok=True)
        # One retry: a machine without a network has to skip soon.
        command = ["npm", "ci", "--ignore-scripts", "--fetch-retries=1", "--cache", installed.parent / "cache"]
        found = subprocess.run(command, cwd=unfinished, capture_output=True, text=True)
        if found.returncode:
            pytest.skip(f"npm cannot install tests/typescript/package-lock.json: {found.stderr.strip()[-300:]}")
        unfinished.rename(installed)
    return installed / "node_modules"


@pytest.mark.slow
def test_typescript_client_asks_and_reads_answers(url: str, compiled: Path, ask: httpx.Client) -> None:
    command = ["node", compiled, url, KEY, TEXTS[0]]
    answered = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    own = ask.post("/classify", json={"texts": TEXTS[:1]}).json()
    vector = ask.post("/embed", json={"texts": TEXTS[:1]}).json()
    assert json.loads(answered) == {
        "label": own["results"][0]["label"],
        "release": own["release"],
        "similar": True,
        "dimensions": vector["dimensions"],
        "recipes": ["klue-sts", "nsmc"],
        "type": "not_found",
    }


def test_predict_nests_as_tei_does(ask: httpx.Client) -> None:
    one = ask.post("/predict", json={"inputs": TEXTS[0]}).json()
    assert [item["label"] for item in one] == sorted(
        (item["label"] for item in one),
        key=lambda label: -next(item["score"] for item in one if item["label"] == label),
    )
    assert ask.post("/predict", json={"inputs": [TEXTS[0]]}).json() == one
    # 1.0 is a whole number in JSON.
    [[best]] = ask.post("/predict", json={"inputs": TEXTS[0], "parameters": {"top_k": 1.0}}).json()
    assert best == one[0]
    batch = ask.post("/predict", json={"inputs": [[text] for text in TEXTS]}).json()
    assert len(batch) == len(TEXTS)
    assert {item["label"] for item in batch[0]} == {"negative", "positive"}
    pair = ask.post("/predict", json={"inputs": TEXTS[:2]})
    assert (pair.status_code, pair.json()["error"]["type"]) == (404, "not_found")
    mixed = ask.post("/predict", json={"inputs": [TEXTS[:1], TEXTS[:2]]})
    assert mixed.status_code == 422


@pytest.mark.parametrize("route", ["/embed", "/predict"])
def test_text_too_long_is_refused_if_truncation_is(ask: httpx.Client, route: str) -> None:
    long = "긴 문장 " * 300
    inputs = [[TEXTS[0]], [long]] if route == "/predict" else [TEXTS[0], long]
    refused = ask.post(route, json={"inputs": inputs, "truncate": False})
    assert (refused.status_code, refused.json()["error"]["index"]) == (413, 1)
    assert ask.post(route, json={"inputs": inputs, "truncate": True}).status_code == 200


def test_answers_tell_their_timing_and_id(ask: httpx.Client) -> None:
    for route, body in [("/classify", {"texts": TEXTS}), ("/v1/embeddings", {"input": TEXTS, "model": "klue-sts"})]:
        headers = ask.post(route, json=body).headers
        assert re.fullmatch(r"queue;dur=[\d.]+, tokenize;dur=[\d.]+, infer;dur=[\d.]+", headers["Server-Timing"])
        assert headers["X-Request-Id"]
        assert "Content-Encoding" not in headers, "too short to compress"


@pytest.mark.parametrize(
    ("accepts", "zipped"),
    [("gzip", True), ("br, GZIP;q=0.5", True), ("*", True), ("identity", False), ("gzip; q=0, *", False), ("", False)],
)
def test_many_vectors_are_compressed_if_accepted(ask: httpx.Client, accepts: str, zipped: bool) -> None:
    body = {"texts": TEXTS * 100}
    with ask.stream("POST", "/embed", json=body, headers={"Accept-Encoding": accepts}) as answer:
        raw = b"".join(answer.iter_raw())
    assert (answer.headers.get("Content-Encoding") == "gzip") is zipped
    assert int(answer.headers["Content-Length"]) == len(raw)
    assert answer.headers["Vary"] == "Accept-Encoding"
    document = httpx.Response(200, content=gzip.decompress(raw) if zipped else raw).json()
    assert len(document["results"]) == len(body["texts"])
