"""The JSON Schema of receipts, and a receipt as rows of text for people."""

import json
import re
from pathlib import Path
from typing import Any

from ._core import Receipt, SamplingParams, Tokenizer, _sampling_schema
from ._format import milliseconds, rate, token_counts
from .errors import TokenIdError

_SHOWN = 500
"""A longer prompt is cut to its last characters, this many."""

_USUAL = {"kv_type": "f16", "numerics": 1, "lm_head": None, "act_block": None}
"""Settings that are shown only if they have another value. The defaults of the others depend on the model."""

CONTRADICTED = re.compile(r"gate '(model_info\.|claim\.(n_ctx|template|system)\b)")
"""The gates of a replay that fail because the receipt says what is not so, not because it needs another engine."""


def receipt_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of a receipt's document."""
    schema: dict[str, Any] = json.loads(Path(__file__).with_name("receipt.schema.json").read_text(encoding="utf-8"))
    schema["properties"]["claim"]["properties"]["sampling"] = json.loads(_sampling_schema())
    return schema


def summary(receipt: Receipt, tokenizer: Tokenizer | None = None) -> dict[str, str]:
    """A receipt as named rows of text, for `bitnet receipt show` and for notebooks.

    With the model's tokenizer, the first rows are the prompt and the answer. Settings that have their default, such as
    the sampling parameters of greedy decoding, are left out.
    """
    # A copy with other test results forgets the document that the receipt was read from. It has every field, as the
    # figures give it, also where the document was altered.
    document = receipt.with_test_results(total_tests=0, passed=0).to_dict()
    claim, run, model, machine = (document[name] for name in ("claim", "run", "model_info", "environment"))
    template, seconds, steps, work = claim["template"], run["seconds"], run["step_seconds"], run["work"]
    parts = ("render", "tokenize", "prefill", "decode", "sample", "detokenize")
    kernels = [
        f"{name} {work[name]} rows {milliseconds(work[f'{name}_ns'] / 1e9)}"
        for name in ("ternary", "dense", "attention", "head")
        if work[name]
    ]
    counts = token_counts(receipt.prompt_tokens, receipt.cached_tokens, receipt.completion_tokens)
    processor = machine.get("processor", "unknown processor")  # the environment may hold anything
    rows = _texts(claim, tokenizer) if tokenizer else {}
    rows |= {
        "ended": f"{receipt.timestamp}, finish_reason {receipt.finish_reason!r}",
        "digest": receipt.digest + (f", previous {claim['previous']}" if claim["previous"] else ""),
        "model": f"{model['file']} ({model['architecture']}, {model['bytes']} bytes), {claim['model']}",
        "settings": f"act_quant {claim['act_quant']}, ffn_act {claim['ffn_act']}, n_ctx {claim['n_ctx']}"
        + "".join(f", {name} {claim.get(name)}" for name, usual in _USUAL.items() if claim.get(name) != usual),
    }
    if template:
        rows["template"] = f"{template['name']} (from: {template['origin']})"
    if isinstance(claim["system"], dict):
        rows["system"] = "redacted"
    elif claim["system"] is not None:
        rows["system"] = json.dumps(claim["system"], ensure_ascii=False)
    rows |= {
        "sampling": _sampling(claim["sampling"], tokenizer),
        "tokens": f"{counts}, {receipt.computed_tokens} computed" + _guesses(run),
        "machine": f"{processor}, {run['isa']}, threads {run['threads']}, bitnet {run['version']}",
        "time": f"{milliseconds(seconds['wall'])} = "
        + " + ".join(f"{name} {milliseconds(seconds[name])}" for name in parts)
        + f" + other {milliseconds(run['other_seconds'])}; the consumer took {milliseconds(seconds['consumer'])}",
        "rates": f"prefill {rate(run['prefill_tokens_per_second'])}, decode {rate(run['decode_tokens_per_second'])}, "
        f"step p50 {milliseconds(steps['p50'])}, p95 {milliseconds(steps['p95'])}, max {milliseconds(steps['max'])}",
        "kernels": f"{', '.join(kernels)}; between kernels {milliseconds(run['between_kernels_seconds'])}",
    }
    if "ffn_up_share" in run:
        up, down = run["ffn_up_share"], run["ffn_down_share"]
        rows["neurons"] = f"read {100 * up:.1f} % of the rows of up, {100 * down:.1f} % of the columns of down"
    return rows


def _texts(claim: dict[str, Any], tokenizer: Tokenizer) -> dict[str, str]:
    """The prompt and the answer as text; nothing for a redacted receipt, or one with ids that are no tokens."""
    if isinstance(claim["prompt_ids"], dict) or isinstance(claim["output_ids"], dict):
        return {}
    try:
        prompt = tokenizer.decode(claim["prompt_ids"], skip_special_tokens=False)
        answer = tokenizer.decode(claim["output_ids"])
    except TokenIdError:
        return {}
    if claim["finish_reason"] == "stop" and isinstance(claim["sampling"]["stop"], list):
        ends = [answer.find(text) for text in claim["sampling"]["stop"] if text in answer]
        answer = answer[: min(ends, default=len(answer))]
    return {"prompt": prompt if len(prompt) <= _SHOWN else f"…{prompt[-_SHOWN:]}", "answer": answer}


def _sampling(claimed: dict[str, Any], tokenizer: Tokenizer | None) -> str:
    """The sampling parameters that differ from their defaults."""
    usual = {name: getattr(SamplingParams(), name, None) for name in claimed}
    usual |= {"logit_bias": [], "stop_token_ids": tokenizer.stop_token_ids if tokenizer else []}
    if claimed["temperature"] == 0:
        usual["seed"] = claimed["seed"]  # nothing was drawn
    changed = {name: value for name, value in claimed.items() if value != usual[name]}
    if isinstance(changed.get("stop"), dict) and changed["stop"]["count"] == 0:
        del changed["stop"]  # redacted, but there was none
    shown = {name: "redacted" if isinstance(value, dict) else json.dumps(value) for name, value in changed.items()}
    return ", ".join(f"{name} {value}" for name, value in shown.items()) or "greedy, all defaults"


def _guesses(run: dict[str, Any]) -> str:
    """How many tokens were guessed, if guesses were asked for."""
    if "speculation" not in run:
        return ""
    return f"; {run['speculation']['proposed']} guessed, {run['speculation']['accepted']} of them saved a step"
