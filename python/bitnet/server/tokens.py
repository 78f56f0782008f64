"""/tokenize, /detokenize, /tokenizer_info and /apply-template: text, tokens and prompts without an answer."""

import json
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp

from .chat import conversation, rendering
from .errors import engine_arguments, invalid
from .service import Service

_TOGETHER = 1 << 14
"""Items of a list that become JSON at once."""


async def tokenize(service: Service, request: Request, body: dict[str, Any]) -> ASGIApp:
    """The token ids of a text, or of the prompt that messages become."""
    service.check_model(body)
    given = [name for name in ("prompt", "content", "messages") if name in body]
    if len(given) != 1:
        found = " and ".join(given) or "none"
        raise invalid(f"give one of 'prompt' (or 'content') and 'messages'; found {found}", given[0] if given else None)
    engine, name = service.engine, given[0]
    with_bos = body.get("add_special_tokens", body.get("add_special", True))

    def encode() -> list[int]:
        if name == "messages":
            messages = conversation(body["messages"])
            return engine.template.encode(messages, engine.tokenizer, **_variables(body))
        tokenizer = engine.tokenizer
        special = bool(body.get("parse_special"))
        return tokenizer.encode(body[name], add_bos=with_bos and tokenizer.add_bos, parse_special=special)

    def told(ids: list[int]) -> str:
        tokens: list[Any] = ids
        if body.get("with_pieces"):
            pieces = {id: {"id": id, "piece": engine.decode([id], skip_special_tokens=False)} for id in set(ids)}
            tokens = [pieces[id] for id in ids]
        return f'{{"tokens":{_listed(tokens)},"count":{len(ids)},"max_model_len":{engine.n_ctx}}}'

    with engine_arguments(name):
        document = await service.gate.in_thread(lambda: told(encode()), pool=request.state.pool)
    return Response(document, media_type="application/json")


def _listed(values: list[Any]) -> str:
    """A list as JSON. Other threads can go on between its parts: a call of `json.dumps` stops all of them."""
    parts = (values[i : i + _TOGETHER] for i in range(0, len(values), _TOGETHER))
    return "[" + ",".join(json.dumps(part, separators=(",", ":"))[1:-1] for part in parts) + "]"


async def detokenize(service: Service, request: Request, body: dict[str, Any]) -> ASGIApp:
    """The text of token ids, by the names that vLLM and llama-server give it."""
    service.check_model(body)
    skip = bool(body.get("skip_special_tokens"))
    with engine_arguments("tokens"):
        text = await service.gate.in_thread(
            lambda: service.engine.decode(body["tokens"], skip_special_tokens=skip), pool=request.state.pool
        )
    return JSONResponse({"prompt": text, "content": text})


async def apply_template(service: Service, request: Request, body: dict[str, Any]) -> ASGIApp:
    """The prompt that messages become, as text."""
    service.check_model(body)
    messages = conversation(body["messages"])
    with engine_arguments("messages"):
        text = await service.gate.in_thread(
            lambda: service.engine.template.render(messages, **_variables(body)), pool=request.state.pool
        )
    return JSONResponse({"prompt": text})


def _variables(body: dict[str, Any]) -> dict[str, Any]:
    """The arguments of `Template.render` in a request."""
    found = rendering(body)
    variables = found.pop("chat_template_kwargs", {})
    if clash := variables.keys() & {"messages", "tools", "tokenizer", *found}:
        raise invalid(f"'chat_template_kwargs' has {sorted(clash)[0]!r}, which is a field of its own")
    tools = {"tools": body["tools"]} if body.get("tools") else {}
    return {**found, **tools, **variables}


async def tokenizer_info(service: Service, request: Request) -> ASGIApp:
    """What lm-evaluation-harness asks of a tokenizer on a server."""

    def told() -> dict[str, Any]:
        tokenizer, template = service.engine.tokenizer, service.engine.template
        bos, eos = (
            None if id is None else tokenizer.id_to_token(id) for id in (tokenizer.bos_token_id, tokenizer.eos_token_id)
        )
        return {
            "tokenizer_class": "bitnet",
            "bos_token": bos,
            "eos_token": eos,
            "vocab_size": tokenizer.vocab_size,
            "model_max_length": service.engine.n_ctx,
            "chat_template": template.source,
        }

    return JSONResponse(await service.gate.in_thread(told))
