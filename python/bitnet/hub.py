"""Models by name: files of a repository on the Hugging Face Hub, by `huggingface_hub` and in its cache."""

import os
import re
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any

from .errors import ArgumentError, BitnetError, ModelNotFoundError

PREFERRED = ("i2_s", "tq2_0", "tq1_0", "iq2_bn", "iq1_bn")
"""Tensor types in the names of files, the first choice first: those that lose nothing of a ternary model."""
PART = re.compile(r"-(\d{5})-of-(\d{5})\.gguf$")


def model_file(
    repo_id: str,
    filename: str | None = None,
    *,
    revision: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
    token: str | bool | None = None,
) -> Path:
    """The path of a repository's model in the cache, downloaded if it is not there; see `Engine.from_pretrained`."""
    try:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError
    except ImportError as error:
        raise BitnetError("models by name need huggingface_hub: pip install 'bitnet-engine[hub]'") from error
    cache = Path(cache_dir).expanduser() if cache_dir is not None else None
    if filename is None:
        filename = choose(listing(repo_id, revision, cache, local_files_only, token), repo_id)
    try:
        paths = [
            hf_hub_download(
                repo_id, name, revision=revision, cache_dir=cache, local_files_only=local_files_only, token=token
            )
            for name in parts(filename)
        ]
    except EntryNotFoundError as error:
        raise ModelNotFoundError(f"{repo_id}: {filename} is not there, or not in the cache: {error}") from error
    except Exception as error:  # whichever HTTP library this version of huggingface_hub uses
        raise BitnetError(f"{repo_id}: {filename}: {error}; files that are complete stay in the cache") from error
    return Path(paths[0])


def listing(
    repo_id: str, revision: str | None, cache: Path | None, local_files_only: bool, token: str | bool | None
) -> list[str]:
    """The names of a repository's files; of those in the cache where the hub cannot be asked."""
    from huggingface_hub import HfApi

    why = "and local_files_only asks for no other"
    if not local_files_only:
        try:
            siblings = HfApi(token=token).model_info(repo_id, revision=revision).siblings
            return [file.rfilename for file in siblings or []]
        except Exception as error:
            response: Any = getattr(error, "response", None)
            if response is not None and 400 <= response.status_code < 500:
                raise ModelNotFoundError(f"{repo_id}: the hub refuses: {error}") from error
            why = f"and the hub cannot be asked: {error}"
    snapshot = cached_snapshot(repo_id, revision, cache)
    if snapshot is None:
        raise ModelNotFoundError(f"{repo_id} is not in the cache, {why}")
    return [file.relative_to(snapshot).as_posix() for file in snapshot.rglob("*")]


def cached_snapshot(repo_id: str, revision: str | None, cache: Path | None) -> Path | None:
    """The folder in the cache that holds a revision (a commit, or a branch that a file remembers the commit of)."""
    from huggingface_hub import constants

    repo = (cache or Path(constants.HF_HUB_CACHE)) / f"models--{repo_id.replace('/', '--')}"
    remembered = repo / "refs" / (revision or "main")
    commit = remembered.read_text().strip() if remembered.is_file() else revision
    folder = repo / "snapshots" / commit if commit else None
    return folder if folder and folder.is_dir() else None


def choose(names: Iterable[str], repo_id: str) -> str:
    """The model among a repository's files; of a split one its first part."""
    files = sorted(name for name in names if name.lower().endswith(".gguf"))
    models = [name for name in files if not (part := PART.search(name)) or int(part[1]) == 1]
    if not models:
        raise ModelNotFoundError(f"{repo_id} has no GGUF file")
    kinds = {name: PurePosixPath(name).name.lower().replace("-", "_") for name in models}
    by_type = ([name for name in models if kind in kinds[name]] for kind in PREFERRED)
    best = next((found for found in by_type if found), models)
    if len(best) > 1:
        raise ArgumentError(f"{repo_id} has several models; give one as filename: {', '.join(models)}")
    return best[0]


def parts(filename: str) -> list[str]:
    """All parts of a split model by the name of its first; of any other file its name."""
    part = PART.search(filename)
    if part is None:
        return [filename]
    stem = filename[: part.start()]
    return [f"{stem}-{i:05}-of-{part[2]}.gguf" for i in range(1, int(part[2]) + 1)]


def local(model: str) -> str:
    """A model's path as the commands take it: `hf:owner/name` or `hf:owner/name/file` is fetched by name."""
    if not model.startswith("hf:"):
        return model
    owner, _, rest = model.removeprefix("hf:").partition("/")
    name, _, filename = rest.partition("/")
    if not (owner and name):
        raise ArgumentError(f"{model} is no hf:owner/name or hf:owner/name/file")
    return str(model_file(f"{owner}/{name}", filename or None))
