"""Models by name: from a server that speaks the hub's protocol, and from its cache."""

from __future__ import annotations

import hashlib
import json
import os
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

import bitnet
from bitnet import hub
from conftest import ROOT
from gguf_writer import write_gguf
from make_model import Spec, metadata, tensors

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
        self.log: list[tuple[str, str, str | None]] = []
        self.tokens: set[str | None] = set()
        self.breaks = 0
        """How many of the next downloads break off in the middle."""


class Answers(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"
    server: Hub

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def do_HEAD(self) -> None:
        self.answer(with_body=False)

    def do_GET(self) -> None:
        self.answer(with_body=True)

    def answer(self, with_body: bool) -> None:
        path = unquote(urlsplit(self.path).path)
        wanted = self.headers.get("Range")
        self.server.log.append((self.command, path, wanted))
        self.server.tokens.add(self.headers.get("Authorization"))
        for repo, files in self.server.repos.items():
            if path.startswith(f"/api/models/{repo}"):
                siblings = [{"rfilename": name} for name in files]
                info = {"id": repo, "sha": COMMIT, "siblings": siblings, "private": False, "tags": [], "downloads": 0}
                return self.send(200, json.dumps(info).encode(), {"Content-Type": "application/json"}, with_body)
            for revision in ("main", COMMIT):
                name = path.removeprefix(f"/{repo}/resolve/{revision}/")
                if name in files:
                    return self.send_file(files[name], wanted, with_body)
            if path.startswith(f"/{repo}/"):
                return self.send(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT}, with_body)
        return self.send(404, b"", {"X-Error-Code": "RepoNotFound", "X-Error-Message": "no such thing"}, with_body)

    def send_file(self, data: bytes, wanted: str | None, with_body: bool) -> None:
        headers = {"ETag": f'"{hashlib.sha256(data).hexdigest()}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        status = 200
        if wanted:
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
            self.wfile.write(data)


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


def python(code: str, home: Path, endpoint: str, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Run it with this hub and this cache; both are read when `huggingface_hub` is imported."""
    kept = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    env = kept | {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1", "NO_PROXY": "*"} | more
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=env, timeout=120)


OPEN = """
import sys, bitnet
from huggingface_hub import constants
constants.DOWNLOAD_CHUNK_SIZE = 1000  # what breaks off is kept by chunks, of 10 MB
name, *rest = sys.argv[1:]
try:
    with bitnet.Engine.from_pretrained(name, *rest, n_threads=1, token=TOKEN) as engine:
        print(engine.path.name, engine.n_threads, engine.logits([1, 2]).shape[0])
except bitnet.BitnetError as error:
    print(type(error).__name__, error)
"""


def opened(home: Path, server: Hub | None, *arguments: str, token: str | None = None, **more: str) -> str:
    """What opening a model says."""
    endpoint = f"http://127.0.0.1:{server.server_port}" if server else "http://127.0.0.1:9"
    done = python(OPEN.replace("TOKEN", repr(token)), home, endpoint, *arguments, **more)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_model_is_downloaded_once_and_then_found_without_a_network(server: Hub, tmp_path: Path) -> None:
    assert opened(tmp_path, server, "maker/one", token="hf_secret") == "model.gguf 1 2\n"
    assert "Bearer hf_secret" in server.tokens
    assert [path for method, path, _ in server.log if method == "GET" and "/resolve/" in path] == [
        "/maker/one/resolve/main/model.gguf"
    ]
    before = len(server.log)
    assert opened(tmp_path, server, "maker/one") == "model.gguf 1 2\n"
    assert not [path for method, path, _ in server.log[before:] if method == "GET" and "/resolve/" in path]
    before = len(server.log)
    assert opened(tmp_path, server, "maker/one", HF_HUB_OFFLINE="1") == "model.gguf 1 2\n"
    assert len(server.log) == before
    # Nobody listens there.
    assert opened(tmp_path, None, "maker/one") == "model.gguf 1 2\n"


def test_a_connection_that_breaks_is_taken_up_where_it_broke(server: Hub, tmp_path: Path) -> None:
    server.breaks = 1
    assert opened(tmp_path, server, "maker/one") == "model.gguf 1 2\n"
    ranges = [wanted for method, path, wanted in server.log if method == "GET" and path.endswith("model.gguf")]
    assert ranges == [None, f"bytes={RELU2.stat().st_size // 2 // 1000 * 1000}-"]


def test_the_right_file_of_several(server: Hub, tmp_path: Path) -> None:
    assert opened(tmp_path, server, "maker/types") == "m-i2_s.gguf 1 2\n"
    assert opened(tmp_path, server, "maker/types", "m-f16.gguf") == "m-f16.gguf 1 2\n"
    # Offline, the choice is among what is in the cache.
    assert opened(tmp_path, None, "maker/types") == "m-i2_s.gguf 1 2\n"


def test_what_is_not_there_is_named(server: Hub, tmp_path: Path) -> None:
    said = opened(tmp_path, server, "maker/unclear")
    assert said.startswith("ArgumentError maker/unclear has several models; give one as filename: a-q4.gguf, b-q8.gguf")
    assert opened(tmp_path, server, "maker/none").startswith("ModelNotFoundError maker/none has no GGUF file")
    assert opened(tmp_path, server, "maker/nobody").startswith("ModelNotFoundError maker/nobody: the hub refuses: ")
    assert opened(tmp_path, server, "maker/one", "x.gguf").startswith("ModelNotFoundError maker/one: x.gguf is not")
    assert opened(tmp_path, None, "maker/one").startswith("ModelNotFoundError maker/one is not in the cache, and the")


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
    with pytest.raises(bitnet.ModelNotFoundError, match="not in the cache, and local_files_only"):
        bitnet.Engine.from_pretrained("maker/split", revision="dev", cache_dir=cache, local_files_only=True)
    with pytest.raises(TypeError, match="n_thread"):
        bitnet.Engine.from_pretrained("maker/split", cache_dir=cache, local_files_only=True, n_thread=1)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (["model.gguf"], "model.gguf"),
        (["a/Model-I2_S.GGUF", "a/model-f16.gguf"], "a/Model-I2_S.GGUF"),
        (["m-tq1_0.gguf", "m-tq2_0.gguf", "m-q4_0.gguf"], "m-tq2_0.gguf"),
        (["m-i2-s.gguf", "m-f32.gguf"], "m-i2-s.gguf"),
        (["m-00001-of-00002.gguf", "m-00002-of-00002.gguf"], "m-00001-of-00002.gguf"),
        (["i2_s/m-f16.gguf", "m-IQ2_BN.gguf"], "m-IQ2_BN.gguf"),
    ],
)
def test_the_choice(names: list[str], chosen: str) -> None:
    assert hub.choose(names, "a/b") == chosen


def test_an_unclear_choice_lists_the_files() -> None:
    with pytest.raises(bitnet.ArgumentError, match=r"a-i2_s\.gguf, b-i2_s\.gguf, c\.gguf"):
        hub.choose(["b-i2_s.gguf", "a-i2_s.gguf", "c.gguf"], "a/b")


def test_the_command_line_takes_names(server: Hub, tmp_path: Path) -> None:
    run = "import sys; from bitnet.cli import main; sys.exit(main(sys.argv[1:]))"
    endpoint = f"http://127.0.0.1:{server.server_port}"
    done = python(run, tmp_path, endpoint, "inspect", "hf:maker/types/m-f16.gguf")
    assert (done.returncode, "m-f16.gguf" in done.stdout) == (0, True), done.stderr
    for name, message in [
        ("hf:maker", "bitnet: hf:maker is no hf:owner/name or hf:owner/name/file\n"),
        ("hf:maker/none", "bitnet: maker/none has no GGUF file\n"),
    ]:
        done = python(run, tmp_path, endpoint, "inspect", name)
        assert (done.returncode, done.stderr) == (2, message)


def test_without_huggingface_hub_it_says_what_to_install(tmp_path: Path) -> None:
    code = """
import sys
sys.modules["huggingface_hub"] = None
import bitnet
bitnet.Engine.from_pretrained("maker/one")
"""
    done = python(code, tmp_path, "http://127.0.0.1:9")
    assert done.stderr.endswith("models by name need huggingface_hub: pip install 'bitnet-engine[hub]'\n")
