"""The deploy token and the API keys."""

from __future__ import annotations

import errno
import gc
import hmac
import os
import re
import stat
import weakref
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from hashlib import sha256
from pathlib import Path

import pytest
from pydantic import SecretStr

from pipeline.errors import SettingsError
from pipeline.settings import Settings, load_settings
from serving.api.auth import KeyLimit, api_keys, deploy_token, is_authorized
from serving.api.errors import ApiError
from serving.schemas import ErrorType

KEY = "k" * 16


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def files(settings: Settings) -> list[str]:
    return [path.name for path in settings.home.iterdir()]


@pytest.mark.parametrize("mask", [0o000, 0o077])
def test_token_is_made_once_for_its_owner_alone(settings: Settings, mask: int) -> None:
    settings = settings.model_copy(update={"home": settings.home / "not" / "there"})
    with umask(mask):
        token = deploy_token(settings)
    # 32 random bytes, six bits per character.
    assert re.fullmatch(r"[A-Za-z0-9_-]{43}", token)
    assert stat.S_IMODE(settings.deploy_token_file.stat().st_mode) == 0o600
    assert files(settings) == [settings.deploy_token_file.name]
    assert settings.deploy_token_file.read_text() == f"{token}\n"
    assert deploy_token(settings) == token
    settings.deploy_token_file.unlink()
    assert deploy_token(settings) != token


def test_token_from_file_is_stripped(settings: Settings) -> None:
    settings.home.mkdir(parents=True)
    settings.deploy_token_file.write_text(" given by hand\r\n")
    assert deploy_token(settings) == "given by hand"
    assert settings.deploy_token_file.read_text() == " given by hand\n"
    assert files(settings) == [settings.deploy_token_file.name]


def test_token_of_the_file_needs_no_other_file(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    token = deploy_token(settings)
    # As on a full or read-only disk.
    monkeypatch.setattr(os, "open", lambda *_: pytest.fail("a file is made"))
    assert deploy_token(settings) == token


def test_token_from_environment_takes_precedence(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAEBYEOK_DEPLOY_TOKEN", "from-the-environment")
    chosen = load_settings()
    assert deploy_token(chosen) == "from-the-environment"
    assert not chosen.deploy_token_file.exists()


@pytest.mark.parametrize(
    "secret", ["line\nend-in-the-middle", "열쇠열쇠열쇠열쇠열쇠열쇠열쇠열쇠", "tab\there-and-there"]
)
def test_secret_that_no_header_can_carry_is_refused(settings: Settings, secret: str) -> None:
    with pytest.raises(SettingsError, match="SAEBYEOK_DEPLOY_TOKEN contains a line break or a character") as caught:
        deploy_token(settings.model_copy(update={"deploy_token": SecretStr(secret)}))
    assert secret not in str(caught.value)
    settings.home.mkdir(parents=True)
    settings.deploy_token_file.write_text(secret, encoding="utf-8")
    with pytest.raises(SettingsError, match=r"deploy\.token contains a line break") as caught:
        deploy_token(settings)
    assert secret not in str(caught.value)


def test_api_key_outside_ascii_is_refused(settings: Settings) -> None:
    with pytest.raises(SettingsError, match=r"SAEBYEOK_API_KEYS contains .* outside ASCII") as caught:
        api_keys(settings.model_copy(update={"api_keys": SecretStr(f"{KEY}, {'열' * 16}")}))
    assert "열" not in str(caught.value)


def test_token_of_whoever_was_first_is_everyones(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    link = os.link

    def late(source: Path, target: Path) -> None:
        # The file is complete and private before it gets its final name.
        assert len(source.read_text()) == 44
        assert stat.S_IMODE(source.stat().st_mode) == 0o600
        target.write_text("made by another process\n")
        link(source, target)

    monkeypatch.setattr(os, "link", late)
    with umask(0):
        assert deploy_token(settings) == "made by another process"
    assert files(settings) == [settings.deploy_token_file.name]


def test_token_that_cannot_be_linked_leaves_nothing_behind(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(source: Path, target: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "link", full)
    with pytest.raises(OSError, match="No space left"):
        deploy_token(settings)
    assert files(settings) == []


@pytest.mark.parametrize("content", [b"", b"\n", b" \t\r\n"])
def test_token_file_that_is_empty_is_an_error(settings: Settings, content: bytes) -> None:
    settings.home.mkdir(parents=True)
    settings.deploy_token_file.write_bytes(content)
    with pytest.raises(SettingsError, match=r"deploy.token is empty; delete it .* or set SAEBYEOK_DEPLOY_TOKEN"):
        deploy_token(settings)


def test_unreadable_token_file_raises(settings: Settings) -> None:
    settings.deploy_token_file.mkdir(parents=True)
    with pytest.raises(
        SettingsError, match=r"deploy.token: Is a directory; set SAEBYEOK_DEPLOY_TOKEN or make the file readable"
    ):
        deploy_token(settings)


def test_binary_token_file_raises(settings: Settings) -> None:
    settings.home.mkdir(parents=True)
    settings.deploy_token_file.write_bytes(b"\xff\xfe")
    with pytest.raises(SettingsError, match=r"deploy.token is not text"):
        deploy_token(settings)


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        (None, ()),
        ("", ()),
        (" , \n", ()),
        (KEY, (KEY,)),
        (f"{KEY}1,{KEY}2", (f"{KEY}1", f"{KEY}2")),
        (f" {KEY}1 ,, {KEY}2\n{KEY}3,", (f"{KEY}1", f"{KEY}2", f"{KEY}3")),
    ],
)
def test_api_keys_are_split(settings: Settings, text: str | None, keys: tuple[str, ...]) -> None:
    secret = None if text is None else SecretStr(text)
    assert api_keys(settings.model_copy(update={"api_keys": secret})) == keys


@pytest.mark.parametrize("text", [KEY[1:], f"{KEY},{KEY[1:]}", f"{KEY[1:]},{KEY}", "열다섯 글자보다 짧다"])
def test_short_api_key_raises(settings: Settings, text: str) -> None:
    with pytest.raises(SettingsError, match="SAEBYEOK_API_KEYS: each key must have at least 16 characters") as caught:
        api_keys(settings.model_copy(update={"api_keys": SecretStr(text)}))
    assert text not in str(caught.value)


@pytest.mark.parametrize(
    ("header", "allowed"),
    [
        ("Bearer secret", True),
        ("bearer secret", True),
        ("BEARER  secret ", True),
        ("Bearer secre", False),
        ("Bearer secret2", False),
        ("Bearer ecret", False),
        ("Bearer Secret", False),
        ("Bearer secret secret", False),
        ("Bearer secret,", False),
        ("Bearer ", False),
        ("Bearer", False),
        ("Bearersecret", False),
        ("Basic secret", False),
        (" secret", False),
        ("secret", False),
        ("secret secret", False),
        ("secret Bearer", False),
        ("Bearer 비밀", False),
        ("Bearer s\u00e9cret", False),
        ("", False),
        (None, False),
    ],
)
def test_header_opens_with_the_whole_secret_alone(header: str | None, allowed: bool) -> None:
    assert is_authorized(header, "secret") is allowed
    assert is_authorized(header, "another", "secret", "비밀번호") is allowed
    assert is_authorized(header, "another", "third") is False


def test_header_opens_with_any_of_several_secrets() -> None:
    secrets = ("first", "second", "셋째")
    assert all(is_authorized(f"Bearer {secret}", *secrets) for secret in secrets)
    assert not is_authorized("Bearer firstsecond", *secrets)


def test_header_is_compared_with_every_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[bytes] = []
    compare = hmac.compare_digest

    def watched(given: bytes, secret: bytes) -> bool:
        compared.append(secret)
        return compare(given, secret)

    monkeypatch.setattr(hmac, "compare_digest", watched)
    for header in ("Bearer first", "Bearer none of them", "Basic first", None):
        compared.clear()
        is_authorized(header, "first", "the second secret")
        assert compared == [sha256(b"first").digest(), sha256(b"the second secret").digest()]


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ", "Bearer secret"])
def test_header_opens_nothing_without_a_secret(header: str | None) -> None:
    assert is_authorized(header) is False


def test_key_limit_frees_the_place_of_a_request() -> None:
    limit = KeyLimit(2)
    for _ in range(2):
        with limit.counted(KEY):
            for _ in range(2):
                with limit.counted(KEY), pytest.raises(ApiError) as caught, limit.counted(KEY):
                    pytest.fail("a third request runs")
                assert caught.value.kind is ErrorType.OVERLOADED
    with pytest.raises(ZeroDivisionError), limit.counted(KEY):
        raise ZeroDivisionError
    with limit.counted(KEY), limit.counted(KEY), limit.counted("another"):
        pass


@pytest.mark.parametrize(("most", "header"), [(0, KEY), (1, None)])
def test_key_limit_exempts_other_requests(most: int, header: str | None) -> None:
    limit = KeyLimit(most)
    with ExitStack() as running:
        for _ in range(3):
            running.enter_context(limit.counted(header))


def test_key_limit_forgets_unused_keys() -> None:
    class Header(str):
        """A text whose end can be observed."""

    limit, header = KeyLimit(1), Header(KEY)
    seen = weakref.ref(header)
    with limit.counted(header):
        pass
    del header
    gc.collect()
    assert seen() is None
