"""The arithmetic of docs/numerics.md in NumPy: fma, sums in 64 lanes, exp, sine and cosine; and the hash BLAKE3."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]


def fma(a: Any, b: Any, c: Any) -> Floats:
    """`a · b + c` of binary32 values, rounded once to binary32, half to even. The arguments broadcast.

    In binary64 the product p is exact (24 + 24 bits, exponents from -298 on), and s is p + c rounded. Let x be p + c
    without rounding. Rounding s instead of x can err only where s is the midpoint of two neighbouring binary32 numbers:
    midpoints are binary64 numbers and rounding is monotone, so if s is none, x and s lie on the same side of each of
    them. A midpoint has at most 25 significant bits, so the last 28 of the 52 stored bits of s are 0. For such s alone
    the error e = x - s is computed, exactly, by Knuth's TwoSum. Where e is not 0, s takes one binary64 step towards x,
    which leaves the midpoint on the right side and passes no other.
    """
    p, c = np.multiply(a, b, dtype=np.float64), np.asarray(c, np.float64)
    s = np.asarray(p + c)
    short = (s.view(np.int64) & 0x0FFF_FFFF) == 0
    if short.any():
        p, c, sums = np.broadcast_to(p, s.shape)[short], np.broadcast_to(c, s.shape)[short], s[short]
        part = sums - p
        e = (p - (sums - part)) + (c - part)
        inexact = np.isfinite(sums) & (e != 0.0)
        s[short] = np.where(inexact, np.nextafter(sums, np.copysign(np.inf, e)), sums)
    return s.astype(np.float32)


def dot_in_lanes(a: Floats, b: Floats) -> Floats:
    """The sum of `fma(a, b)` over the last axis, in 64 lanes; the other axes broadcast."""
    n, lanes = a.shape[-1], np.zeros((*np.broadcast_shapes(a.shape, b.shape)[:-1], 64), np.float32)
    for i in range(0, n, 64):
        m = min(64, n - i)
        lanes[..., :m] = fma(a[..., i : i + m], b[..., i : i + m], lanes[..., :m])
    while lanes.shape[-1] > 1:
        low, high = np.split(lanes, 2, axis=-1)
        lanes = low + high
    return lanes[..., 0]


_EXP = np.array([1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 0.5], np.float32)
_LOG2_E, _LN2_HIGH, _LN2_LOW = np.float32(1.44269504), np.float32(-0.693359375), np.float32(2.12194440e-4)
_MAGIC = np.float32(1.5 * 2**23)


def exp(x: Floats) -> Floats:
    """`e^x` of binary32, as the section "exp" of docs/numerics.md defines it."""
    bounded = np.clip(x, np.float32(-104), np.float32(89))
    n = fma(bounded, _LOG2_E, _MAGIC) - _MAGIC
    r = fma(n, _LN2_LOW, fma(n, _LN2_HIGH, bounded))
    p: Any = _EXP[0]
    for coefficient in _EXP[1:]:
        p = fma(p, r, coefficient)
    e = fma(p * r, r, r) + np.float32(1)
    whole, one = np.nan_to_num(n).astype(np.int32), np.float32(1)
    result = e * np.ldexp(one, whole >> 1) * np.ldexp(one, whole - (whole >> 1))
    return np.where(x <= -104, np.float32(0), result)


def exp64(x: Array) -> Array:
    """`e^x` of binary64 for x from -infinity to 0: FreeBSD's `exp`, operation by operation."""
    high, bounded = np.abs(x).view(np.int64) >> 32, np.maximum(x, -1e6)
    far = np.trunc(1.44269504088896338700 * bounded - 0.5)
    k = np.where(high <= 0x3FD6_2E42, 0.0, np.where(high < 0x3FF0_A2B2, -1.0, far))
    hi, lo = bounded - k * 6.93147180369123816490e-01, k * 1.90821492927058770002e-10
    r = hi - lo
    rr = r * r
    p = 6.61375632143793436117e-05 + rr * (-1.65339022054652515390e-06 + rr * 4.13813679705723846039e-08)
    c = r - rr * (1.66666666666666019037e-01 + rr * (-2.77777777770155933842e-03 + rr * p))
    y = 1.0 + (r * c / (2.0 - c) - lo + hi)
    y = np.where(high <= 0x3E30_0000, 1.0 + r, np.ldexp(y, k.astype(np.int64)))
    return np.where(x < -745.13321910194110842, 0.0, y)


_EIGHTHS = np.array([0x3F49_0FDA, 0x4016_CBE3, 0x407B_53D1, 0x40AF_EDDF, 0x40E2_31D5], np.int32).view(np.float32)


def cos_sin(angles: Floats) -> tuple[Floats, Floats]:
    """Cosines and sines of binary32 angles from 0 up to 2^28: FreeBSD's `cosf` and `sinf`, operation by operation.

    The quadrant n is that of the nearest multiple of π/2, which is subtracted in binary64. What both functions give for
    tiny angles, 1 and the angle itself, the polynomials give, too.
    """
    x, magic = angles.astype(np.float64), 1.5 * 2**52
    far, near = (x * 6.36619772367581382433e-01 + magic) - magic, np.searchsorted(_EIGHTHS, angles)
    is_near = near < len(_EIGHTHS)
    n = np.where(is_near, near, far).astype(np.int64) & 3
    far_rest = x - far * 1.57079631090164184570e00 - far * 1.58932547735281966916e-08
    y = np.where(is_near, x - near * (np.pi / 2), far_rest)
    z = y * y
    w, s = z * z, z * y
    odd = y + s * (-0.166666666416265235595 + z * 0.0083333293858894631756)
    even = (1.0 + z * -0.499999997251031003120) + w * 0.0416666233237390631894
    sin = (odd + s * w * (-0.000198393348360966317347 + z * 0.0000027183114939898219064)).astype(np.float32)
    cos = (even + (w * z) * (-0.00138867637746099294692 + z * 0.0000243904487962774090654)).astype(np.float32)
    return np.choose(n, [cos, -sin, -cos, sin]), np.choose(n, [sin, cos, -sin, -cos])


_IV = np.array([0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19], "<u4")
_ORDER = [2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8]
_START, _END, _PARENT, _ROOT = 1, 2, 4, 8
_CHUNK, _CHUNKS_AT_ONCE = 1024, 1 << 13


def _compress(state: Array | None, words: Array, counters: Any, lengths: Any, flags: Any) -> Array:
    """The compression function for n blocks at once: state [8, n] or the first one, words [16, n]; the new state."""
    first = np.repeat(_IV[:, None], words.shape[1], axis=1)
    a, b = np.split(first if state is None else state, 2)
    c, d = first[:4], np.zeros_like(first[:4])
    d[0], d[1], d[2], d[3] = counters & 0xFFFF_FFFF, counters >> 32, lengths, flags
    for _ in range(7):
        for half, turn in ((words[:8], 1), (words[8:], -1)):  # first the columns, then the diagonals
            for part, left, right in ((half[0::2], 16, 12), (half[1::2], 8, 7)):
                a = a + b + part
                d = (d ^ a) >> np.uint32(left) | (d ^ a) << np.uint32(32 - left)
                c = c + d
                b = (b ^ c) >> np.uint32(right) | (b ^ c) << np.uint32(32 - right)
            b, c, d = np.roll(b, -turn, 0), np.roll(c, -2 * turn, 0), np.roll(d, -3 * turn, 0)
        words = words[_ORDER]
    return np.concatenate([a ^ c, b ^ d])


def blake3(data: bytes | Array) -> str:
    """The BLAKE3 hash of bytes or of an array of uint8, which may map a file; in hexadecimal."""
    array = np.frombuffer(data, np.uint8) if isinstance(data, bytes) else data
    n = max(1, -(-len(array) // _CHUNK))
    level = np.zeros((8, n), np.uint32)
    for first in range(0, n, _CHUNKS_AT_ONCE):
        at = np.arange(first, min(n, first + _CHUNKS_AT_ONCE))
        padded = np.zeros(len(at) * _CHUNK, np.uint8)
        part = array[first * _CHUNK :][: len(padded)]
        padded[: len(part)] = part
        words, sizes = padded.view("<u4").reshape(-1, 16, 16), np.clip(len(array) - at * _CHUNK, 0, _CHUNK)
        last, state = np.maximum(sizes - 1, 0) // 64, np.zeros((8, 0), np.uint32)
        for block in range(int(last.max()) + 1):
            flags = np.where(last == block, _END | (_ROOT if n == 1 else 0), 0) | (0 if block else _START)
            new = _compress(state if block else None, words[:, block].T, at, np.clip(sizes - 64 * block, 0, 64), flags)
            state = np.where(block <= last, new, state) if block else new
        level[:, at] = state
    # Pairs become parents, level by level; a last one without a partner moves up as it is.
    while (n := level.shape[1]) > 1:
        pairs = level[:, : n - n % 2].T.reshape(-1, 16).T
        parents = _compress(None, pairs, 0, 64, _PARENT | (_ROOT if n == 2 else 0))
        level = np.concatenate([parents, level[:, n - n % 2 :]], axis=1)
    return level[:, 0].astype("<u4").tobytes().hex()
