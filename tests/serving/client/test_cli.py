"""The command `saebyeok-client`, against the service's routes in this process."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pipeline.settings import Settings
from pipeline.store.deployments import DeploymentLog
from serving.client import cli
from tests.support.light import build_light_model
from tests.support.running_service import free_url
from tests.support.tiny_releases import SENTENCES, TinyModel

if TYPE_CHECKING:
    from tests.support.inprocess import InProcess

Run = Callable[..., tuple[str | int | None, list[dict[str, Any]]]]


@pytest.fixture
def service(settings: Settings, light: TinyModel, tmp_path: Path) -> Iterator[InProcess]:
    """A service with a classifier of texts and one of pairs."""
    from tests.support.inprocess import in_process

    pairs = build_light_model(tmp_path / "pairs", "classify-pairs", 9)
    with in_process(settings) as service:
        releases = {"nsmc": light, "nli": pairs}
        refs = {name: model.publish(service.store, name, key="a" * 16).ref for name, model in releases.items()}
        DeploymentLog(service.store).append(refs, after=0, run="test", reason="test")
        yield service


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Return `run(*arguments, stdin="")`: the exit code or the message, and the printed documents."""

    def run(*arguments: str, stdin: str = "") -> tuple[str | int | None, list[dict[str, Any]]]:
        monkeypatch.setattr(sys, "argv", ["saebyeok-client", *arguments])
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        code: str | int | None = 0
        try:
            cli.main()
        except SystemExit as end:
            code = end.code
        return code, [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    return run


def test_classify_prints_a_document_per_text(service: InProcess, run: Run) -> None:
    url = service.settings.service_url
    code, documents = run("--url", url, "classify", *SENTENCES[:3])
    assert code == 0
    assert [item["text"] for item in documents] == list(SENTENCES[:3])
    assert {item["recipe"] for item in documents} == {"nsmc"}
    assert all(item["label"] in item["probabilities"] for item in documents)


def test_lines_of_standard_input_are_sent_in_several_requests(
    service: InProcess, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli, "INPUTS_PER_CALL", 4)
    monkeypatch.setenv("SAEBYEOK_SERVICE_URL", service.settings.service_url)
    code, documents = run("classify", stdin="".join(f"{text}\r\n" for text in SENTENCES))
    assert code == 0
    assert [item["text"] for item in documents] == list(SENTENCES)
    assert service.asked.count("POST /classify") == 3


def test_pairs_are_two_texts_with_a_tab(service: InProcess, run: Run) -> None:
    command = ("--url", service.settings.service_url, "classify", "--pairs")
    code, (document,) = run(*command, "가\t나")
    assert (code, document["pair"], document["recipe"]) == (0, ["가", "나"], "nli")
    code, documents = run(*command, stdin="가\t나\n다\n")
    assert (code, documents) == ("error: input 2 is not a pair; write two texts with a tab between them", [])


def test_input_that_is_not_utf8_is_named(service: InProcess, run: Run) -> None:
    code, documents = run("--url", service.settings.service_url, "classify", stdin="가\n\udcff\n")
    assert (code, documents) == ("error: input 2 is not UTF-8; convert it to UTF-8", [])


def test_byte_order_mark_is_not_part_of_the_first_text(service: InProcess, run: Run) -> None:
    _, documents = run("--url", service.settings.service_url, "classify", stdin="\ufeff가\n\ufeff나\n")
    assert [item["text"] for item in documents] == ["가", "\ufeff나"]


def test_releases_are_one_document(service: InProcess, run: Run) -> None:
    code, (document,) = run("--url", service.settings.service_url, "releases")
    assert (code, set(document["recipes"])) == (0, {"nsmc", "nli"})


def test_refusal_of_the_service_is_the_error(service: InProcess, run: Run) -> None:
    code, documents = run("--url", service.settings.service_url, "score", "가")
    assert isinstance(code, str)
    assert code.startswith(f"error: {service.settings.service_url}/score: ")
    assert documents == []


@pytest.mark.usefixtures("retries_at_once")
def test_absent_service_is_the_error(run: Run) -> None:
    url = free_url()
    code, _ = run("--url", url, "--timeout", "5", "embed", "가")
    assert str(code).startswith(f"error: no service answers at {url}")


def test_key_is_read_from_the_environment(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAEBYEOK_API_KEY", "열쇠")
    code, _ = run("releases")
    assert "the API key contains" in str(code)
    assert "열쇠" not in str(code)


def test_malformed_url_is_the_error(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    code, _ = run("--url", "http://user:secret@box:port", "releases")
    assert code == "error: 'http://***@box:port' is not the URL of a service, such as http://127.0.0.1:3000"
    monkeypatch.setenv("SAEBYEOK_SERVICE_URL", "box:3000")
    assert "'box:3000' is not the URL" in str(run("releases")[0])


@pytest.mark.parametrize("proxy", ["http://me:secret@box:port", "socks4://box", "socks5://box:1"])
def test_malformed_proxy_is_the_error(run: Run, monkeypatch: pytest.MonkeyPatch, proxy: str) -> None:
    monkeypatch.setenv("ALL_PROXY", proxy)
    code, _ = run("--url", "http://service.example", "releases")
    assert "a proxy in the environment has no valid address" in str(code)
    assert "secret" not in str(code)


def test_unknown_method_is_a_usage_error(run: Run) -> None:
    assert run("similarity", "--method", "manhattan", "가\t나")[0] == 2
