"""Run a peer's benchmark and ours in turn, A B A B, so that both see the same machine; print medians and ratios.

    python benches/against.py --ours MODEL --peer 'llama-bench -m X.gguf' [-p 512] [-n 128] [-t 1,2] [--rounds 3]
    python benches/against.py --ours MODEL --batched 'llama-batched-bench -m X.gguf' -d 0,2048 -b 1,8 [-n 32]

The first peer is any command that takes llama-bench's options -p, -n, -t, -r, -o json and prints its JSON: a list of
objects with n_prompt, n_gen, n_threads, avg_ts. The second decodes after prompts, and several sequences at once: it
takes llama-batched-bench's options -c, -b, -ub, -t, -npp, -ntg, -npl and prints its table, whose rows begin
| PP | TG | B | N_KV | T_PP | S_PP | T_TG | S_TG |. Without --ours the model inside the package is measured.
"""

import argparse
import json
import shlex
import statistics
import subprocess
import sys
from itertools import product
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


def ours_batched(model: str | None, depth: int, batch: int, tokens: int, threads: int) -> float:
    """One round of `bitnet bench`: all sequences together."""
    command = [sys.executable, "-m", "bitnet", "bench", *([model] if model else []), "--json"]
    report = output([*command, "-d", str(depth), "-b", str(batch)], 1, tokens, threads)
    return next(t["tokens_per_second"]["median"] for t in report["runs"][0]["tests"] if t["test"] == "decode")


def peer_batched(command: str, depth: int, batch: int, tokens: int, threads: int) -> float:
    """One round of the peer's."""
    context = (depth + 1 + tokens) * batch + 64
    options = {"-c": context, "-b": 2048, "-ub": 512, "-t": threads, "-npp": depth + 1, "-ntg": tokens, "-npl": batch}
    words = [*shlex.split(command), *(str(word) for option in options.items() for word in option)]
    table = run(words, stderr=subprocess.STDOUT)  # some print it among their log
    for line in table.splitlines():
        cells = [cell.strip() for cell in line.split("|")[1:-1]]
        if len(cells) > 7 and cells[:3] == [str(depth + 1), str(tokens), str(batch)]:
            return float(cells[7])
    raise SystemExit(f"{command}: printed no row | {depth + 1} | {tokens} | {batch} | …")


def output(command: list[str], prompt: int, tokens: int, threads: int) -> Any:
    """The JSON that a benchmark prints."""
    command += ["-p", str(prompt), "-n", str(tokens), "-t", str(threads), "-r", "1"]
    try:
        return json.loads(run(command))
    except ValueError as error:
        raise SystemExit(f"{shlex.join(command)}: printed no JSON: {error}") from error


def run(command: list[str], stderr: int | None = None) -> str:
    """What a command prints."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=stderr, text=True, errors="replace")
    if done.returncode:
        raise SystemExit(f"{shlex.join(command)}: ended with status {done.returncode}")
    return done.stdout


def line(threads: int, test: str, rounds: list[tuple[float, float]]) -> None:
    """A row of the report."""
    a, b = (statistics.median(side) for side in zip(*rounds, strict=True))
    print(f"{threads:<8} {test:<32} {a:>10.1f} {b:>10.1f} {a / b:>12.2f}", flush=True)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--ours", metavar="MODEL", help="the model of `bitnet bench`")
    parser.add_argument("--peer", metavar="COMMAND", help="the peer's llama-bench with its model")
    parser.add_argument("--batched", metavar="COMMAND", help="the peer's llama-batched-bench with its model")
    parser.add_argument("-p", "--prompt", type=int, default=512, help="tokens of the prefill")
    parser.add_argument("-n", "--tokens", type=int, default=128, help="tokens to decode")
    parser.add_argument("-t", "--threads", type=numbers, default=[1, 2], help="thread counts, as a list")
    parser.add_argument("-d", "--depth", type=numbers, default=[0], help="with --batched: positions before, as a list")
    parser.add_argument("-b", "--batch", type=numbers, default=[1], help="with --batched: sequences, as a list")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    if not options.peer and not options.batched:
        parser.error("found neither --peer nor --batched, expected one or both")
    turns = range(options.rounds)
    print(f"{'threads':<8} {'test':<32} {'ours':>10} {'peer':>10} {'ours / peer':>12}")
    for threads in options.threads:
        if options.peer:
            counts = (options.prompt, options.tokens, threads)
            rounds = [(ours(options.ours, *counts), peer(options.peer, *counts)) for _ in turns]
            for test, length in (("prefill", options.prompt), ("decode", options.tokens)):
                line(threads, f"{test} {length}", [(a[test], b[test]) for a, b in rounds])
        for depth, batch in product(options.depth, options.batch) if options.batched else ():
            point = (depth, batch, options.tokens, threads)
            pairs = [(ours_batched(options.ours, *point), peer_batched(options.batched, *point)) for _ in turns]
            line(threads, f"decode {options.tokens} at depth {depth}, batch {batch}", pairs)


def numbers(text: str) -> list[int]:
    """An argument that is a list of numbers."""
    return [int(number) for number in text.split(",")]


if __name__ == "__main__":
    main()
