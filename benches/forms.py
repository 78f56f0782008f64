"""What a form costs and saves, on a model file: answers with a form beside free ones, one stream.

    python benches/forms.py 2b.gguf [--rounds 5]

Each round measures all kinds in turn. A random model writes strings and numbers without an end, so strings and lists of
the schemas have an upper size. The mask's time is that of llguidance alone, over the steps that chose an id.
"""

import argparse
import json
import statistics
import time

import bitnet

RECORD = {
    "type": "object",
    "properties": {
        "kind": {"enum": ["invoice", "receipt", "order", "reminder"]},
        "currency": {"enum": ["EUR", "USD", "GBP", "JPY"]},
        "amount": {"type": "integer", "minimum": 0, "maximum": 99999},
        "items": {"type": "integer", "minimum": 1, "maximum": 99},
        "priority": {"enum": ["low", "normal", "high"]},
        "is_paid": {"type": "boolean"},
        "year": {"type": "integer", "minimum": 1990, "maximum": 2030},
    },
    "required": ["kind", "currency", "amount", "items", "priority", "is_paid", "year"],
    "additionalProperties": False,
}
TEXTS = {
    "type": "object",
    "properties": {
        "title": {"type": "string", "maxLength": 40},
        "summary": {"type": "string", "maxLength": 160},
        "tags": {"type": "array", "items": {"type": "string", "maxLength": 12}, "maxItems": 4},
    },
    "required": ["title", "summary", "tags"],
    "additionalProperties": False,
}
KINDS: dict[str, dict[str, object]] = {
    "free": {"max_tokens": 64, "ignore_eos": True},
    "record of enums and numbers": {"json_schema": RECORD, "max_tokens": 160},
    "record, every logit": {"json_schema": RECORD, "max_tokens": 160, "logprobs": 0},
    "record of texts": {"json_schema": TEXTS, "max_tokens": 160},
    "letters of a choice": {"regex": "[A-D]{40}", "max_tokens": 64},
    "choice of 4": {"choice": ["positive", "negative", "neutral", "mixed"]},
    "regex, a date": {"regex": "(19|20)[0-9]{2}-[01][0-9]-[0-3][0-9]"},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", help="a model file (default: the model in the package)")
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each kind (default: 5)")
    options = parser.parse_args()
    engine = bitnet.Engine(options.model)
    prompt = engine.encode("Describe the purchase of the customer as JSON. ", add_bos=True)
    start = time.perf_counter()
    engine.generate(prompt, choice=["a", "b"])
    print(f"first grammar of the engine: {(time.perf_counter() - start) * 1e3:.0f} ms")
    rates: dict[str, list[float]] = {name: [] for name in KINDS}
    steps: dict[str, list[float]] = {name: [] for name in KINDS}
    facts: dict[str, str] = {}
    for _ in range(options.rounds):
        for name, how in KINDS.items():
            answer = engine.generate(prompt, **how)  # type: ignore[call-overload]
            assert answer.receipt is not None
            run = answer.receipt.to_dict()["run"]
            forced = run.get("forced", {"ids": 0, "uncomputed": 0})
            # The first step is the prompt's.
            rates[name].append((answer.completion_tokens - 1) / answer.decode_seconds if answer.decode_seconds else 0)
            steps[name].append(run["step_seconds"]["p50"])
            sample = run["seconds"]["sample"] / run["work"]["head"] * 1e6
            facts[name] = (
                f"{answer.completion_tokens} tokens, {forced['ids']} forced, {forced['uncomputed']} not computed, "
                f"{run['logits_per_token']:.0f} logits and {sample:.0f} us of sampling and mask a step"
            )
    free, step = statistics.median(rates["free"]), statistics.median(steps["free"])
    for name in KINDS:
        rate, own = statistics.median(rates[name]), statistics.median(steps[name])
        print(
            f"{name:28} {rate:7.1f} tokens/s = {rate / free:4.2f} x free; step {own * 1e3:6.1f} ms = "
            f"{own / step:4.2f} x free; {facts[name]}"
        )
    for name, how in KINDS.items():
        if name != "free" and "logprobs" not in how:
            answer = engine.generate(prompt, **how)  # type: ignore[call-overload]
            form = {key: value for key, value in how.items() if key != "max_tokens"}
            times = [1e6 * seconds for _ in range(20) for _, seconds in engine._follow_form(answer.token_ids, **form)]
            times.sort()
            mean, p95 = statistics.mean(times), times[int(0.95 * len(times))]
            print(f"mask of {name:28} mean {mean:6.1f} us a token, p50 {statistics.median(times):.1f}, p95 {p95:.1f}")
    print(json.dumps(engine.per_token))


if __name__ == "__main__":
    main()
