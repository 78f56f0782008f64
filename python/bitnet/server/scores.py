"""Log-probabilities of prompts and answers, as /v1/completions tells them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from .. import Completion, Engine, Logprob


@dataclass(frozen=True)
class Entry:
    """A token of a prompt or an answer."""

    text: str
    """The token alone, as text."""
    logprob: float | None
    """Its log-probability; None for the first token of a prompt."""
    top: dict[str, float] | None
    """The log-probabilities of the most likely tokens in its place."""
    hidden: bool = False
    """Whether the token is not part of the text, like BOS before a text."""


def of_prompt(engine: Engine, ids: Sequence[int], k: int) -> list[Entry]:
    """The tokens of a prompt, each given those before it. Blocks while they are computed."""
    return [Entry(_text(engine, ids[0]), None, None), *(entry(own, top) for own, top in engine._likelihoods(ids, k))]


def _text(engine: Engine, id: int) -> str:
    """A token alone, as text; control tokens as they are spelled."""
    return engine.decode([id], skip_special_tokens=False)


def entry(own: Logprob, top: Iterable[Logprob]) -> Entry:
    """A token of an answer."""
    likely: dict[str, float] = {}
    for other in top:
        likely.setdefault(other.text, other.logprob)
    likely.setdefault(own.text, own.logprob)
    return Entry(own.text, own.logprob, likely)


async def of_end(engine: Engine, before: Sequence[int], answer: Any, k: int) -> list[Entry]:
    """The stop token that ended an answer, as a list of one; empty if the answer ended otherwise.

    Clients that score texts drop the last token of an answer, so it must be there whatever it is.
    """
    if answer.finish_reason != "stop" or answer.receipt is None or answer.completion_tokens == len(answer.token_ids):
        return []
    sampled = answer.receipt.to_dict()["claim"]["output_ids"]
    if len(sampled) == len(answer.token_ids) or len(before) + len(sampled) > engine.n_ctx:
        return []
    stop = sampled[-1]
    forced: Any = {"max_tokens": 1, "ignore_eos": True, "logit_bias": {stop: float("inf")}, "logprobs": k}
    found: Completion = await engine.agenerate([*before, *answer.token_ids], **forced)
    own, top = (found.logprobs or [])[0], (found.top_logprobs or [[]])[0]
    told = entry(own, top)
    return [Entry(_text(engine, stop), told.logprob, told.top, hidden=True)]


def document(entries: Iterable[Entry], offset: int = 0) -> dict[str, Any]:
    """Entries as OpenAI's completions have them. `offset`: characters of the text before the first one."""
    told: dict[str, list[Any]] = {"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []}
    for one in entries:
        told["tokens"].append(one.text)
        told["token_logprobs"].append(one.logprob)
        told["top_logprobs"].append(one.top)
        told["text_offset"].append(offset)
        offset += 0 if one.hidden else len(one.text)
    return told
