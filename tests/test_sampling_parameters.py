"""The list of sampling parameters in `src/sampler/params.rs` and everything that has to agree with it."""

from __future__ import annotations

import argparse
import ast
import inspect
import json
import re
from typing import Any

import pytest

import bitnet
from bitnet import _core
from bitnet.cli._options import SAMPLING_OPTIONS, add_sampling_options, sampling
from conftest import ROOT

PARAMETERS = _core._sampling_parameters()
NAMES = [name for name, *_ in PARAMETERS]
ALWAYS_WRITTEN = [name for name, *_, since in PARAMETERS if since is None]
"""Claims, saved conversations and `repr` leave out the others at their default."""
FORMS = ("json_schema", "regex", "choice", "grammar")
"""A claim has them in a block of its own."""
NOT_CLAIMED = ("ignore_eos", "logprobs", "speculate", *FORMS)
PROCESSOR = "logits_processor"
"""The keyword that no list has: a function of the caller."""
NOT_OPTIONS = ("logit_bias", "stop_token_ids", "logprobs")
"""Keywords without an option on the command line, which knows no token ids and prints no log-probabilities."""
STUBS = ast.parse((ROOT / "python" / "bitnet" / "_core.pyi").read_text(encoding="utf-8"))


def stub(name: str) -> ast.ClassDef:
    """A class of the stubs."""
    return next(node for node in STUBS.body if isinstance(node, ast.ClassDef) and node.name == name)


def test_the_keywords_in_the_stubs() -> None:
    """Names, types and defaults, in the same order."""
    keywords = [
        (node.target.id, ast.unparse(node.annotation))
        for node in stub("_Sampling").body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    ]
    processor = (PROCESSOR, "_LogitsProcessor | None")
    assert keywords == [*((name, kind) for name, kind, *_ in PARAMETERS), processor]
    members = (node for node in stub("SamplingParams").body if isinstance(node, ast.FunctionDef))
    new = next(node for node in members if node.name == "__new__")
    given = [
        (
            argument.arg,
            ast.unparse(argument.annotation or ast.Constant(None)),
            ast.unparse(default or ast.Constant(...)),
        )
        for argument, default in zip(new.args.kwonlyargs, new.args.kw_defaults, strict=True)
    ]
    assert given == [*((name, kind, default) for name, kind, default, *_ in PARAMETERS), (*processor, "None")]


def test_the_properties_in_the_stubs() -> None:
    members = [node for node in stub("SamplingParams").body if isinstance(node, ast.FunctionDef)]
    assert [node.name for node in members if not node.name.startswith("_")] == [*NAMES, PROCESSOR]
    about = ast.get_docstring(stub("SamplingParams")) or ""
    assert [name for name in NAMES if not re.search(rf"\b{name}\b", about)] == []


def test_the_class_itself() -> None:
    """Its signature, which editors show, its defaults and its `repr`."""
    signature = inspect.signature(bitnet.SamplingParams).parameters
    assert list(signature) == [*NAMES, PROCESSOR]
    params = bitnet.SamplingParams()
    for name, _, default, about, _ in PARAMETERS:
        expected: Any = ast.literal_eval(default)
        assert signature[name].default == expected
        assert signature[name].kind is inspect.Parameter.KEYWORD_ONLY
        found = getattr(params, name)
        assert found == (list(expected) if expected == () else expected)
        assert len(about) > 20, about
    assert re.findall(r"(\w+)=", repr(params)) == ALWAYS_WRITTEN
    with pytest.raises(TypeError, match="temprature is not a sampling parameter"):
        bitnet.SamplingParams(temprature=1)  # type: ignore[call-arg]


def test_the_options_of_the_command_line() -> None:
    """Each keyword has its option, whose help shows the real default."""
    options = {option.name: option for option in SAMPLING_OPTIONS}
    assert sorted(options) == sorted(set(NAMES) - set(NOT_OPTIONS))
    assert len(options) == len(SAMPLING_OPTIONS)
    words = {(): "none", False: "off"}
    for name, _, default, *_ in PARAMETERS:
        if name in NOT_OPTIONS:
            continue
        expected: Any = ast.literal_eval(default)
        shown = options[name].default.split(",")[0]
        if expected is None:
            assert shown.startswith(("no ", "a new one")), f"--{name}: {shown}"
        elif expected is False or expected == ():
            assert shown == words[expected], name
        else:
            assert float(shown) == expected, name
    parser = argparse.ArgumentParser()
    add_sampling_options(parser)
    assert bitnet.SamplingParams(**sampling(parser.parse_args([]))) == bitnet.SamplingParams()


def test_a_claim_and_its_schema() -> None:
    """A claim says everything that decides the answer: not how many log-probabilities were reported, and the stop ids
    in effect in place of `ignore_eos`."""
    with bitnet.Engine(n_threads=1) as engine:
        receipt = engine.generate("2+2=", max_tokens=1).receipt
    assert receipt is not None
    assert list(receipt.to_dict()["claim"]["sampling"]) == [name for name in ALWAYS_WRITTEN if name not in NOT_CLAIMED]
    schema = bitnet.receipt_schema()["properties"]["claim"]["properties"]["sampling"]
    assert list(schema["properties"]) == [name for name in NAMES if name not in NOT_CLAIMED]
    assert schema["required"] == [name for name in ALWAYS_WRITTEN if name not in NOT_CLAIMED]
    assert all(entry["description"] for entry in schema["properties"].values())
    assert schema["properties"]["top_p"]["maximum"] == 1
    assert schema["properties"]["seed"]["type"] == "integer"


def test_a_saved_conversation_holds_every_parameter() -> None:
    with bitnet.Engine(n_threads=1) as engine:
        saved = json.loads(bitnet.ChatSession(engine).to_json())
    assert list(saved["params"]) == [name for name in ALWAYS_WRITTEN if name != "logit_bias"]
    assert "logit_bias" in saved
