"""Packed models: the answers and digests of the model that was packed, memory that processes share, and files that are
damaged, foreign or of another version."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import shutil
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bitnet
from bitnet._gguf_writer import write_gguf
from bitnet._synthetic import Spec, make_model, metadata, tensors
from bitnet.cli import main
from conftest import ROOT, ModelMaker, message_of
from edited_model import floats

FIXTURES = sorted((ROOT / "tests" / "fixtures").glob("*.gguf"))
LAYOUTS: tuple[Any, ...] = ("two-bit", "base3")
# Heads that have a copy: in 8 bits, and as packed trits.
HEADS = {
    "f16": Spec("bitnet-b1.58", 1, 256, 256, 4, 2, vocab_size=6000, context=128, untied=True),
    "q2_0": Spec(
        "qwen3", 1, 640, 256, 5, 1, 128, 12000, 128, untied=True, linear="Q2_0_g128", embedding="Q2_0_g128", group=128
    ),
}
IDS = [1, 2, 3, 4, 5, 6, 7] * 5


def pack(model: Path | str, folder: Path, layout: Any = "auto") -> Path:
    out = folder / f"{layout}.packed"
    bitnet.pack(model, out, layout=layout, n_threads=1)
    return out


def digests(engine: bitnet.Engine) -> list[str]:
    """Of an answer that takes the likeliest tokens, and of one that draws from all of them."""
    plans: list[dict[str, Any]] = [{"seed": 1}, {"seed": 2, "temperature": 1.5}]
    receipts = [engine.generate(IDS, max_tokens=6, **plan).receipt for plan in plans]
    return [receipt.digest for receipt in receipts if receipt is not None]


def assert_same(model: Path | str, packed: Path, **options: Any) -> None:
    """Logits, answers and digests of both are equal, bit for bit."""
    with bitnet.Engine(model, n_threads=1, **options) as a, bitnet.Engine(packed, n_threads=1, **options) as b:
        np.testing.assert_array_equal(a.logits(IDS), b.logits(IDS))
        assert (a.act_quant, a.act_quant, sorted(a.warnings)) == (b.act_quant, b.act_quant, sorted(b.warnings))
        assert digests(a) == digests(b)
        assert len(digests(a)) == 2


@pytest.mark.filterwarnings("ignore::bitnet.BitnetWarning")
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("model", [*FIXTURES, "trit"], ids=lambda model: Path(model).stem)
def test_a_packed_model_is_the_model_bit_for_bit(model: Path | str, layout: Any, tmp_path: Path) -> None:
    packed = pack(model, tmp_path, layout)
    for isa in bitnet.isas():
        assert_same(model, packed, isa=isa)
    assert bitnet.inspect(packed)["format"] == "packed"
    assert bitnet.check_packed(packed, model, n_threads=1)["layout"] == layout


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("spec", HEADS.values(), ids=list(HEADS))
def test_the_copy_of_the_output_head_is_packed_too(model: ModelMaker, spec: Spec, layout: Any, tmp_path: Path) -> None:
    path = model(spec)
    packed = pack(path, tmp_path, layout)
    assert_same(path, packed)
    assert_same(path, packed, lm_head="exact")
    with bitnet.Engine(path, n_threads=1) as a, bitnet.Engine(packed, n_threads=1) as b:
        mapped = b.memory["mapped_weights"]
        assert (a.memory["packed_weights"] > 0, b.memory["packed_weights"]) == (True, 0)
        assert a.per_token["ternary_macs"] == b.per_token["ternary_macs"]
        for engine in (a, b):
            engine.generate(IDS, max_tokens=2)
        assert a.memory["head_copy"] > 100_000
        # Some numbers of each row are read when the model is opened.
        assert b.memory["head_copy"] <= 12 * spec.vocab_size
        assert b.memory["mapped_weights"] == mapped
        own_layout = bitnet.pack(path, tmp_path / "own.gguf")["layout"]
        assert a.per_token["weight_bytes"] == b.per_token["weight_bytes"] or layout != own_layout
    if spec is HEADS["f16"]:
        assert_same(path, packed, lm_head="int8")


@pytest.mark.parametrize("act_quant", ["int8", "int16", "int24", "none"])
@pytest.mark.parametrize("name", ["relu2-i2s", "llama-iq2bn", "llama-ptq1", "llama-q2-g64", "qwen3-norm-in"])
def test_other_activations_give_the_same_bits(name: str, act_quant: str, tmp_path: Path) -> None:
    path = ROOT / "tests" / "fixtures" / f"{name}.gguf"
    packed = pack(path, tmp_path, "base3")
    assert_same(path, packed, act_quant=act_quant)


def test_a_scale_in_a_tensor_of_its_own_is_multiplied_once(tmp_path: Path) -> None:
    spec = HEADS["f16"]
    factor = floats("blk.0.attn_q.scale", [3.3])
    write_gguf(tmp_path / "model.gguf", metadata(spec), [*tensors(spec), factor])
    packed = pack(tmp_path / "model.gguf", tmp_path)
    for act_quant in ("auto", "int16", "none"):
        assert_same(tmp_path / "model.gguf", packed, act_quant=act_quant)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", ["relu2-i2s", "llama-ptq1", "qwen35-hybrid"])
def test_tensors_of_a_packed_model_can_be_looked_at(name: str, layout: Any, tmp_path: Path) -> None:
    path = ROOT / "tests" / "fixtures" / f"{name}.gguf"
    packed = pack(path, tmp_path, layout)
    with bitnet.Engine(path, n_threads=1) as a, bitnet.Engine(packed, n_threads=1) as b:
        assert set(a.tensor_names) <= set(b.tensor_names)
        for tensor in a.tensor_names:
            one, other = a.tensor(tensor), b.tensor(tensor)
            assert (one.trits is None) == (other.trits is None), tensor
            np.testing.assert_array_equal(one.to_float(), other.to_float(), tensor)
    zeros = [{t["name"]: t["zeros"] for t in bitnet.inspect(file, weights=True)["tensors"]} for file in (path, packed)]
    assert zeros[0] == {name: zeros[1][name] for name in zeros[0]}


def test_receipts_replay_on_both(text_model: Path, tmp_path: Path) -> None:
    packed = pack(text_model, tmp_path)
    with bitnet.Engine(text_model, n_threads=1) as a, bitnet.Engine(packed, n_threads=1) as b:
        messages = [{"role": "user", "content": "hello world"}]
        receipts = [engine.chat(messages, max_tokens=6, seed=4).receipt for engine in (a, b)]
        assert receipts[0] is not None
        assert receipts[1] is not None
        assert receipts[0].digest == receipts[1].digest
        assert receipts[0].to_dict()["model_info"] == receipts[1].to_dict()["model_info"]
        assert receipts[1].to_dict()["model_info"]["file"] == text_model.name
        assert a.replay(receipts[1])
        assert b.replay(receipts[0])


# -- Other inputs -----------------------------------------------------------------------------------------------------


def make_directory(folder: Path) -> Path:
    """A Llama in Hugging Face's form: floats of which trits are made, a tokenizer and a template in files of their
    own."""
    folder.mkdir()
    rng = np.random.default_rng(3)
    width, ffn, layers, vocab = 64, 96, 2, 500
    shapes = {"self_attn.q_proj": (width, width), "self_attn.k_proj": (32, width), "self_attn.v_proj": (32, width)}
    shapes |= {"self_attn.o_proj": (width, width), "mlp.gate_proj": (ffn, width), "mlp.up_proj": (ffn, width)}
    shapes |= {"mlp.down_proj": (width, ffn)}
    arrays = {"model.embed_tokens.weight": rng.standard_normal((vocab, width)), "model.norm.weight": np.ones(width)}
    for layer in range(layers):
        prefix = f"model.layers.{layer}"
        arrays |= {f"{prefix}.{name}.weight": rng.standard_normal(shape) for name, shape in shapes.items()}
        arrays |= {
            f"{prefix}.{name}.weight": np.ones(width) for name in ("input_layernorm", "post_attention_layernorm")
        }
    header, data = {}, b""
    for name, array in arrays.items():
        encoded = array.astype(np.float32).tobytes()
        offsets = [len(data), len(data) + len(encoded)]
        header[name] = {"dtype": "F32", "shape": list(array.shape), "data_offsets": offsets}
        data += encoded
    text = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data)
    config = {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": width,
        "intermediate_size": ffn,
        "num_hidden_layers": layers,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "vocab_size": vocab,
        "max_position_embeddings": 128,
        "tie_word_embeddings": True,
        "quantization_config": {
            "quant_method": "bitnet",
            "linear_class": "autobitlinear",
            "quantization_mode": "online",
        },
    }
    (folder / "config.json").write_text(json.dumps(config))
    tokenizer = ROOT / "tests" / "fixtures" / "tokenizers" / "bytes"
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        shutil.copy(tokenizer / name, folder / name)
    (folder / "chat_template.jinja").write_text("{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}")
    others = folder / "additional_chat_templates"
    others.mkdir()
    (others / "short.jinja").write_text("{{ messages[0].content }}")
    return folder


def test_a_directory_is_packed_with_its_tokenizer_and_templates(tmp_path: Path) -> None:
    folder = make_directory(tmp_path / "Model-of-Somebody")
    away = tmp_path / "elsewhere"
    packed = pack(folder, away)
    assert_same(folder, packed)
    assert bitnet.check_packed(packed, folder)["model_file"] == "Model-of-Somebody"
    text = "Hello, world! Ünïcode"
    with bitnet.Engine(folder, n_threads=1) as a, bitnet.Engine(packed, n_threads=1) as b:
        assert a.act_quant == b.act_quant == "int8"
        assert a.tokenizer.encode(text) == b.tokenizer.encode(text)
        assert a.template.source == b.template.source
        for template in (None, "short"):
            messages = [{"role": "user", "content": "Hi"}]
            plan: dict[str, Any] = {"max_tokens": 5, "seed": 2, "template": template}
            receipts = [engine.chat(messages, **plan).receipt for engine in (a, b)]
            assert receipts[0] is not None
            assert receipts[1] is not None
            assert receipts[0].digest == receipts[1].digest
            assert a.replay(receipts[1])
            assert b.replay(receipts[0])
    # Both are also found without the weights, and what lies beside the packed file does not count.
    (away / "tokenizer.json").write_text("{}")
    (away / "chat_template.jinja").write_text("other")
    assert bitnet.Tokenizer(packed).encode(text) == bitnet.Tokenizer(folder).encode(text)
    assert bitnet.Template.from_model(packed).source == bitnet.Template.from_model(folder).source


def test_a_tokenizer_beside_a_model_file_is_packed(tmp_path: Path) -> None:
    spec = dataclasses.replace(HEADS["f16"], vocab_size=300)
    home = tmp_path / "home"
    home.mkdir()
    keys = {key: value for key, value in metadata(spec).items() if not key.startswith("tokenizer.")}
    write_gguf(home / "model.gguf", keys, [*tensors(spec)])
    shutil.copy(ROOT / "tests" / "fixtures" / "tokenizers" / "bytes" / "tokenizer.json", home)
    packed = pack(home / "model.gguf", tmp_path)
    assert bitnet.Tokenizer(packed).encode("Hello") == bitnet.Tokenizer(home / "model.gguf").encode("Hello")
    assert_same(home / "model.gguf", packed)
    alone = tmp_path / "alone"
    alone.mkdir()
    shutil.copy(home / "model.gguf", alone)
    none = pack(alone / "model.gguf", alone)
    shutil.copy(home / "tokenizer.json", alone)
    assert "the model that was packed has no tokenizer" in message_of(bitnet.ModelError, bitnet.Tokenizer, none)


def test_a_split_model_is_packed_as_one_file(tmp_path: Path) -> None:
    spec = HEADS["f16"]
    all_tensors = list(tensors(spec))
    for number, part in enumerate((all_tensors[:4], all_tensors[4:])):
        keys = metadata(spec) if number == 0 else {}
        keys |= {"split.no": number, "split.count": 2, "split.tensors.count": len(all_tensors)}
        write_gguf(tmp_path / f"m-{number + 1:05}-of-00002.gguf", keys, part)
    first = tmp_path / "m-00001-of-00002.gguf"
    packed = pack(first, tmp_path)
    first_size = sum(path.stat().st_size for path in tmp_path.glob("m-*.gguf"))
    assert bitnet.check_packed(packed, first)["model_bytes"] == first_size
    moved = packed.rename(tmp_path / "moved")
    assert_same(first, moved)


# -- What is refused --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pack(ROOT / "tests" / "fixtures" / "llama-ptq1.gguf", tmp_path_factory.mktemp("packed"), "base3")


def test_models_without_ternary_projections_are_refused(tmp_path: Path) -> None:
    spec = dataclasses.replace(HEADS["f16"], vocab_size=96, linear="F16")
    dense = [
        floats(t.name, np.random.default_rng(1).standard_normal(t.shape)) if "attn_q" in t.name else t
        for t in tensors(spec)
    ]
    write_gguf(tmp_path / "model.gguf", metadata(spec), dense)
    error = message_of(bitnet.UnsupportedModelError, pack, tmp_path / "model.gguf", tmp_path)
    assert "there is nothing to pack: the projections stay as the file stores them" in error
    assert [path.name for path in tmp_path.iterdir()] == ["model.gguf"]


def test_files_are_not_written_over(packed: Path, tmp_path: Path) -> None:
    model = shutil.copy(ROOT / "tests" / "fixtures" / "relu2-i2s.gguf", tmp_path / "model.gguf")
    out = tmp_path / "out"
    out.write_text("mine")
    error = message_of(bitnet.ArgumentError, bitnet.pack, model, out)
    assert error == f"{out} exists; give another path, or force=True to replace it"
    assert out.read_text() == "mine"
    bitnet.pack(model, out, force=True)
    bitnet.check_packed(out, model)
    error = message_of(bitnet.ArgumentError, lambda: bitnet.pack(model, model, force=True))
    assert error == f"{model} is the model itself; give another path for the packed file"
    error = message_of(bitnet.ArgumentError, bitnet.pack, packed, tmp_path / "again")
    assert error == f"{packed} is packed already, from 'llama-ptq1.gguf'; give the original model"
    error = message_of(bitnet.ArgumentError, bitnet.check_packed, model)
    assert "is not a packed model" in error
    assert {path.name for path in tmp_path.iterdir()} == {"model.gguf", "out"}


def test_a_shorter_file_is_refused(packed: Path, tmp_path: Path) -> None:
    whole = packed.read_bytes()
    short = tmp_path / "short"
    for length in [0, 1, 100, 5000, len(whole) // 2, len(whole) - 5000, len(whole) - 64, len(whole) - 1]:
        short.write_bytes(whole[:length])
        message_of(bitnet.ModelFileError, bitnet.Engine, short)


def replaced(data: bytes, old: bytes, new: bytes) -> bytes:
    assert data.count(old) == 1, old
    assert len(old) == len(new)
    return data.replace(old, new)


def entry(key: str, kind: int, value: bytes) -> bytes:
    name = f"bitnet_pack.{key}".encode()
    return struct.pack("<Q", len(name)) + name + struct.pack("<I", kind) + value


def test_another_version_is_refused_by_name(packed: Path, tmp_path: Path) -> None:
    version = entry("version", 4, struct.pack("<I", 1))
    newer = tmp_path / "newer"
    newer.write_bytes(replaced(packed.read_bytes(), version, version[:-4] + struct.pack("<I", 2)))
    expected = "is a packed model of format version 2, but this version of the engine reads 1; pack the original"
    for call in (bitnet.Engine, bitnet.Tokenizer, bitnet.check_packed):
        assert expected in message_of(bitnet.UnsupportedModelError, call, newer)
    assert expected in str(bitnet.inspect(newer)["error"])


def test_packed_types_count_in_packed_models_only(packed: Path, tmp_path: Path) -> None:
    """A file whose keys were removed, or misspelled, is not taken for a model."""
    other = tmp_path / "other"
    data = packed.read_bytes()
    other.write_bytes(data.replace(b"bitnet_pack.", b"bitnet_puck."))
    assert "of packed models, but the keys of one are missing" in message_of(
        bitnet.ModelFileError, bitnet.Engine, other
    )
    other.write_bytes(data.replace(b"bitnet_pack.layout", b"bitnet_pack.lay0ut"))
    error = message_of(bitnet.ModelFileError, bitnet.Engine, other)
    assert "key 'bitnet_pack.layout' of a packed model is missing" in error


def test_a_changed_byte_is_found_by_the_check(packed: Path, tmp_path: Path) -> None:
    data = packed.read_bytes()
    changed = tmp_path / "changed"
    fingerprint = bitnet.check_packed(packed)["fingerprint"].encode()
    assert data.count(fingerprint) == 1
    at = data.index(fingerprint)
    for place in (at, len(data) // 2, len(data) - 1):
        digit = b"1" if data[place : place + 1] == b"0" else b"0"
        changed.write_bytes(data[:place] + digit + data[place + 1 :])
        assert "it is damaged" in message_of(bitnet.ModelFileError, bitnet.check_packed, changed)


def test_a_false_fingerprint_is_found_with_the_model(packed: Path, tmp_path: Path) -> None:
    """Somebody may give a packed file another fingerprint and the hash that then belongs to its content."""
    data = packed.read_bytes()
    facts = bitnet.check_packed(packed)
    model = ROOT / "tests" / "fixtures" / "llama-ptq1.gguf"
    changed = tmp_path / "changed"

    def forge(old: bytes, new: bytes) -> None:
        changed.write_bytes(replaced(data, old, new))
        error = message_of(bitnet.ModelFileError, bitnet.check_packed, changed)
        found = error.split("has the hash ")[1][:64].encode()
        changed.write_bytes(replaced(replaced(data, old, new), facts["content"].encode(), found))
        bitnet.check_packed(changed)

    forge(facts["fingerprint"].encode(), b"0" * 64)
    error = message_of(bitnet.ModelFileError, bitnet.check_packed, changed, model)
    assert "it tells the fingerprint 000" in error
    # Other weights under the right fingerprint.
    place = len(data) * 2 // 3
    forge(data[place : place + 64], bytes(byte ^ 1 for byte in data[place : place + 64]))
    error = message_of(bitnet.ModelFileError, bitnet.check_packed, changed, model)
    assert "its weights or its metadata are others" in error
    other = ROOT / "tests" / "fixtures" / "relu2-i2s.gguf"
    assert "it tells the fingerprint" in message_of(bitnet.ModelFileError, bitnet.check_packed, packed, other)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", ["relu2-i2s", "llama-ptq1"])
def test_damaged_words_give_other_numbers_and_nothing_worse(name: str, layout: Any, tmp_path: Path) -> None:
    whole = pack(ROOT / "tests" / "fixtures" / f"{name}.gguf", tmp_path, layout).read_bytes()
    start = len(whole) // 4  # behind the header
    rng = np.random.default_rng(5)
    path = tmp_path / "damaged"
    for _ in range(12):
        data = bytearray(whole)
        for place in rng.integers(start, len(whole) - 64, 40):
            data[place : place + 64] = rng.integers(0, 256, 64, np.uint8).tobytes()
        path.write_bytes(data)
        for isa in bitnet.isas():
            try:
                with bitnet.Engine(path, n_threads=1, isa=isa) as engine:
                    engine.generate(IDS, max_tokens=3)
            except (bitnet.ModelError, bitnet.ModelFileError):
                pass  # a norm or a scale that is not finite, or logits that are not


def test_a_damaged_copy_of_the_head_still_gives_an_answer(model: ModelMaker, tmp_path: Path) -> None:
    data = bytearray(pack(model(HEADS["f16"]), tmp_path).read_bytes())
    data[-4 * 6000 :] = struct.pack("<6000f", *[-1e30] * 6000)  # the errors: no interval contains anything
    path = tmp_path / "damaged"
    path.write_bytes(data)
    with bitnet.Engine(path, n_threads=1) as engine:
        assert len(engine.generate(IDS, max_tokens=3, ignore_eos=True).token_ids) == 3


def test_scales_that_are_not_finite_are_refused(packed: Path, tmp_path: Path) -> None:
    with bitnet.Engine(packed, n_threads=1) as engine:
        rows = engine.tensor("blk.0.attn_q.weight").shape[0]
    names = [tensor["name"] for tensor in bitnet.inspect(packed)["tensors"]]
    assert "blk.0.attn_q.weight" in names
    data = packed.read_bytes()
    ones = np.ones(rows, np.float32).tobytes()
    at = data.index(ones)
    path = tmp_path / "damaged"
    path.write_bytes(data[:at] + struct.pack("<f", float("nan")) + data[at + 4 :])
    assert "the scale of row 0 is NaN" in message_of(bitnet.ModelError, bitnet.Engine, path)


def test_other_readers_refuse_the_file_by_name(packed: Path) -> None:
    gguf = pytest.importorskip("gguf")
    with pytest.raises(ValueError, match="1112801"):  # the id of the type, "BT" and a number
        gguf.GGUFReader(packed)


# -- Memory -----------------------------------------------------------------------------------------------------------


def _private_bytes(path: str, ready: Any, out: Any) -> None:
    """The memory that this process has for itself, while others use the same file."""
    with bitnet.Engine(path, n_threads=1) as engine:
        engine.generate(IDS, max_tokens=2)
        ready.wait(120)
        lines = Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]
        sizes = {line.split(":")[0]: int(line.split()[1]) << 10 for line in lines}
        ready.wait(120)
    out.put(sizes["Private_Clean"] + sizes["Private_Dirty"])


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="needs Linux's /proc")
def test_processes_share_the_weights(tmp_path: Path) -> None:
    spec = Spec("bitnet-b1.58", 8, 1024, 4096, 8, 2, vocab_size=20_000, context=128, untied=True)
    make_model(tmp_path / "model.gguf", spec)
    packed = pack(tmp_path / "model.gguf", tmp_path, "two-bit")
    context = multiprocessing.get_context("spawn")

    def private(path: Path) -> list[int]:
        ready, out = context.Barrier(2), context.Queue()
        workers = [context.Process(target=_private_bytes, args=(str(path), ready, out)) for _ in range(2)]
        for worker in workers:
            worker.start()
        found = [out.get(timeout=120) for _ in workers]
        for worker in workers:
            worker.join()
        return found

    with bitnet.Engine(tmp_path / "model.gguf", n_threads=1) as engine:
        engine.generate(IDS, max_tokens=2)
        weights = engine.memory["packed_weights"] + engine.memory["head_copy"]
    assert weights > 45_000_000
    apart, shared = private(tmp_path / "model.gguf"), private(packed)
    assert min(apart) - max(shared) > 0.9 * weights, (apart, shared, weights)


# -- The command ------------------------------------------------------------------------------------------------------


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, out = ROOT / "tests" / "fixtures" / "relu2-i2s.gguf", tmp_path / "out.packed"
    assert main(["pack", str(model), str(out), "--layout", "two-bit", "-t", "1"]) == 0
    shown = capsys.readouterr()
    assert shown.out.startswith(f"packed       {out} (two-bit, 107 kB)\nmodel        relu2-i2s.gguf")
    assert main(["pack", "--check", str(out)]) == 0
    assert "is whole; it says that it is relu2-i2s.gguf" in capsys.readouterr().out
    assert main(["pack", "--check", str(out), str(model)]) == 0
    assert f"is whole; it is {model} packed" in capsys.readouterr().out
    assert main(["pack", str(model), str(out)]) == 2
    assert capsys.readouterr().err == f"bitnet: {out} exists; give another path, or --force to replace it\n"
    assert main(["pack", str(model), str(out), "--force"]) == 0
    capsys.readouterr()
    assert main(["pack", str(model)]) == 2
    assert "MODEL and OUT are required" in capsys.readouterr().err
    assert main(["pack", "--check", str(out), str(model), "x"]) == 2
    assert "--check takes no OUT" in capsys.readouterr().err
    assert main(["inspect", str(out)]) == 0
    shown_out = capsys.readouterr().out
    assert "packed model" in shown_out
    assert "relu2-i2s.gguf" in shown_out


@pytest.mark.skipif(os.name == "nt", reason="signals are other ones")
def test_ctrl_c_leaves_no_half_file(tmp_path: Path) -> None:
    spec = Spec("bitnet-b1.58", 4, 1024, 4096, 8, 2, vocab_size=40_000, context=128, untied=True)
    make_model(tmp_path / "model.gguf", spec)
    folder = tmp_path / "out"
    folder.mkdir()
    command = [sys.executable, "-m", "bitnet", "pack", str(tmp_path / "model.gguf"), str(folder / "packed"), "-t", "1"]
    for _ in range(20):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None and not list(folder.iterdir()):
            time.sleep(0.001)
        process.send_signal(signal.SIGINT)
        status = process.wait(60)
        left = [path.name for path in folder.iterdir()]
        if status == 130:
            assert left == []
            return
        # The interrupt came when all was written.
        assert (status, left) == (0, ["packed"])
        bitnet.check_packed(folder / "packed")
        (folder / "packed").unlink()
    pytest.fail("no interrupt came in time")


# -- Stored files -----------------------------------------------------------------------------------------------------

OLD = sorted((ROOT / "tests" / "fixtures").glob("packed-v*/*.packed"))


def test_there_are_old_packed_files() -> None:
    assert {path.stem for path in OLD} >= {"relu2-i2s", "llama-ptq1"}


@pytest.mark.parametrize("path", OLD, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_packed_files_of_earlier_versions_stay_readable(path: Path) -> None:
    """Never write them again: a new version of the format adds a folder of its own."""
    bitnet.check_packed(path)
    model = ROOT / "tests" / "fixtures" / f"{path.stem}.gguf"
    expected = json.loads((path.parent / "digests.json").read_text())[path.stem]
    with bitnet.Engine(path, n_threads=1) as engine:
        assert digests(engine) == expected
    if model.exists():
        assert_same(model, path)
