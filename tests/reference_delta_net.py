"""The parts of the architecture `qwen35` in plain numpy: the gated delta net (arXiv 2412.06464), and rotated weights.

The net runs token by token, as its recurrence is defined; published programs compute blocks of tokens at once.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def gated_delta_net(qkv: Floats, decay: Floats, beta: Floats, key_heads: int, dk: int) -> Floats:
    """Return what the memory answers each query, `[token, value head, channel]`.

    `qkv` is the output of the convolution, `[token, channel]`: queries and keys of the key heads, `dk` channels each,
    then values. `decay` and `beta` are `[token, value head]`. Value head h uses key head h % key_heads.
    """
    n, value_heads = beta.shape
    q, k, v = np.split(qkv, [key_heads * dk, 2 * key_heads * dk], axis=1)
    q, k = (unit(a.reshape(n, key_heads, dk)) for a in (q, k))
    q, k = (np.tile(a, (1, value_heads // key_heads, 1)) for a in (q / np.sqrt(dk), k))
    v = v.reshape(n, value_heads, -1)
    memory = np.zeros((value_heads, dk, v.shape[2]))
    answers = np.empty_like(v)
    for t in range(n):
        memory = memory * decay[t, :, None, None]
        known = np.einsum("hkv,hk->hv", memory, k[t])
        memory = memory + np.einsum("hk,hv->hkv", k[t], beta[t, :, None] * (v[t] - known))
        answers[t] = np.einsum("hkv,hk->hv", memory, q[t])
    return answers


def unit(x: Floats) -> Floats:
    """Divide vectors by their lengths."""
    y: Floats = x / np.sqrt(np.sum(x * x, axis=-1, keepdims=True) + 1e-6)
    return y


def causal_convolution(x: Floats, taps: Floats) -> Floats:
    """Convolve each channel of `[token, channel]` with its own taps, `[channel, tap]`; the last is the token's own."""
    n, width = len(x), taps.shape[1]
    before = np.concatenate([np.zeros((width - 1, x.shape[1])), x])
    y: Floats = sum(before[j : j + n] * taps[:, j] for j in range(width)) + np.zeros_like(x)
    return y


def sigmoid(x: Floats) -> Floats:
    """1 / (1 + exp(-x))."""
    y: Floats = 1 / (1 + np.exp(-x))
    return y


def softplus(x: Floats) -> Floats:
    """log(1 + exp(x))."""
    return np.logaddexp(0, x)


class Rotation:
    """How a file's rotated weights want their inputs: signs, then a Walsh-Hadamard transform of each block."""

    def __init__(self, config: dict[str, Any]) -> None:
        """Read the metadata keys `prism.hadamard.*`; a file without them has no rotated weights."""

        def key(name: str, default: Any) -> Any:
            return config.get(f"prism.hadamard.{name}", default)

        self.names = set(key("weight_names", []))
        self.inverse_names = set(key("inverse_weight_names", []))
        self.is_grouped = bool(key("gdn_v_grouped", False))
        widths, signs = key("sign_widths", []), np.array(key("sign_values", []), np.float64)
        self.signs = dict(zip(widths, np.split(signs, np.cumsum(widths)[:-1]), strict=True)) if widths else {}
        self.matrix = walsh_hadamard(key("block_size", 1))

    def of_input(self, x: Floats, name: str, key_heads: int, value_heads: int) -> Floats:
        """Return what the weight of this name multiplies."""
        if name not in self.names:
            return x
        if self.is_grouped and name.endswith("ssm_out.weight"):  # heads from [repeat, key head] to [key head, repeat]
            x = x.reshape(len(x), value_heads // key_heads, key_heads, -1).swapaxes(1, 2).reshape(len(x), -1)
        return self.transform(x * self.signs.get(x.shape[1], 1.0))

    def of_rows(self, rows: Floats, name: str) -> Floats:
        """Return looked-up rows of a rotated weight as they were before it was rotated."""
        if name not in self.inverse_names:
            return rows
        return self.transform(rows) * self.signs.get(rows.shape[1], 1.0)

    def transform(self, x: Floats) -> Floats:
        """Transform each block of columns."""
        y: Floats = (x.reshape(len(x), -1, len(self.matrix)) @ self.matrix).reshape(x.shape)
        return y


def walsh_hadamard(size: int) -> Floats:
    """The orthonormal matrix of Sylvester's construction; it is its own inverse."""
    matrix = np.ones((1, 1))
    while len(matrix) < size:
        matrix = np.kron([[1, 1], [1, -1]], matrix)
    return matrix / np.sqrt(size)
