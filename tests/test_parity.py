"""Published formats and golden numbers of tools that are not ours; skipped where the parity pack is not at hand."""

from __future__ import annotations

import functools
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import bitnet
from closeness import EXACT, FLIPPED, distances
from conftest import ROOT
from reference import Reference

PACK = Path(os.environ.get("BITNET_PARITY", ROOT.parent / "shared" / "parity"))
if not PACK.is_dir():
    pytest.skip(f"no parity pack at {PACK}; set BITNET_PARITY to its folder", allow_module_level=True)

FILES = sorted(path for folder in ("relu2", "silu400", "llama") for path in (PACK / folder).glob("*.gguf"))
OWN_EMBEDDING = [path for path in FILES if "qembd" in path.stem]  # other logits than the rest of their folder
GOLDEN = [path for path in FILES if path not in OWN_EMBEDDING]

Logits = npt.NDArray[np.float32]
golden_files = pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)


@functools.cache
def prompts(folder: Path) -> list[dict[str, Any]]:
    """The golden prompts of a folder, each with its logits."""
    found: list[dict[str, Any]] = json.loads((folder / "goldens.json").read_text())["prompts"]
    with np.load(folder / "logits.npz") as arrays:
        return [prompt | {"logits": arrays[prompt["logits"]]} for prompt in found]


@functools.cache
def computed(path: Path) -> list[Logits]:
    """The engine's logits for the golden prompts."""
    with bitnet.Engine(path, kv_type="f32") as engine:
        assert engine.act_quant == "int8"
        return [engine.logits(prompt["ids"]) for prompt in prompts(path.parent)]


def golden_distances(path: Path) -> dict[int, npt.NDArray[Any]]:
    """Prompt length -> distance of each position from the golden logits."""
    pairs = zip(prompts(path.parent), computed(path), strict=True)
    return {len(p["ids"]): distances(found, p["logits"], p["spread"]) for p, found in pairs}


def test_the_pack_is_whole() -> None:
    assert len(GOLDEN) == 14
    assert {len(p["ids"]) for path in GOLDEN for p in prompts(path.parent)} == {1, 7, 64, 200}


@golden_files
def test_short_prompts(path: Path) -> None:
    """1 and 7 tokens: rounding noise everywhere, but for one flip at most."""
    exact = {n: bool((d < EXACT).all()) for n, d in golden_distances(path).items() if n <= 7}
    assert sum(exact.values()) >= len(exact) - 1, exact


@golden_files
def test_64_tokens(path: Path) -> None:
    """Nine of ten positions show rounding noise only."""
    distance = golden_distances(path)[64]
    assert (distance < EXACT).mean() >= 0.9, f"first flip at position {np.argmax(distance >= EXACT)}"


@golden_files
def test_all_prompts(path: Path) -> None:
    """No flip moves any position further than a tenth of the spread."""
    worst = {n: d.max() for n, d in golden_distances(path).items()}
    assert max(worst.values()) < FLIPPED, worst


@golden_files
def test_greedy(path: Path) -> None:
    """The golden continuation, up to the first step whose best two logits lie as close as flips can move them."""
    with bitnet.Engine(path, kv_type="f32") as engine:
        for prompt in prompts(path.parent):
            noise = FLIPPED * prompt["spread"]
            steps = next((i for i, margin in enumerate(prompt["margin"]) if margin < noise), len(prompt["margin"]))
            found = engine.generate_tokens(prompt["ids"], max_tokens=len(prompt["greedy"]))
            assert len(found) == len(prompt["greedy"])
            assert found[:steps] == prompt["greedy"][:steps]


@golden_files
def test_same_bits_in_every_format(path: Path) -> None:
    """One folder, one model: however its trits are stored, not one bit of the logits differs."""
    first = next(other for other in GOLDEN if other.parent == path.parent)
    for found, expected in zip(computed(path), computed(first), strict=True):
        assert np.array_equal(found, expected)


@pytest.mark.parametrize("path", OWN_EMBEDDING, ids=lambda path: path.stem)
def test_quantized_embedding(path: Path) -> None:
    """Q4_K embedding and Q6_K output, which the goldens do not cover, against the reference."""
    reference = Reference.open(path)
    exact = {}
    for prompt, found in zip(prompts(path.parent), computed(path), strict=True):
        expected = reference.logits(prompt["ids"], "int8")
        distance = distances(found, expected, float(expected.std()))
        assert distance.max() < FLIPPED
        exact[len(distance)] = bool((distance < EXACT).all())
    assert exact[1] or exact[7], exact


@pytest.mark.parametrize("name", ["relu2/relu2-F16", "silu400/silu400-F16", "llama/llama-TQ2_0"])
def test_the_reference_itself(name: str) -> None:
    """What the other tests compare the engine with gives the golden numbers, too."""
    path = PACK / f"{name}.gguf"
    reference = Reference.open(path)
    for prompt in prompts(path.parent)[:3]:
        distance = distances(reference.logits(prompt["ids"], "int8"), prompt["logits"], prompt["spread"])
        assert (distance < EXACT).mean() >= 0.9
        assert distance.max() < FLIPPED
