"""A second implementation of `numerics = 1`: judges receipts in pure Python and NumPy, apart from the compiled core.

It is written from docs/numerics.md and docs/receipts.md alone, and is a program, too, also without the compiled core:
`python -m bitnet.referee RECEIPT [MODEL]`, or `cd FOLDER/bitnet && python -m referee RECEIPT [MODEL]`. As a function:
>>> import bitnet.referee
>>> bitnet.referee.replay(bitnet.ChatSession(bitnet.Engine()).send("What is 2+2?").receipt)
True
"""

from __future__ import annotations

import codecs
import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from .arithmetic import Floats, blake3, exp64
from .model import Gguf, Model, RefereeError

__all__ = ["Model", "RefereeError", "differences", "replay"]

_INSIDE = Path(__file__).parent.parent / "models" / "trit.gguf"
_CLAIM = """numerics model tokenizer act_quant ffn_act kv_type n_ctx template system prompt_ids sampling output_ids
finish_reason previous"""
_SAMPLING = """temperature top_k top_p min_p repetition_penalty repeat_last_n presence_penalty frequency_penalty
logit_bias seed max_tokens stop stop_token_ids"""


def replay(receipt: Any, model: str | os.PathLike[str] | None = None) -> bool:
    """Compute a receipt's answer again: whether its digest, its ids and its end are right.

    Args:
        receipt: The path of a receipt's file, its document as a dict, or a `bitnet.Receipt`.
        model: The path of the model's GGUF file. Default: None, the model inside the package.

    Raises:
        RefereeError: The referee cannot judge this receipt or model, or it is another model than the receipt's.
        OSError: A file cannot be read.
    """
    return not differences(receipt, model)


def differences(receipt: Any, model: str | os.PathLike[str] | None = None) -> list[str]:
    """What a receipt claims and its model does not give, in words; empty if `replay` is True. Arguments as there."""
    try:
        if not isinstance(receipt, dict):
            is_object = hasattr(receipt, "to_json")
            receipt = json.loads(receipt.to_json() if is_object else Path(receipt).read_text(encoding="utf-8"))
        return _judge(receipt["claim"], receipt["digest"], model)
    except RefereeError:
        raise
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, ArithmeticError, RecursionError) as error:
        what = f"{type(error).__name__}: {error}"
        raise RefereeError(f"receipt or model are malformed ({what}); pass what bitnet wrote and read") from error


def _judge(claim: dict[str, Any], digest: str, path: str | os.PathLike[str] | None) -> list[str]:
    sampling, prompt, output = claim["sampling"], claim["prompt_ids"], claim["output_ids"]
    if claim["numerics"] != 1:
        raise RefereeError(f"claim.numerics is {claim['numerics']}, but this referee knows 1; use one that knows both")
    if other := [*set(claim) ^ set(_CLAIM.split()), *set(sampling) ^ set(_SAMPLING.split())]:
        raise RefereeError(f"the referee cannot judge claims with, or without, {sorted(other)}; use Engine.replay")
    if any(isinstance(part, dict) for part in (prompt, output, sampling["stop"])):
        raise RefereeError("the receipt is redacted; the referee needs prompt, answer and stop strings themselves")
    if (own := _digest(claim)) != digest:
        return [f"digest is {digest}, but that of the claim is {own}"]
    judge = Model(_INSIDE if path is None else path)
    if (own := blake3(judge.file.data)) != claim["model"]:
        raise RefereeError(f"claim.model is {claim['model']}, but {judge.file.path} is {own}; pass the receipt's model")
    found, ids = [], [*prompt, *output]
    if _tokenizer_hash(judge.file) != claim["tokenizer"] or claim["n_ctx"] > judge.context:
        found.append(f"claim.tokenizer is not the model's, or claim.n_ctx is above the model's {judge.context}")
    if not (prompt and output) or any(type(id) is not int or not 0 <= id < judge.vocab for id in ids):
        return [*found, f"prompt or answer is empty or holds what is no token id, from 0 to {judge.vocab - 1}"]
    if not _ends(claim, judge.file):
        found.append(f"claim.finish_reason is {claim['finish_reason']!r}, but the answer does not end like that")
    settings = {name: claim[name] for name in ("act_quant", "ffn_act", "kv_type")}
    for i, logits in enumerate(judge.logits(ids[:-1], len(prompt) - 1, **settings)):
        if (chosen := _choose(logits, sampling, ids[: len(prompt) + i], len(prompt))) != output[i]:
            return [*found, f"claim.output_ids[{i}] is {output[i]}, but the model gives {chosen}"]
    return found


def _json(value: Any) -> str:
    """JSON with sorted keys and no spaces, its floats as docs/receipts.md says."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{_json(key)}:{_json(value[key])}" for key in sorted(value)) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(map(_json, value)) + "]"
    if not isinstance(value, float):
        return json.dumps(value, ensure_ascii=False)
    digits, _, exponent = repr(value).partition("e")
    if exponent == "-05":
        return ("-" if value < 0 else "") + "0.0000" + digits.strip("-").replace(".", "")
    return f"{digits}e{int(exponent):+d}" if exponent else digits


def _digest(claim: dict[str, Any]) -> str:
    def hashed(part: Any) -> Any:
        has_hash = isinstance(part, (str, list, tuple))
        return {"count": len(part), "blake3": blake3(_json(part).encode())} if has_hash else part

    redacted = claim | {name: hashed(claim[name]) for name in ("prompt_ids", "output_ids", "system")}
    redacted["sampling"] = claim["sampling"] | {"stop": hashed(claim["sampling"]["stop"])}
    return blake3(_json(redacted).encode())


def _tokenizer_hash(file: Gguf) -> str | None:
    keys = sorted(key for key in file.raw if key.startswith("tokenizer."))
    beside = file.path.with_name("tokenizer.json")
    if "tokenizer.huggingface.json" in keys:
        return blake3(file.metadata["tokenizer.huggingface.json"].encode(errors="surrogateescape"))
    if file.metadata.get("tokenizer.ggml.model", "none") != "none":
        return blake3(b"".join(file.raw[key] for key in keys if not key.startswith("tokenizer.chat_template")))
    return blake3(beside.read_bytes()) if beside.is_file() else None


def _ends(claim: dict[str, Any], file: Gguf) -> bool:
    """Whether the answer ends where and why the claim says."""
    sampling, output = claim["sampling"], claim["output_ids"]
    at_most, room = sampling["max_tokens"], claim["n_ctx"] + 1 - len(claim["prompt_ids"])
    stops = {i for i, id in enumerate(output) if id in sampling["stop_token_ids"]}
    stops |= _stop_strings(output, sampling["stop"], file) if sampling["stop"] else set()
    reason = "length" if len(output) == at_most else "context" if len(output) == room else "cancelled"
    if stops:
        reason = "stop" if stops == {len(output) - 1} else ""
    return bool(reason == claim["finish_reason"]) and len(output) <= min(room, room if at_most is None else at_most)


def _stop_strings(output: list[int], stops: list[str], file: Gguf) -> set[int]:
    """The first place in the answer at which its text contains a stop string, if there is one."""
    keys, name = file.metadata, file.metadata.get("tokenizer.ggml.model")
    if name not in ("gpt2", "llama") or "tokenizer.huggingface.json" in keys:
        raise file.refusal("the referee finds stop strings with the tokenizers 'gpt2' and 'llama' only")
    texts, kinds = keys["tokenizer.ggml.tokens"], keys["tokenizer.ggml.token_type"]
    controls = [text for text, kind in zip(texts, kinds, strict=True) if kind in (2, 3)]
    with_controls = [stop for stop in stops if any(text in stop and text != stop for text in controls)]
    # GPT-2's characters for bytes: printable ones stand for themselves, the others are U+0100 and following.
    others = [byte for byte in range(256) if byte < 33 or 126 < byte < 161 or byte == 173]
    byte_of = {chr(256 + others.index(byte) if byte in others else byte): bytes([byte]) for byte in range(256)}
    visible = everything = ""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    for i, id in enumerate(output):
        text, kind = texts[id], kinds[id]
        if kind == 6:
            part = bytes([int(text[3:5], 16)])
        elif name == "gpt2" and kind not in (2, 3, 4):
            part = b"".join(byte_of[character] for character in text)
        else:
            part = (text if kind == 4 else text.replace("\u2581", " ")).encode(errors="surrogateescape")
        piece = text if kind in (2, 3) else decoder.decode(part, i == len(output) - 1)
        visible, everything = visible + ("" if kind in (2, 3) else piece), everything + piece
        if any(stop in visible for stop in stops) or any(stop in everything for stop in with_controls):
            return {i}
    return set()


def _is_wide(number: dict[str, Any], biases: list[Any]) -> bool:
    """Whether the parameters are applied in binary64."""
    factors = [number["repetition_penalty"], number["temperature"] or np.float32(1)]
    summands = [number["presence_penalty"], number["frequency_penalty"], *filter(np.isfinite, biases)]
    least, most = np.float32(1) / np.float32(1e6), np.float32(1e6)
    return not all(least <= x <= most for x in factors) or any(abs(x) > np.float32(1e20) for x in summands)


def _choose(logits: Floats, sampling: dict[str, Any], ids: list[int], prompt: int) -> int | None:
    """The id that follows `ids`, whose first `prompt` are the prompt; None if every id is banned."""
    number = {name: np.float32(x) for name, x in sampling.items() if isinstance(x, (int, float))}
    temperature, top_p, biases = number["temperature"], number["top_p"], sampling["logit_bias"]
    is_wide = _is_wide(number, [np.float32(bias) for _, bias in biases])
    kind: Any = np.float64 if is_wide else np.float32
    repetition, presence, frequency = (kind(number[f"{x}_penalty"]) for x in ("repetition", "presence", "frequency"))
    x: Any = logits.astype(kind)
    with np.errstate(all="ignore"):
        for id, bias in biases:
            if id < len(x):
                x[id] += kind(np.float32(bias))
        recent = sorted(set(ids[max(0, len(ids) - sampling["repeat_last_n"]) :]))
        x[recent] = np.where(x[recent] > 0, x[recent] / repetition, x[recent] * repetition)
        for id, times in Counter(ids[prompt:]).items():
            x[id] -= presence + frequency * kind(times)
        x, divisor = (x, temperature or 1) if is_wide else (x / (temperature or kind(1)), 1)
        # By value downwards, in binary32 +0 before -0, then by id. At temperature 0 -0 equals +0.
        order = np.lexsort((np.signbit(x) & bool(not is_wide and temperature), -x))
        order = order[: sampling["top_k"] or None] if temperature else order[:1]
        ranked = x[order].astype(np.float64)
        if ranked[0] == -np.inf:
            return None
        weights = np.where(ranked == ranked[0], 1.0, exp64((ranked - ranked[0]) / np.float64(divisor)))
    sums = np.cumsum(weights)  # one after the other
    if top_p < 1:
        weights = weights[: 1 + np.append(np.flatnonzero(sums >= np.float64(top_p) * sums[-1]), len(weights))[0]]
    weights = weights[weights >= np.float64(number["min_p"])]
    left = _uniform(sampling["seed"], len(ids) - prompt) * np.cumsum(weights)[-1]
    drawn = np.flatnonzero(np.subtract.accumulate(np.append(left, weights))[1:] < 0)
    return int(order[drawn[0] if len(drawn) else np.flatnonzero(weights)[-1]])


def _uniform(seed: int, i: int) -> float:
    """Draw i of a seed: SplitMix64 after i + 1 steps, its upper 53 bits as a fraction."""
    z = (seed + (i + 1) * 0x9E37_79B9_7F4A_7C15) % 2**64
    z = (z ^ z >> 30) * 0xBF58_476D_1CE4_E5B9 % 2**64
    z = (z ^ z >> 27) * 0x94D0_49BB_1331_11EB % 2**64
    return ((z ^ z >> 31) >> 11) / 2**53
