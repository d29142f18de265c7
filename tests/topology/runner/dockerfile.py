"""Dockerfiles as lists of instructions, and their values."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Instruction:
    """One instruction, such as `RUN` with its command; continued lines are joined."""

    name: str
    text: str

    def words(self) -> list[str]:
        """Return the words of the text: a JSON list as it is, anything else as the shell splits it."""
        if self.text.startswith("["):
            words: list[str] = json.loads(self.text)
            return words
        return shlex.split(self.text)

    def pairs(self) -> dict[str, str]:
        """Return the values of `ENV` and `ARG`; an `ARG` without a value is empty."""
        return {name: value for name, _, value in (word.partition("=") for word in self.words())}


def read_instructions(path: Path) -> Iterator[Instruction]:
    """Yield the instructions of a Dockerfile. Comments between continued lines are dropped, as Docker does."""
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if not re.match(r"\s*#", line)]
    for line in re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines():
        if line.strip():
            name, _, text = line.strip().partition(" ")
            yield Instruction(name.upper(), text.strip())


def healthcheck(text: str) -> dict[str, Any]:
    """Return the health check of a `HEALTHCHECK` instruction in the form of a compose file."""
    options, _, command = text.partition("CMD ")
    found = dict(re.findall(r"--([a-z-]+)=(\S+)", options))
    test = ["CMD", *json.loads(command)] if command.startswith("[") else ["CMD-SHELL", command]
    return {name.replace("-", "_"): value for name, value in found.items()} | {"test": test}
