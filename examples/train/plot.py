"""Plot the loss of a training run: `python examples/train/plot.py RUN loss.png`."""

import csv
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt


def main(run: str, picture: str) -> None:
    """Plot both losses over the number of tokens seen, on a logarithmic scale."""
    rows = [[float(x) for x in row] for row in csv.reader((Path(run) / "log.csv").open())]
    tokens = [row[1] / 1e6 for row in rows]
    figure, axes = plt.subplots(figsize=(6, 3.2), layout="constrained")
    axes.plot(tokens, [row[2] for row in rows], label="training")
    axes.plot(tokens, [row[3] for row in rows], label="held-out problems, last answer")
    axes.set(yscale="log", xlabel="tokens seen, millions", ylabel="loss of an answer's token, nats")
    axes.grid(alpha=0.3, which="both")
    axes.legend()
    figure.savefig(picture, dpi=100)


if __name__ == "__main__":
    main(*sys.argv[1:])
