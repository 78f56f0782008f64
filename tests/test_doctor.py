"""`bitnet doctor`: the machine, its container, and what would run on it."""

from __future__ import annotations

import json
import math
import os
import re
import sys
from pathlib import Path

import pytest

import bitnet
from bitnet import _machine, cli
from bitnet._synthetic import PRESETS, tensors
from bitnet.cli import doctor
from conftest import ROOT
from test_cli import run

GB = 1 << 30


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


MEMORY = {"proc/meminfo": f"MemTotal: {16 * GB // 1024} kB\nMemFree: 1 kB\nMemAvailable: {12 * GB // 1024} kB\n"}


def test_a_machine_without_limits(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "0::/user.slice\n",
        "sys/fs/cgroup/user.slice/memory.max": "max\n",
        "sys/fs/cgroup/user.slice/cpu.max": "max 100000\n",
        "sys/kernel/mm/transparent_hugepage/enabled": "always [madvise] never\n",
        "proc/cpuinfo": "processor : 0\nflags : fpu avx512_vbmi\n",
    }
    here = _machine.machine(write(tmp_path, MEMORY | files))
    assert (here.memory, here.available, here.memory_limit, here.cpu_limit) == (16 * GB, 12 * GB, None, None)
    assert (here.huge_pages, "avx512_vbmi" in here.flags) == ("madvise", True)


def test_the_limits_of_version_2_are_those_of_every_group_above(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "0::/pod/container\n",
        "sys/fs/cgroup/pod/memory.max": f"{4 * GB}\n",
        "sys/fs/cgroup/pod/memory.current": f"{3 * GB}\n",
        "sys/fs/cgroup/pod/memory.stat": f"anon 5\ninactive_file {GB}\n",
        "sys/fs/cgroup/pod/container/memory.max": f"{8 * GB}\n",
        "sys/fs/cgroup/pod/container/cpu.max": "150000 100000\n",
    }
    here = _machine.machine(write(tmp_path, MEMORY | files))
    assert (here.memory_limit, here.available, here.cpu_limit) == (4 * GB, 2 * GB, 1.5)


def test_the_limits_of_version_1(tmp_path: Path) -> None:
    """Each controller has a tree. The path of the group is the host's, which a container does not see."""
    files = {
        "proc/self/cgroup": "5:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc\n1:name=systemd:/\n",
        "sys/fs/cgroup/memory/memory.limit_in_bytes": f"{2 * GB}\n",
        "sys/fs/cgroup/memory/memory.usage_in_bytes": f"{GB // 2}\n",
        "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "200000\n",
        "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
    }
    here = _machine.machine(write(tmp_path, MEMORY | files))
    assert (here.memory_limit, here.available, here.cpu_limit) == (2 * GB, 3 * GB // 2, 2.0)
    none = {
        "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
        "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "-1\n",
    }
    here = _machine.machine(write(tmp_path, none))
    assert (here.memory_limit, here.available, here.cpu_limit) == (None, 12 * GB, None)


def test_a_system_that_tells_nothing(tmp_path: Path) -> None:
    here = _machine.machine(tmp_path)
    assert (here.available, here.memory_limit, here.cpu_limit, here.huge_pages) == (None, None, None, None)


@pytest.mark.parametrize(
    ("name", "preset"),
    [
        ("BitNet b1.58 2B-4T", "2b-4t"),
        ("1bitLLM 3B", "3b"),
        ("Llama3 8B 1.58", "llama3-8b"),
        ("Bonsai 8B", "bonsai-8b"),
        ("Bonsai 27B", "bonsai-27b"),
    ],
)
def test_the_shapes_are_those_of_the_published_models(name: str, preset: str) -> None:
    shape = next(shape for shape in doctor._SHAPES if shape.name == name)
    sizes = {tensor.name: math.prod(tensor.shape) for tensor in tensors(PRESETS[preset])}
    matrices = re.compile(r"blk\.\d+\.(attn_(q|k|v|output|qkv|gate)|ssm_out|ffn_(gate|up|down))\.weight")
    assert shape.ternary == sum(size for tensor, size in sizes.items() if matrices.fullmatch(tensor))
    assert shape.embedding == sizes["token_embd.weight"]
    assert shape.has_head == ("output.weight" in sizes)
    keys = sum(size for tensor, size in sizes.items() if re.fullmatch(r"blk\.\d+\.attn_[kv]\.weight", tensor))
    assert shape.kv_bytes == 2 * keys // PRESETS[preset].width
    of_bonsai = sum(tensor.nbytes for tensor in tensors(PRESETS[preset])) if preset.startswith("bonsai") else None
    assert of_bonsai is None or abs(shape.file_bytes() / of_bonsai - 1) < 0.01


def test_doctor_judges_the_machine() -> None:
    done = run("doctor", "--json")
    report = json.loads(done.stdout)
    assert (done.returncode, done.stderr) == (0, "")
    assert report["instruction_sets"] == bitnet.isas()
    assert report["chosen"] == os.environ.get("BITNET_ISA", bitnet.isas()[-1])
    assert report["model_inside"] == {"right": True, "answer": "2+2=4.", "error": None}
    assert all(rate > 0 for rate in report["read_gb_per_s"].values())
    assert [model["name"] for model in report["models"]] == [shape.name for shape in doctor._SHAPES]
    assert all(model["tokens_per_second"] > 0 for model in report["models"])
    if sys.platform == "linux":
        assert 0 < report["memory_available_bytes"] <= report["memory_bytes"]
    shown = run("doctor", BITNET_ISA="scalar").stdout
    for fact in (
        "scalar (from BITNET_ISA)",
        "answers right: What is 2+2? 2+2=4.",
        "of it free",
        "huge pages ",
        "BitNet b1.58 2B-4T: file 1.18 GB",
        "tokens/s",
        "hub: ",
    ):
        assert fact in shown


def test_a_wrong_answer_is_an_exit_status(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(doctor, "_ANSWER", "2+2=5.")
    assert cli.main(["doctor"]) == 1
    assert "answers wrong: What is 2+2? '2+2=4.'; expected '2+2=5.'" in capsys.readouterr().out


def test_an_instruction_set_that_is_not_there() -> None:
    done = run("doctor", BITNET_ISA="abacus")
    assert done.returncode == 1
    assert "from BITNET_ISA, but this processor does not have it" in done.stdout
    assert "cannot be run: unknown instruction set" in done.stdout


def test_a_model_that_does_not_fit(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    here = _machine.Machine(4 * GB, 2 * GB, 4 * GB, 1.5, "never", frozenset())
    monkeypatch.setattr(doctor, "machine", lambda: here)
    assert cli.main(["doctor"]) == 0
    shown = capsys.readouterr().out
    assert "limits this process to 1.5 processors and 4.29 GB of memory" in shown
    assert "off; reading weights is slower" in shown
    fits = {line.split(":")[0].strip(): ": fits;" in line for line in shown.splitlines() if "tokens of context" in line}
    assert list(fits.values()) == [True, True, False, False, False]


def test_extras_that_are_missing_are_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(doctor, "find_spec", lambda name: None if name == "huggingface_hub" else True)
    assert cli.main(["doctor"]) == 0
    assert "hub: models by name, hf:OWNER/NAME, no: pip install 'bitnet-engine[hub]'" in capsys.readouterr().out


def test_every_extra_of_the_package_is_looked_for() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    section = text.partition("[project.optional-dependencies]\n")[2].partition("\n[")[0]
    packages = {
        name: tuple(re.findall(r'"([\w-]+)', listed))
        for name, listed in re.findall(r"(?m)^([\w-]+) = \[(.*?)\]", section)
    }
    assert {name: tuple(names) for name, (names, _) in doctor.EXTRAS.items()} == packages
