"""Receipts: what they hold, how their gates fail, how they are replayed. Behaviours 28 to 33."""

from __future__ import annotations

import copy
import json
import os
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import blake3
import pytest

import bitnet
from gguf import GGUFReader

ROOT = Path(__file__).resolve().parent.parent
SAMPLED: dict[str, Any] = {"max_tokens": 12, "temperature": 0.7, "seed": 4, "ignore_eos": True}


@pytest.fixture
def receipt(engine: Any) -> Any:
    return engine.generate("hello world", **SAMPLED).receipt


def test_a_receipt_says_what_was_computed_and_how(engine: Any) -> None:
    """Behaviour 28."""
    answer = engine.generate("hello world", stop="never there", **SAMPLED)
    receipt = answer.receipt
    receipt.validate()
    document = receipt.to_dict()
    claim, run = document["claim"], document["run"]
    prompt = engine.encode("hello world", add_bos=True)
    assert claim["prompt_ids"] == prompt
    assert claim["output_ids"] == answer.token_ids
    assert (claim["finish_reason"], claim["previous"], claim["system"], claim["template"]) == (
        "length",
        None,
        None,
        None,
    )
    assert claim["sampling"]["temperature"] == 0.7
    assert (claim["sampling"]["seed"], claim["sampling"]["stop"]) == (4, ["never there"])
    assert (claim["kv_type"], claim["act_quant"], claim["numerics"]) == ("f16", "int8", 1)
    assert (run["isa"], run["threads"]) == (engine.isa, 2)
    assert (run["prompt_tokens"], run["cached_tokens"], run["completion_tokens"]) == (len(prompt), 0, 12)
    assert run["computed_tokens"] == len(prompt) + 12 - 1
    seconds = run["seconds"]
    assert all(seconds[name] > 0 for name in ("tokenize", "prefill", "first_token", "decode", "sample", "wall"))
    assert run["prefill_tokens_per_second"] == len(prompt) / seconds["prefill"]
    assert run["decode_tokens_per_second"] == 11 / seconds["decode"]
    assert receipt.seconds == seconds
    assert answer.ttft == seconds["first_token"]


def test_the_fields_of_schema_1_0_0_are_there(receipt: Any) -> None:
    """Behaviour 29."""
    document = receipt.to_dict()
    assert list(document) == [
        *["schema_version", "timestamp", "compute_path", "backend", "backend_summary", "kernels", "deterministic"],
        *["environment", "model_info", "test_results", "performance_baseline", "corrections"],
        *["claim", "run", "digest"],
    ]
    assert (document["schema_version"], document["compute_path"], document["backend"]) == ("1.0.0", "real", "cpu")
    assert document["timestamp"] == receipt.timestamp
    assert document["model_info"]["layers"] == 2
    assert document["performance_baseline"]["tokens_generated"] == 12
    assert document["deterministic"] is True


def test_kernels_and_compute_path_follow_the_counters(engine: Any, receipt: Any) -> None:
    """Behaviour 30: counted by the kernels, for this answer alone."""
    work = receipt.to_dict()["run"]["work"]
    times = {name: work.pop(f"{name}_ns") for name in ("ternary", "dense", "attention", "head")}
    assert all((work[name] > 0) == (times[name] > 0) for name in times)
    computed = receipt.computed_tokens
    logits = 12 * engine.n_vocab  # a head as small as this one is computed whole
    assert work == {"ternary": 2 * 7 * computed, "dense": 0, "attention": 2 * computed, "head": 12, "logits": logits}
    assert receipt.kernels == [f"{kernel}/{engine.isa}" for kernel in ("ternary", "attention", "head")]
    with bitnet.Engine(engine.path, act_quant="none", isa="scalar") as dense:
        answer = dense.generate("hello world", **SAMPLED)
        assert answer.receipt.kernels == ["dense/scalar", "attention/scalar", "head/scalar"]
        answer.receipt.validate()
    again = engine.generate("hello world", **SAMPLED).receipt
    again.validate()
    assert again.cached_tokens == again.prompt_tokens - 1
    assert again.to_dict()["run"]["work"]["attention"] == 2 * 12


def altered(document: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    changed = copy.deepcopy(document)
    *folders, last = path.split(".")
    inside = changed
    for folder in folders:
        inside = inside[folder]
    inside[last] = value(inside[last]) if callable(value) else value
    return changed


@pytest.mark.parametrize(
    ("path", "value", "gate"),
    [
        ("schema_version", "1.0.1", "schema_version"),
        ("compute_path", "mock", "compute_path"),
        ("backend", "cuda", "backend"),
        ("kernels", ["mock_kernel"], "kernels"),
        ("deterministic", False, "deterministic"),
        ("digest", "00" * 32, "digest"),
        ("corrections", [{"layer": 1}], "corrections"),
        ("performance_baseline.tokens_per_second", lambda x: x * 2, "performance_baseline.tokens_per_second"),
        ("claim.output_ids", lambda ids: [*ids[:-1], ids[-1] ^ 1], "digest"),
        ("claim.prompt_ids", lambda ids: [ids[0] ^ 1, *ids[1:]], "digest"),
        ("claim.prompt_ids", [], "claim.prompt_ids"),
        ("claim.output_ids", lambda ids: [*ids, 9999], "claim.output_ids"),
        ("claim.sampling.seed", 5, "digest"),
        ("claim.sampling.max_tokens", 11, "claim.finish_reason"),
        ("claim.finish_reason", "context", "claim.finish_reason"),
        ("claim.kv_type", "f32", "digest"),
        ("claim.unknown", 1, "claim.unknown"),
        ("run.threads", 3, "backend_summary"),
        ("run.cached_tokens", 1, "run.work.projections"),
        ("run.cached_tokens", 99, "run.cached_tokens"),
        ("run.computed_tokens", lambda n: n + 1, "run.computed_tokens"),
        ("run.completion_tokens", lambda n: n + 1, "run.completion_tokens"),
        ("run.decode_tokens_per_second", lambda x: x + 1, "run.decode_tokens_per_second"),
        ("run.work.ternary", lambda n: n - 1, "run.work.projections"),
        ("run.work.attention", lambda n: n + 1, "run.work.attention"),
        ("run.work.head", 0, "run.work.head"),
        ("run.work.logits", lambda n: n * 1000, "run.work.logits"),
        ("run.seconds.decode", lambda t: t + 1, "run.seconds.wall"),
        ("run.seconds.wall", 0.0, "run.seconds.wall"),
        ("run.seconds.prefill", lambda t: t + 1e-11, "run.seconds.prefill"),
        ("run.step_ns", lambda steps: [steps[0] + 1, *steps[1:]], "run.step_ns"),
        ("run.step_ns", lambda steps: [*steps, 0], "run.step_ns"),
        ("run.step_seconds.p95", lambda t: t + 1e-9, "run.step_seconds.p95"),
        ("run.work.ternary_ns", lambda n: n + 1, "run.between_kernels_seconds"),
        ("run.work.head_ns", lambda n: n + 10**12, "run.work.ns"),
        ("claim.tokenizer", "00" * 32, "digest"),
        ("claim.system", {"count": 2, "blake3": "00" * 32}, "digest"),
        ("run.seconds.first_token", 0.0, "run.seconds.first_token"),
        ("run.seconds.sample", -1.0, "run.seconds.sample"),
        ("model_info.layers", 3, "run.work.projections"),
        ("test_results.passed", 1, "test_results"),
    ],
)
def test_an_altered_receipt_is_caught_and_the_gate_named(receipt: Any, path: str, value: Any, gate: str) -> None:
    """Behaviour 30."""
    document = receipt.to_dict()
    if path == "claim.unknown":
        document["claim"]["unknown"] = 0
    changed = altered(document, path, value)
    with pytest.raises(bitnet.ReceiptError, match=f"gate '{gate}") as caught:
        bitnet.Receipt.from_json(json.dumps(changed)).validate()
    assert str(caught.value)


FREE = {"run.n_batch"}
"""Figures that nothing else in a receipt depends on."""


def figures(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of all numbers in a document."""
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, inside in items:
            yield from figures(inside, (*path, key))
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield path


def test_any_figure_of_claim_and_run_that_is_altered_is_caught(engine: Any) -> None:
    """By one, and where it is a time or a rate by its last digit too."""
    chat = bitnet.ChatSession(engine, "Be brief.", template="bitnet", logit_bias={3: 0.5}, **SAMPLED)
    chat.send("hello")
    document = chat.send("world").receipt.to_dict()
    paths = [path for path in figures(document) if path[0] in ("claim", "run", "performance_baseline")]
    assert len(paths) > 60
    free = set()
    for path in paths:
        *folders, last = path
        changed = copy.deepcopy(document)
        inside = changed
        for folder in folders:
            inside = inside[folder]
        value = inside[last]
        for other in [value + 1, max(value - 1, 0)] + ([value + 1e-9] if isinstance(value, float) else []):
            inside[last] = other
            if other == value:
                continue
            try:
                bitnet.Receipt.from_json(json.dumps(changed)).validate()
                free.add(".".join(map(str, path)))
            except bitnet.ReceiptError as error:
                assert "gate '" in str(error)
    assert free == FREE


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"claim": 1}', "null", "{", '{"timestamp": "x"}'])
def test_what_is_no_receipt_is_refused(text: str) -> None:
    with pytest.raises(bitnet.ReceiptError, match="gate 'form'"):
        bitnet.Receipt.from_json(text)


def test_saving_and_loading_gives_the_same_receipt(receipt: Any, tmp_path: Path) -> None:
    """Behaviour 31."""
    path = tmp_path / "new" / "folder" / "receipt.json"
    loaded = bitnet.Receipt.load(receipt.save(path))
    assert loaded == receipt
    loaded.validate()
    assert loaded.digest == receipt.digest
    assert [entry.name for entry in path.parent.iterdir()] == ["receipt.json"]
    tested = receipt.with_test_results(total_tests=3, passed=2, skipped=1)
    tested.validate()
    assert tested != receipt
    assert tested.digest == receipt.digest
    assert tested.to_dict()["test_results"] == {"total_tests": 3, "passed": 2, "failed": 0, "skipped": 1}
    assert receipt.to_dict()["test_results"]["total_tests"] == 0
    with pytest.raises(bitnet.ReceiptError, match="test_results"):
        receipt.with_test_results(total_tests=3, passed=4).validate()


def test_a_receipt_that_cannot_be_written_says_why(receipt: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        receipt.save(tmp_path / "file" / "receipt.json")
    with pytest.raises(OSError, match="receipts"):
        (tmp_path / "receipts").mkdir()
        receipt.save(tmp_path / "receipts")
    with pytest.raises(OSError, match="nowhere"):
        bitnet.Receipt.load(tmp_path / "nowhere.json")


def test_a_file_that_is_no_receipt_is_named(tmp_path: Path) -> None:
    path = tmp_path / "wrong.json"
    path.write_text("{}")
    with pytest.raises(bitnet.ReceiptError, match="receipt, gate 'form': ") as caught:
        bitnet.Receipt.load(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_everyone_may_read_a_saved_receipt(receipt: Any, tmp_path: Path) -> None:
    if os.name == "posix":
        path = receipt.save(tmp_path / "shared.json")
        assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_the_model_is_hashed_only_when_a_digest_is_first_read(text_model: Path, tmp_path: Path) -> None:
    """The file is read through the handle that the engine opened, so a replaced name changes nothing."""
    path = tmp_path / "model.gguf"
    path.write_bytes(text_model.read_bytes())
    with bitnet.Engine(path) as engine:
        receipt = engine.generate("hello", **SAMPLED).receipt
    assert receipt.cached_tokens == 0
    path.unlink()
    with bitnet.Engine(text_model) as engine:
        assert receipt.digest == engine.generate("hello", **SAMPLED).receipt.digest


def test_others_can_compute_the_digest_and_the_fingerprints(engine: Any) -> None:
    chat = bitnet.ChatSession(engine, "Naïve \U0001f642 \x01", template="bitnet", **{**SAMPLED, "stop": ["é"]})
    chat.send("hello")
    document = chat.send("world").receipt.to_dict()
    claim = document["claim"]

    def canonical(value: Any) -> bytes:
        return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()

    def hashed(part: Any) -> dict[str, Any]:
        return {"blake3": blake3.blake3(canonical(part)).hexdigest(), "count": len(part)}

    redacted = claim | {name: hashed(claim[name]) for name in ("prompt_ids", "output_ids", "system")}
    redacted["sampling"] = claim["sampling"] | {"stop": hashed(claim["sampling"]["stop"])}
    assert document["digest"] == blake3.blake3(canonical(redacted)).hexdigest()
    assert claim["model"] == blake3.blake3(engine.path.read_bytes()).hexdigest()
    assert claim["template"]["blake3"] == blake3.blake3(chat.template.source.encode()).hexdigest()


def test_others_can_compute_the_tokenizers_fingerprint(engine: Any, tmp_path: Path) -> None:
    """Of a GGUF's metadata, less the chat template; or of the `tokenizer.json` beside it."""

    def fingerprint(path: Path, prompt: Any) -> str | None:
        with bitnet.Engine(path) as other:
            found: str | None = other.generate(prompt, max_tokens=1).receipt.to_dict()["claim"]["tokenizer"]
            return found

    class Reader(GGUFReader):
        def _build_tensors(self, start_offs: int, fields: Any) -> None:
            """It knows nothing of I2_S."""

    fields = Reader(engine.path).fields
    names = sorted(n for n in fields if n.startswith("tokenizer.") and not n.startswith("tokenizer.chat_template"))
    entries = b"".join(part.tobytes() for name in names for part in fields[name].parts)
    assert fingerprint(engine.path, "hello") == blake3.blake3(entries).hexdigest()
    bare = tmp_path / "model.gguf"
    bare.write_bytes(engine.path.read_bytes().replace(b"tokenizer.ggml.model", b"tokenizer.ggml.lodem"))
    assert fingerprint(bare, [1]) is None
    beside = ROOT / "tests" / "fixtures" / "tokenizers" / "bytes" / "tokenizer.json"
    (tmp_path / "tokenizer.json").write_bytes(beside.read_bytes())
    assert fingerprint(bare, [1]) == blake3.blake3(beside.read_bytes()).hexdigest()


def test_the_digest_is_the_claims_alone(engine: Any, receipt: Any) -> None:
    """The same on every instruction set, thread count and chunking, cached or not; another claim has another."""
    for isa in bitnet.isas():
        with bitnet.Engine(engine.path, n_threads=1, isa=isa, n_batch=2) as other:
            for _ in range(2):
                assert other.generate("hello world", **SAMPLED).receipt.digest == receipt.digest
    assert engine.generate("hello world", **{**SAMPLED, "seed": 5}).receipt.digest != receipt.digest
    with bitnet.Engine(engine.path, kv_type="f32") as other:
        assert other.generate("hello world", **SAMPLED).receipt.digest != receipt.digest


def test_a_receipt_is_replayed_on_any_instruction_set(engine: Any, tmp_path: Path) -> None:
    """Behaviour 33."""
    sampled = [
        engine.generate("hello world", **SAMPLED),
        engine.generate("hello", max_tokens=9, temperature=1.3, top_k=20, min_p=0.01, logit_bias={3: 0.1, 5: -1e9}),
        engine.generate("hello", max_tokens=9, logit_bias={7: float("-inf")}, repetition_penalty=1.1),
        engine.generate("hello", max_tokens=40, temperature=1.0, seed=1, stop="a", frequency_penalty=0.1),
    ]
    stream = engine.stream("hello world", temperature=1.0)
    for _ in range(5):
        next(stream)
    stream.cancel()
    assert stream.receipt.finish_reason == "cancelled"
    paths = [
        receipt.save(tmp_path / f"{i}.json")
        for i, receipt in enumerate([*(a.receipt for a in sampled), stream.receipt])
    ]
    for isa in {bitnet.isas()[0], bitnet.isas()[-1]}:
        with bitnet.Engine(engine.path, n_threads=1, isa=isa, n_ctx=100) as other:
            for path in paths:
                receipt = bitnet.Receipt.load(path)
                receipt.validate()
                assert other.replay(receipt)


def test_a_forged_receipt_fails_its_replay(engine: Any) -> None:
    document = engine.generate("hello world", **SAMPLED).receipt.to_dict()
    for path, value in [
        ("claim.output_ids", lambda ids: [*ids[:-1], ids[-1] ^ 1]),
        ("claim.sampling.seed", 99),
        ("claim.sampling.stop_token_ids", lambda _: [document["claim"]["output_ids"][3]]),
    ]:
        assert not engine.replay(bitnet.Receipt.from_json(json.dumps(altered(document, path, value))))
    for path, value in [("claim.numerics", 2), ("claim.kv_type", "f32"), ("claim.model", "00" * 32)]:
        with pytest.raises(bitnet.ReceiptError, match=path):
            engine.replay(bitnet.Receipt.from_json(json.dumps(altered(document, path, value))))


def test_a_sampling_parameter_of_a_later_version_is_refused_by_name(engine: Any) -> None:
    """This version cannot compute such an answer again. A parameter that is missing has its default."""
    document = engine.generate("hello world", **SAMPLED).receipt.to_dict()
    sampling = document["claim"]["sampling"]
    later = bitnet.Receipt.from_json(json.dumps(altered(document, "claim.sampling", sampling | {"of_the_future": 0.5})))
    with pytest.raises(bitnet.ReceiptError, match=r"gate 'claim\.sampling\.of_the_future'"):
        later.validate()
    with pytest.raises(bitnet.ReceiptError, match="this version does not know of_the_future"):
        engine.replay(later)
    without = {name: value for name, value in sampling.items() if name != "min_p"}
    earlier = bitnet.Receipt.from_json(json.dumps(altered(document, "claim.sampling", without)))
    assert engine.replay(earlier)
    with pytest.raises(bitnet.ReceiptError, match=r"gate 'claim\.sampling\.min_p'"):
        earlier.validate()
    for name in ("seed", "temperature"):
        with pytest.raises(bitnet.ReceiptError, match=f"gate 'form'.*{name}"):
            bitnet.Receipt.from_json(json.dumps(altered(document, f"claim.sampling.{name}", None)))


def test_a_redacted_receipt_is_the_same_claim(engine: Any, tmp_path: Path) -> None:
    chat = bitnet.ChatSession(engine, "My secret system", template="bitnet", **{**SAMPLED, "stop": ["secret stop"]})
    chat.send("a secret question")
    receipt = chat.send("hello").receipt
    redacted = bitnet.Receipt.load(receipt.redact().save(tmp_path / "redacted.json"))
    redacted.validate()
    assert redacted.digest == receipt.digest == json.loads((tmp_path / "redacted.json").read_text())["digest"]
    assert redacted != receipt
    assert redacted.redact() == redacted
    assert (redacted.prompt_tokens, redacted.completion_tokens) == (receipt.prompt_tokens, receipt.completion_tokens)
    assert "secret" not in redacted.to_json()
    claim, whole = redacted.to_dict()["claim"], receipt.to_dict()["claim"]
    assert claim["prompt_ids"]["count"] == len(whole["prompt_ids"])
    assert (claim["system"]["count"], claim["sampling"]["stop"]["count"]) == (len("My secret system"), 1)

    assert engine.replay(redacted, whole["prompt_ids"])
    assert engine.replay_ids(redacted, prompt=whole["prompt_ids"]) == whole["output_ids"]
    with pytest.raises(bitnet.ReceiptError, match=r"claim.prompt_ids.*redacted; pass its prompt"):
        engine.replay(redacted)
    for given in (receipt, redacted):
        with pytest.raises(bitnet.ReceiptError, match="gate 'claim"):
            engine.replay(given, "another prompt")
    for path, value, gate in [
        ("claim.output_ids.count", 13, "claim.finish_reason"),
        ("claim.prompt_ids.count", 2**63, "claim.finish_reason"),
        ("claim.prompt_ids.blake3", "00" * 32, "digest"),
        ("claim.system.count", 1, "digest"),
        ("claim.prompt_ids.more", 1, "claim.prompt_ids.more"),
    ]:
        with pytest.raises(bitnet.ReceiptError, match=f"gate '{gate}"):
            bitnet.Receipt.from_json(json.dumps(altered(redacted.to_dict(), path, value))).validate()
    forged = altered(redacted.to_dict(), "claim.output_ids.blake3", "00" * 32)
    assert not engine.replay(bitnet.Receipt.from_json(json.dumps(forged)), whole["prompt_ids"])


def test_a_redacted_receipt_of_a_text_takes_the_text(engine: Any) -> None:
    """What ended it by a stop text that was left out is not looked for again."""
    whole = engine.generate("hello world", max_tokens=40, temperature=1.0, seed=1, stop=["a", "e"]).receipt
    assert whole.finish_reason == "stop"
    assert engine.replay(whole, "hello world")
    assert engine.replay(whole.redact(), "hello world")


def test_the_times_of_an_answer_are_apart_from_its_consumers(engine: Any) -> None:
    stream = engine.stream("hello world", **SAMPLED)
    for _ in stream:
        time.sleep(0.002)
    run = stream.receipt.to_dict()["run"]
    seconds, steps = run["seconds"], sorted(run["step_ns"])
    assert seconds["consumer"] >= 11 * 0.002
    assert run["elapsed_seconds"] == pytest.approx(seconds["wall"] + seconds["consumer"])
    assert seconds["decode"] == pytest.approx(sum(steps) / 1e9)
    assert run["step_seconds"] == {"p50": steps[5] / 1e9, "p95": steps[10] / 1e9, "max": steps[10] / 1e9}
    parts = sum(seconds[name] for name in ("render", "tokenize", "prefill", "decode", "sample", "detokenize"))
    assert run["other_seconds"] == pytest.approx(seconds["wall"] - parts, abs=1e-9)
    kernels = sum(run["work"][f"{name}_ns"] for name in ("ternary", "dense", "attention", "head")) / 1e9
    assert run["between_kernels_seconds"] == pytest.approx(seconds["prefill"] + seconds["decode"] - kernels)


def test_the_parts_of_a_time_add_up() -> None:
    """Within 2 % of a clock outside of the engine, on the model inside. The scalar kernels are so slow that what a pull
    itself costs does not count."""
    command = [
        sys.executable,
        str(ROOT / "benches" / "timings.py"),
        "--tokens",
        "32",
        "--repeats",
        "5",
        "--isa",
        "scalar",
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_ctrl_c_in_a_long_prefill_keeps_the_counts_true(text_model: Path) -> None:
    """An abandoned chunk counts for nothing; those before it are kept."""
    code = """
import signal, sys, bitnet
engine = bitnet.Engine(sys.argv[1], isa="scalar", n_threads=1, n_batch=8)
prompt = [65] * 250
stream = engine.stream(prompt, max_tokens=3, ignore_eos=True)
interrupts = 0
computing = False
def interrupt(*_):  # one that comes too late, after the answer, is no interrupt
    if computing:
        raise KeyboardInterrupt
signal.signal(signal.SIGALRM, interrupt)
signal.setitimer(signal.ITIMER_REAL, 0.06)
while stream.finish_reason is None:
    try:
        computing = True
        next(stream)
        computing = False
    except KeyboardInterrupt:
        computing = False
        interrupts += 1
        if interrupts < 3:
            signal.setitimer(signal.ITIMER_REAL, 0.06)
stream.receipt.validate()
with bitnet.Engine(sys.argv[1]) as other:
    print(interrupts, other.replay(stream.receipt))
"""
    done = subprocess.run([sys.executable, "-c", code, text_model], capture_output=True, text=True, timeout=120)
    assert done.stdout.endswith(" True\n"), done.stderr
