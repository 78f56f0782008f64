"""Errors in OpenAI's form: {"error": {"message", "type", "param", "code"}}."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from starlette.responses import JSONResponse

from .. import SamplingParams
from ..errors import BitnetError, ClosedError, ContextLengthError, OutOfMemoryError, ReceiptError

_TYPES = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}
"""The error's type by its status. Other statuses below 500 are the request's fault, the rest the server's."""


_PARAMETER = re.compile(r"(\w+)(?: is | has |: )")
"""How the engine's messages begin that are about a sampling parameter."""


class ApiError(Exception):
    """A request that is refused or that failed.

    Args:
        status: The HTTP status.
        message: What was found, what was expected and what to do.
        param: The field of the request, such as "messages[0].role"; None if it is not about one.
        code: A word for programs, such as "context_length_exceeded".
        headers: Further headers of the response.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code
        self.headers = headers

    def document(self) -> dict[str, Any]:
        """The JSON document that tells of the error."""
        kind = _TYPES.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    def response(self) -> JSONResponse:
        """The HTTP response that tells of the error."""
        return JSONResponse(self.document(), self.status, self.headers)


class ClientGone(Exception):
    """The client has closed the connection, so nobody waits for the answer."""


def invalid(message: str, param: str | None = None, code: str | None = None) -> ApiError:
    """A request that is refused with status 400."""
    return ApiError(400, message, param=param, code=code)


def shutting_down() -> ApiError:
    """A request that the server does not answer because it ends."""
    return ApiError(503, "the server is shutting down; try again later", code="shutting_down")


def of_engine(error: BaseException, param: str | None = None) -> ApiError | None:
    """An error of the engine as one of the API; None for an error that no request should cause."""
    message = str(error)
    if (named := _PARAMETER.match(message)) and hasattr(SamplingParams, named[1]):
        param = named[1]
    if isinstance(error, ContextLengthError):
        return invalid(message.partition(";")[0], param, "context_length_exceeded")
    if isinstance(error, ClosedError):
        return shutting_down()
    if isinstance(error, OutOfMemoryError):
        return ApiError(503, f"{message}; try again later", code="out_of_memory", headers={"Retry-After": "1"})
    if isinstance(error, ReceiptError):
        return invalid(message, param or "receipt", "invalid_receipt")
    if isinstance(error, (BitnetError, TypeError, ValueError, OverflowError)):
        return invalid(message, param)
    return None


@contextmanager
def engine_arguments(param: str | None = None) -> Iterator[None]:
    """Turn what the engine says of its arguments into an error of the API, about the field `param`."""
    try:
        yield
    except ApiError:
        raise
    except (BitnetError, TypeError, ValueError, OverflowError) as error:
        raise of_engine(error, param) or error from error
