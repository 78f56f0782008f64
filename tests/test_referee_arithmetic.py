"""The referee's arithmetic: fma, sums in 64 lanes, exp, cosines, BLAKE3, each against exact or independent results."""

from __future__ import annotations

import math
import random
from fractions import Fraction
from typing import Any

import blake3
import numpy as np
import numpy.typing as npt
import pytest

from bitnet.referee import arithmetic

Floats = npt.NDArray[np.float32]


def rounded(x: Fraction) -> float:
    """The binary32 number that is nearest to x, half to even; x is not 0."""
    least = max(math.floor(math.log2(abs(x))) - 24, -149)
    for step in range(least, least + 3):  # the logarithm may be off by one
        whole = round(x / Fraction(2) ** step)  # half to even
        if abs(whole) <= 2**24:
            result = math.ldexp(whole, step)
            return result if abs(result) < 2.0**128 else math.copysign(math.inf, x)
    raise AssertionError(x)


def exact_fma(a: float, b: float, c: float) -> float:
    """`a · b + c` of finite binary32 numbers by fractions, rounded once."""
    exact = Fraction(a) * Fraction(b) + Fraction(c)
    if exact == 0:
        return a * b + c if a * b == 0 else 0.0  # only zeros give -0
    return math.copysign(rounded(exact), exact)


def float32(rng: random.Random, low: int, high: int) -> float:
    """A random binary32 number with an exponent in this range and few or many bits."""
    bits = rng.choice([1, 3, 12, 23, 24])
    significand = rng.getrandbits(bits) | 1
    return float(np.float32(math.ldexp(rng.choice([-1, 1]) * significand, rng.randint(low, high) - bits)))


def halfway_cases(rng: random.Random) -> list[tuple[float, float, float]]:
    """Sums that lie at, just above and just below the middle of two binary32 numbers, by as little as possible."""
    cases = []
    for exponent in (0, 40, 100, -60, -125, -130, -148):
        for _ in range(60):
            bits = max(1, min(24, 150 + exponent))
            c = math.ldexp((1 << bits - 1 | rng.getrandbits(bits)) & (1 << bits) - 1, exponent - bits + 1)
            half = math.ldexp(1.0, exponent - bits)  # half a unit in the last place of c
            tiny = rng.choice([0.0, 2.0**-23, -(2.0**-23)])
            a = float(np.float32(half * 2.0 ** rng.randint(-10, 10)))
            if a and math.isfinite(a) and half / a:
                cases.append((a, float(np.float32(half / a * (1 + tiny))), rng.choice([-1, 1]) * c))
    return cases


def test_fma_rounds_once() -> None:
    rng = random.Random(1)
    ranges = [(-4, 4), (-30, 30), (-149, -100), (-80, -60), (60, 64), (-149, 127)]
    cases = [tuple(float32(rng, *rng.choice(ranges)) for _ in range(3)) for _ in range(12_000)]
    cases += halfway_cases(rng)
    # c is what the product gives, rounded: the sum cancels and leaves the error of the rounding.
    cases += [(a, b, -float(np.float32(a * b))) for a, b, _ in cases[:2000] if abs(a * b) < 1e38]
    cases += [(a, b, c) for a in (0.0, -0.0) for b in (1.0, -1.0, 2.0**-149) for c in (0.0, -0.0, 1.0)]
    cases += [(2.0**-149, 0.5, 0.0), (2.0**-149, -0.5, 2.0**-149), (2.0**127, 2.0, -(2.0**127)), (2.0**127, 2.0, 1.0)]
    a, b, c = np.array(cases, np.float32).T
    expected = np.array([exact_fma(*case) for case in cases]).astype(np.float32)
    with np.errstate(over="ignore"):
        found, plain = arithmetic.fma(a, b, c), (a.astype(np.float64) * b + c).astype(np.float32)
        twice = a * b + c
    assert np.array_equal(found.view(np.uint32), expected.view(np.uint32))
    assert (plain != expected).sum() > 50  # binary64 alone is not enough
    assert (twice != expected).sum() > 500


def test_fma_of_infinity_and_nan() -> None:
    inf, nan = math.inf, math.nan
    cases = [(inf, 1, 1), (inf, -2, 5), (1, 1, -inf), (2.0**127, 2.0**127, -inf), (inf, 1, -inf), (inf, 0, 1)]
    cases += [(nan, 1, 1), (1, 1, nan), (0, 0, inf)]
    with np.errstate(all="ignore"):
        found = arithmetic.fma(*np.array(cases, np.float32).T)
    assert np.array_equal(found, np.array([inf, -inf, -inf, -inf, nan, nan, nan, nan, inf], np.float32), equal_nan=True)


@pytest.mark.parametrize("n", [1, 63, 64, 65, 200, 256])
def test_sums_in_64_lanes(n: int) -> None:
    """Against plain loops, one value at a time; products that vanish keep their sign."""
    rng = random.Random(n)
    a, b = ([float32(rng, -100, 10) for _ in range(n)] for _ in range(2))
    lanes = [0.0] * 64
    for k in range(n):
        lanes[k % 64] = float(np.float32(exact_fma(a[k], b[k], lanes[k % 64])))
    for width in (32, 16, 8, 4, 2, 1):
        lanes = [float(np.float32(lanes[i]) + np.float32(lanes[i + width])) for i in range(width)]
    found = arithmetic.dot_in_lanes(np.array(a, np.float32), np.array(b, np.float32))
    assert found.tobytes() == np.float32(lanes[0]).tobytes()


def test_exp() -> None:
    """Within two units in the last place; limits."""
    x = np.linspace(-87, 88.5, 20_001).astype(np.float32)
    exact = np.exp(x.astype(np.float64))
    assert (np.abs(arithmetic.exp(x) - exact) <= 2 * np.spacing(exact.astype(np.float32))).all()
    with np.errstate(over="ignore"):
        limits = arithmetic.exp(np.array([-np.inf, -104, -103.9, 0, 89, 1000, np.inf], np.float32))
    assert limits.tolist() == [0, 0, 2.0**-149, 1, np.inf, np.inf, np.inf]


def test_exp_of_binary64() -> None:
    """Within one unit in the last place of the platform's, which is right to one unit, too."""
    x = np.concatenate([-np.logspace(-20, 2.87, 5000), [-0.0, -0.3465, -0.3466, -1.0397, -1.04, -745, -746, -np.inf]])
    expected = np.array([math.exp(value) for value in x])
    with np.errstate(invalid="ignore"):
        found = arithmetic.exp64(x)
    assert (np.abs(found - expected) <= 2 * np.spacing(expected)).all()
    assert found[-2:].tolist() == [0, 0]


def test_cosines_and_sines() -> None:
    angles = np.concatenate([np.linspace(0, 12, 5000), np.logspace(-8, 6, 5000), [2.0**-12, 2.0**27]])
    angles = angles.astype(np.float32)
    for found, function in zip(arithmetic.cos_sin(angles), (math.cos, math.sin), strict=True):
        exact = np.array([function(float(a)) for a in angles])
        assert (np.abs(found - exact) <= np.spacing(np.abs(exact).astype(np.float32))).all()
        assert (found == exact.astype(np.float32)).mean() > 0.999


def test_the_bits_of_the_crate_libm() -> None:
    """BLAKE3 of what version 0.2.16 gives for 200,000 arguments of each function."""
    k = np.arange(200_000)
    with np.errstate(under="ignore"):
        exponentials = arithmetic.exp64(-k / 256)
    assert hashed(exponentials) == "a1b97164512667f2f4fa3cf7277e9c4b2feda4878fa3da8d63b6b1efca541942"
    cosines_and_sines = np.concatenate(arithmetic.cos_sin((k / 64).astype(np.float32)))
    assert hashed(cosines_and_sines) == "39b4b8a10a4daf943b6fff41e94103ba03af0ab681a0744b89168774a9218e73"


def hashed(array: npt.NDArray[Any]) -> str:
    return blake3.blake3(array.tobytes()).hexdigest()


@pytest.mark.parametrize("size", [0, 1, 64, 65, 1023, 1024, 1025, 2048, 2049, 5000, 31 * 1024, 100_000])
def test_blake3(size: int) -> None:
    data = random.Random(size).randbytes(size)
    assert arithmetic.blake3(data) == blake3.blake3(data).hexdigest()
    assert arithmetic.blake3(np.frombuffer(data, np.uint8)) == blake3.blake3(data).hexdigest()
