"""Publishing to a directory and to a hub on loopback, and the command `saebyeok publish`."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

from pipeline.errors import PublishError
from pipeline.publishing.publish import publish
from pipeline.store.artifacts import Artifact
from pipeline.store.deployments import DeploymentLog
from pipeline.store.releases import read_card
from tests.support.cli import run_here
from tests.support.hub_uploads import UploadHub, upload_hub
from tests.support.small_pipeline import Road

pytestmark = [
    pytest.mark.torch,
    # The hub's client uploads large files by a deprecated parameter of its HTTP library.
    pytest.mark.filterwarnings("ignore:Use 'content=<...>':DeprecationWarning"),
]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[UploadHub]:
    """A hub on loopback, and a token for it."""
    with upload_hub() as served:
        point_to(served.url, monkeypatch)
        monkeypatch.setenv("HF_TOKEN", served.token)
        yield served


def point_to(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # The client reads HF_ENDPOINT and HF_HUB_DISABLE_XET on import.
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr("huggingface_hub.hf_api.constants.ENDPOINT", url)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)


def files_of(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def release_of(road: Road, name: str = "nsmc") -> Artifact:
    records = DeploymentLog(road.job.store)
    if not records.numbers():
        records.append({name: road.released.ref}, after=0, run="test", reason="test")
    return road.released


def test_command_publishes_the_deployed_release(reviews: Road, tmp_path: Path) -> None:
    release = release_of(reviews)
    environment = os.environ | {"SAEBYEOK_HOME": str(reviews.job.settings.home)}
    target = tmp_path / "new" / "model"
    command = ["publish", "nsmc", "--to", str(target), "--json"]
    said = run_here(command, environment)
    assert json.loads(said.stdout) == {"recipe": "nsmc", "release": release.ref, "published": str(target)}
    assert {"README.md", "config.json", "model.safetensors", "onnx", "tokenizer.json"} <= {
        path.name for path in target.iterdir()
    }
    again = run_here(command, environment)
    assert again.returncode == 1
    assert f"{target} exists and is not an empty directory" in again.stderr


def test_directory_is_complete_or_absent(reviews: Road, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pipeline.publishing.model_directory.render_card", full)
    with pytest.raises(PublishError, match="No space left"):
        publish(reviews.recipe, reviews.released, str(tmp_path / "model"))
    assert list(tmp_path.iterdir()) == []


def test_file_is_not_replaced(reviews: Road, tmp_path: Path) -> None:
    (tmp_path / "model").write_text("mine", encoding="utf-8")
    with pytest.raises(PublishError, match="is not an empty directory"):
        publish(reviews.recipe, reviews.released, str(tmp_path / "model"))
    assert (tmp_path / "model").read_text(encoding="utf-8") == "mine"


def test_hub_gets_the_files_in_one_private_commit(reviews: Road, hub: UploadHub, tmp_path: Path) -> None:
    release = reviews.released
    hub.private["team/nsmc"], hub.files["team/nsmc"] = True, {"onnx/old.onnx": b"old", "LICENSE": b"by hand"}
    url = publish(reviews.recipe, release, "hf://team/nsmc")
    assert url.startswith(f"{hub.url}/team/nsmc/commit/")
    assert hub.commits == [f"Publish release {read_card(release).id}"]
    publish(reviews.recipe, release, str(tmp_path / "model"))
    expected = files_of(tmp_path / "model")
    assert hub.files["team/nsmc"] == {**expected, "LICENSE": b"by hand"}


def test_new_repository_is_private(reviews: Road, hub: UploadHub) -> None:
    publish(reviews.recipe, reviews.released, "hf://team/another")
    assert hub.private == {"team/another": True}


def test_refused_token_is_reported(reviews: Road, hub: UploadHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_reads")
    with pytest.raises(PublishError, match="set HF_TOKEN to a token that may"):
        publish(reviews.recipe, reviews.released, "hf://team/nsmc")
    assert hub.private == {}


def test_failed_commit_is_reported(reviews: Road, hub: UploadHub) -> None:
    hub.failure = 500
    with pytest.raises(PublishError, match=r"team/nsmc was not uploaded .*500"):
        publish(reviews.recipe, reviews.released, "hf://team/nsmc")
    assert hub.commits == []


def test_absent_hub_is_reported(reviews: Road, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    point_to(f"http://127.0.0.1:{port}", monkeypatch)
    with pytest.raises(PublishError, match="team/nsmc was not uploaded"):
        publish(reviews.recipe, reviews.released, "hf://team/nsmc")


def test_name_that_is_no_hub_id_is_reported(reviews: Road, hub: UploadHub) -> None:
    with pytest.raises(PublishError, match="is not a hub id; write hf://OWNER/NAME"):
        publish(reviews.recipe, reviews.released, "hf://not a name")
