"""`bitnet receipt` in a process of its own, and the JSON Schema of receipts."""

from __future__ import annotations

import copy
import json
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

import bitnet
from bitnet import cli
from test_cli import run

SAMPLED: dict[str, Any] = {"max_tokens": 9, "temperature": 0.8, "seed": 3, "ignore_eos": True}


@pytest.fixture
def chain(engine: Any, tmp_path: Path) -> list[Path]:
    """Files with the receipts of a conversation; the second answer was cancelled."""
    chat = bitnet.ChatSession(engine, "Be brief.", template="bitnet", **SAMPLED)
    chat.send("hello")
    stream = chat.stream("hello world", stop="never there")
    for _ in range(4):
        next(stream)
    stream.cancel()
    chat.send("world")
    assert [receipt.finish_reason for receipt in chat.receipts] == ["length", "cancelled", "length"]
    return [receipt.save(tmp_path / f"{i}.json") for i, receipt in enumerate(chat.receipts)]


def alter(path: Path, block: str, name: str, value: Any) -> Path:
    """Copy a receipt with one field changed. Returns the new file."""
    document = json.loads(path.read_text())
    document[block][name] = value
    altered = path.with_name(f"altered-{path.name}")
    altered.write_text(json.dumps(document))
    return altered


def test_verify_checks_each_receipt_and_the_chain(chain: list[Path]) -> None:
    done = run("receipt", "verify", *chain)
    assert (done.returncode, done.stderr) == (0, "")
    digests = [bitnet.Receipt.load(path).digest for path in chain]
    assert done.stdout.splitlines() == [
        f"{chain[0]}: valid, {digests[0]}",
        f"{chain[1]}: valid, {digests[1]}, follows {chain[0]}",
        f"{chain[2]}: valid, {digests[2]}, follows {chain[1]}",
        "Valid: the figures agree and the digest is right, which finds accidents. Everything is told, not proven, "
        "until `bitnet receipt replay` computes the answer again.",
    ]
    assert run("receipt", "verify", chain[2]).returncode == 0
    assert run("receipt", "verify", *reversed(chain), chain[2]).returncode == 0
    gap = run("receipt", "verify", chain[0], chain[2])
    assert gap.returncode == 1
    assert f"the receipt before it, {digests[1]}, is not among" in gap.stdout


def test_verify_names_the_gate(chain: list[Path]) -> None:
    cached = bitnet.Receipt.load(chain[1]).cached_tokens
    altered = alter(chain[1], "run", "cached_tokens", cached + 1)
    done = run("receipt", "verify", chain[0], altered, chain[2])
    assert done.returncode == 1
    assert f"{altered}: not valid: receipt, gate 'run.work.projections'" in done.stdout
    assert f"{chain[2]}: valid" in done.stdout, "the others are checked all the same"
    assert "is not among the valid files" in done.stdout
    no_receipt = chain[0].with_name("no.json")
    no_receipt.write_text("{}")
    assert f"{no_receipt}: not valid: receipt, gate 'form'" in run("receipt", "verify", no_receipt).stdout
    missing = run("receipt", "verify", chain[0].with_name("nowhere.json"))
    assert (missing.returncode, missing.stdout) == (2, "")
    assert "nowhere.json" in missing.stderr


def test_replay_computes_again_on_other_instructions_and_threads(chain: list[Path], engine: Any) -> None:
    """Behaviour 33. The receipts were written with two threads and the best instruction set."""
    done = run("receipt", "replay", *chain, "--model", engine.path, "--isa", "scalar", "--threads", "1")
    assert (done.returncode, done.stderr) == (0, "")
    counts = [bitnet.Receipt.load(path).completion_tokens for path in chain]
    assert counts == [9, 4, 9]
    told = [
        f"  told, not proven: claim.previous, claim.template, claim.n_ctx, claim.sampling, {cut}claim.finish_reason, "
        "run, timestamp, environment, model_info.file, test_results"
        for cut in ("", "claim.output_ids, ", "")  # the second was cancelled
    ]
    lines = [f"{path}: same; {count} ids on scalar, threads 1" for path, count in zip(chain, counts, strict=True)]
    assert done.stdout.splitlines() == [line for pair in zip(lines, told, strict=True) for line in pair]


def forged(path: Path, changes: dict[str, Any], sampling: dict[str, Any]) -> Path:
    """Copy a receipt with other claims for the same ids, and a digest computed anew, as a forger would."""
    document = json.loads(path.read_text())
    document["claim"] |= changes
    document["claim"]["sampling"] |= sampling
    document["digest"] = bitnet.Receipt.from_json(json.dumps(document)).digest
    forgery = path.with_name("forged.json")
    forgery.write_text(json.dumps(document))
    bitnet.Receipt.load(forgery).validate()
    return forgery


def test_replay_finds_forgery_and_says_where(chain: list[Path], engine: Any) -> None:
    forgery = forged(chain[0], {}, {"seed": 4})
    assert run("receipt", "verify", forgery).returncode == 0
    done = run("receipt", "replay", chain[0], forgery, "--model", engine.path)
    assert done.returncode == 1
    assert f"{chain[0]}: same" in done.stdout
    receipt = bitnet.Receipt.load(forgery)
    claimed, found = receipt.to_dict()["claim"]["output_ids"], engine.replay_ids(receipt)
    at = next(i for i in range(9) if claimed[i] != found[i])
    assert f"{forgery}: different from index {at} on: {claimed[at]} | {found[at]}" in done.stdout
    forgery = forged(chain[0], {"finish_reason": "stop"}, {"stop": ["never there"]})
    done = run("receipt", "replay", forgery, "--model", engine.path)
    assert done.returncode == 1
    assert "the ids are the same, but the answer does not end with 'stop'" in done.stdout


def test_replay_refuses_by_name(chain: list[Path], engine: Any) -> None:
    other = run("receipt", "replay", chain[0])
    assert other.returncode == 2
    assert other.stderr.startswith(f"bitnet: {chain[0]}: the receipt is of another model (")
    altered = alter(chain[0], "claim", "finish_reason", "stop")
    invalid = run("receipt", "replay", altered, "--model", engine.path)
    assert (invalid.returncode, "not valid" in invalid.stdout) == (1, True)


def test_replay_of_a_redacted_receipt_asks_for_the_prompt(engine: Any, tmp_path: Path) -> None:
    whole = engine.generate("hello world", **SAMPLED).receipt
    path = whole.redact().save(tmp_path / "redacted.json")
    arguments = ["receipt", "replay", path, "--model", engine.path]
    assert run("receipt", "verify", path).returncode == 0
    done = run(*arguments)
    assert done.returncode == 2
    assert done.stderr == (
        f"bitnet: {path}: the receipt is redacted and does not hold its prompt; "
        "give it with -p TEXT or --prompt-ids IDS\n"
    )
    other = run("receipt", "replay", path, "--prompt", "hello world")
    assert other.returncode == 2
    assert other.stderr.startswith(f"bitnet: {path}: the receipt is of another model (")
    assert "name its model with -m" in other.stderr
    assert run(*arguments, "--prompt", "hello world").stdout.startswith(f"{path}: same")
    ids = " ".join(map(str, whole.to_dict()["claim"]["prompt_ids"]))
    assert run(*arguments, "--prompt-ids", ids).returncode == 0
    assert "not the receipt's prompt" in run(*arguments, "--prompt", "hello").stderr
    assert "expected token ids" in run(*arguments, "--prompt-ids", "a").stderr


def test_diff_tells_claims_from_runs(chain: list[Path], engine: Any, tmp_path: Path) -> None:
    first, second = (engine.generate("hello", **SAMPLED).receipt.save(tmp_path / name) for name in ("a", "b"))
    done = run("receipt", "diff", first, second)
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert lines[0] == "the claims are the same"
    assert any(line.startswith("  run.seconds.wall: ") for line in lines)
    assert not any("claim." in line for line in lines)
    done = run("receipt", "diff", chain[0], chain[2])
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    claims = [i for i, line in enumerate(lines) if line.startswith("  claim.")]
    assert (lines[0], claims) == ("the claims differ", list(range(1, len(claims) + 1))), "claims come first"
    previous = bitnet.Receipt.load(chain[1]).digest
    assert f'  claim.previous: null | "{previous}"' in lines
    redacted = bitnet.Receipt.load(chain[0]).redact().save(tmp_path / "redacted.json")
    done = run("receipt", "diff", chain[0], redacted)
    assert (done.returncode, done.stdout) == (0, "the claims are the same\n")
    assert run("receipt", "diff", chain[0], tmp_path / "nowhere").returncode == 2


def test_show_is_for_people(chain: list[Path]) -> None:
    done = run("receipt", "show", *chain)
    assert done.returncode == 0
    receipt = bitnet.Receipt.load(chain[0])
    for fact in (receipt.digest, "threads 2", "seed 3", '"Be brief."', "9 generated", "p95", "attention", ", valid"):
        assert fact in done.stdout
    altered = alter(chain[0], "claim", "kv_type", "f32")
    done = run("receipt", "show", altered)
    assert done.returncode == 1
    assert "not valid: receipt, gate 'digest'" in done.stdout
    redacted = receipt.redact().save(chain[0].with_name("redacted.json"))
    assert "redacted" in run("receipt", "show", redacted).stdout


def rows(shown: str) -> dict[str, str]:
    """The rows of `bitnet receipt show` that are one line."""
    return {line.split()[0]: line.partition(" ")[2].strip() for line in shown.splitlines() if line[:1].strip()}


def test_show_has_the_texts_if_the_model_is_at_hand(chain: list[Path], engine: Any, tmp_path: Path) -> None:
    """The model inside is at hand; another one is given. A receipt of another model has no texts."""
    with bitnet.Engine() as trit:
        answer = bitnet.ChatSession(trit).send("What is 2+2?")
    path = answer.receipt.save(tmp_path / "trit.json") if answer.receipt else tmp_path
    for model in ([], ["-m", "trit"]):
        done = run("receipt", "show", path, *model)
        assert (done.returncode, done.stderr) == (0, "")
        assert rows(done.stdout)["prompt"] == "<|begin_of_text|>User: What is 2+2?<|eot_id|>Assistant:"
        assert rows(done.stdout)["answer"] == "2+2=4."
    other = run("receipt", "show", path, "-m", engine.path)
    assert (other.returncode, "answer" in rows(other.stdout)) == (0, False)
    assert other.stderr == f"bitnet: {path}: the receipt is not of this model; its texts are not shown\n"
    without = run("receipt", "show", chain[0])
    assert ("answer" in rows(without.stdout), without.stderr) == (False, "")
    assert "hello" in rows(run("receipt", "show", chain[0], "-m", engine.path).stdout)["prompt"]


def test_show_leaves_out_what_is_a_default(engine: Any, tmp_path: Path) -> None:
    """With the model, whose own stop ids are a default too."""

    def shown(**sampling: Any) -> str:
        path = engine.generate("hello", **sampling).receipt.save(tmp_path / "receipt.json")
        return rows(run("receipt", "show", path, "-m", engine.path).stdout)["sampling"]

    assert shown(max_tokens=3) == "max_tokens 3"
    assert shown(max_tokens=3, temperature=0.5, seed=7, top_k=9) == "temperature 0.5, top_k 9, seed 7, max_tokens 3"


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of all values in a document that hold no others."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    empty = True
    for key, inside in items:
        empty = False
        yield from leaves(inside, (*path, key))
    if empty:
        yield path


def test_a_model_in_place_of_a_receipt_is_named(engine: Any) -> None:
    done = run("receipt", "replay", engine.path)
    assert done.returncode == 2
    assert done.stderr.endswith("is a model, not a receipt; name the model with --model\n")


def test_receipts_follow_their_json_schema(chain: list[Path], engine: Any) -> None:
    schema = bitnet.receipt_schema()
    Draft202012Validator.check_schema(schema)
    validator = Draft202012Validator(schema)
    bias = {3: 0.5, 4: float("-inf")}
    with bitnet.Engine(engine.path, act_quant="none", kv_type="f32", n_threads=1) as dense:
        others = [
            dense.generate([1, 2], max_tokens=1, logit_bias=bias).receipt,
            engine.generate([1], **SAMPLED).receipt,
        ]
    fixtures = Path(__file__).parent / "fixtures"
    for name, act_quant in (("llama-q2-g64", "int16"), ("llama-q2-g64", "int8"), ("gemma3-window", "auto")):
        with bitnet.Engine(fixtures / f"{name}.gguf", act_quant=act_quant, n_threads=1) as other:
            others.append(other.generate([1, 2], max_tokens=1).receipt)
    receipts = [*map(bitnet.Receipt.load, chain), *others]
    for receipt in [*receipts, *(receipt.redact() for receipt in receipts)]:
        validator.validate(receipt.to_dict())


def test_the_json_schema_leaves_nothing_open(chain: list[Path]) -> None:
    """The schema refuses a receipt if a field is missing, unknown or of another type."""
    validator = Draft202012Validator(bitnet.receipt_schema())
    whole = bitnet.Receipt.load(chain[1])
    for document in (whole.to_dict(), whole.redact().to_dict()):
        for path in leaves(document):
            *folders, last = path
            for change in ("type", "missing", "foreign"):
                changed = copy.deepcopy(document)
                inside = changed
                for folder in folders:
                    inside = inside[folder]
                if change == "type":
                    inside[last] = {"no": "leaf"}
                elif isinstance(inside, list):
                    continue
                elif change == "missing":
                    del inside[last]
                else:
                    inside["foreign"] = inside[last]
                assert not validator.is_valid(changed), (path, change)


def test_redact_copies_what_is_valid_without_its_texts(chain: list[Path]) -> None:
    output = chain[0].with_name("folder") / "redacted.json"
    receipt = bitnet.Receipt.load(chain[1])
    done = run("receipt", "redact", chain[1], output)
    assert (done.stdout, done.stderr, done.returncode) == (f"{output}: {receipt.digest}\n", "", 0)
    copied = bitnet.Receipt.load(output)
    assert copied == receipt.redact()
    assert "never there" in chain[1].read_text()
    assert "never there" not in output.read_text()
    altered = alter(chain[0], "run", "cached_tokens", 99)
    done = run("receipt", "redact", altered, output)
    assert ("not valid" in done.stdout, done.returncode) == (True, 1)
    assert bitnet.Receipt.load(output) == copied, "what was there stays"


# -- Folders ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(chain: list[Path], engine: Any) -> Path:
    """A folder with four right receipts, one of another cache type."""
    folder = chain[0].parent / "receipts"
    folder.mkdir()
    for i, path in enumerate(chain):
        path.rename(folder / f"{i}.json")
    with bitnet.Engine(engine.path, kv_type="f32", n_threads=1) as other:
        other.generate([1, 2], **SAMPLED).receipt.save(folder / "3.json")
    (folder / "notes.txt").write_text("not a receipt")
    return folder


def test_replay_of_a_folder_ends_with_a_summary(folder: Path, engine: Any) -> None:
    done = run("receipt", "replay", folder, "--model", engine.path)
    assert (done.returncode, done.stderr) == (0, "")
    summary, told = done.stdout.splitlines()
    assert re.fullmatch(r"4 of 4 receipts are right; 31 ids in \d+\.\d s, \d+ ids/s", summary)
    assert told.startswith("told, not proven: claim.previous, ")


def test_replay_of_a_folder_says_which_are_wrong_and_why(folder: Path, engine: Any) -> None:
    forged(folder / "0.json", {}, {"seed": 4}).rename(folder / "4.json")
    alter(folder / "1.json", "claim", "finish_reason", "stop").rename(folder / "5.json")
    with bitnet.Engine(n_threads=1) as trit:
        trit.generate([1, 2], max_tokens=2).receipt.save(folder / "6.json")
    engine.generate("hello", **SAMPLED).receipt.redact().save(folder / "7.json")
    done = run("receipt", "replay", folder, "--model", engine.path)
    assert (done.returncode, done.stderr) == (1, "")
    lines = done.stdout.splitlines()
    assert [line.split(": ")[0] for line in lines[:4]] == [str(folder / f"{i}.json") for i in (4, 5, 6, 7)]
    assert re.search(r"4\.json: different from index \d on: \d+ \| \d+; 9 ids on", lines[0])
    assert "5.json: not valid: " in lines[1]
    assert "6.json: not replayed: the receipt is of another model" in lines[2]
    assert "7.json: not replayed: the receipt is redacted" in lines[3]
    assert lines[4].startswith("4 of 8 receipts are right, 1 different, 1 not valid, 2 not replayed; ")

    entries = json.loads(run("receipt", "replay", folder, "--model", engine.path, "--json").stdout)
    assert [entry.get("same") for entry in entries] == [True, True, True, True, False, None, None, None]
    for wrong in (4, 5):
        (folder / f"{wrong}.json").unlink()
    done = run("receipt", "replay", folder, "--model", engine.path)
    assert (done.returncode, len(done.stdout.splitlines())) == (2, 4)


def test_replay_of_a_folder_without_receipts_fails(tmp_path: Path) -> None:
    done = run("receipt", "replay", tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "the folder holds no receipts" in done.stderr


def test_ctrl_c_prints_what_was_found(folder: Path, engine: Any, monkeypatch: Any, capsys: Any) -> None:
    """The first replay is done when the signal comes."""

    class Interrupted:
        """An engine whose second replay does not end."""

        def __init__(self, path: Any, **options: Any) -> None:
            self.engine = bitnet.Engine(path, **options)

        def __enter__(self) -> Any:
            return self

        def __exit__(self, *_: object) -> None:
            self.engine.close()

        def __getattr__(self, name: str) -> Any:
            return getattr(self.engine, name)

        def _replay_each(self, receipts: list[Any], prompts: Any, report: Any) -> None:
            self.engine._replay_each(receipts[:1], prompts, report)
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr("bitnet.cli._replay.Engine", Interrupted)
    assert cli.main(["receipt", "replay", str(folder), "--model", str(engine.path)]) == 130
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("1 of 4 receipts are right, 3 left out; ")
