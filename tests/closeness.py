"""How close is right: two correct programs agree to rounding noise until an activation at a half rounds the other way.

Then one step of int8 moves the logits of that and all later positions by up to a few percent of their spread.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

EXACT = 1e-4  # in units of the spread: noise without such a flip
ROUNDED = 1e-3  # activations of 16 bits, against float32
FLIPPED = 0.1  # the most that flips may do


def distances(found: npt.NDArray[Any], expected: npt.NDArray[Any], spread: float) -> npt.NDArray[Any]:
    """The largest difference of each position, in units of the spread of the logits; NaN counts as infinite."""
    assert found.shape == expected.shape, f"shape {found.shape}, expected {expected.shape}"
    largest: npt.NDArray[Any] = np.abs(found.astype(np.float64) - expected).max(axis=1) / spread
    return np.where(np.isnan(largest), np.inf, largest)
