"""Measure what a packed model saves: the time to open it, and the memory of several processes together.

    python benches/packed.py model.gguf model.packed

`model.packed` is what `bitnet pack model.gguf model.packed` wrote. Both files are read once before, so that they are
in the page cache; processes have opened the small model before, so that all modules are imported. Memory is the
proportional set size (PSS) of all processes together, after a short answer of each: pages that several of them share
count once. Linux only.
"""

from __future__ import annotations

import multiprocessing
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import bitnet

IDS = list(range(1, 17))


def rollup() -> dict[str, int]:
    """Figures of this process from /proc/self/smaps_rollup, in bytes."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]
    return {line.split(":")[0]: int(line.split()[1]) << 10 for line in lines}


def worker(path: str, ready: Any, measured: Any, out: Any) -> None:
    """Open the model, answer, and report once all processes have answered."""
    bitnet.Engine(n_threads=1).close()  # imports what an engine needs
    start = time.perf_counter()
    engine = bitnet.Engine(path, n_threads=1)
    opened = time.perf_counter()
    engine.generate(IDS, max_tokens=1)
    first = time.perf_counter()
    engine.generate(IDS, max_tokens=8)
    ready.wait()
    found = rollup()
    measured.wait()
    private = found["Private_Clean"] + found["Private_Dirty"]
    out.put((opened - start, first - opened, found["Pss"], private))


def measure(path: str, processes: int) -> list[tuple[float, float, int, int]]:
    """What each process reports."""
    context = multiprocessing.get_context("spawn")
    ready, measured, out = context.Barrier(processes), context.Barrier(processes), context.Queue()
    workers = [context.Process(target=worker, args=(path, ready, measured, out)) for _ in range(processes)]
    for process in workers:
        process.start()
    found = [out.get() for _ in workers]
    for process in workers:
        process.join()
    return found


def main() -> None:
    """Measure both files in turn."""
    for path in sys.argv[1:]:
        with open(path, "rb", buffering=0) as file:
            while file.read(16 << 20):
                pass
    for processes in (1, 4):
        for path in sys.argv[1:]:
            rounds = [measure(path, processes) for _ in range(5 if processes == 1 else 1)]
            opened = statistics.median(each[0] for found in rounds for each in found)
            first = statistics.median(each[1] for found in rounds for each in found)
            pss = sum(each[2] for each in rounds[-1])
            private = sum(each[3] for each in rounds[-1])
            print(
                f"{Path(path).name}: {processes} processes, open {1e3 * opened:.1f} ms, first token "
                f"{1e3 * first:.0f} ms after that, PSS {pss / 1e9:.2f} GB, of that private {private / 1e9:.2f} GB"
            )


if __name__ == "__main__":
    main()
