"""Requests made up by Schemathesis from the committed OpenAPI document, right ones and wrong ones."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as hypothesis_settings
from schemathesis import GenerationMode
from schemathesis.checks import (
    content_type_conformance,
    negative_data_rejection,
    not_a_server_error,
    positive_data_acceptance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from schemathesis.config import SchemathesisConfig

from serving.api.auth import deploy_token
from serving.api.openapi import COMMITTED
from serving.schemas import ErrorType
from tests.support.running_service import Service

KEY = "a-key-of-the-fuzzer"

#: What holds for any answer.
ALWAYS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]


#: Schemathesis knows what may be said of wrong and right data, but not that either may be larger than any body may be.
TOO_LARGE = str(ErrorType.TOO_LARGE.status)
CONFIG = SchemathesisConfig.from_dict(
    {
        "checks": {
            "negative_data_rejection": {
                "expected-statuses": ["400", "401", "404", "405", "409", TOO_LARGE, "415", "422", "429", "5xx"]
            },
            "positive_data_acceptance": {"expected-statuses": ["2xx", "401", "404", "409", TOO_LARGE, "429", "5xx"]},
        }
    }
)


def fuzz(service: Service, cases: int, key: str | None, *, same_again: bool) -> Counter[int]:
    """Send `cases` requests or more with `key`; how often each status came. Any answer outside the document fails.

    `same_again` makes up the same requests every time.
    """
    schema = schemathesis.openapi.from_dict(json.loads(COMMITTED.read_text(encoding="utf-8")), config=CONFIG)
    operations = [result.ok() for result in schema.get_all_operations()]
    asking = [operation for operation in operations if operation.method != "get"]
    statuses: Counter[int] = Counter()
    with requests.Session() as session:
        session.trust_env = False
        for operation in operations:
            # Without a body there is little to make up.
            wanted, modes = 1, [GenerationMode.POSITIVE]
            if operation in asking:
                wanted, modes = -(-cases // (2 * len(asking))), [GenerationMode.POSITIVE, GenerationMode.NEGATIVE]
            for mode in modes:
                statuses += _ask(service, session, operation, mode, wanted, key, same_again=same_again)
    return statuses


def _ask(
    service: Service,
    session: requests.Session,
    operation: Any,
    mode: GenerationMode,
    wanted: int,
    key: str | None,
    *,
    same_again: bool,
) -> Counter[int]:
    stages = operation.path == "/releases/stage"
    # What the schema allows may be no release's ref.
    checks = [*ALWAYS, negative_data_rejection, *([] if stages else [positive_data_acceptance])]
    secret = deploy_token(service.settings) if stages else key
    headers = {} if secret is None else {"Authorization": f"Bearer {secret}"}
    statuses: Counter[int] = Counter()

    @hypothesis_settings(
        max_examples=wanted,
        deadline=None,
        database=None,
        derandomize=same_again,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.explicit, Phase.generate, Phase.shrink],
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def send(case: Any) -> None:
        url = service.settings.service_url
        answer = case.call_and_validate(base_url=url, session=session, headers=headers, checks=checks)
        statuses[answer.status_code] += 1

    send()
    return statuses
