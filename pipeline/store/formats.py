"""Formats of the store's records: each record carries a number, so that readers notice a newer one."""

from __future__ import annotations

from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from pipeline import __version__
from pipeline.errors import NewerFormatError

ANYTHING = TypeAdapter[Any](Any)


class Record(BaseModel):
    """A JSON document in the store. A subclass that changes its fields raises the default of `format`.

    Documents of version 0.1 have no `format`; they count as format 1.
    """

    # Keep NaN in JSON: with null, a figure would be absent and the record could not be parsed again.
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")

    format: int = Field(default=1, ge=1, description="format of the record; each kind of record counts its own")

    @classmethod
    def newest_format(cls) -> int:
        """Return the newest format that this version reads, which is the one that it writes."""
        return int(cls.model_fields["format"].default)

    @classmethod
    def upgraded(cls, document: dict[str, Any]) -> dict[str, Any]:
        """Return a document of an older format with the fields of the newest; a subclass adds the missing fields."""
        return document

    def document(self) -> dict[str, Any]:
        """Return the record for `--json`, without the number of its format."""
        return self.model_dump(mode="json", exclude={"format"})

    @classmethod
    def parse(cls, content: bytes | str, where: str) -> Self:
        """Return the record in `content`, also one of an older format. `where` names it in errors.

        Raises ValueError with a short text if it is damaged, and NewerFormatError if a newer version wrote it.
        """
        try:
            document = ANYTHING.validate_json(content)
        except ValidationError as error:
            raise ValueError(_first(error)) from error
        written = document.get("format", 1) if isinstance(document, dict) else None
        newest = cls.newest_format()
        _check_format(written, newest, where)
        if isinstance(written, int) and written < newest:
            document = cls.upgraded(document) | {"format": newest}
        try:
            return cls.model_validate(document)
        except ValidationError as error:
            raise ValueError(_first(error)) from error


def _check_format(written: object, newest: int, where: str) -> None:
    if isinstance(written, int) and written > newest:
        raise NewerFormatError(
            f"{where} has format {written}; version {__version__} reads formats up to {newest}. A newer version of "
            "Saebyeok wrote it: update Saebyeok here"
        )


def _first(error: ValidationError) -> str:
    first = error.errors()[0]
    place = ".".join(map(str, first["loc"]))
    return f"{place}: {first['msg']}" if place else first["msg"]
