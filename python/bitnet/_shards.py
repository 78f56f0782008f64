"""Names of split models: one model in several files, NAME-00001-of-00003.gguf and so on."""

import re

_SHARD = re.compile(r"-(\d{5})-of-(\d{5})\.gguf$")


def shard_number(filename: str) -> int | None:
    """The number of a split model's file, from 1; None for a model that is one file."""
    shard = _SHARD.search(filename)
    return int(shard[1]) if shard else None


def shard_names(filename: str) -> list[str]:
    """The names of all files of a split model, given one of them; for a model that is one file, just its name."""
    shard = _SHARD.search(filename)
    if shard is None:
        return [filename]
    stem = filename[: shard.start()]
    return [f"{stem}-{i:05}-of-{shard[2]}.gguf" for i in range(1, int(shard[2]) + 1)]
