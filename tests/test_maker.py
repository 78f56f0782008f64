"""The model maker: its encoders, compared with published vectors and gguf's codecs, and its files, read by gguf."""

from __future__ import annotations

import dataclasses
import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import bitnet
import gguf
from bitnet import _tensor_types as tt
from bitnet._gguf_writer import copy_tokenizer, write_gguf
from bitnet._synthetic import PRESETS, Spec, make_model, metadata, tensors
from bitnet.bench import synthetic
from conftest import ROOT, ModelMaker


def lcg_trits(n: int) -> tt.Trits:
    """The trits of the test vectors: the upper byte of a linear congruential generator, modulo 3."""
    x, out = 1, []
    for _ in range(n):
        x = (1664525 * x + 1013904223) % 2**32
        out.append((x >> 24) % 3 - 1)
    return np.array(out, np.int8)


def random_trits(m: int, k: int) -> tt.Trits:
    trits = np.random.default_rng(5).integers(-1, 2, (m, k), np.int8)
    trits[0, :256] = 0  # an all-zero block
    return trits


def quantized(name: str) -> gguf.GGMLQuantizationType:
    return gguf.GGMLQuantizationType[name]


VECTORS = [
    ("TQ2_0", (1, 256), 66, "6499a05888192899499111689599a06a", "70c2efc42c1014ab"),
    ("TQ1_0", (1, 256), 54, "35a01c4841984ca19268615183a01bfc", "09e6c3fec029cc41"),
    ("I2_S", (4, 128), 160, "19660a25226428666146442956660aa9", "45a794dd4ec0c960"),
    ("IQ1_BN", (1, 128), 28, "0038047d277a5865eb554921ec901635", "3064b1b1a9cfa5a8"),
    ("IQ2_BN", (1, 128), 36, "0000003f5469006424a9a021a1854924", "90cb4e22c3fcc876"),
]


@pytest.mark.parametrize(("kind", "shape", "length", "first", "digest"), VECTORS, ids=[v[0] for v in VECTORS])
def test_vectors(kind: str, shape: tuple[int, int], length: int, first: str, digest: str) -> None:
    """The encoders give the bytes of other tools for these trits and the scale 0.5."""
    trits = lcg_trits(shape[0] * shape[1]).reshape(shape)
    if kind == "I2_S":
        data = tt.encode_i2_s(trits, 0.5).tobytes()
    else:
        data = tt.encode_trits(kind, trits, np.full(shape[0], 0.5, np.float32)).tobytes()
    assert len(data) == length == tt.nbytes(kind, *shape)
    assert data[:16].hex() == first
    assert hashlib.sha256(data).hexdigest()[:16] == digest


@pytest.mark.parametrize("kind", ["TQ1_0", "TQ2_0", "F16", "F32", "BF16", "Q8_0"])
def test_ternary_like_gguf(kind: str) -> None:
    """The encoders give the bytes of gguf's quantizer for trits times a scale, and its dequantizer gives them back."""
    trits = random_trits(6, 512)
    scales = np.full(6, 0.0419921875, np.float32)
    data = tt.encode_trits(kind, trits, scales)
    weights = trits * scales[:, None]
    assert np.array_equal(data, gguf.quants.quantize(weights, quantized(kind)).view(np.uint8))
    back = np.asarray(gguf.quants.dequantize(data, quantized(kind)))
    assert np.array_equal(np.sign(back), trits)
    if kind != "Q8_0":  # which rounds scale / 127 to f16
        assert np.array_equal(back, weights)


@pytest.mark.parametrize("kind", ["F16", "F32", "BF16", "Q4_0", "Q5_0", "Q8_0"])
def test_floats_like_gguf(kind: str) -> None:
    """The encoders give the bytes of gguf for the float and block types that it can write."""
    x = np.random.default_rng(3).normal(0, 0.7, (7, 96)).astype(np.float32)
    x[2, :32] = 0
    assert np.array_equal(tt.FLOAT[kind](x), gguf.quants.quantize(x, quantized(kind)).view(np.uint8))


@pytest.mark.parametrize(("kind", "bits"), [("Q4_K", 4), ("Q5_K", 5), ("Q6_K", 6)])
def test_k_quants_through_gguf(kind: str, bits: int) -> None:
    """gguf can only read these types: it reads values within one step of those written."""
    x = np.random.default_rng(4).normal(0, 0.7, (5, 512)).astype(np.float32)
    x[1, :256] = 0
    back = np.asarray(gguf.quants.dequantize(tt.FLOAT[kind](x), quantized(kind)))
    step = (x.max() - x.min()) / 2**bits
    assert np.abs(back - x).max() < step
    assert not back[1, :256].any()


def i2_s_weights(data: bytes, m: int, k: int) -> tt.Floats:
    codes = np.frombuffer(data[: m * k // 4], np.uint8)
    trits = np.array([(int(codes[i // 128 * 32 + i % 32]) >> 6 - 2 * (i % 128 // 32) & 3) - 1 for i in range(m * k)])
    scale = np.frombuffer(data[m * k // 4 :][:4], "<f4")
    weights: tt.Floats = trits.reshape(m, k).astype(np.float32) * scale
    return weights


def test_same_model_in_every_type() -> None:
    """Trits and scales depend on the seed and not on the type, and streamed I2_S equals the encoder's."""
    content = {}
    for kind in ("I2_S", "F32", "TQ2_0"):
        spec = Spec(layers=1, width=256, ffn=256, vocab_size=32, linear=kind)
        down = next(t for t in tensors(spec) if "ffn_down" in t.name)
        content[kind] = b"".join(down.chunks())
        assert content[kind] == b"".join(down.chunks()), "drawing again gives other bytes"
    weights = np.frombuffer(content["F32"], np.float32).reshape(256, 256)
    scale = np.abs(weights).max()
    assert np.array_equal(i2_s_weights(content["I2_S"], 256, 256), weights)
    assert content["I2_S"] == tt.encode_i2_s(np.sign(weights).astype(np.int8), scale).tobytes()
    raw = np.frombuffer(content["TQ2_0"], np.uint8).reshape(256, -1)
    assert np.array_equal(gguf.quants.dequantize(raw, quantized("TQ2_0")), weights)
    share_of_zeros = (weights == 0).mean()
    assert 0.33 < share_of_zeros < 0.41


def test_shards_have_their_own_scale() -> None:
    spec = Spec(layers=1, width=256, ffn=256, vocab_size=32, linear="F16", shards=3)
    up = next(t for t in tensors(spec) if "ffn_up" in t.name)
    weights = np.frombuffer(b"".join(up.chunks()), np.float16).reshape(256, 256)
    per_row = np.abs(weights).max(axis=1)
    assert len(np.unique(per_row)) == 3
    assert np.all((weights == 0) | (np.abs(weights) == per_row[:, None]))


def test_file_as_gguf_reads_it(model: ModelMaker) -> None:
    """gguf reads the metadata, names, shapes and types of a file whose types it knows."""
    spec = Spec(arch="llama", layers=1, width=256, ffn=512, heads=8, kv_heads=2, head_dim=64, vocab_size=40,
                rope_theta=1e4, eps=1e-6, untied=True, linear="TQ1_0", embedding="Q6_K", output="Q8_0")  # fmt: skip
    reader = gguf.GGUFReader(model(spec))
    value = {key: field.contents() for key, field in reader.fields.items()}
    assert value["general.architecture"] == "llama"
    assert value["llama.attention.head_count_kv"] == 2
    assert value["llama.attention.key_length"] == 64
    assert value["llama.rope.freq_base"] == 1e4
    assert value["llama.attention.layer_norm_rms_epsilon"] == np.float32(1e-6)
    assert value["tokenizer.ggml.tokens"][39] == "<39>"
    found = {t.name: (t.tensor_type.name, [int(n) for n in t.shape]) for t in reader.tensors}
    assert len(found) == 12
    assert found["blk.0.attn_q.weight"] == ("TQ1_0", [256, 512])
    assert found["blk.0.attn_output.weight"] == ("TQ1_0", [512, 256])
    assert found["token_embd.weight"] == ("Q6_K", [256, 40])
    assert found["output.weight"] == ("Q8_0", [256, 40])
    assert found["output_norm.weight"] == ("F32", [256])


def test_same_seed_same_file(tmp_path: Path, model: ModelMaker) -> None:
    spec = Spec(layers=1, width=128, ffn=128, vocab_size=32)
    first = model(spec).read_bytes()
    make_model(tmp_path / "again.gguf", spec)
    assert (tmp_path / "again.gguf").read_bytes() == first
    make_model(tmp_path / "other.gguf", dataclasses.replace(spec, seed=2))
    assert (tmp_path / "other.gguf").read_bytes() != first


def test_copied_tokenizer(tmp_path: Path) -> None:
    """Every `tokenizer.*` entry is copied unchanged, and a vocabulary of another size is refused."""
    donor = tmp_path / "donor.gguf"
    writer = gguf.GGUFWriter(donor, "llama")
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(["a", "b", "\u0120c"])
    writer.add_token_scores([0.0, -1.0, -2.5])
    writer.add_token_merges(["a b"])
    writer.add_add_bos_token(True)
    writer.add_eos_token_id(2)
    writer.add_context_length(7)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()

    entries, n_tokens = copy_tokenizer(donor)
    assert (n_tokens, len(entries)) == (3, 6)
    spec = Spec(layers=1, width=128, ffn=128, vocab_size=3, linear="F16")
    make_model(tmp_path / "model.gguf", spec, donor)
    before, after = gguf.GGUFReader(donor).fields, gguf.GGUFReader(tmp_path / "model.gguf", "r").fields
    for key in entries:
        assert after[key].contents() == before[key].contents()
        assert after[key].types == before[key].types
    assert after["bitnet-b1.58.context_length"].contents() == 512
    with pytest.raises(ValueError, match="--vocab-size 3"):
        metadata(dataclasses.replace(spec, vocab_size=4), donor)


def test_preset_of_the_issue() -> None:
    """The preset 2b-4t has the shape of BitNet b1.58 2B-4T and I2_S tensors of its size."""
    spec = PRESETS["2b-4t"]
    directory = {t.name: t for t in tensors(spec)}
    assert len(directory) == 332
    assert directory["token_embd.weight"].nbytes == 128256 * 2560 * 2
    assert directory["blk.29.attn_v.weight"].shape == (640, 2560)
    assert directory["blk.0.ffn_down.weight"].nbytes == 6912 * 2560 // 4 + 32
    ternary = sum(t.nbytes for t in directory.values() if t.type_id == 36)
    assert ternary == 30 * ((2 * 2560 + 2 * 640 + 3 * 6912) * 2560 // 4 + 7 * 32)


def test_the_preset_of_bonsai_27b() -> None:
    """As many tensors of each type as the published file of 5,946,648,928 bytes, whose tokenizer is larger."""
    spec = PRESETS["bonsai-27b"]
    directory = tensors(spec)
    ids = [t.type_id for t in directory]
    assert [ids.count(tt.TYPES[kind][0]) for kind in ("F32", "BF16", "PTQ1_0")] == [353, 96, 402]
    assert sum(t.nbytes for t in directory) == 5_935_527_936
    keys = metadata(spec)
    assert keys["qwen35.rope.dimension_sections"] == [11, 11, 10, 0]
    assert keys["prism.hadamard.sign_widths"] == [5120, 6144, 17408]


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_are_sound(preset: str) -> None:
    """The shapes of each preset fit its types. No weights are drawn here."""
    assert len(tensors(PRESETS[preset])) > PRESETS[preset].layers * 9


def test_refusals() -> None:
    with pytest.raises(ValueError, match="linear is one of I2_S"):
        Spec(linear="Q4_K")
    with pytest.raises(ValueError, match="36 heads"):
        Spec(heads=36, kv_heads=36)
    for fields, said in (
        ({"ssm_value_heads": 7}, "multiple of ssm_key_heads; found 7 and 2"),
        ({"rope_dim": 66}, "up to head_dim 64; found 66"),
        ({"hadamard": 64}, "untied=True"),
        ({"hadamard": 96, "untied": True}, "power of two"),
        ({"hadamard": 128, "untied": True}, "128 does not divide the width 192"),
    ):
        with pytest.raises(ValueError, match=said):
            Spec("qwen35", **fields)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="only qwen35 has rotated weights"):
        Spec(hadamard=64)
    with pytest.raises(ValueError, match="one scale per tensor"):
        Spec(shards=2)
    with pytest.raises(ValueError, match=r"attn_q.*TQ2_0 needs rows of a multiple of 256 elements, found 128"):
        tensors(Spec(width=128, linear="TQ2_0"))
    with pytest.raises(ValueError, match="I2_S needs a multiple of 128 elements"):
        tensors(Spec(width=36, heads=2))
    short = dataclasses.replace(tensors(Spec())[0], chunks=lambda: [b"abc"])
    with pytest.raises(ValueError, match=r"token_embd.weight: wrote 3 bytes"):
        write_gguf(Path("/dev/null"), {}, [short])


def test_a_synthetic_model_from_python(tmp_path: Path) -> None:
    path = synthetic(tmp_path / "m.gguf", "tiny", linear="TQ1_0", layers=1)
    make_model(tmp_path / "same.gguf", Spec(linear="TQ1_0", layers=1))
    assert path == tmp_path / "m.gguf" and path.read_bytes() == (tmp_path / "same.gguf").read_bytes()
    with bitnet.Engine(path) as engine:
        assert len(engine.generate_tokens([1, 2, 3], max_tokens=4)) == 4
    for arguments, said in [
        ({"preset": "huge"}, "no preset 'huge'; the presets are tiny, bench, 2b-4t, "),
        ({"depth": 3}, "no field 'depth'; the fields are arch, layers, "),
        ({"heads": 7}, "heads must be a multiple of kv_heads; found 7 and 16"),
        ({"linear": "Q3"}, "linear is one of I2_S, "),
    ]:
        with pytest.raises(bitnet.ArgumentError, match=said):
            synthetic(tmp_path / "none.gguf", **arguments)
    assert not (tmp_path / "none.gguf").exists()


def test_command_line(tmp_path: Path) -> None:
    """The documented call works from another folder, and an error is reported in one line."""
    maker = [sys.executable, str(ROOT / "benches" / "make_model.py")]
    args = ["m.gguf", "--arch", "bitnet", "--width", "128", "--ffn", "192", "--vocab-size", "50", "--untied"]
    subprocess.run([*maker, *args], cwd=tmp_path, check=True)
    spec = Spec("bitnet", width=128, ffn=192, vocab_size=50, untied=True)
    make_model(tmp_path / "same.gguf", spec)
    assert (tmp_path / "m.gguf").read_bytes() == (tmp_path / "same.gguf").read_bytes()
    failed = subprocess.run([*maker, "m.gguf", "--heads", "3"], cwd=tmp_path, capture_output=True, text=True)
    assert failed.returncode == 2
    assert "heads must be a multiple of kv_heads; found 3 and 2" in failed.stderr


def test_committed_fixtures(tmp_path: Path) -> None:
    """The committed models of the Rust tests are those that the maker makes."""
    subprocess.run([sys.executable, str(ROOT / "tests" / "fixtures" / "make.py"), str(tmp_path)], check=True)
    made = {path.name: path.read_bytes() for path in tmp_path.glob("*.gguf")}
    assert made == {path.name: path.read_bytes() for path in (ROOT / "tests" / "fixtures").glob("*.gguf")}
    assert len(made) == 14


@pytest.mark.parametrize("untied", [False, True])
def test_a_spread_head_has_a_few_larger_rows(tmp_path: Path, untied: bool) -> None:
    spec = Spec(vocab_size=33000, untied=untied)
    plain, spread = (dataclasses.replace(spec, head_spread=factor) for factor in (1.0, 4.0))
    name = "output.weight" if untied else "token_embd.weight"
    for tensor, other in zip(tensors(plain), tensors(spread), strict=True):
        a, b = (b"".join(t.chunks()) for t in (tensor, other))
        if tensor.name != name:
            assert a == b
            continue
        x, y = (np.frombuffer(data, np.float16).reshape(spec.vocab_size, -1).astype(np.float64) for data in (a, b))
        np.testing.assert_allclose(y[::1000], 4 * x[::1000], rtol=1e-3)
        y[::1000] = x[::1000]
        assert (x == y).all()
    make_model(tmp_path / "model.gguf", spread)
    with bitnet.Engine(tmp_path / "model.gguf") as engine:
        logits = engine.logits([1, 2, 3])
        assert (logits.max(axis=1) > 6 * np.median(np.abs(logits), axis=1)).all()


def test_chunks_hold_whole_groups_of_rows(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """IQ2_BN_R4 interleaves four rows, and a chunk of 2560 columns had 1638."""
    monkeypatch.setattr("bitnet._synthetic.CHUNK_ELEMENTS", 1638 * 128)
    spec = Spec("bitnet-b1.58", 1, 128, 1664, 4, 4, linear="IQ2_BN_R4", vocab_size=300)
    make_model(tmp_path / "model.gguf", spec)
    with bitnet.Engine(tmp_path / "model.gguf") as engine:
        assert engine.generate([1, 2], max_tokens=1).token_ids
