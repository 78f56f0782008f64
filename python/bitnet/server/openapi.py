"""The OpenAPI document."""

from typing import Any


def document(service: Any) -> dict[str, Any]:
    return {}
