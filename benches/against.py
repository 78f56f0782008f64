"""Run a peer's benchmark and ours in turn, A B A B, so that both see the same machine; print medians and ratios.

    python benches/against.py --ours MODEL --peer 'llama-bench -m X.gguf' [-p 512] [-n 128] [-t 1,2] [--rounds 3]

The peer is any command that takes llama-bench's options -p, -n, -t, -r, -o json and prints its JSON: a list of objects
with n_prompt, n_gen, n_threads, avg_ts. Without --ours the model inside the package is measured.
"""

import argparse
import json
import shlex
import statistics
import subprocess
import sys
from typing import Any

Rates = dict[str, float]  # test -> tokens a second


def ours(model: str | None, prompt: int, tokens: int, threads: int) -> Rates:
    """One round of `bitnet bench`."""
    command = [sys.executable, "-m", "bitnet", "bench", *([model] if model else []), "--json"]
    report = output(command, prompt, tokens, threads)
    return {test["test"]: test["tokens_per_second"]["median"] for test in report["runs"][0]["tests"]}


def peer(command: str, prompt: int, tokens: int, threads: int) -> Rates:
    """One round of the peer's benchmark."""
    rates = {}
    for test in output([*shlex.split(command), "-o", "json"], prompt, tokens, threads):
        if test["n_threads"] != threads:
            raise SystemExit(f"{command}: ran {test['n_threads']} threads where -t asked for {threads}")
        for name, counts in (("prefill", (prompt, 0)), ("decode", (0, tokens))):
            if (test["n_prompt"], test["n_gen"]) == counts:
                rates[name] = float(test["avg_ts"])
    if rates.keys() != {"prefill", "decode"}:
        raise SystemExit(f"{command}: found {', '.join(rates) or 'nothing'} in its JSON, expected prefill and decode")
    return rates


def output(command: list[str], prompt: int, tokens: int, threads: int) -> Any:
    """The JSON that a benchmark prints."""
    command += ["-p", str(prompt), "-n", str(tokens), "-t", str(threads), "-r", "1"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(f"{shlex.join(command)}: ended with status {done.returncode}")
    try:
        return json.loads(done.stdout)
    except ValueError as error:
        raise SystemExit(f"{shlex.join(command)}: printed no JSON: {error}") from error


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--ours", metavar="MODEL", help="the model of `bitnet bench`")
    parser.add_argument("--peer", metavar="COMMAND", required=True, help="the peer's command with its model")
    parser.add_argument("-p", "--prompt", type=int, default=512, help="tokens of the prefill")
    parser.add_argument("-n", "--tokens", type=int, default=128, help="tokens to decode")
    parser.add_argument("-t", "--threads", default="1,2", help="thread counts, as a list")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    print(f"{'threads':<8} {'test':<14} {'ours':>10} {'peer':>10} {'ours / peer':>12}")
    for threads in map(int, options.threads.split(",")):
        counts = (options.prompt, options.tokens, threads)
        rounds = [(ours(options.ours, *counts), peer(options.peer, *counts)) for _ in range(options.rounds)]
        for test, length in (("prefill", options.prompt), ("decode", options.tokens)):
            a, b = (statistics.median(rates[test] for rates in side) for side in zip(*rounds, strict=True))
            print(f"{threads:<8} {f'{test} {length}':<14} {a:>10.1f} {b:>10.1f} {a / b:>12.2f}", flush=True)


if __name__ == "__main__":
    main()
