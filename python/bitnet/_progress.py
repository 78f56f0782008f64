"""Progress bars for calls with `progress=True`: `tqdm.auto`, which draws in notebooks and in terminals."""

from pathlib import Path
from typing import Any

from ._shards import shard_names

_CHUNK = 16 << 20
"""Bytes to read between two updates of the bar."""


def bar(what: str, total: int, unit: str) -> Any:
    """A bar of `total` units. Raises ImportError if tqdm is not installed; the message names the extra to install."""
    try:
        from tqdm.auto import tqdm
    except ImportError as error:
        raise ImportError("progress bars need tqdm: pip install 'bitnet-engine[notebook]'") from error
    return tqdm(total=total, desc=what, unit=unit, unit_scale=unit == "B", unit_divisor=1000)


def read(path: Path) -> None:
    """Read a model's files into the operating system's cache with a bar, so that opening it does not wait for the disk.

    A file that does not exist is skipped: the engine raises the error for it.
    """
    if path.is_dir():
        files = sorted(path.glob("*.safetensors"))
    else:
        files = [file for name in shard_names(path.name) if (file := path.parent / name).is_file()]
    shown = bar(f"read {path.name}", sum(file.stat().st_size for file in files), "B")
    buffer = memoryview(bytearray(_CHUNK))
    with shown:
        for file in files:
            with file.open("rb", buffering=0) as source:
                while count := source.readinto(buffer):
                    shown.update(count)
