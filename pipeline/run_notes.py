"""Notes of Airflow runs: the sentences that tasks leave, and the text that the run gets at its end."""

from __future__ import annotations

from collections.abc import Iterable

#: XCom key of a task's sentence for the note of its run.
RUN_NOTE = "run_note"
#: First line of the text that the end of a run adds. Text before it is a person's and stays.
HEADING = "**Outcome**"
#: Maximum characters of a note in Airflow's database, and of one sentence in the note of a run.
LONGEST_NOTE, LONGEST_SENTENCE = 1000, 300


def run_note(before: str | None, sentences: Iterable[str]) -> str:
    """Return the note of a run in Markdown: a person's text in its note `before`, and the sentences as a list."""
    own = (before or "").partition(HEADING)[0].rstrip()
    listed = "\n".join(f"- {shortened(sentence, LONGEST_SENTENCE)}" for sentence in sentences)
    return shortened("\n\n".join(filter(None, [own, HEADING, listed])), LONGEST_NOTE)


def shortened(text: str, longest: int = LONGEST_NOTE) -> str:
    """Return `text`, or its beginning if it has more than `longest` characters."""
    return text if len(text) <= longest else f"{text[: longest - 1]}…"
