"""`bitnet doctor`."""

import argparse
import json
import os
from typing import Any

from .. import __version__, isas, processor, read_bandwidth
from .._format import byte_size, two_columns
from ._options import Commands, add_command


def add_parser(commands: Commands) -> None:
    """Describe the command and its options."""
    command = add_command(
        commands,
        "doctor",
        run,
        help="show what this machine has and what the engine would use",
        description="Show this machine's processor, memory and read bandwidth, and the instruction set that the engine "
        "would use. The environment variable BITNET_ISA chooses another instruction set.",
    )
    command.add_argument("--json", action="store_true", help="print everything as JSON")


def run(options: argparse.Namespace) -> None:
    """Look at the machine and print what was found."""
    machine = processor()
    cores = machine["cores"]
    from_environment = os.environ.get("BITNET_ISA")
    chosen = from_environment or isas()[-1]
    report: dict[str, Any] = {
        "version": __version__,
        "processor": machine["name"],
        "target": machine["target"],
        "instruction_sets": machine["isas"],
        "chosen": chosen,
        "threads": cores,
        "memory_bytes": _memory_bytes(),
        "read_gb_per_s": {n: round(read_bandwidth(n), 1) for n in dict.fromkeys([1, cores])},
    }
    if options.json:
        print(json.dumps(report, indent=1))
        return
    origin = "the best one"
    if from_environment:
        known = chosen in machine["isas"]
        origin = "from BITNET_ISA" if known else "from BITNET_ISA, but this processor does not have it"
    bandwidth = report["read_gb_per_s"].items()
    rows = {
        "bitnet": report["version"],
        "processor": f"{report['processor']} ({report['target']})",
        "instruction sets": ", ".join(machine["isas"]),
        "chosen": f"{chosen} ({origin})",
        "threads": cores,
        "memory": byte_size(report["memory_bytes"]) if report["memory_bytes"] else "unknown",
        "read bandwidth": ", ".join(f"{rate} GB/s on {n} thread{'s' * (n > 1)}" for n, rate in bandwidth),
    }
    print(two_columns(rows))


def _memory_bytes() -> int | None:
    """The size of this machine's memory, if the system tells it."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None
