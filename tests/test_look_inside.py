"""`Engine.tensor` and `Engine.trace`: the engine's own numbers, from which the forward pass can be done by hand."""

from __future__ import annotations

import dataclasses
import os
import re
import signal
import struct
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bitnet
import gguf
from bitnet import _tensor_types as tt
from bitnet._synthetic import INEXACT_TYPES, LINEAR_TYPES, Spec, make_model
from conftest import ModelMaker, message_of
from edited_model import damaged, floats, plain, ternary

EXACT_TYPES = [kind for kind in LINEAR_TYPES if kind not in INEXACT_TYPES]
SPEC = Spec("bitnet-b1.58", 2, 256, 512, 4, 2, vocab_size=61, context=256)
LAST = "blk.1.ffn_down.weight"
IDS = [int(i) for i in np.random.default_rng(0).integers(0, SPEC.vocab_size, 70)]  # two pages of the cache
PROJECTIONS = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")

# -- Tensors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", EXACT_TYPES)
def test_a_ternary_tensor_is_trits_and_scales(tmp_path: Path, kind: str) -> None:
    trits = np.random.default_rng(1).integers(-1, 2, (256, 512)).astype(np.int8)
    # In Q8_0 the block's scale is then a power of two.
    rows = np.array([0.25, 0.5, 0.75, 1.0], np.float32).repeat(64) if kind[:2] == "IQ" else np.float32(127 / 128)
    path = damaged(tmp_path, SPEC, LAST, 0, b"", ternary(LAST, kind, trits, rows))
    with bitnet.Engine(path) as engine:
        assert LAST in engine.tensor_names
        tensor = engine.tensor(LAST)
    assert (tensor.name, tensor.type, tensor.shape) == (LAST, kind, (256, 512))
    assert tensor.trits.dtype == np.int8
    assert np.array_equal(tensor.trits, trits)
    assert tensor.scales.dtype == np.float32
    columns = 512 if kind.startswith("IQ") else tt.TYPES[kind][1]  # of a scale
    assert tensor.scales.shape == ((256, 512 // columns) if kind in tt.TERNARY else (1, 1))
    assert np.array_equal(tensor.scales, np.broadcast_to(rows.reshape(-1, 1), tensor.scales.shape))
    expected = trits * rows.reshape(-1, 1)
    assert tensor.to_float().dtype == np.float32
    assert np.array_equal(tensor.to_float(), expected)
    assert np.array_equal(np.asarray(tensor), expected)
    assert np.asarray(tensor, np.float64).dtype == np.float64
    assert "ternary" in repr(tensor)


@pytest.mark.parametrize("kind", ["TQ1_0", "TQ2_0"])
def test_every_block_has_its_own_scale(tmp_path: Path, kind: str) -> None:
    """As weights-only models have; also a negative scale, one of zero and a block of zeros. Their floats are gguf's."""
    trits = np.random.default_rng(1).integers(-1, 2, (256, 512)).astype(np.int8)
    trits[3, :256] = 0
    data = bytearray(tt.encode_trits(kind, trits, np.full(256, 0.5, np.float32)).tobytes())
    size, at = {"TQ1_0": (54, 52), "TQ2_0": (66, 64)}[kind]
    scales = np.random.default_rng(2).uniform(-1, 1, 512).astype(np.float16)
    scales[7] = 0
    for block, scale in enumerate(scales):
        struct.pack_into("<e", data, block * size + at, scale)
    type_id = tt.TYPES[kind][0]
    path = damaged(tmp_path, SPEC, LAST, 0, b"", plain(LAST, (256, 512), type_id, bytes(data)))
    with pytest.warns(bitnet.BitnetWarning), bitnet.Engine(path) as engine:
        tensor = engine.tensor(LAST)
    assert np.array_equal(tensor.trits, trits), "also where the scale is 0"
    assert np.array_equal(tensor.scales, scales.astype(np.float32).reshape(256, 2))
    raw = np.frombuffer(bytes(data), np.uint8).reshape(256, 2 * size)
    expected = gguf.quants.dequantize(raw, gguf.GGMLQuantizationType(type_id))
    assert tensor.to_float().tobytes() == expected.tobytes()


@pytest.mark.parametrize("scale", [-0.5, 0.0])
def test_i2_s_keeps_its_codes_and_scale(tmp_path: Path, scale: float) -> None:
    with bitnet.Engine(damaged(tmp_path, SPEC, LAST, 0, b"")) as engine:
        trits = engine.tensor(LAST).trits
    with pytest.warns(bitnet.BitnetWarning):
        engine = bitnet.Engine(damaged(tmp_path, SPEC, LAST, -32, struct.pack("<f", scale)))
    tensor = engine.tensor(LAST)
    engine.close()
    assert np.array_equal(tensor.trits, trits)
    assert tensor.scales.tolist() == [[scale]]
    assert np.array_equal(tensor.to_float(), trits * np.float32(scale))


@pytest.mark.parametrize("kind", tt.FLOAT)
def test_other_tensors_are_floats(tmp_path: Path, kind: str) -> None:
    """The embedding, whose rows the engine also reads when it runs; and a norm, which has one dimension."""
    spec = dataclasses.replace(SPEC, embedding=kind)
    make_model(tmp_path / "model.gguf", spec)
    with bitnet.Engine(tmp_path / "model.gguf") as engine:
        tensor = engine.tensor("token_embd.weight")
        assert (tensor.trits, tensor.scales, tensor.type, tensor.shape) == (None, None, kind, (61, 256))
        assert tensor.to_float().tobytes() == engine.trace(list(range(61))).layers[0].hidden.tobytes()
        norm = engine.tensor("output_norm.weight")
        assert (norm.trits, norm.type, norm.shape, norm.to_float().shape) == (None, "F32", (256,), (256,))


def test_several_magnitudes_are_not_ternary(tmp_path: Path) -> None:
    trits = np.random.default_rng(1).integers(-1, 2, (256, 512)).astype(np.int8)
    trits[:2] = 0
    for rows in (np.repeat([0.5, 0.25], 128), np.repeat([0.5, 0.25], [255, 1])):
        with bitnet.Engine(damaged(tmp_path, SPEC, LAST, 0, b"", ternary(LAST, "F16", trits, rows))) as engine:
            tensor = engine.tensor(LAST)
        assert tensor.trits is None
        assert np.array_equal(tensor.to_float(), trits * np.float32(rows)[:, None])


def test_a_name_that_the_model_does_not_have(model: ModelMaker) -> None:
    with bitnet.Engine(model(SPEC)) as engine:
        for name in ("blk.1.ffn_down", "blk.1.ffn_dwon.weight", "blk_1.ffn_down.weight"):
            message = message_of(bitnet.ArgumentError, engine.tensor, name)
            assert f'no tensor "{name}"' in message
            assert f"did you mean {LAST}" in message
        assert "tensor_names lists all" in message_of(bitnet.ArgumentError, engine.tensor, "zzz")
        assert "tensor_names lists all" in message_of(bitnet.ArgumentError, engine.tensor, "")
        names = engine.tensor_names
        assert names == [tensor["name"] for tensor in bitnet.inspect(engine.path)["tensors"]]
        assert all(engine.tensor(name).shape for name in names)
    for call in (lambda: engine.tensor(LAST), lambda: engine.tensor_names, lambda: engine.trace([1])):
        assert "closed" in message_of(bitnet.ClosedError, call)


def test_a_broken_tensor_is_named(tmp_path: Path) -> None:
    path = damaged(tmp_path, SPEC, "token_embd.weight", 512, struct.pack("<e", float("nan")))
    with bitnet.Engine(path) as engine:
        message = message_of(bitnet.ModelError, engine.tensor, "token_embd.weight")
    assert "'token_embd.weight' of type F16: row 1, column 0 is NaN" in message


# -- Traces -----------------------------------------------------------------------------------------------------------

MODELS = {
    **{kind: dataclasses.replace(SPEC, linear=kind) for kind in EXACT_TYPES},
    "llama": dataclasses.replace(SPEC, arch="llama", untied=True),
    "rows-of-iq2_bn": dataclasses.replace(SPEC, arch="llama", linear="IQ2_BN", shards=3),
    "rows-of-iq1_bn": dataclasses.replace(SPEC, arch="bitnet", linear="IQ1_BN", shards=3),
    "heads-of-36": Spec("bitnet", 2, 144, 208, 4, 2, vocab_size=61, context=256),
    "blocks-across-rows": Spec("bitnet-b1.58", 3, 80, 208, 4, 2, vocab_size=61, context=256),
}


def by_hand(engine: Any, projection: Any) -> Any:
    """The output of a projection from its int8 input, in the order of docs/numerics.md."""
    weights = engine.tensor(projection.tensor)
    sums = projection.x_int8.astype(np.int64) @ weights.trits.T.astype(np.int64)
    scale = weights.scales[:, 0]
    if projection.tensor.replace(".weight", ".scale") in engine.tensor_names:
        scale = scale * engine.tensor(projection.tensor.replace(".weight", ".scale")).to_float()
    output = sums.astype(np.float32) * (scale / projection.x_scale[:, None])
    if projection.tensor.replace(".weight", ".bias") in engine.tensor_names:
        output = output + engine.tensor(projection.tensor.replace(".weight", ".bias")).to_float()
    return output


@pytest.mark.parametrize("spec", MODELS.values(), ids=MODELS.keys())
def test_a_layer_by_hand(model: ModelMaker, spec: Spec) -> None:
    """Every arrow of the graph between two recorded values: with equal bits wherever numpy has the same operation."""
    with bitnet.Engine(model(spec), kv_type="f32", n_batch=32) as engine:
        trace = engine.trace(IDS)
        assert trace.token_ids == IDS
        assert trace.logits.tobytes() == engine.logits(IDS).tobytes()
        assert trace.hidden[-1].tobytes() == engine.embed([IDS], pooling="last")[0].tobytes()
        assert list(trace.layers) == list(range(spec.layers))
        for index, layer in trace.layers.items():
            assert layer.layer == index
            assert tuple(layer.projections) == PROJECTIONS
            for projection in layer.projections.values():
                assert projection.output.tobytes() == by_hand(engine, projection).tobytes(), projection.tensor
                assert np.array_equal(projection.x, projection.x_int8 / projection.x_scale[:, None])
                assert abs(projection.x_int8).max(axis=1).tolist() == [127] * len(IDS)
            shared = [layer.projections[name].x_int8 for name in PROJECTIONS]
            assert shared[0] is shared[1] is shared[2] and shared[4] is shared[5]
            attention_of(engine, spec, layer)
            feed_forward_of(engine, layer)
            after = layer.hidden + layer.projections["attn_output"].output + layer.projections["ffn_down"].output
            if index + 1 in trace.layers:
                assert after.tobytes() == trace.layers[index + 1].hidden.tobytes()
            else:
                mean = np.mean(after.astype(np.float64) ** 2, axis=1, keepdims=True)
                normed = after / np.sqrt(mean + spec.eps) * engine.tensor("output_norm.weight").to_float()
                assert np.allclose(trace.hidden, normed, rtol=1e-5)


def attention_of(engine: Any, spec: Spec, layer: Any) -> None:
    """Rows add up to 1, nothing looks ahead, and the weighted values are what the output projection reads."""
    n = len(IDS)
    assert layer.attention.shape == (spec.heads, n, n)
    assert np.allclose(layer.attention.sum(axis=-1), 1, atol=1e-6)
    assert not np.triu(layer.attention, 1).any()
    assert (layer.attention[:, np.tri(n, dtype=bool)] > 0).all()
    values = layer.projections["attn_v"].output.reshape(n, spec.kv_heads, spec.hd)
    values = values.repeat(spec.heads // spec.kv_heads, axis=1)
    attended = np.einsum("hqk,khd->qhd", layer.attention, values).reshape(n, -1)
    projection = layer.projections["attn_output"]
    name = f"blk.{layer.layer}.attn_sub_norm.weight"
    if name in engine.tensor_names:
        root = np.sqrt(np.mean(attended.astype(np.float64) ** 2, axis=1, keepdims=True) + spec.eps)
        attended = attended / root * engine.tensor(name).to_float()
    # What remains is the rounding to int8.
    assert np.abs(attended * projection.x_scale[:, None] - projection.x_int8).max() < 0.501


def feed_forward_of(engine: Any, layer: Any) -> None:
    """The neurons are those of the two projections."""
    gate, up = layer.projections["ffn_gate"].output, layer.projections["ffn_up"].output
    if engine.ffn_act == "relu2":
        assert layer.ffn.tobytes() == (np.maximum(gate, 0) * np.maximum(gate, 0) * up).tobytes()
    else:
        assert np.allclose(layer.ffn, gate / (1 + np.exp(-gate.astype(np.float64))) * up, rtol=1e-5, atol=1e-7)


def test_projections_with_a_norm_each_have_inputs_of_their_own(model: ModelMaker) -> None:
    """Of a layer with a sliding window, which the attention weights show."""
    spec = Spec("gemma3", 2, 128, 128, 2, 1, 64, 61, norm_in=True, window=7, window_pattern=2)
    with bitnet.Engine(model(spec), kv_type="f32", n_batch=32) as engine:
        trace = engine.trace(IDS)
        assert trace.logits.tobytes() == engine.logits(IDS).tobytes()
        for layer in trace.layers.values():
            for projection in layer.projections.values():
                assert projection.output.tobytes() == by_hand(engine, projection).tobytes(), projection.tensor
            assert len({layer.projections[name].x_int8.tobytes() for name in PROJECTIONS}) == len(PROJECTIONS)
        age = np.arange(len(IDS))[:, None] - np.arange(len(IDS))
        for index, seen in ((0, (age >= 0) & (age < spec.window)), (1, age >= 0)):
            attention = trace.layers[index].attention
            assert ((attention > 0) == seen).all()
            assert np.allclose(attention.sum(axis=-1), 1, atol=1e-6)


def test_scales_and_biases_in_tensors_of_their_own(tmp_path: Path) -> None:
    name = "blk.0.attn_q"
    scale, bias = floats(f"{name}.scale", [0.3]), floats(f"{name}.bias", np.linspace(-1, 1, 256))
    with bitnet.Engine(damaged(tmp_path, SPEC, LAST, 0, b"", scale, bias)) as engine:
        projection = engine.trace(IDS, layers=0).layers[0].projections["attn_q"]
        assert projection.output.tobytes() == by_hand(engine, projection).tobytes()


@pytest.mark.parametrize("act_quant", ["none", "int8"])
def test_dense_projections(tmp_path: Path, act_quant: Any) -> None:
    """Without rounding the inputs are floats; dense projections among ternary ones read the rounded values."""
    weights = np.random.default_rng(1).standard_normal((256, 512)).astype(np.float32) * 0.05
    path = damaged(tmp_path, SPEC, LAST, 0, b"", plain(LAST, (256, 512), 0, weights.tobytes()))
    with bitnet.Engine(path, act_quant=act_quant) as engine:
        trace = engine.trace(IDS, layers=1)
        assert trace.logits.tobytes() == engine.logits(IDS).tobytes()
        for projection in trace.layers[1].projections.values():
            assert (projection.x_int8 is None) == (projection.x_scale is None) == (act_quant == "none")
            expected = projection.x.astype(np.float64) @ engine.tensor(projection.tensor).to_float().T
            assert np.allclose(projection.output, expected, rtol=1e-4, atol=1e-4)


def everything(trace: Any) -> bytes:
    """The bytes of all arrays of a trace."""
    arrays = [trace.hidden, trace.logits]
    for layer in trace.layers.values():
        arrays += [layer.hidden, layer.attention, layer.ffn]
        for projection in layer.projections.values():
            arrays += [projection.x, projection.output]
            arrays += [] if projection.x_int8 is None else [projection.x_int8, projection.x_scale]
    return b"".join(array.tobytes() for array in arrays)


@pytest.mark.parametrize("name", ["I2_S", "llama", "rows-of-iq1_bn"])
def test_the_same_bits_everywhere(model: ModelMaker, name: str) -> None:
    path = model(MODELS[name])
    with bitnet.Engine(path, isa="scalar", n_threads=1, n_batch=1) as engine:
        expected = everything(engine.trace(IDS))
    for isa in bitnet.isas():
        for n_threads, n_batch in ((1, 128), (3, 7)):
            with bitnet.Engine(path, isa=isa, n_threads=n_threads, n_batch=n_batch) as engine:
                assert everything(engine.trace(IDS)) == expected, isa


def test_a_choice_of_layers(model: ModelMaker) -> None:
    spec = dataclasses.replace(SPEC, layers=4)
    with bitnet.Engine(model(spec)) as engine:
        whole = engine.trace(IDS)
        choices: dict[Any, list[int]] = {2: [2], -1: [3], (3, 0, -4, 0): [0, 3], (): [], range(1, 3): [1, 2]}
        for layers, expected in (*choices.items(), (np.array([1]), [1]), (np.int64(-2), [2])):
            trace = engine.trace(IDS, layers)
            assert list(trace.layers) == expected
            assert (trace.hidden == whole.hidden).all() and (trace.logits == whole.logits).all()
            for index, layer in trace.layers.items():
                assert layer.hidden.tobytes() == whole.layers[index].hidden.tobytes()
                assert layer.attention.tobytes() == whole.layers[index].attention.tobytes()
        for wrong in (4, -5, [0, 99], 2**70):
            assert "expected 0 to 3, or -1 for the last" in message_of(bitnet.ArgumentError, engine.trace, IDS, wrong)
        for odd in ("0", 1.5, True, [None], [True], [0.0], np.array([1.0]), object()):
            assert "layers must be an int or a sequence of int" in message_of(TypeError, engine.trace, IDS, odd)


def test_texts_and_wrong_prompts(engine: Any) -> None:
    trace = engine.trace("hello")
    assert trace.token_ids == engine.encode("hello", add_bos=True)
    assert trace.logits.tobytes() == engine.logits(trace.token_ids).tobytes()
    assert "empty" in message_of(bitnet.ArgumentError, engine.trace, [])
    message_of(bitnet.TokenIdError, engine.trace, [engine.n_vocab])
    message_of(bitnet.ContextLengthError, engine.trace, [1] * (engine.n_ctx + 1))
    message_of(TypeError, engine.trace, None)


def test_a_trace_leaves_the_engine_as_it_was(engine: Any) -> None:
    ids = engine.encode("hello there")
    before = engine.generate(ids, max_tokens=4)
    cached = engine.cached_tokens
    engine.trace(ids[::-1])
    assert engine.cached_tokens == cached
    assert engine.generate(ids, max_tokens=4).text == before.text


def test_a_trace_that_is_too_large_is_refused_at_once(model: ModelMaker) -> None:
    spec = Spec("llama", 3, 64, 64, 16, 1, 4, vocab_size=8, context=4096)
    with bitnet.Engine(model(spec)) as engine:
        message = message_of(bitnet.ArgumentError, engine.trace, [1] * 4096)
        assert message == (
            "a trace of 3 layers and 4096 tokens takes 3.2 GB, expected at most 2.1; choose fewer layers or give fewer "
            "tokens"
        )
        assert engine.trace([1] * 256).layers[2].attention.shape == (16, 256, 256)


def test_the_documents_example(capsys: pytest.CaptureFixture[str]) -> None:
    page = Path(__file__).resolve().parent.parent / "docs" / "inside.md"
    [code] = re.findall(r"```python\n(.+?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    exec(compile(code, page, "exec"), {})
    assert capsys.readouterr().out == "True\n"


def test_ctrl_c_ends_a_trace(model: ModelMaker) -> None:
    spec = Spec("llama", 6, 512, 2048, 8, 8, vocab_size=8, context=2048)
    with bitnet.Engine(model(spec), isa="scalar", n_threads=1) as engine:
        threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
        with pytest.raises(KeyboardInterrupt):
            for _ in range(100):
                engine.trace([1] * 1000, layers=0)
        assert len(engine.trace([1, 2, 3]).layers) == 6
