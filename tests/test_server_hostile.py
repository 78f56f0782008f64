"""`bitnet serve` and clients that mean harm: broken HTTP, streams cut anywhere, forms and texts that take long."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

import bitnet
from bitnet.server import create_app
from served import eventually, running

CHAT = "/v1/chat/completions"
ASKED = {"messages": [{"role": "user", "content": "What is 2+2?"}]}
HEAD = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


@pytest.fixture(scope="module")
def app() -> Iterator[Any]:
    """An application with the model in the package."""
    with bitnet.Engine(n_threads=1) as engine:
        yield create_app(engine)


@pytest.fixture(scope="module")
def address(app: Any) -> Iterator[str]:
    """The address of its server."""
    with running(app) as address:
        yield address


def connection(address: str) -> socket.socket:
    """A connection to the server."""
    host, _, port = address.removeprefix("http://").partition(":")
    opened = socket.create_connection((host, int(port)))
    opened.settimeout(20)
    return opened


def request(head: str = HEAD, more: str = "", **fields: Any) -> bytes:
    """The bytes of a request."""
    body = json.dumps(ASKED | fields).encode()
    return f"{head}{more}Content-Length: {len(body)}\r\n\r\n".encode() + body


def reply(address: str, sent: bytes) -> bytes:
    """All bytes that come back until the server closes the connection."""
    with connection(address) as opened:
        opened.sendall(sent)
        found = b""
        while part := opened.recv(1 << 16):
            found += part
    return found


def test_http_of_every_kind(address: str) -> None:
    close = "Connection: close\r\n"
    assert b"2+2=4." in reply(address, request(HEAD.replace("1.1", "1.0")))
    assert b"[DONE]" in reply(address, request(HEAD.replace("1.1", "1.0"), stream=True))
    pipelined = reply(address, request(stream=True) * 2 + request() + request(more=close))
    assert (pipelined.count(b"HTTP/1.1 200"), pipelined.count(b"[DONE]")) == (4, 2)
    body = json.dumps(ASKED).encode()
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n"
    chunked = f"{HEAD}{close}Transfer-Encoding: chunked\r\n\r\n".encode()
    assert b"2+2=4." in reply(address, chunked + chunks)
    assert b" 400 " in reply(address, chunked + b"zz\r\n")
    assert b" 400 " in reply(address, f"{HEAD}Content-Length: -1\r\n\r\n".encode())
    assert b" 400 " in reply(address, f"{HEAD}Content-Length: 3\r\nContent-Length: 5\r\n\r\n{{}}".encode())
    assert b" 400 " in reply(address, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n")


def test_streams_cut_anywhere(app: Any, address: str) -> None:
    """After the client has left, nothing is computed, wherever it stopped to read or to write."""
    sent = request(stream=True, n=2)
    with connection(address) as opened:
        opened.sendall(sent)
        length = len(opened.recv(1 << 20))
    for end in range(0, len(sent), 29):
        with connection(address) as opened:
            opened.sendall(sent[:end])
    for end in range(1, length, 61):
        with connection(address) as opened:
            opened.sendall(sent)
            opened.recv(end, socket.MSG_WAITALL)
    endless = request(stream=True, n=8, ignore_eos=True, temperature=1)
    for _ in range(4):
        with connection(address) as opened:
            opened.sendall(endless)
            opened.recv(1000)
    gate = app.state.service.gate
    eventually(lambda: gate.running == gate.waiting == 0)
    assert httpx.post(address + CHAT, json=ASKED).status_code == 200


FORMS: list[dict[str, Any]] = [
    {"json_schema": {"$ref": "#"}},
    {"json_schema": {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}},
    {"json_schema": {"allOf": [{"$ref": "#"}, {"type": "object"}]}},
    {"json_schema": {"type": "object", "properties": {"a": {"$ref": "#"}}}},
    {"json_schema": {"type": "array", "items": {"type": "integer"}, "minItems": 1_000_000}},
    {"json_schema": {"type": "string", "pattern": "^(a|a)*b(a|b){1000}$"}},
    {"json_schema": {"type": "integer", "multipleOf": 9973}},
    {"json_schema": {"enum": [f"value {i}" for i in range(100_000)]}},
    {"regex": "(a|b)*a(a|b){60}"},
    {"regex": "((a*)*)*b"},
    {"regex": "(a{1,1000}){1,1000}"},
    {"regex": ".*" * 500 + "x"},
    {"regex": "(" * 5000 + "a" + ")" * 5000},
    {"grammar": 'start: start start | "a"'},
    {"grammar": "start: " + "(" * 20_000 + '"a"' + ")" * 20_000},
    {
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {"$ref": "#"}}}],
        "tool_choice": "required",
    },
]


@pytest.mark.parametrize("fields", FORMS, ids=lambda fields: str(fields)[:50])
def test_forms_that_explode(address: str, fields: dict[str, Any]) -> None:
    """Each is followed or refused, and the server answers meanwhile."""
    with ThreadPoolExecutor(1) as pool:
        told = pool.submit(httpx.post, address + CHAT, json=ASKED | {"max_tokens": 20} | fields, timeout=60)
        while not told.done():
            assert httpx.get(address + "/health", timeout=5).status_code == 200
    assert told.result().status_code in (200, 400)
    if told.result().status_code == 400:
        assert told.result().json()["error"]["type"] == "invalid_request_error"


def test_large_texts_delay_only_each_other(app: Any, address: str) -> None:
    """Calls that read large texts have threads of their own. They are kept busy here."""
    gate, go_on = app.state.service.gate, threading.Event()
    busy = ThreadPoolExecutor(1)
    busy.submit(go_on.wait)
    usual, gate._pools["text"] = gate._pools.get("text"), busy
    large = "a " * (1 << 16)
    try:
        with ThreadPoolExecutor(3) as pool:
            late = [
                pool.submit(httpx.post, address + path, json=body, timeout=60)
                for path, body in (
                    ("/tokenize", {"content": large, "with_pieces": True}),
                    ("/v1/embeddings", {"input": large}),
                    (CHAT, {"messages": [{"role": "user", "content": large}], "stream": True}),
                )
            ]
            for stream in (False, True):
                assert httpx.post(address + CHAT, json=ASKED | {"stream": stream}, timeout=20).status_code == 200
            assert httpx.post(address + "/tokenize", json={"content": "a"}, timeout=20).status_code == 200
            assert not any(one.done() for one in late)
            go_on.set()
            tokens, refused, too_long = (one.result() for one in late)
    finally:
        go_on.set()
        gate._pools["text"] = usual or busy
    told = tokens.json()
    assert told["count"] == len(told["tokens"]) and "".join(one["piece"] for one in told["tokens"]).endswith(large)
    for one in (refused, too_long):
        assert (one.status_code, one.json()["error"]["code"]) == (400, "context_length_exceeded")
