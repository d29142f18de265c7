"""Notes of Airflow runs: the sentences that tasks leave, and the text that the run gets at its end."""

from __future__ import annotations

from collections.abc import Iterable

#: XCom key of a task's sentence for the note of its run.
RUN_NOTE = "run_note"
#: Last line of the text that the end of a run adds. A person's text comes after it.
WRITTEN = "*Written at the end of the run.*"
#: Maximum characters of a note in Airflow's database, and of one sentence in the note of a run.
LONGEST_NOTE, LONGEST_SENTENCE = 1000, 300


def run_note(before: str | None, sentences: Iterable[str]) -> str:
    """Return the note of a run in Markdown: the sentences, and a person's text in its note `before`.

    Airflow's page of a run shows the first line, so recipes that were skipped come last. A person's text that leaves no
    room stays alone: the scheduler ends if its database refuses a longer note.
    """
    text = before or ""
    own = text.partition(WRITTEN)[2] if WRITTEN in text else text
    tail = "\n\n".join(filter(None, [WRITTEN, own.strip()]))
    room = LONGEST_NOTE - len(tail) - 2
    if room < 1:
        return own.strip()
    ordered = sorted(sentences, key=lambda sentence: " skipped: " in sentence)
    listed = "\n\n".join(shortened(sentence, LONGEST_SENTENCE) for sentence in ordered)
    return f"{shortened(listed, room)}\n\n{tail}"


def shortened(text: str, longest: int = LONGEST_NOTE) -> str:
    """Return `text`, or its beginning if it has more than `longest` characters."""
    return text if len(text) <= longest else f"{text[: max(0, longest - 1)]}…"
