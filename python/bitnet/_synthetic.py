"""Make synthetic ternary models: any shape, any supported tensor type, random trits.

The same fields and seed give the same file. Trits, scales, norms and embeddings depend on the seed, the tensor's name
and its shape, not on its type: files that differ only in `linear` hold the same model. Writing 2b-4t takes seconds.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from . import _synthetic_qwen35 as qwen35
from . import _synthetic_zeros as zeros
from . import _tensor_types as tt
from ._gguf_writer import Tensor, Value, copy_tokenizer, write_gguf
from .errors import ArgumentError


@dataclass(frozen=True)
class Graph:
    """The tensors and keys by which an architecture differs from Llama's: a row as in `src/model/arch.rs`."""

    sub_norms: bool = False
    head_norms: bool = False
    qkv_bias: bool = False
    post_norms: bool = False
    scales: bool = False  # the keys embedding_scale, residual_scale and logit_scale
    relu2: bool = False  # the activation of the feed-forward networks
    is_hybrid: bool = False  # most layers are gated delta nets: all its tensors are those of `_synthetic_qwen35`


GRAPHS = {
    "bitnet-b1.58": Graph(sub_norms=True, relu2=True),
    "bitnet-25": Graph(sub_norms=True, relu2=True),
    "bitnet": Graph(sub_norms=True),
    "llama": Graph(),
    "qwen2": Graph(qkv_bias=True),
    "qwen3": Graph(head_norms=True),
    "minicpm": Graph(scales=True),
    "gemma3": Graph(head_norms=True, post_norms=True),
    "hunyuan-dense": Graph(head_norms=True),
    "qwen35": Graph(is_hybrid=True),
}
ARCHS = tuple(GRAPHS)
ROPE_SCALINGS = ("linear", "yarn", "longrope")
LINEAR_TYPES = ("I2_S", *tt.TERNARY, "F16", "F32", "BF16", "Q8_0")
INEXACT_TYPES = ("Q1_0", "STQ1_0")  # these cannot hold every trit; a model in them has other weights
EMBEDDING_TYPES = (*tt.FLOAT, *tt.TERNARY)
CHUNK_ELEMENTS = 1 << 22  # limits the memory for random numbers and encoding
SPREAD_STEP = 1000  # of so many rows of an output head one is larger (head_spread)

# Maps a random byte to four trits. Each of the 81 combinations occurs three times; the remaining 13 bytes map to four
# zeros. So 37 % of the trits are zeros, about as in trained models, and both signs are equally frequent.
FOUR_TRITS = bytes(a << 6 | b << 4 | c << 2 | d for a, b, c, d in itertools.product((0, 1, 2), repeat=4))
CODES_OF_BYTE = FOUR_TRITS * 3 + bytes([0b01010101] * 13)


@dataclass(frozen=True)
class Spec:
    """Shape, types and seed of a model."""

    arch: str = "bitnet-b1.58"
    layers: int = 2
    width: int = 256
    ffn: int = 768
    heads: int = 4
    kv_heads: int = 2
    head_dim: int | None = None  # None: width / heads
    vocab_size: int = 1024
    context: int = 512
    rope_theta: float = 500000.0
    eps: float = 1e-5
    untied: bool = False
    linear: str = "I2_S"
    embedding: str = "F16"
    output: str | None = None  # None: the embedding's type
    shards: int = 1
    seed: int = 1
    rope_scaling: str | None = None
    rope_factor: float = 4.0
    original_context: int | None = None  # positions of the first training; None: context / rope_factor
    window: int = 0  # positions that most layers of gemma3 see; 0: all
    window_pattern: int = 6  # every layer of this number sees all positions
    softcap: float = 0.0  # bound of the logits of gemma3; 0: none
    head_spread: float = 1.0  # how much larger one row in 1,000 of a float output head is
    norm_in: bool = False  # a norm before every projection, as in Microsoft's embedding models
    pooling: int = 0  # 1 mean, 2 cls, 3 last: an embedding model
    group: int | None = None  # columns that share a scale; None: all of a row
    relu_zeros: float | None = None  # share of the gates that are at most 0; None: half of them, by chance
    # Those of qwen35 only.
    full_interval: int = 4  # every layer of this number is attention, the others are gated delta nets
    ssm_key_heads: int = 2  # heads of a gated delta net
    ssm_value_heads: int = 6
    ssm_head_dim: int = 32  # channels of each of them
    ssm_conv: int = 4  # tokens that the convolution before them sees
    ssm_gates: str | None = None  # type of alpha and beta; None: F32, or BF16 where weights are rotated
    rope_dim: int | None = None  # channels of a head that rotate; None: all
    hadamard: int = 0  # block of the transform by which weights are stored rotated; 0: they are not
    gdn_v_grouped: bool = True  # ssm_out was rotated with its value heads in the order of their key heads

    def __post_init__(self) -> None:
        """Raise ValueError for a shape that no model can have. Block sizes are checked when tensors are made."""
        for field, allowed in (("arch", ARCHS), ("linear", LINEAR_TYPES), ("embedding", EMBEDDING_TYPES)):
            if getattr(self, field) not in allowed:
                raise ValueError(f"{field} is one of {', '.join(allowed)}; found {getattr(self, field)!r}")
        if self.output is not None and self.output not in EMBEDDING_TYPES:
            raise ValueError(f"output is one of {', '.join(EMBEDDING_TYPES)}; found {self.output!r}")
        if self.heads % self.kv_heads:
            raise ValueError(f"heads must be a multiple of kv_heads; found {self.heads} and {self.kv_heads}")
        if self.head_dim is None and self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of {self.heads} heads; give head_dim")
        if self.rope_scaling not in (None, *ROPE_SCALINGS):
            raise ValueError(f"rope_scaling is one of {', '.join(ROPE_SCALINGS)}; found {self.rope_scaling!r}")
        if (self.window or self.softcap) and self.arch != "gemma3":
            raise ValueError(f"only gemma3 has a sliding window and a softcap; found arch {self.arch!r}")
        if self.graph.is_hybrid:
            qwen35.check(self)
        elif self.hadamard or self.rope_dim:
            raise ValueError(f"only qwen35 has rotated weights and a rope_dim; found arch {self.arch!r}")
        if self.ssm_gates is not None and self.ssm_gates not in EMBEDDING_TYPES:
            raise ValueError(f"ssm_gates is one of {', '.join(EMBEDDING_TYPES)}; found {self.ssm_gates!r}")
        if self.relu_zeros is not None and not (self.graph.relu2 and 0.0 < self.relu_zeros < 1.0):
            raise ValueError(
                f"relu_zeros is a share of gates of an arch with relu²; found {self.relu_zeros}, {self.arch!r}"
            )
        if self.norm_in and not self.graph.head_norms:
            raise ValueError(f"only qwen3 and gemma3 can have norm_in; found arch {self.arch!r}")
        if self.hd % 2:
            raise ValueError(f"rope needs an even head_dim; found {self.hd}")
        if self.linear == "I2_S" and (self.shards > 1 or self.group):
            raise ValueError("I2_S has one scale per tensor; several shards need another type")

    @property
    def hd(self) -> int:
        """Channels per head."""
        return self.head_dim or self.width // self.heads

    @property
    def graph(self) -> Graph:
        """How the architecture differs from Llama's."""
        return GRAPHS[self.arch]


def _bonsai(layers: int, width: int, ffn: int, heads: int, untied: bool) -> Spec:
    """Return the shape of one of PrismML's Bonsai models, which are Qwen3's with a longer context."""
    spec = Spec("qwen3", layers, width, ffn, heads, 8, 128, 151669, 65536, 1e6, 1e-6, untied)
    spec = dataclasses.replace(spec, linear="Q2_0_g128", embedding="Q2_0_g128", group=128)
    return dataclasses.replace(spec, rope_scaling="yarn", rope_factor=4.0, original_context=16384)


PRESETS = {
    "tiny": Spec(),
    "bench": Spec("bitnet", 8, 1536, 4096, 16, 16, None, 16000, 2048, 10000.0),
    "2b-4t": Spec("bitnet-b1.58", 30, 2560, 6912, 20, 5, None, 128256, 4096),
    "large": Spec("bitnet", 24, 1536, 4096, 16, 16, None, 32002, 2048, 10000.0),
    "3b": Spec("bitnet", 26, 3200, 8640, 32, 32, None, 32002, 2048, 10000.0),
    "llama3-8b": Spec("llama", 32, 4096, 14336, 32, 8, None, 128256, 8192, untied=True),
    "falcon3-1b": Spec("llama", 18, 2048, 8192, 8, 4, None, 131072, 4096, 1000042.0, 1e-6, untied=True),
    "falcon3-3b": Spec("llama", 22, 3072, 9216, 12, 4, None, 131072, 4096, 1000042.0, 1e-6, untied=True),
    "falcon3-7b": Spec("llama", 28, 3072, 23040, 12, 4, None, 131072, 8192, 1000042.0, 1e-6, untied=True),
    "falcon3-10b": Spec("llama", 40, 3072, 23040, 12, 4, None, 131072, 32768, 1000042.0, 1e-6, untied=True),
    "falcon-e-1b": Spec("llama", 24, 2048, 9216, 16, 2, 128, 32768, 32768, 1e6, 1e-6, untied=True),
    "falcon-e-3b": Spec("llama", 32, 2048, 13312, 16, 2, 128, 32768, 32768, 1e6, 1e-6, untied=True),
    "bonsai-1.7b": _bonsai(28, 2048, 6144, 16, untied=False),
    "bonsai-4b": _bonsai(36, 2560, 9728, 32, untied=False),
    "bonsai-8b": _bonsai(36, 4096, 12288, 32, untied=True),
    "bonsai-27b": dataclasses.replace(
        Spec("qwen35", 64, 5120, 17408, 24, 4, 256, 248320, 262144, 1e7, 1e-6, untied=True),
        linear="PTQ1_0",
        embedding="PTQ1_0",
        group=128,
        ssm_key_heads=16,
        ssm_value_heads=48,
        ssm_head_dim=128,
        rope_dim=64,
        hadamard=1024,
    ),
    "bitcpm-8b": dataclasses.replace(
        Spec("minicpm", 32, 4096, 16384, 32, 2, 128, 73448, 32768, 10000.0, 1e-6, untied=True),
        rope_scaling="longrope",
        rope_factor=1.0,
        linear="TQ2_0",
        group=256,
        embedding="Q4_K",
        output="Q6_K",
    ),
    # A small one of each family.
    "tiny-qwen2": Spec("qwen2", rope_theta=1e6, eps=1e-6),
    "tiny-qwen3": Spec("qwen3", 2, 256, 768, 2, 1, 64, rope_theta=1e6, eps=1e-6, rope_scaling="yarn"),
    "tiny-minicpm": Spec("minicpm", rope_theta=1e4, untied=True, rope_scaling="longrope"),
    "tiny-gemma3": Spec("gemma3", 6, 128, 256, 2, 1, 64, rope_theta=1e6, eps=1e-6, window=32),
    "tiny-hunyuan": Spec("hunyuan-dense", rope_theta=1e4),
    "tiny-qwen35": dataclasses.replace(
        Spec("qwen35", 4, 256, 384, 4, 2, 64, rope_theta=1e7, eps=1e-6, untied=True),
        linear="Q2_0_g128",
        group=128,
        ssm_head_dim=64,
        rope_dim=16,
    ),
    "tiny-embedding-qwen3": Spec("qwen3", 2, 256, 768, 4, 2, 32, rope_theta=1e6, norm_in=True, pooling=1),
    "tiny-embedding-gemma3": Spec("gemma3", 2, 128, 256, 2, 1, 64, rope_theta=1e4, norm_in=True, pooling=1),
}


def synthetic(path: str | os.PathLike[str], preset: str = "bench", **fields: Any) -> Path:
    """Write a model with random ternary weights as a GGUF file, to measure speed without a download.

    Its answers mean nothing. The same arguments give the same file, byte for byte.

    Args:
        path: The file to write.
        preset: A shape: "bench" (106 MB, more than most caches hold), "tiny" (1 MB), or that of a published model:
            "2b-4t", "large", "3b", "llama3-8b", "falcon3-1b", "falcon3-3b", "falcon3-7b", "falcon3-10b",
            "falcon-e-1b", "falcon-e-3b", "bonsai-1.7b", "bonsai-4b", "bonsai-8b", "bonsai-27b" (6 GB), "bitcpm-8b";
            or "tiny-" and a family: "qwen2", "qwen3", "minicpm", "gemma3", "hunyuan", "qwen35", "embedding-qwen3",
            "embedding-gemma3".
        fields: Fields that replace those of the preset: arch, layers, width, ffn, heads, kv_heads, head_dim,
            vocab_size, context, rope_theta, eps, untied, linear and embedding and output (types of tensors), shards,
            seed, rope_scaling, rope_factor, original_context, window, window_pattern, softcap, head_spread,
            norm_in, pooling, group, relu_zeros (share of the gates that are at most 0); and for qwen35 full_interval,
            ssm_key_heads, ssm_value_heads, ssm_head_dim, ssm_conv, ssm_gates, rope_dim, hadamard, gdn_v_grouped.

    Returns:
        The path.

    Raises:
        ArgumentError: There is no such preset or field, or no model can have this shape.

    >>> import tempfile, bitnet, bitnet.bench
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = bitnet.bench.synthetic(folder + "/model.gguf", "tiny", layers=1)
    ...     bitnet.inspect(path)["config"]["layers"]
    1
    """
    if preset not in PRESETS:
        raise ArgumentError(f"no preset {preset!r}; the presets are {', '.join(PRESETS)}")
    known = [field.name for field in dataclasses.fields(Spec)]
    if unknown := sorted(fields.keys() - set(known)):
        raise ArgumentError(f"no field {unknown[0]!r}; the fields are {', '.join(known)}")
    try:
        make_model(Path(path), dataclasses.replace(PRESETS[preset], **fields))
    except ValueError as error:
        raise ArgumentError(str(error)) from error
    return Path(path)


def make_model(path: Path, spec: Spec, vocab: Path | None = None) -> None:
    """Write the model. `vocab` is a GGUF file whose tokenizer is copied; the default is a minimal tokenizer."""
    write_gguf(path, metadata(spec, vocab), tensors(spec))


def metadata(spec: Spec, vocab: Path | None = None) -> dict[str, Value]:
    """Return the metadata keys that the published files of these architectures have."""
    shape: dict[str, Value] = {
        "vocab_size": spec.vocab_size,
        "context_length": spec.context,
        "embedding_length": spec.width,
        "block_count": spec.layers,
        "feed_forward_length": spec.ffn,
        "attention.head_count": spec.heads,
        "attention.head_count_kv": spec.kv_heads,
        "attention.layer_norm_rms_epsilon": spec.eps,
        "rope.dimension_count": spec.hd,
        "rope.freq_base": spec.rope_theta,
    }
    if spec.hd * spec.heads != spec.width:
        shape |= {"attention.key_length": spec.hd, "attention.value_length": spec.hd}
    if spec.rope_scaling:
        shape |= {"rope.scaling.type": spec.rope_scaling, "rope.scaling.factor": spec.rope_factor}
        shape["rope.scaling.original_context_length"] = spec.original_context or int(spec.context / spec.rope_factor)
    if spec.window:
        shape |= {"attention.sliding_window": spec.window, "attention.sliding_window_pattern": spec.window_pattern}
    if spec.softcap:
        shape["final_logit_softcapping"] = spec.softcap
    if spec.graph.scales:
        depth = 1.4 / spec.layers**0.5
        shape |= {"embedding_scale": 12.0, "residual_scale": depth, "logit_scale": spec.width / 256}
    if spec.pooling:
        shape["pooling_type"] = spec.pooling
    rotation: dict[str, Value] = {}
    if spec.graph.is_hybrid:
        shape |= qwen35.keys(spec)
        rotation = qwen35.rotation_keys(spec, lambda name: _generator(spec, name))
    general: dict[str, Value] = {"general.architecture": spec.arch, "general.name": "synthetic"}
    return general | {f"{spec.arch}.{key}": value for key, value in shape.items()} | tokenizer(spec, vocab) | rotation


def tokenizer(spec: Spec, vocab: Path | None) -> dict[str, Value]:
    """Return the tokenizer of another file, or one in which every id has a text of its own and nothing merges."""
    if vocab is None:
        tokens = [f"<{i}>" for i in range(spec.vocab_size)]
        return {
            "tokenizer.ggml.model": "gpt2",
            "tokenizer.ggml.tokens": tokens,
            "tokenizer.ggml.token_type": [1] * len(tokens),
        }
    copied, n_tokens = copy_tokenizer(vocab)
    if n_tokens != spec.vocab_size:
        raise ValueError(f"{vocab}: {n_tokens} tokens for a model of {spec.vocab_size}; use --vocab-size {n_tokens}")
    return copied


def tensors(spec: Spec) -> list[Tensor]:
    """Return all tensors in the order of the published files: embedding, layers, final norm, output."""
    attention, kv = spec.heads * spec.hd, spec.kv_heads * spec.hd
    graph = spec.graph
    has_head_norms, has_sub_norms, has_post_norms = graph.head_norms, graph.sub_norms, graph.post_norms
    layer: list[tuple[str, tuple[int, ...], bool]] = [
        ("attn_norm", (spec.width,), True),
        ("attn_q", (attention, spec.width), True),
        ("attn_q_norm", (spec.hd,), has_head_norms),
        ("attn_k", (kv, spec.width), True),
        ("attn_k_norm", (spec.hd,), has_head_norms),
        ("attn_v", (kv, spec.width), True),
        ("attn_sub_norm", (attention,), has_sub_norms),
        ("attn_output", (spec.width, attention), True),
        ("post_attention_norm", (spec.width,), has_post_norms),
        ("ffn_norm", (spec.width,), True),
        ("ffn_gate", (spec.ffn, spec.width), True),
        ("ffn_up", (spec.ffn, spec.width), True),
        ("ffn_sub_norm", (spec.ffn,), has_sub_norms),
        ("ffn_down", (spec.width, spec.ffn), True),
        ("post_ffw_norm", (spec.width,), has_post_norms),
    ]
    biased = ("attn_q", "attn_k", "attn_v") if graph.qkv_bias else ()

    out = [_dense(spec, "token_embd.weight", spec.embedding)]
    if spec.rope_scaling == "longrope":
        out += [_norm(spec, f"rope_factors_{name}.weight", spec.hd // 2) for name in ("short", "long")]
    for i in range(spec.layers):
        if graph.is_hybrid:
            out += _hybrid_layer(spec, i)
            continue
        for name, shape, exists in layer:
            full = f"blk.{i}.{name}"
            if not exists:
                continue
            if len(shape) == 1:
                constant = _zeros_gamma(spec, i) if name == "ffn_norm" and spec.relu_zeros else None
                out.append(_norm(spec, f"{full}.weight", shape[0], constant=constant))
                continue
            if spec.norm_in:
                out.append(_norm(spec, f"{full}_norm_in.weight", shape[1], "F16"))
            out.append(_linear(spec, f"{full}.weight", *shape))
            if name in biased:
                out.append(_norm(spec, f"{full}.bias", shape[0]))
    out.append(_norm(spec, "output_norm.weight", spec.width))
    if spec.untied:
        out.append(_dense(spec, "output.weight", spec.output or spec.embedding))
    return out


def _hybrid_layer(spec: Spec, i: int) -> list[Tensor]:
    """Return the tensors of a layer of qwen35."""
    gates = spec.ssm_gates or ("BF16" if spec.hadamard else "F32")
    out = []
    for name, shape in qwen35.layer_shapes(spec, i).items():
        full = f"blk.{i}.{name}"
        if name in qwen35.DRAWS:
            out.append(_floats(spec, full, shape, "F32", qwen35.DRAWS[name]))
        elif name in qwen35.GATES and gates in tt.FLOAT:
            out.append(_floats(spec, full, shape, gates, qwen35.draw_gate))
        elif len(shape) == 2:
            kind = gates if name in qwen35.GATES else spec.linear
            out.append(_linear(dataclasses.replace(spec, linear=kind), full, *shape))
        else:
            out.append(_norm(spec, full, shape[0]))
    return out


def _linear(spec: Spec, name: str, m: int, k: int) -> Tensor:
    """Return a projection: random trits, one scale per shard of its rows."""

    def i2_s() -> Iterator[bytes]:
        # The random codes are already in the layout of I2_S, so large I2_S files need no packing.
        rng = _generator(spec, name)
        for start in range(0, m * k // 4, CHUNK_ELEMENTS):
            codes = _draw_codes(rng, min(CHUNK_ELEMENTS, m * k // 4 - start))
            yield zeros.edit_codes(name, codes, start, k, spec.width) if spec.relu_zeros else codes
        yield tt.i2_s_trailer(float(_scales(spec, name, 1, k)[0, 0])).tobytes()

    if spec.linear != "I2_S":
        return _tensor(name, (m, k), spec.linear, lambda: _ternary_rows(spec, name, spec.linear, m, k))
    return _tensor(name, (m, k), spec.linear, i2_s)


def _ternary_rows(spec: Spec, name: str, kind: str, m: int, k: int, gain: float = 1.0) -> Iterator[bytes]:
    codes = np.frombuffer(_draw_codes(_generator(spec, name), (m * k + 127) // 128 * 32), np.uint8)
    scales = _scales(spec, name, m, k) * np.float32(gain)
    for rows in _row_chunks(m, k):
        first, last = rows.start * k // 128 * 32, -(-rows.stop * k // 128) * 32
        trits = tt.decode_i2_s_codes(codes[first:last])[rows.start * k - first * 4 :][: (rows.stop - rows.start) * k]
        trits = trits.reshape(-1, k)
        if spec.relu_zeros:
            trits = zeros.edit_trits(name, trits, rows.start, spec.width)
        yield tt.encode_trits(kind, trits, scales[rows]).tobytes()


def _draw_codes(rng: np.random.Generator, n: int) -> bytes:
    return rng.bytes(n).translate(CODES_OF_BYTE)


def _scales(spec: Spec, name: str, m: int, k: int) -> tt.Floats:
    """Return the scales of each row: about 1 / sqrt(k), so that activations keep their size through the layers.

    Scales are rounded to eight significant bits, so that f16, bf16 and f32 hold the same value.
    """
    groups = k // spec.group if spec.group else 1
    size = (m if spec.group else spec.shards, groups)
    mantissa, exponent = np.frexp(_generator(spec, name + ".scale").uniform(0.8, 1.6, size) / np.sqrt(k))
    scales = np.ldexp(np.round(mantissa * 256) / 256, exponent).astype(np.float32)
    rows: tt.Floats = scales[np.arange(m) * len(scales) // m]
    return rows


def _dense(spec: Spec, name: str, kind: str) -> Tensor:
    """Return an embedding or output matrix, N(0, 0.7), or trits. Logits then spread, so greedy choices are clear."""
    if kind in tt.TERNARY:
        shape = (spec.vocab_size, spec.width)
        # Delta nets magnify rounding noise, unless embeddings are about as large as dense ones.
        gain = 8.0 if spec.graph.is_hybrid and name == "token_embd.weight" else 1.0
        return _tensor(name, shape, kind, lambda: _ternary_rows(spec, name, kind, *shape, gain))

    def chunks() -> Iterator[bytes]:
        rng = _generator(spec, name)
        is_head = name == "output.weight" or not spec.untied
        for rows in _row_chunks(spec.vocab_size, spec.width):
            x = rng.standard_normal((rows.stop - rows.start, spec.width), np.float32) * np.float32(0.7)
            if is_head and spec.head_spread != 1.0:
                x[-rows.start % SPREAD_STEP :: SPREAD_STEP] *= np.float32(spec.head_spread)
            if spec.relu_zeros and name == "token_embd.weight":
                x[:, : zeros.coordinates(spec.width)] = zeros.CONSTANT
            yield tt.FLOAT[kind](x).tobytes()

    return _tensor(name, (spec.vocab_size, spec.width), kind, chunks)


def _norm(spec: Spec, name: str, width: int, kind: str = "F32", constant: float | None = None) -> Tensor:
    """Return the weights of a norm. Biases and divisors of rotary frequencies are drawn in the same way.

    `constant` replaces the weights of the coordinates that are constant for `relu_zeros`.
    """

    def draw(rng: np.random.Generator, shape: tuple[int, ...]) -> Any:
        weights = rng.uniform(0.5, 1.5, shape)
        if constant is not None:
            weights[: zeros.coordinates(width)] = constant
        return weights

    return _floats(spec, name, (width,), kind, draw)


def _zeros_gamma(spec: Spec, layer: int) -> float:
    """Return the weight of the constant coordinates in the feed-forward norm of a layer, for `relu_zeros`."""
    assert spec.relu_zeros is not None
    before = [(i, name) for i in range(layer + 1) for name in ("attn_output", "ffn_down")][: 2 * layer + 1]
    cols = {"attn_output": spec.heads * spec.hd, "ffn_down": spec.ffn}

    def added(i: int, name: str) -> float:
        scales = _scales(spec, f"blk.{i}.{name}.weight", spec.width, cols[name])
        return zeros.variance(float(np.sqrt(np.mean(scales**2))), cols[name])

    return zeros.gamma(spec.relu_zeros, spec.width, [added(*place) for place in before])


def _floats(spec: Spec, name: str, shape: tuple[int, ...], kind: str, draw: qwen35.Draw) -> Tensor:
    """Return a tensor of random floats that is small enough to be made at once."""

    def chunks() -> Iterator[bytes]:
        yield tt.FLOAT[kind](draw(_generator(spec, name), shape).astype(np.float32)).tobytes()

    return _tensor(name, shape, kind, chunks)


def _tensor(name: str, shape: tuple[int, ...], kind: str, chunks: Callable[[], Iterator[bytes]]) -> Tensor:
    m, k = shape if len(shape) == 2 else (1, shape[0])
    try:
        return Tensor(name, shape, tt.TYPES[kind][0], tt.nbytes(kind, m, k), chunks)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def _generator(spec: Spec, name: str) -> np.random.Generator:
    """Return a generator for one tensor, so that its values do not depend on other tensors."""
    return np.random.default_rng([spec.seed, zlib.crc32(name.encode())])


def _row_chunks(m: int, k: int) -> Iterator[slice]:
    step = max(4, CHUNK_ELEMENTS // k // 4 * 4)  # IQ2_BN_R4 interleaves four rows
    return (slice(start, min(start + step, m)) for start in range(0, m, step))
