"""What the metadata and the tensors of an architecture may hold: hostile and missing values, and what they decide."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bitnet
from bitnet._gguf_writer import Value, write_gguf
from bitnet._synthetic import Spec, metadata, tensors
from conftest import ModelMaker, message_of
from edited_model import floats
from reference import Reference
from text_model import MERGES, TOKENS

QWEN3 = Spec("qwen3", 1, 128, 128, 2, 1, 32, 40, 256, rope_scaling="yarn", linear="F32")
MINICPM = Spec("minicpm", 2, 64, 96, 2, 1, None, 40, 256, linear="F32", rope_scaling="longrope")
GEMMA3 = Spec("gemma3", 4, 64, 96, 2, 1, None, 40, 256, linear="F32", window=5, window_pattern=2, softcap=20.0)
NAN, INFINITY = float("nan"), float("inf")
IDS = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9]


def write(path: Path, spec: Spec, keys: dict[str, Value | None] | None = None, *others: Any, without: str = "") -> Path:
    """A model with some keys of its architecture changed (None: left out), and tensors replaced, added or left out."""
    changed = {f"{spec.arch}.{key}": value for key, value in (keys or {}).items()}
    found = {key: value for key, value in (metadata(spec) | changed).items() if value is not None}
    named = {t.name: t for t in tensors(spec)} | {t.name: t for t in others}
    write_gguf(path, found, [t for name, t in named.items() if name != without])
    return path


def write_with_text(path: Path, spec: Spec, **keys: Value) -> Path:
    """The same with a byte-level vocabulary."""
    spec = dataclasses.replace(spec, vocab_size=len(TOKENS))
    vocabulary: dict[str, Value] = {
        "tokenizer.ggml.pre": "qwen2",
        "tokenizer.ggml.tokens": TOKENS,
        "tokenizer.ggml.token_type": [1] * len(TOKENS),
        "tokenizer.ggml.merges": MERGES,
    }
    more = {f"tokenizer.ggml.{key}": value for key, value in keys.items()}
    write_gguf(path, metadata(spec) | vocabulary | more, tensors(spec))
    return path


def logits(path: Path, **options: Any) -> Any:
    with bitnet.Engine(path, kv_type="f32", act_quant="none", **options) as engine:
        return engine.logits(IDS)


def assert_as_reference(path: Path) -> None:
    expected = Reference.open(path).logits(IDS, "none")
    assert np.abs(logits(path) - expected).max() < 2e-5 * expected.std()


# Key, value and what the message must contain beside the key.
POSITIVE = [0.0, -1.0, NAN, INFINITY, -INFINITY]
HOSTILE: list[tuple[Spec, str, Value | None, str]] = [
    *((QWEN3, "rope.scaling.factor", value, "above 0") for value in POSITIVE),
    *((QWEN3, "rope.scaling.attn_factor", value, "above 0") for value in POSITIVE),
    *((QWEN3, "rope.scaling.yarn_attn_factor", value, "above 0") for value in POSITIVE),
    *((QWEN3, "rope.scaling.yarn_beta_fast", value, "above 0") for value in POSITIVE),
    *((QWEN3, "rope.scaling.yarn_beta_slow", value, "above 0") for value in POSITIVE),
    *((QWEN3, "rope.scaling.yarn_ext_factor", value, "from 0 to 1") for value in (-0.5, 1.5, NAN, INFINITY)),
    (QWEN3, "rope.scaling.factor", None, "missing"),
    (QWEN3, "rope.scaling.factor", 3e38, "rotary frequency"),
    (QWEN3, "rope.scaling.original_context_length", 0, "0"),
    *((MINICPM, key, value, "above 0")
      for key in ("embedding_scale", "residual_scale", "logit_scale") for value in POSITIVE),
    (MINICPM, "rope.scaling.original_context_length", 0, "0"),
    (MINICPM, "rope.scaling.original_context_length", 1, "more positions"),
    *((GEMMA3, "final_logit_softcapping", value, "above 0") for value in POSITIVE[1:]),
    *((GEMMA3, "rope.freq_base_swa", value, "above 0") for value in POSITIVE),
    (GEMMA3, "attention.sliding_window_pattern", [1, 0, 1], "3 values for 4 layers"),
    (GEMMA3, "attention.sliding_window_pattern", [], "0 values for 4 layers"),
    (GEMMA3, "attention.sliding_window_pattern", ["a", "b", "c", "d"], "bool"),
    (GEMMA3, "attention.sliding_window", [3, 3, 3], "3 values for 4 layers"),
]  # fmt: skip


@pytest.mark.parametrize(("spec", "key", "value", "fact"), HOSTILE, ids=lambda x: str(x)[:30])
def test_hostile_values_are_refused_with_their_key(
    tmp_path: Path, spec: Spec, key: str, value: Value | None, fact: str
) -> None:
    path = write(tmp_path / "m.gguf", spec, {key: value})
    message = message_of(bitnet.ModelError, bitnet.Engine, path)
    assert fact in message
    assert key in message or ("rotary frequency" in fact and "rope.scaling" in message)


@pytest.mark.parametrize(
    ("spec", "key", "value"),
    [
        (QWEN3, "rope.scaling.type", "dynamic"),
        (QWEN3, "rope.scaling.type", "llama3"),
        (MINICPM, "rope.scaling.type", "su"),
        (QWEN3, "attention.causal", False),
        (QWEN3, "pooling_type", 4),
        (QWEN3, "pooling_type", 4_000_000_000),
        (QWEN3, "attention.sliding_window", 128),
        (QWEN3, "residual_scale", 0.5),
        (MINICPM, "final_logit_softcapping", 30.0),
        (GEMMA3, "attn_logit_softcapping", 50.0),
        (GEMMA3, "embedding_scale", 2.0),
    ],
)
def test_what_the_graph_lacks_is_refused_by_name(tmp_path: Path, spec: Spec, key: str, value: Value) -> None:
    message = message_of(bitnet.UnsupportedModelError, bitnet.Engine, write(tmp_path / "m.gguf", spec, {key: value}))
    assert f"{spec.arch}.{key}" in message
    assert str(value).lower() in message


QWEN2 = dataclasses.replace(QWEN3, arch="qwen2", rope_scaling=None)
NORM_IN = dataclasses.replace(QWEN3, norm_in=True)


@pytest.mark.parametrize(
    ("spec", "name"),
    [
        (QWEN2, "blk.0.attn_q.bias"),
        (QWEN2, "blk.0.attn_v.bias"),
        (QWEN3, "blk.0.attn_q_norm.weight"),
        (QWEN3, "blk.0.attn_k_norm.weight"),
        (NORM_IN, "blk.0.attn_k_norm_in.weight"),
        (NORM_IN, "blk.0.attn_output_norm_in.weight"),
        (NORM_IN, "blk.0.ffn_down_norm_in.weight"),
        (MINICPM, "rope_factors_short.weight"),
        (MINICPM, "rope_factors_long.weight"),
        (GEMMA3, "blk.3.post_attention_norm.weight"),
        (GEMMA3, "blk.0.post_ffw_norm.weight"),
    ],
)
def test_missing_tensors_are_named(tmp_path: Path, spec: Spec, name: str) -> None:
    path = write(tmp_path / "m.gguf", spec, without=name)
    assert f"'{name}' is missing" in message_of(bitnet.ModelError, bitnet.Engine, path)


@pytest.mark.parametrize(
    ("spec", "name"),
    [
        (QWEN2, "blk.0.attn_q_norm.weight"),
        (QWEN3, "rope_factors_long.weight"),
        (dataclasses.replace(MINICPM, rope_scaling=None), "rope_factors_short.weight"),
        (QWEN3, "blk.0.attn_k_norm_in.weight"),
        (MINICPM, "blk.0.attn_q_norm_in.weight"),
        (QWEN3, "blk.0.post_ffw_norm.weight"),
    ],
)
def test_tensors_that_the_graph_would_ignore_are_refused(tmp_path: Path, spec: Spec, name: str) -> None:
    path = write(tmp_path / "m.gguf", spec, {}, floats(name, np.ones(64)))
    assert f"'{name}'" in message_of(bitnet.ModelError, bitnet.Engine, path)


@pytest.mark.parametrize("name", ["rope_factors_short.weight", "rope_factors_long.weight"])
@pytest.mark.parametrize("value", [0.0, -1.0, NAN, INFINITY])
def test_hostile_divisors(tmp_path: Path, name: str, value: float) -> None:
    """Both tables are checked, whichever the context chooses."""
    divisors = np.ones(16, np.float32)
    divisors[7] = value
    path = write(tmp_path / "m.gguf", MINICPM, {}, floats(name, divisors))
    assert name in message_of(bitnet.ModelError, bitnet.Engine, path)


def test_wrong_shapes_of_norms(tmp_path: Path) -> None:
    for name in ("blk.0.attn_q_norm.weight", "blk.0.attn_k_norm.weight"):
        path = write(tmp_path / "m.gguf", QWEN3, {}, floats(name, np.ones(64)))
        message = message_of(bitnet.ModelError, bitnet.Engine, path)
        assert name in message
        assert "[64], expected [32]" in message


def test_yarn_as_its_keys_say(tmp_path: Path) -> None:
    yarn = {"rope.scaling.original_context_length": 64}
    for keys in (
        yarn,
        yarn | {"rope.scaling.attn_factor": 1.25},
        yarn | {"rope.scaling.yarn_attn_factor": 0.9},
        yarn | {"rope.scaling.yarn_attn_factor": 0.9, "rope.scaling.attn_factor": 1.25},
        yarn | {"rope.scaling.yarn_beta_fast": 8.0, "rope.scaling.yarn_beta_slow": 0.5},
        {"rope.scaling.original_context_length": None},
        {"rope.scaling.type": "none"},
        {"rope.scaling.type": "linear"},
    ):
        assert_as_reference(write(tmp_path / "m.gguf", QWEN3, keys))
    by_default = write(tmp_path / "a.gguf", QWEN3, {"rope.scaling.type": None})
    linear = write(tmp_path / "b.gguf", QWEN3, {"rope.scaling.type": "linear"})
    assert logits(by_default).tobytes() == logits(linear).tobytes()


def test_the_context_chooses_the_table_of_longrope(tmp_path: Path) -> None:
    """Up to the original context, which is 64, the short table; beyond it the long one. The prompt does not decide."""
    path = write(tmp_path / "m.gguf", MINICPM)
    short, long = logits(path, n_ctx=64), logits(path, n_ctx=65)
    assert short.tobytes() != long.tobytes()
    assert long.tobytes() == logits(path).tobytes() == logits(path, n_ctx=256).tobytes()
    assert short.tobytes() == logits(path, n_ctx=20).tobytes()
    assert_as_reference(path)
    # The file can state the magnitude; without growth there is none.
    assert_as_reference(write(tmp_path / "a.gguf", MINICPM, {"rope.scaling.attn_factor": 1.5}))
    assert_as_reference(write(tmp_path / "b.gguf", MINICPM, {"rope.scaling.original_context_length": None}))


def test_the_table_of_longrope_is_kept_with_receipts_and_caches(tmp_path: Path) -> None:
    """An honest receipt of another context is not accused of wrong ids; a cache of the other table is not used."""
    path, saved = write_with_text(tmp_path / "m.gguf", MINICPM), tmp_path / "saved"
    with bitnet.Engine(path, n_ctx=64) as short, bitnet.Engine(path, n_ctx=128) as long:
        answer = short.generate(IDS, max_tokens=8, ignore_eos=True)
        assert short.replay(answer.receipt)
        with pytest.raises(bitnet.ReceiptError, match=r"claim\.n_ctx.*64.*128.*LongRoPE"):
            long.replay(answer.receipt)
        with bitnet.Engine(path, n_ctx=50) as shorter:
            assert shorter.replay(answer.receipt)
        chat = bitnet.ChatSession(short, template="raw")
        chat.send("a", max_tokens=2)
        chat.save(saved, cache=True)
        assert bitnet.ChatSession.load(short, saved).history == chat.history
        with pytest.raises(bitnet.ArgumentError, match=r"rotary frequencies.*'short'.*'long'"):
            bitnet.ChatSession.load(long, saved)


def test_scales_have_llama_cpps_defaults(tmp_path: Path) -> None:
    for key in ("embedding_scale", "residual_scale", "logit_scale"):
        assert_as_reference(write(tmp_path / "m.gguf", MINICPM, {key: None}))
        assert_as_reference(write(tmp_path / "m.gguf", MINICPM, {key: 0.75}))
    bare = write(tmp_path / "bare.gguf", MINICPM, dict.fromkeys(("embedding_scale", "residual_scale", "logit_scale")))
    assert "embeddings × 12, branches × 0.98994946, logits / 0.25" in bitnet.inspect(bare)["graph"]


def test_which_layers_have_a_window(tmp_path: Path) -> None:
    key = "attention.sliding_window_pattern"
    for pattern in (None, 1, 2, 3, 0, [1, 0, 0, 1], [0, 0, 0, 0]):
        assert_as_reference(write(tmp_path / "m.gguf", GEMMA3, {key: pattern, "rope.freq_base_swa": 500.0}))
    # An array of bools, as converters write it.
    flags = b"\x09\0\0\0\x07\0\0\0" + (4).to_bytes(8, "little") + bytes([1, 0, 0, 1])
    as_bools = logits(write(tmp_path / "a.gguf", GEMMA3, {key: flags}))
    as_ints = logits(write(tmp_path / "b.gguf", GEMMA3, {key: [1, 0, 0, 1]}))
    assert as_bools.tobytes() == as_ints.tobytes()
    for window in (0, 4_000_000_000):
        everything = logits(write(tmp_path / "m.gguf", GEMMA3, {"attention.sliding_window": window}))
        assert everything.shape == as_ints.shape
    assert_as_reference(write(tmp_path / "m.gguf", GEMMA3, {"attention.sliding_window": 0}))
    assert_as_reference(write(tmp_path / "m.gguf", GEMMA3, {"final_logit_softcapping": 0.0}))


@pytest.mark.parametrize("embedding", ["Q4_0", "Q8_0", "BF16"])
def test_a_tied_embedding_of_any_type_is_read_as_floats(model: ModelMaker, embedding: str) -> None:
    assert_as_reference(model(dataclasses.replace(QWEN3, embedding=embedding)))


@pytest.mark.parametrize("stated", [0, 1, 2, 3])
def test_pooling_by_the_file_and_by_the_caller(tmp_path: Path, stated: int) -> None:
    name = ("mean", "mean", "cls", "last")[stated]
    with bitnet.Engine(write(tmp_path / "m.gguf", NORM_IN, {"pooling_type": stated})) as engine:
        states = np.array(engine.trace(IDS, layers=[]).hidden, np.float64)
        pooled = {"mean": states.mean(axis=0), "cls": states[0], "last": states[-1]}
        for pooling in pooled:
            assert np.array_equal(engine.embed(IDS, pooling), pooled[pooling].astype(np.float32))
            unit = engine.embed(IDS, pooling, normalize=True)
            assert np.abs(unit - pooled[pooling] / np.linalg.norm(pooled[pooling])).max() < 1e-7
        assert np.array_equal(engine.embed(IDS), pooled[name].astype(np.float32))
        assert np.array_equal(engine.embed([IDS, IDS[:3]])[0], engine.embed(IDS))


def test_a_text_to_embed_ends_as_the_file_says(tmp_path: Path) -> None:
    path = write_with_text(tmp_path / "m.gguf", NORM_IN, eos_token_id=7, add_eos_token=True)
    with bitnet.Engine(path) as engine:
        ids = engine.encode("hello world")
        assert len(ids) == 2
        assert np.array_equal(engine.embed("hello world"), engine.embed([*ids, 7]))
        assert not np.array_equal(engine.embed("hello world"), engine.embed(ids))
        assert np.array_equal(engine.embed(["a", "hello world"])[1], engine.embed("hello world"))


def test_inspect_says_how_a_graph_differs(model: ModelMaker) -> None:
    def graph(spec: Spec) -> list[str]:
        found: list[str] = bitnet.inspect(model(spec))["graph"]
        return found

    assert graph(dataclasses.replace(QWEN2, arch="llama")) == []
    assert graph(QWEN2) == ["biases of queries, keys and values"]
    assert graph(QWEN3)[1] == "YaRN rope scaling by 4 from 64 positions, cosines and sines × 1.1386294"
    assert "2 of 4 layers see the last 5 positions, with rope theta 10000" in graph(GEMMA3)
    assert graph(dataclasses.replace(NORM_IN, pooling=3))[-1] == "embedding model, pooling 'last'"
    for arch, activation in (("bitnet-b1.58", "relu2"), ("gemma3", "gelu_tanh"), ("qwen3", "silu")):
        spec = dataclasses.replace(QWEN3, arch=arch, rope_scaling=None)
        found = bitnet.inspect(model(spec))
        assert (found["activation"], found["activation_reason"]) == (activation, "by the architecture")


@pytest.mark.parametrize("kind", ["Q2_0_g64", "Q2_0_g128", "PQ2_0", "PTQ1_0"])
def test_types_of_models_trained_on_floats_take_16_bits_whatever_their_scales(model: ModelMaker, kind: str) -> None:
    """One scale in each matrix does not make such a file a BitNet model; a norm before each projection does."""
    spec = dataclasses.replace(QWEN3, linear=kind, width=256, ffn=256, head_dim=128)
    assert bitnet.inspect(model(spec))["act_quant"] == "int16"
    assert bitnet.inspect(model(dataclasses.replace(spec, norm_in=True)))["act_quant"] == "int8"
    assert bitnet.inspect(model(dataclasses.replace(spec, linear="TQ2_0")))["act_quant"] == "int8"
