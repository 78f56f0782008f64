"""The model graphs in plain numpy: the formulas of the published models, which tests compare the engine with.

All of it is float64, so that a comparison shows the engine's rounding alone and has the same outcome everywhere. Only
the rotation angles are rounded to float32, because the formulas define them so.

`reference_reader` reads the GGUF file; it does not know the types I2_S and IQ*_BN. To check a model of these types,
read the same model made with `linear="F32"`. `reference_delta_net` has what only `qwen35` computes.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from reference_delta_net import Rotation, causal_convolution, gated_delta_net, sigmoid, softplus
from reference_reader import read

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Arch:
    """What an architecture's name stands for, beyond the metadata: a row for each row of `src/model/arch.rs`."""

    ffn_act: str = "silu"
    interleaved_rope: bool = False
    norm_after_rope: bool = False  # where there are norms of queries and keys
    is_hybrid: bool = False  # most layers are gated delta nets; the attention of the others has an output gate


ARCHS = {
    "bitnet-b1.58": Arch("relu2"),
    "bitnet-25": Arch("relu2"),
    "bitnet": Arch(),
    "llama": Arch(interleaved_rope=True),
    "qwen2": Arch(),
    "qwen3": Arch(),
    "minicpm": Arch(interleaved_rope=True),
    "gemma3": Arch("gelu_tanh"),
    "hunyuan-dense": Arch(norm_after_rope=True),
    "qwen35": Arch(is_hybrid=True),
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
        config, weights = read(path)
        # Weights are dequantized to float32, as by the engine; only sums are wider here.
        return cls(config, {name: weight.astype(np.float64) for name, weight in weights.items()})

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
        states = self.rotated(self.states(ids, act_quant), "output.weight")
        logits: Floats = states @ self.weights.get("output.weight", embedding).T
        if self.arch == "minicpm":
            logits = logits / self.hparam("logit_scale", self.hparam("embedding_length") / 256)
        cap = self.hparam("final_logit_softcapping")
        return cap * np.tanh(logits / cap) if cap else logits

    def states(self, ids: list[int], act_quant: str) -> Floats:
        """Compute the states behind the output norm, `[n, width]`."""
        x = self.rotation.of_rows(self.weights["token_embd.weight"][ids], "token_embd.weight")
        if self.arch == "gemma3":
            x = x * np.sqrt(self.hparam("embedding_length"))
        if self.arch == "minicpm":
            x = x * self.hparam("embedding_scale", 12.0)
        for i in range(self.hparam("block_count")):
            x = self.layer(x, i, act_quant)
        return self.norm(x, "output_norm.weight")

    def layer(self, x: Floats, i: int, act_quant: str) -> Floats:
        """Add the attention and the feed-forward network, each with its norms, to the residual stream."""
        prefix = f"blk.{i}."

        def norm_if(y: Floats, name: str) -> Floats:
            name = f"{prefix}{name}.weight"
            return self.norm(y, name) if name in self.weights else y

        def linear(y: Floats, name: str) -> Floats:
            weight, y = self.weights[f"{prefix}{name}.weight"], norm_if(y, f"{name}_norm_in")
            y = self.rotated(y, f"{prefix}{name}.weight")
            y = bit_linear(y, weight) if act_quant == "int8" else y @ weight.T
            return y + self.weights.get(f"{prefix}{name}.bias", 0.0)

        def heads(y: Floats, name: str) -> Floats:
            y = y.reshape(len(y), -1, self.head_dim)
            return norm_if(self.rope(y, i), name) if arch.norm_after_rope else self.rope(norm_if(y, name), i)

        def attention(a: Floats) -> Floats:
            q, gate = linear(a, "attn_q"), None
            if arch.is_hybrid:  # each head's query is followed by its gate
                q, gate = np.split(q.reshape(len(a), self.heads, -1), 2, axis=2)
            q, k = heads(q, "attn_q_norm"), heads(linear(a, "attn_k"), "attn_k_norm")
            o = self.attention(q, k, linear(a, "attn_v").reshape(k.shape), self.window(i))
            return o if gate is None else o * sigmoid(gate.reshape(o.shape))

        def delta_net(a: Floats) -> Floats:
            qkv = silu(causal_convolution(linear(a, "attn_qkv"), self.weights[f"{prefix}ssm_conv1d.weight"]))
            dt = linear(a, "ssm_alpha") + self.weights[f"{prefix}ssm_dt.bias"]
            decay = np.exp(self.weights[f"{prefix}ssm_a"] * softplus(dt))
            beta = sigmoid(linear(a, "ssm_beta"))
            o = gated_delta_net(qkv, decay, beta, self.hparam("ssm.group_count"), self.hparam("ssm.state_size"))
            return norm_if(o, "ssm_norm").reshape(len(a), -1) * silu(linear(a, "attn_gate"))

        arch, depth = ARCHS[self.arch], self.hparam("block_count")
        scale = self.hparam("residual_scale", 1.4 / np.sqrt(depth)) if self.arch == "minicpm" else 1.0
        a = self.norm(x, f"{prefix}attn_norm.weight")
        if self.is_recurrent(i):
            branch = linear(delta_net(a), "ssm_out")
        else:
            branch = linear(norm_if(attention(a), "attn_sub_norm"), "attn_output")
        # What others apply to the branch is the norm of the next one here.
        x = x + (branch if arch.is_hybrid else norm_if(branch, "post_attention_norm")) * scale

        f = self.norm(x, prefix + ("post_attention_norm.weight" if arch.is_hybrid else "ffn_norm.weight"))
        h = ACTS[self.ffn_act](linear(f, "ffn_gate")) * linear(f, "ffn_up")
        return x + norm_if(linear(norm_if(h, "ffn_sub_norm"), "ffn_down"), "post_ffw_norm") * scale

    @functools.cached_property
    def rotation(self) -> Rotation:
        """How rotated weights want their inputs."""
        return Rotation(self.config)

    def rotated(self, x: Floats, name: str) -> Floats:
        """Return what the weight of this name multiplies, in a file with rotated weights."""
        return self.rotation.of_input(x, name, self.hparam("ssm.group_count"), self.hparam("ssm.time_step_rank"))

    def is_recurrent(self, i: int) -> bool:
        """Whether a layer is a gated delta net."""
        if not ARCHS[self.arch].is_hybrid:
            return False
        stated = self.hparam("attention.recurrent_layers")
        return bool(stated[i]) if stated else (i + 1) % self.hparam("full_attention_interval", 4) != 0

    @property
    def head_dim(self) -> int:
        """Channels of a head."""
        return int(self.hparam("attention.key_length", self.hparam("embedding_length") // self.heads))

    @property
    def heads(self) -> int:
        """Query heads."""
        return int(self.hparam("attention.head_count"))

    def window(self, i: int) -> int:
        """How many positions a layer sees; 0 for all."""
        window, pattern = self.hparam("attention.sliding_window", 0), self.hparam("attention.sliding_window_pattern", 6)
        is_local = pattern[i] if isinstance(pattern, list) else not pattern or (i + 1) % pattern != 0
        return int(window) if is_local else 0

    def norm(self, x: Floats, name: str) -> Floats:
        """RMSNorm (arXiv 1910.07467): normalise, then multiply by gamma."""
        mean = np.mean(x * x, axis=-1, keepdims=True)
        y: Floats = x / np.sqrt(mean + self.hparam("attention.layer_norm_rms_epsilon")) * self.weights[name]
        return y

    def attention(self, q: Floats, k: Floats, v: Floats, window: int) -> Floats:
        """Causal attention of `[position, head, channel]`; query head h reads kv head h // (heads / kv_heads)."""
        n = len(q)
        k, v = (np.repeat(a, self.heads // k.shape[1], axis=1) for a in (k, v))
        by_width = self.arch == "gemma3" and self.hparam("block_count") == 62
        width = self.hparam("embedding_length") // self.heads if by_width else self.head_dim
        scores = np.einsum("ihd,jhd->hij", q, k) / np.sqrt(width)
        age = np.arange(n)[:, None] - np.arange(n)
        scores[:, (age < 0) | ((age >= window) if window else False)] = -np.inf
        p = np.exp(scores - scores.max(axis=-1, keepdims=True))
        p /= p.sum(axis=-1, keepdims=True)
        out: Floats = np.einsum("hij,jhd->ihd", p, v).reshape(n, -1)
        return out

    def rope(self, x: Floats, i: int) -> Floats:
        """Rotate pairs of channels of `[position, head, channel]`: adjacent ones, or ones half a head apart."""
        n_rot = self.hparam("rope.dimension_count", x.shape[-1])
        half = n_rot // 2
        frequencies, magnitude = self.frequencies(n_rot, bool(self.window(i)))
        angle = (np.arange(len(x), dtype=np.float32)[:, None, None] * frequencies).astype(np.float64)
        cos, sin = magnitude * np.cos(angle), magnitude * np.sin(angle)
        out = x.copy()
        if ARCHS[self.arch].interleaved_rope:
            first, second = slice(0, n_rot, 2), slice(1, n_rot, 2)
        else:
            first, second = slice(0, half), slice(half, n_rot)
        out[..., first] = x[..., first] * cos - x[..., second] * sin
        out[..., second] = x[..., first] * sin + x[..., second] * cos
        return out

    def frequencies(self, n: int, is_local: bool) -> tuple[npt.NDArray[np.float32], float]:
        """Frequencies of the rotation, and what multiplies cosines and sines."""
        base = self.hparam("rope.freq_base_swa" if is_local else "rope.freq_base", 10000.0)
        kind = None if is_local else self.hparam("rope.scaling.type")
        exponent = (np.arange(n // 2) * 2 / n).astype(np.float32).astype(np.float64)
        plain = np.float32(1) / (base**exponent).astype(np.float32)
        factor, magnitude = self.hparam("rope.scaling.factor", 1.0), 1.0
        context = self.hparam("context_length")
        original = self.hparam("rope.scaling.original_context_length", context)
        if kind == "linear":
            plain = plain / np.float32(factor)
        if kind == "yarn":  # arXiv 2309.00071, section 3.2
            fast, slow = self.hparam("rope.scaling.yarn_beta_fast", 32), self.hparam("rope.scaling.yarn_beta_slow", 1)
            low, high = (n * np.log(original / (2 * np.pi * r)) / (2 * np.log(base)) for r in (fast, slow))
            low, high = max(0, np.floor(low)), min(n - 1, np.ceil(high))
            ramp = np.clip((np.arange(n // 2) - low) / max(0.001, high - low), 0, 1)
            plain = (plain * (1 - ramp + ramp / factor)).astype(np.float32)
            magnitude = self.hparam("rope.scaling.yarn_attn_factor", 0.1 * np.log(factor) + 1)
            magnitude *= self.hparam("rope.scaling.attn_factor", 1.0)
        if kind == "longrope":  # arXiv 2402.13753; the engine's default n_ctx decides between the tables
            name = "long" if min(context, 4096) > original else "short"
            plain = (plain / self.weights[f"rope_factors_{name}.weight"]).astype(np.float32)
            magnitude = np.sqrt(1 + np.log(max(1, context / original)) / np.log(original))
            magnitude = self.hparam("rope.scaling.attn_factor", magnitude)
        return plain, float(magnitude)


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


def gelu_tanh(x: Floats) -> Floats:
    """The approximation of x * Phi(x) by a hyperbolic tangent (arXiv 1606.08415)."""
    return x / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


ACTS = {"relu2": relu2, "silu": silu, "gelu_tanh": gelu_tanh}
