"""The Bento of each deployment."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from pipeline.config_file import ROOT
from pipeline.deployment.bento import bento_tag, ensure_bento, requirements, service_modules
from pipeline.job import open_store
from pipeline.settings import Settings
from pipeline.store.deployments import DeploymentLog
from serving.deployed.model_store import import_release
from serving.engine.engine import Engine
from tests.support.running_service import Service, service_settings
from tests.support.tiny_releases import SENTENCES, TinyModel


def test_requirements_are_pinned_to_the_constraints() -> None:
    lines = requirements()
    pins = set((ROOT / "constraints.txt").read_text().splitlines())
    assert all(re.fullmatch(r"[a-z0-9-]+==\S+", line) for line in lines)
    names = {line.split("==")[0] for line in lines}
    assert {"bentoml", "onnxruntime-gpu", "tokenizers", "numpy", "pydantic", "s3fs", "starlette"} <= names
    assert {"uvicorn", "httptools", "uvloop"} <= names, "the server that is tested is the server in the image"
    assert not names & {"torch", "transformers", "apache-airflow", "onnxruntime", "pytest"}
    assert {line for line in lines if line.startswith(("bentoml==", "onnxruntime-gpu=="))} <= pins


def test_bento_has_only_service_and_its_imports() -> None:
    names = {str(path.relative_to(ROOT)) for path in service_modules()}
    assert {"serving/service.py", "serving/__init__.py", "pipeline/__init__.py", "pipeline/store/releases.py"} <= names
    assert not names & {"pipeline/stages/train.py", "pipeline/deployment/deployer.py", "pipeline/cli/app.py"}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, classifier: TinyModel, sentence_encoder: TinyModel) -> Settings:
    """Return the settings of a home with a deployment and its Bento; shared, so never change it."""
    # A hidden directory, as HOME is by default: BentoML refuses to read some files from one.
    settings = service_settings(tmp_path_factory.mktemp("bento") / ".saebyeok")
    store = open_store(settings)
    refs = {
        "nsmc": classifier.publish(store, "nsmc", key="a" * 16).ref,
        "klue-sts": sentence_encoder.publish(store, "klue-sts", key="b" * 16, sample=False).ref,
    }
    deployment = DeploymentLog(store).append(refs, after=0, run="test", reason="시험")
    assert ensure_bento(settings, store, deployment) == bento_tag(deployment) == "saebyeok:1"
    return settings


@pytest.fixture
def alone(built: Settings, tmp_path: Path) -> Settings:
    """Return the settings of a copy of that home."""
    return service_settings(shutil.copytree(built.home, tmp_path / ".saebyeok"))


@pytest.mark.slow
def test_a_bento_answers_from_itself_alone(alone: Settings, tmp_path: Path, other_classifier: TinyModel) -> None:
    store = open_store(alone)
    tag, refs = "saebyeok:1", DeploymentLog(store).get(1).releases
    read_me = (alone.home / "bentoml" / "bentos" / "saebyeok" / "1" / "README.md").read_text(encoding="utf-8")
    assert f"- nsmc: `{refs['nsmc']}`, trained on the shipped sample\n" in read_me
    assert f"- klue-sts: `{refs['klue-sts']}`\n" in read_me
    # The Bento keeps its own model.
    import_release(other_classifier.publish(store, "nsmc", key="c" * 16), alone)
    wanted = Engine(store.open(refs["nsmc"]).path).classify(SENTENCES)[:, 1].tolist()
    scores = Engine(store.open(refs["klue-sts"]).path).score([SENTENCES[:2]]).tolist()
    exported = tmp_path / "saebyeok.bento"
    run_bentoml(alone.home / "bentoml", "export", tag, str(exported))
    shutil.rmtree(alone.home)

    elsewhere = service_settings(tmp_path / "elsewhere")
    bentos = tmp_path / "other" / "bentoml"
    run_bentoml(bentos, "import", str(exported))
    port = elsewhere.service_url.rsplit(":", 1)[1]
    command = [sys.executable, "-m", "bentoml", "serve", tag, "--host", "127.0.0.1", "--port", port]
    service = Service(elsewhere, command, {"BENTOML_HOME": str(bentos)})
    try:
        service.wait_live(workers=1)
        assert service.client.is_ready()
        answer = service.client.classify(SENTENCES)
        assert answer.release == "nsmc-" + "a" * 16
        assert [item.probabilities["positive"] for item in answer.results] == pytest.approx(wanted, abs=1e-6)
        similar = service.client.similarity([SENTENCES[:2]])
        assert [item.score for item in similar.results] == pytest.approx(scores, abs=1e-5)
        assert service.client.releases().deployment == 1
        page, numbers = (httpx.get(f"{elsewhere.service_url}{path}") for path in ("/page/page.js", "/metrics"))
        assert page.text == (ROOT / "serving" / "api" / "page" / "page.js").read_text(encoding="utf-8")
        assert "saebyeok_release_info{" in numbers.text
        assert 'saebyeok_batch_rows_sum{recipe="nsmc"}' in numbers.text
        offer = {"Connection": "Upgrade", "Upgrade": "h2c"}
        url = f"{elsewhere.service_url}/classify"
        assert httpx.post(url, json={"texts": ["좋다"]}, headers=offer).status_code == 200
    finally:
        service.stop()
    written = {path.name for path in elsewhere.home.rglob("*")} - {"service.log", "deploy.token"}
    assert written == set(), "a Bento writes nothing below HOME"


#: Takes the place of Docker and records the build.
KEEPS_CONTEXT = """\
#!/bin/sh
case "$1" in
version) echo '"27.0.0"' ;;
*)
    for context; do :; done
    cp -R "$context" "{kept}" ;;
esac
"""


@pytest.mark.slow
def test_docker_context_serves_without_home_and_store(alone: Settings, tmp_path: Path) -> None:
    # A real image needs Docker and a registry. This plays its Dockerfile: same context, same entry point, same user
    # variables, with the packages of this environment.
    store = open_store(alone)
    release = store.open(DeploymentLog(store).get(1).releases["nsmc"])
    wanted = Engine(release.path).classify(SENTENCES)[:, 1].tolist()
    context, tools = tmp_path / "context", tmp_path / "tools"
    tools.mkdir()
    docker = tools / "docker"
    docker.write_text(KEEPS_CONTEXT.format(kept=context))
    docker.chmod(0o755)
    path = f"{tools}{os.pathsep}{os.environ['PATH']}"
    run_bentoml(alone.home / "bentoml", "containerize", "saebyeok:1", "--backend", "docker", PATH=path)
    shutil.rmtree(alone.home)

    file = (context / "env" / "docker" / "Dockerfile").read_text()
    assert f"FROM python:{sys.version_info.major}.{sys.version_info.minor}-slim" in file
    assert "pip install -r $BENTO_PATH/env/python/requirements.txt" in file
    assert set((context / "env" / "python" / "requirements.txt").read_text().split()) == set(requirements())
    image = dict(re.findall(r"^ENV (BENTOML_\w+|ORT_\w+)=([^$\n]+)$", file, re.MULTILINE))
    arguments = dict(re.findall(r"^ARG (\w+)=(.+)$", file, re.MULTILINE))
    assert arguments["BENTOML_DO_NOT_TRACK"] == "True"
    outside = service_settings(tmp_path / "outside")
    port = outside.service_url.rsplit(":", 1)[1]
    command = ["bash", str(context / "env" / "docker" / "entrypoint.sh")]
    of_image = {
        **image,
        "BENTO_PATH": str(context),
        "BENTOML_HOME": str(tmp_path / "user"),
        "BENTOML_HOST": "127.0.0.1",
        "PORT": port,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": "",
    }
    service = Service(outside, command, of_image, cwd=context)
    try:
        service.wait_live(workers=1)
        answer = service.client.classify(SENTENCES)
        assert answer.release == "nsmc-" + "a" * 16
        assert [item.probabilities["positive"] for item in answer.results] == pytest.approx(wanted, abs=1e-6)
    finally:
        service.stop()


@pytest.mark.slow
def test_bento_is_built_once_per_log(alone: Settings) -> None:
    store = open_store(alone)
    record = DeploymentLog(store).get(1)
    baked = alone.home / "bentoml" / "bentos" / "saebyeok" / "1" / "src" / "deployment.json"
    before = baked.stat().st_mtime_ns
    ensure_bento(alone, store, record)
    assert baked.stat().st_mtime_ns == before
    ensure_bento(alone, store, record.model_copy(update={"reason": "another"}))
    assert '"another"' in baked.read_text()


def run_bentoml(home: Path, *arguments: str, **environment: str) -> None:
    home.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "bentoml", *arguments]
    result = subprocess.run(
        command,
        env={**os.environ, "BENTOML_HOME": str(home), **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
