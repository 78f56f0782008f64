"""The numerical contract: the same ids give the same logits, bit for bit, however they are computed. Only `==` here."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bitnet
from bitnet._synthetic import Spec
from conftest import ROOT, ModelMaker

BASE = Spec("bitnet-b1.58", 2, 160, 288, 4, 2, vocab_size=151, context=512)
SPECS = {
    "i2s": BASE,
    "heads-of-36": Spec("bitnet", 2, 144, 208, 4, 2, vocab_size=97),
    "llama-iq2-q6k": Spec("llama", 2, 256, 384, 8, 2, vocab_size=103, untied=True, linear="IQ2_BN", embedding="Q6_K"),
    "dense-shards": dataclasses.replace(BASE, linear="F16", shards=2),
    "five-codes-a-byte": Spec("bitnet-b1.58", 1, 640, 1280, 5, 5, vocab_size=97, untied=True),
    "qwen3-yarn": Spec("qwen3", 2, 128, 192, 2, 1, 32, 97, 256, untied=True, rope_scaling="yarn", original_context=64),
    "minicpm-dense": Spec(
        "minicpm", 2, 64, 96, 2, 1, None, 96, 256, untied=True, linear="F16", shards=2, rope_scaling="longrope"
    ),
    # Windows narrower than the rows of one task, and about as wide as a page of the cache.
    "window-of-2": Spec(
        "gemma3", 2, 128, 128, 4, 1, 48, 96, untied=True, window=2, window_pattern=2, softcap=20.0, norm_in=True
    ),
    "window-of-65": Spec("gemma3", 3, 128, 128, 4, 2, 48, 96, untied=True, window=65, window_pattern=2),
    "hunyuan-dense": Spec("hunyuan-dense", 1, 128, 128, 2, 1, vocab_size=96, untied=True),
    "odd": Spec("bitnet-b1.58", 1, 30, 50, 3, 1, vocab_size=33, linear="F32", embedding="BF16"),
}
KV_TYPES: tuple[Any, ...] = ("f16", "f32")
LENGTH = 150  # longer than a chunk of prefill and than a block of attention


def ids_for(spec: Spec, n: int = LENGTH, seed: int = 7) -> list[int]:
    """Random ids of a model's vocabulary."""
    return [int(i) for i in np.random.default_rng(seed).integers(0, spec.vocab_size, n)]


@pytest.fixture(params=list(SPECS.values()), ids=list(SPECS), scope="module")
def spec(request: pytest.FixtureRequest) -> Spec:
    found: Spec = request.param
    return found


@pytest.fixture(params=KV_TYPES, scope="module")
def kv_type(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture(scope="module")
def path(model: ModelMaker, spec: Spec) -> Path:
    return model(spec)


@pytest.fixture
def engine(path: Path, kv_type: Any) -> Iterator[Any]:
    with bitnet.Engine(path, kv_type=kv_type) as engine:
        yield engine


@pytest.fixture(scope="module")
def expected(path: Path, spec: Spec, kv_type: Any) -> np.ndarray[Any, Any]:
    """Logits by the plainest way there is: scalar code, one thread, one position at a time."""
    with bitnet.Engine(path, kv_type=kv_type, isa="scalar", n_threads=1, n_batch=1) as engine:
        logits: np.ndarray[Any, Any] = engine.logits(ids_for(spec))
    assert np.isfinite(logits).all()
    assert len(np.unique(logits.argmax(axis=1))) > LENGTH // 20, "a degenerate model proves nothing"
    return logits


def same(found: Any, expected: Any) -> bool:
    """Equal bits: zeros of either sign differ, too."""
    return bool(found.dtype == expected.dtype == np.float32 and found.tobytes() == expected.tobytes())


@pytest.mark.parametrize("isa", bitnet.isas())
@pytest.mark.parametrize("n_threads", [1, 2, 3])
def test_instruction_sets_and_threads(
    path: Path, spec: Spec, kv_type: Any, expected: Any, isa: str, n_threads: int
) -> None:
    with bitnet.Engine(path, kv_type=kv_type, isa=isa, n_threads=n_threads) as engine:
        assert (engine.isa, engine.n_threads, engine.kv_type) == (isa, n_threads, kv_type)
        assert same(engine.logits(ids_for(spec)), expected)


@pytest.mark.parametrize("n_batch", [1, 3, 17, 128])
def test_chunks_of_the_prompt(path: Path, spec: Spec, kv_type: Any, expected: Any, n_batch: int) -> None:
    with bitnet.Engine(path, kv_type=kv_type, n_batch=n_batch) as engine:
        assert same(engine.logits(ids_for(spec)), expected)


def test_batch_is_single(engine: Any, spec: Spec, expected: Any) -> None:
    """Sequences of different lengths in one forward, one of them twice: each as if it were alone."""
    sequences = [ids_for(spec), ids_for(spec, 1, 1), ids_for(spec, 37, 2), ids_for(spec), ids_for(spec, 64, 3)]
    together = engine.logits_batch(sequences)
    assert len(together) == len(sequences)
    assert same(together[0], expected)
    for ids, found in zip(sequences, together, strict=True):
        assert same(found, engine.logits(ids))


def test_prefix(engine: Any, spec: Spec, expected: Any) -> None:
    """What follows a position never changes its logits."""
    for n in (1, 2, 31, 32, 33, 64, 65, 127, 128, 129):
        assert same(engine.logits(ids_for(spec, n)), expected[:n])


def test_repeated(engine: Any, spec: Spec, expected: Any) -> None:
    for _ in range(3):
        assert same(engine.logits(ids_for(spec)), expected)


def test_default_ways(engine: Any, spec: Spec, expected: Any) -> None:
    """Best instruction set, threads as the machine has, default chunks; after other work on the same engine."""
    assert engine.isa == bitnet.isas()[-1]
    engine.generate_tokens(ids_for(spec, 20, 9), max_tokens=5)
    assert same(engine.logits(ids_for(spec)), expected)


def greedy_by_recomputing(engine: Any, ids: list[int], steps: int) -> list[int]:
    """Greedy ids without any cache: the whole sequence again at every step."""
    sequence = list(ids)
    for _ in range(steps):
        sequence.append(int(engine.logits(sequence)[-1].argmax()))
    return sequence[len(ids) :]


def test_cached_is_recomputed(path: Path, spec: Spec, kv_type: Any, engine: Any) -> None:
    """Decoding from the cache, after a prefill or not, gives the ids of recomputing everything at every step."""
    ids = ids_for(spec, 70)
    recomputed = greedy_by_recomputing(engine, ids, 24)
    with bitnet.Engine(path, kv_type=kv_type) as other:
        assert other.cached_tokens == 0
        result = other.prefill(ids)
        assert (result.tokens, result.cached_tokens, other.cached_tokens) == (70, 0, 70)
        assert other.generate_tokens(ids, max_tokens=24) == recomputed
    assert engine.generate_tokens(ids, max_tokens=24) == recomputed


def test_generated_ids_are_those_of_one_forward(engine: Any, spec: Spec) -> None:
    """One forward over prompt and answer predicts every id of the answer."""
    ids = ids_for(spec, 40)
    answer = engine.generate_tokens(ids, max_tokens=40)
    assert len(answer) == 40
    logits = engine.logits(ids + answer)
    assert answer == [int(i) for i in logits[39:-1].argmax(axis=1)]


def test_decoding_reads_the_cache(engine: Any, spec: Spec) -> None:
    """Each step computes one position, yet the first id of the prompt shows in its logits."""
    ids = ids_for(spec, 70)
    seen = []
    for prompt in (ids, [(ids[0] + 1) % spec.vocab_size, *ids[1:]]):
        engine.prefill(prompt)
        answer = engine.generate(prompt, max_tokens=4, logprobs=1, ignore_eos=True)
        assert answer.cached_tokens == len(prompt) - 1
        seen.append([choice.logprob for choice in answer.logprobs])
    assert all(a != b for a, b in zip(*seen, strict=True))


def common_prefix(a: list[int], b: list[int]) -> int:
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def test_turns_reuse_the_longest_common_prefix(path: Path, spec: Spec, kv_type: Any) -> None:
    """Appending, branching off in the middle and going back: the same answers as from an empty cache."""
    common = ids_for(spec, 60)
    turns = [common, common + ids_for(spec, 9, 1), common[:33] + ids_for(spec, 20, 2), common[:33], common]
    held: list[list[int]] = [[]]
    with bitnet.Engine(path, kv_type=kv_type) as warm:
        for ids in turns:
            before = warm.cached_tokens
            done = warm.prefill(ids)
            longest = max(common_prefix(ids, other) for other in held)
            assert (done.tokens, done.cached_tokens) == (len(ids), longest)
            assert warm.cached_tokens == before + len(ids) - longest, "what is shared counts once"
            answer = warm.generate_tokens(ids, max_tokens=8)
            held.append(ids + answer[:-1])  # the last id was never fed back
            with bitnet.Engine(path, kv_type=kv_type) as cold:
                assert cold.generate_tokens(ids, max_tokens=8) == answer


def test_prefill_tells_its_rate(engine: Any, spec: Spec) -> None:
    """Only computed positions count; nothing computed is no rate at all."""
    done = engine.prefill(ids_for(spec, 64))
    assert done.seconds > 0
    assert done.tokens_per_second == pytest.approx(64 / done.seconds)
    more = engine.prefill(ids_for(spec, 100))
    assert more.tokens_per_second == pytest.approx(36 / more.seconds)
    assert engine.prefill(ids_for(spec, 100)).tokens_per_second == 0


def test_stop_ids_and_lengths(engine: Any, spec: Spec) -> None:
    """Exactly `max_tokens`, or up to a listed id, which is not part of the answer, or the end of the context."""
    ids = ids_for(spec, 30)
    answer = engine.generate_tokens(ids, max_tokens=30)
    assert len(answer) == 30
    assert engine.generate_tokens(ids, max_tokens=1) == answer[:1]
    for stop in {answer[0], answer[11], answer[29]}:
        until = engine.generate_tokens(ids, max_tokens=30, stop_token_ids=[spec.vocab_size + 5, stop])
        assert until == answer[: answer.index(stop)]


def test_to_the_end_of_the_context(path: Path, spec: Spec, kv_type: Any) -> None:
    """Without `max_tokens` the answer fills the context; the last id needs no position of its own."""
    ids = ids_for(spec, 30)
    with bitnet.Engine(path, kv_type=kv_type, n_ctx=40) as engine:
        answer = engine.generate_tokens(ids)
        assert len(answer) == 11
        assert engine.cached_tokens == len(ids) + len(answer) - 1
    with bitnet.Engine(path, kv_type=kv_type) as engine:
        assert engine.generate_tokens(ids, max_tokens=len(answer)) == answer


def test_prompts_together_are_continued_as_each_alone(engine: Any, spec: Spec) -> None:
    """A list in, a list out: the ids that each prompt gives alone."""
    prompts = [ids_for(spec, n, seed) for n, seed in ((40, 1), (1, 2), (70, 1), (40, 1))]
    alone = [engine.generate_tokens(ids, max_tokens=12) for ids in prompts]
    engine.clear_cache()
    engine.prefill(prompts[2][:50])
    assert engine.generate_tokens(prompts, max_tokens=12) == alone
    assert engine.generate_tokens([np.array(ids) for ids in prompts], max_tokens=12) == alone
    stop = alone[1][7]
    until = [ids[: ids.index(stop)] if stop in ids else ids for ids in alone]
    assert engine.generate_tokens(prompts, max_tokens=12, stop_token_ids=[stop]) == until


def test_threads_on_one_engine(engine: Any, spec: Spec) -> None:
    """Two Python threads at once, each with its own sequence: neither sees the other."""
    sequences = [ids_for(spec, 90, seed) for seed in (1, 2)]
    alone = [engine.logits(ids) for ids in sequences]
    answers = [engine.generate_tokens(ids, max_tokens=6) for ids in sequences]
    wrong: list[str] = []
    start = threading.Barrier(2)

    def work(i: int) -> None:
        start.wait()
        for round_ in range(5):
            if not same(engine.logits(sequences[i]), alone[i]):
                wrong.append(f"logits of thread {i} in round {round_}")
            if engine.generate_tokens(sequences[i], max_tokens=6) != answers[i]:
                wrong.append(f"ids of thread {i} in round {round_}")

    threads = [threading.Thread(target=work, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_kv_type_matters(path: Path, spec: Spec) -> None:
    """The two cache types round differently: equal bits would mean that one of them is not used."""
    found = {}
    for kv_type in KV_TYPES:
        with bitnet.Engine(path, kv_type=kv_type) as engine:
            found[kv_type] = engine.logits(ids_for(spec))
    assert not same(found["f16"], found["f32"])
    close = np.abs(found["f16"] - found["f32"])
    assert close.max() < 0.2 * found["f32"].std()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_process_is_told_to_open_its_own_engine() -> None:
    """The threads stay behind in the parent: the child gets an error, not a hang, and the parent goes on."""
    code = """
import os, sys, warnings
import bitnet
warnings.simplefilter("ignore")
engine = bitnet.Engine(sys.argv[1], n_threads=2)
before = engine.logits([1, 2, 3])
child = os.fork()
if child == 0:
    try:
        engine.logits([1, 2, 3])
    except bitnet.ArgumentError as error:
        engine.close()
        os._exit(7 if "fork" in str(error) else 8)
    os._exit(9)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), (engine.logits([1, 2, 3]) == before).all())
"""
    path = ROOT / "tests" / "fixtures" / "relu2-i2s.gguf"
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, timeout=60)
    assert done.stdout == "7 True\n", done.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_process_that_forks_off_while_threads_work_finds_no_lock_held() -> None:
    code = """
import os, sys, threading, warnings
import bitnet
warnings.simplefilter("ignore")
engine = bitnet.Engine(sys.argv[1], n_threads=2)
stop = False
def work():
    while not stop:
        engine.logits([1, 2, 3])
        engine.generate_tokens([1], max_tokens=3)
threads = [threading.Thread(target=work) for _ in range(3)]
for thread in threads:
    thread.start()
for _ in range(100):
    child = os.fork()
    if child == 0:
        try:
            engine.memory, engine.cached_tokens
            engine.prefill([1])
        except bitnet.ArgumentError:
            own = bitnet.Engine(sys.argv[1], n_threads=1)
            os._exit(len(own.logits([1, 2, 3])))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3
stop = True
print("done")
"""
    path = ROOT / "tests" / "fixtures" / "relu2-i2s.gguf"
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, timeout=60)
    assert done.stdout == "done\n", done.stderr
