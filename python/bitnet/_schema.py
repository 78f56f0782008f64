"""The argument `json_schema`, and `Completion.parsed`."""

import dataclasses
import enum
import json
import types
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from .errors import ArgumentError

_PLAIN = {str: "string", int: "integer", float: "number", bool: "boolean", type(None): "null"}
_EXPECTED = "expected a JSON Schema as a dict or as JSON text, True for any object, a pydantic model or a dataclass"


def text_of(schema: Any) -> str:
    """The JSON text of what was given as `json_schema`."""
    if isinstance(schema, str):
        return schema
    if schema is True:
        return '{"type": "object"}'
    if isinstance(schema, Mapping):
        return _dumped(dict(schema))
    if schema is False or isinstance(schema, (int, float, list, tuple)):
        raise TypeError(f"json_schema is {schema!r}, {_EXPECTED}")
    if hasattr(schema, "model_json_schema"):
        return _dumped(closed(schema.model_json_schema()))
    if hasattr(schema, "json_schema") and hasattr(schema, "validate_json"):  # pydantic.TypeAdapter
        return _dumped(closed(schema.json_schema()))
    is_type = isinstance(schema, type) or schema is None or get_origin(schema) is not None
    if is_type and (dataclasses.is_dataclass(schema) or get_origin(schema) or schema in _PLAIN or _is_enum(schema)):
        try:
            return _dumped(_schema_of(schema))
        except RecursionError:
            message = f"json_schema: {schema!r} contains itself; use a pydantic model, or give the schema as a dict"
            raise TypeError(message) from None
    raise TypeError(f"json_schema is {schema!r}, {_EXPECTED}")


def model_of(schema: Any) -> Any:
    """The class that answers become; None for schemas as data."""
    return None if schema is None or isinstance(schema, (str, bool, Mapping)) else schema


def parsed(text: str, model: Any) -> Any:
    """The value of a JSON answer; None if a stop string has cut it. `model` is True, or the class that it becomes."""
    try:
        value = json.loads(text)
    except json.JSONDecodeError:
        return None
    if model is True:
        return value
    if hasattr(model, "model_validate_json"):
        return model.model_validate_json(text)
    if hasattr(model, "validate_json"):
        return model.validate_json(text)
    return _built(model, value)


def _dumped(schema: Any) -> str:
    try:
        return json.dumps(schema, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ArgumentError(f"json_schema is not JSON: {error}") from error
    except RecursionError:
        raise ArgumentError("json_schema is not JSON: it is nested too deeply") from None


def closed(schema: Any) -> Any:
    """The schema without further properties where it lists some and says nothing of others: a class takes none."""
    if isinstance(schema, list):
        return [closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    found = {
        key: value if key in ("const", "default", "enum", "examples") else closed(value)
        for key, value in schema.items()
    }
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object":
        found.setdefault("additionalProperties", False)
    return found


def _is_enum(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, enum.Enum)


def _is_union(kind: Any) -> bool:
    return get_origin(kind) in (Union, types.UnionType)


def _schema_of(kind: Any) -> dict[str, Any]:
    """The schema of a type: a dataclass, a plain type, or lists, dicts, unions, enums and literals of such."""
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is Any:
        return {}
    if kind in _PLAIN:
        return {"type": _PLAIN[kind]}
    if _is_enum(kind):
        return {"enum": [member.value for member in kind]}
    if origin is Literal:
        return {"enum": list(arguments)}
    if _is_union(kind):
        return {"anyOf": [_schema_of(argument) for argument in arguments]}
    if kind is list or origin in (list, Sequence):
        return {"type": "array", **({"items": _schema_of(arguments[0])} if arguments else {})}
    if origin is tuple and arguments[-1:] != (...,):
        n = len(arguments)
        items = [_schema_of(argument) for argument in arguments]
        return {"type": "array", "prefixItems": items, "items": False, "minItems": n, "maxItems": n}
    if kind is dict or origin in (dict, Mapping):
        return {"type": "object", **({"additionalProperties": _schema_of(arguments[1])} if arguments else {})}
    if dataclasses.is_dataclass(kind):
        hints = get_type_hints(kind)
        fields = [field for field in dataclasses.fields(kind) if field.init]
        has_default = {
            field.name
            for field in fields
            if field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING
        }
        return {
            "type": "object",
            "properties": {field.name: _schema_of(hints[field.name]) for field in fields},
            "required": [field.name for field in fields if field.name not in has_default],
            "additionalProperties": False,
        }
    raise TypeError(f"json_schema: {kind!r} has no JSON Schema here; give the schema as a dict")


def _built(kind: Any, value: Any) -> Any:
    """The value of a type that `_schema_of` has described."""
    origin, arguments = get_origin(kind), get_args(kind)
    if _is_enum(kind):
        return kind(value)
    if _is_union(kind):
        return _built(next(argument for argument in arguments if _fits(argument, value)), value)
    if origin in (list, Sequence):
        return [_built(arguments[0], item) for item in value]
    if origin is tuple:
        return tuple(_built(argument, item) for argument, item in zip(arguments, value, strict=True))
    if origin in (dict, Mapping):
        return {key: _built(arguments[1], item) for key, item in value.items()}
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        hints = get_type_hints(kind)
        return kind(**{name: _built(hints[name], item) for name, item in value.items()})
    return float(value) if kind is float else value


def _fits(kind: Any, value: Any) -> bool:
    """Whether a JSON value is one of this type, to tell the members of a union apart."""
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is Any:
        return True
    if kind in _PLAIN:
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return is_number if kind is float else type(value) is kind
    if _is_enum(kind):
        return value in [member.value for member in kind]
    if origin is Literal:
        return any(value == argument and type(value) is type(argument) for argument in arguments)
    if _is_union(kind):
        return any(_fits(argument, value) for argument in arguments)
    if kind is list or origin in (list, Sequence):
        return isinstance(value, list) and all(_fits(arguments[0], item) for item in value if arguments)
    if origin is tuple:
        return isinstance(value, list) and len(value) == len(arguments) and all(map(_fits, arguments, value))
    if not isinstance(value, dict):
        return False
    if dataclasses.is_dataclass(kind):
        hints = get_type_hints(kind)
        required = set(_schema_of(kind)["required"])
        return required <= set(value) <= set(hints) and all(_fits(hints[name], item) for name, item in value.items())
    return all(_fits(arguments[1], item) for item in value.values() if arguments)
