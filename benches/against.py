"""Alternate another engine's benchmark with ours (A B A B) and print the medians and their ratio.

    python benches/against.py --ours MODEL --peer 'llama-bench -m X.gguf' [-p 512] [-n 128] [-t 1,2] [--rounds 3]
    python benches/against.py --ours MODEL --batched 'llama-batched-bench -m X.gguf' -d 0,2048 -b 1,8 [-n 32]

Alternating makes both see the same load of the machine.

--peer takes a command that accepts llama-bench's options -p, -n, -t, -r, -o json and prints its JSON: a list of objects
with n_prompt, n_gen, n_threads and avg_ts. It compares prefill and decode of one sequence.

--batched takes a command that accepts llama-batched-bench's options -c, -b, -ub, -t, -npp, -ntg, -npl and prints its
table, whose rows begin | PP | TG | B | N_KV | T_PP | S_PP | T_TG | S_TG |. It compares decode after a prompt, of one or
several sequences.
"""

import argparse
import json
import shlex
import statistics
import subprocess
import sys
from itertools import product
from typing import Any

Rates = dict[str, float]  # test -> tokens/s


def ours(model: str | None, prompt: int, tokens: int, threads: int) -> Rates:
    """Run `bitnet bench` once; return its rates."""
    command = [sys.executable, "-m", "bitnet", "bench", *([model] if model else []), "--json"]
    report = output(command, prompt, tokens, threads)
    return {test["test"]: test["tokens_per_second"]["median"] for test in report["runs"][0]["tests"]}


def peer(command: str, prompt: int, tokens: int, threads: int) -> Rates:
    """Run the peer's llama-bench once; return its rates."""
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
    """Run `bitnet bench` once; return the decode rate of all sequences together, in tokens/s."""
    command = [sys.executable, "-m", "bitnet", "bench", *([model] if model else []), "--json"]
    report = output([*command, "-d", str(depth), "-b", str(batch)], 1, tokens, threads)
    return next(t["tokens_per_second"]["median"] for t in report["runs"][0]["tests"] if t["test"] == "decode")


def peer_batched(command: str, depth: int, batch: int, tokens: int, threads: int) -> float:
    """Run the peer's llama-batched-bench once; return the decode rate of all sequences together, in tokens/s."""
    context = (depth + 1 + tokens) * batch + 64
    options = {"-c": context, "-b": 2048, "-ub": 512, "-t": threads, "-npp": depth + 1, "-ntg": tokens, "-npl": batch}
    words = [*shlex.split(command), *(str(word) for option in options.items() for word in option)]
    table = run(words, stderr=subprocess.STDOUT)  # some peers print the table to stderr
    for line in table.splitlines():
        cells = [cell.strip() for cell in line.split("|")[1:-1]]
        if len(cells) > 7 and cells[:3] == [str(depth + 1), str(tokens), str(batch)]:
            return float(cells[7])
    raise SystemExit(f"{command}: printed no row | {depth + 1} | {tokens} | {batch} | …")


def output(command: list[str], prompt: int, tokens: int, threads: int) -> Any:
    """Run a benchmark with these options; return the JSON that it prints."""
    command += ["-p", str(prompt), "-n", str(tokens), "-t", str(threads), "-r", "1"]
    try:
        return json.loads(run(command))
    except ValueError as error:
        raise SystemExit(f"{shlex.join(command)}: printed no JSON: {error}") from error


def run(command: list[str], stderr: int | None = None) -> str:
    """Run a command; return what it prints to stdout."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=stderr, text=True, errors="replace")
    if done.returncode:
        raise SystemExit(f"{shlex.join(command)}: ended with status {done.returncode}")
    return done.stdout


def line(threads: int, test: str, rounds: list[tuple[float, float]]) -> None:
    """Print a row of the report: the medians of both sides and their ratio."""
    a, b = (statistics.median(side) for side in zip(*rounds, strict=True))
    print(f"{threads:<8} {test:<32} {a:>10.1f} {b:>10.1f} {a / b:>12.2f}", flush=True)


def main() -> None:
    """Parse the command line, run all rounds and print the report."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--ours", metavar="MODEL", help="model for `bitnet bench` (default: the one inside the package)"
    )
    parser.add_argument("--peer", metavar="COMMAND", help="the peer's llama-bench with its model")
    parser.add_argument("--batched", metavar="COMMAND", help="the peer's llama-batched-bench with its model")
    parser.add_argument("-p", "--prompt", type=int, default=512, help="tokens in the prompt (default: 512)")
    parser.add_argument("-n", "--tokens", type=int, default=128, help="tokens to decode (default: 128)")
    parser.add_argument("-t", "--threads", type=numbers, default=[1, 2], help="thread counts (default: 1,2)")
    parser.add_argument("-d", "--depth", type=numbers, default=[0], help="with --batched: prompt lengths (default: 0)")
    parser.add_argument("-b", "--batch", type=numbers, default=[1], help="with --batched: sequences (default: 1)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of both sides (default: 3)")
    options = parser.parse_args()
    if not options.peer and not options.batched:
        parser.error("give --peer, --batched or both")
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
    """Parse numbers that are separated by commas."""
    return [int(number) for number in text.split(",")]


if __name__ == "__main__":
    main()
