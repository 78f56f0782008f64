"""POST /v1/chat/completions."""

import time
import uuid
from collections.abc import AsyncGenerator
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp

from .. import Completion, Logprob, Piece, Stream, __version__
from . import forms, sampling
from .errors import engine_arguments, invalid
from .service import Service, timings, usage
from .sse import DONE, event, interleaved

FINGERPRINT = f"bitnet-{__version__}"
"""What answers state as their system_fingerprint."""

_KEPT = ("role", "name", "tool_calls", "tool_call_id", "reasoning_content", "reasoning")
"""Members of a message that templates see, beside its content."""

_RENDERING = ("add_generation_prompt", "continue_final_message", "enable_thinking", "chat_template_kwargs")


def conversation(messages: list[dict[str, Any]], place: str = "messages") -> list[dict[str, Any]]:
    """Messages as the engine takes them: parts joined, the role developer as system. `place` is their field."""
    found = []
    for i, message in enumerate(messages):
        kept = {name: message[name] for name in _KEPT if message.get(name) is not None}
        if kept["role"] == "developer":
            kept["role"] = "system"
        content = message.get("content")
        if isinstance(content, list):
            content = "\n".join(part.get("text") or part.get("refusal") or "" for part in content)
        if content is None and not kept.get("tool_calls"):
            if kept["role"] not in ("assistant", "tool"):
                path = f"{place}[{i}].content"
                raise invalid(f"'{path}' is missing; expected a string", path)
            content = ""  # an answer without text, a function that returns nothing
        found.append(kept | {"content": content})
    return found


def rendering(body: dict[str, Any]) -> dict[str, Any]:
    """Arguments of `Engine.chat` that say how messages become a prompt."""
    return {name: body[name] for name in _RENDERING if name in body}


async def chat_completions(service: Service, request: Request, body: dict[str, Any]) -> ASGIApp:
    """Answer a conversation."""
    service.check_model(body)
    messages, n = conversation(body["messages"]), body.get("n", 1)
    if body.get("top_logprobs") and not body.get("logprobs"):
        raise invalid("'top_logprobs' needs 'logprobs': true", "top_logprobs")
    logprobs = body.get("top_logprobs", 0) if body.get("logprobs") else None
    params = await sampling.params(service, body, max_tokens=sampling.max_tokens(body), logprobs=logprobs)
    keywords = rendering(body) | forms.tools(body)
    head = {
        "id": f"chatcmpl-{uuid.uuid4().hex}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": service.name,
        "system_fingerprint": FINGERPRINT,
    }
    if body.get("stream"):
        engine, thread, pool = service.engine, service.gate.in_thread, request.state.pool

        async def begin() -> list[Stream]:
            each = (sampling.with_seed(params, i) for i in range(n))
            with engine_arguments("messages"):
                return [
                    await thread(lambda own: engine.chat_stream(messages, own, **keywords), own, pool=pool)
                    for own in each
                ]

        head |= {"object": "chat.completion.chunk"}
        return await service.stream(request, begin, lambda streams: _chunks(service, body, head, streams))

    async def work() -> list[Completion]:
        with engine_arguments("messages"):
            answers: list[Completion] = await service.engine.achat(messages, params, n=n, **keywords)
        return answers

    answers = await service.answer(request, work)
    receipts = await service.account(answers, bool(body.get("receipt")))
    service.log_messages(messages, answers)
    choices = [
        {
            "index": i,
            "message": _message(answer),
            "logprobs": _logprobs(answer),
            "finish_reason": forms.finish_reason(answer.finish_reason, bool(forms.calls(answer))),
        }
        for i, answer in enumerate(answers)
    ]
    counts = {"usage": usage(answers), "timings": timings(answers)}
    return JSONResponse(head | {"choices": choices} | counts | receipt_fields(choices, receipts))


def receipt_fields(choices: list[dict[str, Any]], receipts: list[dict[str, Any]]) -> dict[str, Any]:
    """Add the receipt's fields to each choice. Return those of the first choice, for the whole response."""
    for choice, fields in zip(choices, receipts, strict=True):
        choice |= fields
    return receipts[0] if len(receipts) == 1 else {}


def _message(answer: Completion) -> dict[str, Any]:
    """The message of an answer."""
    calls = forms.calls(answer)
    message: dict[str, Any] = {"role": "assistant", "content": answer.text or (None if calls else ""), "refusal": None}
    if answer.reasoning is not None:
        message["reasoning_content"] = answer.reasoning
    return message | ({"tool_calls": calls} if calls else {})


def _logprobs(answer: Completion) -> dict[str, Any] | None:
    """The log-probabilities of an answer; None if they were not asked for."""
    if answer.logprobs is None:
        return None
    tops = answer.top_logprobs or [[] for _ in answer.logprobs]
    return {
        "content": [logprob_entry(own, top) for own, top in zip(answer.logprobs, tops, strict=True)],
        "refusal": None,
    }


def logprob_entry(own: Logprob, top: list[Logprob]) -> dict[str, Any]:
    """A token with its log-probability and the most likely ones in its place."""

    def one(entry: Logprob) -> dict[str, Any]:
        return {"token": entry.text, "logprob": entry.logprob, "bytes": list(entry.bytes)}

    return one(own) | {"top_logprobs": [one(entry) for entry in top]}


async def _chunks(
    service: Service, body: dict[str, Any], head: dict[str, Any], streams: list[Stream]
) -> AsyncGenerator[bytes, None]:
    """The events of answers: the role first, then pieces, then usage and times."""
    wants_usage = bool((body.get("stream_options") or {}).get("include_usage"))
    more = {"usage": None} if wants_usage else {}

    def chunk(i: int, delta: dict[str, Any], reason: str | None = None, **fields: Any) -> bytes:
        choice = {"index": i, "delta": delta, "logprobs": None, "finish_reason": reason}
        return event(head | {"choices": [choice | fields]} | more)

    started, called = time.monotonic(), [0] * len(streams)
    for i in range(len(streams)):
        yield chunk(i, {"role": "assistant", "content": "", "refusal": None})
    async for i, piece in interleaved(streams):
        if started:
            service.metrics.first_token_seconds.add(time.monotonic() - started)
            started = 0.0
        delta = _delta(piece, called[i])
        called[i] += len(forms.calls(piece))
        logprobs = None
        if piece.logprob is not None:
            logprobs = {"content": [logprob_entry(piece.logprob, piece.top_logprobs or [])], "refusal": None}
            delta.setdefault("content", "")
        if delta:
            yield chunk(i, delta, logprobs=logprobs)
    receipts = await service.account(streams, bool(body.get("receipt")))
    service.log_messages(body["messages"], streams)
    last = {"timings": timings(streams)} | (receipts[0] if len(receipts) == 1 else {})
    for i, (stream, receipt) in enumerate(zip(streams, receipts, strict=True)):
        reason = forms.finish_reason(stream.finish_reason, bool(called[i]))
        if i == len(streams) - 1 and not wants_usage:
            more |= last
        yield chunk(i, {}, reason, **receipt)
    if wants_usage:
        yield event(head | {"choices": [], "usage": usage(streams)} | last)
    yield DONE


def _delta(piece: Piece, called: int) -> dict[str, Any]:
    """What a piece adds to the message. `called`: how many calls there were before it."""
    delta: dict[str, Any] = {}
    if piece.reasoning:
        delta["reasoning_content"] = piece.reasoning
    if piece.text:
        delta["content"] = piece.text
    if calls := forms.calls(piece):
        delta["tool_calls"] = [{"index": called + i, **call} for i, call in enumerate(calls)]
    return delta
