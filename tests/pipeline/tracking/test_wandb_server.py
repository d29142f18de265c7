"""The small Weights & Biases server refuses requests without its key and incomplete bodies, like the real one."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from tests.support.running_service import eventually
from tests.support.wandb_server import KEY, HostedRun, WandbServer, wandb_server

pytestmark = pytest.mark.server


@pytest.fixture
def server() -> Iterator[WandbServer]:
    with wandb_server() as running:
        running.runs["r"] = HostedRun("r", "p")
        yield running


def ask(server: WandbServer, operation: str, variables: dict[str, Any], key: str = KEY) -> Any:
    document = {"operationName": operation, "query": "", "variables": variables}
    answer = httpx.post(f"{server.url}/graphql", json=document, auth=("api", key))
    return answer.raise_for_status().json()["data"]


@pytest.mark.parametrize("auth", [None, ("api", "1" * 40), ("other", KEY)])
@pytest.mark.parametrize("path", ["/graphql", "/files/team/p/r/file_stream"])
def test_the_server_without_its_key_answers_401(server: WandbServer, auth: Any, path: str) -> None:
    document = {"operationName": "UpsertBucket", "query": "", "variables": {"name": "new", "project": "p"}}
    answer = httpx.post(server.url + path, json=document | {"complete": True, "exitcode": 0}, auth=auth)
    assert answer.status_code == 401
    assert (list(server.runs), server.runs["r"].exit_code) == (["r"], None)


def test_a_body_that_ends_early_is_not_stored(server: WandbServer) -> None:
    answer = ask(server, "CreateRunFiles", {"run": "r", "files": ["a.txt"]})
    address = urlsplit(answer["createRunFiles"]["files"][0]["uploadUrl"])
    torn = http.client.HTTPConnection(str(address.netloc))
    torn.putrequest("PUT", address.path)
    torn.putheader("Content-Length", "10")
    torn.endheaders(b"12345")
    torn.close()
    eventually("the server has seen its end", lambda: server.torn == [address.path])
    assert server.runs["r"].files == {}
    httpx.put(address.geturl(), content=b"1234567890").raise_for_status()
    assert server.runs["r"].files == {"a.txt": b"1234567890"}


def test_an_alias_moves_when_its_version_is_committed(server: WandbServer) -> None:
    given = {"artifactCollectionName": "c", "artifactTypeName": "t", "projectName": "p", "runName": "r"}
    given |= {"aliases": [{"alias": "latest"}]}
    for number in range(2):
        made = ask(server, "CreateArtifact", {"input": given | {"digest": str(number)}})
        version = server.versions[made["createArtifact"]["artifact"]["id"]]
        before = server.find_version("c", "latest")
        assert before is None if number == 0 else before is not None and before.index == 0
        version.manifest = json.dumps({"contents": {}}).encode()
        ask(server, "CommitArtifact", {"artifactID": version.id})
        assert server.find_version("c", "latest") is version
