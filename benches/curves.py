"""Plot speed over prompt length, depth, batch size and threads: docs/curves.png. Needs matplotlib.

python benches/curves.py MODEL PICTURE
"""

import json
import subprocess
import sys
from collections.abc import Iterable
from typing import Any

import matplotlib.pyplot as plt

PROMPTS, DEPTHS, BATCHES, THREADS = (16, 64, 128, 256, 512, 1024), (0, 512, 1024, 2048), (1, 2, 4, 8), (1, 2)


def bench(model: str, *options: str) -> list[dict[str, Any]]:
    """Run `bitnet bench`; return its runs, one for each number of threads."""
    threads = ",".join(map(str, THREADS))
    command = [sys.executable, "-m", "bitnet", "bench", model, "--json", "-r", "2", "-t", threads, *options]
    runs: list[dict[str, Any]] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)["runs"]
    return runs


def listed(numbers: Iterable[int]) -> str:
    return ",".join(map(str, numbers))


def main() -> None:
    """Measure everything, then save the picture."""
    model, picture = sys.argv[1:]
    prefill = [bench(model, "-p", str(n), "-n", "1") for n in PROMPTS]
    depth = bench(model, "-p", "1", "-n", "32", "-d", listed(DEPTHS))
    batch = bench(model, "-p", "1", "-n", "32", "-b", listed(BATCHES))
    figure, axes = plt.subplots(1, 3, figsize=(11, 3.2), layout="constrained")
    for i, threads in enumerate(THREADS):
        label = f"{threads} thread" + "s" * (threads > 1)
        rates = [runs[i]["tests"][0]["tokens_per_second"]["median"] for runs in prefill]
        axes[0].plot(PROMPTS, rates, "o-", label=label)
        for axis, key, runs in ((axes[1], "depth", depth), (axes[2], "batch", batch)):
            tests = [test for test in runs[i]["tests"] if test["test"] == "decode"]
            axis.plot(
                [test[key] for test in tests],
                [test["tokens_per_second"]["median"] for test in tests],
                "o-",
                label=label,
            )
    for axis, title in zip(axes, ("prefill by prompt length", "decode by depth", "decode by batch"), strict=True):
        axis.set(title=title, ylabel="tokens/s", ylim=(0, None))
        axis.grid(alpha=0.3)
    axes[0].legend()
    figure.savefig(picture, dpi=110)


if __name__ == "__main__":
    main()
