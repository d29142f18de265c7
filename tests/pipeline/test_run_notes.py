"""The note that a run of Airflow gets at its end."""

from __future__ import annotations

import pytest

from pipeline.run_notes import LONGEST_NOTE, WRITTEN, run_note, shortened

SENTENCES = ["klue-sts skipped: not chosen", "nsmc refused: too short"]
NOTE = f"nsmc refused: too short\n\nklue-sts skipped: not chosen\n\n{WRITTEN}"


@pytest.mark.parametrize("before", [None, "", f"nsmc.train failed: before the run was cleared\n\n{WRITTEN}"])
def test_note_has_the_sentences_of_this_try(before: str | None) -> None:
    # Airflow's page of a run shows the first line.
    assert run_note(before, SENTENCES) == NOTE


def test_note_keeps_a_persons_text() -> None:
    once = run_note("Ask kim.\n", SENTENCES)
    assert once == f"{NOTE}\n\nAsk kim."
    assert run_note(once, ["nsmc skipped: same"]) == f"nsmc skipped: same\n\n{WRITTEN}\n\nAsk kim."


def test_long_sentences_leave_room_for_the_others() -> None:
    note = run_note(None, ["한" * 2000, "second"])
    assert note == f"{'한' * 299}…\n\nsecond\n\n{WRITTEN}"
    full = run_note("Ask kim.", ["한" * 300] * 9)
    assert len(full) == LONGEST_NOTE
    assert full.endswith(f"…\n\n{WRITTEN}\n\nAsk kim.")


@pytest.mark.parametrize("length", [963, 964, 965, 970, 1000])
def test_note_of_a_long_text_fits_the_database(length: int) -> None:
    own = "가" * length
    note = run_note(own, SENTENCES)
    assert len(note) <= LONGEST_NOTE
    assert note.endswith(own)
    assert len(run_note(note, SENTENCES)) <= LONGEST_NOTE


def test_text_within_the_limit_is_not_shortened() -> None:
    assert (shortened("한국어", 3), shortened("한국어.", 3)) == ("한국어", "한국…")
