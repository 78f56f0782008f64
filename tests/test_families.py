"""Small files of every family of ternary models, as their makers publish them; skipped where they are not at hand.

Each folder holds files, `ids.json` with the prompts, and what transformers computes for them in float32.
"""

from __future__ import annotations

import functools
import json
import os
import struct
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import bitnet
from bitnet.cli import main
from closeness import EXACT, ROUNDED, distances
from conftest import ROOT
from reference import Reference

PACK = Path(os.environ.get("BITNET_FAMILIES", ROOT.parent / "shared" / "families"))
if not PACK.is_dir():
    pytest.skip(f"no families at {PACK}; set BITNET_FAMILIES to their folder", allow_module_level=True)

SAME_WEIGHTS = ("F16", "Q2_0", "Q2_0_g64", "PQ2_0", "PTQ1_0")  # files of the folder qwen3-plain
FLIPPED = 0.15  # the most that roundings of int8 which go the other way may do, in units of the spread

Floats = npt.NDArray[np.float32]


@functools.cache
def expected(folder: str) -> dict[str, Any]:
    """What `ids.json` of a folder holds."""
    found: dict[str, Any] = json.loads((PACK / folder / "ids.json").read_text())
    return found


def arrays(folder: str, name: str) -> dict[str, Floats]:
    """Arrays of a file of golden numbers."""
    with np.load(PACK / folder / name) as file:
        return dict(file)


def opened(path: Path, **options: Any) -> bitnet.Engine:
    """An engine with keys and values in float32, as the golden numbers were computed."""
    return bitnet.Engine(path, kv_type="f32", **options)


def golden_distances(engine: bitnet.Engine, folder: str, golden: str = "logits.npz") -> dict[int, npt.NDArray[Any]]:
    """Prompt length -> distance of each position from the golden logits, in units of their spread."""
    logits, spread = arrays(folder, golden), expected(folder)["spread"]
    return {
        int(n): distances(engine.logits(ids), logits[f"logits_{n}"], spread[n])
        for n, ids in expected(folder)["prompts"].items()
    }


def assert_int8_close(by_length: dict[int, npt.NDArray[Any]]) -> None:
    """Rounding noise up to the first input that rounds the other way, and no more than that may do after it."""
    for n, distance in by_length.items():
        flipped = np.flatnonzero(distance > EXACT)
        first = flipped[0] if len(flipped) else n
        assert distance[:first].max(initial=0) < 2e-5, (n, distance[:first].max())
        assert distance.max() < FLIPPED, n
        assert n > 7 or len(flipped) <= 1, (n, flipped)


# -- Architectures ----------------------------------------------------------------------------------------------------

# Files of the tensor types that every version of the engine reads, whose model takes float inputs.
FLOAT_FILES = [
    ("qwen3", "qwen3-TQ2_0.gguf", "logits-TQ2_0.npz"),
    ("qwen3-plain", "qwen3-plain-F16.gguf", "logits.npz"),
    ("minicpm", "minicpm-TQ2_0.gguf", "logits.npz"),
    ("trilm", "trilm-TQ2_0.gguf", "logits.npz"),
]
INT8_FILES = [
    ("falcon-e", "falcon-e-I2_S.gguf"),
    ("bitnet-1bitllm-32002", "bitnet-b1.58-arch-silu-I2_S.gguf"),
]
EMBEDDING_FILES = ["embedding-qwen3", "embedding-gemma3"]


@pytest.mark.parametrize(("folder", "file", "golden"), FLOAT_FILES, ids=lambda x: x)
def test_float_models_agree_at_every_position(folder: str, file: str, golden: str) -> None:
    with opened(PACK / folder / file, act_quant="none") as engine:
        for n, distance in golden_distances(engine, folder, golden).items():
            assert distance.max() < EXACT, (n, distance.argmax(), distance.max())


@pytest.mark.parametrize(("folder", "file"), INT8_FILES, ids=lambda x: x)
def test_int8_models_agree_up_to_flips(folder: str, file: str) -> None:
    with opened(PACK / folder / file) as engine:
        assert engine.act_quant == "int8"
        assert_int8_close(golden_distances(engine, folder))


def test_a_silu_model_that_nothing_in_its_file_tells_is_warned_of() -> None:
    folder = "bitnet-1bitllm"
    path = PACK / folder / "bitnet-b1.58-arch-silu-I2_S.gguf"
    with pytest.warns(bitnet.BitnetWarning, match="ffn_act"):
        opened(path).close()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with opened(path, ffn_act="silu") as engine:
            assert_int8_close(golden_distances(engine, folder))


@pytest.mark.parametrize("folder", EMBEDDING_FILES)
def test_states_of_embedding_models(folder: str) -> None:
    """The states behind the output norm, before pooling."""
    [path] = (PACK / folder).glob("*.gguf")
    states, spread = arrays(folder, "states.npz"), expected(folder)["spread"]
    with opened(path) as engine:
        assert engine.act_quant == "int8"
        found = {
            int(n): distances(np.array(engine.trace(ids, layers=[]).hidden), states[f"logits_{n}"], spread[n])
            for n, ids in expected(folder)["prompts"].items()
        }
        assert_int8_close(found)


@pytest.mark.parametrize("folder", EMBEDDING_FILES)
def test_vectors_of_embedding_models(folder: str) -> None:
    [path] = (PACK / folder).glob("*.gguf")
    vectors = arrays(folder, "vectors.npz")
    with opened(path) as engine:
        for n, ids in expected(folder)["prompts"].items():
            for pooling in ("mean", "last"):
                golden, found = vectors[f"{pooling}_{n}"], engine.embed(ids, pooling, normalize=True)
                assert abs(float(np.linalg.norm(found)) - 1) < 1e-6
                assert np.abs(found - golden).max() < FLIPPED * golden.std(), (n, pooling)
            assert np.array_equal(engine.embed(ids), engine.embed(ids, "mean")), "the file's pooling_type is 1"
        assert len(engine.generate([5, 6, 7], max_tokens=3, ignore_eos=True).token_ids) == 3


@pytest.mark.parametrize("folder", sorted(path.parent.name for path in PACK.glob("*/ids.json")))
def test_tokens(folder: str) -> None:
    """Ids of texts, ids that end an answer, and prompts of the model's own template."""
    facts = expected(folder)
    is_directory = (PACK / folder / "config.json").is_file()
    for path in [PACK / folder] if is_directory else sorted((PACK / folder).glob("*.gguf")):
        tokenizer = bitnet.Tokenizer(path)
        for case in facts.get("tokens", []):
            assert tokenizer.encode(case["text"], add_bos=False) == case["ids"], (path.name, case["text"])
            assert tokenizer.decode(case["ids"]) == case["text"]
        assert set(facts.get("stop", [])) <= set(tokenizer.stop_token_ids)
        if "chat" in facts:
            template = bitnet.Template.from_model(path)
            assert template.render(facts["chat"]["messages"]) == facts["chat"]["text"]


# -- Tensor types -----------------------------------------------------------------------------------------------------

# Models with a scale for each group of columns, which take float inputs.
GROUPED_FILES = [
    *(("qwen3-plain", f"qwen3-plain-{kind}.gguf", "logits.npz") for kind in SAME_WEIGHTS),
    ("qwen3", "qwen3-Q2_0.gguf", "logits.npz"),
    ("qwen3", "qwen3-PTQ1_0.gguf", "logits.npz"),
    ("qwen3", "qwen3-TQ2_0.gguf", "logits-TQ2_0.npz"),
    ("qwen3-1bit", "qwen3-1bit-Q1_0.gguf", "logits.npz"),
    ("minicpm", "minicpm-TQ2_0.gguf", "logits.npz"),
    ("trilm", "trilm-TQ2_0.gguf", "logits.npz"),
    ("stq1_0", "llama-STQ1_0.gguf", "logits.npz"),
]
# Models with gated delta nets, in which a rounded input also moves what later tokens remember.
DELTA_NET_FILES = [
    ("qwen35", "qwen35-Q2_0.gguf"),
    ("qwen35-hadamard", "qwen35-hadamard-PTQ1_0.gguf"),
]


@pytest.mark.parametrize(("folder", "file", "golden"), GROUPED_FILES, ids=lambda x: x)
def test_grouped_models_are_close_in_16_bits_and_exact_in_floats(folder: str, file: str, golden: str) -> None:
    path = PACK / folder / file
    for act_quant, most in (("auto", ROUNDED), ("int8", 0.15), ("none", EXACT)):
        with opened(path, act_quant=act_quant) as engine:
            assert engine.act_quant == ("int16" if act_quant == "auto" else act_quant)
            for n, distance in golden_distances(engine, folder, golden).items():
                assert distance.max() < most, (act_quant, n, distance.argmax(), distance.max())


@pytest.mark.parametrize(("folder", "file"), DELTA_NET_FILES, ids=lambda x: x)
def test_delta_nets_are_exact_in_24_bits_and_close_in_16(folder: str, file: str) -> None:
    for act_quant, most in (("auto", EXACT), ("none", EXACT), ("int16", 3 * ROUNDED)):
        with opened(PACK / folder / file, act_quant=act_quant) as engine:
            assert engine.act_quant == ("int24" if act_quant == "auto" else act_quant)
            for n, distance in golden_distances(engine, folder, "logits.npz").items():
                assert distance.max() < most, (act_quant, n, distance.argmax(), distance.max())


@pytest.mark.parametrize(("folder", "file"), DELTA_NET_FILES, ids=lambda x: x)
def test_the_reference_of_delta_nets_meets_the_golden_logits(folder: str, file: str) -> None:
    """The engine is compared with this reference on other shapes, so it must be right itself."""
    reference, golden, facts = Reference.open(PACK / folder / file), arrays(folder, "logits.npz"), expected(folder)
    for n, ids in facts["prompts"].items():
        found = distances(reference.logits(ids, "none"), golden[f"logits_{n}"], facts["spread"][n])
        assert found.max() < 5e-5, (n, found.argmax(), found.max())


def test_the_types_of_the_same_weights_give_the_same_bits() -> None:
    ids = expected("qwen3-plain")["prompts"]["40"]
    logits = []
    for kind in SAME_WEIGHTS:
        with opened(PACK / "qwen3-plain" / f"qwen3-plain-{kind}.gguf") as engine:
            logits.append(engine.logits(ids))
    # In groups of 64 the sums have twice as many parts.
    by_kind = dict(zip(SAME_WEIGHTS, logits, strict=True))
    assert not np.array_equal(by_kind.pop("Q2_0_g64"), logits[0])
    assert all(np.array_equal(found, logits[0]) for found in by_kind.values())


def test_rows_in_fours_give_the_bits_of_i2_s() -> None:
    ids = expected("falcon-e")["prompts"]["90"]
    found = []
    for kind in ("I2_S", "IQ2_BN_R4"):
        with opened(PACK / "falcon-e" / f"falcon-e-{kind}.gguf") as engine:
            assert engine.act_quant == "int8"
            found.append(engine.logits(ids))
    assert np.array_equal(*found)


@pytest.mark.parametrize("type_id", [39, 42])
def test_lookup_table_layouts_are_refused_by_name(type_id: int) -> None:
    path = PACK / "tl2" / f"bitnet-TL2-id{type_id}.gguf"
    with pytest.raises(bitnet.UnsupportedModelError, match=r"TL2 \(bitnet.cpp.*convert the model to I2_S"):
        bitnet.Engine(path)
    assert "TL2" in bitnet.inspect(path)["error"]
    assert bitnet.Tokenizer(path).encode("a", add_bos=False)


# -- Hugging Face directories -----------------------------------------------------------------------------------------

DIRECTORIES = sorted(path.parent.name for path in PACK.glob("*/config.json"))


@pytest.mark.parametrize("folder", DIRECTORIES)
def test_directories_agree_up_to_flips(folder: str) -> None:
    with opened(PACK / folder) as engine:
        assert engine.act_quant == "int8"
        assert_int8_close(golden_distances(engine, folder))


@pytest.mark.parametrize("folder", DIRECTORIES)
def test_chats_stop_where_the_directory_says(folder: str) -> None:
    facts = expected(folder)
    with opened(PACK / folder) as engine:
        assert set(facts.get("stop", [])) <= set(engine.tokenizer.stop_token_ids)
        if "chat" in facts:
            assert engine.template.render(facts["chat"]["messages"]) == facts["chat"]["text"]
        assert engine.chat([{"role": "user", "content": "Hi"}], max_tokens=3).text is not None


@pytest.mark.parametrize("folder", DIRECTORIES)
def test_a_receipt_replays_on_a_directory(folder: str) -> None:
    with opened(PACK / folder) as engine:
        receipt = engine.generate([1, 2, 3], max_tokens=4, ignore_eos=True).receipt
        assert receipt is not None
        receipt.validate()
        assert engine.replay(receipt)
        fingerprint = json.loads(receipt.to_json())["claim"]["model"]
    assert fingerprint == directory_fingerprint(PACK / folder)


def directory_fingerprint(folder: Path) -> str:
    """The fingerprint as docs/receipts.md defines it."""
    blake3 = pytest.importorskip("blake3")
    left_out = {"ids.json", "logits.npz", "README.md"}
    names = sorted(path.name for path in folder.iterdir() if path.name not in left_out)
    contents = [(name.encode(), (folder / name).read_bytes()) for name in names]
    parts = [struct.pack("<QQ", len(name), len(content)) + name + content for name, content in contents]
    digest: str = blake3.blake3(b"".join(parts)).hexdigest()
    return digest


@pytest.mark.parametrize("folder", DIRECTORIES)
def test_inspect_shows_directories(folder: str) -> None:
    found = bitnet.inspect(PACK / folder)
    assert (found["format"], found["version"], found["error"]) == ("safetensors", None, None)
    assert found["act_quant"] == "int8"
    assert {"U8", "BF16 master"} & set(found["types"])


def test_masters_are_the_packed_trits() -> None:
    """The same trits by another way: hf-bitnet-bf16 holds the master weights of hf-bitnet-packed."""
    with opened(PACK / "hf-bitnet-bf16") as masters, opened(PACK / "hf-bitnet-packed") as packed:
        made, stored = (engine.tensor("blk.1.ffn_down.weight").trits for engine in (masters, packed))
        assert made is not None
        assert stored is not None
        assert np.array_equal(made, stored)


@pytest.mark.parametrize("name", ["hf-falcon-e-packed", "hf-falcon-e-packed/config.json"])
def test_the_command_renders_the_template_of_a_directory(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["template", str(PACK / name), "--user", "hi"]) == 0
    assert capsys.readouterr().out.startswith("<|im_start|>user\nhi<|im_end|>")
