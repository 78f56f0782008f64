"""POST /v1/responses: the newer form of a chat answer, with items instead of messages."""

import time
import uuid
from collections.abc import AsyncGenerator, Iterable
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp

from .. import Completion, Logprob, Piece, Stream
from . import forms, sampling
from .chat import conversation, logprob_entry, rendering
from .errors import ApiError, engine_arguments
from .responses_input import as_chat
from .service import Finished, Service, timings
from .sse import event

_LOGPROBS = "message.output_text.logprobs"
"""The member of `include` that asks for log-probabilities."""


async def responses(service: Service, request: Request, body: dict[str, Any]) -> ASGIApp:
    """Answer an input."""
    service.check_model(body)
    chat = as_chat(body)
    messages = conversation(chat["messages"], "input")
    wants = _LOGPROBS in body.get("include", ()) or body.get("top_logprobs")
    params = await sampling.params(
        service,
        chat,
        max_tokens=body.get("max_output_tokens"),
        logprobs=body.get("top_logprobs", 0) if wants else None,
    )
    keywords = rendering(body) | forms.tools(chat)
    head = _head(service, body, params)
    if body.get("stream"):
        events = _Events(head)

        async def begin() -> Stream:
            with engine_arguments("input"):
                return await service.gate.in_thread(
                    lambda: service.engine.chat_stream(messages, params, **keywords), pool=request.state.pool
                )

        async def sent(stream: Stream) -> AsyncGenerator[bytes, None]:
            for data in events.begin():
                yield data
            started = time.monotonic()
            async for piece in stream:
                if started:
                    service.metrics.first_token_seconds.add(time.monotonic() - started)
                    started = 0.0
                for data in events.piece(piece):
                    yield data
            receipts = await service.account([stream], bool(body.get("receipt")))
            service.log_messages(messages, [stream])
            for data in events.end(stream, receipts[0]):
                yield data

        return await service.stream(request, begin, sent, events.failed)

    async def work() -> Completion:
        with engine_arguments("input"):
            answer: Completion = await service.engine.achat(messages, params, **keywords)
        return answer

    answer = await service.answer(request, work)
    receipts = await service.account([answer], bool(body.get("receipt")))
    service.log_messages(messages, [answer])
    return JSONResponse(head | _outcome(answer, _output(answer)) | receipts[0])


def _head(service: Service, body: dict[str, Any], params: Any) -> dict[str, Any]:
    """The response before it has output."""
    return {
        "id": _id("resp"),
        "object": "response",
        "created_at": int(time.time()),
        "status": "in_progress",
        "background": False,
        "error": None,
        "incomplete_details": None,
        "instructions": body.get("instructions"),
        "max_output_tokens": body.get("max_output_tokens"),
        "metadata": body.get("metadata", {}),
        "model": service.name,
        "output": [],
        "parallel_tool_calls": body.get("parallel_tool_calls", True),
        "previous_response_id": None,
        "reasoning": {"effort": None, "summary": None},
        "store": False,
        "temperature": params.temperature,
        "text": {"format": (body.get("text") or {}).get("format") or {"type": "text"}},
        "tool_choice": body.get("tool_choice", "auto"),
        "tools": body.get("tools", []),
        "top_logprobs": body.get("top_logprobs", 0),
        "top_p": params.top_p,
        "truncation": "disabled",
        "usage": None,
        "user": body.get("user"),
    }


def _id(kind: str) -> str:
    """A new id."""
    return f"{kind}_{uuid.uuid4().hex}"


def _outcome(answer: Any, output: list[dict[str, Any]]) -> dict[str, Any]:
    """What changes in the response once the answer is complete."""
    whole = answer.finish_reason == "stop"
    return {
        "status": "completed" if whole else "incomplete",
        "incomplete_details": None if whole else {"reason": "max_output_tokens"},
        "output": output,
        "usage": _usage(answer),
        "timings": timings([answer]),
    }


def _usage(answer: Finished) -> dict[str, Any]:
    """The tokens of a request by the names of this endpoint."""
    return {
        "input_tokens": answer.prompt_tokens,
        "input_tokens_details": {"cached_tokens": answer.cached_tokens},
        "output_tokens": answer.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": answer.prompt_tokens + answer.completion_tokens,
    }


def _output(answer: Completion) -> list[dict[str, Any]]:
    """The items of a complete answer."""
    status = "completed" if answer.finish_reason == "stop" else "incomplete"
    calls = [_call(call) for call in forms.calls(answer)]
    items = [] if answer.reasoning is None else [_thoughts(answer.reasoning)]
    if answer.text or not calls:
        tops = answer.top_logprobs or [[] for _ in answer.logprobs or ()]
        logprobs = [logprob_entry(own, top) for own, top in zip(answer.logprobs or (), tops, strict=True)]
        items.append(_message(_id("msg"), status, [_part(answer.text, logprobs)]))
    return items + calls


def _thoughts(text: str) -> dict[str, Any]:
    """The item of what the model thought."""
    content = [{"type": "reasoning_text", "text": text}]
    return {"type": "reasoning", "id": _id("rs"), "summary": [], "content": content, "status": "completed"}


def _message(id: str, status: str, content: list[dict[str, Any]]) -> dict[str, Any]:
    """The item of an answer's text."""
    return {"type": "message", "id": id, "role": "assistant", "status": status, "content": content}


def _part(text: str, logprobs: list[dict[str, Any]]) -> dict[str, Any]:
    """The only part of a message."""
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": logprobs}


def _call(call: dict[str, Any]) -> dict[str, Any]:
    """The item of a call."""
    function = call["function"]
    return {
        "type": "function_call",
        "id": _id("fc"),
        "call_id": call["id"],
        "name": function["name"],
        "arguments": function["arguments"],
        "status": "completed",
    }


class _Events:
    """The events of a response while it is computed. At most one item is open: thoughts, or the message."""

    def __init__(self, head: dict[str, Any]) -> None:
        self._head = head
        self._number = 0
        self._output: list[dict[str, Any]] = []
        self._open: dict[str, Any] | None = None
        self._text = ""
        self._logprobs: list[dict[str, Any]] = []

    def _event(self, kind: str, **fields: Any) -> bytes:
        """The next event."""
        data = event({"type": kind, "sequence_number": self._number, **fields}, kind)
        self._number += 1
        return data

    def begin(self) -> Iterable[bytes]:
        """The events before the first token."""
        yield self._event("response.created", response=self._head)
        yield self._event("response.in_progress", response=self._head)

    def piece(self, piece: Piece) -> Iterable[bytes]:
        """The events of a piece."""
        if piece.reasoning:
            yield from self._add("reasoning", piece.reasoning, None, [])
        if piece.text or piece.logprob is not None:
            yield from self._add("message", piece.text, piece.logprob, piece.top_logprobs or [])
        for call in forms.calls(piece):
            yield from self._close("completed")
            yield from self._whole_call(_call(call))

    def end(self, stream: Stream, receipt: dict[str, Any]) -> Iterable[bytes]:
        """The events after the last piece."""
        whole = stream.finish_reason == "stop"
        if self._open is None and not self._output:
            yield from self._start("message")
        yield from self._close("completed" if whole else "incomplete")
        response = self._head | _outcome(stream, self._output) | receipt
        yield self._event("response.completed" if whole else "response.incomplete", response=response)

    def failed(self, error: ApiError) -> bytes:
        """The event of an error."""
        document = error.document()
        return self._event("error", code=error.code, message=error.message, param=error.param, **document)

    def _add(self, kind: str, text: str, own: Logprob | None, top: list[Logprob]) -> Iterable[bytes]:
        """The events of a text that the open item gets; it is opened first if it is of another type."""
        if self._open is None or self._open["type"] != kind:
            yield from self._close("completed")
            yield from self._start(kind)
        self._text += text
        if kind == "reasoning":
            yield self._event("response.reasoning_text.delta", **self._place(), delta=text)
            return
        logprobs = [] if own is None else [logprob_entry(own, top)]
        self._logprobs += logprobs
        yield self._event("response.output_text.delta", **self._place(), delta=text, logprobs=logprobs)

    def _place(self) -> dict[str, Any]:
        """Where the open item's text belongs."""
        assert self._open is not None
        return {"item_id": self._open["id"], "output_index": len(self._output), "content_index": 0}

    def _start(self, kind: str) -> Iterable[bytes]:
        """The events that open an item."""
        self._text, self._logprobs = "", []
        if kind == "reasoning":
            self._open = _thoughts("") | {"status": "in_progress", "content": []}
        else:
            self._open = _message(_id("msg"), "in_progress", [])
        yield self._event("response.output_item.added", output_index=len(self._output), item=self._open)
        if kind == "message":
            yield self._event("response.content_part.added", **self._place(), part=_part("", []))

    def _close(self, status: str) -> Iterable[bytes]:
        """The events that close the open item."""
        if self._open is None:
            return
        if self._open["type"] == "reasoning":
            yield self._event("response.reasoning_text.done", **self._place(), text=self._text)
            part = {"type": "reasoning_text", "text": self._text}
        else:
            part = _part(self._text, self._logprobs)
            done = {"text": self._text, "logprobs": self._logprobs}
            yield self._event("response.output_text.done", **self._place(), **done)
            yield self._event("response.content_part.done", **self._place(), part=part)
        item = self._open | {"status": status, "content": [part]}
        yield self._event("response.output_item.done", output_index=len(self._output), item=item)
        self._output.append(item)
        self._open = None

    def _whole_call(self, item: dict[str, Any]) -> Iterable[bytes]:
        """The events of a call, which comes as a whole."""
        place = {"item_id": item["id"], "output_index": len(self._output)}
        begun = item | {"arguments": "", "status": "in_progress"}
        yield self._event("response.output_item.added", output_index=len(self._output), item=begun)
        yield self._event("response.function_call_arguments.delta", **place, delta=item["arguments"])
        done = {"name": item["name"], "arguments": item["arguments"]}
        yield self._event("response.function_call_arguments.done", **place, **done)
        yield self._event("response.output_item.done", output_index=len(self._output), item=item)
        self._output.append(item)
