"""The model in the package computes what the PyTorch graph that trained it computes: figures from training."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bitnet
from closeness import EXACT, FLIPPED
from conftest import ROOT

sys.path.insert(0, str(ROOT / "examples" / "train"))

from score import converse, evaluate, problems

MODEL = ROOT / "python" / "bitnet" / "models" / "trit.gguf"
HELD_OUT = ROOT / "tests" / "data" / "heldout.jsonl.gz"
PROMPTS: list[dict[str, Any]] = json.loads((ROOT / "tests" / "data" / "trit-golden.json").read_text())["prompts"]


@pytest.fixture(scope="module")
def engine() -> bitnet.Engine:
    return bitnet.Engine(MODEL, kv_type="f32")


def distance(engine: bitnet.Engine, prompt: dict[str, Any]) -> Any:
    """How far each position's eight best logits lie from training's, in units of the logits' spread."""
    best = np.take_along_axis(engine.logits(prompt["ids"]), np.array(prompt["best"]), axis=1)
    return np.abs(best - np.array(prompt["values"])).max(axis=1) / prompt["spread"]


def test_runs_as_trained(engine: bitnet.Engine) -> None:
    assert (engine.arch, engine.act_quant, engine.ffn_act) == ("bitnet-b1.58", "int8", "relu2")


@pytest.mark.parametrize("prompt", PROMPTS, ids=lambda prompt: prompt["answer"])
def test_ids(engine: bitnet.Engine, prompt: dict[str, Any]) -> None:
    assert engine.encode(prompt["text"], add_bos=True, parse_special=True) == prompt["ids"]


@pytest.mark.parametrize("prompt", PROMPTS, ids=lambda prompt: prompt["answer"])
def test_logits(engine: bitnet.Engine, prompt: dict[str, Any]) -> None:
    """Rounding noise, but where an activation rounds the other way; there no more than such flips do. One of the first
    four positions may hold such a flip."""
    found = distance(engine, prompt)
    assert (found[:4] < EXACT).sum() >= 3, found
    assert (found < FLIPPED).all(), found
    last = np.abs(engine.logits(prompt["ids"])[-1] - np.array(prompt["last"])).max() / prompt["spread"]
    assert last < FLIPPED


def test_some_prompt_without_a_flip(engine: bitnet.Engine) -> None:
    """A whole prompt to rounding noise: weights, scales, norms, rotary angles and head are those of training."""
    assert any((distance(engine, prompt) < EXACT).all() for prompt in PROMPTS)


@pytest.mark.parametrize("prompt", PROMPTS, ids=lambda prompt: prompt["answer"])
def test_answers(engine: bitnet.Engine, prompt: dict[str, Any]) -> None:
    assert engine.generate(prompt["ids"]).text == prompt["answer"]


def test_the_package_opens_it_by_itself() -> None:
    with bitnet.Engine() as engine:
        assert engine.path == Path(bitnet.__file__).parent / "models" / MODEL.name
        assert (engine.template.name, engine.template.origin) == ("bitnet", "gguf")
        chat = bitnet.ChatSession(engine)
        assert [chat.send(text).text for text in ("What is 2+2?", "What about 3+3?")] == ["2+2=4.", "3+3=6."]
        for receipt in chat.receipts:
            receipt.validate()
            assert engine.replay(receipt)


def test_the_command_line_opens_it_by_itself() -> None:
    def run(*arguments: str, stdin: str = "") -> str:
        command = [sys.executable, "-m", "bitnet", *arguments]
        return subprocess.run(command, input=stdin, capture_output=True, text=True, encoding="utf-8").stdout

    assert run("chat", stdin="What is 2+2?\nWhat about 3+3?\n").endswith("2+2=4.\n3+3=6.\n")
    assert run("run", "--chat", "-p", "What is 2+2?") == "2+2=4.\n"
    shown = run("inspect", "--card")
    assert "bitnet-b1.58" in shown
    assert "# Trit, the model inside the package" in shown


def test_the_first_conversation() -> None:
    with bitnet.Engine(MODEL) as chatty:
        said = converse(chatty, ["What is 2+2?", "What about 3+3?", "add 5 to that"])
    assert said == ["2+2=4.", "3+3=6.", "6+5=11."]


def test_a_sample_of_the_score_table() -> None:
    """Every 15th held-out problem: sums nearly always right, all together about as the model card says."""
    with bitnet.Engine(MODEL) as chatty:
        scores, _ = evaluate(chatty, list(problems(HELD_OUT))[::15])
    right, asked = (sum(count[i] for count in scores["skill"].values()) for i in (0, 1))
    assert asked > 150
    assert right / asked > 0.93
    assert scores["skill"]["add"][0] >= scores["skill"]["add"][1] - 1
