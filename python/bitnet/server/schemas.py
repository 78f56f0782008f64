"""JSON Schemas of the requests. They check requests (`body.check`) and are the ones that /openapi.json shows."""

from typing import Any

from .body import Schema
from .settings import Settings

_STRING: Schema = {"type": "string"}
_NUMBER: Schema = {"type": "number"}
_FLAG: Schema = {"type": "boolean"}
_OBJECT: Schema = {"type": "object"}
_ID: Schema = {"type": "integer", "minimum": 0, "maximum": 2**31 - 1}

IGNORED = (
    "user",
    "store",
    "metadata",
    "service_tier",
    "safety_identifier",
    "prompt_cache_key",
    "prompt_cache_retention",
    "reasoning_effort",
    "verbosity",
    "prediction",
    "cache_prompt",
)
"""Fields that clients send and that change nothing here."""


def structure(properties: dict[str, Schema], *required: str, others: bool = False) -> Schema:
    """The schema of an object. A member that is not required may be null, which is the same as leaving it out."""
    members = {name: schema if name in required else nullable(schema) for name, schema in properties.items()}
    schema: Schema = {"type": "object", "properties": members, "additionalProperties": others}
    return schema | ({"required": list(required)} if required else {})


def nullable(schema: Schema) -> Schema:
    """The same schema, with null."""
    if "anyOf" in schema:
        return schema | {"anyOf": [*schema["anyOf"], {"type": "null"}]}
    if "type" not in schema:
        return schema
    kinds = [schema["type"]] if isinstance(schema["type"], str) else schema["type"]
    more = {"enum": [*schema["enum"], None]} if "enum" in schema else {}
    return schema | {"type": [*kinds, "null"]} | more


def array(items: Schema, least: int = 0, most: int | None = None) -> Schema:
    """The schema of a list."""
    return {"type": "array", "items": items} | _bounds("Items", least, most)


def _bounds(unit: str, least: int, most: int | None) -> Schema:
    """The bounds of a length."""
    return ({f"min{unit}": least} if least else {}) | ({f"max{unit}": most} if most is not None else {})


def _said(schema: Schema, description: str) -> Schema:
    """A schema with a description."""
    return schema | {"description": description}


def _whole(least: int, most: int | None = None) -> Schema:
    """The schema of a whole number."""
    return {"type": "integer", "minimum": least, "maximum": 2**63 - 1 if most is None else most}


def _from(least: float, most: float | None = None) -> Schema:
    """The schema of a number."""
    return _NUMBER | {"minimum": least} | ({} if most is None else {"maximum": most})


NAME: Schema = {"type": "string", "minLength": 1, "maxLength": 128}
FUNCTION_NAME: Schema = {"type": "string", "minLength": 1, "maxLength": 64, "pattern": "^[a-zA-Z0-9_.-]+$"}

_FUNCTION = structure(
    {"name": FUNCTION_NAME, "description": _STRING, "parameters": _OBJECT, "strict": _FLAG}, "name", others=True
)
TOOL = structure(
    {"type": {"type": "string", "enum": ["function"]}, "function": _FUNCTION}, "type", "function", others=True
)
TOOL_CHOICE: Schema = {
    "anyOf": [
        {"type": "string", "enum": ["none", "auto", "required"]},
        structure(
            {
                "type": {"type": "string", "enum": ["function"]},
                "function": structure({"name": FUNCTION_NAME}, "name"),
            },
            "type",
            "function",
        ),
    ]
}
RESPONSE_FORMAT = structure(
    {
        "type": {"type": "string", "enum": ["text", "json_object", "json_schema"]},
        "json_schema": structure(
            {"name": NAME, "description": _STRING, "schema": _OBJECT, "strict": _FLAG}, others=True
        ),
        "schema": _said(_OBJECT, "the schema alone, as llama-server takes it"),
    },
    "type",
)

_PART = structure(
    {"type": {"type": "string", "enum": ["text", "refusal"]}, "text": _STRING, "refusal": _STRING}, "type", others=True
)
_CALL = structure(
    {
        "id": _STRING,
        "type": {"type": "string", "enum": ["function"]},
        "function": structure({"name": _STRING, "arguments": _STRING}, "name", "arguments", others=True),
    },
    "function",
    others=True,
)
MESSAGE = structure(
    {
        "role": {"type": "string", "enum": ["system", "developer", "user", "assistant", "tool"]},
        "content": {"anyOf": [_STRING, array(_PART)]},
        "name": _STRING,
        "reasoning_content": _STRING,
        "reasoning": _STRING,
        "tool_calls": array(_CALL),
        "tool_call_id": _STRING,
    },
    "role",
    others=True,
)


def forms() -> dict[str, Schema]:
    """Fields that say which form the answer has. At most one may be given."""
    return {
        "json_schema": _said({"anyOf": [_OBJECT, _FLAG, _STRING]}, "JSON Schema of the answer; true: any JSON object"),
        "regex": _said(_STRING, "regular expression that the whole answer matches"),
        "choice": _said(array(_STRING, 1, 1024), "texts, one of which is the answer"),
        "grammar": _said(_STRING, "Lark grammar of the answer"),
    }


def sampling(settings: Settings) -> dict[str, Schema]:
    """Fields that say how tokens are chosen."""
    text = _STRING | {"minLength": 1, "maxLength": 1024}
    stop = {"anyOf": [text, array(text, 0, settings.max_stops)]}
    return {
        "temperature": _said(_from(0, 1000), "0 takes the most likely token each time (the default)"),
        "top_p": _said(_from(0, 1), "keep the most likely tokens whose probabilities add up to this"),
        "top_k": _said(_whole(-1, 2**31 - 1), "keep this many of the most likely tokens; 0 and -1: all"),
        "min_p": _said(_from(0, 1), "keep tokens with at least this fraction of the top token's probability"),
        "repetition_penalty": _said(_from(0.01, 100), "above 1: recent tokens are less likely"),
        "repeat_last_n": _said(_whole(0, 2**31 - 1), "tokens that repetition_penalty looks back"),
        "presence_penalty": _from(-100, 100),
        "frequency_penalty": _from(-100, 100),
        "logit_bias": _said(
            {"type": "object", "additionalProperties": _from(-1000, 1000)},
            "values added to logits by token id; -100 or less bans the id",
        ),
        "seed": _said(_whole(-1, 2**64 - 1), "with the same seed, the answer is the same; -1: a drawn one"),
        "max_tokens": _said(_whole(-1, settings.max_tokens), "-1: no limit; 0 is refused"),
        "stop": _said(stop, "texts that end the answer and are not part of it"),
        "stop_token_ids": array(_ID, 0, 1024),
        "ignore_eos": _said(_FLAG, "continue past the model's stop tokens"),
        "speculate": _said({"type": "string", "enum": ["lookup"]}, "guess tokens that stood in the text before"),
        **forms(),
    }


def common(settings: Settings) -> dict[str, Schema]:
    """Fields of all requests that generate text."""
    return {
        "model": _STRING,
        "n": _said(_whole(1, settings.max_choices), "answers to each prompt; answer i uses the seed seed + i"),
        "stream": _FLAG,
        "stream_options": structure({"include_usage": _FLAG, "include_obfuscation": _FLAG}, others=True),
        "receipt": _said(_FLAG, "put each answer's receipt into the response"),
        **ignored(),
    }


def ignored() -> dict[str, Schema]:
    """Fields that are accepted and change nothing."""
    return {name: {"description": "accepted, without effect"} for name in IGNORED}


def rendering() -> dict[str, Schema]:
    """Fields that say how messages become a prompt."""
    return {
        "messages": array(MESSAGE, 1),
        "tools": array(TOOL, 0, 128),
        "add_generation_prompt": _FLAG,
        "continue_final_message": _said(_FLAG, "leave the last message open, so that the model continues it"),
        "enable_thinking": _said(_FLAG, "whether the model thinks first, if its template can tell it"),
        "chat_template_kwargs": _said(_OBJECT, "other variables of the chat template"),
    }


def chat(settings: Settings) -> Schema:
    """The body of /v1/chat/completions."""
    return structure(
        rendering()
        | common(settings)
        | sampling(settings)
        | {
            "max_completion_tokens": _said(_whole(-1, settings.max_tokens), "as max_tokens"),
            "logprobs": _FLAG,
            "top_logprobs": _whole(0, 20),
            "response_format": RESPONSE_FORMAT,
            "tool_choice": TOOL_CHOICE,
            "parallel_tool_calls": _FLAG,
            "modalities": array({"type": "string", "enum": ["text"]}),
        },
        "messages",
    )


def completions(settings: Settings) -> Schema:
    """The body of /v1/completions."""
    most = settings.max_choices
    prompt = {
        "anyOf": [
            _STRING,
            array(_STRING, 1, most) | {"title": "a list of strings"},
            array(array(_ID, 1), 1, most) | {"title": "a list of lists of token ids"},
            array(_ID, 1) | {"title": "a list of token ids"},
        ]
    }
    return structure(
        {"prompt": prompt}
        | common(settings)
        | sampling(settings)
        | {
            "max_tokens": _said(_whole(-1, settings.max_tokens), "0 with echo: only score the prompt; -1: no limit"),
            "logprobs": _said(_whole(0, 20), "number of likely tokens to report for each position"),
            "echo": _said(_FLAG, "begin each answer with its prompt"),
            "best_of": _said(_whole(1, most), "accepted if it equals n"),
            "suffix": _STRING,
            "response_format": RESPONSE_FORMAT,
        },
        "prompt",
    )


def embeddings(settings: Settings) -> Schema:
    """The body of /v1/embeddings."""
    most = settings.max_items
    texts = {
        "anyOf": [
            _STRING | {"minLength": 1},
            array(_STRING | {"minLength": 1}, 1, most) | {"title": "a list of strings"},
            array(array(_ID, 1), 1, most) | {"title": "a list of lists of token ids"},
            array(_ID, 1) | {"title": "a list of token ids"},
        ]
    }
    return structure(
        {
            "input": texts,
            "model": _STRING,
            "encoding_format": {"type": "string", "enum": ["float", "base64"]},
            "dimensions": _said(_whole(1), "accepted if it is the model's own number"),
            "pooling": _said({"type": "string", "enum": ["mean", "last", "cls"]}, "default: what the model states"),
            "normalize": _said(_FLAG, "scale vectors to length 1 (the default)"),
            **ignored(),
        },
        "input",
    )


def tokenize() -> Schema:
    """The body of /tokenize: a text as vLLM or llama-server names it, or messages."""
    return structure(
        {
            "model": _STRING,
            "prompt": _STRING,
            "content": _STRING,
            "add_special_tokens": _said(_FLAG, "put BOS in front if the model expects it (default: true)"),
            "add_special": _FLAG,
            "parse_special": _said(_FLAG, "recognise control tokens in the text (default: false)"),
            "with_pieces": _said(_FLAG, "tell the text of each token, too"),
            **rendering(),
        }
    )


def detokenize() -> Schema:
    """The body of /detokenize."""
    return structure(
        {"model": _STRING, "tokens": array(_ID), "skip_special_tokens": _said(_FLAG, "default: false")}, "tokens"
    )


def apply_template() -> Schema:
    """The body of /apply-template."""
    return structure({"model": _STRING, **rendering()}, "messages")


def verify() -> Schema:
    """The body of /v1/receipts/verify."""
    return structure(
        {
            "receipt": _said(_OBJECT, "the receipt's document"),
            "replay": _said(_FLAG, "compute the answer again (default: true)"),
            "prompt": _said(
                {"anyOf": [_STRING, array(_ID, 1)]}, "the prompt of a redacted receipt, as text or token ids"
            ),
        },
        "receipt",
    )


def present(body: dict[str, Any]) -> dict[str, Any]:
    """The fields of a request that are not null, which is the same as leaving them out."""
    return {name: value for name, value in body.items() if value is not None}
