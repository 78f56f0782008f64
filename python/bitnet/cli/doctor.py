"""`bitnet doctor`."""

import argparse
import json
import os
import platform
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from .. import ChatSession, Engine, __version__, dot_peak, isas, look_up_peak, processor, read_bandwidth
from .._format import byte_size, two_columns
from .._machine import Machine, machine
from ..errors import BitnetError
from ._options import Commands, add_command

_QUESTION, _ANSWER = "What is 2+2?", "2+2=4."
"""What the model inside is asked, and its answer on every machine."""

EXTRAS = {
    "hub": (("huggingface_hub",), "models by name, hf:OWNER/NAME"),
    "notebook": (("matplotlib", "tqdm", "ipywidgets"), "plots and progress bars"),
    "lm-eval": (("lm_eval",), "lm-evaluation-harness"),
    "serve": (("starlette", "uvicorn"), "the server, bitnet serve"),
    "ray": (("pyarrow", "ray"), "data sets on many machines"),
}
"""The optional parts of the package: the modules that each needs, and what it is for."""


@dataclass(frozen=True)
class _Shape:
    """A published model. The sizes decide what it needs: see docs/performance.md."""

    name: str
    ternary: int
    """Ternary weights of the layers."""
    embedding: int
    """Weights of the embedding."""
    has_head: bool
    """Whether the output head has weights of its own, of the embedding's size."""
    kv_bytes: int
    """Bytes of keys and values in the KV cache for each token, in F16."""
    context: int
    """The context that the figures are for."""
    file_bits: float = 2
    """Bits of a ternary weight in the file."""
    planes: int = 0
    """Planes of int8 of an activation, if the weights have a scale for each 128 columns; then embedding and head do,
    too. 0: one scale a tensor, and an embedding in F16."""
    state_bytes: int = 0
    """Bytes of recurrent state."""

    def file_bytes(self) -> float:
        """The size of the file."""
        embedding_bits = self.file_bits if self.planes else 16
        return (self.ternary * self.file_bits + self.embedding * (1 + self.has_head) * embedding_bits) / 8

    def read_bytes(self, trit_bytes: float) -> float:
        """What one token reads: the ternary weights, and the head's trits or the upper bits of its copy in 8 bits."""
        scales = 2 / 128 if self.planes else 0
        head = trit_bytes + scales if self.planes else UPPER_BYTES
        return self.ternary * (trit_bytes + scales) + self.embedding * head + 2 * self.state_bytes

    def memory_bytes(self, trit_bytes: float) -> float:
        """The memory that it needs with a full context. Of the embedding in the file few rows are read."""
        whole_head = 0 if self.planes else self.embedding
        return self.read_bytes(trit_bytes) + whole_head + self.kv_bytes * self.context


UPPER_BYTES = 6 / 8
"""Of a weight of the output head, the bytes that a single token reads of most."""

_SHAPES = (
    _Shape("BitNet b1.58 2B-4T", 2_084_044_800, 128_256 * 2560, False, 30 * 2 * 640 * 2, 4096),
    _Shape("1bitLLM 3B", 3_221_504_000, 32_002 * 3200, False, 26 * 2 * 3200 * 2, 2048),
    _Shape("Llama3 8B 1.58", 6_979_321_856, 128_256 * 4096, True, 32 * 2 * 1024 * 2, 4096),
    _Shape("Bonsai 8B", 6_945_767_424, 151_669 * 4096, True, 36 * 2 * 1024 * 2, 4096, 2.125, 2),
    _Shape("Bonsai 27B", 24_326_963_200, 248_320 * 5120, True, 16 * 2 * 1024 * 2, 4096, 1.75, 3, 156_893_184),
)


def add_parser(commands: Commands) -> None:
    """Describe the command and its options."""
    command = add_command(
        commands,
        "doctor",
        run,
        help="check this machine: what it has, what would run, and how fast",
        description="Check that the model inside answers right on this machine, and show what the engine would use: "
        "processor, memory, limits of the container, huge pages, read bandwidth, optional packages; and which models "
        "fit into the free memory, with the tokens per second to expect.",
    )
    command.add_argument("--json", action="store_true", help="print everything as JSON")
    command.epilog = "Exit status: 0 if the model inside answers right, 1 if not; 2 after an error."


def run(options: argparse.Namespace) -> int:
    """Look at the machine and print what was found."""
    found, here = processor(), machine()
    cores = found["cores"]
    chosen = os.environ.get("BITNET_ISA") or isas()[-1]
    bandwidth = {n: round(read_bandwidth(n), 1) for n in dict.fromkeys([1, cores])}
    isa = chosen if chosen in found["isas"] else None
    peak, looked_up = dot_peak(cores, isa), look_up_peak(cores, isa)
    # Five trits to a byte where the processor unpacks them fast, else four.
    trit_bytes = 1 / 5 if chosen in ("avx512-vnni", "amx") and "avx512_vbmi" in here.flags else 1 / 4
    report: dict[str, Any] = {
        "version": __version__,
        "python": platform.python_version(),
        "processor": found["name"],
        "target": found["target"],
        "instruction_sets": found["isas"],
        "chosen": chosen,
        "threads": cores,
        "memory_bytes": here.memory,
        "memory_available_bytes": here.available,
        "container": {"memory_bytes": here.memory_limit, "cpus": here.cpu_limit},
        "huge_pages": here.huge_pages,
        "read_gb_per_s": bandwidth,
        "multiply_adds_per_s": peak,
        "looked_up_per_s": looked_up,
        "model_inside": _model_inside(),
        "extras": {extra: [name for name in names if not find_spec(name)] for extra, (names, _) in EXTRAS.items()},
        "models": [_forecast(shape, trit_bytes, here, 1e9 * max(bandwidth.values()), peak) for shape in _SHAPES],
    }
    print(json.dumps(report, indent=1) if options.json else _as_text(report, here))
    return 0 if report["model_inside"]["right"] else 1


def _model_inside() -> dict[str, Any]:
    """Ask the model inside, and say whether the answer is right."""
    try:
        with Engine() as engine:
            answer = ChatSession(engine, max_tokens=32).send(_QUESTION).text
    except BitnetError as error:
        return {"right": False, "answer": None, "error": str(error)}
    return {"right": answer == _ANSWER, "answer": answer, "error": None}


def _forecast(shape: _Shape, trit_bytes: float, here: Machine, read: float, multiply_adds: float) -> dict[str, Any]:
    """What a model needs, whether it fits, and the most tokens per second that this machine allows."""
    needed = round(shape.memory_bytes(trit_bytes))
    return {
        "name": shape.name,
        "file_bytes": round(shape.file_bytes()),
        "memory_bytes": needed,
        "context": shape.context,
        "fits": None if here.available is None else needed <= here.available,
        "tokens_per_second": round(
            min(read / shape.read_bytes(trit_bytes), multiply_adds / (shape.ternary * max(1, shape.planes))), 1
        ),
    }


def _as_text(report: dict[str, Any], here: Machine) -> str:
    """The report as lines."""
    origin = "the best one"
    if os.environ.get("BITNET_ISA"):
        known = report["chosen"] in report["instruction_sets"]
        origin = "from BITNET_ISA" if known else "from BITNET_ISA, but this processor does not have it"
    rates = ", ".join(f"{rate} GB/s on {_threads(n)}" for n, rate in report["read_gb_per_s"].items())
    extras = [
        f"{name}: {EXTRAS[name][1]}, " + (f"no: pip install 'bitnet-engine[{name}]'" if missing else "yes")
        for name, missing in report["extras"].items()
    ]
    rows = {
        "bitnet": f"{report['version']}, Python {report['python']}",
        "processor": f"{report['processor']} ({report['target']})",
        "instruction sets": ", ".join(report["instruction_sets"]),
        "chosen": f"{report['chosen']} ({origin})",
        "prompts": "by look-ups, "
        f"which here can do {report['looked_up_per_s'] / report['multiply_adds_per_s']:.2f} times what dots can"
        if report["looked_up_per_s"]
        else "by integer dot products",
        "threads": report["threads"],
        "memory": f"{_size(here.memory)}, {_size(here.available)} of it free",
        "container": _container(here),
        "huge pages": _HUGE_PAGES.get(here.huge_pages or "", "unknown"),
        "read bandwidth": rates,
        "model inside": _told(report["model_inside"]),
        "extras": "\n".join(extras),
        "models": "\n".join(map(_model_line, report["models"])),
    }
    return two_columns(rows, texts=("extras", "models"))


_HUGE_PAGES = {
    "always": "on",
    "madvise": "on for the weights",
    "never": "off; reading weights is slower. To turn them on: "
    "echo madvise > /sys/kernel/mm/transparent_hugepage/enabled, as root",
}
"""What the system's setting means here."""


def _threads(count: int) -> str:
    """A number of threads in words."""
    return f"{count} thread{'s' * (count > 1)}"


def _size(count: int | None) -> str:
    """A size, if it is known."""
    return "unknown" if count is None else byte_size(count)


def _container(here: Machine) -> str:
    """The container's limits in words."""
    limits = [f"{here.cpu_limit:g} processors"] if here.cpu_limit is not None else []
    limits += [f"{byte_size(here.memory_limit)} of memory"] if here.memory_limit is not None else []
    return f"limits this process to {' and '.join(limits)}" if limits else "no limits"


def _told(inside: dict[str, Any]) -> str:
    """What the model inside answered."""
    if inside["error"]:
        return f"cannot be run: {inside['error']}"
    if inside["right"]:
        return f"answers right: {_QUESTION} {inside['answer']}"
    return f"answers wrong: {_QUESTION} {inside['answer']!r}; expected {_ANSWER!r}. Please report this"


def _model_line(model: dict[str, Any]) -> str:
    """What one model needs, and how fast it would be."""
    fits = {True: "fits", False: "does not fit into the free memory", None: "memory unknown"}[model["fits"]]
    return (
        f"{model['name']}: file {byte_size(model['file_bytes'])}, with {model['context']} tokens of context "
        f"{byte_size(model['memory_bytes'])} of memory: {fits}; up to {model['tokens_per_second']:.0f} tokens/s"
    )
