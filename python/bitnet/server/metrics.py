"""Counters of a server in the text format of Prometheus."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable

_BOUNDS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0)
"""Upper bounds of the histograms' buckets in seconds."""

Labels = tuple[tuple[str, str], ...]


class Histogram:
    """How often a time fell into each bucket, by labels."""

    def __init__(self) -> None:
        self._buckets: dict[Labels, list[int]] = {}
        self._sums: Counter[Labels] = Counter()

    def add(self, seconds: float, **labels: str) -> None:
        """Count a time."""
        key = tuple(labels.items())
        buckets = self._buckets.setdefault(key, [0] * (len(_BOUNDS) + 1))
        buckets[bisect_left(_BOUNDS, seconds)] += 1
        self._sums[key] += seconds  # type: ignore[assignment]

    def lines(self, name: str) -> Iterable[str]:
        """The samples."""
        for key, buckets in self._buckets.items():
            total = 0
            for bound, count in zip((*map(str, _BOUNDS), "+Inf"), buckets, strict=True):
                total += count
                yield f"{name}_bucket{_labels((*key, ('le', bound)))} {total}"
            yield f"{name}_sum{_labels(key)} {self._sums[key]:.6f}"
            yield f"{name}_count{_labels(key)} {total}"


class Metrics:
    """What a server has done since it started."""

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, int]] = Counter()
        """Finished requests by path and status; 499 is a client that left before its answer was complete."""
        self.tokens: Counter[str] = Counter()
        """Tokens: "prompt" (all of prompts), "cached" (the part of them that was not computed), "completion"."""
        self.request_seconds = Histogram()
        """Time of requests, by path."""
        self.first_token_seconds = Histogram()
        """Time from the beginning of a streamed answer to its first token."""

    def text(self, gauges: dict[str, tuple[str, float]]) -> str:
        """All samples. `gauges` are further values: name -> (help, value)."""
        lines = _head("bitnet_requests_total", "counter", "Finished requests; status 499: the client left early.")
        for (path, status), count in sorted(self.requests.items()):
            lines.append(f"bitnet_requests_total{_labels((('path', path), ('status', str(status))))} {count}")
        for name, help in (
            ("prompt", "Tokens of prompts."),
            ("cached", "Tokens of prompts that the prefix cache held."),
            ("completion", "Tokens of answers."),
        ):
            lines += _head(f"bitnet_{name}_tokens_total", "counter", help)
            lines.append(f"bitnet_{name}_tokens_total {self.tokens[name]}")
        for name, (help, value) in gauges.items():
            lines += [*_head(name, "gauge", help), f"{name} {value:g}"]
        lines += _head("bitnet_request_seconds", "histogram", "Time of requests in seconds.")
        lines += self.request_seconds.lines("bitnet_request_seconds")
        lines += _head("bitnet_first_token_seconds", "histogram", "Time to the first token of streams in seconds.")
        lines += self.first_token_seconds.lines("bitnet_first_token_seconds")
        return "\n".join(lines) + "\n"


def _head(name: str, kind: str, help: str) -> list[str]:
    """The lines before the samples of a metric."""
    return [f"# HELP {name} {help}", f"# TYPE {name} {kind}"]


def _labels(pairs: Labels) -> str:
    """Labels as the format has them. No value has a quote, a backslash or a line break in it."""
    return "{" + ",".join(f'{name}="{value}"' for name, value in pairs) + "}" if pairs else ""
