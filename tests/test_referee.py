"""The referee, a second implementation in NumPy: its arithmetic, its logits, its verdicts, its independence."""

from __future__ import annotations

import ast
import copy
import dataclasses
import functools
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import blake3
import numpy as np
import numpy.typing as npt
import pytest

import bitnet
from bitnet import models, referee
from bitnet._gguf_writer import write_gguf
from bitnet._synthetic import Spec, metadata, tensors
from conftest import ROOT, ModelMaker, message_of
from edited_model import floats

FOLDER = ROOT / "python" / "bitnet" / "referee"
PARITY = Path(os.environ.get("BITNET_PARITY", ROOT.parent / "shared" / "parity"))
FIXTURES = ROOT / "tests" / "fixtures"
Floats = npt.NDArray[np.float32]

# Logits, bit for bit.


def assert_same_logits(path: Path, ids: list[int], kv_type: Any = "f16", act_quant: Any = "int8") -> None:
    with bitnet.Engine(path, kv_type=kv_type, act_quant=act_quant, n_threads=1) as engine:
        expected = engine.logits(ids)
    settings = {"kv_type": kv_type, "act_quant": act_quant, "ffn_act": bitnet.inspect(path)["activation"]}
    found = referee.Model(path).logits(ids, **settings)
    assert found.dtype == np.float32
    assert found.tobytes() == expected.tobytes()
    assert referee.Model(path).logits(ids, len(ids) - 2, **settings).tobytes() == expected[-2:].tobytes()


SMALL = Spec(width=256, ffn=512, vocab_size=101)
SHAPES = {
    "2b-4t-like": SMALL,
    "bitnet-25-untied": dataclasses.replace(SMALL, arch="bitnet-25", untied=True, output="Q6_K", embedding="Q4_K"),
    "llama": dataclasses.replace(SMALL, arch="llama", eps=1e-6, rope_theta=1000042.0, untied=True, embedding="BF16"),
    "heads-of-100": Spec("bitnet", 2, 400, 1088, 4, 4, vocab_size=96, rope_theta=1e4),
    "heads-of-36": Spec("bitnet", 2, 144, 208, 4, 2, vocab_size=97),
    "i2s-rows-across-blocks": Spec("bitnet-b1.58", 3, 80, 208, 4, 2, vocab_size=67),
    "wider-attention": Spec("llama", 2, 128, 256, 6, 2, 48, vocab_size=48, untied=True),
    "iq2-bn": dataclasses.replace(SMALL, arch="llama", linear="IQ2_BN", shards=2),
    "long-rows": Spec("bitnet-b1.58", 1, 64, 23040, 2, 1, vocab_size=48),
    "nothing-aligned": Spec("bitnet-b1.58", 2, 30, 50, 3, 1, vocab_size=33, linear="F32", embedding="F32"),
    "linear-rope": dataclasses.replace(SMALL, rope_scaling="linear", rope_factor=3.0, linear="TQ1_0", embedding="Q8_0"),
    "rows-with-own-scales": dataclasses.replace(SMALL, arch="llama", linear="IQ1_BN", shards=2),
}


@pytest.mark.parametrize("spec", SHAPES.values(), ids=SHAPES)
def test_logits_of_many_shapes(model: ModelMaker, spec: Spec) -> None:
    assert_same_logits(model(spec), np.random.default_rng(1).integers(0, spec.vocab_size, 12).tolist())


@pytest.mark.parametrize("arch", ["bitnet-b1.58", "llama"])
def test_logits_with_float_activations(model: ModelMaker, arch: str) -> None:
    assert_same_logits(model(dataclasses.replace(SMALL, arch=arch, ffn=320)), [3, 1, 4, 1, 5], "f32", "none")


def test_logits_with_separate_scales_biases_and_divisors(tmp_path: Path) -> None:
    extra = [floats("blk.0.attn_q.scale", [0.3]), floats("blk.1.ffn_up.bias", np.linspace(-1, 1, 512))]
    extra.append(floats("rope_freqs.weight", np.linspace(1, 5, 32)))
    path = tmp_path / "model.gguf"
    write_gguf(path, metadata(SMALL), [*tensors(SMALL), *extra])
    for act_quant in ("int8", "none"):
        assert_same_logits(path, [5, 7, 11, 13, 17], act_quant=act_quant)


@pytest.mark.parametrize("name", ["relu2-i2s", "silu-odd"])
def test_logits_of_stored_models(name: str) -> None:
    assert_same_logits(FIXTURES / f"{name}.gguf", [1, 2, 3, 5, 8, 13, 21])


def test_logits_computed_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of the attention's rows and of the output head, as long texts and large vocabularies have them."""
    monkeypatch.setattr("bitnet.referee.model._VALUES_AT_ONCE", 150_000)
    assert_same_logits(models.inside(), np.random.default_rng(2).integers(0, 582, 230).tolist())


FILES = sorted(path for folder in ("relu2", "silu400", "llama") for path in (PARITY / folder).glob("*.gguf"))
parity = pytest.mark.skipif(not FILES, reason="needs the parity pack; set BITNET_PARITY to its folder")


@parity
def test_the_parity_pack_is_whole() -> None:
    assert len(FILES) == 15


@parity
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_logits_of_parity_models(path: Path) -> None:
    prompts = json.loads((path.parent / "goldens.json").read_text("utf-8"))["prompts"]
    ids = next(prompt["ids"] for prompt in prompts if len(prompt["ids"]) == 64)
    assert_same_logits(path, ids[:24], "f32")


@parity
def test_stop_strings_of_a_sentencepiece_tokenizer() -> None:
    path = PARITY / "silu400" / "silu400-I2_S.gguf"
    with bitnet.Engine(path, n_threads=1) as engine:
        text = engine.generate("Once", max_tokens=12, ignore_eos=True).text
        answer = engine.generate("Once", max_tokens=12, ignore_eos=True, stop=text[len(text) // 2 :][:3])
    assert answer.finish_reason == "stop"
    assert referee.replay(answer.receipt, path)


# Receipts of the model inside.


@functools.cache
def engine(isa: str | None = None, kv_type: Any = "f16", n_ctx: int | None = None) -> Any:
    return bitnet.Engine(isa=isa, kv_type=kv_type, n_ctx=n_ctx, n_threads=1)


def ask(**sampling: Any) -> dict[str, Any]:
    """The document of the receipt of a short answer."""
    options = {"max_tokens": 24, "ignore_eos": True, "seed": 1} | sampling
    isa, kv_type, n_ctx = (
        options.pop(name, default) for name, default in (("isa", None), ("kv_type", "f16"), ("n_ctx", None))
    )
    ids = engine().tokenizer.encode("Once upon a time", add_bos=True)
    document: dict[str, Any] = engine(isa, kv_type, n_ctx).generate(ids, **options).receipt.to_dict()
    return document


ANSWERS: dict[str, dict[str, Any]] = {
    "greedy": {"max_tokens": 64, "ignore_eos": False},
    "one-token": {"max_tokens": 1},
    "temperature": {"temperature": 1.3, "max_tokens": 64},
    "top-k": {"temperature": 2.0, "top_k": 5, "seed": 2**64 - 1},
    "top-p": {"temperature": 1.5, "top_p": 0.7},
    "min-p": {"temperature": 1.7, "min_p": 0.05},
    "all-filters": {"temperature": 1.1, "top_k": 40, "top_p": 0.9, "min_p": 0.01, "seed": 7},
    "repetition": {"repetition_penalty": 1.3, "repeat_last_n": 8},
    "penalties": {"temperature": 0.8, "presence_penalty": 0.4, "frequency_penalty": -0.2, "repetition_penalty": 0.9},
    "greedy-penalties": {"presence_penalty": 1.5, "frequency_penalty": 0.7},
    "bias": {"temperature": 1.0, "logit_bias": {32: -math.inf, 101: 2.5, 46: -1.25, 100_000: 3.0}},
    "forced": {"logit_bias": {65: math.inf, 66: math.inf}, "temperature": 1.0, "max_tokens": 8},
    "tiny-temperature": {"temperature": 1e-9, "max_tokens": 8},
    "huge-temperature": {"temperature": 3e7, "top_k": 9, "max_tokens": 8},
    "huge-penalty": {"presence_penalty": 1e30, "repetition_penalty": 1e-7, "max_tokens": 12},
    "numbers-of-every-size": {"temperature": 1.0, "presence_penalty": 1.5e-5, "frequency_penalty": -2.5e-7,
                              "logit_bias": {3: -1e-5, 4: 1e16, 5: 1.2e-6}, "max_tokens": 4},
    "f32": {"kv_type": "f32", "temperature": 1.0},
    "context": {"n_ctx": 40, "max_tokens": None, "temperature": 1.0},
    "stop-id": {"stop_token_ids": [39], "temperature": 0.0, "max_tokens": 64},
}  # fmt: skip


@pytest.mark.parametrize("sampling", ANSWERS.values(), ids=ANSWERS)
def test_honest_receipts(sampling: dict[str, Any]) -> None:
    assert referee.differences(ask(**sampling)) == []


@pytest.mark.parametrize("isa", bitnet.isas())
def test_receipts_of_every_instruction_set(isa: str) -> None:
    document = ask(isa=isa, temperature=1.2, max_tokens=32)
    assert document["run"]["isa"] == isa
    assert referee.replay(document)


def test_stop_strings() -> None:
    ids = engine().tokenizer.encode("Once", add_bos=True)
    text = engine().generate(ids, max_tokens=20).text
    for stop in (text[3], text[5:9]):
        answer = engine().generate(ids, max_tokens=40, stop=[stop, "not there"])
        assert answer.finish_reason == "stop"
        assert referee.replay(answer.receipt)
        document = answer.receipt.to_dict()
        assert referee.differences(forged(document, "sampling.stop", ["not there"])) != []
        assert referee.differences(forged(document, "finish_reason", "length")) != []


def test_a_stop_string_around_a_control_token() -> None:
    """The text of the id that ends a turn counts, alone and with text before it."""
    (end,) = {engine().tokenizer.id_to_token(id) for id in engine().tokenizer.stop_token_ids[1:]}
    for stop in (f".{end}", end):
        reply = bitnet.ChatSession(engine()).send("What is 2+2?", ignore_eos=True, stop=stop, max_tokens=20)
        assert (reply.text.rstrip("."), reply.finish_reason) == ("2+2=4", "stop")
        document = reply.receipt.to_dict()
        assert referee.replay(document)
        ids = document["claim"]["output_ids"]
        assert referee.replay(forged(document, "output_ids", ids[:-1])) is False
        assert referee.replay(forged(document, "finish_reason", "cancelled")) is False


def test_conversations() -> None:
    chat = bitnet.ChatSession(engine(), system="Be kind.")
    for question in ("What is 2+2?", "And 3 more?", "Spell cat."):
        chat.send(question, temperature=0.4, seed=3)
    assert len(chat.receipts) == 3
    assert all(referee.replay(receipt) for receipt in chat.receipts)


def test_a_cancelled_answer() -> None:
    ids = engine().tokenizer.encode("Once upon a time", add_bos=True)
    stream = engine().stream(ids, max_tokens=30, ignore_eos=True)
    for _, _ in zip(range(6), stream, strict=False):
        pass
    stream.cancel()
    assert stream.receipt.finish_reason == "cancelled"
    assert referee.replay(stream.receipt)


OLD = sorted(FIXTURES.glob("v*/receipts/*.json"))


@pytest.mark.parametrize("path", OLD, ids=lambda path: path.stem)
def test_receipts_of_earlier_versions(path: Path) -> None:
    if path.stem.endswith("-redacted"):
        assert "redacted" in message_of(referee.RefereeError, referee.replay, path)
    else:
        assert referee.replay(path)


# Forgeries. Their digests are right, as a forger would make them.


def redigest(document: dict[str, Any]) -> dict[str, Any]:
    def dump(value: Any) -> bytes:
        return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()

    def hashed(part: Any) -> Any:
        return {"blake3": blake3.blake3(dump(part)).hexdigest(), "count": len(part)}

    claim = copy.deepcopy(document["claim"])
    claim |= {name: hashed(claim[name]) for name in ("prompt_ids", "output_ids", "system") if claim[name] is not None}
    claim["sampling"]["stop"] = hashed(claim["sampling"]["stop"])
    return document | {"digest": blake3.blake3(dump(claim)).hexdigest()}


def forged(document: dict[str, Any], field: str, value: Any) -> dict[str, Any]:
    """A copy with another value in the claim and the digest that belongs to it."""
    document = copy.deepcopy(document)
    *path, last = field.split(".")
    place = functools.reduce(lambda place, name: place[name], path, document["claim"])
    place[last] = value
    return redigest(document)


@functools.cache
def sampled() -> dict[str, Any]:
    return ask(temperature=1.2, top_p=0.95, seed=5)


def test_the_forger_computes_the_digest_right() -> None:
    assert redigest(sampled()) == sampled()


@pytest.mark.parametrize("at", [0, 7, 22, 23])
def test_a_flipped_id(at: int) -> None:
    ids = sampled()["claim"]["output_ids"]
    for other in ((ids[at] + 1) % 582, (ids[at] + 300) % 582):
        document = forged(sampled(), "output_ids", [*ids[:at], other, *ids[at + 1 :]])
        (found,) = referee.differences(document)
        assert f"output_ids[{at}] is {other}, but the model gives {ids[at]}" in found
        assert not referee.replay(document)


def test_other_forgeries() -> None:
    claim = sampled()["claim"]
    prompt, output = claim["prompt_ids"], claim["output_ids"]
    for field, value in {
        "sampling.seed": 6,
        "sampling.temperature": 0.7,
        "sampling.top_p": 0.2,
        "sampling.top_k": 1,
        "sampling.repetition_penalty": 3.0,
        "sampling.presence_penalty": 4.0,
        "sampling.max_tokens": 25,
        "sampling.stop_token_ids": [output[4]],
        "prompt_ids": [*prompt[:3], prompt[3] + 1, *prompt[4:]],
        "output_ids": output[:-1],
        "finish_reason": "stop",
        "ffn_act": "silu",
        "act_quant": "none",
        "n_ctx": 385,
        "tokenizer": "0" * 64,
    }.items():
        assert referee.replay(forged(sampled(), field, value)) is False, field
    for ids in ([], [582], [-1], [1.5], ["a"]):
        assert referee.replay(forged(sampled(), "prompt_ids", ids)) is False


def test_a_changed_claim_with_the_old_digest() -> None:
    document = copy.deepcopy(sampled())
    document["claim"]["sampling"]["max_tokens"] = None
    assert "digest" in referee.differences(document)[0]
    document = copy.deepcopy(sampled())
    document["digest"] = "0" * 64
    assert referee.replay(document) is False


def test_what_is_told_makes_no_difference() -> None:
    """Fields that no replay can check; docs/receipts.md lists them."""
    document = forged(sampled(), "sampling.stop", ["never there"])
    document["run"]["threads"], document["timestamp"] = 99, "2000-01-01T00:00:00.000Z"
    assert referee.replay(document)


# What it cannot judge.


def refusal(receipt: Any, model: Any = None) -> str:
    return message_of(referee.RefereeError, referee.replay, receipt, model)


def test_claims_that_it_refuses() -> None:
    for field, value, part in (
        ("numerics", 2, "numerics is 2"),
        ("grammar", {"kind": "regex"}, "grammar"),
        ("logits_processor", "f", "logits_processor"),
        ("lm_head", "int8", "lm_head"),
        ("act_block", 128, "act_block"),
        ("sampling.mirostat", 1, "mirostat"),
        ("act_quant", "int16", "'int16'"),
        ("ffn_act", "gelu_tanh", "gelu_tanh"),
        ("model", "0" * 64, "pass the receipt's model"),
        ("sampling.temperature", "hot", "malformed"),
        ("sampling.stop_token_ids", 3, "malformed"),
        ("n_ctx", "many", "malformed"),
    ):
        assert part in refusal(forged(sampled(), field, value)), field
    without = copy.deepcopy(sampled())
    del without["claim"]["kv_type"]
    assert "kv_type" in refusal(without)
    for document in ({}, {"claim": []}, {"claim": {"sampling": None}, "digest": ""}):
        assert "malformed" in refusal(document)


def test_redacted_receipts() -> None:
    receipt = bitnet.Receipt.from_json(json.dumps(sampled()))
    assert "redacted" in refusal(receipt.redact())


def test_files_that_it_refuses(tmp_path: Path) -> None:
    receipt = tmp_path / "receipt.json"
    receipt.write_text("[1, 2")
    assert "malformed" in refusal(receipt)
    with pytest.raises(FileNotFoundError):
        referee.replay(tmp_path / "none.json")
    with pytest.raises(FileNotFoundError):
        referee.replay(sampled(), tmp_path / "none.gguf")
    data = models.inside().read_bytes()
    for broken, part in (
        (b"", "header is damaged"),
        (b"GGML" + data[4:], "not a GGUF file"),
        (data[:5000], "header is damaged"),
        (data[:8] + b"\xff" * 8 + data[16:], "header is damaged"),
        (data[:-100_000], "pass the receipt's model"),
    ):
        path = tmp_path / "broken.gguf"
        path.write_bytes(broken)
        assert part in refusal(sampled(), path)
    with pytest.raises(referee.RefereeError, match="does not fit"):
        referee.Model(path).logits([1], ffn_act="relu2")


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("qwen3-dense", "architecture 'qwen3'"),
        ("gemma3-window", "architecture 'gemma3'"),
        ("qwen35-hybrid", "architecture 'qwen35'"),
        ("llama-q2-g64", "type 42"),
        ("llama-ptq1", "type 42"),  # of its embedding
    ],
)
def test_models_that_it_refuses(name: str, part: str) -> None:
    with bitnet.Engine(FIXTURES / f"{name}.gguf", n_threads=1) as other:
        receipt = other.generate([1, 2, 3], max_tokens=2, ignore_eos=True).receipt
    claim = receipt.to_dict()["claim"]
    assert "referee" in refusal(receipt, FIXTURES / f"{name}.gguf")
    if part.startswith("architecture"):
        assert part in refusal(receipt, FIXTURES / f"{name}.gguf")
    else:  # the receipt's int16 is refused first
        assert claim["act_quant"] == "int16"
        with pytest.raises(referee.RefereeError, match=part):
            referee.Model(FIXTURES / f"{name}.gguf").logits([1])


def test_weights_and_keys_that_it_refuses(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    spec = dataclasses.replace(SMALL, arch="llama", linear="F16", shards=2)
    write_gguf(path, metadata(spec), tensors(spec))
    with pytest.raises(referee.RefereeError, match="not ternary with one scale"):
        referee.Model(path).logits([1])
    for key in ("llama.attention.sliding_window", "prism.hadamard.version", "split.count"):
        write_gguf(path, metadata(spec) | {key: 1}, tensors(spec))
        with pytest.raises(referee.RefereeError, match=key.removeprefix("llama.")):
            referee.Model(path)
    renamed = [dataclasses.replace(t, name=t.name.replace("blk.0.attn_norm", "blk.0.other")) for t in tensors(spec)]
    write_gguf(path, metadata(spec), renamed)
    with pytest.raises(referee.RefereeError, match=r"blk\.0\.other"):
        referee.Model(path)
    without = {key: value for key, value in metadata(spec).items() if key != "llama.block_count"}
    write_gguf(path, without, tensors(spec))
    with pytest.raises(referee.RefereeError, match="block_count"):
        referee.Model(path)


# Independence.


def test_it_has_at_most_700_lines() -> None:
    lines = {path.name: len(path.read_text("utf-8").splitlines()) for path in FOLDER.glob("*.py")}
    assert sum(lines.values()) <= 700, lines


def test_it_imports_the_standard_library_and_numpy_only() -> None:
    for path in FOLDER.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.level:
                assert node.level == 1
            elif isinstance(node, (ast.Import, ast.ImportFrom)):
                names = [node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
                roots = {str(name).split(".")[0] for name in names}
                assert roots <= sys.stdlib_module_names | {"numpy"}, (path.name, roots)


def run(*arguments: Any, code: str = "import runpy; runpy.run_module('referee', run_name='__main__')") -> Any:
    """The referee as a program, in a process that cannot import the package."""
    block = "import sys; sys.modules['bitnet'] = sys.modules['bitnet._core'] = sys.modules['_core'] = None; "
    command = [sys.executable, "-c", block + code, *map(str, arguments)]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(command, cwd=FOLDER.parent, env=environment, capture_output=True, text=True, timeout=120)


def test_it_judges_without_the_core(tmp_path: Path) -> None:
    path = tmp_path / "receipt.json"
    path.write_text(json.dumps(sampled()))
    done = run(path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "the same answer\n", "")
    path.write_text(json.dumps(forged(sampled(), "sampling.seed", 6)))
    done = run(path, models.inside())
    assert (done.returncode, done.stderr) == (1, "")
    assert "the model gives" in done.stdout
    with pytest.raises(AssertionError, match="ModuleNotFoundError"):  # the block works
        done = run(code="import bitnet")
        assert done.returncode == 0, done.stderr


def test_as_a_module_of_the_package(tmp_path: Path) -> None:
    path = tmp_path / "receipt.json"
    path.write_text(json.dumps(ask(max_tokens=2)))

    def module(*arguments: Any) -> Any:
        command = [sys.executable, "-m", "bitnet.referee", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, timeout=120)

    assert (module(path).returncode, module(path).stdout) == (0, "the same answer\n")
    for arguments, part in (((), "usage"), ((tmp_path / "none",), "No such file"), ((path, path), "not a GGUF file")):
        done = module(*arguments)
        assert (done.returncode, done.stdout) == (2, "")
        assert part in done.stderr
