"""Questions at a terminal: answers by number or name, the default, and no question on a pipe."""

from __future__ import annotations

import io
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from pipeline.cli.ask import choose, is_interactive
from pipeline.config_file import ROOT


def answer(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(text))


@pytest.mark.parametrize(
    ("text", "default", "chosen"),
    [
        ("2\n", [], ("요약",)),
        ("본문\n", [], ("본문",)),
        ("1, 요약\n", [], ("본문", "요약")),
        ("\n", ["요약"], ("요약",)),
        ("4\n0\n1,2,3\n,\n3\n", [], ("비고",)),
    ],
)
def test_answer_is_a_number_a_name_or_the_default(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    text: str,
    default: list[str],
    chosen: tuple[str, ...],
) -> None:
    answer(monkeypatch, text)
    assert choose("Which columns?", ["본문", "요약", "비고"], default, 2) == chosen
    shown = capsys.readouterr()
    # Standard output is for the result.
    assert shown.out.strip() == ""
    assert shown.err.startswith("Which columns?\n  1  본문\n  2  요약\n  3  비고\n")
    assert shown.err.count("answer with 1 to 2 choices") == text.count("\n") - 1


def test_end_of_input_aborts(monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch, "")
    with pytest.raises(typer.Abort):
        choose("Which column?", ["본문", "요약"], [], 1)


def test_pipe_is_not_interactive(monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch, "")
    assert not is_interactive()


def test_new_asks_on_a_terminal(tmp_path: Path) -> None:
    data = tmp_path / "stars.csv"
    data.write_text("후기,별점\n" + "".join(f"{n}번째 후기입니다,{n % 5}\n" for n in range(60)), encoding="utf-8")
    config = tmp_path / "saebyeok.toml"
    config.touch()
    person, terminal = pty.openpty()
    os.write(person, b"scores\n")
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.cli", "new", "stars", "--from", str(data), "--into", str(tmp_path / "own")],
        stdin=terminal,
        stderr=terminal,
        stdout=subprocess.PIPE,
        env=os.environ | {"SAEBYEOK_CONFIG": str(config)},
        cwd=ROOT,
        check=True,
    )
    os.close(terminal)
    os.close(person)
    assert "scores from 0 to 4" in done.stdout.decode()
    assert "score_range = [0.0, 4.0]" in (tmp_path / "own" / "stars.toml").read_text(encoding="utf-8")
