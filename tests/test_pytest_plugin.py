"""The pytest plugin, run in small test suites of its own."""

from __future__ import annotations

import json
import os
import shutil
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


RUNNER = """
from _pytest.runner import runtestprotocol

def pytest_runtest_protocol(item, nextitem):
    for left in reversed(range(TIMES)):
        item._initrequest()
        for report in runtestprotocol(item, nextitem=nextitem, log=False):
            if left and report.when == "call":
                report.outcome = "rerun"
            item.ihook.pytest_runtest_logreport(report=report)
    return True
"""
"""Runs tests as pytest-rerunfailures does: a test's report comes after those of its subtests."""


def committed(path: Path) -> dict[str, list[str]]:
    """The digests in a file of digests, by test."""
    tests = json.loads(path.read_text())["tests"]
    return {test: [answer["digest"] for answer in answers] for test, answers in tests.items()}


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
    missing.stdout.fnmatch_lines(["*has no digests of this test; add them with --bitnet-update-digests*"])
    run(pytester, *compare, "--bitnet-update-digests").assert_outcomes(passed=3)
    path = pytester.path / "digests.json"
    written = path.read_text()
    assert [len(digests) for digests in committed(path).values()] == [1, 3, 1]
    before = committed(path)
    run(pytester, *compare).assert_outcomes(passed=3)
    run(pytester, *compare, "-n", "2").assert_outcomes(passed=3)
    assert path.read_text() == written

    # The same text with another seed is another answer.
    pytester.makepyfile(
        test_suite=SUITE.replace("3+3=7.", "3+3=6.").replace('complete("2+2=",', 'complete("2+2=", seed=1,')
    )
    changed = run(pytester, *compare)
    changed.assert_outcomes(passed=2, failed=1)
    changed.stdout.fnmatch_lines(
        [
            "the answers differ from those in digests.json",
            "  prompt '2+2=': sampling.seed is 1, was 0; the text is the same",
            "    ????????*, expected " + before["test_suite.py::test_plain"][0],
        ]
    )
    # An update of one test keeps the others.
    run(pytester, *compare, "--bitnet-update-digests", "-k", "plain").assert_outcomes(passed=1, deselected=2)
    now = committed(path)
    assert {test for test, digests in before.items() if now[test] != digests} == {"test_suite.py::test_plain"}


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


def test_cases_of_one_function_have_receipts_of_their_own(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
import pytest

@pytest.mark.parametrize("question", ["2+2=", "2*2=", "2-2=", "2+2=" + 300 * " "])
def test(bitnet_case, question):
    bitnet_case.complete(question, max_tokens=1)
"""
    )
    run(pytester, "--bitnet-receipts=out").assert_outcomes(passed=4)
    report = json.loads((pytester.path / "out" / "report.json").read_text())
    names = {answer["receipt"] for facts in report.values() for answer in facts["answers"]}
    assert {path.name for path in (pytester.path / "out").iterdir()} == {"report.json", *names}
    assert len(names) == 4
    assert max(map(len, names)) < 144  # encrypted home folders allow no longer names


def test_digests_of_unittest(pytester: pytest.Pytester) -> None:
    suite = """
import unittest

import pytest

class Test(unittest.TestCase):
    @pytest.fixture(autouse=True)
    def with_case(self, bitnet_case):
        self.case = bitnet_case

    def test_sum(self):
        assert self.case.complete("2+2=", max_tokens=1).text == "4"

    def test_wrong(self):
        assert self.case.complete("2+2=", max_tokens=1).text == "5"
"""
    pytester.makepyfile(test_suite=suite)
    run(pytester, "--bitnet-digests=d.json", "--bitnet-update-digests").assert_outcomes(passed=1, failed=1)
    assert list(committed(pytester.path / "d.json")) == ["test_suite.py::Test::test_sum"]
    run(pytester, "--bitnet-digests=d.json").assert_outcomes(passed=1, failed=1)
    pytester.makepyfile(test_suite=suite.replace('"2+2=", max_tokens=1).text == "4"', '"3+3=", max_tokens=1)'))
    changed = run(pytester, "--bitnet-digests=d.json")
    changed.assert_outcomes(failed=2)
    prompts = "  prompt '3+3=': the prompt was '2+2='; the text is '6', was '4'"
    changed.stdout.fnmatch_lines(["the answers differ from those in d.json", prompts, "*assert '4' == '5'"])


def test_digests_are_found_from_any_root(pytester: pytest.Pytester, text_model: Path) -> None:
    """pytest's root is the folder of its configuration, or the common parent of the test paths it is given."""
    tests = pytester.mkdir("sub") / "tests"
    tests.mkdir()
    (tests / "test_suite.py").write_text("def test(bitnet_case): bitnet_case.complete('2+2=', max_tokens=1)")
    file = pytester.path / "sub" / "d.json"
    run(pytester, f"--bitnet-model={text_model}", f"--bitnet-digests={file}", "--bitnet-update-digests")
    assert list(committed(file)) == ["tests/test_suite.py::test"]
    spaced = ("--bitnet-model", str(text_model), "--bitnet-digests")
    run(pytester, *spaced, str(file)).assert_outcomes(passed=1)
    run(pytester, *spaced, "sub/d.json", "--rootdir=sub/tests").assert_outcomes(passed=1)
    run(pytester, *spaced, "sub/d.json", "--rootdir=sub/tests", "-n", "1").assert_outcomes(passed=1)
    os.chdir(tests)
    run(pytester, *spaced, "../d.json", "test_suite.py").assert_outcomes(passed=1)
    assert [path.name for path in tests.parent.iterdir() if path.is_file()] == ["d.json"]


@pytest.mark.parametrize("options", [(), ("-n", "2")], ids=["alone", "xdist"])
def test_a_test_may_change_directory(pytester: pytest.Pytester, text_model: Path, options: tuple[str, ...]) -> None:
    shutil.copy(text_model, pytester.path / "model.gguf")
    pytester.makepyfile(
        """
import os

import pytest

@pytest.fixture(scope="session", autouse=True)
def elsewhere(tmp_path_factory):
    os.chdir(tmp_path_factory.mktemp("elsewhere"))

@pytest.mark.parametrize("times", [1, 2, 3])
def test(bitnet_case, times, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert bitnet_case.engine.arch == "llama"
    bitnet_case.complete("a" * times, max_tokens=1)
"""
    )
    files = ("--bitnet-model=model.gguf", "--bitnet-receipts=out", "--bitnet-digests=d.json", *options)
    run(pytester, *files, "--bitnet-update-digests").assert_outcomes(passed=3)
    assert len(committed(pytester.path / "d.json")) == 3
    assert len(list((pytester.path / "out").iterdir())) == 4
    run(pytester, *files).assert_outcomes(passed=3)


def test_a_model_by_name(pytester: pytest.Pytester, text_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("huggingface_hub")
    repo, commit = pytester.path / "hub" / "models--some--model", "0" * 40
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text(commit)
    (repo / "snapshots" / commit).mkdir(parents=True)
    shutil.copy(text_model, repo / "snapshots" / commit / "model.gguf")
    monkeypatch.setenv("HF_HUB_CACHE", str(pytester.path / "hub"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    pytester.makepyfile("def test(bitnet_engine): assert bitnet_engine.arch == 'llama'")
    run(pytester, "--bitnet-model=hf:some/model").assert_outcomes(passed=1)
    run(pytester, "--bitnet-model=hf:some/model/model.gguf").assert_outcomes(passed=1)


def test_digests_of_a_test_that_asks_nothing(pytester: pytest.Pytester) -> None:
    asking = "bitnet_case.complete('2+2=', max_tokens=1)"
    pytester.makepyfile(test_suite=f"def test(bitnet_case): {asking}\ndef test_silent(bitnet_case): pass")
    run(pytester, "--bitnet-digests=d.json", "--bitnet-update-digests").assert_outcomes(passed=2)
    run(pytester, "--bitnet-digests=d.json").assert_outcomes(passed=2)
    pytester.makepyfile(test_suite="def test(bitnet_case): pass")
    stopped = run(pytester, "--bitnet-digests=d.json")
    stopped.assert_outcomes(failed=1)
    stopped.stdout.fnmatch_lines(["*prompt '2+2=', answer '4': in the file, but the test did not ask for it"])
    run(pytester, "--bitnet-digests=d.json", "--bitnet-update-digests").assert_outcomes(passed=1)
    assert committed(pytester.path / "d.json") == {}
    run(pytester, "--bitnet-digests=d.json").assert_outcomes(passed=1)


OUTCOMES = """
import pytest

pytestmark = pytest.mark.bitnet_eval

@pytest.fixture
def asked(bitnet_case):
    bitnet_case.complete("2+2=", max_tokens=1)

@pytest.fixture
def broken(asked):
    raise ValueError

@pytest.fixture
def broken_after(asked, bitnet_case):
    yield
    bitnet_case.complete("3+3=", max_tokens=1)
    raise ValueError

@pytest.fixture
def asks_after(asked, bitnet_case):
    yield
    bitnet_case.complete("3+3=", max_tokens=1)

def test_passes(asked): pass
def test_asks_after(asks_after): pass
def test_fails(asked): assert False
def test_setup_fails(broken): pass
def test_teardown_fails(broken_after): pass
def test_skips(asked): pytest.skip()
@pytest.mark.skip
def test_skipped(asked): pass
@pytest.mark.xfail
def test_fails_as_expected(asked): assert False
@pytest.mark.xfail
def test_passes_unexpectedly(asked): pass
@pytest.mark.xfail(strict=True)
def test_passes_against_the_rules(asked): pass
"""


@pytest.mark.parametrize("options", [(), ("-n", "2")], ids=["alone", "xdist"])
def test_every_outcome_is_told(pytester: pytest.Pytester, options: tuple[str, ...]) -> None:
    pytester.makepyfile(test_suite=OUTCOMES)
    files = ("--bitnet-receipts=out", "--bitnet-digests=d.json", *options)
    outcomes = {"passed": 3, "failed": 2, "errors": 2, "skipped": 2, "xfailed": 1, "xpassed": 1}
    summary = "bitnet: 2 of 6 evaluation cases passed, 2 skipped, 1 xfailed, 1 xpassed"
    done = run(pytester, *files, "--bitnet-update-digests")
    done.assert_outcomes(**outcomes)
    done.stdout.fnmatch_lines([summary])
    report = json.loads((pytester.path / "out" / "report.json").read_text())
    assert {
        test.partition("::test_")[2]: (facts["outcome"], len(facts["answers"])) for test, facts in report.items()
    } == {
        "passes": ("passed", 1),
        "asks_after": ("passed", 2),
        "fails": ("failed", 1),
        "setup_fails": ("error", 1),
        "teardown_fails": ("error", 2),
        "skips": ("skipped", 1),
        "skipped": ("skipped", 0),
        "fails_as_expected": ("xfailed", 1),
        "passes_unexpectedly": ("xpassed", 1),
        "passes_against_the_rules": ("failed", 1),
    }
    digests = committed(pytester.path / "d.json")
    assert {test.partition("::test_")[2]: len(found) for test, found in digests.items()} == {
        "passes": 1,
        "asks_after": 1,
    }
    # Only tests that would pass are compared, so other failures stay visible.
    done = run(pytester, *files)
    done.assert_outcomes(**{**outcomes, "passed": 2, "failed": 3})
    done.stdout.fnmatch_lines(["*XPASS(strict)*"])


def test_cases_without_a_model_are_counted(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_suite=SUITE)
    done = run(pytester, "--bitnet-model=missing.gguf")
    done.assert_outcomes(errors=3)
    done.stdout.fnmatch_lines(["bitnet: 0 of 2 evaluation cases passed"])


@pytest.mark.parametrize(
    "options", [(), ("-n", "1"), ("-p", "later", "-p", "no:terminal")], ids=["alone", "xdist", "later"]
)
@pytest.mark.skipif(not hasattr(pytest, "Subtests"), reason="they came with pytest 9")
def test_subtests_are_no_cases(pytester: pytest.Pytester, options: tuple[str, ...]) -> None:
    pytester.makepyfile(
        later=RUNNER.replace("TIMES", "1"),
        test_suite="""
import unittest

import pytest

pytestmark = pytest.mark.bitnet_eval

@pytest.mark.parametrize("right", ["45", "46", "4"])
def test(bitnet_case, subtests, right):
    for answer in right:
        with subtests.test(answer):
            bitnet_case.complete("2+2=", max_tokens=1).must_be(answer)

class Test(unittest.TestCase):
    def test_right(self):
        for n in range(2):
            with self.subTest(n):
                pass
""",
    )
    done = run(pytester, "--bitnet-receipts=out", "--bitnet-digests=d.json", "--bitnet-update-digests", *options)
    if "no:terminal" not in options:  # the terminal plugin makes a test fail for its subtests
        done.stdout.fnmatch_lines(["bitnet: 2 of 4 evaluation cases passed"])
    report = json.loads((pytester.path / "out" / "report.json").read_text())
    assert [(facts["outcome"], len(facts["answers"])) for _, facts in sorted(report.items())] == [
        ("passed", 0),  # Test::test_right
        ("failed", 2),
        ("failed", 2),
        ("passed", 1),
    ]
    assert list(committed(pytester.path / "d.json")) == ["test_suite.py::test[4]"]


def test_a_test_that_is_run_again_begins_anew(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(RUNNER.replace("TIMES", "2"))
    pytester.makepyfile(
        """
import pytest

@pytest.mark.bitnet_eval
def test(bitnet_case):
    bitnet_case.complete("2+2=", max_tokens=1)
"""
    )
    run(pytester, "--bitnet-digests=d.json", "--bitnet-update-digests", "--bitnet-receipts=out")
    (digests,) = committed(pytester.path / "d.json").values()
    (facts,) = json.loads((pytester.path / "out" / "report.json").read_text()).values()
    assert (len(digests), len(facts["answers"]), facts["outcome"]) == (1, 1, "passed")
    done = run(pytester, "--bitnet-digests=d.json")
    done.assert_outcomes(passed=1)
    done.stdout.fnmatch_lines(["bitnet: 1 of 1 evaluation cases passed"])


def test_an_interrupted_run_keeps_what_it_has(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(SUITE.replace("=7.", "=6.") + "    raise KeyboardInterrupt")
    done = run(pytester, "--bitnet-receipts=out", "--bitnet-digests=d.json", "--bitnet-update-digests")
    assert done.ret == pytest.ExitCode.INTERRUPTED
    report = json.loads((pytester.path / "out" / "report.json").read_text())
    assert [facts["outcome"] for facts in report.values()] == ["passed", "passed", "unfinished"]
    assert len(committed(pytester.path / "d.json")) == 2


def test_a_case_whose_process_ends_is_counted(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("import os, pytest\n@pytest.mark.bitnet_eval\ndef test(): os._exit(1)")
    run(pytester, "-n", "1").stdout.fnmatch_lines(["bitnet: 0 of 1 evaluation cases passed"])


@pytest.mark.parametrize(
    "options, content, message",
    [
        (("--bitnet-receipts=there",), "", "--bitnet-receipts: *there cannot be a folder (File exists); *"),
        (("--bitnet-receipts=there/out",), "", "--bitnet-receipts: *there/out cannot be a folder (*); *"),
        (("--bitnet-digests=there",), "{", "--bitnet-digests: *there is not a file of digests (Expecting *line 1*); *"),
        (("--bitnet-digests=there",), "[]", "--bitnet-digests: *there is not a file of digests (*list*); *"),
        (
            ("--bitnet-digests=there",),
            '{"test": "blake3:"}',
            "--bitnet-digests: *there is not a file of digests (*); *",
        ),
        (("--bitnet-digests=.",), "", "--bitnet-digests: * is not a file of digests (Is a directory); *"),
        (("--bitnet-digests=there/d", "--bitnet-update-digests"), "", "--bitnet-digests: * cannot be a folder (*); *"),
        (("--bitnet-digests=there", "--bitnet-update-digests"), "{", "--bitnet-digests: *there is not a file of *"),
    ],
    ids=["receipts", "receipts-below", "no-json", "list", "no-lists", "folder", "digests-below", "update"],
)
def test_a_bad_file_ends_the_run_before_it_begins(
    pytester: pytest.Pytester, options: tuple[str, ...], content: str, message: str
) -> None:
    (pytester.path / "there").write_text(content)
    pytester.makepyfile("def test(): print('RUN')")
    done = run(pytester, "-s", *options)
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    done.stderr.fnmatch_lines([f"ERROR: {message}"])
    done.stdout.no_fnmatch_line("*RUN*")
    assert (pytester.path / "there").read_text() == content


def test_folders_of_files_are_made(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test(bitnet_case): bitnet_case.complete('2+2=', max_tokens=1)")
    run(pytester, "--bitnet-digests=a/b/d.json", "--bitnet-update-digests").assert_outcomes(passed=1)
    run(pytester, "--bitnet-digests=~/a/b/d.json").assert_outcomes(passed=1)  # pytester's home


@pytest.mark.parametrize("options", [("--collect-only",), ("--setup-plan",), ("--fixtures",)], ids=lambda o: o[0])
def test_what_runs_no_tests_keeps_the_report(pytester: pytest.Pytester, options: tuple[str, ...]) -> None:
    pytester.makepyfile("def test(bitnet_case): bitnet_case.complete('2+2=', max_tokens=1)")
    run(pytester, "--bitnet-receipts=out")
    report = (pytester.path / "out" / "report.json").read_text()
    run(pytester, "--bitnet-receipts=out", *options)
    assert (pytester.path / "out" / "report.json").read_text() == report


def test_an_answer_compares_as_its_text(pytester: pytest.Pytester) -> None:
    """Whether a comparison passes or fails depends on the text alone, never on the class of the answer."""
    pytester.makepyfile(
        """
import pytest

def test(bitnet_case):
    answer, again, other = (bitnet_case.ask(f"What is {sum}?") for sum in ("2+2", "2+2", "3+3"))
    assert answer == "2+2=4." and "2+2=4." == answer and not answer != "2+2=4."
    assert answer != "2+2=5." and "2+2=5." != answer and not answer == "2+2=5."
    assert answer == again and answer != other
    assert "=4" in answer and "=5" not in answer
    assert answer in ("2+2=4.", "four") and answer in {"2+2=4."} and answer not in ["2+2=5.", "five"]
    assert str(answer) == f"{answer}" == "2+2=4."
    assert repr(answer).startswith("Answer('2+2=4.', prompt='What is 2+2?', digest='")
    assert answer and not bitnet_case.complete("2+2=", max_tokens=4, stop="4")
    assert answer != None and not answer == None
    for value in (4, 4.0, b"2+2=4.", ["2+2=4."], {"sum": 4}):
        with pytest.raises(TypeError, match=f"compares with text, found the {type(value).__name__} "):
            answer == value
        with pytest.raises(TypeError, match=f"compares with text, found the {type(value).__name__} "):
            answer != value

@pytest.mark.parametrize("wrong", [
    lambda answer: answer == "2+2=5.",
    lambda answer: answer != "2+2=4.",
    lambda answer: "2+2=5." == answer,
    lambda answer: "=5" in answer,
    lambda answer: "=4" not in answer,
    lambda answer: not answer,
    lambda answer: answer in ("4", "four"),
])
def test_fails(bitnet_case, wrong):
    assert wrong(bitnet_case.ask("What is 2+2?"))

def test_explained(bitnet_case):
    assert bitnet_case.ask("What is 2+2?") == "2+2=5."

def test_explained_too(bitnet_case):
    assert bitnet_case.ask("What is 3+3?") != "3+3=6."
"""
    )
    done = run(pytester)
    done.assert_outcomes(passed=1, failed=9)
    with Engine() as engine:
        digests = [ChatSession(engine, seed=0).send(f"What is {sum}?").receipt.digest for sum in ("2+2", "3+3")]
    done.stdout.fnmatch_lines(
        [
            "*AssertionError: assert '2+2=4.' == '2+2=5.'",
            "*prompt  'What is 2+2?'",
            "*answer  '2+2=4.'",
            f"*digest  {digests[0]}",
            "*AssertionError: assert '3+3=6.' != '3+3=6.'",
            f"*digest  {digests[1]}",
        ]
    )


def test_questions_asked_at_once_are_answered_as_one_by_one(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        test_all="""
import pytest

def test_all(bitnet_case):
    texts = ["What is 2+2?", "What is 3+3?", "What is 2+7?"]
    together = bitnet_case.ask_all(texts, "Be brief.")
    alone = [bitnet_case.ask(text, "Be brief.") for text in texts]
    assert [answer.text for answer in together] == [answer.text for answer in alone]
    assert [answer.digest for answer in together] == [answer.digest for answer in alone]
    assert [facts["conversation"] for facts in bitnet_case.answers] == [1, 2, 3, 4, 5, 6]
    with pytest.raises(TypeError, match="takes a list of questions"):
        bitnet_case.ask_all("What is 2+2?")
"""
    )
    run(pytester).assert_outcomes(passed=1)
