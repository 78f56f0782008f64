"""Models by name: from a local server that speaks the hub's protocol, and from the cache."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

import bitnet
from bitnet import hub
from bitnet._gguf_writer import write_gguf
from bitnet._synthetic import Spec, metadata, tensors
from conftest import ROOT

pytest.importorskip("huggingface_hub")

RELU2 = ROOT / "tests" / "fixtures" / "relu2-i2s.gguf"
SILU = ROOT / "tests" / "fixtures" / "silu-odd.gguf"
COMMIT = hashlib.sha1(b"a commit").hexdigest()


class Hub(ThreadingHTTPServer):
    """The part of the hub's protocol that a download needs, with a log of what was asked."""

    daemon_threads = True

    def __init__(self, repos: dict[str, dict[str, bytes]]) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.repos = repos
        self.commit = COMMIT
        self.log: list[tuple[str, str, str | None]] = []
        self.tokens: set[str | None] = set()
        self.breaks = 0
        """How many of the next downloads break in the middle."""
        self.goes_on = threading.Event()
        """While this is unset, downloads wait in the middle."""
        self.goes_on.set()
        self.fails = False
        self.knows_ranges = True
        self.redirects = False
        """Whether another server holds the bytes, as for the hub. Its ETags differ, and it must not get the token."""
        self.lies = False
        """Whether a file's bytes do not match its SHA-256."""
        self.etag: str | None = None
        """What every file has as its ETag, in place of its SHA-256."""
        self.honest_heads = 0
        """How many HEAD requests get the right ETag before `etag` holds."""

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore clients that were killed."""

    def ranges(self, name: str = "model.gguf") -> list[str | None]:
        """The Range header of each download of a file."""
        return [wanted for method, path, wanted in self.log if method == "GET" and path.endswith(f"/{name}")]


class Answers(BaseHTTPRequestHandler):
    """Answers requests."""

    protocol_version = "HTTP/1.1"
    server: Hub

    def log_message(self, *_: Any) -> None:
        """Write no log to standard error."""

    def do_HEAD(self) -> None:
        self.answer(with_body=False)

    def do_GET(self) -> None:
        self.answer(with_body=True)

    def answer(self, with_body: bool) -> None:
        path = unquote(urlsplit(self.path).path)
        wanted = self.headers.get("Range")
        self.server.log.append((self.command, path, wanted))
        token = self.headers.get("Authorization")
        self.server.tokens.add(token)
        if token and token.startswith("Bearer answer_"):  # answer_403_GatedRepo: answer with this status and error code
            _, status, *code = token.split("_")
            return self.send(int(status), b"", {"X-Error-Code": code[0]} if code else {}, with_body)
        commit = self.server.commit
        for repo, files in self.server.repos.items():
            if path.startswith(f"/api/models/{repo}"):
                if not path.endswith((repo, "/main", commit)):
                    return self.send(404, b"", {"X-Error-Code": "RevisionNotFound"}, with_body)
                siblings = [{"rfilename": name} for name in files]
                info = {"id": repo, "sha": commit, "siblings": siblings, "private": False, "tags": [], "downloads": 0}
                return self.send(200, json.dumps(info).encode(), {"Content-Type": "application/json"}, with_body)
            for revision in ("main", commit):
                name = path.removeprefix(f"/{repo}/resolve/{revision}/")
                if name in files:
                    return self.send_file(files[name], wanted, with_body)
            if path.startswith(f"/{repo}/"):
                return self.send(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit}, with_body)
        return self.send(404, b"", {"X-Error-Code": "RepoNotFound", "X-Error-Message": "no such thing"}, with_body)

    def send_file(self, data: bytes, wanted: str | None, with_body: bool) -> None:
        if self.server.fails and with_body:
            return self.send(500, b"", {}, with_body)
        name = hashlib.sha256(data).hexdigest()
        if self.server.etag and self.server.honest_heads <= 0:
            name = self.server.etag
        self.server.honest_heads -= not with_body
        headers = {"ETag": f'"{name}"', "X-Repo-Commit": self.server.commit, "Accept-Ranges": "bytes"}
        status = 200
        if self.server.redirects and not self.headers["Host"].startswith("localhost"):
            headers = {"Location": f"http://localhost:{self.server.server_port}{self.path}"} | {
                "X-Repo-Commit": self.server.commit,
                "X-Linked-ETag": f'"{name}"',
                "X-Linked-Size": str(len(data)),
            }
            return self.send(302, b"", headers, with_body)
        if self.server.redirects:
            assert "Authorization" not in self.headers
            headers["ETag"] = '"of the storage"'
        if self.server.lies:
            data = data[::-1]
        if wanted and self.server.knows_ranges:
            start = int(wanted.removeprefix("bytes=").split("-")[0])
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
            data, status = data[start:], 206
        self.send(status, data, headers, with_body)

    def send(self, status: int, data: bytes, headers: dict[str, str], with_body: bool) -> None:
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(data))}).items():
            self.send_header(name, value)
        self.end_headers()
        if with_body and self.server.breaks and "ETag" in headers:
            self.server.breaks -= 1
            self.wfile.write(data[: len(data) // 2])
            self.close_connection = True
        elif with_body:
            half = len(data) // 2
            self.wfile.write(data[:half])
            if "ETag" in headers:
                self.server.goes_on.wait(60)
            self.wfile.write(data[half:])


@pytest.fixture
def server() -> Iterator[Hub]:
    small, odd = RELU2.read_bytes(), SILU.read_bytes()
    repos = {
        "maker/one": {"README.md": b"x", "model.gguf": small},
        "maker/types": {"m-TQ1_0.gguf": odd, "m-i2_s.gguf": small, "m-f16.gguf": odd},
        "maker/unclear": {"a-q4.gguf": odd, "b-q8.gguf": odd},
        "maker/none": {"model.safetensors": b"x"},
    }
    with Hub(repos) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def started(code: str, home: Path, endpoint: str, *arguments: str, **more: str) -> subprocess.Popen[str]:
    """Start Python code with this hub and cache. `huggingface_hub` reads both when it is imported."""
    kept = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    env = kept | {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1", "NO_PROXY": "*"} | more
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)


def python(code: str, home: Path, endpoint: str, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Run Python code as `started` does, and wait for its end."""
    process = started(code, home, endpoint, *arguments, **more)
    out, err = process.communicate(timeout=120)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


OPEN = """
import signal, sys, bitnet
from huggingface_hub import constants
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests run in the background
constants.DOWNLOAD_CHUNK_SIZE = 1000  # a broken download keeps whole chunks; their usual size is 10 MB
name, *rest = sys.argv[1:]
try:
    with bitnet.Engine.from_pretrained(name, *rest, n_threads=1, token=TOKEN) as engine:
        print(engine.path.name, engine.n_threads, engine.logits([1, 2]).shape[0])
except bitnet.BitnetError as error:
    print(type(error).__name__, error)
"""


def opened(home: Path, server: Hub | None, *arguments: str, token: str | None = None, **more: str) -> str:
    """The output of a process that opens a model."""
    done = python(OPEN.replace("TOKEN", repr(token)), home, endpoint(server), *arguments, **more)
    assert done.returncode == 0, done.stderr
    return done.stdout


def endpoint(server: Hub | None) -> str:
    """The URL of the hub; without one, a port on which nothing listens."""
    return f"http://127.0.0.1:{server.server_port if server else 9}"


FIND = """
import json, sys
from bitnet import BitnetError, hub
for arguments, options in json.loads(sys.argv[1]):
    try:
        print(hub.model_file(*arguments, **options).name)
    except BitnetError as error:
        print(type(error).__name__, error)
"""


def found(home: Path, server: Hub | None, *calls: tuple[list[Any], dict[str, Any]], **more: str) -> list[str]:
    """The results or errors of calls of `model_file`, one line each."""
    done = python(FIND, home, endpoint(server), json.dumps(calls), **more)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_model_is_downloaded_once_and_then_found_without_a_network(server: Hub, tmp_path: Path) -> None:
    assert opened(tmp_path, server, "maker/one", token="hf_secret") == "model.gguf 1 2\n"
    assert "Bearer hf_secret" in server.tokens
    assert [path for method, path, _ in server.log if method == "GET" and "/resolve/" in path] == [
        f"/maker/one/resolve/{COMMIT}/model.gguf"
    ]
    before = len(server.log)
    assert opened(tmp_path, server, "maker/one") == "model.gguf 1 2\n"
    assert not [path for method, path, _ in server.log[before:] if method == "GET" and "/resolve/" in path]
    before = len(server.log)
    assert opened(tmp_path, server, "maker/one", HF_HUB_OFFLINE="1") == "model.gguf 1 2\n"
    assert len(server.log) == before
    # Without a hub: nothing listens on the port.
    assert opened(tmp_path, None, "maker/one") == "model.gguf 1 2\n"


def test_a_connection_that_breaks_is_taken_up_where_it_broke(server: Hub, tmp_path: Path) -> None:
    server.breaks = 1
    assert opened(tmp_path, server, "maker/one") == "model.gguf 1 2\n"
    assert server.ranges() == [None, f"bytes={RELU2.stat().st_size // 2 // 1000 * 1000}-"]


def interrupted(home: Path, server: Hub, how: signal.Signals) -> int:
    """Interrupt a download of `maker/one` in the middle. Returns how many bytes are kept."""
    server.goes_on.clear()
    process = started(OPEN.replace("TOKEN", "None"), home, endpoint(server), "maker/one")
    until(lambda: any(partial.stat().st_size > 20_000 for partial in partials(home)))
    process.send_signal(how)
    process.communicate(timeout=60)
    server.goes_on.set()
    (partial,) = partials(home)
    return partial.stat().st_size


def partials(home: Path) -> list[Path]:
    """The unfinished files in the cache."""
    return list(home.rglob("*.incomplete"))


def until(condition: Callable[[], bool]) -> None:
    """Wait until another process has made the condition true."""
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_what_an_interrupted_process_has_is_not_asked_for_again(
    server: Hub, tmp_path: Path, how: signal.Signals
) -> None:
    kept = interrupted(tmp_path, server, how)
    assert opened(tmp_path, server, "maker/one") == "model.gguf 1 2\n"
    assert server.ranges() == [None, f"bytes={kept}-"]
    # huggingface_hub finds everything in the cache as if it had downloaded it.
    code = """
import os
from huggingface_hub import hf_hub_download, scan_cache_dir, try_to_load_from_cache
path = hf_hub_download("maker/one", "model.gguf", local_files_only=True)
assert path == try_to_load_from_cache("maker/one", "model.gguf")
(repo,) = scan_cache_dir().repos
print(path, os.path.islink(path), repo.refs["main"].commit_hash, repo.nb_files, repo.size_on_disk)
"""
    path, *rest = python(code, tmp_path, endpoint(server)).stdout.split()
    assert Path(path).read_bytes() == RELU2.read_bytes()
    assert rest == ["True", COMMIT, "1", str(RELU2.stat().st_size)]
    assert not partials(tmp_path)


def test_a_file_that_has_changed_since_is_downloaded_anew(server: Hub, tmp_path: Path) -> None:
    interrupted(tmp_path, server, signal.SIGKILL)
    server.repos["maker/one"]["model.gguf"] = SILU.read_bytes()
    server.commit = hashlib.sha1(b"the next").hexdigest()
    assert opened(tmp_path, server, "maker/one") == "model.gguf 1 2\n"
    assert server.ranges() == [None, None]
    assert next(tmp_path.rglob("model.gguf")).read_bytes() == SILU.read_bytes()


def test_the_bytes_come_from_a_server_behind_the_hub(server: Hub, tmp_path: Path) -> None:
    server.redirects = True
    server.breaks = 1
    assert opened(tmp_path, server, "maker/one", token="hf_secret") == "model.gguf 1 2\n"
    both = [None, f"bytes={RELU2.stat().st_size // 2 // 1000 * 1000}-"]
    assert server.ranges() == [wanted for wanted in both for _ in ("the hub", "the storage")]


@pytest.mark.parametrize("fault", ["other bytes", "too long", "complete", "a server without ranges"])
def test_a_rest_that_does_not_fit_is_downloaded_anew(server: Hub, tmp_path: Path, fault: str) -> None:
    data = RELU2.read_bytes()
    partial = tmp_path / f"hub/models--maker--one/blobs/{hashlib.sha256(data).hexdigest()}.incomplete"
    partial.parent.mkdir(parents=True)
    kept = {"other bytes": data[1:1001], "too long": data + b"x", "complete": data}.get(fault, data[:1000])
    partial.write_bytes(kept)
    server.knows_ranges = fault != "a server without ranges"
    assert opened(tmp_path, server, "maker/one") == "model.gguf 1 2\n"
    if fault == "other bytes":
        assert server.ranges() == ["bytes=1000-", None]
    if fault == "complete":
        assert server.ranges() == []
    assert next(tmp_path.rglob("model.gguf")).read_bytes() == data
    assert not partials(tmp_path)


def test_a_file_that_is_not_what_the_hub_announces_is_refused(server: Hub, tmp_path: Path) -> None:
    server.lies = True
    assert opened(tmp_path, server, "maker/one") == (
        "BitnetError maker/one: the download of model.gguf is damaged: its SHA-256 is not the hub's; try again\n"
    )
    assert not [*partials(tmp_path), *tmp_path.rglob("model.gguf")]


@pytest.mark.parametrize("etag", ["/x/evil.pth", "../../evil", "..", ".", "a/b", "x" * 300, "a b", "-", "\\evil"])
def test_a_name_from_the_hub_stays_in_the_cache(server: Hub, tmp_path: Path, etag: str) -> None:
    server.etag = etag
    said = opened(tmp_path, server, "maker/one")
    assert said.startswith("BitnetError maker/one: the hub gives model.gguf the ETag")
    assert not [path for path in tmp_path.rglob("*") if "evil" in path.name or path.name == "model.gguf"]


def test_no_second_answer_of_the_hub_names_files(server: Hub, tmp_path: Path) -> None:
    server.etag, server.honest_heads = "../../../../evil/owned", 1
    code = "from bitnet import hub; print(hub.model_file('maker/one'))"
    for _ in range(2):  # downloaded, and then from the cache
        path = Path(python(code, tmp_path / "home", endpoint(server)).stdout.strip())
        assert path.read_bytes() == RELU2.read_bytes()
        assert not [*tmp_path.rglob("*owned*")]
    server.repos["maker/one"]["new.gguf"] = b"GGUF"
    server.commit = "../../../evil"
    said = python(code, tmp_path / "home", endpoint(server)).stderr
    assert "the hub gives repository the commit '../../../evil'" in said


def test_names_of_files_that_leave_the_repository_are_not_there(server: Hub, tmp_path: Path) -> None:
    data = server.repos["maker/one"]["model.gguf"]
    server.repos["maker/one"] = {name: data for name in ("../../evil.gguf", "/evil.gguf", "a/../../evil.gguf")}
    assert opened(tmp_path, server, "maker/one") == "ModelNotFoundError maker/one has no GGUF file\n"
    assert not [*tmp_path.rglob("*evil*")]


def test_two_processes_download_a_file_once(server: Hub, tmp_path: Path) -> None:
    server.goes_on.clear()
    code = OPEN.replace("TOKEN", "None")
    both = [started(code, tmp_path, endpoint(server), "maker/one") for _ in range(2)]
    until(lambda: sum(method == "HEAD" for method, _, _ in server.log) == 2)
    until(lambda: server.ranges() != [])
    server.goes_on.set()
    assert [process.communicate(timeout=60)[0] for process in both] == ["model.gguf 1 2\n"] * 2
    assert server.ranges() == [None]


def test_without_links_a_model_takes_its_size_once(server: Hub, tmp_path: Path) -> None:
    code = """
import os
def symlink(*_, **__): raise OSError("the default on Windows")
os.symlink = symlink
from bitnet import hub
print(hub.model_file("maker/one"), hub.model_file("maker/one"))
"""
    done = python(code, tmp_path, endpoint(server))
    first, second = done.stdout.split()
    assert first == second
    assert Path(first).read_bytes() == RELU2.read_bytes()
    assert not [file for file in tmp_path.rglob("blobs/*") if file.is_file()]


def test_the_right_file_of_several(server: Hub, tmp_path: Path) -> None:
    assert opened(tmp_path, server, "maker/types") == "m-i2_s.gguf 1 2\n"
    assert opened(tmp_path, server, "maker/types", "m-f16.gguf") == "m-f16.gguf 1 2\n"
    # Offline, the choice is among the cached files.
    assert opened(tmp_path, None, "maker/types") == "m-i2_s.gguf 1 2\n"


FAMILY = Path(os.environ.get("BITNET_FAMILIES", ROOT.parent / "shared" / "families")) / "hf-bitnet-bf16"


@pytest.mark.skipif(not FAMILY.is_dir(), reason="no families at hand")
def test_a_directory_where_there_is_no_gguf(server: Hub, tmp_path: Path) -> None:
    """Config, tokenizer and weights are downloaded; pickles and other files are not."""
    wanted = {path.name: path.read_bytes() for path in FAMILY.iterdir() if path.suffix in (".json", ".jinja")}
    del wanted["ids.json"]
    wanted |= {path.name: path.read_bytes() for path in FAMILY.glob("*.safetensors")}
    others = {"README.md": b"x", "pytorch_model.bin": b"x", "onnx/model.onnx": b"x", "ids.json": b"{}"}
    server.repos["maker/directory"] = wanted | others
    assert opened(tmp_path, server, "maker/directory") == f"{COMMIT} 1 2\n"
    [snapshot] = tmp_path.rglob(f"snapshots/{COMMIT}")
    assert {path.name for path in snapshot.iterdir()} == set(wanted)
    # Offline, too.
    assert opened(tmp_path, None, "maker/directory") == f"{COMMIT} 1 2\n"
    (snapshot / "model-00002-of-00002.safetensors").unlink()
    assert "has 1 of 2 safetensors files" in opened(tmp_path, None, "maker/directory")


def test_pickles_are_not_downloaded(server: Hub, tmp_path: Path) -> None:
    server.repos["maker/pickle"] = {"config.json": b"{}", "pytorch_model.bin": b"x"}
    said = opened(tmp_path, server, "maker/pickle")
    assert said.startswith("ModelNotFoundError maker/pickle has no GGUF file and no model of safetensors files; ")
    assert "pytorch_model.bin is a pickle, which runs code" in said
    assert not [path for path in tmp_path.rglob("*") if path.name == "pytorch_model.bin"]


def test_what_is_not_there_is_named(server: Hub, tmp_path: Path) -> None:
    said = opened(tmp_path, server, "maker/unclear")
    assert said.startswith(
        "ArgumentError maker/unclear has several models; pass one of them as filename: a-q4.gguf, b-q8.gguf"
    )
    assert opened(tmp_path, server, "maker/none").startswith("ModelNotFoundError maker/none has no GGUF file")
    assert opened(tmp_path, server, "maker/one", "x.gguf").startswith(
        "ModelNotFoundError maker/one has no file x.gguf;"
    )
    assert opened(tmp_path, None, "maker/one").startswith("ModelNotFoundError maker/one is not in the cache, and the")


def test_what_the_hub_does_not_have_or_refuses(server: Hub, tmp_path: Path) -> None:
    server.repos["maker/parts"] = {f"m-0000{i}-of-00003.gguf": b"x" for i in (1, 3)} | {"m-f16.gguf": b"x"}
    log_in = "pass token or run `hf auth login`"
    none = f"the hub has no public repository of this name; check it, or {log_in}"
    gated = f"the repository is gated; request access on its page, then {log_in}"
    denied = f"the hub denies access: 403 Forbidden: None.; {log_in}"
    uncached = "maker/one is not in the cache, and"
    split = ", ".join(sorted(server.repos["maker/parts"]))
    one, nobody = "maker/one", "maker/nobody"
    calls: list[tuple[list[str], dict[str, str], str]] = [
        ([nobody], {}, f"ModelNotFoundError {nobody}: {none}"),
        ([nobody, "model.gguf"], {}, f"ModelNotFoundError {nobody}: {none}"),
        ([one], {"revision": "dev"}, f"ModelNotFoundError {one}: the hub has no revision 'dev' of this repository"),
        (
            [one, "model.gguf"],
            {"revision": "dev"},
            f"ModelNotFoundError {one}: the hub has no revision 'dev' of this repository",
        ),
        ([one, "modle.gguf"], {}, f"ModelNotFoundError {one} has no file modle.gguf; its GGUF files: model.gguf"),
        ([one, "../x.gguf"], {}, f"ModelNotFoundError {one} has no file ../x.gguf; its GGUF files: model.gguf"),
        (["maker/none", "x"], {}, "ModelNotFoundError maker/none has no file x; its GGUF files: none"),
        (
            ["maker/parts", "m-00001-of-00003.gguf"],
            {},
            f"ModelNotFoundError maker/parts has no file m-00002-of-00003.gguf; its GGUF files: {split}",
        ),
        ([one], {"token": "answer_401_RepoNotFound"}, f"ModelNotFoundError {uncached} {none}"),
        ([one], {"token": "answer_403_GatedRepo"}, f"BitnetError {uncached} {gated}"),
        ([one], {"token": "answer_403"}, f"BitnetError {uncached} {denied}"),
        ([one, "model.gguf"], {"token": "answer_403"}, f"BitnetError {uncached} {denied}"),
    ]
    assert found(tmp_path, server, *[call[:2] for call in calls]) == [call[2] for call in calls]
    assert server.ranges() == []


def test_what_fails_on_the_way(server: Hub, tmp_path: Path) -> None:
    nowhere = tmp_path / "a file"
    nowhere.write_bytes(b"")
    server.fails = True
    busy, offline, disk, broken = found(
        tmp_path,
        server,
        (["maker/one"], {"token": "answer_429"}),
        (["maker/one"], {"local_files_only": True}),
        (["maker/one"], {"cache_dir": str(nowhere)}),
        (["maker/one"], {}),
    )
    assert (
        busy.startswith("ModelNotFoundError maker/one is not in the cache, and the hub returned an error: ")
        and "429" in busy
    )
    assert offline == "ModelNotFoundError maker/one is not in the cache, and local_files_only=True allows no download"
    assert disk.startswith("BitnetError maker/one: the cache cannot be used: ")
    assert disk.endswith("; choose another with cache_dir or HF_HOME") and str(nowhere) in disk
    assert broken.startswith("BitnetError maker/one: the hub returned an error: ") and "500" in broken
    assert broken.endswith("; the next call resumes the download")


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """A cache as `huggingface_hub` lays it out, with a split model in a folder of its repository."""
    repo = tmp_path / "models--maker--split"
    folder = repo / "snapshots" / COMMIT / "q"
    folder.mkdir(parents=True)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(COMMIT)
    spec = Spec("bitnet", 1, 128, 128, 2, 1, vocab_size=64)
    found = tensors(spec)
    for i, part in enumerate([found[:5], found[5:]]):
        keys: dict[str, Any] = metadata(spec, None) if i == 0 else {}
        keys |= {"split.no": struct.pack("<IH", 2, i), "split.count": struct.pack("<IH", 2, 2)}
        keys |= {"split.tensors.count": struct.pack("<Ii", 5, len(found))}
        write_gguf(folder / f"m-{i + 1:05}-of-00002.gguf", keys, part)
    return tmp_path


def test_a_laid_out_cache_needs_no_network(cache: Path) -> None:
    for revision in (None, "main", COMMIT):
        with bitnet.Engine.from_pretrained(
            "maker/split", revision=revision, cache_dir=cache, local_files_only=True
        ) as engine:
            assert engine.path.name == "m-00001-of-00002.gguf"
            assert engine.logits([1]).shape == (1, 64)
    with pytest.raises(bitnet.ModelNotFoundError, match="not in the cache, and local_files_only=True"):
        bitnet.Engine.from_pretrained("maker/split", revision="dev", cache_dir=cache, local_files_only=True)
    with pytest.raises(
        bitnet.ModelNotFoundError,
        match=r"^in the cache, maker/split has no file x\.gguf; its GGUF files: q/m-00001-.*; local_files_only=True",
    ):
        bitnet.Engine.from_pretrained("maker/split", "x.gguf", cache_dir=cache, local_files_only=True)
    with pytest.raises(TypeError, match="n_thread"):
        bitnet.Engine.from_pretrained("maker/split", cache_dir=cache, local_files_only=True, n_thread=1)  # type: ignore[call-arg]


def test_a_cached_model_opens_whatever_the_hub_says_but_that_it_has_none(server: Hub, cache: Path) -> None:
    server.repos["maker/split"] = {}
    refusals = ("429", "401", "403", "403_GatedRepo", "500", "503")
    names: list[list[str]] = [["maker/split"], ["maker/split", "q/m-00001-of-00002.gguf"]]
    final = ("404", "404_RepoNotFound", "404_RevisionNotFound")
    said = found(
        cache,
        server,
        *((name, {"token": f"answer_{how}", "cache_dir": str(cache)}) for how in refusals + final for name in names),
    )
    assert said[:12] == ["m-00001-of-00002.gguf"] * 12
    assert all(line.startswith("ModelNotFoundError maker/split: the hub has no") for line in said[12:])


def test_the_beginning_of_a_commit_is_found_in_the_cache(cache: Path) -> None:
    def path(revision: str) -> Path:
        return hub.model_file("maker/split", revision=revision, cache_dir=cache, local_files_only=True)

    assert path(COMMIT[:7]) == path(COMMIT)
    other = cache / "models--maker--split" / "snapshots" / (COMMIT[:39] + "x")
    other.mkdir()
    for unclear in (COMMIT[:7], COMMIT[:6], "*"):
        with pytest.raises(bitnet.ModelNotFoundError, match="is not in the cache"):
            path(unclear)


def test_the_command_line_takes_names(server: Hub, tmp_path: Path) -> None:
    run = "import sys; from bitnet.cli import main; sys.exit(main(sys.argv[1:]))"
    for file in ("hf:maker/types/m-f16.gguf", f"hf:maker/types@{COMMIT}/m-f16.gguf"):
        done = python(run, tmp_path, endpoint(server), "inspect", file)
        assert (done.returncode, "m-f16.gguf" in done.stdout) == (0, True), done.stderr
    for name, message in [
        ("hf:maker", "bitnet: 'hf:maker' is not of the form hf:owner/name[@revision][/file]\n"),
        ("hf:maker/types@", "bitnet: 'hf:maker/types@' is not of the form hf:owner/name[@revision][/file]\n"),
        ("hf:maker/types@dev/m-f16.gguf", "bitnet: maker/types: the hub has no revision 'dev' of this repository\n"),
        ("hf:maker/none", "bitnet: maker/none has no GGUF file\n"),
    ]:
        done = python(run, tmp_path, endpoint(server), "inspect", name)
        assert (done.returncode, done.stderr) == (2, message)


def test_without_huggingface_hub_it_says_what_to_install(tmp_path: Path) -> None:
    code = """
import sys
sys.modules["huggingface_hub"] = None
import bitnet
bitnet.Engine.from_pretrained("maker/one")
"""
    done = python(code, tmp_path, endpoint(None))
    assert done.stderr.endswith(
        "models of the Hugging Face Hub need huggingface_hub: pip install 'bitnet-engine[hub]'\n"
    )
