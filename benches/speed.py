"""Draw our speed beside other engines and the limit of the machine, from the recorded figures in speed.csv.

python benches/speed.py docs/performance.png        # needs matplotlib
"""

import csv
import sys
from pathlib import Path

import matplotlib.pyplot as plt

ENGINES = {"bitnet": ("tab:blue", "white"), "ik_llama.cpp": ("0.7", "black"), "bitnet.cpp": ("0.85", "black")}
"""The colours of each engine's bars and of the figures in them."""
TITLES = {"prefill": "Prefill of 512 tokens", "decode": "Decode of 64 tokens"}
THREADS = (1, 2)
WIDTH = 0.26
"""Of a bar, where the groups are 1 apart."""

Record = dict[tuple[str, int, str], tuple[float, float]]


def recorded() -> Record:
    """The lowest and highest median of each test, number of threads and engine."""
    with Path(__file__).with_suffix(".csv").open(newline="", encoding="utf-8") as file:
        rows = csv.DictReader(file)
        return {
            (row["test"], int(row["threads"]), row["engine"]): (float(row["lowest"]), float(row["highest"]))
            for row in rows
        }


def draw(record: Record, picture: str) -> None:
    """Write the picture: a panel for each test, a group of bars for each number of threads."""
    figure, panels = plt.subplots(1, 2, figsize=(9, 3.8), layout="constrained")
    for axis, (test, title) in zip(panels, TITLES.items(), strict=True):
        for group, threads in enumerate(THREADS):
            for place, (engine, (colour, ink)) in enumerate(ENGINES.items(), -1):
                lowest, highest = record[test, threads, engine]
                middle = (lowest + highest) / 2
                x = group + place * WIDTH
                axis.bar(x, middle, WIDTH, color=colour, edgecolor="white", label=None if group else engine)
                below = {"xytext": (0, -3), "textcoords": "offset points", "ha": "center", "va": "top"}
                axis.annotate(f"{middle:.0f}", (x, middle), color=ink, **below)
            limit, _ = record[test, threads, "limit"]
            ends = group - 1.7 * WIDTH, group + 1.7 * WIDTH
            label = None if group else "limit of the machine"
            axis.plot(ends, (limit, limit), color="tab:red", linestyle="--", label=label)
            axis.text(ends[1], limit, f"{limit:.0f}", ha="right", va="bottom", color="tab:red")
        highest_limit = max(record[test, threads, "limit"][0] for threads in THREADS)
        axis.set(title=title, ylabel="tokens/s", ylim=(0, 1.12 * highest_limit))
        axis.set_xticks(range(len(THREADS)), [f"{threads} thread" + "s" * (threads > 1) for threads in THREADS])
        axis.spines[["top", "right"]].set_visible(False)
    (limit, *bars), (limit_name, *names) = panels[0].get_legend_handles_labels()
    figure.legend([*bars, limit], [*names, limit_name], loc="outside lower center", ncols=4, frameon=False)
    figure.suptitle(
        "Shape of BitNet b1.58 2B-4T, F16 head, 2 cores of an AMD Zen 3 (AVX2); higher is better", fontsize="medium"
    )
    figure.savefig(picture, dpi=110)


if __name__ == "__main__":
    draw(recorded(), sys.argv[1])
