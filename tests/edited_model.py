"""Random models with one thing changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from bitnet import _tensor_types as tt
from bitnet._gguf_writer import Tensor, Value, write_gguf
from bitnet._synthetic import Spec, metadata, tensors


def damaged(folder: Path, spec: Spec, name: str, at: int, data: bytes, *others: Tensor, **keys: Value) -> Path:
    """A model with some bytes of one tensor changed, tensors replaced or added, and other metadata."""
    found = {t.name: t for t in tensors(spec)} | {t.name: t for t in others}
    content = bytearray(b"".join(found[name].chunks()))
    content[at : at + len(data) if at >= 0 else len(content) + at + len(data)] = data
    found[name] = plain(name, found[name].shape, found[name].type_id, bytes(content))
    changed = {f"{spec.arch}.{key.replace('__', '.')}": value for key, value in keys.items()}
    path = folder / "damaged.gguf"
    write_gguf(path, metadata(spec) | {"tokenizer.ggml.pre": "gpt-2"} | changed, [*found.values()])
    return path


def plain(name: str, shape: tuple[int, ...], type_id: int, data: bytes) -> Tensor:
    return Tensor(name, shape, type_id, len(data), lambda: [data])


def floats(name: str, values: Any) -> Tensor:
    values = np.asarray(values, np.float32)
    return plain(name, values.shape, 0, values.tobytes())


def ternary(name: str, kind: str, trits: Any, scales: Any) -> Tensor:
    """A matrix in a type that can hold it: trits [rows, columns], with one scale (I2_S), or one for each row."""
    trits = np.asarray(trits, np.int8)
    scales = np.broadcast_to(np.asarray(scales, np.float32), (len(trits),))
    data = tt.encode_i2_s(trits, float(scales[0])) if kind == "I2_S" else tt.encode_trits(kind, trits, scales)
    return plain(name, trits.shape, tt.TYPES[kind][0], data.tobytes())
