"""The form of text that every model reads, and the form for messages."""

from __future__ import annotations

import unicodedata

import pytest

from pipeline.texts import composed, visible, without_secrets


def test_decomposed_hangul_is_composed() -> None:
    assert composed(unicodedata.normalize("NFD", "재밌다 café")) == "재밌다 café"
    # Typed laughter and full-width forms are other characters, not another form of the same ones.
    assert composed("ㅋㅋ １") == "ㅋㅋ １"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("긍정", "긍정"),
        ("two words", "two words"),
        ("ㅋㅋ", "ㅋㅋ"),
        ("", "''"),
        (" ", "' '"),
        ("1\r", r"'1\r'"),
        ("a\tb", r"'a\tb'"),
        ("1\u200b", r"'1\u200b'"),
        ("１", r"'\uff11'"),
        ("Ａ급", r"'\uff21급'"),
        ("\U000e0041", r"'\U000e0041'"),
    ],
)
def test_nothing_in_a_message_is_invisible(text: str, shown: str) -> None:
    assert visible(text) == shown


def test_secrets_in_urls_are_hidden() -> None:
    error = "GET https://user:p@ss@hub.example/x?a=b@c failed after http://token@127.0.0.1:3000; ask me@example.com"
    shown = "GET https://***@hub.example/x?*** failed after http://***@127.0.0.1:3000; ask me@example.com"
    assert without_secrets(error) == shown
