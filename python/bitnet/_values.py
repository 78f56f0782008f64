"""Objects as plain data: how `pickle` makes them again, and dicts for JSON."""

import os
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

if TYPE_CHECKING:
    from . import Completion, Engine, Logprob, Receipt, SamplingParams, Tokenizer

_engines: "WeakValueDictionary[tuple[Any, ...], Engine]" = WeakValueDictionary()
"""Engines that were opened here, so that several objects of one pickle, or several tasks, share one model."""


def engine(path: os.PathLike[str], options: dict[str, Any]) -> "Engine":
    """The engine of a pickled one. Opens its model again, unless this process still has it open."""
    from . import Engine

    key = (os.getpid(), os.fspath(path), *sorted(options.items()))
    found = _engines.get(key)
    if found is None or found.closed:
        found = _engines[key] = Engine(path, **options)
    return found


def tokenizer(path: os.PathLike[str], pre: str | None) -> "Tokenizer":
    """A pickled tokenizer, read again from its file."""
    from . import Tokenizer

    return Tokenizer(path, pre=pre)


def receipt(text: str) -> "Receipt":
    """A pickled receipt."""
    from . import Receipt

    return Receipt.from_json(text)


def sampling_params(keywords: dict[str, Any]) -> "SamplingParams":
    """Pickled sampling parameters."""
    from . import SamplingParams

    return SamplingParams(**keywords)


def completion_dict(completion: "Completion") -> dict[str, Any]:
    """`Completion.to_dict`."""
    names = ("text", "reasoning", "tool_calls", "token_ids", "finish_reason")
    figures = ("prompt_tokens", "cached_tokens", "completion_tokens", "seed", "ttft", "decode_seconds")
    logprobs, top = completion.logprobs, completion.top_logprobs
    return {
        **{name: getattr(completion, name) for name in (*names, *figures)},
        "logprobs": logprobs and [_logprob_dict(one) for one in logprobs],
        "top_logprobs": top and [[_logprob_dict(one) for one in all] for all in top],
        "receipt": completion.receipt and completion.receipt.to_dict(),
    }


def _logprob_dict(one: "Logprob") -> dict[str, Any]:
    return {"id": one.id, "text": one.text, "logprob": one.logprob, "bytes": list(one.bytes)}
