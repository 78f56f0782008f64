"""Altered receipts: none crashes what shows it, none takes much memory, and what a replay overlooks is listed."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import bitnet
from bitnet import _display
from bitnet._receipts import summary
from test_cli import run

VALUES: list[Any] = [None, True, -1, 0, 1, 7, 200, 2**63, 2**64 - 1, 1e-9, 1e308, "", "0", "a\n\x1b[31mb", [], [3], {}]
VALUES += [[[]], {"count": 0, "blake3": ""}, {"count": 3, "blake3": "00" * 32}, {"a": {"b": [None]}}, "length", "stop"]


def positions(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of all values in a document; only the first item of a list."""
    items = value.items() if isinstance(value, dict) else enumerate(value[:1]) if isinstance(value, list) else ()
    for key, inside in items:
        yield (*path, key)
        yield from positions(inside, (*path, key))


def changed(document: Any, path: tuple[Any, ...], change: Callable[[Any, Any], None]) -> Any:
    """A copy in which `change(container, key)` was done at the path."""
    document = copy.deepcopy(document)
    inside = document
    for key in path[:-1]:
        inside = inside[key]
    change(inside, path[-1])
    return document


def mutants(document: Any) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Each value replaced by each of `VALUES`, removed, and with a foreign key beside it."""

    def replace(value: Any) -> Callable[[Any, Any], None]:
        return lambda inside, key: inside.__setitem__(key, value)

    for path in positions(document):
        for value in VALUES:
            yield path, changed(document, path, replace(value))
        yield path, changed(document, path, lambda inside, key: inside.__delitem__(key))
        if isinstance(path[-1], str):
            yield path, changed(document, path, lambda inside, _: inside.update({"foreign\n": "x"}))


def consistent(document: Any) -> Any:
    """The receipt of a document with every derived field and the digest computed anew, as a forger would; None if it
    is not one."""
    try:
        receipt = bitnet.Receipt.from_json(json.dumps(document))
        tests = receipt.to_dict()["test_results"]
        receipt = bitnet.Receipt.from_json(receipt.with_test_results(**tests).to_json())
        receipt.validate()
    except (bitnet.ReceiptError, TypeError, OverflowError):
        return None
    return receipt


@pytest.fixture
def receipts(engine: Any) -> list[Any]:
    """A conversation's second receipt, its redacted copy, and one of a text with a stop string."""
    chat: Any = bitnet.ChatSession(engine, "Be brief.", template="bitnet", max_tokens=3, temperature=1.0, seed=5)
    chat.send("hello")
    second = chat.send("hello world", logit_bias={3: 0.5}).receipt
    ended = engine.generate("hello world", max_tokens=40, temperature=1.0, seed=1, stop=["a", "e"]).receipt
    assert ended.finish_reason == "stop"
    return [second, second.redact(), ended]


def test_no_mutant_crashes_what_shows_it(receipts: list[Any], engine: Any) -> None:
    """As `bitnet receipt show` and notebooks show it, with the texts and without, whether it is valid or not."""
    read = valid = 0
    for original in receipts:
        for path, document in mutants(original.to_dict()):
            try:
                mutant = bitnet.Receipt.from_json(json.dumps(document))
            except bitnet.ReceiptError:
                continue
            forged = consistent(document)
            read, valid = read + 1, valid + (forged is not None)
            for receipt in filter(None, (mutant, forged)):
                for tokenizer in (None, engine.tokenizer):
                    rows = summary(receipt, tokenizer)
                    assert all(isinstance(row, str) for row in rows.values()), path
            page = _display.html(mutant)
            assert page.count("<tr>") >= 10
            assert "\x1b" not in _display.text(mutant)
    assert read > 1000
    assert valid > 300


def test_what_a_replay_overlooks_is_listed(receipts: list[Any], engine: Any) -> None:
    """Whatever can be altered in a receipt that is valid and replays as the same is told, not proven."""
    overlooked = set()
    for original in (receipts[0], receipts[2]):
        assert engine.replay(original)
        for path, document in mutants(original.to_dict()):
            forged = consistent(document)
            if forged is None or forged == original:
                continue
            try:
                same, _, told = engine._replay(forged)
            except (bitnet.BitnetError, TypeError):
                continue
            before, after = original.to_dict(), forged.to_dict()
            derived = ("compute_path", "backend_summary", "kernels", "performance_baseline", "digest")
            for name in (key for key in after if same and key not in derived and before[key] != after[key]):
                if name in ("claim", "model_info"):
                    parts = [f"{name}.{key}" for key in after[name] if before[name][key] != after[name][key]]
                else:
                    parts = [name]
                for part in parts:
                    assert part in told, path
                    if part == "claim.system":  # the prompt shows one that is a text
                        system = after["claim"]["system"]
                        assert not isinstance(system, str) or not system.strip()
                    overlooked.add(part)
    fields = {"claim.previous", "claim.template", "claim.n_ctx", "claim.sampling", "run", "timestamp", "environment"}
    assert overlooked >= fields | {"model_info.file"}


HIDDEN_STOP = {"count": 1, "blake3": "00" * 32}


@pytest.mark.parametrize(
    ("claims", "sampling"),
    [
        ({"finish_reason": "cancelled"}, {"max_tokens": 100}),
        ({"finish_reason": "cancelled"}, {"max_tokens": None}),
        ({"finish_reason": "context", "n_ctx": None}, {"max_tokens": 100}),
        ({"finish_reason": "stop"}, {"max_tokens": 100, "stop": HIDDEN_STOP}),
    ],
)
def test_an_end_that_several_changes_forge_is_told(
    engine: Any, claims: dict[str, Any], sampling: dict[str, Any]
) -> None:
    original = engine.generate(engine.encode("What is a cat?"), max_tokens=6, ignore_eos=True).receipt
    document = original.to_dict()
    claim = document["claim"]
    if "n_ctx" in claims:
        claims = claims | {"n_ctx": len(claim["prompt_ids"]) + len(claim["output_ids"]) - 1}
    claim |= claims
    claim["sampling"] |= sampling
    mutant = consistent(document)
    assert mutant is not None, "it is valid"
    same, _, told = engine._replay(mutant)
    assert same
    assert {f"claim.{name}" for name in (*claims, "sampling")} <= {*told}
    assert ("claim.output_ids" in told) == (claims["finish_reason"] == "cancelled")


def test_space_around_a_system_prompt_is_told(engine: Any) -> None:
    receipt = bitnet.ChatSession(engine, "Be brief.", template="bitnet", max_tokens=3).send("Hi").receipt
    assert "claim.system" not in engine._replay(receipt)[2]
    padded = forged(receipt, system="  Be brief.\n")
    assert "claim.system" in engine._replay(padded)[2]


def forged(receipt: Any, **claims: Any) -> Any:
    """A copy with other claims, and a digest computed anew."""
    document = receipt.to_dict()
    document["claim"] |= claims
    found = consistent(document)
    assert found is not None
    return found


@pytest.mark.parametrize("system", ["Be", "brief.", "You are a pirate.", "Be brief. ", "User", "Be brief.<|eot_id|>"])
@pytest.mark.parametrize("template", ["bitnet", "instruct"])
def test_another_system_prompt_is_found(engine: Any, system: str, template: str) -> None:
    """Also one that is a part of the prompt."""
    chat: Any = bitnet.ChatSession(engine, "Be brief.", template=template, max_tokens=3)
    receipt = chat.send("hello").receipt
    assert engine.replay(receipt)
    if system.strip() == "Be brief.":  # both templates trim it: the same prompt
        assert engine.replay(forged(receipt, system=system))
        return
    with pytest.raises(bitnet.ReceiptError, match=r"gate 'claim\.system'"):
        engine.replay(forged(receipt, system=system))


def test_a_template_that_is_known_has_its_name(engine: Any) -> None:
    receipt: Any = bitnet.ChatSession(engine, "S", template="bitnet", max_tokens=3).send("hello").receipt
    template = receipt.to_dict()["claim"]["template"]
    with pytest.raises(bitnet.ReceiptError, match=r"gate 'claim\.template\.name'.*'bitnet'"):
        engine.replay(forged(receipt, template=template | {"name": "jinja"}))
    other: Any = bitnet.ChatSession(engine, "S", template="instruct", max_tokens=3).send("hello").receipt
    with pytest.raises(bitnet.ReceiptError, match=r"gate 'claim\.system'"):
        engine.replay(forged(receipt, template=other.to_dict()["claim"]["template"]))
    assert "claim.template" in engine._replay(receipt)[2]


HONEST = [
    [{"role": "system", "content": "S"}],
    [{"role": "system", "content": "S"}, {"role": "system", "content": "T"}, {"role": "user", "content": "U"}],
    [{"role": "system", "content": "S"}, {"role": "tool", "content": "3"}],
    [{"role": "system", "content": "S"}, {"role": "user", "content": ""}],
    [{"role": "system", "content": " S\n"}, {"role": "assistant", "content": "A"}, {"role": "user", "content": "U"}],
    [{"role": "system", "content": ""}, {"role": "user", "content": "U"}],
    [{"role": "system", "content": "  "}, {"role": "user", "content": "U"}],
    [{"role": "system", "content": "é\x1b<|eot_id|>\U0001f642"}, {"role": "user", "content": "U"}],
    [{"role": "user", "content": "U"}, {"role": "system", "content": "S"}],
]


@pytest.mark.parametrize("messages", HONEST, ids=range(len(HONEST)))
def test_honest_receipts_are_never_accused(engine: Any, messages: list[dict[str, str]]) -> None:
    """With each built-in template, with one that moves the system prompt and one that drops it."""
    moved = "{% for m in messages[1:] %}{{ m.content }};{% endfor %}{{ messages[0].content }}"
    dropped = "{% for m in messages %}{% if m.role != 'system' %}{{ m.content }};{% endif %}{% endfor %}."
    named = [bitnet.Template.named(name, "<|begin_of_text|>", "</s>") for name in NAMES]
    for template in [*named, bitnet.Template.from_jinja(moved), bitnet.Template.from_jinja(dropped)]:
        receipt = engine.chat(messages, template=template, max_tokens=2).receipt
        receipt.validate()
        assert engine.replay(receipt)


NAMES = ("raw", "instruct", "llama3-chat", "bitnet")


@pytest.mark.parametrize(
    ("name", "value"),
    [("architecture", "llama2"), ("bytes", 1), ("hidden_size", 1), ("num_attention_heads", 9), ("vocab_size", 10**6)],
)
def test_what_is_said_of_the_model_is_compared_with_it(engine: Any, tmp_path: Path, name: str, value: Any) -> None:
    document = engine.generate("hello", max_tokens=2).receipt.to_dict()
    document["model_info"][name] = value
    receipt = consistent(document)
    with pytest.raises(bitnet.ReceiptError, match=rf"gate 'model_info\.{name}'"):
        engine.replay(receipt)
    path = receipt.save(tmp_path / "forged.json")
    assert run("receipt", "verify", path).returncode == 0, "alone it adds up"
    done = run("receipt", "replay", path, "-m", engine.path)
    assert (done.returncode, done.stderr) == (1, "")
    assert f"{path}: different: receipt, gate 'model_info.{name}'" in done.stdout


def test_a_context_that_the_model_does_not_have_is_found(engine: Any, tmp_path: Path) -> None:
    receipt = forged(engine.generate("hello", max_tokens=2).receipt, n_ctx=10**6)
    with pytest.raises(bitnet.ReceiptError, match=r"gate 'claim\.n_ctx'"):
        engine.replay(receipt)
    done = run("receipt", "replay", receipt.save(tmp_path / "forged.json"), "-m", engine.path)
    assert (done.returncode, "gate 'claim.n_ctx'" in done.stdout) == (1, True)


def test_the_counts_of_a_redacted_receipt_cannot_lie(engine: Any) -> None:
    """Where the prompt is given, and for parts that are empty. The work of the kernels is forged with them."""
    whole = engine.generate("hello world", max_tokens=3).receipt
    document = whole.redact().to_dict()
    ids = whole.to_dict()["claim"]["prompt_ids"]
    document["claim"]["prompt_ids"]["count"] += 1
    layers = document["model_info"]["layers"]
    document["run"]["work"]["attention"] += layers
    document["run"]["work"]["ternary"] += 7 * layers
    lying = consistent(document)
    assert lying is not None
    with pytest.raises(bitnet.ReceiptError, match=r"gate 'claim\.prompt_ids'"):
        engine.replay(lying, ids)
    for stop in ({"count": 1, "blake3": document["claim"]["sampling"]["stop"]["blake3"]}, {"count": 0, "blake3": "0"}):
        document = whole.redact().to_dict()
        document["claim"]["sampling"]["stop"] = stop
        document["digest"] = bitnet.Receipt.from_json(json.dumps(document)).digest
        with pytest.raises(bitnet.ReceiptError, match=r"gate 'claim\.sampling\.stop'"):
            bitnet.Receipt.from_json(json.dumps(document)).validate()


@pytest.mark.parametrize("finish", ["cancelled", "context", "stop"])
def test_another_end_is_found(engine: Any, finish: str) -> None:
    document = engine.generate("hello", max_tokens=3).receipt.to_dict()
    document["claim"]["finish_reason"] = finish
    document["digest"] = bitnet.Receipt.from_json(json.dumps(document)).digest
    with pytest.raises(bitnet.ReceiptError, match=r"gate 'claim\.finish_reason'"):
        bitnet.Receipt.from_json(json.dumps(document)).validate()


def test_a_conversation_cannot_change_what_it_was_opened_with(engine: Any, tmp_path: Path) -> None:
    """`verify` compares each receipt with the one before it."""
    chat: Any = bitnet.ChatSession(engine, "Be brief.", template="bitnet", max_tokens=3)
    first, second = (chat.send(text).receipt for text in ("hello", "world"))
    paths = [first.save(tmp_path / "0.json"), second.save(tmp_path / "1.json")]
    assert run("receipt", "verify", *paths).returncode == 0
    assert run("receipt", "verify", first.redact().save(paths[0]), paths[1]).returncode == 0
    lying = forged(second, system="Be verbose.", n_ctx=100).save(tmp_path / "1.json")
    done = run("receipt", "verify", paths[0], lying, "--json")
    assert done.returncode == 1
    entry = json.loads(done.stdout)[1]
    assert (entry["valid"], entry["previous_differs"]) == (True, ["claim.n_ctx", "claim.system"])
    assert "claim" in entry["told"]
    assert (
        "but one conversation cannot change claim.n_ctx, claim.system"
        in run("receipt", "verify", paths[0], lying).stdout
    )
    other = forged(second, previous="00" * 32).save(tmp_path / "1.json")
    assert "is not among" in run("receipt", "verify", paths[0], other).stdout


LOAD = """
import resource, sys
import bitnet
base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    receipt = bitnet.Receipt.load(sys.argv[1])
    receipt.validate()
    receipt.redact()
except bitnet.ReceiptError as error:
    print(str(error)[:400])
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - base) * 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak memory in kB")
@pytest.mark.parametrize("kind", ["ids", "steps", "environment", "stop", "bias", "spaces", "text"])
def test_a_large_receipt_takes_a_bounded_memory_or_is_refused(engine: Any, tmp_path: Path, kind: str) -> None:
    """30 MB of each part that has no limit of its own."""
    document = engine.generate("hello", max_tokens=2).receipt.to_dict()
    count, indent = 15_000_000, None
    if kind == "ids":
        document["claim"]["prompt_ids"], indent = [100] * 1_900_000, 3
    elif kind == "steps":
        document["run"]["step_ns"] = [1] * count
    elif kind == "environment":
        document["environment"]["x"] = [[]] * (count // 2)
    elif kind == "stop":
        document["claim"]["sampling"]["stop"] = [""] * (count // 2)
    elif kind == "bias":
        document["claim"]["sampling"]["logit_bias"] = [[1, 1.0]] * (count // 5)
    elif kind == "text":
        document["claim"]["system"] = ",:[{" * (count // 2)
    path = tmp_path / "large.json"
    path.write_text(
        json.dumps(document, indent=indent, separators=(",", ":")) + " " * (30_000_000 * (kind == "spaces"))
    )
    size = path.stat().st_size
    assert size > 20_000_000
    done = subprocess.run([sys.executable, "-c", LOAD, str(path)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert int(done.stdout.splitlines()[-1]) < 10 * size
    expected = {"steps", "environment", "stop", "bias"}
    assert ("more than a receipt can have" in done.stdout) == (kind in expected)
    too_long = tmp_path / "too_long.json"
    with too_long.open("wb") as file:
        file.truncate(1 << 33)
    with pytest.raises(bitnet.ReceiptError, match=r"too_long.json: .*gate 'form'.*8589934592 bytes, more than"):
        bitnet.Receipt.load(too_long)
