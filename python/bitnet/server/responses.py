"""POST /v1/responses."""

from typing import Any

from starlette.requests import Request
from starlette.types import ASGIApp

from .errors import ApiError
from .service import Service


async def responses(service: Service, request: Request, body: dict[str, Any]) -> ASGIApp:
    """Answer an input."""
    raise ApiError(501, "not there yet")
