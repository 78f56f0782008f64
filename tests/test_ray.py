"""Data sets of Ray: answers, scores and vectors of batches here, and on a cluster of two machines."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from bitnet import ArgumentError, Engine, Receipt, SamplingParams
from conftest import ROOT, message_of

pytest.importorskip("ray", reason="ray is not installed: pip install --group test")
filelock = pytest.importorskip("filelock")
pa = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

from bitnet.ray import Answer, Embed, Score  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::bitnet.BitnetWarning")  # prompts are continued without a template
LONG = "Long. " * 400
Row = dict[str, Any]


def rows() -> list[Row]:
    """200 requests: prompts and conversations, many with sampling parameters of their own; two are impossible."""
    found: list[Row] = []
    for i in range(200):
        question = f"What is {i % 10}+{i % 7}?"
        row: Row = {"id": i, "note": f"note {i}"}
        row |= {"prompt": question} if i % 3 else {"messages": [{"role": "user", "content": question}]}
        row |= {"temperature": 0.9, "top_p": 0.95} if i % 2 else {}
        row |= {"seed": 2**63 - 1 - i, "max_tokens": 5, "stop": ["="]} if i % 5 == 0 else {}
        found.append(row)
    found[12]["messages"].append({"role": "assistant", "content": "2", "reasoning": "Easy."})
    found[12]["messages"].append({"role": "user", "content": "And 3+3?"})
    found[40]["prompt"] = LONG
    found[60]["messages"][0]["role"] = "assistant"
    return found


def alone(engine: Engine, row: Row, **common: Any) -> Any:
    """The answer to one row, and nothing beside it. Its seed is computed as docs/ray.md says."""
    names = ("temperature", "top_p", "seed", "max_tokens", "stop")
    given = common | {name: row[name] for name in names if row.get(name) is not None}
    prompt = row.get("prompt")
    asked = prompt if prompt is not None else [{"role": "system", "content": "Be brief."}, *row["messages"]]
    digest = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).digest()
    params = SamplingParams(**{"seed": int.from_bytes(digest[:8], "big"), **given})
    return engine.generate(prompt, params) if prompt is not None else engine.chat(asked, params)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with what `ray_runs.py` wrote. It runs once, whichever worker of pytest-xdist asks first."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base) / "ray"
    with filelock.FileLock(f"{folder}.lock"):
        if not folder.exists():
            folder.mkdir()
            lines = (json.dumps(row) + "\n" for row in rows())
            (folder / "rows.jsonl").write_text("".join(lines), encoding="utf-8")
            command = [sys.executable, str(ROOT / "tests" / "ray_runs.py"), str(folder)]
            # The paths of sockets, which Ray has in its folder, have at most 107 bytes: pytest's folders are too long.
            with (folder / "log").open("w") as log, tempfile.TemporaryDirectory(prefix="ray-") as temporary:
                environment = {**os.environ, "RAY_TMPDIR": temporary, "RAY_USAGE_STATS_ENABLED": "0"}
                process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
                try:
                    process.wait(300)
                except subprocess.TimeoutExpired:
                    process.terminate()  # Ray ends its other processes
                    process.wait()
        if not (folder / "runs.json").exists():
            pytest.fail((folder / "log").read_text()[-20_000:])
    return folder


@pytest.fixture(scope="module")
def answers(runs: Path) -> list[Row]:
    """The rows of the cluster's Parquet files, by their ids."""
    found: list[Row] = parquet.read_table(runs / "answers").to_pylist()
    return sorted(found, key=lambda row: row["id"])


def test_a_cluster_gives_the_digests_of_single_calls(answers: list[Row]) -> None:
    """Though one of its actors was killed: no row is lost, none is there twice."""
    assert [row["id"] for row in answers] == list(range(200))
    with Engine(n_threads=1) as engine:
        for row, given in zip(answers, rows(), strict=True):
            if row["id"] in (40, 60):
                continue
            expected = alone(engine, given, max_tokens=given.get("max_tokens", 16))
            for name in ("text", "reasoning", "finish_reason", "prompt_tokens", "completion_tokens"):
                assert row[name] == getattr(expected, name), row
            assert row["digest"] == expected.receipt.digest
            assert row["error"] is None
            assert row["note"] == given["note"]
        receipt = Receipt.from_json(answers[7]["receipt"])
        assert engine.replay(receipt)
        assert receipt.digest == answers[7]["digest"]


def test_one_machine_gives_the_digests_of_a_cluster(answers: list[Row]) -> None:
    names = ("id", "prompt", "messages", "temperature", "top_p", "seed", "max_tokens", "stop")
    given = pa.table({name: [row.get(name) for row in rows()] for name in names})
    table = Answer(n_threads=2, max_tokens=16, system="Be brief.")(given)
    assert table["digest"].to_pylist() == [row["digest"] for row in answers]
    assert table["error"].to_pylist() == [row["error"] for row in answers]


def test_impossible_rows_have_an_error_in_place_of_an_answer(answers: list[Row]) -> None:
    added = ("text", "reasoning", "finish_reason", "prompt_tokens", "completion_tokens", "digest", "receipt")
    for row, error in ((answers[40], "tokens do not fit into the context"), (answers[60], "the roles are")):
        assert error in row["error"]
        assert [row[name] for name in added] == [None] * 7


def test_both_machines_compute_with_the_cpus_of_their_actors(runs: Path, answers: list[Row]) -> None:
    places = {row["place"] for row in answers}
    assert len({place.split()[0] for place in places}) == 2
    assert (runs / "killed").exists()
    assert len(places) == 3, "two actors, and one in place of the killed one"
    assert {row["threads"] for row in answers} == {2}


def test_all_files_have_one_schema(runs: Path) -> None:
    """Whatever is null in them."""
    schemas = {str(parquet.read_schema(path)) for path in (runs / "answers").glob("*.parquet")}
    assert len(schemas) == 1
    assert "error: string" in schemas.pop()


def test_a_wrong_path_ends_a_run_with_our_message(runs: Path) -> None:
    told = json.loads((runs / "runs.json").read_text())["no model"]
    assert "/nowhere.gguf: no such file; check the path" in told


def test_scores_and_vectors_on_a_cluster(runs: Path) -> None:
    row = json.loads((runs / "runs.json").read_text())["scores"]
    with Engine(n_threads=1) as engine:
        scores = engine.score("2+2=", ["4", "5"])
        assert row["logprobs"] == scores.logprobs.tolist()
        assert row["is_greedy"] == scores.is_greedy.tolist()
        assert row["embed_embedding"] == engine.embed("2+2=").tolist()
    assert (row["error"], row["embed_error"]) == (None, None)


def test_the_example(runs: Path) -> None:
    told = json.loads((runs / "runs.json").read_text())["example"]
    assert "7 '7+7=14.'" in told
    assert len((ROOT / "examples" / "ray_data.py").read_text(encoding="utf-8").splitlines()) < 50


def test_token_ids_and_columns_of_other_names() -> None:
    answer = Answer(n_threads=1, prompt="ids", max_tokens=3, prefix="a_")
    ids = answer.engine.encode("2+2=")
    table = answer(pa.table({"ids": [ids, [10**6], None, [-1]], "text": ["kept"] * 4}))
    assert table["a_text"][0].as_py() == answer.engine.generate(ids, max_tokens=3)
    assert table["text"].to_pylist() == ["kept"] * 4
    assert table["a_error"].to_pylist()[1:] == [
        "token id 1000000 at position 0 is outside the vocabulary (0 to 581)",
        "this row has neither of ids and messages, expected one of them",
        "token id -1 at position 0 is outside the vocabulary (0 to 581)",
    ]


def test_columns_that_ray_has_read_with_pandas() -> None:
    """A missing value is NaN, and integers are floats."""
    nan = float("nan")
    answer = Answer(n_threads=1)
    table = answer(pa.table({"prompt": ["2+2=", "2+2="], "max_tokens": [3.0, nan], "temperature": [nan, 1.0]}))
    first = alone(answer.engine, {"prompt": "2+2="}, max_tokens=3)
    second = alone(answer.engine, {"prompt": "2+2="}, temperature=1)
    assert table["digest"].to_pylist() == [first.receipt.digest, second.receipt.digest]


def test_a_text_as_a_users_message() -> None:
    table = Answer(n_threads=1, chat=True)(pa.table({"prompt": ["What is 2+2?"]}))
    assert table["text"].to_pylist() == ["2+2=4."]


def test_wrong_sampling_parameters_are_the_rows_own() -> None:
    bias = [{"5": 1.0}, None, {"5": None, "x": 1.0}, None]
    table = pa.table({"prompt": ["a"] * 4, "top_p": [0.5, 2.0, None, None], "logit_bias": bias})
    errors = Answer(n_threads=1, max_tokens=2)(table)["error"].to_pylist()
    assert [errors[0], errors[3]] == [None, None]
    assert "this row: top_p is 2" in errors[1]
    assert "this row: logit_bias: " in errors[2]


def test_a_row_that_only_its_logits_show_to_be_impossible_is_found() -> None:
    """All ids that can follow are banned: the whole call fails, and the others of its batch are answered after it."""
    answer = Answer(n_threads=1, max_tokens=2)
    bans = {str(i): float("-inf") for i in range(answer.engine.n_vocab)}
    table = answer(pa.table({"prompt": ["a", "b"], "logit_bias": [None, bans]}))
    expected = alone(answer.engine, {"prompt": "a"}, max_tokens=2)
    assert table["digest"].to_pylist() == [expected.receipt.digest, None]
    assert table["error"][0].as_py() is None
    assert table["error"][1].as_py()


def test_an_impossible_prompt_costs_the_others_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is found before its batch is computed, once."""
    computed: list[int] = []
    together = Answer._answered
    monkeypatch.setattr(Answer, "_answered", lambda self, group: computed.append(len(group)) or together(self, group))
    table = Answer(n_threads=1, max_tokens=2)(pa.table({"prompt": ["a", LONG, "b"]}))
    assert [error is None for error in table["error"].to_pylist()] == [True, False, True]
    assert computed == [2]


def test_seeds_depend_on_what_is_asked_only() -> None:
    answer = Answer(n_threads=1, max_tokens=8, temperature=1.5)
    table = answer(pa.table({"prompt": ["One", "Two", "One"], "top_k": [0, 0, None], "seed": [None, None, 1]}))
    again = answer(pa.table({"prompt": ["One"]}))
    digests = table["digest"].to_pylist()
    assert again["digest"].to_pylist() == digests[:1]
    assert len(set(digests)) == 3


def test_scores_of_rows() -> None:
    score = Score(n_threads=1)
    choices = pa.array([["4", "5"], [], None, ["a"]])
    table = score(pa.table({"context": ["2+2=", "2+2=", "2+2=", None], "continuations": choices}))
    assert table["logprobs"].to_pylist()[1:] == [[], None, None]
    assert table["error"].to_pylist() == [None, None, "this row has no continuations", "this row has no context"]
    ids = [[score.engine.encode("2+2=")], [[score.engine.encode("4"), [10**6]]]]
    [error] = score(pa.table(dict(zip(("context", "continuations"), ids, strict=True))))["error"].to_pylist()
    assert "token id 1000000" in error


def test_vectors_of_rows() -> None:
    embed = Embed(n_threads=1, normalize=True)
    table = embed(pa.table({"text": ["One", LONG, None, "Two"]}))
    vectors = embed.engine.embed(["One", "Two"], normalize=True).tolist()
    assert table["embedding"].to_pylist() == [vectors[0], None, None, vectors[1]]
    errors = table["error"].to_pylist()
    assert "tokens do not fit" in errors[1]
    assert [errors[0], *errors[2:]] == [None, "this row has no text", None]


def test_wrong_arguments_say_what_is_right() -> None:
    assert "Answer has no argument max_token; its arguments are model, prompt," in message_of(
        ArgumentError, Answer, max_token=3
    )
    assert "top_p is 2" in message_of(ArgumentError, Answer, top_p=2)
    message_of(ArgumentError, Embed, pooling="best")
    answer = Answer(n_threads=1)
    assert (
        "the batch is a dict, expected a pyarrow.Table, which keeps types and missing values: pass batch_f"
        in message_of(ArgumentError, answer, {"prompt": ["a"]})
    )
    assert "the data set has no column prompt or messages, its columns are question" in message_of(
        ArgumentError, answer, pa.table({"question": ["a"]})
    )
    assert "already has a column text; rename it, drop it, or put something before the names" in message_of(
        ArgumentError, answer, pa.table({"prompt": ["a"], "text": ["b"]})
    )


def test_without_ray_the_import_says_what_to_install() -> None:
    code = "import sys; sys.modules['ray'] = None; import bitnet.ray"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "ImportError: bitnet.ray needs Ray Data: pip install 'bitnet-engine[ray]'" in done.stderr
