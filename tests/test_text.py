"""Text in and out: tokens, sampling, streams, stop texts. Behaviours 16 to 18 and 21 to 25."""

from __future__ import annotations

import inspect
import math
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bitnet
from bitnet._synthetic import Spec
from conftest import ROOT
from text_model import CONTROL, EOT, TOKENS


def test_texts_become_the_vocabularys_ids_and_back(engine: Any) -> None:
    assert [engine.tokenizer.id_to_token(i) for i in engine.encode("hello world")] == ["hello", "Ġworld"]
    for text in ("hello wörld", "🙂 日本\n\tx", "", " ", "a" * 1000):
        assert engine.decode(engine.encode(text)) == text
    assert engine.encode("a", add_bos=True) == [TOKENS.index(CONTROL[0]), TOKENS.index("a")]
    assert engine.tokenizer.add_bos
    assert engine.tokenizer.pre == "llama-bpe"


def test_control_tokens_in_a_users_text_stay_text(engine: Any) -> None:
    """Behaviour 17."""
    assert EOT not in engine.encode("<|eot_id|>")
    assert engine.encode("<|eot_id|>", parse_special=True) == [EOT]
    assert engine.decode([EOT]) == ""
    assert engine.decode([EOT], skip_special_tokens=False) == "<|eot_id|>"
    stream = engine.stream("<|eot_id|>", max_tokens=1)
    assert stream.prompt_tokens == 1 + len(engine.encode("<|eot_id|>"))


def test_a_tokenizer_opens_alone(text_model: Path) -> None:
    alone = bitnet.Tokenizer(text_model)
    assert alone.decode(alone.encode("hello")) == "hello"
    assert alone.vocab_size == len(TOKENS)
    assert set(alone.stop_token_ids) == {TOKENS.index(CONTROL[1]), EOT}
    with pytest.raises(bitnet.UnsupportedModelError, match=r"klingon.*llama-bpe"):
        bitnet.Tokenizer(text_model, pre="klingon")


def test_a_tokenizer_json_opens_alone() -> None:
    alone = bitnet.Tokenizer(ROOT / "tests" / "fixtures" / "tokenizers" / "bytes" / "tokenizer.json")
    ids = alone.encode("the licence<|eot_id|>", add_bos=True, parse_special=True)
    assert (ids[0], alone.id_to_token(ids[-1]), alone.pre) == (alone.bos_token_id, "<|eot_id|>", "tokenizer.json")
    assert alone.decode(ids) == "the licence"
    with pytest.raises(bitnet.ArgumentError, match="leave out 'pre'"):
        bitnet.Tokenizer(ROOT / "tests" / "fixtures" / "tokenizers" / "bytes" / "tokenizer.json", pre="gpt-2")


def test_pieces_join_to_the_answer_and_break_no_character(engine: Any) -> None:
    """Behaviour 25."""
    for seed in range(20):
        stream = engine.stream("hello", max_tokens=40, temperature=1.5, seed=seed, ignore_eos=True)
        pieces = list(stream)
        text = "".join(piece.text for piece in pieces)
        assert text == stream.text
        # The tail of an incomplete character shows once, at the end, as decoding the ids shows it.
        assert text == engine.decode(stream.token_ids)
        assert [piece.token_id for piece in pieces] == stream.token_ids
        assert [piece.finish_reason for piece in pieces] == [None] * 39 + ["length"]


def test_the_first_piece_comes_before_the_last_is_computed(engine: Any) -> None:
    stream = engine.stream("hello", max_tokens=100, ignore_eos=True)
    next(stream)
    assert stream.completion_tokens == 1
    assert stream.finish_reason is None


def test_streaming_generating_and_ids_agree(engine: Any) -> None:
    prompt = engine.encode("hello world", add_bos=True)
    answer = engine.generate("hello world", max_tokens=20, ignore_eos=True)
    assert answer.token_ids == engine.generate_tokens(prompt, max_tokens=20)
    assert answer.token_ids == [piece.token_id for piece in engine.stream(prompt, max_tokens=20, ignore_eos=True)]
    assert answer.prompt_tokens == len(prompt)
    assert [a.token_ids for a in engine.generate(["hello", "x"], max_tokens=5, ignore_eos=True)] == [
        engine.generate(text, max_tokens=5, ignore_eos=True).token_ids for text in ("hello", "x")
    ]


def test_a_seed_fixes_the_answer_and_is_recorded(engine: Any) -> None:
    def sample(**keywords: Any) -> Any:
        return engine.generate("hello", max_tokens=30, temperature=1.0, ignore_eos=True, **keywords)

    assert sample(seed=1).token_ids == sample(seed=1).token_ids
    assert sample(seed=1).token_ids != sample(seed=2).token_ids
    free = sample()
    assert sample(seed=free.seed).token_ids == free.token_ids
    params = bitnet.SamplingParams(temperature=1.0, seed=1, max_tokens=30, ignore_eos=True)
    assert engine.generate("hello", params).token_ids == sample(seed=1).token_ids


def test_it_stops_at_a_stop_id_which_is_no_part_of_the_answer(engine: Any) -> None:
    """Behaviour 24."""
    whole = engine.generate("hello", max_tokens=30, temperature=1.0, seed=3, ignore_eos=True)
    stop = whole.token_ids[10]
    first = whole.token_ids.index(stop)
    assert first > 0, "an answer of one id would show nothing"
    stream = engine.stream("hello", max_tokens=30, temperature=1.0, seed=3, ignore_eos=True, stop_token_ids=[stop])
    pieces = list(stream)
    assert stream.token_ids == whole.token_ids[:first]
    assert (pieces[-1].token_id, pieces[-1].finish_reason) == (None, "stop")
    assert stream.completion_tokens == first + 1


def test_the_models_own_stop_ids_count_unless_ignored(engine: Any) -> None:
    bias = {EOT: 1e9}
    assert engine.generate("hello", max_tokens=5, logit_bias=bias).finish_reason == "stop"
    ignored = engine.generate("hello", max_tokens=5, logit_bias=bias, ignore_eos=True)
    assert (ignored.token_ids, ignored.finish_reason) == ([EOT] * 5, "length")


def test_a_stop_text_is_never_shown_even_split_over_tokens(engine: Any) -> None:
    """Behaviour 24: every stop text cut out of the answer itself, also across its tokens."""
    keywords: dict[str, Any] = {"max_tokens": 30, "temperature": 1.0, "seed": 5, "ignore_eos": True}
    whole = engine.generate("hello", **keywords).text
    for start in range(0, len(whole) - 4):
        stop = whole[start : start + 3]
        if "\ufffd" in stop:
            continue
        stream = engine.stream("hello", stop=stop, **keywords)
        shown = [piece.text for piece in stream]
        assert "".join(shown) == whole[: whole.index(stop)]
        assert stream.finish_reason == "stop"
    assert engine.generate("hello", stop=["not in there" * 9], **keywords).text == whole


def test_logprobs_are_those_of_the_logits(engine: Any) -> None:
    prompt = engine.encode("hello", add_bos=True)
    answer = engine.generate(prompt, max_tokens=4, logprobs=3, ignore_eos=True, temperature=0.7, seed=1)
    logits = engine.logits(prompt + answer.token_ids).astype(np.float64)
    for i, logprob in enumerate(answer.logprobs):
        row = logits[len(prompt) - 1 + i]
        expected = row - row.max() - math.log(np.exp(row - row.max()).sum())
        assert logprob.id == answer.token_ids[i]
        assert logprob.logprob == pytest.approx(expected[logprob.id], abs=1e-9)
    piece = next(engine.stream(prompt, max_tokens=1, logprobs=3))
    assert [top.id for top in piece.top_logprobs] == list(np.argsort(-logits[len(prompt) - 1], kind="stable")[:3])
    assert engine.generate(prompt, max_tokens=1).logprobs is None


def test_a_second_prompt_computes_only_what_is_new(engine: Any) -> None:
    """Behaviours 21 and 23: the warm cache holds the prompt and all generated ids but the last."""
    prompt = engine.encode("hello world", add_bos=True)
    first = engine.generate(prompt, max_tokens=6, ignore_eos=True)
    assert engine.cached_tokens == len(prompt) + 6 - 1
    longer = prompt + first.token_ids + engine.encode(" more")
    second = engine.generate(longer, max_tokens=6, ignore_eos=True)
    assert second.cached_tokens == len(prompt) + 6 - 1
    with bitnet.Engine(engine.path) as fresh:
        assert fresh.generate(longer, max_tokens=6, ignore_eos=True).token_ids == second.token_ids


def test_a_dropped_or_cancelled_stream_loses_nothing(engine: Any) -> None:
    whole = engine.generate("hello", max_tokens=30, ignore_eos=True)
    other = engine.generate("oh, hello", max_tokens=30, ignore_eos=True)
    assert other.token_ids != whole.token_ids, "else what a stream leaves behind would not show"
    engine.clear_cache()
    stream = engine.stream("hello", max_tokens=30, ignore_eos=True)
    next(stream)
    del stream
    assert engine.cached_tokens == whole.prompt_tokens, "nothing was computed ahead, and nothing after"
    stream = engine.stream("hello", max_tokens=30, ignore_eos=True)
    next(stream)
    stream.cancel()
    assert stream.finish_reason == "cancelled"
    assert list(stream) == []
    assert engine.generate("hello", max_tokens=30, ignore_eos=True).token_ids == whole.token_ids


def test_the_context_ends_the_answer(text_model: Path) -> None:
    with bitnet.Engine(text_model, n_ctx=20) as engine:
        answer = engine.generate([65] * 15, ignore_eos=True)
        assert (len(answer.token_ids), answer.finish_reason) == (6, "context")
        with pytest.raises(bitnet.ContextLengthError, match=r"21 .*20"):
            engine.generate([65] * 21)


def test_streams_of_many_threads_give_what_each_gives_alone(text_model: Path) -> None:
    with bitnet.Engine(text_model, n_threads=2) as engine:
        prompts = ["hello", "world", "a", "hello world hello", "xyz"]
        keywords: dict[str, Any] = {"max_tokens": 25, "temperature": 1.0, "seed": 9, "ignore_eos": True}
        alone = [engine.generate(prompt, **keywords).token_ids for prompt in prompts]
        together: dict[int, list[int]] = {}

        def work(i: int) -> None:
            together[i] = [piece.token_id for piece in engine.stream(prompts[i], **keywords)]

        threads = [threading.Thread(target=work, args=(i,)) for i in range(len(prompts))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [together[i] for i in range(len(prompts))] == alone


@pytest.mark.parametrize(
    ("keywords", "kind", "match"),
    [
        ({"max_tokens": -1}, bitnet.ArgumentError, "max_tokens is -1"),
        ({"max_tokens": 0}, bitnet.ArgumentError, "max_tokens is 0"),
        ({"temperature": -1.0}, bitnet.ArgumentError, "temperature"),
        ({"top_p": 0.0}, bitnet.ArgumentError, "top_p"),
        ({"stop": [""]}, bitnet.ArgumentError, "stop"),
        ({"temprature": 1.0}, TypeError, "temprature"),
        ({"temperature": "hot"}, TypeError, "temperature"),
        ({"params": bitnet.SamplingParams(), "top_p": 2.0}, bitnet.ArgumentError, "top_p"),
        ({"stop": ["a", "\ud800"]}, bitnet.ArgumentError, "stop holds a lone surrogate"),
        ({"stop": 5}, TypeError, "stop"),
        ({"logit_bias": {0: 1e300}}, bitnet.ArgumentError, "logit_bias is 1"),
        ({"logit_bias": {-1: 1.0}}, bitnet.ArgumentError, "logit_bias has the id -1, expected 0 to"),
        ({"logit_bias": {2**40: 1.0}}, bitnet.ArgumentError, "logit_bias has the id 1099511627776"),
        ({"logit_bias": {"a": 1.0}}, TypeError, "logit_bias"),
        ({"seed": -1}, bitnet.ArgumentError, "seed is -1, expected 0 to"),
        ({"seed": 2**64}, bitnet.ArgumentError, "seed is 18446744073709551616"),
    ],
)
def test_wrong_parameters_are_refused_by_name(
    engine: Any, keywords: dict[str, Any], kind: type[Exception], match: str
) -> None:
    with pytest.raises(kind, match=match):
        engine.stream("hello", **keywords)


def test_wrong_prompts_are_refused(engine: Any) -> None:
    with pytest.raises(bitnet.ArgumentError, match="empty"):
        engine.generate([])
    with pytest.raises(bitnet.TokenIdError):
        engine.generate([1, 99999])
    for wrong in (5, None, ("a", "b")):
        with pytest.raises(TypeError, match="prompt must be a text or a sequence of int, found"):
            engine.generate(wrong)


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("prompt", lambda e, text: e.generate(text)),
        ("prompt", lambda e, text: e.agenerate(text)),
        ("text", lambda e, text: e.encode(text)),
        ("text", lambda e, text: e.tokenizer.encode(text)),
        ("text", lambda e, text: e.perplexity(text)),
        ("texts", lambda e, text: e.embed(text)),
        ("context", lambda e, text: e.score(text, ["a"])),
        ("continuations[1]", lambda e, text: e.score("a", ["a", text])),
        ("text", lambda e, text: bitnet.ChatSession(e).send(text)),
        ("system", lambda e, text: bitnet.ChatSession(e, text)),
    ],
)
def test_what_is_no_text_is_refused_by_name(engine: Any, name: str, call: Callable[[Any, Any], Any]) -> None:
    with pytest.raises(bitnet.ArgumentError, match=re.escape(f"{name} holds a lone surrogate")):
        call(engine, "a\ud800")
    with pytest.raises(TypeError, match=name.partition("[")[0]):
        call(engine, 5)


def test_keywords_change_some_of_the_parameters(engine: Any) -> None:
    params = bitnet.SamplingParams(temperature=0.7, max_tokens=9, seed=3)
    both = engine.generate("hello", params, max_tokens=2).receipt.to_dict()["claim"]["sampling"]
    assert (both["temperature"], both["max_tokens"], both["seed"]) == (0.7, 2, 3)
    chat = bitnet.ChatSession(engine, params=params, top_k=5)
    assert (chat.params.top_k, chat.params.max_tokens) == (5, 9)
    other = chat.send("hello", bitnet.SamplingParams(max_tokens=3), temperature=0.5).receipt.to_dict()["claim"][
        "sampling"
    ]
    assert (other["temperature"], other["max_tokens"], other["top_k"]) == (0.5, 3, 0)


def test_parameters_are_shown_as_they_were_given() -> None:
    params = bitnet.SamplingParams(temperature=0.7, top_p=0.95, logit_bias={3: 0.1, 1: float("-inf")})
    assert (params.temperature, params.top_p, params.logit_bias) == (0.7, 0.95, {1: float("-inf"), 3: 0.1})
    assert "temperature=0.7," in repr(params)
    defaults = inspect.signature(bitnet.SamplingParams).parameters
    assert {name: getattr(bitnet.SamplingParams(), name) or None for name in defaults} == {
        name: parameter.default or None for name, parameter in defaults.items()
    }


def test_the_alternatives_of_each_token(engine: Any) -> None:
    settings = {"max_tokens": 5, "logprobs": 3, "ignore_eos": True}
    whole = engine.generate("hello", **settings)
    pieces = list(engine.stream("hello", **settings))
    shown = [[one.id for one in piece.top_logprobs] for piece in pieces]
    assert [[one.id for one in best] for best in whole.top_logprobs] == shown
    assert [len(best) for best in shown] == [3] * 5
    assert engine.generate("hello", max_tokens=2).top_logprobs is None


def test_a_stream_is_watched_and_cancelled_while_another_thread_pulls(engine: Any) -> None:
    stream = engine.stream("hello", ignore_eos=True)
    ids: list[int] = []
    watching = threading.Event()

    def pull() -> None:
        for piece in stream:
            ids.append(piece.token_id)
            watching.set()
        ids.append(-1)  # the end was found, without an error

    thread = threading.Thread(target=pull)
    thread.start()
    watching.wait()
    seen = stream.token_ids
    assert stream.prompt_tokens == len(engine.encode("hello", add_bos=engine.tokenizer.add_bos))
    assert 1 <= stream.completion_tokens <= engine.n_ctx
    stream.cancel()
    thread.join()
    assert ids.pop() == -1
    assert seen == ids[: len(seen)]
    assert stream.finish_reason in ("cancelled", "context")
    assert stream.token_ids == ids
    assert stream.receipt.finish_reason == stream.finish_reason
    assert repr(stream).endswith(f"{len(ids)} tokens, finish_reason='{stream.finish_reason}'>")


def test_whoever_pulls_a_cancelled_stream_finds_its_end(engine: Any) -> None:
    for i in range(200):
        chat = bitnet.ChatSession(engine, template="bitnet", ignore_eos=True)
        stream = (chat if i % 2 else engine).stream("hello", ignore_eos=True)
        next(stream)
        canceller = threading.Thread(target=stream.cancel)
        canceller.start()
        rest = len(list(stream))
        canceller.join()
        assert stream.finish_reason in ("cancelled", "context")
        assert stream.receipt.completion_tokens == rest + 1
        chat.clear()  # nothing is under way


def test_a_file_without_tokenizer_still_takes_ids() -> None:
    path = ROOT / "tests" / "fixtures" / "llama-iq2bn.gguf"
    with bitnet.Engine(path) as engine:
        assert len(engine.generate([1, 2], max_tokens=3, ignore_eos=True).token_ids) == 3


def test_ctrl_c_in_a_stream_is_raised_and_the_stream_goes_on(text_model: Path) -> None:
    code = """
import sys, bitnet
engine = bitnet.Engine(sys.argv[1], isa="scalar", n_threads=1)
whole = engine.generate("hello", max_tokens=200, ignore_eos=True).token_ids
stream = engine.stream("hello", max_tokens=200, ignore_eos=True)
print("ready", flush=True)
caught = 0
while True:
    try:
        for piece in stream:
            pass
        if caught:
            break
        stream = engine.stream("hello", max_tokens=200, ignore_eos=True)
    except KeyboardInterrupt:
        caught += 1
print(caught, stream.token_ids == whole)
"""
    command = [sys.executable, "-c", code, text_model]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert out == "1 True\n", err


@pytest.mark.skipif(os.name != "posix", reason="sets a timer")
def test_ctrl_c_is_seen_between_steps_that_are_short(model: Any) -> None:
    """A step shorter than the time between two looks must not hide the signal until the end."""
    code = """
import signal, sys, bitnet
engine = bitnet.Engine(sys.argv[1], isa="scalar", n_threads=1)
signal.signal(signal.SIGPROF, signal.default_int_handler)
for call in (engine.generate_tokens, lambda ids, n: engine.generate(ids, max_tokens=n).token_ids):
    signal.setitimer(signal.ITIMER_PROF, 0.1)  # counts this process's work, however busy the machine is
    computed = []
    try:
        computed = call([1, 2, 3], 3900)
    except KeyboardInterrupt:
        pass
    print(len(computed) < 3900)
"""
    path = model(Spec(context=4096, embedding="Q8_0"))
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, timeout=120)
    assert done.stdout == "True\nTrue\n", done.stderr


def run(*arguments: str | Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bitnet", *map(str, arguments)]
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8"}
    return subprocess.run(command, capture_output=True, text=True, input=stdin, env=environment, encoding="utf-8")


def test_a_prompt_is_computed_once_and_its_logits_are_not(engine: Any) -> None:
    """Behaviours 18, 20 and 21."""
    ids = engine.encode("hello world " * 9, add_bos=True)
    engine.clear_cache()
    alone = engine.generate(ids, max_tokens=9, ignore_eos=True)
    done = alone.receipt.to_dict()
    assert done["claim"]["prompt_ids"] == ids
    assert done["run"]["computed_tokens"] == len(ids) + 9 - 1
    assert done["run"]["work"]["head"] == 9, "of the prompt, the last position alone has logits"
    text = engine.generate("hello world " * 9, max_tokens=1, ignore_eos=True).receipt
    assert (text.to_dict()["claim"]["prompt_ids"], text.seconds["tokenize"] > 0) == (ids, True)
    assert alone.receipt.seconds["tokenize"] == 0, "these ids were given"

    engine.clear_cache()
    assert engine.cached_tokens == 0
    filled = engine.prefill(ids)
    assert (filled.tokens, filled.cached_tokens, engine.cached_tokens) == (len(ids), 0, len(ids))
    assert filled.seconds > 0
    after = engine.generate(ids, max_tokens=9, ignore_eos=True)
    # The last position once more, for its logits.
    assert (after.token_ids, after.cached_tokens) == (alone.token_ids, len(ids) - 1)


def test_the_command_line_says_what_is_wrong_with_a_prompt(text_model: Path) -> None:
    """Behaviour 19: both numbers."""
    done = run("run", text_model, "-p", "x" * 300, "-c", "200")
    assert (done.returncode, done.stdout) == (2, "")
    assert "301" in done.stderr
    assert "200" in done.stderr


def test_the_command_line_ends_where_it_is_told(text_model: Path, engine: Any) -> None:
    """Behaviour 24: a number of tokens, a stop text that is not shown, the end of the context."""
    whole = engine.generate("hello", max_tokens=30, ignore_eos=True, stop="never").text
    options = ("run", text_model, "-p", "hello", "-t", "1")
    five = run(*options, "-n", "5").stdout
    assert five == engine.generate("hello", max_tokens=5).text + "\n"
    stop = whole[2:4]
    assert run(*options, "-n", "30", "--stop", stop).stdout == whole[: whole.index(stop)] + "\n"
    with bitnet.Engine(text_model, n_ctx=20) as small:
        full = small.generate("hello")
        assert full.finish_reason == "context"
        assert run(*options, "-c", "20").stdout == full.text + "\n"


def test_the_command_line_tokenizes_and_runs(text_model: Path, engine: Any) -> None:
    assert run("tokenize", text_model, "hello world", "--ids").stdout.split() == list(
        map(str, engine.encode("hello world"))
    )
    assert run("tokenize", text_model, "-", "--ids", "--parse-special", stdin="<|eot_id|>").stdout == f"{EOT}\n"
    assert "'hello'" in run("tokenize", text_model, "hello").stdout
    done = run("run", text_model, "-p", "hello", "-n", "12", "--temperature", "1", "--seed", "4", "-t", "1")
    assert done.stdout == engine.generate("hello", max_tokens=12, temperature=1.0, seed=4).text + "\n"
    assert run("run", text_model, "-p", "hello", "-n", "-1").returncode == 2


def test_errors_of_a_list_name_the_prompt(engine: Any) -> None:
    unknown = engine.n_vocab
    with pytest.raises(bitnet.TokenIdError, match=r"^prompt\[1\]: "):
        engine.generate([[1], [unknown]], max_tokens=1)
    with pytest.raises(bitnet.ContextLengthError, match=r"^prompt\[2\]: "):
        engine.generate([[1], [2], [1] * (engine.n_ctx + 1)], max_tokens=1)
    with pytest.raises(bitnet.ContextLengthError, match=r"^context\[1\]: "):
        engine.score([[1], [1] * (engine.n_ctx + 1)], [[[1]], [[1]]])


def test_calls_under_way_outlive_a_closed_engine(engine: Any) -> None:
    """Also those of lists: nothing asks for the engine again when the answers are there."""
    with bitnet.Engine(engine.path, n_threads=1) as own:
        answers: list[Any] = []
        worker = threading.Thread(
            target=lambda: answers.extend(own.generate([[5, 6]] * 20, max_tokens=150, ignore_eos=True))
        )
        worker.start()
        while own._queue[0] == 0:
            time.sleep(0.001)
        own.close()
        worker.join()
    assert len(answers) == 20
