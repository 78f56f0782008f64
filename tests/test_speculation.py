"""Speculation by prompt look-up: whatever is guessed, an answer is that of plain decoding, and its receipt counts the
guesses.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import bitnet
from bitnet import ChatSession, Receipt
from bitnet._synthetic import Spec
from conftest import ROOT, ModelMaker, likelihoods
from text_model import make_text_model

SPEC = Spec("llama", 2, 128, 128, 2, 1, context=256)
GREEDY: dict[str, Any] = {"max_tokens": 60, "ignore_eos": True, "logprobs": 1, "seed": 3}
SETTINGS: list[dict[str, Any]] = [
    {},
    {"temperature": 0.3, "top_k": 3},
    {"temperature": 1.0},
    {"repetition_penalty": 1.3, "repeat_last_n": 20},
    {"frequency_penalty": 0.4, "temperature": 0.2},
    {"logprobs": None},
    {"logprobs": None, "repetition_penalty": 1.1, "temperature": 0.4, "min_p": 0.2},
]


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Any:
    path = tmp_path_factory.mktemp("speculation") / "model.gguf"
    make_text_model(path, 256, SPEC)
    with bitnet.Engine(path, n_threads=2) as engine:
        yield engine


def prompts(seed: int, n_vocab: int) -> list[int]:
    """Ids with much repetition."""
    draw = random.Random(seed)
    phrase = [draw.randrange(n_vocab) for _ in range(9)]
    return [id for _ in range(4) for id in [*phrase, draw.randrange(n_vocab)]]


def guesses(answer: Any) -> tuple[int, int]:
    run = answer.receipt.to_dict()["run"]["speculation"]
    return run["proposed"], run["accepted"]


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_answers_are_those_of_plain_decoding(engine: Any, setting: dict[str, Any]) -> None:
    for seed in range(6):
        ids = prompts(seed, engine.n_vocab)
        plain = engine.generate(ids, **(GREEDY | setting))
        guessed = engine.generate(ids, **(GREEDY | setting), speculate="lookup")
        assert (guessed.token_ids, guessed.text) == (plain.token_ids, plain.text)
        assert guessed.receipt.digest == plain.receipt.digest
        if plain.logprobs is not None:
            assert likelihoods(guessed) == likelihoods(plain)
        guessed.receipt.validate()


def test_repeated_text_takes_fewer_steps(engine: Any) -> None:
    """A small random model repeats itself sooner or later; then guesses are right. A new engine has not measured what
    they cost, and guesses in any case.
    """
    accepted = 0
    for seed in range(8):
        with bitnet.Engine(engine.path, n_threads=1) as new:
            ids = prompts(seed, engine.n_vocab)
            answer = new.generate(ids, **(GREEDY | {"max_tokens": 150}), speculate="lookup")
        proposed, own = guesses(answer)
        assert proposed > 0
        assert own <= proposed
        assert len(answer.receipt.to_dict()["run"]["step_ns"]) == len(answer.token_ids) - 1 - own
        accepted += own
    assert accepted > 0


def test_stops_and_limits_are_those_of_plain_decoding(engine: Any) -> None:
    ids = prompts(1, engine.n_vocab)
    whole = engine.generate(ids, **(GREEDY | {"max_tokens": 120}))
    cases: list[dict[str, Any]] = [{"max_tokens": n} for n in (1, 2, 3, 50, 51, 52, 53)]
    cases += [{"max_tokens": None}, *({"stop_token_ids": [id]} for id in set(whole.token_ids))]
    cases += [{"stop": whole.text[at : at + 3]} for at in range(5, 60, 7) if whole.text[at : at + 3].isprintable()]
    for case in cases:
        plain = engine.generate(ids, **(GREEDY | case))
        guessed = engine.generate(ids, **(GREEDY | case), speculate="lookup")
        assert (guessed.token_ids, guessed.text, guessed.finish_reason) == (
            plain.token_ids,
            plain.text,
            plain.finish_reason,
        ), case
        guessed.receipt.validate()
        assert guessed.receipt.digest == plain.receipt.digest
        assert engine.replay(guessed.receipt)


def test_lists_streams_and_sessions_guess(engine: Any) -> None:
    ids = [prompts(seed, engine.n_vocab) for seed in range(5)]
    plain = [engine.generate(one, **GREEDY).token_ids for one in ids]
    together = engine.generate(ids, **GREEDY, speculate="lookup")
    assert [one.token_ids for one in together] == plain
    for one in together:
        one.receipt.validate()
    stream = engine.stream(ids[0], **GREEDY, speculate="lookup")
    assert [piece.token_id for piece in stream] == plain[0]
    chats = [ChatSession(engine, template="bitnet", **GREEDY) for _ in range(2)]
    for text in ("hello hello hello hello", "world world"):
        assert chats[0].send(text).token_ids == chats[1].send(text, speculate="lookup").token_ids


@pytest.mark.parametrize("n", range(12))
def test_a_cancelled_answer_has_a_valid_receipt(engine: Any, n: int) -> None:
    stream = engine.stream(prompts(2, engine.n_vocab), **GREEDY, speculate="lookup")
    whole = engine.generate(prompts(2, engine.n_vocab), **GREEDY)
    for _ in range(2 * n + 1):
        next(stream)
    stream.cancel()
    assert stream.token_ids == whole.token_ids[: 2 * n + 1]
    stream.receipt.validate()


@pytest.mark.parametrize(("n_batch", "max_batch"), [(1, 4), (2, 2), (64, 1), (7, 32)])
def test_passes_of_few_rows_leave_little_room(model: ModelMaker, n_batch: int, max_batch: int) -> None:
    path = model(SPEC)
    ids = prompts(4, 90)
    with bitnet.Engine(path) as usual, bitnet.Engine(path, n_batch=n_batch, max_batch=max_batch) as narrow:
        guessed = narrow.generate(ids, **GREEDY, speculate="lookup")
        assert guessed.token_ids == usual.generate(ids, **GREEDY).token_ids
        guessed.receipt.validate()
        if min(n_batch, max_batch) == 1:
            assert guesses(guessed) == (0, 0)


def test_recurrent_models_guess_nothing(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    make_text_model(path, 256, Spec("qwen35", 3, 128, 128, 2, 1, 32, linear="Q2_0_g64", embedding="F16", untied=True))
    with bitnet.Engine(path) as engine:
        ids = prompts(1, engine.n_vocab)
        guessed = engine.generate(ids, **GREEDY, speculate="lookup")
        assert guessed.token_ids == engine.generate(ids, **GREEDY).token_ids
        assert guesses(guessed) == (0, 0)


def test_receipts_say_it_and_old_ones_do_not(engine: Any) -> None:
    ids = prompts(3, engine.n_vocab)
    schema = json.loads((ROOT / "python/bitnet/receipt.schema.json").read_text(encoding="utf-8"))
    plain, guessed = engine.generate(ids, **GREEDY), engine.generate(ids, **GREEDY, speculate="lookup")
    assert "speculation" not in plain.receipt.to_dict()["run"]
    for answer in (plain, guessed):
        jsonschema.validate(answer.receipt.to_dict(), schema)
        assert Receipt.from_json(answer.receipt.to_json()).digest == answer.receipt.digest
    document = guessed.receipt.to_dict()
    for name in ("proposed", "accepted"):
        changed = json.loads(json.dumps(document))
        changed["run"]["speculation"][name] += 1
        with pytest.raises(bitnet.ReceiptError):
            Receipt.from_json(json.dumps(changed)).validate()


def test_wrong_kinds_are_refused(engine: Any) -> None:
    with pytest.raises(bitnet.ArgumentError, match='speculate is "draft", expected one of "lookup"'):
        engine.generate([1], speculate="draft")
    with pytest.raises(TypeError):
        engine.generate([1], speculate=True)
    assert bitnet.SamplingParams(speculate="lookup").speculate == "lookup"
    assert "speculate" not in repr(bitnet.SamplingParams())
