"""Encoders for the tensor types of GGUF files: ternary types, plain floats and block-quantized types.

`_synthetic` and the tests use them; the engine does not. They follow the byte layouts of the formats.
An encoder takes rows `[m, k]` and returns `uint8 [m, bytes per row]`. I2_S is the exception: its codes are one stream
over the whole tensor with one scale at the end, so its encoder returns a flat buffer.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[Any]  # uint8; the stubs of numpy lose the type at the first `& 15`
Floats = npt.NDArray[np.float32]
Trits = npt.NDArray[np.int8]

# name: (type id, columns and bytes of a block, bytes in front of each row); of IQ2_BN_R4 those of four rows
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
    "IQ2_BN_R4": (335, 64, 64, 16),
    "Q2_0_g64": (42, 64, 18, 0),
    "Q2_0_g128": (42, 128, 34, 0),
    "PQ2_0": (142, 128, 34, 0),
    "PTQ1_0": (143, 128, 28, 0),
    "Q1_0": (41, 128, 18, 0),
    "STQ1_0": (42, 256, 42, 0),
}
BYTE_OF_FRACTION = ((np.arange(243) * 256 + 242) // 243).astype(np.uint8)  # of a number of five base-3 digits
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
    together = 4 if kind == "IQ2_BN_R4" else 1
    if m % together:
        raise ValueError(f"{kind} needs a multiple of {together} rows, found {m}")
    return m // together * (header + k // block * size)


# -- Ternary: trits in {-1, 0, 1} and scales [m, n], one for each row and n-th part of its columns ---------------------


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
    return _rows(m, codes.reshape(m, k // 256, 64), _block_scales(trits, scales, 256))


def encode_tq1_0(trits: Trits, scales: Floats) -> Bytes:
    """Encode as TQ1_0: blocks of 256; base-3 digits, five per byte, most significant first; then the f16 scale."""
    m, k = trits.shape
    digits = (trits + 1).view(np.uint8).reshape(m, k // 256, 256)
    first = _digits_to_byte(digits[..., :160].reshape(m, -1, 5, 32), (81, 27, 9, 3, 1))
    second = _digits_to_byte(digits[..., 160:240].reshape(m, -1, 5, 16), (81, 27, 9, 3, 1))
    third = _digits_to_byte(digits[..., 240:].reshape(m, -1, 4, 4), (81, 27, 9, 3))
    return _rows(m, first, second, third, _block_scales(trits, scales, 256))


def encode_q2_0(trits: Trits, scales: Floats, block: int) -> Bytes:
    """Encode as Q2_0 in groups of `block`: the f16 scale, then codes of neighbours, lowest bits first."""
    m, k = trits.shape
    codes = (trits + 1).astype(np.uint8).reshape(m, k // block, block // 4, 4)
    packed = pack_codes(codes.swapaxes(-1, -2), shifts=(0, 2, 4, 6))
    return _rows(m, _block_scales(trits, scales, block), packed)


def encode_ptq1_0(trits: Trits, scales: Floats) -> Bytes:
    """Encode as PTQ1_0: blocks of 128; base-3 digits of 16, 8 and 2 bytes, most significant first; the f16 scale."""
    m, k = trits.shape
    digits = (trits + 1).view(np.uint8).reshape(m, k // 128, 128)
    first = _digits_to_byte(digits[..., :80].reshape(m, -1, 5, 16), (81, 27, 9, 3, 1))
    second = _digits_to_byte(digits[..., 80:120].reshape(m, -1, 5, 8), (81, 27, 9, 3, 1))
    third = _digits_to_byte(digits[..., 120:].reshape(m, -1, 4, 2), (81, 27, 9, 3))
    return _rows(m, first, second, third, _block_scales(trits, scales, 128))


def encode_q1_0(trits: Trits, scales: Floats) -> Bytes:
    """Encode as Q1_0: blocks of 128; the f16 scale, then signs. The type has no zero: a zero becomes +1."""
    m, k = trits.shape
    signs = np.packbits((trits >= 0).reshape(m, k // 128, 128), axis=-1, bitorder="little")
    return _rows(m, _block_scales(np.ones_like(trits), scales, 128), signs)


def encode_stq1_0(trits: Trits, scales: Floats) -> Bytes:
    """Encode as STQ1_0: blocks of 256 in groups of four lanes, 16 elements apart; nibbles, sign bits, the f16 scale.

    A group has exactly one zero. Of several, the first stays and the others become +1; of none, the first lane becomes
    the zero.
    """
    m, k = trits.shape
    groups = trits.reshape(m, k // 256, 4, 4, 16).swapaxes(-1, -2).reshape(m, k // 256, 64, 4)
    zero = (groups == 0).argmax(axis=-1)
    others = np.where(np.arange(3) < zero[..., None], np.arange(3), np.arange(3) + 1)
    negative = (np.take_along_axis(groups, others, axis=-1) < 0).astype(np.uint8)
    nibbles = (
        4 * zero.astype(np.uint8) + (negative[..., 1] ^ negative[..., 0]) + 2 * (negative[..., 2] ^ negative[..., 0])
    )
    signs = np.packbits(negative[..., 0], axis=-1, bitorder="little")
    return _rows(
        m, nibbles[..., 0::2] | nibbles[..., 1::2] << 4, signs, _block_scales(np.ones_like(trits), scales, 256)
    )


def encode_iq1_bn(trits: Trits, scales: Floats) -> Bytes:
    """Encode as IQ1_BN: the f16 row scale, then blocks of 64; base-3 digits, least significant first."""
    m, k = trits.shape
    digits = (trits + 1).view(np.uint8).reshape(m, k // 64, 4, 16)
    # Fifteen elements of each group of 16 fill three bytes. The sixteenth is a digit of a byte that all groups share.
    triples = _digits_to_byte(digits[..., :15].reshape(m, -1, 4, 3, 5).swapaxes(-1, -2), (1, 3, 9, 27, 81))
    extra = _digits_to_byte(digits[..., 15:], (1, 3, 9, 27))
    codes = np.concatenate([triples.reshape(m, -1, 12), extra], axis=-1)
    return np.concatenate([_bytes(_row_scales(scales).astype("<f2")), codes.reshape(m, -1)], axis=1)


def encode_iq2_bn(trits: Trits, scales: Floats) -> Bytes:
    """Encode as IQ2_BN: the f32 row scale, then blocks of 64; four 2-bit planes of 16 bytes."""
    m, k = trits.shape
    codes = pack_codes((trits + 1).astype(np.uint8).reshape(m, k // 64, 4, 16), shifts=(0, 2, 4, 6))
    return np.concatenate([_bytes(_row_scales(scales).astype("<f4")), codes.reshape(m, -1)], axis=1)


def encode_iq2_bn_r4(trits: Trits, scales: Floats) -> Bytes:
    """Encode as IQ2_BN_R4: four rows together; their f32 scales, then for each 16 columns four bytes of each row."""
    m, k = trits.shape
    codes = (trits + 1).astype(np.uint8).reshape(m // 4, 4, k // 16, 4, 4)
    packed = pack_codes(codes, shifts=(0, 2, 4, 6)).swapaxes(1, 2)
    four = _bytes(_row_scales(scales).astype("<f4").reshape(m // 4, 4))
    return np.concatenate([four, packed.reshape(m // 4, -1)], axis=1)


def pack_codes(codes: Bytes, shifts: tuple[int, ...]) -> Bytes:
    """Pack four 2-bit codes into a byte. The second-to-last axis selects the shift."""
    planes = [codes[..., i, :] << shift for i, shift in enumerate(shifts)]
    packed: Bytes = planes[0] | planes[1] | planes[2] | planes[3]
    return packed


def _digits_to_byte(digits: npt.NDArray[np.uint8], weights: tuple[int, ...]) -> Bytes:
    """Pack base-3 digits (second-to-last axis) as the fixed-point fraction v / 243, rounded up, into a byte."""
    v = digits[..., 0, :] * np.uint8(weights[0])
    for i, weight in enumerate(weights[1:], 1):
        v += digits[..., i, :] * np.uint8(weight)
    packed: Bytes = BYTE_OF_FRACTION[v]
    return packed


def _block_scales(trits: Trits, scales: Floats, block: int) -> Bytes:
    """Return the f16 scale of each block. An all-zero block has scale 0, as in llama.cpp."""
    m, k = trits.shape
    used = trits.reshape(m, k // block, block).any(axis=-1)
    return _bytes(np.where(used, _spread(scales, k // block), 0).astype("<f2")[..., None])


def _spread(scales: Floats, parts: int) -> Floats:
    """Return the scale of each of `parts` equal parts of a row."""
    if parts % scales.shape[1]:
        raise ValueError(f"{scales.shape[1]} scales a row cannot be stored in {parts} blocks")
    spread: Floats = np.repeat(scales, parts // scales.shape[1], axis=1)
    return spread


def _row_scales(scales: Floats) -> Floats:
    """Return the scales as they are, if every row has one."""
    if scales.shape[1] != 1:
        raise ValueError(f"this type stores one scale a row, found {scales.shape[1]}")
    return scales


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
    "IQ2_BN_R4": encode_iq2_bn_r4,
    "Q2_0_g64": functools.partial(encode_q2_0, block=64),
    "Q2_0_g128": functools.partial(encode_q2_0, block=128),
    "PQ2_0": functools.partial(encode_q2_0, block=128),
    "PTQ1_0": encode_ptq1_0,
    "Q1_0": encode_q1_0,
    "STQ1_0": encode_stq1_0,
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
    """Encode rows of trits in any type but I2_S; `scales` has one for each row, or one for each row and part of it."""
    scales = scales.reshape(len(trits), -1)
    if kind in TERNARY:
        return TERNARY[kind](trits, scales)
    return FLOAT[kind](trits.astype(np.float32) * _spread(scales, trits.shape[1]))
