"""Requests of /v1/responses: their schema, and what they are as messages and fields of a chat request."""

from typing import Any

from .body import Schema
from .errors import invalid
from .schemas import FUNCTION_NAME, NAME, array, common, sampling, structure
from .settings import Settings

_STRING: Schema = {"type": "string"}
_OBJECT: Schema = {"type": "object"}
_FLAG: Schema = {"type": "boolean"}


def _kind(*names: str) -> Schema:
    """The schema of the member "type"."""
    return {"type": "string", "enum": list(names)}


_PART = structure(
    {"type": _kind("input_text", "output_text", "text", "refusal"), "text": _STRING, "refusal": _STRING},
    "type",
    others=True,
)
_CONTENT: Schema = {"anyOf": [_STRING, array(_PART)]}
_ITEM = structure(
    {
        "type": _kind("message", "function_call", "function_call_output", "reasoning"),
        "role": {"type": "string", "enum": ["system", "developer", "user", "assistant"]},
        "content": _CONTENT | {"description": "of a message"},
        "call_id": _STRING | {"description": "of a function_call and of its output"},
        "name": _STRING | {"description": "of a function_call"},
        "arguments": _STRING | {"description": "of a function_call, as JSON text"},
        "output": _CONTENT | {"description": "of a function_call_output"},
        "summary": array(_OBJECT),
    },
    others=True,
)
# The content of a reasoning item has parts of its own type.
_REASONING = structure(
    {"type": _kind("reasoning"), "content": array(_OBJECT), "summary": array(_OBJECT)}, "type", others=True
)
_TOOL = structure(
    {
        "type": _kind("function"),
        "name": FUNCTION_NAME,
        "description": _STRING,
        "parameters": _OBJECT,
        "strict": _FLAG,
    },
    "type",
    "name",
)
_TOOL_CHOICE: Schema = {
    "anyOf": [
        {"type": "string", "enum": ["none", "auto", "required"]},
        structure({"type": _kind("function"), "name": FUNCTION_NAME}, "type", "name"),
    ]
}
_FORMAT = structure(
    {
        "type": _kind("text", "json_object", "json_schema"),
        "name": NAME,
        "description": _STRING,
        "schema": _OBJECT,
        "strict": _FLAG,
    },
    "type",
)


def schema(settings: Settings) -> Schema:
    """The body of /v1/responses."""
    shared = common(settings)
    del shared["n"]
    chosen = sampling(settings)
    del chosen["max_tokens"]
    return structure(
        {
            "input": {"anyOf": [_STRING, array({"anyOf": [_REASONING, _ITEM]}, 1)]},
            "instructions": _STRING | {"description": "a system message before the input"},
            **shared,
            **chosen,
            "max_output_tokens": {"type": "integer", "minimum": 1, "maximum": settings.max_tokens or 2**63 - 1},
            "top_logprobs": {"type": "integer", "minimum": 0, "maximum": 20},
            "include": array(_STRING),
            "text": structure({"format": _FORMAT, "verbosity": _STRING}),
            "tools": array(_TOOL, 0, 128),
            "tool_choice": _TOOL_CHOICE,
            "parallel_tool_calls": _FLAG,
            "metadata": _OBJECT | {"description": "comes back as it is"},
            "reasoning": _OBJECT | {"description": "accepted, without effect"},
            "max_tool_calls": {"description": "accepted, without effect"},
            "truncation": {"type": "string", "enum": ["disabled"]},
            "background": {"type": "boolean", "enum": [False]},
            "previous_response_id": _STRING | {"description": "refused: nothing is stored"},
            "enable_thinking": _FLAG,
            "chat_template_kwargs": _OBJECT,
        },
        "input",
    )


def as_chat(body: dict[str, Any]) -> dict[str, Any]:
    """The fields of a chat request that mean the same."""
    if "previous_response_id" in body:
        message = "responses are not stored, so 'previous_response_id' cannot be found; send the whole input again"
        raise invalid(message, "previous_response_id", "unsupported")
    chat = {name: value for name, value in body.items() if name not in ("input", "text", "tools", "tool_choice")}
    form = (body.get("text") or {}).get("format") or {"type": "text"}
    if form["type"] == "json_schema":
        described = {name: value for name, value in form.items() if name != "type"}
        chat["response_format"] = {"type": "json_schema", "json_schema": described}
    elif form["type"] == "json_object":
        chat["response_format"] = form
    if body.get("tools"):
        chat["tools"] = [
            {"type": "function", "function": {name: value for name, value in tool.items() if name != "type"}}
            for tool in body["tools"]
        ]
    if (choice := body.get("tool_choice")) is not None:
        by_name = isinstance(choice, dict)
        chat["tool_choice"] = {"type": "function", "function": {"name": choice["name"]}} if by_name else choice
    return chat | {"messages": messages(body)}


def messages(body: dict[str, Any]) -> list[dict[str, Any]]:
    """The instructions and the input as messages of a chat request."""
    found: list[dict[str, Any]] = []
    if body.get("instructions"):
        found.append({"role": "system", "content": body["instructions"]})
    if isinstance(body["input"], str):
        return [*found, {"role": "user", "content": body["input"]}]
    thoughts: str | None = None
    for i, item in enumerate(body["input"]):
        kind = item.get("type") or "message"
        if kind == "reasoning":
            thoughts = _reasoning(item)
        elif kind == "function_call_output":
            content = _text(_member(item, "output", i))
            found.append({"role": "tool", "tool_call_id": _member(item, "call_id", i), "content": content})
        elif kind == "function_call":
            function = {"name": _member(item, "name", i), "arguments": _member(item, "arguments", i)}
            call = {"id": _member(item, "call_id", i), "type": "function", "function": function}
            if thoughts is not None or not found or found[-1]["role"] != "assistant":
                found.append(_assistant(None, thoughts))
                thoughts = None
            found[-1].setdefault("tool_calls", []).append(call)
        else:
            role, content = _member(item, "role", i), _text(_member(item, "content", i))
            own = role == "assistant"
            found.append(_assistant(content, thoughts) if own else {"role": role, "content": content})
            thoughts = None
    return found


def _member(item: dict[str, Any], name: str, i: int) -> Any:
    """A member that an item of this type needs."""
    if item.get(name) is None:
        path = f"input[{i}].{name}"
        raise invalid(f"'{path}' is missing; expected a string", path)
    return item[name]


def _assistant(content: str | None, thoughts: str | None) -> dict[str, Any]:
    """An earlier answer, with its thoughts if there are any."""
    return {"role": "assistant", "content": content} | ({"reasoning_content": thoughts} if thoughts else {})


def _text(content: Any) -> str:
    """The text of a content that may have parts."""
    if isinstance(content, str):
        return content
    return "\n".join(part.get("text") or part.get("refusal") or "" for part in content)


def _reasoning(item: dict[str, Any]) -> str | None:
    """The text of a reasoning item, from its content or else its summary."""
    for parts in (item.get("content"), item.get("summary")):
        texts = [part["text"] for part in parts or () if isinstance(part, dict) and isinstance(part.get("text"), str)]
        if texts:
            return "\n".join(texts)
    return None
