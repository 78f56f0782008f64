"""Measure a model: time to open, prefill, decode, peak memory, and the share of the memory bus that decode reaches.

    python benches/throughput.py MODEL [-p 512] [-n 128] [-t 1,2] [-r 3] [--isa NAME] [--json]

Rates are medians over the repeats. Each thread count runs in a process of its own, so that its peak memory is its own.
"""

import argparse
import json
import multiprocessing
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

import bitnet


def peak_resident_bytes() -> int:
    """The most memory that this process has had resident (Linux; 0 elsewhere)."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")), 0)


def measure(model: str, n_threads: int, prompt: int, tokens: int, repeats: int, isa: str | None) -> dict[str, Any]:
    """One row of the table."""
    before = peak_resident_bytes()
    start = time.perf_counter()
    engine = bitnet.Engine(model, n_threads=n_threads, isa=isa)
    opened = time.perf_counter() - start
    ids = np.random.default_rng(0).integers(0, engine.n_vocab, prompt)
    engine.generate_tokens(ids[:1], max_tokens=1)
    first_token = time.perf_counter() - start
    prefill, decode, bandwidth = [], [], []
    memory = engine.memory
    for repeat in range(repeats):
        prefill.append(engine.prefill(np.roll(ids, repeat + 1)).tokens_per_second)
        engine.prefill(ids[:1])
        start = time.perf_counter()
        engine.generate_tokens(ids[:1], max_tokens=tokens)
        decode.append(tokens / (time.perf_counter() - start))
        if repeat == 0:
            peak = peak_resident_bytes() - before
        bandwidth.append(bitnet.read_bandwidth(n_threads))
    weights = memory["packed_weights"] + memory["mapped_weights"]
    rate, bus = statistics.median(decode), statistics.median(bandwidth)
    return {
        "threads": n_threads,
        "isa": engine.isa,
        "open_s": round(opened, 3),
        "first_token_s": round(first_token, 3),
        "prefill_tok_s": round(statistics.median(prefill), 1),
        "decode_tok_s": round(rate, 2),
        "bandwidth_gb_s": round(bus, 1),
        "decode_share_of_bandwidth": round(rate * weights / bus / 1e9, 2),
        "peak_over_file": round(peak / memory["file"], 2),
    }


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("-p", "--prompt", type=int, default=512, help="positions of the prefill")
    parser.add_argument("-n", "--tokens", type=int, default=128, help="tokens to decode")
    parser.add_argument("-t", "--threads", default=f"1,{os.cpu_count()}", help="thread counts")
    parser.add_argument("-r", "--repeats", type=int, default=3)
    parser.add_argument("--isa", choices=bitnet.isas())
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows = []
    for threads in dict.fromkeys(int(n) for n in options.threads.split(",")):
        with multiprocessing.get_context("spawn").Pool(1) as process:
            arguments = (options.model, threads, options.prompt, options.tokens, options.repeats, options.isa)
            rows.append(process.apply(measure, arguments))
    if options.json:
        json.dump(rows, sys.stdout, indent=1)
        print()
        return 0
    print(f"{bitnet.processor()['name']}, {Path(options.model).name}")
    print("threads  isa           open  first   prefill   decode   bus      share of   peak memory")
    print("                       s     token s tok/s     tok/s    GB/s     the bus    / file")
    for row in rows:
        print(
            f"{row['threads']:<8} {row['isa']:<13} {row['open_s']:<5} {row['first_token_s']:<7} "
            f"{row['prefill_tok_s']:<9} {row['decode_tok_s']:<8} {row['bandwidth_gb_s']:<8} "
            f"{row['decode_share_of_bandwidth']:<10} {row['peak_over_file']}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
