"""The Python client: `from serving.client import Client`."""

from serving.client.client import (
    AsyncClient,
    Backoff,
    CallError,
    Client,
    FailedCallError,
    NoAnswerError,
    RefusedCallError,
)

__all__ = ["AsyncClient", "Backoff", "CallError", "Client", "FailedCallError", "NoAnswerError", "RefusedCallError"]
