"""Models by name: files of repositories on the Hugging Face Hub, kept in the cache of `huggingface_hub`."""

import hashlib
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from . import models
from ._shards import shard_names, shard_number
from .errors import ArgumentError, BitnetError, ModelNotFoundError

if TYPE_CHECKING:
    from huggingface_hub import HfFileMetadata

__all__ = ["local", "model_file"]

_PREFERRED = (
    *("i2_s", "q2_0", "pq2_0", "ptq1_0", "q2_0_g64", "q2_g64", "stq1_0", "q1_0"),
    *("tq2_0", "tq1_0", "iq2_bn", "iq2_bn_r4", "iq1_bn"),
)
"""Tensor types as file names spell them, the first choice first. Of Bonsai's, `q2_0` has groups of 128 columns, and
`q2_0_g64` is llama.cpp's own type. They come before `tq2_0`, whose one scale for 256 columns would lose theirs."""
_CONFIG = "config.json"
_COMPANIONS = re.compile(
    r"config\.json|modules\.json|generation_config\.json|tokenizer\.json|tokenizer_config\.json|chat_template\.(jinja|json)"
    r"|additional_chat_templates/[^/]*\.jinja|1_Pooling/config\.json"
)
"""The files of a directory that decide an answer, beside its weights."""
_INDEX = "model.safetensors.index.json"
_SAFETENSORS = re.compile(r"model-(\d{5})-of-(\d{5})\.safetensors")
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
_REPOSITORY = re.compile(r"(?!.*(?:--|\.\.|\.git$))\w([\w.-]*\w)?/\w([\w.-]*\w)?", re.ASCII)
_COMMAND_LINE_NAME = re.compile(r"hf:([^/@]+/[^/@]+)(?:@([^/]+))?(?:/(.*))?")
_COMPONENT = re.compile(r"[0-9A-Za-z_][0-9A-Za-z._+=-]{0,254}")
"""A name that a server may give to a file or folder of the cache: one component of a path."""
_LOG_IN = "pass token or run `hf auth login`"


def model_file(
    repo_id: str,
    filename: str | None = None,
    *,
    revision: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
    token: str | bool | None = None,
) -> Path:
    """The path of a repository's model in the cache: a GGUF file, or else a directory with safetensors files.

    Downloads it if it is not there.

    Arguments and errors are those of `Engine.from_pretrained`.
    """
    if repo_id == models.NAME:
        return models.inside()
    try:
        from huggingface_hub import constants
    except ImportError as error:
        message = "models of the Hugging Face Hub need huggingface_hub: pip install 'bitnet-engine[hub]'"
        raise BitnetError(message) from error
    _check_names(repo_id, filename, revision)
    repo = _Repository(repo_id, revision, Path(cache_dir or constants.HF_HUB_CACHE).expanduser(), token)
    if local_files_only:
        return repo.find_cached(filename, ModelNotFoundError("local_files_only=True allows no download"))
    try:
        commit, names, missing = repo.ask_hub(filename)
    except BitnetError:
        raise
    except Exception as error:  # the HTTP library and its errors depend on the version of huggingface_hub
        failure = _explained(error, revision)
        if _http_status(error) == 404:
            raise type(failure)(f"{repo_id}: {failure}") from error
        return repo.find_cached(filename, failure)
    try:
        return repo.fetch(commit, names, missing)
    except BitnetError:
        raise
    except Exception as error:
        failure = _explained(error, revision)
        resumes = "; the next call resumes the download" if isinstance(failure, ModelNotFoundError) else ""
        raise BitnetError(f"{repo_id}: {failure}{resumes}") from error


def local(model: str) -> str:
    """The path of a model by name.

    `trit` is the model inside the package, `hf:owner/name[@revision][/file]` one of the hub (see `model_file`), and
    anything else a path, which is returned unchanged.
    """
    if model == models.NAME and not os.path.exists(model):
        return str(models.inside())
    if not model.startswith("hf:"):
        return model
    name = _COMMAND_LINE_NAME.fullmatch(model)
    if name is None:
        raise ArgumentError(f"{model!r} is not of the form hf:owner/name[@revision][/file]")
    return str(model_file(name[1], name[3] or None, revision=name[2]))


def _check_names(repo_id: Any, filename: Any, revision: Any) -> None:
    """Raise ArgumentError for values that cannot be names."""
    if not (isinstance(repo_id, str) and _REPOSITORY.fullmatch(repo_id)):
        raise ArgumentError(f"repo_id is {repo_id!r}, expected 'owner/name' of letters, digits, '-', '_' and '.'")
    for what, value in (("filename", filename), ("revision", revision)):
        if value is not None and not isinstance(value, str):
            raise ArgumentError(f"{what} is {value!r}, expected a str")
    if revision is not None and not _stays_inside(revision):
        raise ArgumentError(f"revision is {revision!r}, expected a branch, a tag or a commit")


@dataclass(frozen=True)
class _Repository:
    """One revision of a repository, on the hub and in the cache."""

    name: str
    revision: str | None
    cache: Path
    token: str | bool | None

    @property
    def folder(self) -> Path:
        """Its folder in the cache, with `blobs` (files named by ETag), `snapshots` (links to them) and `refs`."""
        return self.cache / f"models--{self.name.replace('/', '--')}"

    def ask_hub(self, filename: str | None) -> tuple[str, list[str], "dict[str, HfFileMetadata]"]:
        """The commit, the names of the model's files, and the hub's metadata of those that are not in the cache."""
        from huggingface_hub import HfApi, constants, get_hf_file_metadata, hf_hub_url

        info = HfApi(token=self.token).model_info(
            self.name, revision=self.revision, timeout=constants.HF_HUB_ETAG_TIMEOUT
        )
        commit = self.checked(info.sha, "repository", "commit")
        names = _files_of(filename, [file.rfilename for file in info.siblings or []], self.name)
        return (
            commit,
            names,
            {
                name: get_hf_file_metadata(hf_hub_url(self.name, name, revision=commit), token=self.token)
                for name in names
                if not (self.folder / "snapshots" / commit / name).exists()
            },
        )

    def fetch(self, commit: str, names: list[str], missing: "dict[str, HfFileMetadata]") -> Path:
        """Download the missing files, link them into the commit's snapshot, and return the path of the first.

        The files lie where `huggingface_hub` puts them. Its `hf_hub_download` would ask the hub again and take paths
        from an answer that nobody has checked.
        """
        snapshot = self.folder / "snapshots" / commit
        for name, file in missing.items():
            blob = self.folder / "blobs" / self.checked(file.etag, name, "ETag")
            self.download(name, file, commit, blob)
            _link(blob, snapshot / name)
        if self.revision != commit:
            ref = self.folder / "refs" / (self.revision or "main")
            ref.parent.mkdir(parents=True, exist_ok=True)
            ref.write_text(commit)
        return _opened(snapshot / names[0])

    def checked(self, given: str | None, name: str, what: str) -> str:
        """A name that the hub gives, if it is one of a single file."""
        if given is None or not _COMPONENT.fullmatch(given):
            raise BitnetError(f"{self.name}: the hub gives {name} the {what} {given!r}, which is no name of a file")
        return given

    def download(self, name: str, file: "HfFileMetadata", commit: str, blob: Path) -> None:
        """Download a file into the cache as a blob, and resume an earlier download of it.

        `hf_hub_download` cannot resume in another process, nor over Xet. So this uses plain HTTP, with the cache's own
        partial file and lock. The hub's ETag is the blob's name, and tells which file a partial one belongs to;
        If-Range cannot, because the servers that hold the files have other ETags.
        """
        from huggingface_hub import hf_hub_url
        from huggingface_hub.file_download import http_get
        from huggingface_hub.utils import WeakFileLock, build_hf_headers  # type: ignore[attr-defined]

        partial = blob.with_name(f"{blob.name}.incomplete")
        lock = self.cache / ".locks" / self.folder.name / f"{blob.name}.lock"
        for folder in (blob.parent, lock.parent):
            folder.mkdir(parents=True, exist_ok=True)
        with WeakFileLock(lock):
            resumed = partial.exists()
            while not blob.exists():
                # A killed process loses its buffer, which Python 3.14 makes 128 KiB by default.
                with partial.open("ab", buffering=8192) as target:
                    start = target.tell()
                    try:
                        if file.size is None or start < file.size:
                            url = hf_hub_url(self.name, name, revision=commit)
                            headers = build_hf_headers(token=self.token)
                            http_get(url, target, resume_size=start, headers=headers, displayed_filename=name)
                    except Exception:
                        if target.tell() <= start:
                            raise
                        continue  # some bytes arrived: go on; before 1.0, http_get gives up at the first break
                if not (fault := _damage(partial, file)):
                    partial.replace(blob)
                    break
                partial.unlink()
                if not resumed:
                    raise BitnetError(f"{self.name}: the download of {name} is damaged: {fault}; try again")
                resumed = False  # the earlier part may have been wrong: download all of it once

    def find_cached(self, filename: str | None, failure: BitnetError) -> Path:
        """The model in the cache. If it is not there, raises an error of `failure`'s class, with its text as reason."""
        snapshot = self.snapshot()
        if snapshot is None:
            raise type(failure)(f"{self.name} is not in the cache, and {failure}")
        names = [file.relative_to(snapshot).as_posix() for file in snapshot.rglob("*") if file.is_file()]
        try:
            return _opened(snapshot / _files_of(filename, names, self.name)[0])
        except ModelNotFoundError as error:
            raise type(failure)(f"in the cache, {error}; {failure}") from error

    def snapshot(self) -> Path | None:
        """The cache's folder of the revision: a branch or tag that the cache knows, or 7 digits or more of a commit."""
        ref = self.folder / "refs" / (self.revision or "main")
        commit = ref.read_text().strip() if ref.is_file() else self.revision or ""
        found = [folder for folder in (self.folder / "snapshots").glob("*") if folder.name.startswith(commit)]
        return found[0] if len(found) == 1 and len(commit) >= 7 else None


def _link(blob: Path, path: Path) -> None:
    """Make a snapshot's file out of a blob: a symbolic link, or the blob itself where there are none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        path.unlink(missing_ok=True)  # a link to a blob that somebody removed
        path.symlink_to(os.path.relpath(blob, path.parent))
    except FileExistsError:
        pass  # another process made it meanwhile
    except OSError:
        blob.replace(path)


def _damage(path: Path, file: "HfFileMetadata") -> str | None:
    """Why a downloaded file is not the hub's file, or None. The ETag of a large file is its SHA-256."""
    size = path.stat().st_size
    if file.size is not None and size != file.size:
        return f"it has {size} bytes, expected {file.size}"
    if re.fullmatch("[0-9a-f]{64}", str(file.etag)):
        digest = hashlib.sha256()
        with path.open("rb") as source:
            while chunk := source.read(1 << 20):
                digest.update(chunk)
        if digest.hexdigest() != file.etag:
            return "its SHA-256 is not the hub's"
    return None


def _explained(error: Exception, revision: str | None) -> BitnetError:
    """The error of a request as a clause of one line: BitnetError if access is denied, else ModelNotFoundError."""
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    said = (str(error).strip() or type(error).__name__).splitlines()[0]
    code = _http_status(error)
    if isinstance(error, RevisionNotFoundError):
        return ModelNotFoundError(f"the hub has no revision {revision!r} of this repository")
    if isinstance(error, GatedRepoError):
        return BitnetError(f"the repository is gated; request access on its page, then {_LOG_IN}")
    if isinstance(error, RepositoryNotFoundError) or code == 404:
        return ModelNotFoundError(f"the hub has no public repository of this name; check it, or {_LOG_IN}")
    if code in (401, 403):
        return BitnetError(f"the hub denies access: {said}; {_LOG_IN}")
    if isinstance(error, OSError) and error.errno:
        return BitnetError(f"the cache cannot be used: {error}; choose another with cache_dir or HF_HOME")
    return ModelNotFoundError(f"the hub {'returned an error' if code else 'cannot be reached'}: {said}")


def _http_status(error: Exception) -> int | None:
    """The HTTP status of the hub's answer, if there was an answer."""
    code: int | None = getattr(getattr(error, "response", None), "status_code", None)
    return code


def _files_of(filename: str | None, names: list[str], repo_id: str) -> list[str]:
    """The names of all files of a model; without `filename`, of the model that `_choose` picks."""
    names = [name for name in names if _stays_inside(name)]
    has_gguf = any(name.lower().endswith(".gguf") for name in names)
    if filename == _CONFIG or (filename is None and not has_gguf and _CONFIG in names):
        return _directory(names, repo_id)
    wanted = shard_names(_choose(names, repo_id) if filename is None else filename)
    if missing := next((name for name in wanted if name not in names), None):
        there = ", ".join(name for name in sorted(names) if name.lower().endswith(".gguf")) or "none"
        raise ModelNotFoundError(f"{repo_id} has no file {missing}; its GGUF files: {there}")
    return wanted


def _directory(names: list[str], repo_id: str) -> list[str]:
    """The names of the files of a model of safetensors files, the configuration first. Pickles are never among them."""
    weights = [name for name in names if name == "model.safetensors"]
    if not weights and _INDEX in names:
        parts = [part for name in names if (part := _SAFETENSORS.fullmatch(name))]
        counts = {int(part[2]) for part in parts}
        if len(counts) == 1 and len(parts) != (count := counts.pop()):
            raise ModelNotFoundError(f"{repo_id} has {len(parts)} of {count} safetensors files")
        weights = [part[0] for part in parts] or [n for n in names if "/" not in n and n.endswith(".safetensors")]
    if _CONFIG not in names or not weights:
        pickles = [name for name in names if name.lower().endswith(_PICKLES)]
        why = f"; {pickles[0]} is a pickle, which runs code when it is opened" if pickles else ""
        raise ModelNotFoundError(f"{repo_id} has no GGUF file and no model of safetensors files{why}")
    index = [name for name in names if name == _INDEX and weights != ["model.safetensors"]]
    others = sorted(name for name in names if _COMPANIONS.fullmatch(name) and name != _CONFIG)
    return [_CONFIG, *others, *index, *sorted(weights)]


def _opened(path: Path) -> Path:
    """What is opened, given the first file of a model: a directory if that is the model's configuration."""
    return path.parent if path.name == _CONFIG else path


def _stays_inside(name: str) -> bool:
    """Whether a name that the hub gives is a path below the repository."""
    return name.isprintable() and not any(part in ("", ".", "..") or set(part) & set("\\:") for part in name.split("/"))


def _is_of(name: str, kind: str) -> bool:
    """Whether a file's name ends with this tensor type, or has it as a word of its own."""
    return bool(re.search(rf"(?<![a-z0-9]){kind}(?!_(?:g64|r4)|[a-z0-9])", name))


def _choose(names: Iterable[str], repo_id: str) -> str:
    """Pick the model among a repository's files: a GGUF file that is no image projector; the first of a split model."""
    kinds = {name: PurePosixPath(name).name.lower().replace("-", "_") for name in sorted(names)}
    files = [name for name, kind in kinds.items() if kind.endswith(".gguf") and "mmproj" not in kind]
    models = [name for name in files if shard_number(name) in (None, 1)]
    if not models:
        raise ModelNotFoundError(f"{repo_id} has no GGUF file")
    by_type = ([name for name in models if _is_of(kinds[name], kind)] for kind in _PREFERRED)
    best = next((found for found in by_type if found), models)
    if len(best) > 1:
        raise ArgumentError(f"{repo_id} has several models; pass one of them as filename: {', '.join(models)}")
    return best[0]
