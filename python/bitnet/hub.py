"""Models by name: files of a repository on the Hugging Face Hub, by `huggingface_hub` and in its cache."""

import hashlib
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from .errors import ArgumentError, BitnetError, ModelNotFoundError

if TYPE_CHECKING:
    from huggingface_hub import HfFileMetadata

PREFERRED = ("i2_s", "tq2_0", "tq1_0", "iq2_bn", "iq1_bn")
"""Tensor types in the names of files, the first choice first: those that lose nothing of a ternary model."""
PART = re.compile(r"-(\d{5})-of-(\d{5})\.gguf$")
REPOSITORY = re.compile(r"(?!.*(?:--|\.\.|\.git$))\w([\w.-]*\w)?/\w([\w.-]*\w)?", re.ASCII)
NAME = re.compile(r"hf:([^/@]+/[^/@]+)(?:@([^/]+))?(?:/(.*))?")
"""A model's name in a command."""


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
        from huggingface_hub import constants
    except ImportError as error:
        raise BitnetError("models by name need huggingface_hub: pip install 'bitnet-engine[hub]'") from error
    check(repo_id, filename, revision)
    repo = Repository(repo_id, revision, Path(cache_dir or constants.HF_HUB_CACHE).expanduser(), token)
    if local_files_only:
        return repo.cached(filename, ModelNotFoundError("local_files_only asks for no other"))
    try:
        names, missing = repo.ask(filename)
    except BitnetError:
        raise
    except Exception as error:  # whichever HTTP library this version of huggingface_hub uses
        failure = explained(error, revision)
        if status(error) == 404:
            raise type(failure)(f"{repo_id}: {failure}") from error
        return repo.cached(filename, failure)
    try:
        return repo.take(names, missing)
    except BitnetError:
        raise
    except Exception as error:
        failure = explained(error, revision)
        kept = "; the next call goes on where this one stopped" if isinstance(failure, ModelNotFoundError) else ""
        raise BitnetError(f"{repo_id}: {failure}{kept}") from error


def check(repo_id: Any, filename: Any, revision: Any) -> None:
    """Raise ArgumentError for what cannot be a name."""
    if not (isinstance(repo_id, str) and REPOSITORY.fullmatch(repo_id)):
        raise ArgumentError(f"repo_id is {repo_id!r}, expected 'owner/name' of letters, digits, '-', '_' and '.'")
    for what, value in (("filename", filename), ("revision", revision)):
        if value is not None and not isinstance(value, str):
            raise ArgumentError(f"{what} is {value!r}, expected a text")


@dataclass(frozen=True)
class Repository:
    """A revision of a repository, on the hub and in the cache."""

    name: str
    revision: str | None
    cache: Path
    token: str | bool | None

    @property
    def folder(self) -> Path:
        """Its place in the cache: `blobs`, named by what they hold; `snapshots` of links to them; `refs` to commits."""
        return self.cache / f"models--{self.name.replace('/', '--')}"

    def ask(self, filename: str | None) -> tuple[list[str], "dict[str, HfFileMetadata]"]:
        """The files of the model, and what the hub says about those that are not in the cache."""
        from huggingface_hub import HfApi, constants, get_hf_file_metadata, hf_hub_url, try_to_load_from_cache

        info = HfApi(token=self.token).model_info(
            self.name, revision=self.revision, timeout=constants.HF_HUB_ETAG_TIMEOUT
        )
        names = parts_of(filename, [file.rfilename for file in info.siblings or []], self.name)
        return names, {
            name: get_hf_file_metadata(hf_hub_url(self.name, name, revision=info.sha), token=self.token)
            for name in names
            if not isinstance(try_to_load_from_cache(self.name, name, self.cache, revision=info.sha), str)
        }

    def take(self, names: list[str], missing: "dict[str, HfFileMetadata]") -> Path:
        """Download what is missing; `huggingface_hub` then finds the blobs, or says why not, and makes the snapshot."""
        from huggingface_hub import hf_hub_download

        blobs = {name: self.download(name, file) for name, file in missing.items() if file.etag}
        paths = [
            Path(hf_hub_download(self.name, name, revision=self.revision, cache_dir=self.cache, token=self.token))
            for name in names
        ]
        for name, path in zip(names, paths, strict=True):
            if name in blobs and not path.is_symlink():  # a system without links: the snapshot has a copy
                blobs[name].unlink(missing_ok=True)
        return paths[0]

    def download(self, name: str, file: "HfFileMetadata") -> Path:
        """The blob of a file, downloaded from where an earlier download of it stopped.

        `hf_hub_download` begins anew in each process, and over Xet always. So this takes plain HTTP, and writes into
        the file and under the lock that the cache has for it. Its name, the hub's ETag, says to what the bytes belong;
        If-Range cannot, since the servers that hold the files have ETags of their own.
        """
        from huggingface_hub import hf_hub_url
        from huggingface_hub.file_download import http_get
        from huggingface_hub.utils import WeakFileLock, build_hf_headers  # type: ignore[attr-defined]

        blob = self.folder / "blobs" / str(file.etag)
        partial = blob.with_name(f"{blob.name}.incomplete")
        lock = self.cache / ".locks" / self.folder.name / f"{blob.name}.lock"
        for folder in (blob.parent, lock.parent):
            folder.mkdir(parents=True, exist_ok=True)
        with WeakFileLock(lock):
            earlier = partial.exists()
            while not blob.exists():
                # A killed process loses what is buffered: 128 KiB, where Python 3.14 decides.
                with partial.open("ab", buffering=8192) as target:
                    start = target.tell()
                    try:
                        if file.size is None or start < file.size:
                            url = hf_hub_url(self.name, name, revision=file.commit_hash)
                            headers = build_hf_headers(token=self.token)
                            http_get(url, target, resume_size=start, headers=headers, displayed_filename=name)
                    except Exception:
                        if target.tell() <= start:
                            raise
                        continue  # something came; before version 1, http_get gives up at the first break
                if not (fault := damage(partial, file)):
                    partial.replace(blob)
                    break
                partial.unlink()
                if not earlier:
                    raise BitnetError(f"{self.name}: {name} came damaged: {fault}; try again")
                earlier = False
        return blob

    def cached(self, filename: str | None, failure: BitnetError) -> Path:
        """The model in the cache; `failure` is why the hub does not tell."""
        snapshot = self.snapshot()
        if snapshot is None:
            raise type(failure)(f"{self.name} is not in the cache, and {failure}")
        names = [file.relative_to(snapshot).as_posix() for file in snapshot.rglob("*") if file.is_file()]
        try:
            return snapshot / parts_of(filename, names, self.name)[0]
        except ModelNotFoundError as error:
            raise type(failure)(f"in the cache, {error}; {failure}") from error

    def snapshot(self) -> Path | None:
        """The cache's folder of the revision: of a commit, its beginning, or a branch or tag that it remembers."""
        remembered = self.folder / "refs" / (self.revision or "main")
        commit = remembered.read_text().strip() if remembered.is_file() else self.revision or ""
        found = [folder for folder in (self.folder / "snapshots").glob("*") if folder.name.startswith(commit)]
        return found[0] if len(found) == 1 and len(commit) >= 7 else None


def damage(path: Path, file: "HfFileMetadata") -> str | None:
    """Why a file is not the one that the hub describes, whose ETag is the SHA-256 of all large files."""
    if file.size is not None and path.stat().st_size != file.size:
        return f"{path.stat().st_size} bytes, and {file.size} are right"
    if re.fullmatch("[0-9a-f]{64}", str(file.etag)):
        digest = hashlib.sha256()
        with path.open("rb") as source:
            while chunk := source.read(1 << 20):
                digest.update(chunk)
        if digest.hexdigest() != file.etag:
            return "its SHA-256 is not the one that the hub gives"
    return None


def explained(error: Exception, revision: str | None) -> BitnetError:
    """What went wrong, in a clause of one line; ModelNotFoundError unless somebody refuses."""
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    said = (str(error).strip() or type(error).__name__).splitlines()[0]
    code = status(error)
    enter = "pass token or log in by `hf auth login`"
    if isinstance(error, RevisionNotFoundError):
        return ModelNotFoundError(f"the hub has no revision {revision!r} of it")
    if isinstance(error, GatedRepoError):
        return BitnetError(f"the hub refuses it: the repository is gated: ask for access on its page, and {enter}")
    if isinstance(error, RepositoryNotFoundError) or code == 404:
        return ModelNotFoundError(f"the hub has none by that name, or a private one: check the name, and {enter}")
    if code in (401, 403):
        return BitnetError(f"the hub refuses it: {said}; {enter}")
    if isinstance(error, OSError) and error.errno:
        return BitnetError(f"the cache cannot be used: {error}; cache_dir or HF_HOME names another")
    return ModelNotFoundError(f"the hub {'fails' if code else 'cannot be reached'}: {said}")


def status(error: Exception) -> int | None:
    """The HTTP status that the hub answered with, if it did."""
    code: int | None = getattr(getattr(error, "response", None), "status_code", None)
    return code


def parts_of(filename: str | None, names: list[str], repo_id: str) -> list[str]:
    """The parts of a model of which all names are there; without `filename`, of the one that is chosen."""
    wanted = parts(choose(names, repo_id) if filename is None else filename)
    if missing := next((name for name in wanted if name not in names), None):
        there = ", ".join(name for name in sorted(names) if name.lower().endswith(".gguf")) or "none"
        raise ModelNotFoundError(f"{repo_id}: {missing} is not there; its GGUF files: {there}")
    return wanted


def choose(names: Iterable[str], repo_id: str) -> str:
    """The model among a repository's files; of a split one its first part. Projectors of images are none."""
    kinds = {name: PurePosixPath(name).name.lower().replace("-", "_") for name in sorted(names)}
    files = [name for name, kind in kinds.items() if kind.endswith(".gguf") and "mmproj" not in kind]
    models = [name for name in files if not (part := PART.search(name)) or int(part[1]) == 1]
    if not models:
        raise ModelNotFoundError(f"{repo_id} has no GGUF file")
    by_type = ([name for name in models if kind in kinds[name]] for kind in PREFERRED)
    best = next((found for found in by_type if found), models)
    if len(best) > 1:
        raise ArgumentError(f"{repo_id} has several models; give one as filename: {', '.join(models)}")
    return best[0]


def parts(filename: str) -> list[str]:
    """All parts of a split model by the name of one; of any other file its name."""
    part = PART.search(filename)
    if part is None:
        return [filename]
    stem = filename[: part.start()]
    return [f"{stem}-{i:05}-of-{part[2]}.gguf" for i in range(1, int(part[2]) + 1)]


def local(model: str) -> str:
    """A model's path as the commands take it: `hf:owner/name[@revision][/file]` is fetched by name."""
    if not model.startswith("hf:"):
        return model
    name = NAME.fullmatch(model)
    if name is None:
        raise ArgumentError(f"{model} is no hf:owner/name[@revision][/file]")
    return str(model_file(name[1], name[3] or None, revision=name[2]))
