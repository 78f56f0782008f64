"""Numbers of an engine as arrays: log-probabilities, scores, perplexity, embeddings."""

from __future__ import annotations

import math
import subprocess
import sys
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import bitnet
from bitnet._synthetic import Spec
from conftest import ModelMaker
from reference import Reference

SPEC = Spec("bitnet-b1.58", 2, 256, 512, 4, 2, vocab_size=151, context=512, linear="TQ1_0")
MODES: list[dict[str, Any]] = [{"isa": "scalar", "n_threads": 1}, {"n_threads": 2, "n_batch": 7}, {"n_threads": 2}]


def ids_of(n: int, seed: int = 5) -> list[int]:
    return [int(i) for i in np.random.default_rng(seed).integers(0, SPEC.vocab_size, n)]


def log_softmax(logits: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """In float64."""
    x = logits.astype(np.float64)
    x -= x.max(axis=-1, keepdims=True)
    found: npt.NDArray[np.float64] = x - np.log(np.exp(x).sum(axis=-1, keepdims=True))
    return found


def test_logprobs_are_those_of_the_logits(model: ModelMaker) -> None:
    ids = ids_of(150)
    with bitnet.Engine(model(SPEC)) as engine:
        found = engine.logprobs(ids)
        want = log_softmax(engine.logits(ids))[np.arange(149), ids[1:]]
        assert (found.dtype, found.shape) == (np.float32, (149,))
        # float64 sums in another order, then rounded to float32.
        assert np.abs(found - want).max() < 1e-6 * np.abs(want).max()
        assert engine.logprobs([1]).shape == engine.logprobs([]).shape == (0,)
        assert engine.cached_tokens == 0


def test_they_are_what_sampling_reports(model: ModelMaker) -> None:
    with bitnet.Engine(model(SPEC)) as engine:
        prompt = ids_of(9)
        answer = engine.generate(prompt, max_tokens=6, logprobs=1)
        assert answer.logprobs is not None
        reported = np.array([token.logprob for token in answer.logprobs], np.float32)
        assert (engine.logprobs(prompt + answer.token_ids)[8:] == reported).all()
        scores = engine.score(prompt, [answer.token_ids])
        assert (scores.token_logprobs[0] == reported).all()
        assert scores.is_greedy.tolist() == [True]


def test_they_are_those_of_the_published_formulas(model: ModelMaker) -> None:
    """`act_quant="none"`: no rounding to int8 that a last bit could tip."""
    path, ids = model(SPEC), ids_of(40)
    with bitnet.Engine(path, kv_type="f32", act_quant="none") as engine:
        want = log_softmax(Reference.open(path).logits(ids, "none"))[np.arange(39), ids[1:]]
        assert np.abs(engine.logprobs(ids) - want).max() < 1e-4
        assert engine.perplexity(ids) == pytest.approx(math.exp(-want.mean()), rel=1e-5)


def test_the_same_bits_on_any_instruction_set_and_in_any_batch(model: ModelMaker) -> None:
    path, ids = model(SPEC), ids_of(100)
    continuations = [ids_of(n, n) for n in (1, 30, 2, 0, 140)]
    texts = [ids_of(n, n) for n in (3, 140, 1, 20)]

    def numbers(mode: dict[str, Any]) -> list[Any]:
        with bitnet.Engine(path, **mode) as engine:
            scores = engine.score(ids, continuations)
            arrays = [engine.logprobs(ids), scores.logprobs, scores.is_greedy, *scores.token_logprobs]
            arrays += [engine.embed(texts), engine.embed(texts, "last"), np.array(engine.perplexity(ids, 30))]
            return [array.tobytes() for array in arrays]

    first, *others = map(numbers, MODES)
    assert all(other == first for other in others)


def test_continuations_score_as_if_alone_and_the_context_is_computed_once(model: ModelMaker) -> None:
    context = ids_of(100)
    continuations = [ids_of(n, n) for n in (1, 30, 2, 0, 140)]
    with bitnet.Engine(model(SPEC)) as engine:
        scores = engine.score(context, continuations)
        assert (scores.logprobs.dtype, scores.is_greedy.dtype) == (np.float32, np.bool_)
        assert scores.logprobs.shape == scores.is_greedy.shape == (5,)
        for ids, tokens, total, greedy in zip(
            continuations, scores.token_logprobs, scores.logprobs, scores.is_greedy, strict=True
        ):
            assert (tokens == engine.logprobs(context + ids)[99:]).all()
            assert total == np.float32(sum(map(float, tokens)))
            best = engine.logits(context + ids).argmax(axis=-1)[99:]
            assert greedy == (best[: len(ids)] == ids).all()
        assert scores.computed_tokens == 100 + sum(max(len(ids) - 1, 0) for ids in continuations)
        assert engine.score(context, []).computed_tokens == 1, "the context is cached, but for the logits of its end"
        many = engine.score([context, context[:50], context], [continuations, [[1], [2, 3]], [4]])
        assert many[0].logprobs.tolist() == scores.logprobs.tolist()
        assert many[1].logprobs.tolist() == engine.score(context[:50], [[1], [2, 3]]).logprobs.tolist()
        assert many[2].logprobs.tolist() == engine.score(context, [4]).logprobs.tolist()
        assert len(many) == 3
        assert "computed_tokens=269" in repr(scores)


def test_texts_are_split_after_the_contexts_ids(engine: Any) -> None:
    bos = engine.tokenizer.bos_token_id
    by_text = engine.score("hello ", ["world", "world hello"])
    hello, world = engine.encode("hello world")
    by_ids = engine.score([bos, hello], [[world], [world, *engine.encode(" hello")]])
    assert by_text.logprobs.tolist() == by_ids.logprobs.tolist()
    assert engine.score("", ["hello"]).logprobs == engine.score([bos], [[hello]]).logprobs
    assert engine.score("hello", [""]).logprobs.tolist() == [0]
    assert engine.score("hello", []).logprobs.tolist() == []
    assert [one.logprobs.shape for one in engine.score(["hello", "world"], [[], [" hello", ""]])] == [(0,), (2,)]
    assert engine.perplexity("hello world") == engine.perplexity([bos, hello, world])
    assert (engine.embed(["hello world"]) == engine.embed([[bos, hello, world]])).all()


def test_perplexity_slides_a_window(model: ModelMaker) -> None:
    """As Hugging Face's documentation does it: each id once, by the window that reaches it first."""
    ids, n_ctx = ids_of(150), 64
    with bitnet.Engine(model(SPEC), n_ctx=n_ctx) as engine:
        for stride in (1, 20, 32, 64):
            counted, end = [], 0
            for begin in range(0, len(ids), stride):
                before, end = end, min(begin + n_ctx, len(ids))
                logprobs = log_softmax(engine.logits(ids[begin:end]))
                targets = range(max(before, begin + 1), end)
                counted += [logprobs[i - begin - 1, ids[i]] for i in targets]
                if end == len(ids):
                    break
            assert len(counted) == (149 if stride < 64 else 147)
            assert engine.perplexity(ids, stride) == pytest.approx(math.exp(-np.mean(counted)), rel=1e-6)
        assert engine.perplexity(ids) == engine.perplexity(ids, 32)


def test_embeddings_are_what_the_head_reads(model: ModelMaker) -> None:
    """Through the head, which is the embedding, the last position's vector gives its logits."""
    path = model(SPEC)
    texts = [ids_of(n, n) for n in (3, 140, 1)]
    table = Reference.open(path).weights["token_embd.weight"]
    with bitnet.Engine(path) as engine:
        last, mean = engine.embed(texts, pooling="last"), engine.embed(texts)
        assert (mean.dtype, mean.shape) == (np.float32, (3, SPEC.width))
        for ids, state, average in zip(texts, last, mean, strict=True):
            logits = engine.logits(ids)
            assert np.abs(state @ table.T - logits[-1]).max() < 1e-4 * np.abs(logits).max()
            # The mean of logits is the head's of the mean.
            assert np.abs(average @ table.T - logits.mean(axis=0)).max() < 1e-4 * np.abs(logits).max()
        assert (last[2] == mean[2]).all()
        assert engine.embed([]).shape == (0, SPEC.width)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda e: e.logprobs([1, 999]), bitnet.TokenIdError, "999 at position 1"),
        (lambda e: e.logprobs([1] * 513), bitnet.ContextLengthError, "513"),
        (lambda e: e.score([], [[1]]), bitnet.ArgumentError, "context is empty"),
        (lambda e: e.score([1], [[1], [2, -1]]), bitnet.TokenIdError, r"continuations\[1\]: .*-1 at position 1"),
        (lambda e: e.score([1] * 500, [[1] * 14]), bitnet.ContextLengthError, r"continuations\[0\]"),
        (lambda e: e.score("a", [[1]]), TypeError, "must be either all texts or all lists of ids"),
        (lambda e: e.score([1], ["a"]), TypeError, "must be either all texts or all lists of ids"),
        (lambda e: e.score([1], "a"), TypeError, "must be either all texts or all lists of ids"),
        (lambda e: e.perplexity([1]), bitnet.ArgumentError, "perplexity needs at least two tokens; the text has 1"),
        (lambda e: e.perplexity([1, 2], 513), bitnet.ArgumentError, "stride is 513, expected 1 to n_ctx, which is 512"),
        (lambda e: e.perplexity([1, 2], 0), bitnet.ArgumentError, "stride is 0"),
        (lambda e: e.embed([[1], []]), bitnet.ArgumentError, r"texts\[1\] is empty"),
        (lambda e: e.embed([[1], [999]]), bitnet.TokenIdError, r"texts\[1\]: .*999"),
        (lambda e: e.embed([[1]], pooling="max"), bitnet.ArgumentError, '"mean", "last"'),
    ],
)
def test_what_cannot_be_is_refused(model: ModelMaker, call: Any, error: type[Exception], message: str) -> None:
    with bitnet.Engine(model(SPEC)) as engine:
        with pytest.raises(error, match=message):
            call(engine)
        # As long as can be: the last id is never computed.
        assert len(engine.score([1] * 500, [[1] * 13]).token_logprobs[0]) == 13


SLOW = Spec("bitnet", 8, 1024, 4096, 16, 16, vocab_size=300, context=2048, linear="F32")


def test_ctrl_c_abandons_long_calls(model: ModelMaker) -> None:
    code = """
import bitnet, os, signal, sys, threading
engine = bitnet.Engine(sys.argv[1], isa="scalar")
long = [7] * 2000
for call in (
    lambda: engine.logprobs(long),
    lambda: engine.score(long, [[1]]),
    lambda: engine.score([1], [long] * 3),
    lambda: engine.perplexity(long * 10),
    lambda: engine.embed([long] * 3),
):
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
    try:
        call()
        print("done")
    except KeyboardInterrupt:
        print("interrupted")
"""
    done = subprocess.run([sys.executable, "-c", code, model(SLOW)], capture_output=True, text=True)
    assert done.stdout == "interrupted\n" * 5, done.stderr
