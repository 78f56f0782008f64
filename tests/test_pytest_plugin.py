"""The pytest plugin, in test suites of its own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bitnet import ChatSession, Engine, Receipt

pytest_plugins = ["pytester"]

SUITE = """
import pytest

@pytest.mark.bitnet_eval
def test_right(bitnet_case):
    bitnet_case.ask("What is 2+2?").must_be("2+2=4.")
    chat = bitnet_case.chat("Be brief.")
    chat.ask("What is 2+2?").must_contain("4")
    chat.ask("add 5 to that").must_match(r"=9[.]$")

@pytest.mark.bitnet_eval
def test_wrong(bitnet_case):
    bitnet_case.ask("What is 3+3?").must_be("3+3=7.")

def test_plain(bitnet_engine, bitnet_case):
    assert bitnet_case.engine is bitnet_engine
    assert bitnet_case.complete("2+2=", max_tokens=1).text == "4"
"""


def run(pytester: pytest.Pytester, *options: str) -> pytest.RunResult:
    return pytester.runpytest_subprocess("-p", "no:cacheprovider", "--strict-markers", *options)


def test_a_failure_shows_prompt_answer_and_digest(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_suite=SUITE)
    done = run(pytester)
    done.assert_outcomes(passed=2, failed=1)
    with Engine() as engine:
        receipt = ChatSession(engine, seed=0).send("What is 3+3?").receipt
        assert receipt
    done.stdout.fnmatch_lines(
        [
            "*expected the answer to be '3+3=7.'",
            "*prompt  'What is 3+3?'",
            "*answer  '3+3=6.'",
            f"*digest  {receipt.digest}",
            "bitnet: 1 of 2 evaluation cases passed",
        ]
    )
    done.stdout.no_fnmatch_line("*raise AssertionError*")


@pytest.mark.parametrize("options", [(), ("-n", "2")], ids=["alone", "xdist"])
def test_receipts_and_their_report(pytester: pytest.Pytester, options: tuple[str, ...]) -> None:
    pytester.makepyfile(test_suite=SUITE)
    run(pytester, "--bitnet-receipts", "out/receipts", *options).assert_outcomes(passed=2, failed=1)
    folder = pytester.path / "out" / "receipts"
    report = json.loads((folder / "report.json").read_text())
    found = {test: (facts["outcome"], facts["evaluation"], len(facts["answers"])) for test, facts in report.items()}
    assert found == {
        "test_suite.py::test_right": ("passed", True, 3),
        "test_suite.py::test_wrong": ("failed", True, 1),
        "test_suite.py::test_plain": ("passed", False, 1),
    }
    answers = [answer for facts in report.values() for answer in facts["answers"]]
    assert {path.name for path in folder.iterdir()} == {"report.json", *(answer["receipt"] for answer in answers)}
    with Engine() as engine:
        for answer in answers:
            receipt = Receipt.load(folder / answer["receipt"])
            receipt.validate()
            assert receipt.digest == answer["digest"]
            assert engine.replay(receipt)


def test_digests_that_are_committed(pytester: pytest.Pytester) -> None:
    suite = SUITE.replace("3+3=7.", "3+3=6.")
    pytester.makepyfile(test_suite=suite)
    compare = ("--bitnet-digests", "digests.json")
    missing = run(pytester, *compare)
    missing.assert_outcomes(failed=3)
    missing.stdout.fnmatch_lines(["*has no digests of this test; add them by --bitnet-update-digests*"])
    run(pytester, *compare, "--bitnet-update-digests").assert_outcomes(passed=3)
    path = pytester.path / "digests.json"
    written = path.read_text()
    assert [len(digests) for digests in json.loads(written).values()] == [1, 3, 1]
    run(pytester, *compare).assert_outcomes(passed=3)
    run(pytester, *compare, "-n", "2").assert_outcomes(passed=3)
    assert path.read_text() == written

    # The same text, sampled otherwise, is another answer.
    pytester.makepyfile(
        test_suite=SUITE.replace("3+3=7.", "3+3=6.").replace('complete("2+2=",', 'complete("2+2=", seed=1,')
    )
    changed = run(pytester, *compare)
    changed.assert_outcomes(passed=2, failed=1)
    changed.stdout.fnmatch_lines(["the answers are not those of digests.json; found", "*prompt '2+2=', answer '4', *"])
    # An update of one test keeps the others.
    run(pytester, *compare, "--bitnet-update-digests", "-k", "plain").assert_outcomes(passed=1, deselected=2)
    now = json.loads(path.read_text())
    assert {test for test, digests in json.loads(written).items() if now[test] != digests} == {
        "test_suite.py::test_plain"
    }


def test_another_model(pytester: pytest.Pytester, text_model: Path) -> None:
    pytester.makepyfile("def test(bitnet_engine, pytestconfig): assert bitnet_engine.arch == 'llama'")
    run(pytester, "--bitnet-model", str(text_model)).assert_outcomes(passed=1)


def test_a_suite_without_it_does_not_load_the_engine(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
import sys

def test_not_loaded(pytestconfig):
    assert pytestconfig.pluginmanager.has_plugin("bitnet")
    assert [name for name in sys.modules if name.split(".")[0] in ("bitnet", "numpy")] == []
"""
    )
    done = run(pytester)
    done.assert_outcomes(passed=1)
    done.stdout.no_fnmatch_line("*evaluation cases*")


def test_an_update_needs_a_file(pytester: pytest.Pytester) -> None:
    done = run(pytester, "--bitnet-update-digests")
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    done.stderr.fnmatch_lines(["*--bitnet-digests FILE*"])
