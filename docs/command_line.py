"""The commands and their options of docs/reference/cli.md."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import typer

from docs.generated import REFERENCE, table
from pipeline.cli.app import app

PAGE = REFERENCE / "cli.md"
#: Names of values in usage lines, by type.
PLACEHOLDERS = {"int": "INTEGER", "float": "NUMBER", "Path": "FILE", "datetime": "DATE"}


def sections() -> dict[str, str]:
    """Return the commands with their options, by the panels of `saebyeok --help`."""
    parts: list[str] = []
    for panel, commands in _panels().items():
        parts.append(f"## {panel}")
        parts += [_command(name, command) for name, command in commands.items()]
    return {"commands": "\n\n".join(parts)}


def leaf_commands(group: Any = None, before: str = "saebyeok") -> Iterator[tuple[str, Any]]:
    """Yield each command with its full name, such as `saebyeok arrivals accept`; groups are not commands."""
    group = group or typer.main.get_command(app)
    for name, command in group.commands.items():
        full = f"{before} {name}"
        if hasattr(command, "commands"):
            for found, leaf in leaf_commands(command, full):
                leaf.rich_help_panel = command.rich_help_panel
                yield found, leaf
        else:
            yield full, command


def _panels() -> dict[str, dict[str, Any]]:
    panels: dict[str, dict[str, Any]] = {}
    for name, command in leaf_commands():
        panels.setdefault(command.rich_help_panel, {})[name] = command
    return panels


def _command(name: str, command: Any) -> str:
    arguments = " ".join(_argument(item) for item in command.params if item.param_type_name == "argument")
    rows = [(_names(item), _meaning(item)) for item in command.params if not item.hidden]
    usage = f"### {name}\n\n`{f'{name} {arguments}'.strip()}`: {command.help.strip()}"
    return f"{usage}\n\n{table(('Argument', 'Meaning'), rows).strip()}" if rows else usage


def _names(item: Any) -> str:
    if item.param_type_name == "argument":
        return f"`{_argument(item)}`"
    value = "" if item.is_flag else f" {_value(item)}"
    return ", ".join(f"`{name}{value}`" for name in (*item.opts, *item.secondary_opts))


def _argument(item: Any) -> str:
    return str(item.metavar or item.name.upper())


def _value(item: Any) -> str:
    kind = getattr(item.type_descriptor.annotation, "__name__", "")
    return str(item.metavar or PLACEHOLDERS.get(kind, "TEXT"))


def _meaning(item: Any) -> str:
    notes = ["Required."] if item.required and item.param_type_name == "option" else []
    notes += ["May be repeated."] if item.multiple else []
    if item.show_default is True and item.default not in (None, False, ()) and "Default:" not in (item.help or ""):
        notes.append(f"Default: {item.opts[0] if getattr(item, 'is_flag', False) else item.default}.")
    return " ".join([item.help or "", *notes]).strip()
