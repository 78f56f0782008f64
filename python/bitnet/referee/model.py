"""A GGUF file, and the forward pass of its model as docs/numerics.md specifies it."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from .arithmetic import Array, Floats, cos_sin, dot_in_lanes, exp, fma


class RefereeError(ValueError):
    """The referee cannot judge this receipt or model. The message says what was found and what to do."""


_ONE, _UP = np.float32(1), (0, 2, 4, 6)
_I2_S, _ROW_HEADS = 36, {134: 2, 135: 4}  # rows of IQ1_BN and IQ2_BN begin with their scale, of so many bytes
_SCALARS = ["<B", "<b", "<H", "<h", "<I", "<i", "<f", "<?", "", "", "<Q", "<q", "<d"]
_STRING, _ARRAY = 8, 9
_BITNET = ("bitnet", "bitnet-b1.58", "bitnet-25")
_NEEDED = """block_count embedding_length feed_forward_length context_length attention.head_count
attention.layer_norm_rms_epsilon"""
_KEYS = """vocab_size attention.head_count_kv attention.key_length attention.value_length rope.dimension_count
rope.freq_base rope.scaling.type rope.scaling.factor rope.scaling.original_context_length hidden_activation"""
_PROJECTIONS = "attn_q attn_k attn_v attn_output ffn_gate ffn_up ffn_down"
_VALUES_AT_ONCE = 1 << 19


class Gguf:
    """The metadata and the tensors of a GGUF file. Raises RefereeError where it is damaged, OSError where it is not."""

    def __init__(self, path: Path) -> None:
        self.path, self._at = path, 0
        self.data: Array = np.memmap(path, np.uint8, "r") if path.stat().st_size else np.zeros(0, np.uint8)
        self.metadata: dict[str, Any] = {}
        self.raw: dict[str, bytes] = {}  # key, type and value of each entry as the file has them
        self.tensors: dict[str, tuple[list[int], int, int]] = {}  # shape with the rows first, type, offset
        try:
            self._parse()
        except (struct.error, IndexError, TypeError, ArithmeticError) as error:
            raise self.refusal(f"its header is damaged ({error}); download it again") from error

    def refusal(self, why: str) -> RefereeError:
        """An error about this file."""
        return RefereeError(f"{self.path}: {why}")

    def _take(self, size: int) -> bytes:
        self._at += size
        if self._at > len(self.data):
            raise struct.error(f"{size} bytes reach beyond its end")
        return self.data[self._at - size : self._at].tobytes()

    def _value(self, kind: int) -> Any:
        if kind == _STRING:
            return self._take(self._value(10)).decode(errors="surrogateescape")
        if kind != _ARRAY:
            form = _SCALARS[kind]
            return struct.unpack(form, self._take(struct.calcsize(form)))[0]
        kind, count = self._value(4), self._value(10)
        if kind == _STRING:
            return [self._value(kind) for _ in range(count)]
        return np.frombuffer(self._take(count * struct.calcsize(_SCALARS[kind])), _SCALARS[kind])

    def _parse(self) -> None:
        if self._take(4) != b"GGUF" or self._value(4) not in (2, 3):
            raise self.refusal("not a GGUF file of version 2 or 3; the referee reads no other format")
        tensors, entries = self._value(10), self._value(10)
        for _ in range(entries):
            start, key = self._at, self._value(_STRING)
            self.metadata[key] = self._value(self._value(4))
            self.raw[key] = self.data[start : self._at].tobytes()
        for _ in range(tensors):
            name, shape = self._value(_STRING), [self._value(10) for _ in range(self._value(4))]
            self.tensors[name] = shape[::-1], self._value(4), self._value(10)
        self._start = self._at + -self._at % self.metadata.get("general.alignment", 32)

    def tensor(self, name: str, *shape: int) -> Floats:
        """A tensor of this shape (rows first), dequantized to binary32."""
        found, kind, offset = self.tensors.get(name, ([], 0, 0))
        if list(shape) != found:
            raise self.refusal(f"tensor '{name}' has the shape {found}, expected {list(shape)}; the file is damaged")
        if kind not in _DECODERS:
            raise self.refusal(f"tensor '{name}' has the type {kind}, which the referee does not decode")
        (elements, size, decode), count, rows = _DECODERS[kind], int(np.prod(shape)), int(np.prod(shape[:-1]))
        head, tail = _ROW_HEADS.get(kind, 0), 4 if kind == _I2_S else 0
        length = rows * head + count // elements * size
        data = self.data[self._start + offset :][: length + tail]
        if (shape[-1] % elements and not tail) or count % elements or len(data) < length + tail:
            raise self.refusal(f"tensor '{name}' does not fit its type {kind} or the file; download it again")
        if tail:
            return np.reshape(decode(data[:length].reshape(-1, size)) * data[length:].view("<f4"), shape)
        by_row = data.reshape(rows, -1)
        values = decode(np.ascontiguousarray(by_row[:, head:]).reshape(-1, size)).reshape(shape)
        return values * by_row[:, :head].copy().view(f"<f{head}").astype(np.float32) if head else values


def _codes(data: Array, shifts: tuple[int, ...]) -> Array:
    """Two-bit codes [n, 4, m] of bytes [n, m], those of each shift together."""
    return data[:, None, :] >> np.array(shifts, np.uint8)[:, None] & 3


def _digits(data: Array, powers: list[int]) -> Array:
    """Digits [n, p, m] of base-3 bytes [n, m], those of each power of 3 together."""
    digits: Array = (data[:, None, :].astype(np.uint32) * np.array(powers, np.uint32)[:, None] & 255) * 3 >> 8
    return digits


def _trits(codes: Array) -> Floats:
    if (codes == 3).any():
        raise RefereeError("a tensor of the model holds the code 3, which is no trit; the file is damaged")
    return codes.astype(np.float32) - _ONE


def _half(data: Array) -> Floats:
    return np.ascontiguousarray(data).view("<f2").astype(np.float32)


def _q4_k(b: Array) -> Floats:
    s, codes = b[:, 4:16], b[:, 16:].reshape(-1, 4, 1, 32)
    scales = np.concatenate([s[:, :4] & 63, s[:, 8:] & 15 | s[:, :4] >> 6 << 4], axis=1).astype(np.float32)
    least = np.concatenate([s[:, 4:8] & 63, s[:, 8:] >> 4 | s[:, 4:8] >> 6 << 4], axis=1).astype(np.float32)
    q = np.concatenate([codes & 15, codes >> 4], axis=2).reshape(-1, 8, 32).astype(np.float32)
    return (_half(b[:, :2]) * scales)[..., None] * q - (_half(b[:, 2:4]) * least)[..., None]


def _q6_k(b: Array) -> Floats:
    low, high = b[:, :128].reshape(-1, 2, 1, 64), _codes(b[:, 128:192].reshape(-1, 32), _UP)
    q = np.concatenate([low & 15, low >> 4], axis=2).reshape(-1, 4, 32) | high << 4
    scales = _half(b[:, 208:]) * b[:, 192:208].view(np.int8).astype(np.float32)
    values: Floats = scales[..., None] * (q.astype(np.float32) - np.float32(32)).reshape(-1, 16, 16)
    return values


def _tq1_0(b: Array) -> Floats:
    parts = (b[:, :32], 5), (b[:, 32:48], 5), (b[:, 48:52], 4)
    digits = [_digits(part, [1, 3, 9, 27, 81][:n]).reshape(len(b), -1) for part, n in parts]
    return _half(b[:, 52:]) * _trits(np.concatenate(digits, axis=1))


def _iq1_bn(b: Array) -> Floats:
    five = _digits(b[:, :12], [81, 27, 9, 3, 1]).transpose(0, 2, 1).reshape(-1, 4, 15)
    return _trits(np.concatenate([five, _digits(b[:, 12:], [81, 27, 9, 3]).reshape(-1, 4, 1)], axis=2))


_DECODERS: dict[int, tuple[int, int, Callable[[Array], Floats]]] = {
    0: (1, 4, lambda b: b.view("<f4").astype(np.float32)),
    1: (1, 2, _half),
    8: (32, 34, lambda b: _half(b[:, :2]) * b[:, 2:].view(np.int8).astype(np.float32)),  # Q8_0
    12: (256, 144, _q4_k),
    14: (256, 210, _q6_k),
    30: (1, 2, lambda b: (b.view("<u2").astype(np.uint32) << 16).view(np.float32)),  # BF16
    34: (256, 54, _tq1_0),
    35: (256, 66, lambda b: _half(b[:, 64:]) * _trits(_codes(b[:, :64].reshape(-1, 32), _UP)).reshape(-1, 256)),
    _I2_S: (128, 32, lambda b: _trits(_codes(b, (6, 4, 2, 0)))),  # blocks run over the ends of rows
    134: (64, 13, _iq1_bn),
    135: (64, 16, lambda b: _trits(_codes(b, _UP))),  # IQ2_BN
}
"""Type id -> elements and bytes of a block, and its decoder."""


class Model:
    """A model of one of the architectures bitnet, bitnet-b1.58, bitnet-25 and llama, with the logits of `numerics = 1`.

    >>> from bitnet import models, referee
    >>> referee.Model(models.inside()).logits([1, 2, 3]).shape
    (3, 582)

    The path is that of a GGUF file in one piece. Raises RefereeError if it is damaged or has parts that the referee
    does not compute, and OSError if it cannot be read.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.file = Gguf(Path(path))
        keys, refusal = self.file.metadata, self.file.refusal
        self.arch = str(keys.get("general.architecture"))
        if self.arch not in (*_BITNET, "llama"):
            raise refusal(f"the referee computes {', '.join(_BITNET)} and llama, not the architecture '{self.arch}'")
        own = {key[len(self.arch) + 1 :]: value for key, value in keys.items() if key.startswith(f"{self.arch}.")}
        if missing := [key for key in _NEEDED.split() if key not in own]:
            raise refusal(f"the metadata of '{self.arch}' lacks {', '.join(missing)}; the file is damaged")
        self.layers, self.width, self.ffn, self.context, self.heads, eps = (own[key] for key in _NEEDED.split())
        self.eps, self.base = np.float32(eps), np.float32(own.get("rope.freq_base", 1e4))
        self.kv_heads = own.get("attention.head_count_kv", self.heads)
        self.head_dim = own.get("attention.key_length", self.width // self.heads)
        self.rotated = own.get("rope.dimension_count", self.head_dim)
        self.vocab = own.get("vocab_size", len(keys.get("tokenizer.ggml.tokens", ())))
        scaling, factor = own.get("rope.scaling.type", "linear"), own.get("rope.scaling.factor", 0)
        self.factor = np.float32(1 if scaling == "none" else factor or 1)
        known = {*_NEEDED.split(), *_KEYS.split()}
        unknown = [key for key, value in own.items() if key not in known or isinstance(value, (list, np.ndarray))]
        unknown += [key for key in keys if key.startswith(("prism.", "split."))]
        if scaling not in ("none", "linear") or own.get("attention.value_length", self.head_dim) != self.head_dim:
            unknown += ["rope.scaling.type", "attention.value_length"]
        norms = ["attn_norm", "ffn_norm"] + (["attn_sub_norm", "ffn_sub_norm"] if self.arch in _BITNET else [])
        block = [f"{norm}.weight" for norm in norms]
        block += [f"{name}.{part}" for name in _PROJECTIONS.split() for part in ("weight", "scale", "bias")]
        known = {f"blk.{layer}.{name}" for layer in range(self.layers) for name in block}
        known |= {"token_embd.weight", "output.weight", "output_norm.weight", "rope_freqs.weight"}
        if unknown := unknown + sorted(set(self.file.tensors) - known):
            raise refusal(f"the referee does not know what to do with these keys or tensors: {unknown[:5]}")

    def logits(
        self, ids: list[int], first: int = 0, *, act_quant: str = "int8", ffn_act: str = "silu", kv_type: str = "f16"
    ) -> Floats:
        """The logits after each id from position `first` on: float32, shape [len(ids) - first, vocabulary].

        The settings are those of a receipt: `act_quant` "int8" or "none", `ffn_act` "silu" or "relu2", `kv_type` "f16"
        or "f32". Raises RefereeError for another one, for a projection that is not ternary with one scale, and where
        values are not finite.
        """
        for value, known in (act_quant, ("int8", "none")), (ffn_act, ("silu", "relu2")), (kv_type, ("f16", "f32")):
            if value not in known:
                raise RefereeError(f"the referee computes {' and '.join(known)}, not '{value}'; use bitnet.Engine")
        self._int8, self._f16, self._relu2 = act_quant == "int8", kv_type == "f16", ffn_act == "relu2"
        with np.errstate(all="ignore"):
            x = self.file.tensor("token_embd.weight", self.vocab, self.width)[ids]
            rotation = self._rotation(len(ids))
            for layer in range(self.layers):
                x = x + self._attention(f"blk.{layer}.", x, rotation)
                x = x + self._feed_forward(f"blk.{layer}.", x)
            head = "output.weight" if "output.weight" in self.file.tensors else "token_embd.weight"
            logits = _dense(self._norm("output_norm", x[first:]), self.file.tensor(head, self.vocab, self.width))
        if not (np.isfinite(x).all() and np.isfinite(logits).all()):
            raise self.file.refusal("the model gives values that are not finite; its weights are out of range")
        return logits

    def _attention(self, block: str, x: Floats, rotation: tuple[Floats, Floats]) -> Floats:
        n, a = len(x), self._norm(f"{block}attn_norm", x)
        q, k, v = (
            self._linear(block + name, a, heads * self.head_dim).reshape(n, heads, self.head_dim).swapaxes(0, 1)
            for name, heads in (("attn_q", self.heads), ("attn_k", self.kv_heads), ("attn_v", self.kv_heads))
        )
        q, k = self._rotate(q, rotation), self._rotate(k, rotation)
        if self._f16:
            k, v = (cached.astype(np.float16).astype(np.float32) for cached in (k, v))
        of_head = np.arange(self.heads) // (self.heads // self.kv_heads)
        rows = max(1, _VALUES_AT_ONCE // (self.heads * n))
        parts = [self._attend(q, k[of_head], v[of_head], i, min(n, i + rows)) for i in range(0, n, rows)]
        attended = np.concatenate(parts, axis=1).swapaxes(0, 1).reshape(n, -1)
        if self.arch in _BITNET:
            attended = self._norm(f"{block}attn_sub_norm", attended)
        return self._linear(f"{block}attn_output", attended, self.width)

    def _attend(self, q: Floats, k: Floats, v: Floats, start: int, end: int) -> Floats:
        """The attention of the positions from `start` to before `end`: [heads, end - start, head_dim]."""
        q, k, v = q[:, start:end], k[:, :end], v[:, :end]
        t = np.zeros((self.heads, end - start, end), np.float32)
        for d in range(self.head_dim):
            t = fma(q[:, :, None, d], k[:, None, :, d], t)
        t = t * np.float32(1 / np.sqrt(np.float64(self.head_dim)))
        seen = np.arange(end) <= np.arange(start, end)[:, None]
        p = np.where(seen, exp(t - np.where(seen, t, -np.inf).max(axis=-1, keepdims=True)), np.float32(0))
        o = np.zeros(q.shape, np.float32)
        for j in range(end):
            row = max(0, j - start)  # the first that sees position j
            o[:, row:] = fma(p[:, row:, j, None], v[:, None, j], o[:, row:])
        # `fma(p, 1, lane)` is the rounded sum.
        return o / dot_in_lanes(p, np.ones(end, np.float32))[..., None]

    def _feed_forward(self, block: str, x: Floats) -> Floats:
        f = self._norm(f"{block}ffn_norm", x)
        gate, up = (self._linear(block + name, f, self.ffn) for name in ("ffn_gate", "ffn_up"))
        positive = np.where(gate < 0, np.float32(0), gate)
        h = (positive * positive if self._relu2 else gate / (_ONE + exp(-gate))) * up
        if self.arch in _BITNET:
            h = self._norm(f"{block}ffn_sub_norm", h)
        return self._linear(f"{block}ffn_down", h, self.width)

    def _norm(self, name: str, x: Floats) -> Floats:
        n = x.shape[-1]
        r: Floats = _ONE / np.sqrt(dot_in_lanes(x, x) / np.float32(n) + self.eps)
        return x * r[..., None] * self.file.tensor(f"{name}.weight", n)

    def _linear(self, name: str, x: Floats, rows: int) -> Floats:
        tensors, weights = self.file.tensors, self.file.tensor(f"{name}.weight", rows, x.shape[-1])
        factor = self.file.tensor(f"{name}.scale", 1) if f"{name}.scale" in tensors else np.ones(1, np.float32)
        if self._int8:
            by_row = tensors[f"{name}.weight"][1] in _ROW_HEADS
            scales, trits = np.abs(weights).max(axis=-1 if by_row else None, keepdims=True), np.sign(weights)
            if not np.array_equal(trits * scales, weights) or x.shape[-1] > 1 << 17:
                raise self.file.refusal(f"tensor '{name}.weight' is not ternary with one scale; use bitnet.Engine")
            s = np.float32(127) / np.maximum(np.abs(x).max(axis=-1, keepdims=True), np.float32(1e-5))
            # Every partial sum is a whole number of at most 2^24, so no order of this sum matters.
            y: Floats = np.einsum("tk,rk->tr", np.rint(x * s), trits) * (scales.T * factor / s)
        else:
            y = _dense(x, weights) * factor
        if f"{name}.bias" in tensors:
            y = y + self.file.tensor(f"{name}.bias", rows)
        return y

    def _rotation(self, n: int) -> tuple[Floats, Floats]:
        """Cosines and sines [n, pairs] of the positions from 0 on."""
        exponents = np.arange(0, self.rotated, 2).astype(np.float32) / np.float32(self.rotated)
        powers = np.array([float(self.base) ** float(e) for e in exponents])
        # A library's pow is off by less than a unit of binary64. This must not decide how the power is rounded.
        periods, *others = ((powers * edge).astype(np.float32) for edge in (1, 1 - 2**-51, 1 + 2**-51))
        if not all(np.array_equal(periods, other) for other in others):
            raise self.file.refusal(f"a power of rope.freq_base {self.base} is too close to halfway to judge")
        frequencies = _ONE / periods / self.factor
        if "rope_freqs.weight" in self.file.tensors:
            frequencies = frequencies / self.file.tensor("rope_freqs.weight", self.rotated // 2)
        return cos_sin(np.arange(n).astype(np.float32)[:, None] * frequencies)

    def _rotate(self, heads: Floats, rotation: tuple[Floats, Floats]) -> Floats:
        """Rotates pairs of channels: neighbours with llama, else those that are half the rotated channels apart."""
        (cos, sin), half, end = rotation, self.rotated // 2, self.rotated
        x_at, y_at = (slice(0, end, 2), slice(1, end, 2)) if self.arch == "llama" else (slice(half), slice(half, end))
        x, y, rotated = heads[..., x_at], heads[..., y_at], heads.copy()
        rotated[..., x_at], rotated[..., y_at] = x * cos - y * sin, y * cos + x * sin
        return rotated


def _dense(x: Floats, weights: Floats) -> Floats:
    """`x · weightsᵀ` by the dense rule."""
    step = max(1, _VALUES_AT_ONCE // (64 * len(x)))
    parts = [dot_in_lanes(x[:, None], weights[None, i : i + step]) for i in range(0, len(weights), step)]
    return np.concatenate(parts, axis=1)
