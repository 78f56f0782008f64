"""POST /v1/completions."""

import time
import uuid
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp

from .. import Receipt, SamplingParams, Stream
from . import forms, sampling, scores
from .chat import FINGERPRINT, receipt_fields
from .errors import ApiError, engine_arguments, invalid
from .scores import Entry
from .service import Service, timings, usage
from .sse import DONE, event, interleaved


@dataclass
class Prompt:
    """A prompt of a request."""

    ids: list[int]
    echo: str
    """Text that answers begin with; empty without `echo`."""
    entries: list[Entry]
    """Its tokens with log-probabilities, if they are part of the answer."""


@dataclass(frozen=True)
class Nothing:
    """An answer of no tokens: the request only wants its prompt scored."""

    prompt_tokens: int
    text: str = ""
    cached_tokens: int = 0
    completion_tokens: int = 0
    finish_reason: str = "length"
    logprobs: tuple[()] = ()
    top_logprobs: tuple[()] = ()
    receipt: Receipt | None = None


async def completions(service: Service, request: Request, body: dict[str, Any]) -> ASGIApp:
    """Continue texts."""
    service.check_model(body)
    n, k = body.get("n", 1), body.get("logprobs")
    _check(body, n, service.settings.max_choices)
    scored_only = body.get("max_tokens") == 0
    limit = None if body.get("max_tokens", 0) <= 0 else body["max_tokens"]
    params = await sampling.params(service, body, max_tokens=limit, logprobs=k)
    head = {
        "id": f"cmpl-{uuid.uuid4().hex}",
        "object": "text_completion",
        "created": int(time.time()),
        "model": service.name,
        "system_fingerprint": FINGERPRINT,
    }
    pool = request.state.pool
    if body.get("stream") and not scored_only:

        async def begin() -> tuple[list[Prompt], list[Stream]]:
            prompts = [await _prompt(service, body, given, k, pool) for given in _given(body)]
            return prompts, [await _stream(service, one, params, i, pool) for one in prompts for i in range(n)]

        return await service.stream(request, begin, lambda begun: _chunks(service, body, head, *begun))

    async def work() -> list[tuple[Prompt, Any, list[Entry]]]:
        prompts = [await _prompt(service, body, given, k, pool) for given in _given(body)]
        if scored_only:
            return [(one, Nothing(len(one.ids)), []) for one in prompts for _ in range(n)]
        with engine_arguments("prompt"):
            all_answers = await service.engine.agenerate([one.ids for one in prompts], params, n=n)
        pairs = [(one, own) for one, answers in zip(prompts, all_answers, strict=True) for own in answers]
        ends = [[] if k is None else await scores.of_end(service.engine, one.ids, own, k) for one, own in pairs]
        return [(one, own, end) for (one, own), end in zip(pairs, ends, strict=True)]

    done = await service.answer(request, work)
    answers = [own for _, own, _ in done]
    receipts = await service.account(answers, bool(body.get("receipt")))
    service.log_messages(body["prompt"], answers)
    choices = [
        {
            "index": i,
            "text": prompt.echo + own.text,
            "logprobs": None if k is None else scores.document([*prompt.entries, *_entries(own), *end]),
            "finish_reason": forms.finish_reason(own.finish_reason, False),
        }
        for i, (prompt, own, end) in enumerate(done)
    ]
    counts = {"usage": usage(answers, len(answers) // n), "timings": timings(answers)}
    whole = head | {"choices": choices} | counts | receipt_fields(choices, receipts)
    if body.get("stream"):
        return _at_once(whole)
    return JSONResponse(whole)


def _check(body: dict[str, Any], n: int, most: int) -> None:
    """Refuse what contradicts itself or is not supported."""
    if body.get("best_of", n) != n:
        raise invalid(
            f"'best_of' is {body['best_of']}, expected {n}, the value of 'n': every answer is given", "best_of"
        )
    if body.get("suffix"):
        raise invalid("'suffix' is not supported: the model continues texts; leave it out", "suffix")
    if (choices := n * len(_given(body))) > most:
        raise invalid(f"the request asks for {choices} answers, expected at most {most}: prompts times 'n'", "n")


def _given(body: dict[str, Any]) -> list[Any]:
    """The prompts of a request, each a text or a list of ids."""
    prompt = body["prompt"]
    is_list = isinstance(prompt, list) and not isinstance(prompt[0], int)
    return prompt if is_list else [prompt]


async def _prompt(service: Service, body: dict[str, Any], given: str | list[int], k: int | None, pool: str) -> Prompt:
    """Prepare a prompt: its ids, and what `echo` repeats of it. `pool`: that of calls that only read the text."""
    engine, echo = service.engine, bool(body.get("echo"))

    def prepare() -> Prompt:
        tokenizer = engine.tokenizer
        ids = tokenizer.encode(given, add_bos=tokenizer.add_bos) if isinstance(given, str) else given
        if not ids:
            raise invalid("the prompt is empty; give at least one character", "prompt")
        if len(ids) > engine.n_ctx:
            message = f"the prompt has {len(ids)} tokens, and the context of this model holds {engine.n_ctx}"
            raise ApiError(400, message, param="prompt", code="context_length_exceeded")
        if not echo:
            return Prompt(ids, "", [])
        text = given if isinstance(given, str) else tokenizer.decode(ids, skip_special_tokens=False)
        entries = [] if k is None else scores.of_prompt(engine, ids, k)
        if entries and isinstance(given, str) and tokenizer.add_bos and ids[0] == tokenizer.bos_token_id:
            entries[0] = Entry(entries[0].text, None, None, hidden=True)
        return Prompt(ids, text, entries)

    with engine_arguments("prompt"):
        return await service.gate.in_thread(prepare, pool="long" if echo and k is not None else pool)


async def _stream(service: Service, prompt: Prompt, params: SamplingParams, i: int, pool: str) -> Stream:
    """Begin answer i to a prompt."""
    with engine_arguments("prompt"):
        own = sampling.with_seed(params, i)
        return await service.gate.in_thread(service.engine.stream, prompt.ids, own, pool=pool)


def _entries(answer: Any) -> list[Entry]:
    """The tokens of an answer."""
    return [scores.entry(own, top) for own, top in zip(answer.logprobs or (), answer.top_logprobs or (), strict=True)]


async def _chunks(
    service: Service, body: dict[str, Any], head: dict[str, Any], prompts: list[Prompt], streams: list[Stream]
) -> AsyncGenerator[bytes, None]:
    """The events of answers: the prompts if they are echoed, then pieces, then usage and times."""
    wants_usage = bool((body.get("stream_options") or {}).get("include_usage"))
    more: dict[str, Any] = {"usage": None} if wants_usage else {}
    n, k = len(streams) // len(prompts), body.get("logprobs")
    lengths = [0] * len(streams)

    def chunk(i: int, text: str, entries: list[Entry], reason: str | None = None, **fields: Any) -> bytes:
        logprobs = None if k is None or not entries else scores.document(entries, lengths[i])
        lengths[i] += sum(len(one.text) for one in entries if not one.hidden) if entries else len(text)
        choice = {"index": i, "text": text, "logprobs": logprobs, "finish_reason": reason}
        return event(head | {"choices": [choice | fields]} | more)

    started = time.monotonic()
    for i in range(len(streams)):
        prompt = prompts[i // n]
        if prompt.echo:
            yield chunk(i, prompt.echo, prompt.entries)
    async for i, piece in interleaved(streams):
        if started:
            service.metrics.first_token_seconds.add(time.monotonic() - started)
            started = 0.0
        entries = [scores.entry(piece.logprob, piece.top_logprobs or [])] if piece.logprob else []
        if piece.text or entries:
            yield chunk(i, piece.text, entries)
    receipts = await service.account(streams, bool(body.get("receipt")))
    service.log_messages(body["prompt"], streams)
    last = {"timings": timings(streams)} | (receipts[0] if len(receipts) == 1 else {})
    for i, (stream, receipt) in enumerate(zip(streams, receipts, strict=True)):
        end = [] if k is None else await scores.of_end(service.engine, prompts[i // n].ids, stream, k)
        if i == len(streams) - 1 and not wants_usage:
            more |= last
        yield chunk(i, "", end, forms.finish_reason(stream.finish_reason, False), **receipt)
    if wants_usage:
        yield event(head | {"choices": [], "usage": usage(streams, len(prompts))} | last)
    yield DONE


def _at_once(whole: dict[str, Any]) -> ASGIApp:
    """A complete answer as a stream of one chunk."""
    from starlette.responses import Response

    return Response(event(whole) + DONE, media_type="text/event-stream")
