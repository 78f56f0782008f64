"""The model graphs in plain numpy: the formulas of the published models, which tests compare the engine with.

All of it is float64, so that a comparison shows the engine's rounding alone and has the same outcome everywhere. Only
the rotation angles are rounded to float32, because the formulas define them so.

It reads a GGUF file through the `gguf` package, which does not know the types I2_S and IQ*_BN. To check a model of
these types, read the same model made with `linear="F32"`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import gguf

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Arch:
    """What an architecture's name stands for, beyond the metadata: a row for each row of `src/model/arch.rs`."""

    ffn_act: str
    interleaved_rope: bool = False


ARCHS = {
    "bitnet-b1.58": Arch("relu2"),
    "bitnet-25": Arch("relu2"),
    "bitnet": Arch("silu"),
    "llama": Arch("silu", interleaved_rope=True),
}
# Community conversions of BitNet b1.58 2B-4T have the architecture `bitnet`, and 1bitLLM's models by Microsoft's
# converter of 2026 that of 2B-4T; only their shape tells.
VOCABULARY_1BITLLM = 32002
SHAPE_KEYS = ("block_count", "embedding_length", "feed_forward_length", "vocab_size")
SHAPE_2B_4T = [30, 2560, 6912, 128256]


@dataclass(frozen=True)
class Reference:
    """A model whose tensors are all dequantized."""

    config: dict[str, Any]
    weights: dict[str, Floats]

    @classmethod
    def open(cls, path: Path) -> Reference:
        """Read and dequantize everything."""
        reader = gguf.GGUFReader(path)
        config = {key: field.contents() for key, field in reader.fields.items()}
        # gguf dequantizes to float32, as the engine does; only sums are wider here.
        weights = {t.name: gguf.quants.dequantize(t.data, t.tensor_type).astype(np.float64) for t in reader.tensors}
        return cls(config, weights)

    @property
    def arch(self) -> str:
        """The name of the architecture, which is also the prefix of its metadata keys."""
        return str(self.config["general.architecture"])

    def hparam(self, key: str, default: Any = None) -> Any:
        """The value of a metadata key with the architecture's prefix."""
        return self.config.get(f"{self.arch}.{key}", default)

    @property
    def ffn_act(self) -> str:
        """The feed-forward activation: as the file states, or else by architecture and shape."""
        stated: str | None = self.hparam("hidden_activation")
        if stated is not None:
            return stated
        if self.arch == "bitnet" and [self.hparam(key) for key in SHAPE_KEYS] == SHAPE_2B_4T:
            return "relu2"
        if self.arch.startswith("bitnet-") and len(self.weights["token_embd.weight"]) == VOCABULARY_1BITLLM:
            return "silu"
        return ARCHS[self.arch].ffn_act

    def logits(self, ids: list[int], act_quant: str) -> Floats:
        """Compute the logits of every position, `[n, vocab]`; `act_quant` is "int8" or "none"."""
        embedding = self.weights["token_embd.weight"]
        x = embedding[ids]
        for i in range(self.hparam("block_count")):
            x = self.layer(x, f"blk.{i}.", act_quant)
        x = self.norm(x, "output_norm.weight")
        logits: Floats = x @ self.weights.get("output.weight", embedding).T
        return logits

    def layer(self, x: Floats, prefix: str, act_quant: str) -> Floats:
        """Add the attention and the feed-forward network, each with its norm before it, to the residual stream."""

        def linear(y: Floats, name: str) -> Floats:
            weight = self.weights[f"{prefix}{name}.weight"]
            return bit_linear(y, weight) if act_quant == "int8" else y @ weight.T

        def sub_norm(y: Floats, name: str) -> Floats:
            name = f"{prefix}{name}.weight"
            return self.norm(y, name) if name in self.weights else y

        a = self.norm(x, f"{prefix}attn_norm.weight")
        o = self.attention(linear(a, "attn_q"), linear(a, "attn_k"), linear(a, "attn_v"))
        x = x + linear(sub_norm(o, "attn_sub_norm"), "attn_output")

        f = self.norm(x, f"{prefix}ffn_norm.weight")
        act = relu2 if self.ffn_act == "relu2" else silu
        h = act(linear(f, "ffn_gate")) * linear(f, "ffn_up")
        return x + linear(sub_norm(h, "ffn_sub_norm"), "ffn_down")

    def norm(self, x: Floats, name: str) -> Floats:
        """RMSNorm (arXiv 1910.07467): normalise, then multiply by gamma."""
        mean = np.mean(x * x, axis=-1, keepdims=True)
        y: Floats = x / np.sqrt(mean + self.hparam("attention.layer_norm_rms_epsilon")) * self.weights[name]
        return y

    def attention(self, q: Floats, k: Floats, v: Floats) -> Floats:
        """Causal attention over the whole sequence; query head h reads key/value head h // (heads / kv_heads)."""
        n, heads = len(q), self.hparam("attention.head_count")
        kv_heads = self.hparam("attention.head_count_kv", heads)
        hd = self.hparam("attention.key_length", self.hparam("embedding_length") // heads)
        q, k = self.rope(q.reshape(n, heads, hd)), self.rope(k.reshape(n, kv_heads, hd))
        k, v = (np.repeat(a.reshape(n, kv_heads, hd), heads // kv_heads, axis=1) for a in (k, v))
        scores = np.einsum("ihd,jhd->hij", q, k) / np.sqrt(hd)
        scores[:, np.triu(np.ones((n, n), bool), 1)] = -np.inf
        p = np.exp(scores - scores.max(axis=-1, keepdims=True))
        p /= p.sum(axis=-1, keepdims=True)
        out: Floats = np.einsum("hij,jhd->ihd", p, v).reshape(n, heads * hd)
        return out

    def rope(self, x: Floats) -> Floats:
        """Rotate pairs of channels of `[position, head, channel]`: adjacent ones, or ones half a head apart."""
        n_rot = self.hparam("rope.dimension_count", x.shape[-1])
        half = n_rot // 2
        exponent = (np.arange(half) * 2 / n_rot).astype(np.float32).astype(np.float64)
        inverse = np.float32(1) / (self.hparam("rope.freq_base", 10000.0) ** exponent).astype(np.float32)
        angle = (np.arange(len(x), dtype=np.float32)[:, None, None] * inverse).astype(np.float64)
        cos, sin = np.cos(angle), np.sin(angle)
        out = x.copy()
        if ARCHS[self.arch].interleaved_rope:
            first, second = slice(0, n_rot, 2), slice(1, n_rot, 2)
        else:
            first, second = slice(0, half), slice(half, n_rot)
        out[..., first] = x[..., first] * cos - x[..., second] * sin
        out[..., second] = x[..., first] * sin + x[..., second] * cos
        return out


def bit_linear(x: Floats, weight: Floats) -> Floats:
    """Ternary weights times activations rounded to int8 by an absmax scale per token (BitNet b1.58); exact sums."""
    scale = np.abs(weight).max(axis=1)  # per row: for one scale per tensor the same number in each row
    s = 127 / np.maximum(np.abs(x).max(axis=-1, keepdims=True), 1e-5)
    q = np.round(x * s).clip(-127, 127)  # numpy rounds halves to even
    y: Floats = (q @ np.sign(weight).T) * (scale / s)
    return y


def relu2(x: Floats) -> Floats:
    """relu(x) squared."""
    return np.maximum(x, 0) ** 2


def silu(x: Floats) -> Floats:
    """x * sigmoid(x)."""
    y: Floats = x / (1 + np.exp(-x))
    return y
