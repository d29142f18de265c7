"""The tables of encoders of docs/reference/encoder.md."""

from __future__ import annotations

from docs.fields import field_table, model_sections
from docs.generated import REFERENCE
from pipeline.pretraining.spec import EncoderSpec

PAGE = REFERENCE / "encoder.md"


def sections() -> dict[str, str]:
    """Return the fields of an encoder's TOML file, and those of its tables."""
    return {"encoder": field_table(EncoderSpec), "tables": model_sections(EncoderSpec)}
