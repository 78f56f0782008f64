"""Invalid files raise the right exception, and its message holds the facts that help."""

from __future__ import annotations

import dataclasses
import re
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bitnet
from bitnet._gguf_writer import Tensor, Value, header, write_gguf
from bitnet._synthetic import Spec, metadata, tensors
from conftest import ModelMaker, message_of

SMALL = Spec("bitnet-b1.58", 1, 128, 192, 2, 1, vocab_size=40, context=64)
# Small enough to be cut at every byte.
SMALLEST = Spec("bitnet-b1.58", 1, 16, 16, 1, 1, vocab_size=3, context=64)


@pytest.fixture
def engine(model: ModelMaker) -> Iterator[Any]:
    with bitnet.Engine(model(SMALL)) as engine:
        yield engine


def test_the_tree_of_exceptions() -> None:
    """All exceptions have one base, and each is also the built-in exception that Python users expect to catch."""
    bases = {
        bitnet.ModelNotFoundError: FileNotFoundError,
        bitnet.ModelFileError: ValueError,
        bitnet.UnsupportedModelError: ValueError,
        bitnet.ModelError: ValueError,
        bitnet.ArgumentError: ValueError,
        bitnet.ContextLengthError: ValueError,
        bitnet.TokenIdError: ValueError,
        bitnet.OutOfMemoryError: MemoryError,
        bitnet.ClosedError: RuntimeError,
    }
    for error, base in bases.items():
        assert issubclass(error, bitnet.BitnetError)
        assert issubclass(error, base)


# -- Files that are not models ----------------------------------------------------------------------------------------

NOT_GGUF = {
    "empty": (b"", "empty"),
    "text": (b"This is a poem about a model, not a model.\n" * 20, "GGUF"),
    "html": (b"<!DOCTYPE html>\n<html><head><title>Sign in</title></head><body>401</body></html>", "HTML"),
    "git-lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 1187801280\n", "Git LFS"),
    "magic-only": (b"GGUF", "byte"),
    "version-1": (b"GGUF" + struct.pack("<III", 1, 0, 0) + bytes(64), "version 1"),
    "version-of-tomorrow": (b"GGUF" + struct.pack("<IQQ", 9, 0, 0) + bytes(64), "version 9"),
    "big-endian": (b"GGUF" + struct.pack(">IQQ", 3, 0, 0) + bytes(64), "big-endian"),
    "many-keys": (b"GGUF" + struct.pack("<IQQ", 3, 0, 2**63) + bytes(64), "9223372036854775808"),
    "many-tensors": (b"GGUF" + struct.pack("<IQQ", 3, 2**40, 0) + bytes(64), "1099511627776"),
}


@pytest.mark.parametrize("opener", [bitnet.Engine, bitnet.inspect], ids=["Engine", "inspect"])
@pytest.mark.parametrize(("content", "fact"), NOT_GGUF.values(), ids=NOT_GGUF.keys())
def test_not_a_model(tmp_path: Path, content: bytes, fact: str, opener: Callable[[Path], object]) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    message = message_of(bitnet.ModelFileError, opener, path)
    assert str(path) in message
    assert fact.lower() in message.lower()


def test_missing_file(tmp_path: Path) -> None:
    path = tmp_path / "nowhere.gguf"
    for opener in (bitnet.Engine, bitnet.inspect, bitnet.Tokenizer):
        message = message_of(bitnet.ModelNotFoundError, opener, path)
        assert message.startswith(f"{path}: no such file")
        assert "Engine.from_pretrained" in message, "what a Python user may have meant"


def test_directory(tmp_path: Path) -> None:
    for opener in (bitnet.Engine, bitnet.inspect):
        message = message_of(bitnet.ModelFileError, opener, tmp_path)
        assert str(tmp_path) in message
        assert "directory" in message


@pytest.mark.parametrize("part", range(8))
def test_cut_at_every_byte(tmp_path: Path, model: ModelMaker, part: int) -> None:
    """A file cut at any byte is an error, never a crash and never a model that seems to work."""
    whole = model(dataclasses.replace(SMALLEST, linear="F16")).read_bytes()
    path = tmp_path / "cut.gguf"
    with bitnet.Engine(model(dataclasses.replace(SMALLEST, linear="F16"))) as engine:
        assert engine.logits([0, 1, 2]).shape == (3, 3)
    for length in range(part, len(whole), 8):
        path.write_bytes(whole[:length])
        with pytest.raises(bitnet.BitnetError) as caught:
            bitnet.Engine(path).close()
        assert str(path) in str(caught.value)


def test_truncated_data_names_the_sizes(tmp_path: Path, model: ModelMaker) -> None:
    whole = model(SMALL).read_bytes()
    path = tmp_path / "cut.gguf"
    path.write_bytes(whole[: len(whole) - 1000])
    message = message_of(bitnet.ModelFileError, bitnet.Engine, path)
    assert str(len(whole) - 1000) in message, "the size of the file"
    assert re.search(r"tensor '\S+' needs \d+ bytes", message), "the size that a tensor needs"


@pytest.mark.parametrize("part", range(4))
def test_any_header_byte_changed(tmp_path: Path, part: int) -> None:
    """A header with any byte changed raises a BitnetError, or gives a model that still answers."""
    spec = dataclasses.replace(SMALLEST, linear="F16")
    whole = bytearray(header(metadata(spec), tensors(spec)))
    size = len(whole)
    for tensor in tensors(spec):
        data = b"".join(tensor.chunks())
        whole += data + bytes(-len(data) % 32)
    path = tmp_path / "changed.gguf"
    for at in range(part, size, 4):
        for value in {0, 1, 0x7F, 0xFF, whole[at] ^ 1} - {whole[at]}:
            path.write_bytes(whole[:at] + bytes([value]) + whole[at + 1 :])
            try:
                with bitnet.Engine(path) as engine:
                    assert engine.logits([0]).shape == (1, engine.n_vocab)
            except bitnet.BitnetError as error:
                assert str(error)


# -- Valid GGUF files of invalid models -------------------------------------------------------------------------------


def write(path: Path, keys: dict[str, Value], directory: list[Tensor]) -> Path:
    write_gguf(path, keys, directory)
    return path


def changed(name: str, **fields: Any) -> list[Tensor]:
    """The tensors of SMALL, with other fields for one of them."""
    found = tensors(SMALL)
    assert any(t.name == name for t in found)
    return [dataclasses.replace(t, **fields) if t.name == name else t for t in found]


def filled(name: str, data: bytes) -> list[Tensor]:
    """The tensors of SMALL, with other content for one of them."""
    return changed(name, chunks=lambda: [data], nbytes=len(data))


def content(name: str) -> bytes:
    return b"".join(next(t for t in tensors(SMALL) if t.name == name).chunks())


@pytest.mark.parametrize("arch", ["qwen35moe", "gpt-oss", "no-such-arch"])
def test_unknown_architecture(tmp_path: Path, arch: str) -> None:
    keys = {k.replace("bitnet-b1.58.", f"{arch}."): v for k, v in metadata(SMALL).items()}
    path = write(tmp_path / "m.gguf", keys | {"general.architecture": arch}, tensors(SMALL))
    message = message_of(bitnet.UnsupportedModelError, bitnet.Engine, path)
    assert arch in message
    assert str(path) in message
    assert "bitnet-b1.58" in message, "the message lists what is supported"


@pytest.mark.parametrize("type_id", [16, 31, 40, 99, 2**31])
def test_unknown_type(tmp_path: Path, type_id: int) -> None:
    path = write(tmp_path / "m.gguf", metadata(SMALL), changed("blk.0.ffn_up.weight", type_id=type_id))
    message = message_of(bitnet.UnsupportedModelError, bitnet.Engine, path)
    assert "blk.0.ffn_up.weight" in message
    assert str(type_id) in message


@pytest.mark.parametrize("name", ["token_embd.weight", "blk.0.attn_q.weight", "blk.0.ffn_sub_norm.weight"])
def test_missing_tensor(tmp_path: Path, name: str) -> None:
    directory = [t for t in tensors(SMALL) if t.name != name]
    path = write(tmp_path / "m.gguf", metadata(SMALL), directory)
    assert name in message_of(bitnet.ModelError, bitnet.Engine, path)


@pytest.mark.parametrize("name", ["blk.1.attn_q.weight", "blk.0.attn_q_norm_in.weight", "blk.0.router.weight"])
def test_surplus_tensor(tmp_path: Path, name: str) -> None:
    """A tensor that the architecture does not use shows that the model has another architecture."""
    surplus = dataclasses.replace(tensors(SMALL)[2], name=name)
    path = write(tmp_path / "m.gguf", metadata(SMALL), [*tensors(SMALL), surplus])
    assert name in message_of(bitnet.ModelError, bitnet.Engine, path)


def test_wrong_shape(tmp_path: Path) -> None:
    """A tensor of the right size but of another shape is an error that gives both shapes."""
    for name, shape in (("blk.0.ffn_up.weight", (128, 192)), ("blk.0.attn_norm.weight", (64, 2))):
        path = write(tmp_path / "m.gguf", metadata(SMALL), changed(name, shape=shape))
        message = message_of(bitnet.ModelError, bitnet.Engine, path)
        assert name in message
        assert all(str(n) in message for n in shape)


@pytest.mark.parametrize("scale", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("linear", ["I2_S", "IQ2_BN"])
def test_scale_that_is_no_number(tmp_path: Path, scale: float, linear: str) -> None:
    spec = dataclasses.replace(SMALL, linear=linear)
    directory = tensors(spec)
    at = next(i for i, t in enumerate(directory) if t.name == "blk.0.ffn_down.weight")
    data = bytearray(b"".join(directory[at].chunks()))
    offset = len(data) - 32 if linear == "I2_S" else 5 * (len(data) // SMALL.width)
    data[offset : offset + 4] = struct.pack("<f", scale)
    directory[at] = dataclasses.replace(directory[at], chunks=lambda: [bytes(data)])
    path = write(tmp_path / "m.gguf", metadata(spec), directory)
    message = message_of(bitnet.ModelError, bitnet.Engine, path)
    assert "blk.0.ffn_down.weight" in message
    assert "scale" in message


def test_norm_that_is_no_number(tmp_path: Path) -> None:
    gamma = np.ones(SMALL.width, np.float32)
    gamma[77] = np.nan
    path = write(tmp_path / "m.gguf", metadata(SMALL), filled("blk.0.attn_norm.weight", gamma.tobytes()))
    assert "blk.0.attn_norm.weight" in message_of(bitnet.ModelError, bitnet.Engine, path)


def test_code_3(tmp_path: Path) -> None:
    """The code 3 means nothing in I2_S."""
    data = bytearray(content("blk.0.attn_k.weight"))
    data[321] |= 0b00001100
    path = write(tmp_path / "m.gguf", metadata(SMALL), filled("blk.0.attn_k.weight", bytes(data)))
    message = message_of(bitnet.ModelError, bitnet.Engine, path)
    assert "blk.0.attn_k.weight" in message
    assert "code 3" in message


def test_undefined_padding_is_ignored(tmp_path: Path, engine: Any) -> None:
    """The 28 bytes behind the scale of I2_S are undefined, and some programs do not clear them."""
    data = content("blk.0.attn_k.weight")
    path = write(tmp_path / "m.gguf", metadata(SMALL), filled("blk.0.attn_k.weight", data[:-28] + b"\xff" * 28))
    with bitnet.Engine(path) as other:
        assert np.array_equal(other.logits([1, 2, 3]), engine.logits([1, 2, 3]))


# The key, its value (None: the key is left out), and what the message must contain.
WRONG_KEYS: dict[str, tuple[str, Value | None, list[str]]] = {
    "no-layers": ("block_count", 0, ["block_count", "0"]),
    "too-many-layers": ("block_count", 4_000_000_000, ["block_count", "4000000000"]),
    "no-heads": ("attention.head_count", 0, ["head_count", "0"]),
    "heads-not-shared-evenly": ("attention.head_count_kv", 3, ["2", "3", "multiple"]),
    "eps-zero": ("attention.layer_norm_rms_epsilon", 0.0, ["layer_norm_rms_epsilon", "0"]),
    "eps-nan": ("attention.layer_norm_rms_epsilon", float("nan"), ["layer_norm_rms_epsilon", "NaN"]),
    "rope-negative": ("rope.freq_base", -1.0, ["freq_base", "-1"]),
    "other-vocabulary": ("vocab_size", 41, ["token_embd.weight", "41", "40"]),
    "width-missing": ("embedding_length", None, ["embedding_length"]),
    "layers-missing": ("block_count", None, ["block_count"]),
    "rope-dimensions-odd": ("rope.dimension_count", 63, ["63", "even"]),
    "rope-dimensions-too-many": ("rope.dimension_count", 4096, ["4096", "64"]),
    "feed-forward-too-wide": ("feed_forward_length", 2**21, ["feed_forward_length", "2097152"]),
    "a-value-for-each-of-other-layers": ("attention.head_count", [2, 2], ["head_count", "2 values for 1 layers"]),
    "no-value-for-any-layer": ("attention.head_count", [], ["head_count", "0 values for 1 layers"]),
}


def test_heads_of_more_channels_than_any_model_has(tmp_path: Path) -> None:
    names = ("attention.head_count", "attention.key_length", "attention.value_length")
    keys = {f"{SMALL.arch}.{name}": 2**14 for name in names}
    path = write(tmp_path / "m.gguf", metadata(SMALL) | keys, tensors(SMALL))
    assert "16384 heads of 16384 channels" in message_of(bitnet.ModelError, bitnet.Engine, path)


# The key, the values that change nothing in the computation, and a value that does.
FOREIGN: dict[str, tuple[list[Value], Value]] = {
    "expert_count": ([0], 8),
    "attention.sliding_window": ([0, [0]], 512),
    "attention.scale": ([0.0], 1.0),
    "attention.causal": ([True], False),
    "attention.clamp_kqv": ([0.0], 1.0),
    "attention.max_alibi_bias": ([0.0], 8.0),
    "attn_logit_softcapping": ([0.0], 1.0),
    "final_logit_softcapping": ([0.0], 1.0),
    "logit_scale": ([0.0, 1.0], 0.5),
    "embedding_scale": ([0.0, 1.0], 12.0),
    "residual_scale": ([0.0, 1.0], 0.2),
    "rope.scaling.attn_factor": ([1.0], 2.0),
    "rope.scaling.yarn_log_multiplier": ([0.0], 0.1),
    "use_parallel_residual": ([False], True),
    "pooling_type": ([0, 1, 2, 3], 4),
}


@pytest.mark.parametrize(("key", "neutral", "foreign"), [(k, *v) for k, v in FOREIGN.items()], ids=FOREIGN.keys())
def test_unsupported_computations_are_refused(tmp_path: Path, key: str, neutral: list[Value], foreign: Value) -> None:
    full = f"{SMALL.arch}.{key}"
    for value in neutral:
        bitnet.Engine(write(tmp_path / "m.gguf", metadata(SMALL) | {full: value}, tensors(SMALL))).close()
    path = write(tmp_path / "m.gguf", metadata(SMALL) | {full: foreign}, tensors(SMALL))
    assert full in message_of(bitnet.UnsupportedModelError, bitnet.Engine, path)


def test_rope_scaling_as_llama_cpp_reads_it(tmp_path: Path) -> None:
    """RoPE scaling is linear by default, the new key comes before the old one, and 0 means no scaling."""

    def logits(**keys: Value) -> Any:
        keys = {f"{SMALL.arch}.rope.{k.replace('__', '.')}": v for k, v in keys.items()}
        with bitnet.Engine(write(tmp_path / "m.gguf", metadata(SMALL) | keys, tensors(SMALL))) as engine:
            return engine.logits([1, 2, 3]).tobytes()

    plain, scaled = logits(), logits(scaling__type="linear", scaling__factor=8.0)
    assert plain != scaled
    assert scaled == logits(scaling__factor=8.0) == logits(scale_linear=8.0)
    assert scaled == logits(scaling__type="linear", scale_linear=8.0)
    assert scaled == logits(scaling__factor=8.0, scale_linear=2.0)
    assert plain == logits(scaling__type="none", scaling__factor=8.0)
    assert plain == logits(scaling__type="linear", scaling__factor=0.0) == logits(scaling__factor=0.0, scale_linear=2.0)
    with pytest.raises(bitnet.ModelError, match=r"scaling\.factor"):
        logits(scaling__factor=-1.0)


@pytest.mark.parametrize(("key", "value", "facts"), WRONG_KEYS.values(), ids=WRONG_KEYS.keys())
def test_wrong_metadata(tmp_path: Path, key: str, value: Value | None, facts: list[str]) -> None:
    full = f"{SMALL.arch}.{key}"
    keys = {k: v for k, v in metadata(SMALL).items() if k != full}
    if value is not None:
        keys[full] = value
    path = write(tmp_path / "m.gguf", keys, tensors(SMALL))
    message = message_of(bitnet.ModelError, bitnet.Engine, path)
    assert [fact for fact in facts if fact not in message] == []


def test_metadata_of_the_wrong_type(tmp_path: Path) -> None:
    key = f"{SMALL.arch}.embedding_length"
    path = write(tmp_path / "m.gguf", metadata(SMALL) | {key: "many"}, tensors(SMALL))
    message = message_of(bitnet.ModelFileError, bitnet.Engine, path)
    assert key in message
    assert "many" in message


def test_no_architecture(tmp_path: Path) -> None:
    """A GGUF file of something other than a language model."""
    path = write(tmp_path / "m.gguf", {}, [])
    assert "general.architecture" in message_of(bitnet.ModelError, bitnet.Engine, path)


# A change of the tokenizer's metadata, the exception that it causes, and what its message must contain.
BAD_TOKENIZERS: dict[str, tuple[dict[str, Value], type[Exception], str]] = {
    "kind-of-vocabulary": ({"tokenizer.ggml.model": "bert"}, bitnet.UnsupportedModelError, "'bert'"),
    "pre-tokenizer": ({"tokenizer.ggml.pre": "klingon"}, bitnet.UnsupportedModelError, "'klingon'"),
    "number-of-types": ({"tokenizer.ggml.token_type": [1, 1]}, bitnet.ModelError, "token_type"),
    "type-of-metadata": ({"tokenizer.ggml.tokens": 7}, bitnet.ModelFileError, "an array of strings"),
}


@pytest.mark.parametrize(("keys", "kind", "fact"), BAD_TOKENIZERS.values(), ids=BAD_TOKENIZERS.keys())
def test_a_tokenizer_raises_the_same_alone_and_in_an_engine(
    tmp_path: Path, keys: dict[str, Value], kind: type[Exception], fact: str
) -> None:
    path = write(tmp_path / "m.gguf", metadata(SMALL) | keys, tensors(SMALL))
    message = message_of(kind, bitnet.Tokenizer, path)
    assert message.startswith(f"{path}: ")
    assert fact in message
    with bitnet.Engine(path) as engine:
        for _ in range(2):
            assert message_of(kind, lambda: engine.tokenizer) == message
        assert message_of(kind, engine.generate, "a text") == message
        assert engine.logits([1]).shape == (1, SMALL.vocab_size), "ids need no tokenizer"


def test_duplicate_names(tmp_path: Path) -> None:
    path = write(tmp_path / "m.gguf", metadata(SMALL), [*tensors(SMALL), tensors(SMALL)[3]])
    assert tensors(SMALL)[3].name in message_of(bitnet.ModelFileError, bitnet.Engine, path)
