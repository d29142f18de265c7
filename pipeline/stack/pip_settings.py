"""pip's configuration, translated for uv, which does not read it. Standard library only."""

from __future__ import annotations

import ast
import subprocess
from dataclasses import dataclass

#: Sections of `pip config list` that apply to an installation, later ones override earlier ones.
SECTIONS = ("global", "install", ":env:")
#: uv's variables, and the separator of their values, by pip's option. pip separates values by white space.
VARIABLES = {
    "index-url": ("UV_DEFAULT_INDEX", " "),
    "extra-index-url": ("UV_INDEX", " "),
    "find-links": ("UV_FIND_LINKS", ","),
    "no-index": ("UV_NO_INDEX", " "),
    "trusted-host": ("UV_INSECURE_HOST", " "),
    "timeout": ("UV_HTTP_TIMEOUT", " "),
    "cert": ("SSL_CERT_FILE", " "),
    "client-cert": ("SSL_CLIENT_CERT", " "),
    "proxy": ("ALL_PROXY", " "),
}


@dataclass(frozen=True)
class PipSettings:
    """pip's configuration for uv: environment variables, and files of constraints."""

    variables: dict[str, str]
    constraints: list[str]


def pip_settings(python: str) -> PipSettings:
    """Return the settings of the pip of `python`."""
    command = [python, "-m", "pip", "config", "list"]
    return translate(subprocess.run(command, capture_output=True, text=True, check=True).stdout)  # noqa: S603


def translate(listing: str) -> PipSettings:
    """Return the settings in the output of `pip config list`."""
    options = _options(listing)
    variables = {
        name: separator.join(options[option].split())
        for option, (name, separator) in VARIABLES.items()
        if option in options
    }
    # pip takes the best version of all its indexes; uv would stop at the first index that has the package.
    variables["UV_INDEX_STRATEGY"] = "unsafe-best-match"
    return PipSettings(variables, options.get("constraint", "").split())


def _options(listing: str) -> dict[str, str]:
    found: dict[str, dict[str, str]] = {section: {} for section in SECTIONS}
    for line in listing.splitlines():
        name, _, value = line.partition("=")
        section, _, option = name.rpartition(".")
        if section in found and value:
            found[section][option] = str(ast.literal_eval(value))
    return {option: value for section in SECTIONS for option, value in found[section].items()}
