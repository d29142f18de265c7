"""The routes of docs/reference/http-api.md."""

from __future__ import annotations

import json
from typing import Any

from docs.generated import REFERENCE, table
from pipeline.config_file import ROOT

PAGE = REFERENCE / "http-api.md"
DOCUMENT = json.loads((ROOT / "serving" / "openapi.json").read_text(encoding="utf-8"))


def sections() -> dict[str, str]:
    """Return a table of the routes, and the fields of their bodies."""
    operations = [
        (f"{method.upper()} {path}", operation)
        for path, item in DOCUMENT["paths"].items()
        for method, operation in item.items()
    ]
    rows = [(f"`{name}`", operation["summary"]) for name, operation in operations]
    return {
        "routes": table(("Route", "Answer"), rows),
        "bodies": "\n\n".join(_bodies(name, operation) for name, operation in operations),
    }


def _bodies(name: str, operation: dict[str, Any]) -> str:
    parts = [f"## {name}", f"{operation['summary']}. {operation.get('description', '')}".strip()]
    if "requestBody" in operation:
        content = operation["requestBody"]["content"]["application/json"]
        parts += ["Request:", *map(_fields, _alternatives(content["schema"]))]
        if "example" in content:
            parts.append(f"```json\n{json.dumps(content['example'], ensure_ascii=False)}\n```")
    success = next(response for status, response in operation["responses"].items() if status.startswith("2"))
    for kind, content in success.get("content", {}).items():
        schemas = _alternatives(content["schema"])
        parts += ["Response:", *map(_answer_fields, schemas)] if kind == "application/json" else [f"Response: {kind}"]
    return "\n\n".join(parts)


def _alternatives(schema: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the schemas of a body, resolved; several if it may have several forms."""
    return [_resolved(item) for item in schema.get("anyOf") or schema.get("oneOf") or [schema]]


def _resolved(schema: dict[str, Any]) -> dict[str, Any]:
    name = schema.get("$ref", "").rpartition("/")[2]
    return DOCUMENT["components"]["schemas"][name] if name else schema


def _fields(schema: dict[str, Any]) -> str:
    """Return the fields of a request."""
    required = schema.get("required", [])
    rows = [
        (f"`{name}`", _type(item), "required" if name in required else _default(item), item.get("description", ""))
        for name, item in schema["properties"].items()
    ]
    return table(("Field", "Type", "Default", "Meaning"), rows).strip()


def _answer_fields(schema: dict[str, Any]) -> str:
    """Return the fields of a response, and those of the objects in it."""
    if "properties" not in schema:
        return "\n\n".join([_type(schema), *_inside("the list", schema)])
    fields = schema["properties"].items()
    rows = [(f"`{name}`", _type(item), item.get("description", "")) for name, item in fields]
    parts = [table(("Field", "Type", "Meaning"), rows).strip()]
    return "\n\n".join([*parts, *(part for name, item in fields for part in _inside(f"`{name}`", item))])


def _inside(place: str, schema: dict[str, Any]) -> list[str]:
    """Return a title and the fields of the objects in a list, or by name in an object; empty if it has none."""
    while inner := schema.get("items") or next(iter(schema.get("anyOf", [])), None):
        schema = _resolved(inner)
    values = schema.get("additionalProperties")
    found = _resolved(values) if isinstance(values, dict) else schema
    return [f"An item of {place}:", _answer_fields(found)] if "properties" in found else []


def _default(item: dict[str, Any]) -> str:
    return f"`{json.dumps(item['default'])}`" if "default" in item else ""


def _type(schema: dict[str, Any], *, bounds: bool = True) -> str:
    if options := schema.get("anyOf") or schema.get("oneOf"):
        # Many forms are easier to compare without their bounds.
        few = bounds and len(options) <= 2
        return " or ".join(dict.fromkeys(_type(option, bounds=few) for option in options))
    if name := schema.get("$ref", "").rpartition("/")[2]:
        found = DOCUMENT["components"]["schemas"][name]
        return _type(found) if "properties" not in found else "object"
    if "enum" in schema:
        return " or ".join(json.dumps(value) for value in schema["enum"])
    if schema.get("type") == "array":
        size = _bound(schema, "maxItems", "items") if bounds else ""
        return f"list{size} of {_type(schema.get('items', {}), bounds=bounds)}"
    if isinstance(schema.get("additionalProperties"), dict):
        return f"object of {_type(schema['additionalProperties'], bounds=bounds)}"
    return f"{schema.get('type', 'any')}{_bound(schema, 'maxLength', 'characters') if bounds else ''}"


def _bound(schema: dict[str, Any], name: str, unit: str) -> str:
    return f" (at most {schema[name]:,} {unit})" if name in schema else ""
