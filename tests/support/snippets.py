"""Code blocks of the README, the contributing guide, the tutorials and the how-to guides."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline.config_file import ROOT

GUIDES = (
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs" / "tutorial").glob("*.md")),
    *sorted((ROOT / "docs" / "how-to").glob("*.md")),
)
#: Languages of blocks that a reader runs or copies into a file.
RUNNABLE = ("sh", "python", "toml", "json")
BLOCK = re.compile(
    r"(?:<!-- (?P<note>[^>]*) -->\n)?^```(?P<language>\w+)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL
)


@dataclass(frozen=True)
class Snippet:
    """A code block; `note` is the comment above it, which names the test that runs it or says why none does."""

    page: Path
    line: int
    language: str
    code: str
    note: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def commands(self) -> Iterator[str]:
        """Yield the commands of a shell block, without comments; a command may continue on the next line."""
        for line in self.code.replace("\\\n", " ").splitlines():
            if words := shlex.split(line, comments=True):
                yield shlex.join(words)


def snippets(*pages: Path) -> list[Snippet]:
    """Return the blocks of `pages` in a runnable language."""
    return [snippet for page in pages for snippet in _blocks(page) if snippet.language in RUNNABLE]


def _blocks(page: Path) -> Iterator[Snippet]:
    text = page.read_text(encoding="utf-8")
    for match in BLOCK.finditer(text):
        line = text.count("\n", 0, match.start("code")) + 1
        yield Snippet(page, line, match["language"], match["code"], match["note"] or "")
