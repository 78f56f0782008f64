"""The form of an answer: response_format, tools and the like, in the engine's parameters."""

from typing import Any

from .._schema import closed
from .errors import invalid

FORMS = ("json_schema", "regex", "choice", "grammar")
"""Sampling parameters that say which form the answer has."""


def form(body: dict[str, Any]) -> dict[str, Any]:
    """The sampling parameter that the request's form of the answer is; empty for plain text."""
    given = {name: body[name] for name in FORMS if name in body}
    wanted = body.get("response_format", {"type": "text"})
    # Clients send the format of the last answer with every request; one that has to be a call has no text.
    if wanted["type"] != "text" and not asks_for_call(body):
        if given:
            raise invalid(f"response_format and {next(iter(given))} both set the answer's form; give one of them")
        given = {"json_schema": _schema(wanted)}
    if len(given) > 1:
        raise invalid(f"{' and '.join(given)} both set the answer's form; give one of them", next(iter(given)))
    if given.get("json_schema") is False:
        raise invalid("'json_schema' is false, which no answer matches; leave it out for plain text", "json_schema")
    return given


def asks_for_call(body: dict[str, Any]) -> bool:
    """Whether the answer has to be a call of a tool."""
    return bool(body.get("tools")) and body.get("tool_choice") not in (None, "none", "auto")


def _schema(wanted: dict[str, Any]) -> Any:
    """The JSON Schema of a response_format; True for any object.

    As other servers do it, objects get no properties beyond those that the schema lists, unless it says otherwise.
    """
    if wanted["type"] == "json_object":
        return closed(wanted["schema"]) if wanted.get("schema") else True
    described = wanted.get("json_schema") or wanted  # llama-server takes the schema without the object around it
    if described.get("schema") is None:
        path = "response_format.json_schema.schema"
        raise invalid(f"'{path}' is missing; expected an object with a JSON Schema", path)
    return closed(described["schema"])


def tools(body: dict[str, Any]) -> dict[str, Any]:
    """The arguments of `Engine.chat` that tell of tools."""
    given, choice = body.get("tools"), body.get("tool_choice")
    if not given:
        if choice not in (None, "none", "auto"):
            raise invalid("'tool_choice' asks for a call, but there are no 'tools'; give tools", "tool_choice")
        return {}
    if isinstance(choice, dict):
        names = [tool["function"]["name"] for tool in given]
        if choice["function"]["name"] not in names:
            raise invalid(f"'tool_choice' names no tool; the tools are {', '.join(names)}", "tool_choice")
    found = {"tools": given, "tool_choice": choice, "parallel_tool_calls": body.get("parallel_tool_calls")}
    return {name: value for name, value in found.items() if value is not None}


def calls(answer: Any) -> list[dict[str, Any]]:
    """The tool calls of a `Completion` or a `Piece`."""
    return list(getattr(answer, "tool_calls", None) or ())


def finish_reason(reason: str | None, called: bool) -> str | None:
    """The engine's finish reason in OpenAI's words."""
    if reason == "stop" and called:
        return "tool_calls"
    return {"context": "length", "cancelled": "stop"}.get(reason or "", reason)
