"""JSON schemas that refuse what they do not name."""

from __future__ import annotations

from typing import Any


def closed(schema: Any) -> Any:
    """A JSON schema in which objects have no properties but those that are named, and patterns are Python's and not Go's."""
    if isinstance(schema, dict):
        own = {name: closed(value) for name, value in schema.items()}
        if isinstance(own.get("pattern"), str):
            own["pattern"] = own["pattern"].replace("^(?i)", "(?i)^")
        return own | {"additionalProperties": False} if "properties" in schema else own
    return [closed(value) for value in schema] if isinstance(schema, list) else schema
