"""Kinds of task: what goes in, and the route of the service that answers it."""

from __future__ import annotations

from typing import Literal

Kind = Literal["classification", "regression"]
Inputs = Literal["text", "pair"]
Route = Literal["/classify", "/similarity", "/score"]
#: Where the service is asked for the answers of a release, by what it makes of what.
ROUTES: dict[tuple[Kind, Inputs], Route] = {
    ("classification", "text"): "/classify",
    ("classification", "pair"): "/classify",
    ("regression", "pair"): "/similarity",
    ("regression", "text"): "/score",
}
