"""Sampling parameters of a request."""

from typing import Any

from .. import SamplingParams
from .errors import engine_arguments, invalid
from .forms import FORMS, asks_for_call, form
from .service import Service

_NAMES = (
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "repetition_penalty",
    "repeat_last_n",
    "presence_penalty",
    "frequency_penalty",
    "seed",
    "stop",
    "stop_token_ids",
    "ignore_eos",
    "speculate",
)
"""Parameters that have the engine's names and values."""

_BAN = -100.0
"""OpenAI's bias that bans a token."""

_SMALLEST_TOP_P = 1e-6
"""OpenAI allows top_p 0, which keeps the most likely token alone."""


async def params(service: Service, body: dict[str, Any], **more: Any) -> SamplingParams:
    """The sampling parameters of a checked request. `more` are those that the endpoint decides."""
    settings = service.settings
    given = {name: body[name] for name in _NAMES if name in body}
    if given.get("top_k") == -1:
        given["top_k"] = 0
    if given.get("seed") == -1:
        del given["seed"]
    if given.get("top_p") == 0:
        given["top_p"] = _SMALLEST_TOP_P
    if "logit_bias" in body:
        given["logit_bias"] = _biases(body["logit_bias"])
    given |= form(body) | {name: value for name, value in more.items() if value is not None}
    limit = {} if settings.max_tokens is None else {"max_tokens": settings.max_tokens}
    usual = limit | settings.defaults
    has_form = not given.keys().isdisjoint(FORMS)
    if has_form or asks_for_call(body):
        usual = {name: value for name, value in usual.items() if name not in FORMS}
    with engine_arguments():
        if not has_form:
            return SamplingParams(**usual | given)
        # A schema or a grammar may be long.
        return await service.gate.in_thread(lambda: SamplingParams(**usual | given))


def max_tokens(body: dict[str, Any]) -> int | None:
    """The limit of tokens, by either of its names."""
    given = [name for name in ("max_tokens", "max_completion_tokens") if name in body]
    limits = {body[name] for name in given}
    if len(limits) > 1:
        raise invalid("'max_tokens' and 'max_completion_tokens' differ; give one of them", "max_tokens")
    if 0 in limits:
        raise invalid(f"'{given[0]}' is 0, expected at least 1, or -1 for no limit", given[0])
    return None if limits <= {-1} else limits.pop()


def _biases(given: dict[str, float]) -> dict[int, float]:
    """Biases by token id. JSON has texts as keys."""
    biases = {}
    for key, value in given.items():
        if not (key.isascii() and key.isdecimal() and len(key) < 10):
            raise invalid(f"'logit_bias' has the key {key[:40]!r}, expected a token id", "logit_bias")
        biases[int(key)] = float("-inf") if value <= _BAN else float(value)
    return biases


def with_seed(params: SamplingParams, i: int) -> SamplingParams:
    """The parameters of answer i of several, as `Engine.generate(n=…)` has them: a seed that was given counts up."""
    if params.seed is None or i == 0:
        return params
    values = {name: getattr(params, name) for name in dir(SamplingParams) if not name.startswith("_")}
    return SamplingParams(**values | {"seed": (params.seed + i) % 2**64})
