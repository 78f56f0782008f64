"""What a token costs does not grow unnoticed: bytes read and rows computed, compared with `data/cost.json`.

Unlike times, these are the same on every machine. After a change that is meant:

    python tests/test_cost.py
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import bitnet
from bitnet._synthetic import Spec, make_model

RECORD = Path(__file__).parent / "data/cost.json"
SPECS = {
    "I2_S, tied F16 head": Spec("bitnet-b1.58", 2, 256, 640, 4, 2, vocab_size=6000),
    "TQ1_0, Q6_K head": Spec("bitnet", 2, 256, 512, 4, 1, vocab_size=6000, linear="TQ1_0", untied=True, output="Q6_K"),
    "gated delta nets": Spec(
        "qwen35", 4, 256, 384, 4, 2, 64, untied=True, linear="Q2_0_g64", ssm_head_dim=64, rope_dim=16
    ),
    "relu² with zeros": Spec("bitnet-b1.58", 1, 512, 2176, 4, 2, vocab_size=300, relu_zeros=0.6),
    "F16 file of trits": Spec("llama", 1, 128, 256, 2, 1, vocab_size=300, linear="F16"),
}


def cost(path: Path, isa: Any) -> dict[str, Any]:
    """Of an answer of eight tokens to a prompt of seventy: per token, and what the kernels counted."""
    with bitnet.Engine(path, n_threads=1, isa=isa) as engine:
        answer = engine.generate([i * 31 % engine.n_vocab for i in range(70)], max_tokens=8, ignore_eos=True)
        varies = ("file", "resident", "resident_file")
        memory = {name: size for name, size in engine.memory.items() if name not in varies}
        work = answer.receipt.to_dict()["run"]["work"]
        rows = {name: count for name, count in work.items() if not name.endswith("_ns")}
        return {"per_token": engine.per_token, "work": rows, "memory": memory}


def costs(isa: Any = "scalar") -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.gguf"
        found = {}
        for name, spec in SPECS.items():
            make_model(path, spec)
            found[name] = cost(path, isa)
        return found


def test_a_token_costs_what_it_did() -> None:
    assert costs() == json.loads(RECORD.read_text())


def test_every_instruction_set_costs_no_more() -> None:
    """The work is the same; matrices may be packed more tightly."""
    record = json.loads(RECORD.read_text())
    for isa in bitnet.isas():
        for name, found in costs(isa).items():
            recorded = record[name]
            assert found["work"] == recorded["work"], isa
            for figure in (found["memory"], recorded["memory"]), (found["per_token"], recorded["per_token"]):
                assert all(figure[0][key] <= figure[1][key] for key in figure[1]), (isa, name)


if __name__ == "__main__":
    RECORD.write_text(json.dumps(costs(), indent=1) + "\n")
