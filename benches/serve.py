"""Put `bitnet serve` under load: streaming clients that come and go, each answer compared with the engine's own.

    python benches/serve.py [MODEL] [--clients 64] [--minutes 10]   # correctness and memory
    python benches/serve.py [MODEL] --speed [--clients 64]          # throughput beside generate(list)

A client asks one of a few dozen requests, and breaks off one in four at a random piece. Every complete answer must have
the receipt digest that the engine gives for the request in this process. The server's memory is read every ten seconds.
"""

import argparse
import asyncio
import json
import random
import re
import statistics
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx

import bitnet

SCHEMA = {
    "type": "object",
    "properties": {"kind": {"enum": ["a", "b", "c"]}, "n": {"type": "integer", "minimum": 0, "maximum": 99}},
    "required": ["kind", "n"],
    "additionalProperties": False,
}
FORMS: list[dict[str, Any]] = [
    {},
    {},
    {"temperature": 0.8, "top_k": 20},
    {"temperature": 1.0, "min_p": 0.05, "stop": ["."]},
    {"json_schema": SCHEMA, "temperature": 1.0},
    {"choice": ["yes", "no", "not sure"], "temperature": 1.0},
    {"regex": "[0-9]{2,4} (apples|pears)"},
]


def requests() -> list[dict[str, Any]]:
    """The requests: some with a long prompt that they share, all with a seed."""
    long = "You are a calculator. " * 6
    made = []
    for i in range(42):
        messages = [{"role": "user", "content": f"What is {i}+{i % 7}?"}]
        if i % 3 == 0:
            messages.insert(0, {"role": "system", "content": long})
        made.append({"messages": messages, "max_tokens": 12 + i % 30, "seed": i, **FORMS[i % len(FORMS)]})
    return made


def digest(engine: bitnet.Engine, request: dict[str, Any]) -> str:
    """What the engine gives for a request."""
    keywords = {name: value for name, value in request.items() if name != "messages"}
    answer = engine.chat(request["messages"], **keywords)
    assert answer.receipt is not None
    return answer.receipt.digest


def resident(process: subprocess.Popen[str]) -> int:
    """The memory of a process that is its own, in KiB."""
    text = Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8")
    return int(re.findall(r"RssAnon:\s+(\d+)", text)[0])


async def client(
    http: httpx.AsyncClient,
    asked: list[dict[str, Any]],
    expected: list[str],
    counts: Counter[str],
    end: float,
    seed: int,
) -> None:
    """Ask until the time is over."""
    rng = random.Random(seed)
    while time.monotonic() < end:
        i = rng.randrange(len(asked))
        leaves_after = rng.randrange(1, 20) if rng.random() < 0.25 else None
        found, n = None, 0
        try:
            async with http.stream("POST", "/v1/chat/completions", json={**asked[i], "stream": True}) as response:
                if response.status_code == 429:
                    counts["429"] += 1
                    await asyncio.sleep(float(response.headers["Retry-After"]))
                    continue
                if response.status_code != 200:
                    counts[f"STATUS {response.status_code}"] += 1
                    continue
                async for line in response.aiter_lines():
                    n += line.startswith("data: ")
                    if n == leaves_after:
                        break
                    if line.startswith("data: {"):
                        event = json.loads(line[6:])
                        if "error" in event:
                            counts["ERROR EVENT"] += 1
                        found = event.get("receipt_digest", found)
        except httpx.HTTPError as error:
            counts[f"ERROR {type(error).__name__}"] += 1
            continue
        if found is None:
            counts["left" if leaves_after else "INCOMPLETE"] += 1
        else:
            counts["complete" if found == expected[i] else "OTHER DIGEST"] += 1


async def load(address: str, process: subprocess.Popen[str], options: argparse.Namespace) -> bool:
    """Run all clients, and say what happened."""
    asked = requests()
    with bitnet.Engine(options.model, n_threads=1) as engine:
        expected = [digest(engine, request) for request in asked]
    counts: Counter[str] = Counter()
    end = time.monotonic() + options.minutes * 60
    limits = httpx.Limits(max_connections=None)
    memory = []
    async with httpx.AsyncClient(base_url=address, timeout=120, limits=limits) as http:
        clients = [
            asyncio.create_task(client(http, asked, expected, counts, end, seed)) for seed in range(options.clients)
        ]
        while not all(task.done() for task in clients):
            await asyncio.wait(clients, timeout=10)
            memory.append(resident(process))
        await asyncio.gather(*clients)
        metrics = (await http.get("/metrics")).text
    warm = memory[len(memory) // 5 :] or memory
    print(dict(counts))
    print(
        f"memory after the warm-up: {warm[0]} KiB, at the end {warm[-1]} KiB: {100 * (warm[-1] / warm[0] - 1):+.2f} %"
    )
    print("\n".join(line for line in metrics.splitlines() if line.startswith("bitnet_requests_")))
    return all(name in ("complete", "left", "429") for name in counts) and counts["complete"] > 0


async def speed(address: str, options: argparse.Namespace) -> None:
    """Tokens a second of all clients together, beside the same work as a list in this process, in turns."""
    asked = [{"messages": request["messages"], "max_tokens": 64, "ignore_eos": True} for request in requests()]
    asked = (asked * 4)[: options.clients * 2]
    rates: dict[str, list[float]] = {"list": [], "streams": [], "answers": []}
    async with httpx.AsyncClient(base_url=address, timeout=600, limits=httpx.Limits(max_connections=None)) as http:

        async def ask(request: dict[str, Any], stream: bool) -> int:
            body = {**request, "stream": stream, "stream_options": {"include_usage": True} if stream else None}
            response = await http.post("/v1/chat/completions", json=body)
            text = response.text if stream else f"data: {response.text}"
            return int(re.findall(r'"completion_tokens": ?(\d+)', text)[-1])

        for _ in range(options.rounds):
            with bitnet.Engine(options.model) as engine:
                engine.chat([asked[0]["messages"]], max_tokens=2)
                start = time.perf_counter()
                answers = engine.chat([request["messages"] for request in asked], max_tokens=64, ignore_eos=True)
                tokens = sum(answer.completion_tokens for answer in answers)
                rates["list"].append(tokens / (time.perf_counter() - start))
            for name, stream in (("streams", True), ("answers", False)):
                start = time.perf_counter()
                tokens = sum(await asyncio.gather(*(ask(request, stream) for request in asked)))
                rates[name].append(tokens / (time.perf_counter() - start))
    base = statistics.median(rates["list"])
    for name, all_rates in rates.items():
        rate = statistics.median(all_rates)
        print(f"{name:8} {rate:8.1f} tokens/s = {rate / base:.2f} x the list")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", help="a model file (default: the model in the package)")
    parser.add_argument("--clients", type=int, default=64, help="clients at a time (default: 64)")
    parser.add_argument("--minutes", type=float, default=10, help="how long (default: 10)")
    parser.add_argument("--speed", action="store_true", help="measure the throughput instead")
    parser.add_argument("--rounds", type=int, default=3, help="of --speed: measurements of each kind (default: 3)")
    options = parser.parse_args()
    words = [sys.executable, "-W", "ignore", "-m", "bitnet", "serve", *([options.model] if options.model else [])]
    words += ["--port", "0", "--max-queue", "1000"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert process.stdout
        address = process.stdout.readline().partition(": ")[2].partition(" ")[0]
        if options.speed:
            asyncio.run(speed(address, options))
        elif not asyncio.run(load(address, process, options)):
            sys.exit(1)
    finally:
        process.terminate()
        process.wait(30)


if __name__ == "__main__":
    main()
