"""One receipt on every platform: `make platforms` builds the programs and runs this file.

The best instruction set of this machine answers on two threads; every platform has to replay the receipt: the same
digest, the same answer. Those that can answer the same questions have to get a receipt with this digest.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import bitnet

ROOT = Path(__file__).resolve().parent.parent
MODEL = ROOT / "python" / "bitnet" / "models" / "trit.gguf"
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
AARCH64_PYTHON = Path(os.environ.get("AARCH64_PYTHON", ROOT / ".venv" / "aarch64" / "python"))
# A run takes a second on a processor and most of a minute under emulation.
TIMEOUT = 900

SYSTEM = "You are a careful assistant. Answer briefly and show how you compute a sum."
QUESTIONS = ("What is 345+678?", "And how many r's are in strawberry?")

# What examples/receipt.rs does, by the package.
IN_PYTHON = """
import sys
from bitnet import ChatSession, Engine, Receipt
task, model, path, *texts = sys.argv[1:]
engine = Engine(model, n_threads=2)
if task == "answer":
    chat = ChatSession(engine, system=texts[0], max_tokens=64, seed=7, temperature=0.8)
    receipt = [chat.send(text).receipt for text in texts[1:]][-1]
    receipt.save(path)
    verdict = "answered"
else:
    receipt = Receipt.load(path)
    receipt.validate()
    verdict = "the same" if engine.replay(receipt) else "different"
print(f"{receipt.digest} {verdict}, {engine.isa}, 2 threads")
"""
# The referee computes the digest of the claim itself and compares it with that of the receipt.
BY_REFEREE = """
import json, sys
from bitnet.referee import differences
model, path = sys.argv[2:]
found = differences(path, model)
print(json.load(open(path))["digest"], "different," if found else "the same,", "NumPy", *found)
"""
# The page's own program, in node.
BY_NODE = """
import json, subprocess, sys
command = ["node", "tests/replay.mjs", "docs/verify/bitnet.wasm", *sys.argv[2:]]
done = subprocess.run(command, capture_output=True, text=True)
if done.returncode:
    sys.exit(done.stderr)
found = json.loads(done.stdout.splitlines()[1])
verdict = "the same" if found["replay"]["same"] else "different"
print(f"{found['digest']} {verdict}, {found['replay']['isa']}, 1 thread")
"""


@dataclass(frozen=True)
class Platform:
    """A command that takes `replay MODEL RECEIPT`, and `answer MODEL RECEIPT SYSTEM QUESTION...` if it can answer.

    It prints a digest, a verdict and what computed it: `761e… the same, avx2, 2 threads`.
    """

    name: str
    command: tuple[str | Path, ...]
    answers: bool = True
    environment: dict[str, str] = field(default_factory=dict)


def example(target: str, file: str = "receipt") -> Path:
    """The program of examples/receipt.rs for a target: the core without Python."""
    return TARGET / target / "debug" / "examples" / file


QEMU = ("qemu-aarch64", "-L", "/usr/aarch64-linux-gnu", "-cpu")
AARCH64 = example("aarch64-unknown-linux-gnu")
WINDOWS = example("x86_64-pc-windows-gnu", "receipt.exe")
HERE = (sys.executable, "-c", IN_PYTHON)
PLATFORMS = (
    Platform("this machine", HERE),
    *(Platform(f"this machine, {isa}", HERE, environment={"BITNET_ISA": isa}) for isa in bitnet.isas()),
    Platform("AArch64 with I8MM, QEMU", (*QEMU, "max", AARCH64)),
    Platform("AArch64 with dot products, QEMU", (*QEMU, "neoverse-n1", AARCH64)),
    Platform("AArch64 without both, QEMU", (*QEMU, "cortex-a53", AARCH64)),
    Platform("AArch64, the wheel in Python, QEMU", (AARCH64_PYTHON, "-c", IN_PYTHON)),
    Platform("Windows x86-64, Wine", ("/usr/lib/wine/wine64", WINDOWS)),
    Platform("WebAssembly, node", (sys.executable, "-c", BY_NODE), answers=False),
    Platform("the referee", (sys.executable, "-c", BY_REFEREE), answers=False),
)


def run(platform: Platform, task: str, receipt: Path, *texts: str) -> tuple[str, str, str]:
    """The digest, the verdict and what computed it; without a digest, the verdict says why."""
    command = [*platform.command, task, MODEL, receipt, *texts]
    environment = {**os.environ, **platform.environment}
    try:
        done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT)
    except (OSError, subprocess.TimeoutExpired) as error:
        return "", f"not run: {error}", ""
    digest, _, rest = done.stdout.strip().partition(" ")
    verdict, _, name = rest.partition(", ")
    return (digest, verdict, name) if verdict else ("", f"failed: {done.stderr.strip()[-200:]}", "")


def main() -> int:
    """Print the table. Returns 0 if every platform has the digest of the first."""
    with tempfile.TemporaryDirectory() as folder:
        receipt = Path(folder) / "receipt.json"
        digest, verdict, name = run(PLATFORMS[0], "answer", receipt, SYSTEM, *QUESTIONS)
        print(f"{verdict} by {name}\ndigest {digest}\n")
        print(f"{'platform':36}{'computed by':24}{'replay':12}own answer")
        all_same = bool(digest)
        for platform in PLATFORMS:
            found, verdict, name = run(platform, "replay", receipt)
            all_same &= found == digest and verdict == "the same"
            own = "-"
            if platform.answers:
                found, told, _ = run(platform, "answer", Path(folder) / "own.json", SYSTEM, *QUESTIONS)
                own = "the same" if found == digest else found or told
                all_same &= found == digest
            print(f"{platform.name:36}{name:24}{verdict:12}{own}", flush=True)
    print("\nEvery platform has this digest." if all_same else "\nNot every platform has this digest.")
    return 0 if all_same else 1


if __name__ == "__main__":
    sys.exit(main())
