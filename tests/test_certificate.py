"""Certificates of evaluations: canonical JSON, the tree, every change that is found, the arithmetic of samples."""

from __future__ import annotations

import hashlib
import itertools
import json
import shutil
import struct
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

import bitnet
from bitnet._canonical import canonical, parse, tree_hash
from bitnet.certificate import Certificate, Problem, ScoreReceipt, Verification, chance_to_miss, most_wrong
from conftest import ROOT
from test_cli import run

OLD = ROOT / "tests" / "data" / "certificate"


@pytest.fixture(scope="module")
def trit() -> Iterator[bitnet.Engine]:
    """The model inside, open."""
    with bitnet.Engine(n_threads=1) as engine:
        yield engine


@pytest.fixture(scope="module")
def receipts(trit: bitnet.Engine) -> dict[str, Any]:
    """Receipts of answers and of scores, by name; the names are not in order."""
    found: dict[str, Any] = {}
    for i in (2, 0, 1):
        found[f"answer/{i}"] = trit.generate(trit.encode(f"{i}+{i}="), max_tokens=3, seed=0, ignore_eos=True).receipt
        found[f"score/{i}"] = ScoreReceipt.of(trit, trit.encode(f"{i}+{i}="), trit.encode(f"{2 * i}"))
    return found


@pytest.fixture
def made(receipts: dict[str, Any], tmp_path: Path) -> Path:
    """A certificate of them; its receipts lie in `receipts` beside it."""
    certificate = Certificate.make(receipts, tmp_path / "receipts", made={"tasks": ["sums"]}, results={"acc": 0.5})
    return certificate.save(tmp_path / "certificate.json")


# -- Canonical JSON and the tree, against independent computations ----------------------------------------------------

NUMBERS = {  # RFC 8785, appendix B: the bits of a binary64 number, and how it is written
    "0000000000000000": "0",
    "8000000000000000": "0",
    "0000000000000001": "5e-324",
    "8000000000000001": "-5e-324",
    "7fefffffffffffff": "1.7976931348623157e+308",
    "ffefffffffffffff": "-1.7976931348623157e+308",
    "4340000000000000": "9007199254740992",
    "c340000000000000": "-9007199254740992",
    "4430000000000000": "295147905179352830000",
    "44b52d02c7e14af5": "9.999999999999997e+22",
    "44b52d02c7e14af6": "1e+23",
    "44b52d02c7e14af7": "1.0000000000000001e+23",
    "444b1ae4d6e2ef4e": "999999999999999700000",
    "444b1ae4d6e2ef4f": "999999999999999900000",
    "444b1ae4d6e2ef50": "1e+21",
    "3eb0c6f7a0b5ed8c": "9.999999999999997e-7",
    "3eb0c6f7a0b5ed8d": "0.000001",
    "41b3de4355555553": "333333333.3333332",
    "41b3de4355555554": "333333333.33333325",
    "41b3de4355555555": "333333333.3333333",
    "41b3de4355555556": "333333333.3333334",
    "41b3de4355555557": "333333333.33333343",
    "becbf647612f3696": "-0.0000033333333333333333",
    "43143ff3c1cb0959": "1424953923781206.2",
}


def test_numbers_are_written_as_rfc_8785_says() -> None:
    for bits, text in NUMBERS.items():
        assert canonical(struct.unpack(">d", bytes.fromhex(bits))[0]).decode() == text


def test_canonical_json_of_the_examples_in_rfc_8785() -> None:
    value = json.loads(
        '{"numbers":[333333333.33333329,1E30,4.50,2e-3,0.000000000000000000000000001],'
        '"string":"\\u20ac$\\u000F\\u000aA\'\\u0042\\u0022\\u005c\\\\\\"\\/","literals":[null,true,false]}'
    )
    assert canonical(value).decode() == (
        '{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],'
        '"string":"€$\\u000f\\nA\'B\\"\\\\\\\\\\"/"}'
    )
    names = ["\u20ac", "\r", "\ufb33", "1", "\U0001f600", "\x80", "\xf6"]
    ordered = ["\r", "1", "\x80", "\xf6", "\u20ac", "\U0001f600", "\ufb33"]  # by UTF-16 code units
    assert list(json.loads(canonical(dict.fromkeys(names)))) == ordered


DEEP = json.loads("[" * 400 + "]" * 400)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 2**53, "\ud800", {1: 2}, {"a": {3}}, DEEP])
def test_what_has_no_canonical_json(value: Any) -> None:
    with pytest.raises(ValueError):
        canonical(value)


@pytest.mark.parametrize("text", ['{"a":1,"a":1}', "NaN", "[" * 10**5, "[" * 102 + "]" * 102, "{"])
def test_what_is_not_read_as_json(text: str) -> None:
    with pytest.raises(ValueError):
        parse(text)


def rfc_6962(leaves: list[bytes]) -> bytes:
    """The Merkle tree hash as RFC 6962, section 2.1, defines it, by recursion."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return hashlib.sha256(b"\x00" + leaves[0]).digest()
    k = 1
    while 2 * k < len(leaves):
        k *= 2
    return hashlib.sha256(b"\x01" + rfc_6962(leaves[:k]) + rfc_6962(leaves[k:])).digest()


def test_the_tree_is_that_of_rfc_6962() -> None:
    for count in range(70):
        leaves = [b"%d" % i for i in range(count)]
        assert tree_hash(leaves) == rfc_6962(leaves).hex()
    # The test vectors of Certificate Transparency's reference implementation.
    inputs = [bytes.fromhex(text) for text in ("", "00", "10", "2021", "3031", "40414243")]
    inputs += [bytes.fromhex(text) for text in ("5051525354555657", "606162636465666768696a6b6c6d6e6f")]
    assert tree_hash(inputs[:1]) == "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"
    assert tree_hash(inputs[:3]) == "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77"
    assert tree_hash(inputs) == "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"
    # Leaves and inner nodes cannot take each other's place.
    pair = hashlib.sha256(b"\0a").digest() + hashlib.sha256(b"\0b").digest()
    assert tree_hash([pair]) != tree_hash([b"a", b"b"])


# -- The certificate --------------------------------------------------------------------------------------------------


def test_the_root_is_that_of_the_leaves_in_the_order_of_the_names(receipts: dict[str, Any], made: Path) -> None:
    """Computed here from the receipts alone, as docs/receipts.md describes it."""
    leaves = []
    for name in ("answer/0", "answer/1", "answer/2", "score/0", "score/1", "score/2"):
        receipt = receipts[name]
        if name.startswith("score"):
            claim = json.dumps(receipt.claim, sort_keys=True, separators=(",", ":"))  # whole numbers and ASCII only
            assert receipt.digest == hashlib.sha256(claim.encode()).hexdigest()
        kind = name.split("/")[0]
        leaves.append(f'{{"digest":"{receipt.digest}","kind":"{kind}","name":"{name}"}}'.encode())
    certificate = Certificate.load(made)
    assert certificate.root == rfc_6962(leaves).hex()
    assert (certificate.count, certificate.results) == (6, {"acc": 0.5})
    listed = made.parent / "receipts" / certificate.predicate["receipts"]["leaves"]
    assert listed.read_bytes() == b"".join(leaf + b"\n" for leaf in leaves)


def test_it_is_an_in_toto_statement(made: Path, trit: bitnet.Engine) -> None:
    document = json.loads(made.read_text())
    assert document["_type"] == "https://in-toto.io/Statement/v1"
    assert [subject["name"] for subject in document["subject"]] == ["receipts", "predicate"]
    own = hashlib.sha256(canonical(document["predicate"])).hexdigest()
    assert document["subject"][1]["digest"] == {"sha256": own}
    receipt: Any = trit.generate([0], max_tokens=1).receipt
    claim = receipt.to_dict()["claim"]
    assert document["predicate"]["model"]["blake3"] == claim["model"]
    assert document["predicate"]["receipts"] | {"leaves": ""} == {
        "count": 6, "answers": 3, "scores": 3, "folder": "receipts", "leaves": "",
    }  # fmt: skip
    assert Certificate.load(made).settings == {
        name: claim[name]
        for name in ("numerics", "model", "tokenizer", "act_quant", "ffn_act", "kv_type", "n_ctx")
    }  # fmt: skip


def test_it_verifies_and_replays(made: Path, trit: bitnet.Engine) -> None:
    certificate = Certificate.load(made)
    found = certificate.verify(engine=trit)
    assert (found.ok, found.count, found.replayed, found.seed) == (True, 6, 6, None)
    moved = shutil.copytree(made.parent / "receipts", made.parent / "elsewhere")
    assert certificate.verify(moved).replayed == 0
    assert certificate.verify(moved, trit, count=2, seed=1) == certificate.verify(moved, trit, count=2, seed="1")
    assert certificate.verify(moved, trit, share=0.5).replayed == 3


def test_scores_are_those_of_the_engine(trit: bitnet.Engine) -> None:
    context, continuation = trit.encode("1+1="), trit.encode("2, 3")
    receipt = ScoreReceipt.of(trit, context, continuation)
    scores = trit.score(context, [continuation])
    bits = [scores.logprobs.astype(">f4").tobytes().hex(), scores.token_logprobs[0].astype(">f4").tobytes().hex()]
    assert [receipt.claim["logprob"], receipt.claim["token_logprobs"]] == bits
    assert (receipt.logprob, receipt.is_greedy) == (float(scores.logprobs[0]), bool(scores.is_greedy[0]))
    receipt.validate()
    with (
        bitnet.Engine(n_threads=1, kv_type="f32") as other,
        pytest.raises(bitnet.ReceiptError, match=r"claim\.kv_type"),
    ):
        receipt.replay(other)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("logprob", "c0000000"),
        ("logprob", "C0000000"),
        ("token_logprobs", ""),
        ("token_logprobs", 7),
        ("is_greedy", 1),
        ("context_ids", []),
        ("context_ids", [True]),
        ("context_ids", [-1]),
        ("continuation_ids", "1"),
        ("n_ctx", [384]),
        ("model", None),
        ("other", 1),
        ("token_logprobs", "7f7fffff7f7fffff"),
    ],
)
def test_a_score_that_does_not_add_up(receipts: dict[str, Any], name: str, value: Any) -> None:
    score = receipts["score/1"]
    ids = {"continuation_ids": [1, 2]} if value == "7f7fffff7f7fffff" else {}
    with pytest.raises(bitnet.ReceiptError, match="gate"):
        ScoreReceipt(score.claim | ids | {name: value}, "", "").validate()


# -- Every change is found --------------------------------------------------------------------------------------------


def lines_of(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def write_lines(path: Path, values: list[Any]) -> None:
    path.write_text("".join(json.dumps(value, separators=(",", ":"), sort_keys=True) + "\n" for value in values))


def change_answer(folder: Path, leaves: Path, certificate: Path) -> None:
    """Another id, and a digest that agrees with it, as a forger would do it."""
    path = folder / "receipts.jsonl"
    records = lines_of(path)
    (record,) = (one for one in records if one["name"] == "answer/1")
    record["receipt"]["claim"]["output_ids"][0] += 1
    write_lines(path, records)


def change_score(folder: Path, leaves: Path, certificate: Path) -> None:
    path = folder / "receipts.jsonl"
    records = lines_of(path)
    (record,) = (one for one in records if one["name"] == "score/1")
    claim = record["score"]["claim"]
    claim["logprob"] = claim["token_logprobs"] = "bf800000" * len(claim["continuation_ids"])
    write_lines(path, records)


def swap_records(folder: Path, leaves: Path, certificate: Path) -> None:
    path = folder / "receipts.jsonl"
    records = lines_of(path)
    one, other = (next(one for one in records if one["name"] == name) for name in ("answer/1", "answer/2"))
    one["name"], other["name"] = other["name"], one["name"]
    write_lines(path, records)


def remove_record(folder: Path, leaves: Path, certificate: Path) -> None:
    path = folder / "receipts.jsonl"
    write_lines(path, [one for one in lines_of(path) if one["name"] != "answer/1"])


def swap_leaves(folder: Path, leaves: Path, certificate: Path) -> None:
    found = lines_of(leaves)
    write_lines(leaves, [found[0], found[2], found[1], *found[3:]])


def repeat_leaf(folder: Path, leaves: Path, certificate: Path) -> None:
    found = lines_of(leaves)
    write_lines(leaves, [*found[:2], *found[1:]])


def remove_leaf(folder: Path, leaves: Path, certificate: Path) -> None:
    write_lines(leaves, [one for one in lines_of(leaves) if one["name"] != "answer/1"])


def spoil_leaf(folder: Path, leaves: Path, certificate: Path) -> None:
    leaves.write_text(leaves.read_text().replace('{"digest"', '{ "digest"', 1))


def change_certificate(*path: Any, value: Any) -> Callable[[Path, Path, Path], None]:
    def change(folder: Path, leaves: Path, certificate: Path) -> None:
        document = part = json.loads(certificate.read_text())
        for key in path[:-1]:
            part = part[key]
        part[path[-1]] = value
        certificate.write_text(json.dumps(document))

    return change


CHANGES: dict[str, tuple[Callable[[Path, Path, Path], None], str | None, str]] = {
    "answer": (change_answer, "answer/1", "it was altered"),
    "score": (change_score, "score/1", "it was altered"),
    "swapped records": (swap_records, "answer/2", "it was altered: its digest is"),
    "removed record": (remove_record, "answer/1", "it is not in"),
    "swapped leaves": (swap_leaves, "answer/1", "not in the order of the names"),
    "repeated leaf": (repeat_leaf, "answer/1", "it is listed twice"),
    "removed leaf": (remove_leaf, None, "lists 5 receipts, but the certificate counts 6"),
    "spoiled leaf": (spoil_leaf, None, "line 1 is not a leaf"),
    "root": (
        change_certificate("subject", 0, "digest", "rfc6962-sha256", value="0" * 64),
        None,
        f"but the certificate is of {'0' * 64}",
    ),
    "count": (change_certificate("predicate", "receipts", "count", value=7), None, "the certificate counts 7"),
    "kinds": (change_certificate("predicate", "receipts", "answers", value=4), None, "4 answers and 3 scores"),
    "result": (change_certificate("predicate", "results", "acc", value=0.75), None, "the predicate was altered"),
    "made": (change_certificate("predicate", "made", "tasks", value=["others"]), None, "the predicate was altered"),
    "model": (
        change_certificate("predicate", "model", "blake3", value="0" * 64),
        "score/1",
        "it has another model than the certificate",
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_is_found_without_the_model(made: Path, name: str) -> None:
    change, receipt, message = CHANGES[name]
    folder = made.parent / "receipts"
    (leaves,) = folder.glob("leaves-*.jsonl")
    assert Certificate.load(made).verify().ok
    change(folder, leaves, made)
    problems = Certificate.load(made).verify().problems
    assert [problem for problem in problems if problem.receipt == receipt and message in problem.message], problems
    # What is whole is not accused.
    assert name == "model" or not [one for one in problems if one.receipt in ("answer/0", "score/0")]
    done = run("certificate", "verify", made, "--count", "0")
    assert (done.returncode, done.stderr) == (1, "")
    assert message in done.stdout


def forge(made: Path, name: str, change: Callable[[Any], Any], receipts: dict[str, Any]) -> Path:
    """A certificate whose every digest is right, but one receipt is forged."""
    forged = dict(receipts)
    forged[name] = change(forged[name])
    certificate = Certificate.make(forged, made.parent / "forged", results={"acc": 1})
    return certificate.save(made.parent / "forged.json")


def other_answer(receipt: bitnet.Receipt) -> bitnet.Receipt:
    """The answer with its last id changed and everything derived from it computed anew."""
    document = json.loads(receipt.to_json())
    document["claim"]["output_ids"][-1] = (document["claim"]["output_ids"][-1] + 1) % 256
    digest = str(bitnet.Receipt.from_json(json.dumps(document)).with_test_results(total_tests=0, passed=0).digest)
    text = bitnet.Receipt.from_json(json.dumps(document)).with_test_results(total_tests=0, passed=0).to_json()
    found = bitnet.Receipt.from_json(text)
    found.validate()
    assert found.digest == digest != receipt.digest
    return found


def other_score(receipt: ScoreReceipt) -> ScoreReceipt:
    """The score with the last bit of its only log-probability changed."""
    (value,) = struct.unpack(">I", bytes.fromhex(receipt.claim["logprob"]))
    bits = f"{value ^ 1:08x}"
    found = ScoreReceipt(receipt.claim | {"logprob": bits, "token_logprobs": bits}, receipt.model_file, receipt.version)
    found.validate()
    return found


@pytest.mark.parametrize(("name", "change"), [("answer/1", other_answer), ("score/2", other_score)])
def test_a_forged_receipt_is_found_by_its_replay(
    made: Path, receipts: dict[str, Any], trit: bitnet.Engine, name: str, change: Callable[[Any], Any]
) -> None:
    path = forge(made, name, change, receipts)
    certificate = Certificate.load(path)
    assert certificate.verify().ok, "nothing but a replay can find it"
    found = certificate.verify(engine=trit)
    assert [problem.receipt for problem in found.problems] == [name]
    assert "the replay differs" in found.problems[0].message
    # A sample finds it exactly if it has it.
    missed = [certificate.verify(engine=trit, count=2, seed=seed).ok for seed in range(60)]
    assert 25 <= sum(missed) <= 55  # 40 are expected: 4 of 6 receipts are not drawn


FIELDS: dict[str, tuple[tuple[str, ...], Any, str]] = {
    # A field of the predicate, another value, and who finds it: nobody ("told"), the check or the replay.
    "made": (("made", "tasks"), ["others"], "told"),
    "results": (("results", "acc"), 1, "told"),
    "time": (("time",), "1999-12-31T23:59:59Z", "told"),
    "model file": (("model", "file"), "other.gguf", "told"),
    "engine name": (("engine", "name"), "other", "told"),
    "engine version": (("engine", "version"), "9", "told"),
    "model": (("model", "blake3"), "0" * 64, "checked"),
    "tokenizer": (("model", "tokenizer_blake3"), "0" * 64, "checked"),
    "numerics": (("engine", "numerics"), 2, "checked"),
    "kv_type": (("engine", "settings", "kv_type"), "f32", "checked"),
    "n_ctx": (("engine", "settings", "n_ctx"), 128, "checked"),
    "count": (("receipts", "count"), 5, "checked"),
    "answers": (("receipts", "answers"), 2, "checked"),
}


@pytest.mark.parametrize("name", FIELDS)
def test_what_a_certificate_only_tells(made: Path, trit: bitnet.Engine, name: str) -> None:
    """The list in docs/receipts.md: whoever alters a field that is told, and its digest, has a valid certificate."""
    path, value, who = FIELDS[name]
    document = part = json.loads(made.read_text())
    for key in ("predicate", *path[:-1]):
        part = part[key]
    assert part[path[-1]] != value
    part[path[-1]] = value
    document["subject"][1]["digest"]["sha256"] = hashlib.sha256(canonical(document["predicate"])).hexdigest()
    made.write_text(json.dumps(document))
    certificate = Certificate.load(made)
    assert certificate.verify().ok is (who == "told")
    if who == "told":
        assert certificate.verify(engine=trit).ok


def test_names_are_told(made: Path, receipts: dict[str, Any], trit: bitnet.Engine) -> None:
    """That a receipt is the answer to this request is not proven: another name gives another root that is as valid."""
    renamed = {name.replace("answer", "other task"): receipt for name, receipt in receipts.items()}
    certificate = Certificate.make(renamed, made.parent / "renamed")
    assert certificate.root != Certificate.load(made).root
    assert certificate.verify(engine=trit).ok


def test_a_score_that_cannot_be_computed(made: Path, receipts: dict[str, Any], trit: bitnet.Engine) -> None:
    def change(receipt: ScoreReceipt) -> ScoreReceipt:
        return ScoreReceipt(receipt.claim | {"context_ids": [10**6]}, "", "")

    found = Certificate.load(forge(made, "score/1", change, receipts)).verify(engine=trit)
    assert [str(problem) for problem in found.problems if problem.receipt != "score/1"] == []
    assert len(found.problems) == 1


def test_a_record_names_no_file_elsewhere(made: Path, tmp_path: Path) -> None:
    records = made.parent / "receipts" / "receipts.jsonl"
    found = lines_of(records)
    (own,) = (one for one in found if one["name"] == "answer/0")
    (tmp_path / "outside.json").write_text(json.dumps(own.pop("receipt")))
    for file in ("../outside.json", str(tmp_path / "outside.json"), "..\\outside.json", 7, "", "..", "a\0b", "\ud800"):
        own["file"] = file
        write_lines(records, found)
        (problem,) = Certificate.load(made).verify().problems
        assert (problem.receipt, "altered" in problem.message) == ("answer/0", True)


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", "null", '{"_type": "https://in-toto.io/Statement/v1"}', "\udcff", '{"a":1,"a":2}'],
)
def test_a_file_that_is_no_certificate(tmp_path: Path, text: str) -> None:
    path = tmp_path / "certificate.json"
    path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(bitnet.ReceiptError, match="not a certificate"):
        Certificate.load(path)
    for action in ("verify", "show"):
        done = run("certificate", action, path)
        assert (done.returncode, done.stderr, done.stdout.count("\n")) == (1, "", 1)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("predicate", "results", "acc"), DEEP),
        (("predicate", "receipts", "folder"), "a\0b"),
        (("predicate", "receipts", "leaves"), "a\0b"),
        (("predicate", "receipts", "leaves"), ".."),
        (("predicate", "engine", "settings", "n_ctx"), "384"),
        (("predicate", "engine", "settings", "kv_type"), 16),
        (("predicate", "engine", "settings"), {}),
        (("other",), "\ud800"),
    ],
)
def test_values_that_no_certificate_has(made: Path, path: tuple[str, ...], value: Any) -> None:
    change_certificate(*path, value=value)(made, made, made)
    with pytest.raises(bitnet.ReceiptError, match="it is not a certificate"):
        Certificate.load(made)


def test_leaves_and_records_that_are_nested_deeply(made: Path) -> None:
    folder = made.parent / "receipts"
    for path in folder.iterdir():
        lines = path.read_bytes().splitlines(keepends=True)
        lines[0] = b'{"a":' * 300 + lines[0][:-1] + b"}" * 300 + b"\n"
        path.write_bytes(b"".join(lines))
    problems = [problem.message for problem in Certificate.load(made).verify().problems]
    assert "receipts.jsonl, line 1 is not a record" in problems
    assert any("line 1 is not a leaf: it is nested more than 100 levels deep" in message for message in problems)


def test_what_cannot_be_certified(receipts: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(bitnet.ArgumentError, match="no receipts"):
        Certificate.make({}, tmp_path)
    with pytest.raises(bitnet.ArgumentError, match="must be JSON"):
        Certificate.make(receipts, tmp_path, results={"acc": float("nan")})
    with pytest.raises(bitnet.ArgumentError, match="lone surrogate"):
        Certificate.make({"\ud800": receipts["score/1"]}, tmp_path)
    with bitnet.Engine(n_threads=1, kv_type="f32") as other:
        more = receipts | {"other": other.generate([1], max_tokens=1).receipt}
    with pytest.raises(bitnet.ArgumentError, match="another kv_type"):
        Certificate.make(more, tmp_path)


# -- Samples ----------------------------------------------------------------------------------------------------------


def test_the_chance_to_miss_is_that_of_all_samples_counted() -> None:
    for count in range(1, 8):
        for wrong, sample in itertools.product(range(count + 1), repeat=2):
            samples = list(itertools.combinations(range(count), sample))
            missed = sum(all(one >= wrong for one in drawn) for drawn in samples)  # the first ones are wrong
            assert chance_to_miss(count, wrong, sample) == float(Fraction(missed, len(samples)))


def test_most_wrong_is_the_largest_number_that_a_sample_may_miss() -> None:
    for count in (1, 2, 7, 40):
        for sample in range(count + 1):
            able = [m for m in range(count + 1) if chance_to_miss(count, m, sample) > 0.05]
            assert most_wrong(count, sample) == max(able)
    assert chance_to_miss(10**6, 10**4, 300) == pytest.approx(0.99**300, rel=0.01)


def test_confidence_in_words() -> None:
    assert Verification(10_000, 300, "7", []).confidence() == (
        "300 of 10000 receipts were replayed, drawn with the seed 7. If 100 of the 10000 were wrong, this sample would "
        "miss all of them with probability 4.68 %; if one was, 97 %. With 95 % confidence, at most "
        f"{most_wrong(10_000, 300)} of the 10000 are wrong."
    )
    assert Verification(6, 6, None, []).confidence() == "All 6 receipts were replayed."
    assert "nobody has checked" in Verification(6, 0, None, []).confidence()
    assert str(Problem(None, "a")) + str(Problem("b", "c")) == "ab: c"


# -- Files of earlier versions ----------------------------------------------------------------------------------------


def test_an_old_certificate_verifies(trit: bitnet.Engine) -> None:
    """`tests/data/certificate` was made by version 0.1.0 and never changes."""
    certificate = Certificate.load(OLD / "certificate.json")
    assert certificate.root == (OLD / "root.txt").read_text().strip()
    found = certificate.verify(engine=trit)
    assert (found.problems, found.replayed, found.count) == ([], 6, 6)


# -- At the command line ----------------------------------------------------------------------------------------------


def test_the_command_verifies_and_shows(made: Path) -> None:
    certificate = Certificate.load(made)
    done = run("certificate", "verify", made)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[:2] == [
        f"{made}: 6 receipts with the root {certificate.root}",
        "All 6 receipts were replayed.",
    ]
    done = run("certificate", "verify", made, "--share", "0.4", "--seed", "s", "--json")
    found = json.loads(done.stdout)
    assert found == {
        "file": str(made), "ok": True, "root": certificate.root, "count": 6, "replayed": 3, "seed": "s",
        "confidence": Verification(6, 3, "s", []).confidence(), "problems": [],
    }  # fmt: skip
    done = run("certificate", "show", made)
    assert (done.returncode, done.stderr) == (0, "")
    for text in (certificate.root, "6 (3 answers, 3 scores)", "numerics 1", "results.acc", '["sums"]'):
        assert text in done.stdout


def test_what_gives_no_result(made: Path, tmp_path: Path) -> None:
    other = ROOT / "tests" / "fixtures" / "relu2-i2s.gguf"
    for arguments, message in [
        ([made, "-m", other], "the certificate is of another model (trit.gguf"),
        ([tmp_path / "none.json"], "No such file"),
        ([made, "--receipts", tmp_path / "none"], "No such file"),
        ([other], "is a model, not a certificate"),
        ([made, "--share", "2"], "--share is 2.0, expected 0 to 1"),
        ([made, "--count", "-1"], "--count is -1, expected 0 or more"),
    ]:
        done = run("certificate", "verify", *arguments)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
        assert message in done.stderr


def test_a_redacted_receipt_is_counted_but_not_replayed(receipts: dict[str, Any], tmp_path: Path) -> None:
    redacted = {name: one if isinstance(one, ScoreReceipt) else one.redact() for name, one in receipts.items()}
    whole = Certificate.make(receipts, tmp_path / "whole")
    certificate = Certificate.make(redacted, tmp_path / "redacted")
    assert certificate.root == whole.root
    path = certificate.save(tmp_path / "certificate.json")
    assert run("certificate", "verify", path, "--count", "0").returncode == 0
    done = run("certificate", "verify", path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "answer/0: the receipt is redacted" in done.stderr
