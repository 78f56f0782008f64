"""Tokenizers, stop strings and sampling limits from Python: what is refused, hidden, forced and interrupted."""

from __future__ import annotations

import math
import signal
import sys
from typing import Any

import pytest

from bitnet import ArgumentError, Engine, SamplingParams, TokenIdError, Tokenizer, models

EOT = "<|eot_id|>"


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine()


@pytest.mark.parametrize("ids, position, found", [([99999], 0, 99999), ([5, -1], 1, -1), ([5, 6, 2**40], 2, 2**40)])
def test_decode_refuses_ids_outside_the_vocabulary(engine: Engine, ids: list[int], position: int, found: int) -> None:
    for decode in (engine.decode, engine.tokenizer.decode, Tokenizer(models.inside()).decode):
        with pytest.raises(TokenIdError, match=f"token id {found} at position {position} is outside"):
            decode(ids)
    last = engine.tokenizer.vocab_size - 1
    assert engine.decode([last], skip_special_tokens=False) == Tokenizer(models.inside()).decode([last], False)


def forced(engine: Engine, ids: list[int], **keywords: Any) -> Any:
    """A completion that consists of these ids in a random order."""
    params = SamplingParams(
        temperature=1.0, seed=7, logit_bias=dict.fromkeys(ids, math.inf), ignore_eos=True, max_tokens=40, **keywords
    )
    return engine.generate("2+2=", params)


def test_a_stop_string_that_is_a_control_tokens_text_is_its_id(engine: Engine) -> None:
    eot, line = engine.tokenizer.token_to_id(EOT), engine.encode("\n")[0]
    assert eot is not None
    assert forced(engine, [eot, line]).finish_reason == "length"
    completion = forced(engine, [eot, line], stop=["never", EOT])
    assert (completion.finish_reason, completion.text.strip("\n")) == ("stop", "")
    assert eot not in completion.token_ids and len(completion.token_ids) < 40
    claim = completion.receipt.to_dict()["claim"]["sampling"]
    assert claim["stop"] == ["never", EOT] and eot in claim["stop_token_ids"]
    assert engine.replay(completion.receipt)


def test_a_stop_string_with_a_control_token_inside_is_found(engine: Engine) -> None:
    eot, line = engine.tokenizer.token_to_id(EOT), engine.encode("\n")[0]
    assert eot is not None
    free = forced(engine, [eot, line]).token_ids
    at = next(i for i in range(39) if free[i : i + 2] == [eot, line])
    completion = forced(engine, [eot, line], stop=EOT + "\n")
    assert completion.finish_reason == "stop"
    assert completion.token_ids == free[: at + 2]
    assert completion.text == "\n" * free[:at].count(line)
    assert engine.replay(completion.receipt)
    # Stop strings without control tokens see the text as it is shown.
    assert forced(engine, [eot, line], stop="\n\n").text == ""


def test_tiny_temperatures_are_greedy_and_banning_everything_is_an_error(engine: Engine) -> None:
    greedy = engine.generate("2+2=", max_tokens=8).token_ids
    for temperature in (1e-45, 1e-38, 1e-30):
        for top_k in (0, 1):
            assert engine.generate("2+2=", temperature=temperature, top_k=top_k, max_tokens=8).token_ids == greedy
    everything = dict.fromkeys(range(engine.n_vocab), -math.inf)
    for temperature in (0.0, 0.7, 1e-38):
        with pytest.raises(ArgumentError, match="logit_bias bans every id"):
            engine.generate("2+2=", temperature=temperature, logit_bias=everything)
        assert engine.generate("2+2=", max_tokens=8).token_ids == greedy
    del everything[5]
    assert engine.generate("2+2=", temperature=1.0, logit_bias=everything, max_tokens=3).token_ids == [5, 5, 5]


@pytest.mark.skipif(sys.platform == "win32", reason="it has no SIGALRM")
def test_encoding_a_long_text_sees_signals(engine: Engine) -> None:
    class Alarm(Exception):
        pass

    def ring(*_: object) -> None:
        raise Alarm

    before = signal.signal(signal.SIGALRM, ring)
    try:
        for encode in (engine.encode, Tokenizer(models.inside()).encode):
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            with pytest.raises(Alarm):
                encode("the quick brown fox, 12 " * 4_000_000)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_a_tokenizer_says_what_it_guessed() -> None:
    assert Tokenizer(models.inside()).warning is None
