"""Encoders for the tensor types of GGUF files: ternary types, plain floats and block-quantized types.

`_synthetic` and the tests use them; the engine does not. They follow the byte layouts of the formats.
An encoder takes rows `[m, k]` and returns `uint8 [m, bytes per row]`. I2_S is the exception: its codes are one stream
over the whole tensor with one scale at the end, so its encoder returns a flat buffer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[Any]  # uint8; the stubs of numpy lose the type at the first `& 15`
Floats = npt.NDArray[np.float32]
Trits = npt.NDArray[np.int8]

# name: (type id, elements per block, bytes per block, bytes in front of each row)
TYPES: dict[str, tuple[int, int, int, int]] = {
    "F32": (0, 1, 4, 0),
    "F16": (1, 1, 2, 0),
    "BF16": (30, 1, 2, 0),
    "Q4_0": (2, 32, 18, 0),
    "Q5_0": (6, 32, 22, 0),
    "Q8_0": (8, 32, 34, 0),
    "Q4_K": (12, 256, 144, 0),
    "Q5_K": (13, 256, 176, 0),
    "Q6_K": (14, 256, 210, 0),
    "TQ1_0": (34, 256, 54, 0),
    "TQ2_0": (35, 256, 66, 0),
    "I2_S": (36, 128, 32, 0),
    "IQ1_BN": (134, 64, 13, 2),
    "IQ2_BN": (135, 64, 16, 4),
}
I2_S_TRAILER = 32  # one f32 scale and 28 bytes of padding


def nbytes(kind: str, m: int, k: int) -> int:
    """Return the bytes of a tensor of `m` rows of `k` elements. Raises ValueError if the blocks do not fit."""
    _, block, size, header = TYPES[kind]
    if kind == "I2_S":
        # Blocks may span rows, so only the whole tensor must consist of full blocks.
        if m * k % block:
            raise ValueError(f"I2_S needs a multiple of {block} elements, found {m} x {k} = {m * k}")
        return m * k // block * size + I2_S_TRAILER
    if k % block:
        raise ValueError(f"{kind} needs rows of a multiple of {block} elements, found {k}")
    return m * (header + k // block * size)


# -- Ternary: trits in {-1, 0, 1} and one scale per row ---------------------------------------------------------------


def encode_i2_s(trits: Trits, scale: float) -> Bytes:
    """Encode as I2_S: blocks of 128, element j in byte j % 32 at shift 6 - 2 * (j // 32); then the scale."""
    codes = pack_codes((trits + 1).astype(np.uint8).reshape(-1, 4, 32), shifts=(6, 4, 2, 0))
    return np.concatenate([codes.reshape(-1), i2_s_trailer(scale)])


def decode_i2_s_codes(codes: Bytes) -> Trits:
    """Return the trits of a stream of I2_S codes, flat."""
    shifts = np.array([6, 4, 2, 0], np.uint8)[:, None]
    return (((codes.reshape(-1, 1, 32) >> shifts) & 3).astype(np.int8) - 1).reshape(-1)


def i2_s_trailer(scale: float) -> Bytes:
    """Return the 32 bytes after the codes."""
    trailer = np.zeros(I2_S_TRAILER, np.uint8)
    trailer[:4] = np.array([scale], "<f4").view(np.uint8)
    return trailer


def encode_tq2_0(trits: Trits, scales: Floats) -> Bytes:
    """Encode as TQ2_0: blocks of 256; two halves of four 2-bit planes of 32 bytes, then the f16 scale."""
    m, k = trits.shape
    codes = pack_codes((trits + 1).astype(np.uint8).reshape(m, k // 256, 2, 4, 32), shifts=(0, 2, 4, 6))
    return _rows(m, codes.reshape(m, k // 256, 64), _block_scales(trits, scales))


def encode_tq1_0(trits: Trits, scales: Floats) -> Bytes:
    """Encode as TQ1_0: blocks of 256; base-3 digits, five per byte, most significant first; then the f16 scale."""
    m, k = trits.shape
    digits = (trits + 1).astype(np.uint32).reshape(m, k // 256, 256)
    first = _digits_to_byte(digits[..., :160].reshape(m, -1, 5, 32), (81, 27, 9, 3, 1))
    second = _digits_to_byte(digits[..., 160:240].reshape(m, -1, 5, 16), (81, 27, 9, 3, 1))
    third = _digits_to_byte(digits[..., 240:].reshape(m, -1, 4, 4), (81, 27, 9, 3))
    return _rows(m, first, second, third, _block_scales(trits, scales))


def encode_iq1_bn(trits: Trits, scales: Floats) -> Bytes:
    """Encode as IQ1_BN: the f16 row scale, then blocks of 64; base-3 digits, least significant first."""
    m, k = trits.shape
    digits = (trits + 1).astype(np.uint32).reshape(m, k // 64, 4, 16)
    # Fifteen elements of each group of 16 fill three bytes. The sixteenth is a digit of a byte that all groups share.
    triples = _digits_to_byte(digits[..., :15].reshape(m, -1, 4, 3, 5).swapaxes(-1, -2), (1, 3, 9, 27, 81))
    extra = _digits_to_byte(digits[..., 15:], (1, 3, 9, 27))
    codes = np.concatenate([triples.reshape(m, -1, 12), extra], axis=-1)
    return np.concatenate([_bytes(scales.astype("<f2")[:, None]), codes.reshape(m, -1)], axis=1)


def encode_iq2_bn(trits: Trits, scales: Floats) -> Bytes:
    """Encode as IQ2_BN: the f32 row scale, then blocks of 64; four 2-bit planes of 16 bytes."""
    m, k = trits.shape
    codes = pack_codes((trits + 1).astype(np.uint8).reshape(m, k // 64, 4, 16), shifts=(0, 2, 4, 6))
    return np.concatenate([_bytes(scales.astype("<f4")[:, None]), codes.reshape(m, -1)], axis=1)


def pack_codes(codes: Bytes, shifts: tuple[int, ...]) -> Bytes:
    """Pack four 2-bit codes into a byte. The second-to-last axis selects the shift."""
    planes = [codes[..., i, :] << shift for i, shift in enumerate(shifts)]
    packed: Bytes = planes[0] | planes[1] | planes[2] | planes[3]
    return packed


def _digits_to_byte(digits: npt.NDArray[np.uint32], weights: tuple[int, ...]) -> Bytes:
    """Pack base-3 digits (second-to-last axis) as the fixed-point fraction v / 243, rounded up, into a byte."""
    v = (digits * np.array(weights, np.uint32)[:, None]).sum(axis=-2)
    packed: Bytes = ((v * 256 + 242) // 243).astype(np.uint8)
    return packed


def _block_scales(trits: Trits, scales: Floats) -> Bytes:
    """Return the f16 scale of each block of 256. An all-zero block has scale 0, as in llama.cpp."""
    m, k = trits.shape
    used = trits.reshape(m, k // 256, 256).any(axis=-1)
    return _bytes(np.where(used, scales[:, None], 0).astype("<f2")[..., None])


# -- Floats: plain types and block-quantized types ---------------------------------------------------------------------


def encode_f32(x: Floats) -> Bytes:
    """Encode as F32: IEEE binary32."""
    return _bytes(x.astype("<f4"))


def encode_f16(x: Floats) -> Bytes:
    """Encode as F16: IEEE binary16."""
    return _bytes(x.astype("<f2"))


def encode_bf16(x: Floats) -> Bytes:
    """Encode as BF16: the upper half of a binary32, rounded to nearest even."""
    bits = x.astype("<f4").view("<u4")
    return _bytes(((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2"))


def encode_q8_0(x: Floats) -> Bytes:
    """Encode as Q8_0: blocks of 32; f16 d, i8 q; y = d * q."""
    blocks = x.reshape(x.shape[0], -1, 32)
    d = np.abs(blocks).max(axis=-1, keepdims=True) / np.float32(127)
    q = _round(blocks * _inverse(d)).astype(np.int8)
    return _rows(x.shape[0], _bytes(d.astype("<f2")), _bytes(q))


def encode_q4_0(x: Floats) -> Bytes:
    """Encode as Q4_0: blocks of 32; f16 d, 16 bytes of nibbles; y = d * (q - 8)."""
    d, q = _signed_codes(x, half=8)
    return _rows(x.shape[0], d, q[..., :16] | q[..., 16:] << 4)


def encode_q5_0(x: Floats) -> Bytes:
    """Encode as Q5_0: blocks of 32; f16 d, the 32 fifth bits, 16 bytes of nibbles; y = d * (q - 16)."""
    d, q = _signed_codes(x, half=16)
    high = np.packbits(q >> 4, axis=-1, bitorder="little")
    return _rows(x.shape[0], d, high, q[..., :16] & 15 | (q[..., 16:] & 15) << 4)


def encode_q4_k(x: Floats) -> Bytes:
    """Encode as Q4_K: blocks of 256; f16 d and dmin, 12 bytes of 6-bit scales and minima, 128 bytes of nibbles."""
    d, dmin, packed, q = _scaled_codes(x, top=15)
    return _rows(x.shape[0], d, dmin, packed, _nibble_pairs(q))


def encode_q5_k(x: Floats) -> Bytes:
    """Encode as Q5_K: as Q4_K, with the fifth bits of all eight sub-blocks in 32 bytes before the nibbles."""
    d, dmin, packed, q = _scaled_codes(x, top=31)
    high = np.packbits(q >> 4, axis=-2, bitorder="little")
    return _rows(x.shape[0], d, dmin, packed, high.reshape(*q.shape[:-2], 32), _nibble_pairs(q & 15))


def encode_q6_k(x: Floats) -> Bytes:
    """Encode as Q6_K: blocks of 256; low nibbles, high bit pairs, 16 i8 scales, f16 d; y = d * scale * (q - 32)."""
    blocks = x.reshape(x.shape[0], -1, 16, 16)
    scale = np.abs(blocks).max(axis=-1) / np.float32(31)
    d = (scale.max(axis=-1, keepdims=True) / np.float32(127)).astype("<f2")
    step = _round(scale * _inverse(d.astype(np.float32))).astype(np.int8)
    unit = d.astype(np.float32) * step
    q = (_round(blocks * _inverse(unit)[..., None]).clip(-32, 31) + 32).astype(np.uint8)
    quarters = q.reshape(x.shape[0], -1, 2, 4, 32)  # block, half, quarter of the half, element
    low = quarters & 15
    low = np.stack([low[..., 0, :] | low[..., 2, :] << 4, low[..., 1, :] | low[..., 3, :] << 4], axis=-2)
    high = pack_codes(quarters >> 4, shifts=(0, 2, 4, 6))
    codes = low.reshape(*step.shape[:2], 128), high.reshape(*step.shape[:2], 64)
    return _rows(x.shape[0], *codes, _bytes(step), _bytes(d))


def _signed_codes(x: Floats, half: int) -> tuple[Bytes, Bytes]:
    """Quantize blocks of 32 on a grid that is exact at the element of largest magnitude.

    Returns d as f16 bytes, and the codes.
    """
    blocks = x.reshape(x.shape[0], -1, 32)
    peak = np.take_along_axis(blocks, np.abs(blocks).argmax(axis=-1, keepdims=True), axis=-1)
    d = peak / np.float32(-half)
    q = np.trunc(blocks * _inverse(d) + np.float32(half + 0.5)).clip(0, 2 * half - 1).astype(np.uint8)
    return _bytes(d.astype("<f2")), q


def _scaled_codes(x: Floats, top: int) -> tuple[Bytes, Bytes, Bytes, Bytes]:
    """Quantize blocks of eight times 32, each with a 6-bit scale and minimum.

    Returns d, dmin, the 12 bytes of packed scales and minima, and the codes.
    """
    blocks = x.reshape(x.shape[0], -1, 8, 32)
    low = np.minimum(blocks.min(axis=-1), 0)
    scale = (blocks.max(axis=-1) - low) / np.float32(top)
    d, dmin = ((a.max(axis=-1, keepdims=True) / np.float32(63)).astype("<f2") for a in (scale, -low))
    sc = _round(scale * _inverse(d.astype(np.float32))).clip(0, 63).astype(np.uint8)
    mn = _round(-low * _inverse(dmin.astype(np.float32))).clip(0, 63).astype(np.uint8)
    unit, offset = d.astype(np.float32) * sc, dmin.astype(np.float32) * mn
    q = _round((blocks + offset[..., None]) * _inverse(unit)[..., None]).clip(0, top).astype(np.uint8)
    packed = np.concatenate(
        [
            sc[..., :4] | (sc[..., 4:] >> 4) << 6,
            mn[..., :4] | (mn[..., 4:] >> 4) << 6,
            sc[..., 4:] & 15 | (mn[..., 4:] & 15) << 4,
        ],
        axis=-1,
    )
    return _bytes(d), _bytes(dmin), packed, q


def _nibble_pairs(q: Bytes) -> Bytes:
    """Pack eight sub-blocks of 32 codes below 16: even ones into the low nibbles, odd ones into the high."""
    pairs = q[..., 0::2, :] | q[..., 1::2, :] << 4
    flat: Bytes = pairs.reshape(*q.shape[:-2], 128)
    return flat


def _round(x: Floats) -> Floats:
    """Round to the nearest integer, halves away from zero, as llama.cpp does."""
    return np.trunc(x + np.copysign(np.float32(0.5), x))


def _inverse(x: Floats) -> Floats:
    """Return 1 / x, and 0 where x is 0 (an all-zero block)."""
    with np.errstate(divide="ignore"):
        return np.where(x == 0, np.float32(0), np.float32(1) / x)


def _bytes(a: npt.NDArray[Any]) -> Bytes:
    """Return the bytes of an array, along its last axis."""
    return np.ascontiguousarray(a).view(np.uint8)


def _rows(m: int, *parts: Bytes) -> Bytes:
    """Join the parts of each block, then the blocks of each row."""
    return np.concatenate(parts, axis=-1).reshape(m, -1)


TERNARY: dict[str, Callable[[Trits, Floats], Bytes]] = {
    "TQ1_0": encode_tq1_0,
    "TQ2_0": encode_tq2_0,
    "IQ1_BN": encode_iq1_bn,
    "IQ2_BN": encode_iq2_bn,
}
FLOAT: dict[str, Callable[[Floats], Bytes]] = {
    "F32": encode_f32,
    "F16": encode_f16,
    "BF16": encode_bf16,
    "Q4_0": encode_q4_0,
    "Q5_0": encode_q5_0,
    "Q8_0": encode_q8_0,
    "Q4_K": encode_q4_k,
    "Q5_K": encode_q5_k,
    "Q6_K": encode_q6_k,
}


def encode_trits(kind: str, trits: Trits, scales: Floats) -> Bytes:
    """Encode rows of trits, each with its scale, in any type but I2_S."""
    if kind in TERNARY:
        return TERNARY[kind](trits, scales)
    return FLOAT[kind](trits.astype(np.float32) * scales[:, None])
