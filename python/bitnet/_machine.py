"""What this machine gives to a process: memory, the limits of its container, huge pages."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_UNLIMITED = 1 << 60
"""Version 1 of control groups writes "no limit" as a number above this."""


@dataclass(frozen=True)
class Machine:
    """Sizes in bytes; None where the system does not tell."""

    memory: int | None
    """The size of the memory."""
    available: int | None
    """Memory that a new process can use, within the container's limit."""
    memory_limit: int | None
    """The container's limit; None if there is none."""
    cpu_limit: float | None
    """Processors' worth of time that the container may use; None if there is no limit."""
    huge_pages: str | None
    """The system's setting for transparent huge pages: "always", "madvise" or "never"."""
    flags: frozenset[str]
    """The processor's features, as Linux names them."""


def machine(root: Path = Path("/")) -> Machine:
    """Look at the machine. `root` is the folder that has proc and sys."""
    fields = dict(_fields(root / "proc/meminfo"))
    free = fields.get("MemAvailable")
    limit = cpus = None
    for folder in _groups(root, "memory"):
        least = _limit(folder / "memory.max", folder / "memory.limit_in_bytes")
        if least is not None:
            limit = least if limit is None else min(limit, least)
            left = max(least - _used(folder), 0)
            free = left if free is None else min(free, left)
    for folder in _groups(root, "cpu"):
        least_cpus = _cpus(folder)
        if least_cpus is not None:
            cpus = least_cpus if cpus is None else min(cpus, least_cpus)
    total = fields.get("MemTotal") or _memory_of_system()
    huge = _read(root / "sys/kernel/mm/transparent_hugepage/enabled")
    chosen = huge[huge.find("[") + 1 : huge.find("]")] if "[" in huge else None
    flags = next((line for line in _read(root / "proc/cpuinfo").splitlines() if line.startswith(("flags", "Feat"))), "")
    return Machine(total, free, limit, cpus, chosen, frozenset(flags.partition(":")[2].split()))


def _read(path: Path) -> str:
    """The text of a file, or "" if it cannot be read."""
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError):
        return ""


def _fields(path: Path) -> Iterator[tuple[str, int]]:
    """Yield the sizes of /proc/meminfo."""
    for line in _read(path).splitlines():
        name, _, rest = line.partition(":")
        if rest.split()[:1] and rest.split()[0].isdecimal():
            yield name, int(rest.split()[0]) * 1024


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """Yield the control group of this process, and those that contain it: limits of each of them hold.

    Version 2 has one tree for all controllers, version 1 one for each. Inside a container, the path of the group may be
    one of the host that is not visible; the group is then at the root of the tree.
    """
    top = root / "sys/fs/cgroup"
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:
            base = top
        elif controller in controllers.split(","):
            base = next((top / name for name in (controllers, controller) if (top / name).is_dir()), top / controller)
        else:
            continue
        group = base / path.lstrip("/")
        for folder in (group, *group.parents):
            if folder.is_dir():
                yield folder
            if folder == base:
                break


def _limit(*paths: Path) -> int | None:
    """The limit in the first of these files that has one."""
    texts = [_read(path).strip() for path in paths]
    return next((int(text) for text in texts if text.isdecimal() and int(text) < _UNLIMITED), None)


def _used(folder: Path) -> int:
    """Memory that a control group uses, without files that the system can drop from its cache."""
    used = _limit(folder / "memory.current", folder / "memory.usage_in_bytes") or 0
    stat = dict(line.split()[:2] for line in _read(folder / "memory.stat").splitlines() if len(line.split()) == 2)
    return used - int(stat.get("total_inactive_file", stat.get("inactive_file", "0")))


def _cpus(folder: Path) -> float | None:
    """The processors' worth of time that a control group may use."""
    quota, period = [*_read(folder / "cpu.max").split(), "", ""][:2]  # version 2: both in one file
    if not quota:
        quota, period = _read(folder / "cpu.cfs_quota_us").strip(), _read(folder / "cpu.cfs_period_us").strip()
    return int(quota) / int(period) if quota.isdecimal() and period.isdecimal() else None


def _memory_of_system() -> int | None:
    """The size of this machine's memory, if the system tells it by sysconf."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None
