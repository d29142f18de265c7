"""Records of the store, which nobody may change or add to."""

from __future__ import annotations

import pytest
from pydantic import BaseModel, ValidationError


def check_strict(record: BaseModel) -> None:
    """Fail unless an unknown field is refused, and a known one cannot be set."""
    with pytest.raises(ValidationError, match="extra_forbidden"):
        type(record).model_validate({**dict(record), "unknown": 1})
    name = next(iter(type(record).model_fields))
    with pytest.raises(ValidationError, match="frozen_instance"):
        setattr(record, name, getattr(record, name))
