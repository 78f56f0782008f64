"""Read GGUF files for the numpy reference, also with the tensor types Q2_0, PQ2_0 and PTQ1_0.

The `gguf` package parses the file and dequantizes the types that it knows. These three are decoded here, written from
their published layouts and apart from the engine's decoders and the encoders of `bitnet._tensor_types`.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import gguf

Bytes = npt.NDArray[np.uint8]
Floats32 = npt.NDArray[np.float32]

Q2_0, PQ2_0, PTQ1_0 = 42, 142, 143
GROUPS_OF_Q2_0 = (64, 128)  # one id for two layouts, which only the sizes of the tensors tell apart
ALIGNMENT = 32


@dataclass(frozen=True)
class Entry:
    """A tensor of the file's directory."""

    name: str
    shape: tuple[int, ...]  # rows first
    type_id: int
    start: int

    @property
    def elements(self) -> int:
        """How many values it has."""
        return int(np.prod(self.shape))


class Reader(gguf.GGUFReader):
    """A GGUF file with `weights`, the dequantized tensors by name."""

    weights: dict[str, Floats32]

    @property
    def config(self) -> dict[str, Any]:
        """The metadata."""
        return {key: field.contents() for key, field in self.fields.items()}

    def _build_tensors(self, start_offs: int, fields: list[gguf.gguf_reader.ReaderField]) -> None:
        """Called by the parser for the directory; the parser's own version refuses types that it does not know."""
        entries = []
        for field in fields:
            _, name, _, dims, type_id, offset = field.parts
            shape = tuple(int(n) for n in reversed(dims.tolist()))
            entries.append(Entry(bytes(name).decode(), shape, int(type_id[0]), int(start_offs + offset[0])))
        group = group_of_q2_0(entries, len(self.data))
        self.tensors = []
        self.weights = {entry.name: self.dequantized(entry, group) for entry in entries}

    def dequantized(self, entry: Entry, group: int) -> Floats32:
        """Decode a tensor; `group` is what a block of Q2_0 holds."""
        if entry.type_id in (Q2_0, PQ2_0):
            group = group if entry.type_id == Q2_0 else 128
            values = decode_q2_0(self.blocks(entry, group, 2 + group // 4))
        elif entry.type_id == PTQ1_0:
            values = decode_ptq1_0(self.blocks(entry, 128, 28))
        else:
            kind = gguf.GGMLQuantizationType(entry.type_id)
            rows = self.blocks(entry, *gguf.GGML_QUANT_SIZES[kind]).reshape(int(np.prod(entry.shape[:-1])), -1)
            values = gguf.quants.dequantize(rows, kind)
        return np.asarray(values, np.float32).reshape(entry.shape)

    def blocks(self, entry: Entry, elements: int, size: int) -> Bytes:
        """The bytes of a tensor, `[block, byte]`."""
        n = entry.elements // elements
        return np.array(self.data[entry.start : entry.start + n * size]).reshape(n, size)


def read(path: Path) -> tuple[dict[str, Any], dict[str, Floats32]]:
    """Return the metadata and the dequantized tensors of a file."""
    reader = Reader(path)
    return reader.config, reader.weights


def group_of_q2_0(entries: list[Entry], end: int) -> int:
    """Return the group of the file's Q2_0 tensors: the one whose sizes fill the room up to the next tensor."""
    starts = sorted([entry.start for entry in entries] + [end + -end % ALIGNMENT])
    room = {start: following - start for start, following in itertools.pairwise(starts)}
    sizes = {
        group: all(
            padded(entry.elements // group * (2 + group // 4)) == room[entry.start]
            for entry in entries
            if entry.type_id == Q2_0
        )
        for group in GROUPS_OF_Q2_0
    }
    fitting = [group for group, fits in sizes.items() if fits]
    if not fitting:
        raise ValueError(f"the Q2_0 tensors have neither of the groups {GROUPS_OF_Q2_0}")
    return fitting[0]


def padded(size: int) -> int:
    """The room of a tensor of this size."""
    return size + -size % ALIGNMENT


def decode_q2_0(blocks: Bytes) -> Floats32:
    """Decode blocks of an f16 scale and 2-bit codes of neighbours, the lowest bits first; 0, 1, 2 are -1, 0, 1."""
    scales = blocks[:, :2].copy().view("<f2").astype(np.float32)
    codes = np.stack([blocks[:, 2:] >> shift & 3 for shift in (0, 2, 4, 6)], axis=-1)
    return (codes.reshape(len(blocks), -1).astype(np.float32) - 1) * scales


def decode_ptq1_0(blocks: Bytes) -> Floats32:
    """Decode blocks of base-3 digits in 16, 8 and 2 bytes, and an f16 scale.

    A byte is a fraction of which each multiplication by 3 brings the next digit in front of the point.
    """
    parts = []
    for first, last, digits in ((0, 16, 5), (16, 24, 5), (24, 26, 4)):
        fraction = blocks[:, first:last].astype(np.uint32)
        for _ in range(digits):
            parts.append(fraction * 3 >> 8)
            fraction = fraction * 3 & 255
    scales = blocks[:, 26:].copy().view("<f2").astype(np.float32)
    return (np.concatenate(parts, axis=1).astype(np.float32) - 1) * scales
