"""Plain English: no phrase of the old dialect in documents, docstrings, comments, messages and help texts."""

from __future__ import annotations

import re
from itertools import product
from pathlib import Path

import pytest

from pipeline.config_file import ROOT

#: Folders (with all that is below them) and files that are checked.
PLACES = (
    "README.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "CHANGELOG.md",
    "Makefile",
    "pyproject.toml",
    "benchmarks",
    "dags",
    "docker",
    "docs",
    "plugins",
    "pipeline",
    "serving",
)
KINDS = {"", ".Dockerfile", ".css", ".example", ".html", ".js", ".md", ".py", ".toml", ".yaml", ".yml"}
#: Rows of the first are names of tests; names in the second enter the keys of artifacts.
EXEMPT = ("docs/results/long-tests.md", "pipeline/recipes/behaviour/")

#: Templates by the plain words to use instead; of the words between slashes, each one makes a phrase.
PHRASES = {
    "again, rebuilt, retrained": ("anew",),
    "compared with, checked against": ("held/hold/holds/holding against",),
    "resume, continue": (
        "go/goes/going/went on from/where/with/as/without",
        "where it was cut off",
    ),
    "rerun the command to resume": ("the same again",),
    "NaN, infinite": ("is/are/was/were/that no number/numbers",),
    "the pipeline, the whole path": ("the/whole road", "the whole way"),
    "synthetic, backfilled": ("made up", "made-up", "makes/make up for"),
    "per": (
        "one/once/twice/seconds/sentences/tokens/steps/requests/rows/texts/threads/times/operations/reviews a/an "
        "batch/core/day/device/gpu/line/machine/minute/night/process/recipe/request/row/run/second/stage/step/text"
        "/thread/token/turn/worker",
    ),
    "fix, repair": ("mend/mends/mended/mending",),
    "is in, is listed in": ("stand/stands/standing in/at/there/here/above/below/under/still/on/where/beside",),
    "next to, in addition to, concurrently with": ("beside it/them/each/another/other/others/the/one",),
    "reported, distinguished": ("is/are/was/were told of/about/in/by/,/.", "told of/once/from"),
    "the client, the caller, the user": (
        "whoever",
        "who asks/ask/comes/came/goes/went/waits/holds/has",
        "nobody who/asks/answers/waits/knows/reads",
    ),
    "so that ... not": ("lest",),
    "valid, invalid": ("as it must/should be", "that/which is/are none"),
    "needs, requires": ("wants/wanted a/an/the/its",),
    "if, when": (
        "where there/it/they/none/nothing/nobody/somebody/neither/both/one/all "
        "is/are/was/has/have/can/cannot/does/do/fails",
        "where that/this/a/an/the is/was/fails/can/cannot",
    ),
    "a noun instead of a clause": (
        "of/from/for/with/to/by/against/beside what is/was/were/are/has/had/it/they/others/can/cannot/came/comes/the",
        "what stands/becomes/became/came/comes/remains",
    ),
    "except": ("but for a/an/the/its/what/those/that",),
    "a number, the same number": ("so many", "as many as each", "as long as each"),
    "on which, in which": ("a night that/which/whose", "nights that"),
}
#: Phrases, as words with single spaces, with the plain words to use.
PLAIN = {
    " ".join(words): plain
    for plain, templates in PHRASES.items()
    for template in templates
    for words in product(*(part.split("/") for part in template.split()))
}
#: Lengths in words of the phrases that begin with a word.
LENGTHS: dict[str, set[int]] = {}
for _phrase in PLAIN:
    LENGTHS.setdefault(_phrase.split()[0], set()).add(len(_phrase.split()))
#: A word, or punctuation. Quotes and `#` are skipped, so that the lines of a comment or message are joined.
WORD = re.compile(r"#[:!]|\bf(?=\")|([\w'-]+|[.,;:()])")


def faults(text: str) -> list[str]:
    """Return the phrases of the dialect in `text`, as `line: phrase -> plain words`."""
    words = [word.lower() for word in WORD.findall(text) if word]
    found = [
        (number, phrase)
        for number, word in enumerate(words)
        for length in LENGTHS.get(word, ())
        if (phrase := " ".join(words[number : number + length])) in PLAIN
    ]
    starts = [match.start() for match in WORD.finditer(text) if match[1]] if found else []
    return [f"{text.count(chr(10), 0, starts[at]) + 1}: {phrase} -> {PLAIN[phrase]}" for at, phrase in found]


def files(place: str) -> list[Path]:
    """Return the files with prose in a folder, or the file itself."""
    path = ROOT / place
    found = sorted(path.rglob("*")) if path.is_dir() else [path]
    return [file for file in found if file.suffix in KINDS and file.is_file() and "__pycache__" not in file.parts]


@pytest.mark.parametrize("place", PLACES)
def test_prose_is_plain_english(place: str) -> None:
    named = {str(file.relative_to(ROOT)): file for file in files(place)}
    assert named
    found = {
        name: faults(file.read_text(encoding="utf-8")) for name, file in named.items() if not name.startswith(EXEMPT)
    }
    assert {name: phrases for name, phrases in found.items() if phrases} == {}


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("# Title\n\nIt is built\nanew.", 4),
        ('"""Return it.\n\nIt is Held\n    against the suite.\n"""', 3),
        ("x = 1\n#: A number, held\n#: against the suite.\n", 2),
        ('raise E(\n    f"{name} is held "\n    f"against {other}"\n)', 2),
        ("It runs one a core, in a thread.", 1),
    ],
    ids=["Markdown", "docstring", "comment", "message", "template"],
)
def test_phrase_is_found_across_line_breaks(text: str, line: int) -> None:
    (fault,) = faults(text)
    assert fault.startswith(f"{line}: ")


@pytest.mark.parametrize(
    "text", ["It is checked against one of a kind.", "test_it_is_made_anew", "One thread per core."]
)
def test_plain_text_and_names_pass(text: str) -> None:
    assert faults(text) == []
