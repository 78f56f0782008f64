"""JSON Schemas of the responses, for /openapi.json. Responses may have further members."""

from .body import Schema
from .schemas import array

_STRING: Schema = {"type": "string"}
_COUNT: Schema = {"type": "integer", "minimum": 0}
_NUMBER: Schema = {"type": "number"}
_OR_NULL: Schema = {"type": ["string", "null"]}
_FLAG: Schema = {"type": "boolean"}


def _object(optional: dict[str, Schema] | None = None, **members: Schema) -> Schema:
    """The schema of an object with members that are always there, and others."""
    return {"type": "object", "properties": members | (optional or {}), "required": list(members)}


def _constant(value: str) -> Schema:
    """The schema of a string that is always the same."""
    return {"type": "string", "enum": [value]}


ERROR = _object(error=_object(message=_STRING, type=_STRING, param=_OR_NULL, code=_OR_NULL))
_USAGE = _object(
    prompt_tokens=_COUNT,
    completion_tokens=_COUNT,
    total_tokens=_COUNT,
    prompt_tokens_details=_object(cached_tokens=_COUNT),
)
_TIMINGS = _object(
    cache_n=_COUNT,
    prompt_n=_COUNT,
    prompt_ms=_NUMBER,
    prompt_per_second=_NUMBER,
    predicted_n=_COUNT,
    predicted_ms=_NUMBER,
    predicted_per_second=_NUMBER,
)
_RECEIPT: dict[str, Schema] = {"receipt_digest": _STRING, "receipt": {"type": "object"}}
_CALL = _object(id=_STRING, type=_constant("function"), function=_object(name=_STRING, arguments=_STRING))
_TOKEN = _object(token=_STRING, logprob=_NUMBER, bytes=array(_COUNT))
_CHAT_LOGPROBS = _object(content=array(_TOKEN | {"description": "with top_logprobs, a list of the same"})) | {
    "type": ["object", "null"]
}
_MESSAGE = _object(
    {"reasoning_content": _STRING, "tool_calls": array(_CALL)},
    role=_constant("assistant"),
    content=_OR_NULL,
    refusal=_OR_NULL,
)
_TEXT_LOGPROBS = _object(
    tokens=array(_STRING),
    token_logprobs=array({"type": ["number", "null"]}),
    top_logprobs=array({"type": ["object", "null"], "additionalProperties": _NUMBER}),
    text_offset=array(_COUNT),
) | {"type": ["object", "null"]}
_FINISH = {"type": ["string", "null"], "enum": ["stop", "length", "tool_calls", None]}
_HEAD: dict[str, Schema] = {"id": _STRING, "created": _COUNT, "model": _STRING, "system_fingerprint": _STRING}
_MODEL = _object(id=_STRING, object=_constant("model"), created=_COUNT, owned_by=_STRING, max_model_len=_COUNT)
_IDS = array(_COUNT)

ANSWERS: dict[str, Schema] = {
    "ChatCompletion": _object(
        _RECEIPT,
        **_HEAD,
        object=_constant("chat.completion"),
        choices=array(
            _object(_RECEIPT, index=_COUNT, message=_MESSAGE, logprobs=_CHAT_LOGPROBS, finish_reason=_FINISH)
        ),
        usage=_USAGE,
        timings=_TIMINGS,
    ),
    "Completion": _object(
        _RECEIPT,
        **_HEAD,
        object=_constant("text_completion"),
        choices=array(_object(_RECEIPT, index=_COUNT, text=_STRING, logprobs=_TEXT_LOGPROBS, finish_reason=_FINISH)),
        usage=_USAGE,
        timings=_TIMINGS,
    ),
    "Embeddings": _object(
        object=_constant("list"),
        data=array(
            _object(
                object=_constant("embedding"),
                index=_COUNT,
                embedding={"anyOf": [array(_NUMBER), _STRING | {"description": "little-endian float32 in base64"}]},
            )
        ),
        model=_STRING,
        usage=_object(prompt_tokens=_COUNT, total_tokens=_COUNT),
    ),
    "Response": _object(
        _RECEIPT,
        id=_STRING,
        object=_constant("response"),
        created_at=_COUNT,
        status={"type": "string", "enum": ["completed", "incomplete"]},
        model=_STRING,
        output=array(
            _object(
                type={"type": "string", "enum": ["message", "reasoning", "function_call"]}, id=_STRING, status=_STRING
            )
        ),
        usage=_object(input_tokens=_COUNT, output_tokens=_COUNT, total_tokens=_COUNT),
        timings=_TIMINGS,
    ),
    "Verification": _object(
        valid=_FLAG,
        error=_OR_NULL,
        digest=_OR_NULL,
        replay={
            "type": ["object", "null"],
            "properties": {
                "same": {"type": ["boolean", "null"]},
                "first_difference": {"type": ["integer", "null"]},
                "not_checked": array(_STRING),
                "error": _STRING,
            },
            "required": ["same"],
        },
    ),
    "Tokens": _object(
        tokens={"anyOf": [_IDS, array(_object(id=_COUNT, piece=_STRING))]}, count=_COUNT, max_model_len=_COUNT
    ),
    "Text": _object(prompt=_STRING, content=_STRING),
    "Prompt": _object(prompt=_STRING),
    "Model": _MODEL,
    "Models": _object(object=_constant("list"), data=array(_MODEL)),
    "TokenizerInfo": _object(bos_token=_OR_NULL, eos_token=_OR_NULL, vocab_size=_COUNT, chat_template=_STRING),
    "Health": _object(status=_constant("ok")),
    "Receipt": {"type": "object", "description": "see bitnet.receipt_schema()"},
    "Error": ERROR,
}
"""The documents that endpoints return, by name."""
