"""The architecture of BitNet b1.58 2B-4T in PyTorch, small: `bitnet-b1.58` in GGUF files.

Projections use ternary weights (one absmean scale per tensor) and int8 activations (one absmax scale per token), with
straight-through gradients (arXiv 2402.17764). In float32 without autocast it computes what the engine computes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class Config:
    """Shape of a model. Width and ffn must be multiples of 128, the block size of I2_S."""

    vocab: int
    width: int = 256
    ffn: int = 512
    layers: int = 5
    heads: int = 4
    kv_heads: int = 2
    context: int = 384
    rope_theta: float = 10000.0
    eps: float = 1e-5

    @property
    def head_dim(self) -> int:
        """Channels per head."""
        return self.width // self.heads


def ternary(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return trits and their scale: weights divided by their mean magnitude, rounded, clipped to -1, 0, 1."""
    scale = weight.float().abs().mean().clamp(min=1e-5)
    return (weight / scale).round().clamp(-1, 1), scale


class RoundActivations(torch.autograd.Function):
    """Quantize each token's vector to integers, 127 steps up to its largest magnitude; straight-through gradient."""

    @staticmethod
    def forward(ctx, x: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        s = 127.0 / x.abs().amax(-1, keepdim=True).clamp(min=1e-5)
        ctx.save_for_backward(s)
        return (x * s).round(), s

    @staticmethod
    def backward(ctx, grad: Tensor, _: Tensor) -> Tensor:  # type: ignore[override]
        (s,) = ctx.saved_tensors
        return grad * s


class RoundWeights(torch.autograd.Function):
    """Quantize weights to trits; straight-through gradient of trits × scale with respect to the weight."""

    @staticmethod
    def forward(ctx, weight: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        trits, scale = ternary(weight)
        ctx.save_for_backward(scale)
        return trits, scale

    @staticmethod
    def backward(ctx, grad: Tensor, _: Tensor) -> Tensor:  # type: ignore[override]
        (scale,) = ctx.saved_tensors
        return grad / scale


class BitLinear(nn.Linear):
    """A projection with int8 activations and ternary weights: a sum of integers, times both scales."""

    def forward(self, x: tuple[Tensor, Tensor]) -> Tensor:
        """Project `x`, a result of `RoundActivations`, which several projections can share."""
        q, s = x
        trits, scale = RoundWeights.apply(self.weight)
        return F.linear(q, trits) * (scale / s)


class RMSNorm(nn.Module):
    """Divide by the root mean square, then multiply by gamma (arXiv 1910.07467)."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        x = x.float()
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.eps) * self.weight


class Layer(nn.Module):
    """Attention and feed-forward network. Each has a norm in front and a sub-norm before its last projection."""

    def __init__(self, c: Config) -> None:
        super().__init__()
        self.c = c
        kv = c.kv_heads * c.head_dim
        self.attn_norm, self.attn_sub_norm = RMSNorm(c.width, c.eps), RMSNorm(c.width, c.eps)
        self.ffn_norm, self.ffn_sub_norm = RMSNorm(c.width, c.eps), RMSNorm(c.ffn, c.eps)
        self.attn_q, self.attn_output = BitLinear(c.width, c.width, False), BitLinear(c.width, c.width, False)
        self.attn_k, self.attn_v = BitLinear(c.width, kv, False), BitLinear(c.width, kv, False)
        self.ffn_gate, self.ffn_up = BitLinear(c.width, c.ffn, False), BitLinear(c.width, c.ffn, False)
        self.ffn_down = BitLinear(c.ffn, c.width, False)

    def forward(self, x: Tensor, rope: tuple[Tensor, Tensor], mask: Tensor) -> Tensor:
        """Apply the layer. `mask` is True where a query may attend to a key."""
        c, (rows, n, _) = self.c, x.shape
        a = RoundActivations.apply(self.attn_norm(x))
        q = rotate(self.attn_q(a).view(rows, n, c.heads, c.head_dim).transpose(1, 2), rope)
        k = rotate(self.attn_k(a).view(rows, n, c.kv_heads, c.head_dim).transpose(1, 2), rope)
        v = self.attn_v(a).view(rows, n, c.kv_heads, c.head_dim).transpose(1, 2).to(q.dtype)
        k, v = (t.repeat_interleave(c.heads // c.kv_heads, dim=1) for t in (k, v))
        scores = (q @ k.transpose(2, 3)).float() / c.head_dim**0.5
        o = scores.masked_fill(~mask, float("-inf")).softmax(-1).to(v.dtype) @ v
        o = o.transpose(1, 2).reshape(rows, n, c.width)
        x = x + self.attn_output(RoundActivations.apply(self.attn_sub_norm(o)))

        f = RoundActivations.apply(self.ffn_norm(x))
        h = F.relu(self.ffn_gate(f)).square() * self.ffn_up(f)
        return x + self.ffn_down(RoundActivations.apply(self.ffn_sub_norm(h)))


def rotate(x: Tensor, rope: tuple[Tensor, Tensor]) -> Tensor:
    """Apply the rotary embedding; channel i is paired with channel i + half (NeoX)."""
    cos, sin = rope
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


class BitNet(nn.Module):
    """Embedding, layers, final norm, and the embedding again as the output head."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = c = config
        self.token_embd = nn.Embedding(c.vocab, c.width)
        self.blk = nn.ModuleList(Layer(c) for _ in range(c.layers))
        self.output_norm = RMSNorm(c.width, c.eps)
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2:
                nn.init.normal_(parameter, std=1.0 / parameter.shape[1] ** 0.5 if "blk" in name else 0.05)
        inverse = 1.0 / c.rope_theta ** (torch.arange(0, c.head_dim, 2).float() / c.head_dim)
        angle = torch.arange(c.context).float()[:, None] * inverse
        self.register_buffer("cos", angle.cos(), persistent=False)
        self.register_buffer("sin", angle.sin(), persistent=False)

    def embedding(self) -> Tensor:
        """Return the embedding rounded to float16, as the file stores it; straight-through gradient."""
        weight = self.token_embd.weight
        return weight + (weight.half().float() - weight).detach()

    def forward(self, ids: Tensor, mask: Tensor | None = None, wanted: Tensor | None = None) -> Tensor:
        """Return the logits after every id `[rows, n]`, or only at the positions that `wanted` marks.

        `mask` is True where a query may attend to a key. The default is a causal mask.
        """
        if mask is None:
            mask = torch.ones(ids.shape[1], ids.shape[1], dtype=torch.bool, device=ids.device).tril()
        embedding = self.embedding()
        x = F.embedding(ids, embedding)
        rope = self.cos[: ids.shape[1]], self.sin[: ids.shape[1]]
        for layer in self.blk:
            x = layer(x, rope, mask)
        x = self.output_norm(x if wanted is None else x[wanted])
        return F.linear(x, embedding)
