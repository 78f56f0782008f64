"""`bitnet serve` under load and attack: queues, time-outs, clients that leave, keys, signals, arbitrary requests."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.specs.openapi.checks import positive_data_acceptance
from starlette.testclient import TestClient

import bitnet
from bitnet._synthetic import Spec
from bitnet.server import Settings, create_app
from bitnet.server.service import ReceiptStore
from served import command, eventually, running
from text_model import make_text_model

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
ASKED = [{"role": "user", "content": "What is 2+2?"}]
SLOW = Spec("llama", 8, 512, 1536, 8, 4, untied=True, linear="F32")
LONG = {"prompt": "hello", "ignore_eos": True, "max_tokens": 4000}
"""A request that the slow model answers for seconds."""


@pytest.fixture(scope="module")
def trit() -> Iterator[bitnet.Engine]:
    """The model in the package."""
    with bitnet.Engine(n_threads=1) as engine:
        yield engine


@pytest.fixture(scope="module")
def slow_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that takes some milliseconds for each token."""
    path = tmp_path_factory.mktemp("slow") / "slow.gguf"
    make_text_model(path, 4096, SLOW)
    return path


@pytest.fixture(scope="module")
def slow(slow_path: Path) -> Iterator[bitnet.Engine]:
    """The same, open."""
    with bitnet.Engine(slow_path, n_threads=1) as engine:
        yield engine


def code(response: httpx.Response) -> tuple[int, str]:
    """The status and the code of an error."""
    return response.status_code, response.json()["error"]["code"]


def together(app: Any, bodies: list[dict[str, Any]], path: str = COMPLETIONS) -> list[httpx.Response]:
    """The responses to requests that come at the same time."""

    async def send() -> list[httpx.Response]:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test", timeout=60) as client:
            return await asyncio.gather(*(client.post(path, json=body) for body in bodies))

    return asyncio.run(send())


# -- Load -------------------------------------------------------------------------------------------------------------


def test_requests_that_do_not_fit_the_queue_are_refused(slow: bitnet.Engine) -> None:
    for stream in (False, True):
        app = create_app(slow, Settings(max_running=2, max_queue=1))
        responses = together(app, [LONG | {"max_tokens": 40, "stream": stream}] * 6)
        assert [one.status_code for one in responses] == [200] * 3 + [429] * 3
        assert code(responses[-1]) == (429, "queue_full")
        assert responses[-1].headers["retry-after"] == "1"
        gate = app.state.service.gate
        assert (gate.running, gate.waiting) == (0, 0), "places become free again"


def test_many_at_once_are_each_the_answer_alone(trit: bitnet.Engine) -> None:
    app = create_app(trit, Settings(max_running=8, max_queue=100))
    questions = [[{"role": "user", "content": f"What is {a}+{b}?"}] for a in range(6) for b in range(6)]
    bodies = [{"messages": one, "seed": 1, "temperature": 0.5, "stream": i % 3 == 0} for i, one in enumerate(questions)]
    for asked, response in zip(questions, together(app, bodies, CHAT), strict=True):
        text = response.text
        told = json.loads(text.split("\n\n")[-3].removeprefix("data: ") if text.startswith("data") else text)
        own = trit.chat(asked, seed=1, temperature=0.5).receipt
        assert own and told["receipt_digest"] == own.digest


def test_a_request_that_takes_too_long_is_given_up(slow: bitnet.Engine) -> None:
    app = create_app(slow, Settings(timeout=0.3))
    started = time.monotonic()
    whole, streamed, choices = together(app, [LONG, LONG | {"stream": True}, LONG | {"n": 3, "stream": True}])
    assert code(whole) == (504, "timeout")
    for response in (streamed, choices):
        *_, last, rest = response.text.split("\n\n")
        assert rest == ""
        assert json.loads(last.removeprefix("data: "))["error"]["code"] == "timeout"
    assert time.monotonic() - started < 10
    assert app.state.service.gate.running == 0
    queued = together(create_app(slow, Settings(timeout=0.3, max_running=1)), [LONG, LONG])
    assert [code(one) for one in queued] == [(504, "timeout")] * 2


def test_a_long_prompt_keeps_the_connection_and_the_loop_alive(slow: bitnet.Engine) -> None:
    slow.clear_cache()
    app = create_app(slow, Settings(keep_alive=0.05))
    body = {"prompt": "x" * 1500, "max_tokens": 1, "stream": True}
    with running(app) as address, httpx.stream("POST", address + COMPLETIONS, json=body, timeout=60) as response:
        started = time.monotonic()
        assert httpx.get(f"{address}/health").status_code == 200
        assert time.monotonic() - started < 1
        text = "".join(response.iter_text())
    assert text.startswith(": keep-alive\n\n")
    assert text.endswith("data: [DONE]\n\n")


@pytest.mark.parametrize("more", [{}, {"n": 3}, {"prompt": ["a", "b"]}, {"stream": True}, {"stream": True, "n": 3}])
def test_a_client_that_leaves_ends_its_answer(slow: bitnet.Engine, more: dict[str, Any]) -> None:
    app = create_app(slow)
    service = app.state.service
    with running(app) as address:
        host, port = address.removeprefix("http://").split(":")
        body = json.dumps(LONG | more).encode()
        head = (
            f"POST {COMPLETIONS} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
        )
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(head.encode() + b"\r\n\r\n" + body)
            eventually(lambda: service.gate.running == 1)
            if "stream" in more:
                received = b""
                while b"data: " not in received:
                    received += connection.recv(1000)
        left = time.monotonic()
        eventually(lambda: service.gate.running == 0)
        assert time.monotonic() - left < 2, "the answer would take many seconds more"
        eventually(lambda: service.metrics.requests[COMPLETIONS, 499] == 1)
        assert service.metrics.tokens["completion"] == 0


def test_a_client_that_leaves_while_it_waits(slow: bitnet.Engine) -> None:
    app = create_app(slow, Settings(max_running=1))
    service = app.state.service
    with running(app) as address, httpx.Client(base_url=address, timeout=60) as client:
        with client.stream("POST", COMPLETIONS, json=LONG | {"stream": True}):
            with pytest.raises(httpx.ReadTimeout):
                httpx.post(f"{address}{COMPLETIONS}", json=LONG, timeout=0.5)
            eventually(lambda: service.gate.waiting == 0)
            assert service.gate.running == 1
        eventually(lambda: service.gate.running == 0)


def test_a_client_that_does_not_read_delays_nobody(slow: bitnet.Engine) -> None:
    app = create_app(slow, Settings(timeout=3))
    service = app.state.service
    with running(app) as address:
        host, port = address.removeprefix("http://").split(":")
        body = json.dumps(LONG | {"stream": True, "logprobs": 20, "n": 8}).encode()
        head = (
            f"POST {COMPLETIONS} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
        )
        with socket.socket() as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.connect((host, int(port)))
            connection.sendall(head.encode() + b"\r\n\r\n" + body)
            eventually(lambda: service.gate.running == 1)
            answered = httpx.post(f"{address}{COMPLETIONS}", json={"prompt": "a", "max_tokens": 2}, timeout=30)
            assert answered.status_code == 200
            eventually(lambda: service.gate.running == 0)


# -- Bodies -----------------------------------------------------------------------------------------------------------


def test_bodies_that_are_too_large(trit: bitnet.Engine) -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(100):
            yield b" " * 1000

    app = create_app(trit, Settings(max_body=10_000))
    kind = {"content-type": "application/json"}
    with running(app) as address, httpx.Client(base_url=address) as client:
        assert code(client.post(CHAT, content=b" " * 10_001, headers=kind)) == (413, "body_too_large")
        assert code(client.post(CHAT, content=chunks(), headers=kind)) == (413, "body_too_large")
        assert client.post(CHAT, json={"messages": ASKED}).status_code == 200


def test_a_body_that_comes_too_slowly(trit: bitnet.Engine) -> None:
    with running(create_app(trit, Settings(body_timeout=0.3))) as address:
        host, port = address.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), 20) as connection:
            head = f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n"
            connection.sendall(head.encode() + b'{"messages"')
            received = connection.recv(10_000)
            assert received.startswith(b"HTTP/1.1 408")
            while more := connection.recv(10_000):
                received += more
            assert b"body_timeout" in received


def test_many_receipts_are_not_all_kept(trit: bitnet.Engine) -> None:
    receipt = trit.generate([5], max_tokens=1).receipt
    assert receipt
    store = ReceiptStore(2)
    for digest in "aba":
        store.keep(digest, receipt)
    assert store.find("a") is receipt
    store.keep("c", receipt)
    assert (store.find("b"), len(store)) == (None, 2)
    with TestClient(create_app(trit, Settings(receipts=0))) as client:
        digest = client.post(CHAT, json={"messages": ASKED}).json()["receipt_digest"]
        assert client.get(f"/v1/receipts/{digest}").status_code == 404


def test_the_servers_limits_and_defaults(trit: bitnet.Engine) -> None:
    limited = Settings(max_tokens=3, max_choices=2, max_items=2, max_stops=1, defaults={"temperature": 0.7, "top_k": 9})
    with TestClient(create_app(trit, limited)) as client:
        told = client.post(CHAT, json={"messages": ASKED, "receipt": True, "top_k": 5}).json()
        assert told["usage"]["completion_tokens"] == 3
        sampling = told["receipt"]["claim"]["sampling"]
        assert (sampling["temperature"], sampling["top_k"]) == (pytest.approx(0.7), 5)
        for fields, param in (({"max_tokens": 4}, "max_tokens"), ({"n": 3}, "n"), ({"stop": ["a", "b"]}, "stop")):
            refused = client.post(CHAT, json={"messages": ASKED} | fields)
            assert (refused.status_code, refused.json()["error"]["param"]) == (400, param)
        assert client.post("/v1/embeddings", json={"input": ["a"] * 3}).status_code == 400
        described = client.get("/openapi.json").json()["components"]["schemas"]["ChatCompletionRequest"]
        assert described["properties"]["max_tokens"]["maximum"] == 3


# -- Who may use it ---------------------------------------------------------------------------------------------------


def test_keys(trit: bitnet.Engine) -> None:
    with TestClient(create_app(trit, Settings(api_keys=("one", "two")))) as client:
        for given, status in (
            ("Bearer one", 200),
            ("bearer two", 200),
            ("Bearer three", 401),
            ("Bearer on", 401),
            ("Bearer onee", 401),
            ("Basic one", 401),
            ("Bearer \u00fc".encode().decode("latin-1"), 401),
            ("", 401),
        ):
            response = client.get("/v1/models", headers=[(b"authorization", given.encode("latin-1"))])
            assert response.status_code == status, given
        refused = client.get("/v1/models")
        assert refused.headers["www-authenticate"] == "Bearer"
        assert code(refused) == (401, "invalid_api_key")
        assert [client.get(path).status_code for path in ("/health", "/", "/metrics", "/nothing")] == [
            200,
            200,
            401,
            401,
        ]
        described = client.get("/openapi.json", headers={"authorization": "Bearer one"}).json()
        assert described["components"]["securitySchemes"]["key"]["scheme"] == "bearer"


def test_web_pages_of_others(trit: bitnet.Engine) -> None:
    origin = {"origin": "https://example.org"}
    preflight = origin | {"access-control-request-method": "POST", "access-control-request-headers": "authorization"}
    with TestClient(create_app(trit)) as client:
        assert "access-control-allow-origin" not in client.get("/health", headers=origin).headers
        assert "access-control-allow-origin" not in client.options(CHAT, headers=preflight).headers
    allowed = Settings(cors_origins=("https://example.org",), api_keys=("one",))
    with TestClient(create_app(trit, allowed)) as client:
        answered = client.options(CHAT, headers=preflight)
        assert (answered.status_code, answered.headers["access-control-allow-origin"]) == (200, origin["origin"])
        assert client.get("/v1/models", headers=origin).headers["access-control-allow-origin"] == origin["origin"]
        other = client.get("/health", headers={"origin": "https://evil.example"})
        assert "access-control-allow-origin" not in other.headers


def test_hosts(trit: bitnet.Engine) -> None:
    with TestClient(create_app(trit, Settings(allowed_hosts=("localhost", "[::1]")))) as client:
        for host, status in (
            ("localhost", 200),
            ("LOCALHOST:8080", 200),
            ("[::1]:8080", 200),
            ("evil.example:8080", 403),
            ("localhost.evil.example", 403),
        ):
            assert client.get("/health", headers={"host": host}).status_code == status, host


# -- The command ------------------------------------------------------------------------------------------------------


def test_the_command_serves_and_ends(tmp_path: Path) -> None:
    log, keys = tmp_path / "log", tmp_path / "keys"
    keys.write_text("# of the team\nsecret-1\n\nsecret-2\n")
    with command("--alias", "small", "--api-key-file", keys, "--max-batch", "4", log=log) as (address, process):
        key = {"authorization": "Bearer secret-2"}
        asked = {"messages": [{"role": "user", "content": "What is 3+3?"}]}
        told = httpx.post(f"{address}{CHAT}", json=asked, headers=key)
        assert told.json()["choices"][0]["message"]["content"] == "3+3=6."
        assert httpx.get(f"{address}/v1/models", headers=key).json()["data"][0]["id"] == "small"
        assert httpx.get(f"{address}/v1/models", headers={"host": "other.example"} | key).status_code == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    written = log.read_text()
    assert '"POST /v1/chat/completions HTTP/1.1" 200' in written
    assert "3+3" not in written, "messages stay out of the log"


def test_the_command_logs_messages_if_asked(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with command("--log-messages", "--no-access-log", log=log) as (address, process):
        assert httpx.post(f"{address}{CHAT}", json={"messages": ASKED}).status_code == 200
        assert httpx.get(f"{address}/health", headers={"host": "evil.example"}).status_code == 403
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
    assert "2+2=4." in log.read_text()
    assert "HTTP/1.1" not in log.read_text()


def test_sigterm_lets_answers_end(slow_path: Path) -> None:
    body = LONG | {"stream": True, "max_tokens": 200}
    with command(slow_path, "-t", "1") as (address, process):
        with httpx.stream("POST", f"{address}{COMPLETIONS}", json=body, timeout=60) as response:
            lines = response.iter_lines()
            next(lines)
            process.send_signal(signal.SIGTERM)
            rest = list(lines)
        assert rest[-2:] == ["data: [DONE]", ""]
        assert process.wait(20) == 0


def test_answers_that_do_not_end_in_time_are_cut(slow_path: Path) -> None:
    with command(slow_path, "-t", "1", "--grace", "1") as (address, process), ThreadPoolExecutor(1) as pool:
        whole = pool.submit(httpx.post, f"{address}{COMPLETIONS}", json=LONG, timeout=60)
        with httpx.stream("POST", f"{address}{COMPLETIONS}", json=LONG | {"stream": True}, timeout=60) as response:
            lines = response.iter_lines()
            next(lines)
            process.send_signal(signal.SIGTERM)
            started = time.monotonic()
            events = [line for line in lines if line]
        assert json.loads(events[-1].removeprefix("data: "))["error"]["code"] == "shutting_down"
        assert (whole.result().status_code, whole.result().json()["error"]["code"]) == (503, "shutting_down")
        assert process.wait(20) == 0
        assert time.monotonic() - started < 8


def said(*arguments: str, **environment: str) -> tuple[int, str]:
    """The exit status and the error of a command that refuses to start."""
    words = [sys.executable, "-m", "bitnet", "serve", *arguments]
    done = subprocess.run(words, capture_output=True, text=True, env={**os.environ, **environment}, timeout=60)
    return done.returncode, done.stderr


def test_options_that_are_refused(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        status, error = said("--port", str(taken.getsockname()[1]))
    assert (status, "cannot listen on 127.0.0.1 port" in error) == (2, True)
    assert "no-such-host" in said("--host", "no-such-host.invalid")[1]
    assert "--timeout is -1.0, expected a number from 0" in said("--timeout", "-1")[1]
    assert "--seed is 3, but it cannot be the same for all requests" in said("--seed", "3")[1]
    assert "a key has no characters" in said("--api-key", "two words")[1]
    (tmp_path / "keys").write_text("# none\n")
    assert "has no key" in said("--api-key-file", str(tmp_path / "keys"))[1]
    assert "--temperature is -2" in said("--temperature=-2")[1]
    error = said("--json-schema", '{"not": {}}')[1]
    assert '--json-schema: the keywords ["not"]' in error, "it is compiled before the server starts"


def test_without_the_extra_the_command_says_what_to_install() -> None:
    program = "import sys; sys.modules['uvicorn'] = None; from bitnet.cli import main; sys.exit(main(['serve']))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert "pip install 'bitnet-engine[serve]'" in done.stderr


# -- Arbitrary requests -----------------------------------------------------------------------------------------------

_APP = create_app(bitnet.Engine(n_threads=1), Settings(max_tokens=16, timeout=20))
schema = schemathesis.openapi.from_asgi("/openapi.json", _APP)


@schema.parametrize()  # type: ignore[untyped-decorator]
@settings(max_examples=15, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_any_request_has_a_described_answer(case: Any) -> None:
    """Valid requests may still be refused, such as for two fields that contradict each other."""
    case.call_and_validate(excluded_checks=[positive_data_acceptance])
