"""Write GGUF v3 files tensor by tensor; copy the tokenizer of another GGUF file.

The `gguf` package supports neither I2_S nor the IQ*_BN types. This writer accepts any type id and any bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

ALIGNMENT = 32
U32, I32, F32, BOOL, STRING, ARRAY = 4, 5, 6, 7, 8, 9
SCALAR_SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}

Value = str | bool | int | float | Sequence[str] | Sequence[int] | bytes


@dataclass(frozen=True)
class Tensor:
    """A tensor to write: its entry in the header, and a function that produces its bytes in order."""

    name: str
    shape: tuple[int, ...]  # rows first; the file stores the fastest dimension first
    type_id: int
    nbytes: int
    chunks: Callable[[], Iterable[bytes]]


def write_gguf(path: Path, metadata: Mapping[str, Value], tensors: Sequence[Tensor]) -> None:
    """Write the file. At most one chunk of one tensor is in memory at a time."""
    with path.open("wb") as file:
        file.write(header(metadata, tensors))
        for tensor in tensors:
            written = sum(file.write(chunk) for chunk in tensor.chunks())
            if written != tensor.nbytes:
                raise ValueError(f"{tensor.name}: wrote {written} bytes, but the header says {tensor.nbytes}")
            file.write(_padding(written))


def header(metadata: Mapping[str, Value], tensors: Sequence[Tensor]) -> bytes:
    """Return everything before the tensor data, padded to its start."""
    out = bytearray(b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(metadata)))
    for key, value in metadata.items():
        out += _string(key) + (value if isinstance(value, bytes) else _value(value))
    offset = 0
    for t in tensors:
        out += _string(t.name) + struct.pack("<I", len(t.shape))
        out += struct.pack(f"<{len(t.shape)}Q", *reversed(t.shape)) + struct.pack("<IQ", t.type_id, offset)
        offset += t.nbytes + len(_padding(t.nbytes))
    return bytes(out) + _padding(len(out))


def _value(value: Value) -> bytes:
    """Encode type id and value: integers as u32, floats as f32, lists as arrays of strings, bools or i32."""
    match value:
        case bool():
            return struct.pack("<I?", BOOL, value)
        case int():
            return struct.pack("<II", U32, value)
        case float():
            return struct.pack("<If", F32, value)
        case str():
            return struct.pack("<I", STRING) + _string(value)
    strings = [item for item in value if isinstance(item, str)]
    if len(strings) == len(value):
        return struct.pack("<IIQ", ARRAY, STRING, len(value)) + b"".join(map(_string, strings))
    if all(isinstance(item, bool) for item in value):
        return struct.pack(f"<IIQ{len(value)}?", ARRAY, BOOL, len(value), *value)
    return struct.pack(f"<IIQ{len(value)}i", ARRAY, I32, len(value), *value)


def _string(text: str) -> bytes:
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw


def _padding(size: int) -> bytes:
    return bytes(-size % ALIGNMENT)


def copy_tokenizer(path: Path) -> tuple[dict[str, Value], int]:
    """Return the `tokenizer.*` entries of a GGUF file, byte for byte, and its number of tokens."""
    found: dict[str, Value] = {}
    n_tokens = 0
    with path.open("rb") as file:
        magic, _, _, n_kv = struct.unpack("<4sIQQ", file.read(24))
        if magic != b"GGUF":
            raise ValueError(f"{path}: not a GGUF file; --vocab needs a GGUF file with a tokenizer")
        for _ in range(n_kv):
            key = file.read(_u64(file)).decode()
            start = file.tell()
            _skip_value(file, _u32(file))
            end = file.tell()
            if not key.startswith("tokenizer."):
                continue
            file.seek(start)
            raw = file.read(end - start)
            found[key] = raw
            if key == "tokenizer.ggml.tokens":
                n_tokens = int(struct.unpack_from("<Q", raw, 8)[0])
    if not n_tokens:
        raise ValueError(f"{path}: no tokenizer.ggml.tokens; --vocab needs a GGUF file with a tokenizer")
    return found, n_tokens


def _skip_value(file: BinaryIO, kind: int) -> None:
    if kind == STRING:
        file.seek(_u64(file), 1)
    elif kind == ARRAY:
        element, count = _u32(file), _u64(file)
        if element in SCALAR_SIZES:
            file.seek(count * SCALAR_SIZES[element], 1)
        else:
            for _ in range(count):
                _skip_value(file, element)
    else:
        file.seek(SCALAR_SIZES[kind], 1)


def _u32(file: BinaryIO) -> int:
    return int.from_bytes(file.read(4), "little")


def _u64(file: BinaryIO) -> int:
    return int.from_bytes(file.read(8), "little")
