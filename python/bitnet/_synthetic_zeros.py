"""Synthetic models with relu² in which a chosen share of the gates is at most 0, as in trained models.

Some coordinates of the residual stream hold a constant: those of every embedding, to which no layer adds anything. The
feed-forward norm scales them, and all gate rows subtract them, which shifts all gates by so many standard deviations as
the share asks for.
"""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np

from . import _tensor_types as tt

CONSTANT = 0.7  # of the embedding: the standard deviation of its other values
NONZERO = 162 / 256  # share of random trits that are not 0
GAMMA = 13 / 12  # mean square of a norm's random weights, uniform between 0.5 and 1.5
CODES = np.uint8(0x3F)  # clears the first column of an I2_S byte: code 0, the trit -1
ZEROS = np.uint8(0x55)  # four trits 0 in I2_S


def coordinates(width: int) -> int:
    """How many coordinates are constant; few of 32, so that they lie in the first bits of an I2_S block."""
    return min(32, max(1, width // 256))


def gamma(share: float, width: int, added: list[float]) -> float:
    """The feed-forward norm's weight of the constant coordinates, where so many variances were added to the stream.

    A gate's sum over the other columns is normal. Its deviation is known, since all trits and weights are random.
    """
    deviation = math.sqrt(NONZERO * GAMMA * width)
    stream = math.sqrt(CONSTANT**2 + sum(added) * (1 - coordinates(width) / width))
    return NormalDist().inv_cdf(share) * deviation / coordinates(width) * stream / CONSTANT


def variance(scale: float, cols: int) -> float:
    """What a projection of normalised inputs adds to the variance of the stream."""
    return scale**2 * NONZERO * GAMMA * cols


def edit_trits(name: str, trits: tt.Trits, first_row: int, width: int) -> tt.Trits:
    """Rows of a projection from `first_row` on: gates subtract the constants, and nothing is added to them."""
    n = coordinates(width)
    if name.endswith("ffn_gate.weight"):
        trits[:, :n] = -1
    elif name.endswith(("attn_output.weight", "ffn_down.weight")):
        trits[: max(n - first_row, 0)] = 0
    return trits


def edit_codes(name: str, codes: bytes, start: int, cols: int, width: int) -> bytes:
    """As `edit_trits`, for bytes of an I2_S tensor from `start` on."""
    n, row = coordinates(width), cols // 4
    places = start + np.arange(len(codes))
    found = np.frombuffer(codes, np.uint8)
    if name.endswith("ffn_gate.weight"):
        return np.where(places % row < n, found & CODES, found).tobytes()
    if name.endswith(("attn_output.weight", "ffn_down.weight")):
        return np.where(places < n * row, ZEROS, found).tobytes()
    return codes
