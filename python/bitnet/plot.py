"""Plots of receipts: where the time of an answer went, and how much of its prompt was reused. Needs matplotlib."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ._core import Receipt

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

__all__ = ["receipt", "timeline"]

_PARTS = {
    "prompt to ids": ("#9aa5b1", ("render", "tokenize")),
    "prefill": ("#2f6fb0", ("prefill",)),
    "decode": ("#e08a2c", ("decode",)),
    "sample, detokenize": ("#6aa56a", ("sample", "detokenize")),
}
"""The parts of an answer's time: for each its colour, and the fields of `Receipt.seconds` that it sums up."""


def timeline(receipts: Sequence[Receipt]) -> "Figure":
    """Plot several answers: the time of each by its parts, the time of each token, and what was reused of each prompt.

    receipts: those of a conversation (`chat.receipts`), or any others. The first answer is at the top.

    Returns a figure. A notebook shows it as a cell's value; `savefig` writes it into a file. Raises ImportError
    without matplotlib, ValueError without receipts.

    >>> import bitnet, bitnet.plot
    >>> chat = bitnet.ChatSession(bitnet.Engine(), max_tokens=8)
    >>> replies = [chat.send(text) for text in ("What is 2+2?", "What is 3+3?")]
    >>> [axes.get_title() for axes in bitnet.plot.timeline(chat.receipts).axes]
    ['Where the time of each answer went', 'Time of each token', 'Prompt tokens of each answer']
    """
    if not receipts:
        raise ValueError("there is no receipt to plot; pass at least one")
    heights = [0.3 + 0.3 * min(len(receipts), 30), 2.4]
    figure = _new_figure(9, sum(heights) + 1.5)
    axes = figure.subplot_mosaic([["times", "times"], ["tokens", "prompts"]], height_ratios=heights)
    times, tokens, prompts = axes.values()
    _draw_times(times, receipts, points=72 * heights[0] / len(receipts))
    _draw_tokens(tokens, receipts)
    _draw_prompts(prompts, receipts)
    return figure


def receipt(one: Receipt) -> "Figure":
    """`timeline` of a single receipt."""
    return timeline([one])


def _new_figure(width: float, height: float) -> "Figure":
    """A figure of this size in inches. Raises ImportError, which names the extra to install."""
    try:
        from matplotlib import pyplot
    except ImportError as error:
        raise ImportError("plots need matplotlib: pip install 'bitnet-engine[notebook]'") from error
    figure = pyplot.figure(figsize=(width, height), layout="constrained")
    pyplot.close(figure)  # otherwise a notebook shows it a second time at the end of the cell
    return figure


def _draw_times(axes: "Axes", receipts: Sequence[Receipt], points: float) -> None:
    """Draw a bar for each answer, made of its parts, with a mark at the first token. A bar is `points` high."""
    from matplotlib import rcParams

    turns = range(1, len(receipts) + 1)
    left = [0.0] * len(receipts)
    for name, (colour, fields) in _PARTS.items():
        spent = [1e3 * sum(one.seconds[field] for field in fields) for one in receipts]
        axes.barh(turns, spent, left=left, color=colour, label=name, height=0.7)
        left = [a + b for a, b in zip(left, spent, strict=True)]
    rest = [max(1e3 * one.seconds["wall"] - before, 0) for one, before in zip(receipts, left, strict=True)]
    axes.barh(turns, rest, left=left, color="#dddddd", label="other", height=0.7)
    first = [1e3 * one.seconds["first_token"] for one in receipts]
    mark = 0.7 * points  # as high as a bar
    axes.scatter(first, turns, marker="|", s=mark**2, color=rcParams["text.color"], label="first token", zorder=3)
    axes.set(title="Where the time of each answer went", xlabel="ms", ylabel="answer", ylim=(len(receipts) + 0.5, 0.5))
    _number_answers(axes.yaxis, len(receipts))
    _add_legend(axes, markerscale=10 / mark)


def _draw_tokens(axes: "Axes", receipts: Sequence[Receipt]) -> None:
    """Draw a line for each answer: the time of every token after the first. Early answers are dark, late ones light."""
    from matplotlib import colormaps

    axes.set(title="Time of each token", xlabel="token of the answer", ylabel="ms")
    steps = {turn: one.to_dict()["run"]["step_ns"] for turn, one in enumerate(receipts, 1)}
    drawn = [turn for turn in steps if steps[turn]]
    if not drawn:
        axes.set(xticks=[], yticks=[])
        axes.text(0.5, 0.5, "no later tokens", ha="center", va="center", transform=axes.transAxes)
        return
    named = {drawn[i * (len(drawn) - 1) // 5] for i in range(6)}
    for i, turn in enumerate(drawn):
        colour = colormaps["plasma"](0.3 + 0.55 * i / max(len(drawn) - 1, 1))
        label = f"answer {turn}" if turn in named else None
        times = [1e-6 * step for step in steps[turn]]
        axes.plot(range(2, len(times) + 2), times, ".-", color=colour, linewidth=0.8, markersize=4, label=label)
    axes.set_ylim(0, 1.08e-6 * max(max(steps[turn]) for turn in drawn))
    axes.locator_params(axis="x", integer=True)
    if len(receipts) > 1:
        _add_legend(axes)


def _draw_prompts(axes: "Axes", receipts: Sequence[Receipt]) -> None:
    """Draw a column for each answer: the tokens of its prompt that came from the cache, and those computed."""
    turns = range(1, len(receipts) + 1)
    cached = [one.cached_tokens for one in receipts]
    computed = [one.prompt_tokens - one.cached_tokens for one in receipts]
    axes.bar(turns, cached, color="#a8c6e2", label="reused", width=0.7)
    axes.bar(turns, computed, bottom=cached, color=_PARTS["prefill"][0], label="computed", width=0.7)
    axes.set(title="Prompt tokens of each answer", xlabel="answer", ylabel="tokens")
    axes.set_xlim(0.3, max(len(receipts), 3) + 0.7)  # a single column does not fill the whole width
    _number_answers(axes.xaxis, len(receipts))
    _add_legend(axes)


def _number_answers(axis: "Axis", answers: int) -> None:
    """Put a tick at each answer, or at about ten of them if there are more."""
    axis.set_ticks(range(1, answers + 1, -(-answers // 10)))


def _add_legend(axes: "Axes", markerscale: float = 1) -> None:
    """Put the legend to the right of the axes, where it covers nothing."""
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, fontsize="small", markerscale=markerscale)
