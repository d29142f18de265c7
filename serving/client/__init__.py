"""The Python client, also a distribution of its own: `from saebyeok_client import Client` (see README.md)."""

from .client import (
    AsyncClient,
    Backoff,
    CallError,
    Client,
    ClientError,
    FailedCallError,
    NoAnswerError,
    RefusedCallError,
)

__all__ = [
    "AsyncClient",
    "Backoff",
    "CallError",
    "Client",
    "ClientError",
    "FailedCallError",
    "NoAnswerError",
    "RefusedCallError",
]
