"""The JSON Schema of receipts, and a receipt as rows of text for people."""

import json
from pathlib import Path
from typing import Any

from ._core import Receipt, _sampling_schema
from ._format import milliseconds, rate, token_counts


def receipt_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of a receipt's document."""
    schema: dict[str, Any] = json.loads(Path(__file__).with_name("receipt.schema.json").read_text(encoding="utf-8"))
    schema["properties"]["claim"]["properties"]["sampling"] = json.loads(_sampling_schema())
    return schema


def summary(receipt: Receipt) -> dict[str, str]:
    """A receipt as named rows of text, for `bitnet receipt show` and for notebooks."""
    document = receipt.to_dict()
    claim, run, model, machine = (document[name] for name in ("claim", "run", "model_info", "environment"))
    template, seconds, steps, work = claim["template"], run["seconds"], run["step_seconds"], run["work"]
    parts = ("render", "tokenize", "prefill", "decode", "sample", "detokenize")
    kernels = [
        f"{name} {work[name]} rows {milliseconds(work[f'{name}_ns'] / 1e9)}"
        for name in ("ternary", "dense", "attention", "head")
        if work[name]
    ]
    counts = token_counts(receipt.prompt_tokens, receipt.cached_tokens, receipt.completion_tokens)
    return {
        "ended": f"{receipt.timestamp}, finish_reason {receipt.finish_reason!r}",
        "digest": f"{receipt.digest}, previous {claim['previous'] or 'none'}",
        "model": f"{model['file']} ({model['architecture']}, {model['bytes']} bytes), {claim['model']}",
        "settings": f"act_quant {claim['act_quant']}, ffn_act {claim['ffn_act']}, kv_type {claim['kv_type']}, "
        f"n_ctx {claim['n_ctx']}, numerics {claim['numerics']}",
        "template": f"{template['name']} (from: {template['origin']})" if template else "none",
        "system": "redacted" if isinstance(claim["system"], dict) else json.dumps(claim["system"], ensure_ascii=False),
        "sampling": ", ".join(f"{name} {json.dumps(value)}" for name, value in claim["sampling"].items()),
        "tokens": f"{counts}, {receipt.computed_tokens} computed",
        "machine": f"{machine['processor']}, {run['isa']}, threads {run['threads']}, bitnet {run['version']}",
        "time": f"{milliseconds(seconds['wall'])} = "
        + " + ".join(f"{name} {milliseconds(seconds[name])}" for name in parts)
        + f" + other {milliseconds(run['other_seconds'])}; the consumer took {milliseconds(seconds['consumer'])}",
        "rates": f"prefill {rate(run['prefill_tokens_per_second'])}, decode {rate(run['decode_tokens_per_second'])}, "
        f"step p50 {milliseconds(steps['p50'])}, p95 {milliseconds(steps['p95'])}, max {milliseconds(steps['max'])}",
        "kernels": f"{', '.join(kernels)}; between kernels {milliseconds(run['between_kernels_seconds'])}",
    }
