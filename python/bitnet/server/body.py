"""The body of a request: read within limits, parsed strictly, checked against a schema."""

import asyncio
import json
import math
import re
from difflib import get_close_matches
from typing import Any

from starlette.requests import ClientDisconnect, Request

from .errors import ApiError, ClientGone, invalid

Schema = dict[str, Any]
"""A JSON Schema, of the keywords that `check` knows."""

_MAX_DEPTH = 100
"""Levels of nesting that a body may have."""

_SHOWN = 60
"""Characters of a value in an error message."""

_ELSEWHERE = {
    "n_predict": "max_tokens",
    "num_predict": "max_tokens",
    "repeat_penalty": "repetition_penalty",
    "functions": "tools",
    "function_call": "tool_choice",
    "guided_json": "json_schema",
    "guided_regex": "regex",
    "guided_choice": "choice",
    "guided_grammar": "grammar",
    "structured_outputs": "json_schema, regex, choice or grammar",
    "thinking": "enable_thinking",
}
"""Fields of other servers, and what they are called here."""

_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
"""The escape of half a surrogate pair; a whole pair is one character."""

_NAMES = {
    "string": "a string",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "array": "a list",
    "object": "an object",
    "null": "null",
}
_CLASSES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "array": (list,),
    "object": (dict,),
    "null": (type(None),),
}


async def read(request: Request, limit: int, seconds: float) -> bytes:
    """Read the body, of at most `limit` bytes, within `seconds`."""
    if not request.headers.get("content-type", "").partition(";")[0].strip().lower() == "application/json":
        raise ApiError(415, "send JSON with the header Content-Type: application/json", code="unsupported_media_type")
    stated = request.headers.get("content-length", "0")
    if stated.isdecimal() and int(stated) > limit:
        raise _too_large(limit)
    try:
        return await asyncio.wait_for(_read(request, limit), seconds)
    except asyncio.TimeoutError:
        message = f"the body did not arrive within {seconds:g} seconds; send it faster, or in parts"
        raise ApiError(408, message, code="body_timeout", headers={"Connection": "close"}) from None
    except ClientDisconnect:
        raise ClientGone from None


async def _read(request: Request, limit: int) -> bytes:
    """Read all chunks."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise _too_large(limit)
    return bytes(body)


def _too_large(limit: int) -> ApiError:
    """A body of more bytes than the limit. What the client still sends is not read."""
    message = f"the body is larger than {limit} bytes; send less (the server's option --max-body sets the limit)"
    return ApiError(413, message, code="body_too_large", headers={"Connection": "close"})


def parse(body: bytes) -> Any:
    """Parse JSON as RFC 8259 has it: UTF-8, no NaN, no lone surrogates; and numbers that fit, limited nesting."""
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise invalid(f"the body is not UTF-8 text (byte {error.start})") from None
    try:
        value = json.loads(text, parse_constant=_refuse_constant)
    except RecursionError:
        raise _too_deep() from None
    except ValueError as error:
        raise invalid(f"the body is not valid JSON: {error}", code="invalid_json") from None
    _check_values(value)
    if _SURROGATE.search(text):
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise invalid("the body has half a surrogate pair (\\ud800 to \\udfff), which is not text") from None
    return value


def _refuse_constant(name: str) -> None:
    """Raise for NaN and the infinities, which Python's parser knows and JSON does not."""
    raise ValueError(f"{name} is not JSON")


def _too_deep() -> ApiError:
    """A body that is nested too deeply."""
    return invalid(f"the body is nested more than {_MAX_DEPTH} levels deep", code="invalid_json")


def _check_values(value: Any) -> None:
    """Refuse numbers beyond float64 and too many levels."""
    level = [value]
    for _ in range(_MAX_DEPTH):
        below: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                below += item.values()
            elif isinstance(item, list):
                below += item
            elif isinstance(item, float) and not math.isfinite(item):
                raise invalid("the body has a number that is too large", code="invalid_json")
        level = below
        if not level:
            return
    raise _too_deep()


def check(value: Any, schema: Schema, place: str = "") -> None:
    """Raise ApiError unless the value matches the schema. `place` is the value's name in messages."""
    if alternatives := schema.get("anyOf"):
        _check_any(value, alternatives, place)
        return
    kinds = schema.get("type", ())
    kinds = (kinds,) if isinstance(kinds, str) else kinds
    if kinds and not any(_is(value, kind) for kind in kinds):
        raise _unexpected(value, " or ".join(_NAMES[kind] for kind in kinds if kind != "null"), place)
    if value is None and "null" in kinds:
        return
    if "enum" in schema and value not in schema["enum"]:
        raise _unexpected(value, "one of " + ", ".join(json.dumps(name) for name in schema["enum"]), place)
    if isinstance(value, bool):
        return
    if isinstance(value, (int, float)):
        low, high = schema.get("minimum", -math.inf), schema.get("maximum", math.inf)
        if not low <= value <= high:
            bounds = f"at least {low}" if high == math.inf else f"from {low} to {high}"
            raise _unexpected(value, f"a number {bounds}", place)
    elif isinstance(value, str):
        _check_length(len(value), schema.get("minLength", 0), schema.get("maxLength"), "characters", place)
        if "pattern" in schema and not re.search(schema["pattern"], value):
            raise _unexpected(value, f"a text like {schema['pattern']}", place)
    elif isinstance(value, list):
        _check_length(len(value), schema.get("minItems", 0), schema.get("maxItems"), "items", place)
        _check_items(value, schema.get("items"), place)
    elif isinstance(value, dict):
        _check_object(value, schema, place)


def _is(value: Any, kind: str) -> bool:
    """Whether a value is of a type of JSON. Python counts true as 1."""
    return isinstance(value, _CLASSES[kind]) and (kind == "boolean" or not isinstance(value, bool))


def _check_any(value: Any, alternatives: list[Schema], place: str) -> None:
    """Check that the value matches an alternative. The error is that of the one which the value matches for longest."""
    errors = []
    for alternative in alternatives:
        try:
            check(value, alternative, place)
            return
        except ApiError as error:
            kinds = alternative.get("type", ())
            kinds = (kinds,) if isinstance(kinds, str) else kinds
            if any(_is(value, kind) for kind in kinds):
                errors.append(error)
    if errors:
        raise max(errors, key=lambda error: [int(index) for index in re.findall(r"\[(\d+)\]", error.param or "")])
    names = [one.get("title") or _NAMES[one["type"]] for one in alternatives if one.get("type") != "null"]
    raise _unexpected(value, " or ".join(dict.fromkeys(names)), place)


def _check_length(length: int, low: int, high: int | None, unit: str, place: str) -> None:
    """Check the length of a string or a list."""
    if length < low:
        raise invalid(f"{_named(place)} has {length} {unit}, expected at least {low}", place or None)
    if high is not None and length > high:
        raise invalid(f"{_named(place)} has {length} {unit}, expected at most {high}", place or None)


def _check_items(items: list[Any], schema: Schema | None, place: str) -> None:
    """Check the items of a list. Token ids are many, so they take a short way."""
    if schema is None:
        return
    if schema.get("type") == "integer" and all(type(item) is int for item in items):
        low, high = schema.get("minimum", -math.inf), schema.get("maximum", math.inf)
        if not items or (low <= min(items) and max(items) <= high):
            return
    for i, item in enumerate(items):
        check(item, schema, f"{place}[{i}]")


def _check_object(value: dict[str, Any], schema: Schema, place: str) -> None:
    """Check the members of an object."""
    known = schema.get("properties", {})
    others = schema.get("additionalProperties", True)
    for name, member in value.items():
        path = f"{place}.{name}" if place else name
        if name in known:
            check(member, known[name], path)
        elif isinstance(others, dict):
            check(member, others, path)
        elif not others:
            raise invalid(f"there is no field {_shown(path)}; {_advice(name, known)}", path[:_SHOWN], "unknown_field")
    for name in schema.get("required", ()):
        if name not in value:
            path = f"{place}.{name}" if place else name
            raise invalid(f"{_named(path)} is missing; expected {_described(known[name])}", path)


def _advice(name: str, known: Schema) -> str:
    """What to do about a field that does not exist. `known`: those that do."""
    elsewhere = _ELSEWHERE.get(name, "")
    meant = [elsewhere] if elsewhere.partition(",")[0] in known else get_close_matches(name, known, 1)
    return f"did you mean {meant[0]}?" if meant else "leave it out"


def _described(schema: Schema) -> str:
    """What a schema expects, in a few words."""
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(_described(one) for one in schema["anyOf"]))
    kinds = schema.get("type", "object")
    kinds = (kinds,) if isinstance(kinds, str) else kinds
    return schema.get("title") or " or ".join(_NAMES[kind] for kind in kinds)


def _unexpected(value: Any, expected: str, place: str) -> ApiError:
    """A value that is not what was expected."""
    return invalid(f"{_named(place)} is {_shown(value)}, expected {expected}", place or None)


def _named(place: str) -> str:
    """The name of a value in a message."""
    return f"'{place[:_SHOWN]}'" if place else "the body"


def _shown(value: Any) -> str:
    """The beginning of a value, for a message."""
    if isinstance(value, (dict, list)):
        return "an object" if isinstance(value, dict) else "a list"
    text = json.dumps(value) if not isinstance(value, str) else json.dumps(value[: _SHOWN + 1])
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
