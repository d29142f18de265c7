"""Base models from the hub: pinned to the first recorded revision, downloaded, and errors with a reason."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants, file_download

from pipeline.errors import ArtifactError, BaseModelError, HubUnreachableError
from pipeline.models.base_model import Base, resolve_base
from pipeline.store.artifacts import Store
from tests.support.hub import SIGNATURE, Hub, serve_hub, write_base

OLD, NEW = "a" * 40, "b" * 40
SignIn = Callable[[str | None], None]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Create a directory with the files of a base model; these tests do not read the weights."""
    return write_base(tmp_path / "base")


@pytest.fixture
def hub(directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """Run a hub on loopback with `team/encoder`, with a separate cache."""
    with serve_hub(Hub("team/encoder", directory, OLD)) as served:
        _point_to(served.url, tmp_path, monkeypatch)
        yield served


def _point_to(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The values of HF_ENDPOINT and HF_HUB_CACHE; the client reads both on import.
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub-cache"))


@pytest.fixture
def no_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Use an endpoint that refuses connections."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    _point_to(f"http://127.0.0.1:{port}", tmp_path, monkeypatch)


@pytest.fixture
def sign_in(monkeypatch: pytest.MonkeyPatch) -> SignIn:
    """Return `sign_in(token)`, which sets the token in the environment or removes it."""

    def set_token(token: str | None) -> None:
        if token is None:
            monkeypatch.delenv("HF_TOKEN", raising=False)
        else:
            monkeypatch.setenv("HF_TOKEN", token)

    return set_token


@pytest.fixture
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the hub's client retry without delay."""
    monkeypatch.setattr(file_download.time, "sleep", lambda seconds: None)


def test_revision_of_a_hub_id_is_recorded_once(hub: Hub, store: Store) -> None:
    first = resolve_base("team/encoder", store)
    assert first == Base("team/encoder", OLD)
    record = {"format": 1, "base": "team/encoder", "revision": OLD}
    assert json.loads(store.read("bases/team--encoder.json") or b"") == record
    hub.revision = NEW
    hub.asked.clear()
    assert resolve_base("team/encoder", store) == first
    assert hub.asked == []


def test_a_revision_that_another_machine_recorded_first_is_used(hub: Hub, store: Store) -> None:
    theirs = json.dumps({"base": "team/encoder", "revision": NEW}).encode()
    hub.meanwhile = lambda: store.create("bases/team--encoder.json", theirs)
    assert resolve_base("team/encoder", store) == Base("team/encoder", NEW)


def test_a_hub_that_names_no_revision_may_be_retried(hub: Hub, store: Store) -> None:
    hub.revision = ""
    with pytest.raises(HubUnreachableError, match=r"\(it returned no revision\)"):
        resolve_base("team/encoder", store)
    assert store.read("bases/team--encoder.json") is None


def test_a_hub_that_hangs_is_given_up(hub: Hub, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.models.base_model.REACH_TIMEOUT", 0.2)
    released = threading.Event()
    hub.meanwhile = released.wait
    with pytest.raises(HubUnreachableError, match="timed out") as caught:
        resolve_base("team/encoder", store)
    released.set()
    assert caught.value.retryable


def test_hub_model_is_downloaded_once_at_recorded_revision(
    hub: Hub, store: Store, directory: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (directory / "flax_model.msgpack").write_bytes(b"other weights")
    base = resolve_base("team/encoder", store)
    fetched = base.fetch()
    assert (fetched / "model.safetensors").read_bytes() == b"weights"
    assert not (fetched / "flax_model.msgpack").exists()
    assert capfd.readouterr().err == "", "a bar in a log would be lines of an error"
    hub.asked.clear()
    assert base.fetch() == fetched
    assert not [path for path in hub.asked if path.endswith("safetensors")]


def test_a_tokenizer_is_had_without_the_weights(hub: Hub, store: Store) -> None:
    fetched = resolve_base("team/encoder", store).fetch(weights=False)
    assert sorted(file.name for file in fetched.iterdir()) == ["config.json", "tokenizer.json"]
    assert not [path for path in hub.asked if path.endswith("safetensors")]


def test_a_fetched_model_is_there_without_the_hub(
    hub: Hub, store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    base = resolve_base("team/encoder", store)
    fetched = base.fetch()
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert base.fetch() == fetched


@pytest.mark.parametrize("offline", [False, True])
def test_offline_machine_uses_the_newest_cached_revision(
    hub: Hub,
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    offline: bool,
) -> None:
    first = resolve_base("team/encoder", store).fetch()
    os.utime(first, (0, 0))
    hub.revision = NEW
    second = Base("team/encoder", NEW).fetch()
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
    other = Store(str(tmp_path / "other-store"), tmp_path / "other-cache")
    base = resolve_base("team/encoder", other)
    assert base == Base("team/encoder", NEW)
    assert base.fetch() == second
    assert f"using revision {NEW}, which is in the cache" in caplog.text
    # A store that has recorded a revision keeps it.
    assert resolve_base("team/encoder", store).fetch() == first
    with pytest.raises(HubUnreachableError, match="team/absent could not be fetched"):
        resolve_base("team/absent", other)


def test_refused_model_is_not_taken_from_the_cache(hub: Hub, store: Store, tmp_path: Path) -> None:
    resolve_base("team/encoder", store).fetch()
    hub.private = True
    with pytest.raises(BaseModelError, match="nor a model on the hub"):
        resolve_base("team/encoder", Store(str(tmp_path / "other-store"), tmp_path / "other-cache"))


def test_revision_lost_on_the_hub_is_not_retried(hub: Hub, store: Store) -> None:
    base = resolve_base("team/encoder", store)
    hub.revision = NEW
    with pytest.raises(BaseModelError, match=rf"no longer has revision {OLD}.*bases/team--encoder\.json") as caught:
        base.fetch()
    assert not caught.value.retryable


@pytest.mark.usefixtures("no_hub")
def test_a_hub_that_does_not_answer_may_be_retried(store: Store) -> None:
    with pytest.raises(HubUnreachableError, match=r"team/encoder could not be fetched.*--base-model") as caught:
        resolve_base("team/encoder", store)
    assert caught.value.retryable
    # An unknown revision is not recorded.
    assert store.read("bases/team--encoder.json") is None


def test_a_download_that_cannot_be_had_may_be_retried(no_hub: None, monkeypatch: pytest.MonkeyPatch) -> None:
    # Like HF_HUB_OFFLINE; otherwise the client retries for 20 seconds.
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(HubUnreachableError, match="could not be fetched") as caught:
        Base("team/encoder", OLD).fetch()
    assert caught.value.retryable


@pytest.mark.parametrize("token", [None, "hf_valid"])
def test_a_gated_model_names_the_terms_to_accept(hub: Hub, store: Store, sign_in: SignIn, token: str | None) -> None:
    hub.gated = True
    sign_in(token)
    base = resolve_base("team/encoder", store)
    with pytest.raises(BaseModelError, match=r"is gated .*https://huggingface\.co/team/encoder.*HF_TOKEN") as caught:
        base.fetch()
    assert not caught.value.retryable
    hub.granted = True
    sign_in("hf_valid")
    assert (base.fetch() / "model.safetensors").read_bytes() == b"weights"


def test_a_private_model_needs_a_token(hub: Hub, store: Store, sign_in: SignIn) -> None:
    hub.private = True
    sign_in(None)
    with pytest.raises(BaseModelError, match=r"nor a model on the hub .*HF_TOKEN") as caught:
        resolve_base("team/encoder", store)
    assert not caught.value.retryable
    with pytest.raises(BaseModelError, match=rf"no longer has revision {OLD}.*HF_TOKEN") as caught:
        Base("team/encoder", OLD).fetch()
    assert not caught.value.retryable
    sign_in("hf_valid")
    assert (resolve_base("team/encoder", store).fetch() / "model.safetensors").read_bytes() == b"weights"


@pytest.mark.parametrize(("disabled", "token", "says"), [(False, "hf_expired_7f3a", "401"), (True, "hf_valid", "403")])
def test_a_hub_that_refuses_access_is_not_retried(
    disabled: bool, token: str, says: str, hub: Hub, store: Store, sign_in: SignIn
) -> None:
    hub.disabled = disabled
    sign_in(token)
    for ask in (lambda: resolve_base("team/encoder", store), Base("team/encoder", OLD).fetch):
        with pytest.raises(
            BaseModelError, match=rf"refuses access to base model team/encoder.*{says}.*HF_TOKEN"
        ) as caught:
            ask()
        assert not caught.value.retryable
        assert token not in str(caught.value)
    assert store.read("bases/team--encoder.json") is None


def test_a_cached_model_needs_no_access_any_more(hub: Hub, store: Store, sign_in: SignIn) -> None:
    base = resolve_base("team/encoder", store)
    fetched = base.fetch()
    hub.gated = hub.disabled = True
    sign_in("hf_expired_7f3a")
    assert base.fetch() == fetched


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_hub_that_errs_may_be_retried(status: int, hub: Hub, store: Store) -> None:
    hub.failures = [status]
    with pytest.raises(HubUnreachableError, match=rf"could not be fetched.*{status}.*--base-model") as caught:
        resolve_base("team/encoder", store)
    assert caught.value.retryable
    assert "\n" not in str(caught.value)
    assert resolve_base("team/encoder", store) == Base("team/encoder", OLD)


def test_a_download_cut_off_twice_is_resumed(
    hub: Hub, store: Store, directory: Path, no_pause: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The client's chunks are 10 MB, and it loses an unfinished one.
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 100_000)
    content = bytes(range(256)) * 4000
    (directory / "model.safetensors").write_bytes(content)
    hub.cuts = [300_000, 400_000]
    fetched = resolve_base("team/encoder", store).fetch()
    assert (fetched / "model.safetensors").read_bytes() == content
    assert hub.ranges == [None, "bytes=300000-", "bytes=700000-"]


def test_failed_download_is_retryable_without_signed_address(
    hub: Hub, store: Store, directory: Path, no_pause: None
) -> None:
    hub.cuts = [0] * 6
    base = resolve_base("team/encoder", store)
    with pytest.raises(HubUnreachableError, match="could not be fetched") as caught:
        base.fetch()
    assert caught.value.retryable
    assert SIGNATURE not in str(caught.value)
    assert (base.fetch() / "model.safetensors").read_bytes() == b"weights"


def test_an_expired_signature_of_the_storage_may_be_retried(hub: Hub, store: Store) -> None:
    hub.expired = True
    base = resolve_base("team/encoder", store)
    with pytest.raises(HubUnreachableError, match=r"could not be fetched.*403.*check the network") as caught:
        base.fetch()
    assert caught.value.retryable
    assert SIGNATURE not in str(caught.value)
    hub.expired = False
    assert (base.fetch() / "model.safetensors").read_bytes() == b"weights"


def test_a_token_is_not_sent_where_the_hub_redirects(hub: Hub, store: Store, sign_in: SignIn) -> None:
    sign_in("hf_valid")
    # The storage answers 400 to a signed request that also has a token.
    assert (resolve_base("team/encoder", store).fetch() / "model.safetensors").is_file()


def test_partly_cached_model_is_not_used_offline(hub: Hub, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    base = resolve_base("team/encoder", store)
    tokenizer = base.fetch(weights=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert base.fetch(weights=False) == tokenizer
    with pytest.raises(HubUnreachableError, match="could not be fetched") as caught:
        base.fetch()
    assert caught.value.retryable


@pytest.mark.parametrize("name", ["team/other", "no such model!", "/no/such/directory", "../nowhere", "a/b/c"])
def test_a_name_that_is_no_model_is_not_retried(name: str, hub: Hub, store: Store) -> None:
    with pytest.raises(BaseModelError, match="neither a directory here nor a model on the hub") as caught:
        resolve_base(name, store)
    assert not caught.value.retryable


def test_a_damaged_record_is_named(hub: Hub, store: Store) -> None:
    store.create("bases/team--encoder.json", b"{")
    with pytest.raises(ArtifactError, match=r"bases/team--encoder\.json is damaged"):
        resolve_base("team/encoder", store)


def test_missing_directory_is_not_sought_on_the_hub(directory: Path, store: Store, hub: Hub) -> None:
    base = resolve_base(str(directory), store)
    directory.rename(directory.parent / "elsewhere")
    with pytest.raises(BaseModelError, match="is gone from this machine") as caught:
        base.fetch()
    assert not caught.value.retryable
    assert hub.asked == []
