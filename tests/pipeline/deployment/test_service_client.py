"""The deployer's client, against the service's routes in this process."""

from __future__ import annotations

import ssl
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from starlette.responses import JSONResponse, Response

from pipeline.deployment.service_client import ServiceClient
from pipeline.errors import RefusedError, ServiceError, SettingsError
from pipeline.settings import Settings
from pipeline.store.artifacts import Artifact, Store
from pipeline.store.deployments import DeploymentLog
from serving.api.auth import deploy_token
from serving.client.client import certificates
from tests.support.inprocess import InProcess, in_process
from tests.support.light import build_light_model
from tests.support.running_service import free_url
from tests.support.tiny_releases import SENTENCES, TinyModel

pytestmark = pytest.mark.server


@pytest.fixture
def service(settings: Settings) -> Iterator[InProcess]:
    with in_process(settings) as service:
        yield service


@pytest.fixture
def client(service: InProcess) -> Iterator[ServiceClient]:
    with ServiceClient(service.settings.service_url, deploy_token(service.settings)) as client:
        yield client


@pytest.fixture
def release(service: InProcess, light: TinyModel) -> Artifact:
    return light.publish(service.store, "nsmc", key="a" * 16)


def serve(service: InProcess, release: Artifact) -> None:
    DeploymentLog(service.store).append({"nsmc": release.ref}, after=0, run="test", reason="test")


def test_service_is_live_before_it_is_ready(service: InProcess, client: ServiceClient, release: Artifact) -> None:
    assert (client.is_live(), client.is_ready()) == (True, False)
    serve(service, release)
    assert client.is_ready()


@pytest.mark.usefixtures("retries_at_once")
def test_unreachable_service_is_neither_live_nor_ready(settings: Settings, store: Store) -> None:
    with ServiceClient(free_url(), timeout=5) as client:
        assert not client.is_live()
        assert not client.is_ready()
        assert not client.serves(store)
        with pytest.raises(ServiceError, match="start the service, or set SAEBYEOK_SERVICE_URL"):
            client.stage("release/nsmc/a/b")


def test_service_of_this_store_or_bento_serves(
    service: InProcess, client: ServiceClient, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert client.serves(service.store)
    other = Store(str(tmp_path / "other"), tmp_path / "cache")
    assert not client.serves(other)
    assert f"serves another store than {other.uri}" in caplog.text
    for follower in service.followers:
        follower.source.store = None
    assert client.serves(other)


def test_staged_releases_are_listed_once_and_dropped(client: ServiceClient, release: Artifact) -> None:
    another = release.ref[:-1] + "x"
    assert client.stage(release.ref) == [release.ref]
    assert client.stage(another) == [release.ref, another]
    assert client.unstage(release.ref) == [another]


def test_invalid_ref_is_refused_permanently(client: ServiceClient) -> None:
    with pytest.raises(RefusedError, match="is not the ref of a release") as caught:
        client.stage("train/nsmc/a/b")
    assert not caught.value.retryable


def test_release_that_is_not_loaded_can_be_asked_again(client: ServiceClient, release: Artifact) -> None:
    with pytest.raises(ServiceError, match=f"release {release.ref} is neither staged nor live in this worker"):
        client.classify(SENTENCES[:1], release=release.ref)


def test_only_an_absent_release_can_be_asked_again(
    service: InProcess, client: ServiceClient, release: Artifact
) -> None:
    serve(service, release)
    service.look()
    for ask in (
        lambda: client.classify(["가"], "unknown"),
        lambda: client.similarity([SENTENCES[:2]], release=release.ref),
    ):
        with pytest.raises(RefusedError) as caught:
            ask()
        assert not caught.value.retryable


def test_wrong_deploy_token_is_a_matter_of_settings(service: InProcess, release: Artifact) -> None:
    service.followers[0].source.staging.add(release.ref)  # type: ignore[union-attr]
    with ServiceClient(service.settings.service_url, "wrong") as client:
        for ask in (lambda: client.stage(release.ref), lambda: client.classify(["가"], release=release.ref)):
            with pytest.raises(SettingsError, match="the service was started with another deploy token"):
                ask()
        # Calls for applications need no token.
        assert client.releases().deployment == 0


def test_error_of_the_service_can_be_tried_again(service: InProcess, client: ServiceClient, release: Artifact) -> None:
    service.script = lambda _: JSONResponse({"error": {"type": "internal", "message": "a bug"}}, 500)
    with pytest.raises(ServiceError, match="a bug") as caught:
        client.stage(release.ref)
    assert caught.value.retryable
    service.script = lambda _: Response("no JSON")
    with pytest.raises(ServiceError):
        client.stage(release.ref)


def test_addressed_release_answers_only_the_deployer(
    service: InProcess, client: ServiceClient, release: Artifact, tmp_path: Path
) -> None:
    serve(service, release)
    staged = {
        head: build_light_model(tmp_path / head, head, 9).publish(service.store, "nsmc", key=letter * 16)
        for head, letter in (("classify", "b"), ("classify-pairs", "c"), ("cross-encoder", "d"), ("score", "e"))
    }
    for made in staged.values():
        client.stage(made.ref)
    service.look()
    pair = [SENTENCES[:2]]
    assert client.classify(["가"]).release == f"nsmc-{'a' * 16}"
    assert client.classify(["가"], "nsmc", staged["classify"].ref).release == f"nsmc-{'b' * 16}"
    assert client.classify(pairs=pair, release=staged["classify-pairs"].ref).release == f"nsmc-{'c' * 16}"
    assert client.similarity(pair, release=staged["cross-encoder"].ref).release == f"nsmc-{'d' * 16}"
    assert client.score(["가"], release=staged["score"].ref).release == f"nsmc-{'e' * 16}"
    assert client.similarity(pair, "nsmc", "cross-encoder", staged["cross-encoder"].ref).method == "cross-encoder"


def test_every_request_has_a_connection_of_its_own(service: InProcess, client: ServiceClient) -> None:
    seen: set[object] = set()

    def remember(request: object) -> None:
        seen.add(request.client)  # type: ignore[attr-defined]

    service.script = remember  # type: ignore[assignment]
    for _ in range(3):
        client.releases()
    assert len(seen) == 3


def test_service_that_is_too_slow_is_not_live(service: InProcess) -> None:
    def sleep(_: object) -> None:
        time.sleep(0.5)

    service.script = sleep  # type: ignore[assignment]
    with ServiceClient(service.settings.service_url, timeout=0.05) as client:
        assert not client.is_live()


def test_proxies_of_the_environment_are_not_used(service: InProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTP_PROXY", free_url())
    monkeypatch.setenv("ALL_PROXY", free_url())
    with ServiceClient(service.settings.service_url) as client:
        assert client.is_live()


def test_certificates_are_loaded_once_and_not_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    files: list[str | None] = []
    monkeypatch.setattr(ssl.SSLContext, "load_verify_locations", lambda _, cafile=None, *rest: files.append(cafile))
    # As in a new process.
    monkeypatch.setattr("pipeline.deployment.service_client.certificates", cache(certificates.__wrapped__))
    monkeypatch.setenv("SSL_CERT_FILE", "/nonexistent.pem")
    with ServiceClient(free_url()), ServiceClient(free_url()):
        pass
    assert len(files) == 1
    assert "/nonexistent.pem" not in files
