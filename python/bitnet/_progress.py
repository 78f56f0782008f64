"""Progress bars, shown only where `progress=True` asks for them: `tqdm.auto`, which suits notebooks and terminals."""

import re
from pathlib import Path
from typing import Any

CHUNK = 16 << 20
"""Bytes that are read between two looks at the bar."""


def bar(what: str, total: int, unit: str) -> Any:
    """A bar of `total` units. Raises ImportError that names the extra if tqdm is not there."""
    try:
        from tqdm.auto import tqdm
    except ImportError as error:
        raise ImportError("progress bars need tqdm: pip install 'bitnet-engine[notebook]'") from error
    return tqdm(total=total, desc=what, unit=unit, unit_scale=unit == "B", unit_divisor=1000)


def read(path: Path) -> None:
    """Read a model's files into the system's cache, so that the engine does not wait for the disk unseen.

    A path that cannot be read is left to the engine, which says what is wrong with it.
    """
    files = [file for file in parts(path) if file.is_file()]
    shown = bar(f"read {path.name}", sum(file.stat().st_size for file in files), "B")
    buffer = memoryview(bytearray(CHUNK))
    with shown:
        for file in files:
            with file.open("rb", buffering=0) as source:
                while count := source.readinto(buffer):
                    shown.update(count)


def parts(path: Path) -> list[Path]:
    """The files of a model: a split one has several, with their numbers in their names."""
    split = re.fullmatch(r"(.*-)00001(-of-(\d{5})\.gguf)", path.name)
    if not split:
        return [path]
    return [path.with_name(f"{split[1]}{n:05}{split[2]}") for n in range(1, int(split[3]) + 1)]
