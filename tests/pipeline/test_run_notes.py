"""The note that a run of Airflow gets at its end."""

from __future__ import annotations

import pytest

from pipeline.run_notes import LONGEST_NOTE, run_note, shortened

WRITTEN = "**Outcome**\n\n- nsmc refused: too short\n- klue-sts promoted as deployment 3"


@pytest.mark.parametrize("before", [None, "", "**Outcome**\n\n- from before the run was cleared"])
def test_note_lists_the_sentences_of_this_try(before: str | None) -> None:
    assert run_note(before, ["nsmc refused: too short", "klue-sts promoted as deployment 3"]) == WRITTEN


def test_note_keeps_a_persons_text() -> None:
    once = run_note("Ask kim.\n", ["nsmc refused: too short", "klue-sts promoted as deployment 3"])
    assert once == f"Ask kim.\n\n{WRITTEN}"
    assert run_note(once, ["nsmc skipped"]) == "Ask kim.\n\n**Outcome**\n\n- nsmc skipped"


def test_long_sentences_leave_room_for_the_others() -> None:
    note = run_note(None, ["한" * 2000, "second"])
    assert note.splitlines()[2:] == [f"- {'한' * 299}…", "- second"]
    assert len(run_note(None, ["한" * 300] * 9)) == LONGEST_NOTE


def test_text_within_the_limit_is_not_shortened() -> None:
    assert (shortened("한국어", 3), shortened("한국어.", 3)) == ("한국어", "한국…")
