"""The pytest plugin's matchers, repetitions, groups and reports, in test suites of their own."""

from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest

from test_pytest_plugin import run

pytest_plugins = ["pytester"]

# -- Matchers ----------------------------------------------------------------------------------------------------------

ANSWER = """
import pytest
from bitnet import Engine
from pytest_bitnet import Answer

class Completion:
    receipt = None
    def __init__(self, text):
        self.text = text

def answer(text):
    return Answer("prompt", Completion(text))
"""


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("must_be('a b')", "must_be('a')"),
        ("must_contain('a')", "must_contain('c')"),
        ("must_not_contain('c')", "must_not_contain('b')"),
        ("must_match('^a.b$')", "must_match('^b')"),
        ("must_not_match('^b')", "must_not_match('b$')"),
        ("must_contain('a').must_contain('b').must_not_contain('c')", "must_contain('a').must_not_contain('b')"),
    ],
)
def test_matchers_pass_and_fail(pytester: pytest.Pytester, right: str, wrong: str) -> None:
    pytester.makepyfile(f"{ANSWER}\ndef test_right(): answer('a b').{right}\ndef test_wrong(): answer('a b').{wrong}")
    done = run(pytester)
    done.assert_outcomes(passed=1, failed=1)
    done.stdout.fnmatch_lines(["*expected the answer *", "*prompt  'prompt'", "*answer  'a b'", "*digest  None"])
    done.stdout.no_fnmatch_line("*raise AssertionError*")


NUMBERS = {
    "2+2=4.": 4,
    "It is -3, or so": -3,
    "5-3": 3,
    "x = (5)-3": 3,
    "minus \u22123": -3,
    "1,234,567.5 in all": 1234567.5,
    "one of 1,2345": 2345,
    "about 2.5e6": 2.5e6,
    "3 is .5 of 6 is .25": 0.25,
    "version 2": 2,
    "007": 7,
    "4 %": 4,
    "12345678901234567890123": 12345678901234567890123,
    "none": None,
    "": None,
}


def test_the_last_number_of_an_answer(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        f"""{ANSWER}
@pytest.mark.parametrize("text, number", {list(NUMBERS.items())})
def test(text, number):
    assert answer(text).number == number
    for value in (number, 8):
        if value == number and number is not None:
            answer(text).must_give_number(value)
        else:
            with pytest.raises(AssertionError):
                answer(text).must_give_number(8)

def test_tolerance():
    answer("pi is 3.14").must_give_number(3.1416, tolerance=0.01).must_contain("pi")
    with pytest.raises(AssertionError, match=r"to give the number 3.1416 ± 0.001, found 3.14"):
        answer("pi is 3.14").must_give_number(3.1416, tolerance=0.001)
"""
    )
    run(pytester).assert_outcomes(passed=len(NUMBERS) + 1)


def test_answers_in_json(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        ANSWER
        + r"""
def test_right():
    found = answer(' {"sum": [4, 4.0, true, null]}\n')
    assert found.must_be_json() is found
    found.must_be_json({"sum": [4, 4, True, None]}).must_be_json({"sum": (4.0, 4, True, None)})
    assert found.json["sum"][0] == 4
    answer("null").must_be_json().must_be_json(None)

@pytest.mark.parametrize("text, expected", [
    ("{'sum': 4}", ...),
    ('```json\n{"sum": 4}\n```', ...),
    ('{"sum": 4} so', ...),
    ("NaN", ...),
    ("", ...),
    ('{"sum": 4}', {"sum": 5}),
    ('{"sum": 4}', {}),
    ('{"sum": 1}', {"sum": True}),
    ("[1]", [1, 2]),
    ("0", False),
    ("null", {}),
    ('"4"', 4),
])
def test_wrong(text, expected):
    with pytest.raises(AssertionError, match="expected the answer to be JSON"):
        answer(text).must_be_json(expected)
"""
    )
    run(pytester).assert_outcomes(passed=13)


def test_a_matcher_that_depends_on_no_answer_is_refused(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        ANSWER
        + """
@pytest.mark.parametrize("call, error", [
    (lambda one: one.must_contain(""), ValueError),
    (lambda one: one.must_not_contain(""), ValueError),
    (lambda one: one.must_be(4), TypeError),
    (lambda one: one.must_contain(4), TypeError),
    (lambda one: one.must_not_contain(["4"]), TypeError),
    (lambda one: one.must_be_json({1, 2}), TypeError),
])
def test(call, error):
    for text in ("4", "", "[4]"):
        if error is TypeError and text != "[4]" and "json" in str(call.__code__.co_names):
            continue
        with pytest.raises(error):
            call(answer(text))

def test_empty():
    answer("").must_be("")
"""
    )
    run(pytester).assert_outcomes(passed=7)


# -- Failed conversations ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [(), ("-n", "1")], ids=["alone", "xdist"])
def test_a_failure_shows_all_turns(pytester: pytest.Pytester, options: tuple[str, ...]) -> None:
    pytester.makepyfile(
        """
def test(bitnet_case):
    chat, other = bitnet_case.chat("Be brief."), bitnet_case.chat()
    chat.ask("What is 2+2?")
    other.ask("What is 3+3?\\nAnd then?")
    chat.ask("add 5 to that").must_be("?")

def test_passes(bitnet_case):
    bitnet_case.ask("What is 4+4?")

def test_fails_otherwise(bitnet_case):
    bitnet_case.complete("2+2=", max_tokens=1)
    raise ValueError
"""
    )
    done = run(pytester, *options)
    done.assert_outcomes(passed=1, failed=2)
    done.stdout.re_match_lines(
        [
            "-+ bitnet: what this test asked -+",
            r"conversation 1, system 'Be brief\.'",
            r"  user       What is 2\+2\?",
            r"  assistant  2\+2=4\.",
            r"  user       add 5 to that",
            r"  assistant  4\+5=9\.",
            "conversation 2",
            r"  user       What is 3\+3\?",
            r"             And then\?",
            "  assistant  .+",
            "-+ bitnet: what this test asked -+",
            "continuation",
            r"  prompt     2\+2=",
            r"  answer     4",
        ],
        consecutive=False,
    )
    done.stdout.no_fnmatch_line("*4+4*")


# -- Repetitions -------------------------------------------------------------------------------------------------------

REPEATED = """
import pytest

@pytest.mark.bitnet_eval(repeat=6, at_least=5)
def test_passes(bitnet_case):
    answer = bitnet_case.ask("What is 2+2?", temperature=1.0)
    assert len(bitnet_case.answers) != 2, "the second run fails"

@pytest.mark.bitnet_eval(repeat=6)
def test_all_must_pass(bitnet_case):
    bitnet_case.ask("What is 2+2?", temperature=1.0)
    assert len(bitnet_case.answers) not in (2, 3, 4, 5), "runs 1 to 4"
"""


@pytest.mark.parametrize("options", [(), ("-n", "2")], ids=["alone", "xdist"])
def test_a_repeated_test_passes_often_enough(pytester: pytest.Pytester, options: tuple[str, ...]) -> None:
    pytester.makepyfile(test_suite=REPEATED)
    files = ("--bitnet-report=r.json", "--bitnet-receipts=out", "--bitnet-digests=d.json", *options)
    done = run(pytester, *files, "--bitnet-update-digests")
    done.assert_outcomes(passed=1, failed=1)
    done.stdout.fnmatch_lines(
        [
            "2 of 6 runs passed, expected at least 6",
            "  run 1: runs 1 to 4",
            "    assert 2 not in (2, 3, 4, 5)",
            "  run 4: runs 1 to 4",
            "run 5, conversation 6",
            "bitnet: 1 of 2 evaluation cases passed",
        ]
    )
    report = json.loads((pytester.path / "r.json").read_text())
    passes, fails = report["test_suite.py::test_passes"], report["test_suite.py::test_all_must_pass"]
    assert passes["runs"] == [True, False, True, True, True, True]
    assert fails["runs"] == [True, False, False, False, False, True]
    assert [answer["run"] for answer in passes["answers"]] == [0, 1, 2, 3, 4, 5]
    receipts = [json.loads((pytester.path / "out" / one["receipt"]).read_text()) for one in passes["answers"]]
    assert [receipt["claim"]["sampling"]["seed"] for receipt in receipts] == [0, 1, 2, 3, 4, 5]
    run(pytester, *files, "-k", "passes").assert_outcomes(passed=1, deselected=0 if options else 1)


def test_repetitions_that_cannot_differ_are_refused(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
import pytest

@pytest.mark.parametrize("sampling", [{}, {"temperature": 1.0, "seed": 7}])
@pytest.mark.bitnet_eval(repeat=3)
def test_same(bitnet_case, sampling):
    bitnet_case.ask("What is 2+2?", **sampling)

@pytest.mark.bitnet_eval(repeat=3)
def test_other_questions(bitnet_case):
    bitnet_case.ask(f"What is 2+{len(bitnet_case.answers)}?")

@pytest.mark.bitnet_eval(repeat=3)
def test_without_the_fixture():
    pass
"""
    )
    done = run(pytester)
    done.assert_outcomes(passed=1, failed=3)
    done.stdout.fnmatch_lines(["all 3 runs of this test asked and answered the same; *temperature*"] * 2)
    done.stdout.fnmatch_lines(["*repeat=3) needs a test that uses bitnet_case"])


def test_skips_and_expected_failures_of_repeated_tests(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
import pytest

pytestmark = pytest.mark.bitnet_eval(repeat=2)

def test_skips(bitnet_case):
    pytest.skip()

@pytest.mark.xfail
def test_fails_as_expected(bitnet_case):
    bitnet_case.ask("What is 2+2?", temperature=1.0)
    pytest.fail()

@pytest.mark.bitnet_eval(at_least=1)
def test_markers_add_up(bitnet_case):
    bitnet_case.ask("What is 2+2?", temperature=1.0)
    assert len(bitnet_case.answers) == 2
"""
    )
    done = run(pytester)
    done.assert_outcomes(passed=1, skipped=1, xfailed=1)
    done.stdout.fnmatch_lines(["bitnet: 1 of 1 evaluation cases passed, 1 skipped, 1 xfailed"])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("repeats=3", "no argument 'repeats'; the arguments are group, repeat, at_least"),
        ("3", "write its arguments as keywords; found 3"),
        ("repeat=0", "repeat is a number of runs, at least 1; found 0"),
        ("repeat=2.5", "repeat is a number of runs, at least 1; found 2.5"),
        ("repeat=3, at_least=4", "at_least is a number of runs from 1 to repeat=3; found 4"),
        ("repeat=3, at_least=0.8", "at_least is a number of runs from 1 to repeat=3; found 0.8"),
        ("group=3", "group is a name; found 3"),
    ],
)
def test_wrong_arguments_of_the_marker(pytester: pytest.Pytester, arguments: str, said: str) -> None:
    mark = f"@pytest.mark.bitnet_eval({arguments})"
    pytester.makepyfile(f"import pytest\n{mark}\ndef test(): print('RUN')")
    done = run(pytester, "-s")
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    done.stderr.fnmatch_lines([f"ERROR: *::test: @pytest.mark.bitnet_eval: {said}"])
    done.stdout.no_fnmatch_line("*RUN*")


def test_unittest_cannot_be_repeated(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
import pytest, unittest

class Test(unittest.TestCase):
    @pytest.mark.bitnet_eval(repeat=2)
    def test(self): pass
"""
    )
    run(pytester).stderr.fnmatch_lines(["*repeat works for test functions and for methods of plain classes only"])


# -- Scores and reports ------------------------------------------------------------------------------------------------

EVIL = "<script>alert('x')</script> | # `code` *bold* & ```"
GROUPS = f"""
import pytest

EVIL = {EVIL!r}

@pytest.mark.bitnet_eval(group="sums")
@pytest.mark.parametrize("i", [2, 3])
def test_sum(bitnet_case, i):
    bitnet_case.ask(f"What is {{i}}+{{i}}?").must_give_number(2 * i)

@pytest.mark.bitnet_eval(group="words")
def test_word(bitnet_case):
    bitnet_case.ask(EVIL).must_be(EVIL)

@pytest.mark.bitnet_eval
def test_else(bitnet_case):
    bitnet_case.complete("2+2=", max_tokens=1).must_be("4")

@pytest.mark.skip
@pytest.mark.bitnet_eval(group="words")
def test_skipped(bitnet_case): pass

def test_no_case(bitnet_case): pass
"""


class Page(HTMLParser):
    """The tags, addresses and text of an HTML page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str | None] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize("options", [(), ("-n", "2")], ids=["alone", "xdist"])
def test_scores_of_groups_and_reports(pytester: pytest.Pytester, options: tuple[str, ...]) -> None:
    pytester.makepyfile(test_suite=GROUPS)
    done = run(
        pytester, "--bitnet-report=new/r.md", "--bitnet-report=new/r.html", "--bitnet-report", "r.json", *options
    )
    done.assert_outcomes(passed=4, failed=1, skipped=1)
    lines = done.outlines[done.outlines.index("bitnet: 3 of 4 evaluation cases passed, 1 skipped") + 1 :][:3]
    assert sorted(lines) == ["  (no group)  1 of 1", "  sums        2 of 2", "  words       0 of 1, 1 skipped"]

    report = json.loads((pytester.path / "r.json").read_text())
    assert {facts["group"] for facts in report.values()} == {"sums", "words", None}
    assert {facts["model"] for facts in report.values()} == {"trit.gguf", None}
    assert "expected the answer to be" in report["test_suite.py::test_word"]["message"]

    text = (pytester.path / "new" / "r.md").read_text()
    assert text.startswith("# Evaluation of trit.gguf\n\nPassed: 3 of 4, 1 skipped (75 %; 95 % interval 30 % to 95 %).")
    assert "\n| sums | 2 of 2 | 100 %; 95 % interval 34 % to 100 % |\n" in text
    assert "\n### test\\_suite.py::test\\_word: failed\n" in text
    assert f"\n  user       {EVIL}\n" in text
    outside = re.sub(r"^(`{3,})text\n.*?^\1\n", "", text, flags=re.DOTALL | re.MULTILINE)
    assert "script" not in outside and "\\`" not in outside

    page = Page((pytester.path / "new" / "r.html").read_text())
    assert "script" not in page.tags and page.addresses == []
    assert page.tags.count("details") == 6 == (pytester.path / "new" / "r.html").read_text().count("<details")
    assert (pytester.path / "new" / "r.html").read_text().count("<details open>") == 1
    for shown in ("Evaluation of trit.gguf", "Passed: 3 of 4, 1 skipped", EVIL, "2+2=4.", "expected the answer to be"):
        assert shown in page.text


def test_two_models_are_compared(pytester: pytest.Pytester, text_model: Path) -> None:
    shutil.copy(text_model, pytester.path / "other.gguf")
    pytester.makepyfile(test_suite=GROUPS.replace("EVIL).must_be(EVIL)", '"Hi", max_tokens=4).must_not_contain("2")'))
    run(pytester, "--bitnet-model=other.gguf", "--bitnet-report=other.json", "--bitnet-receipts=out")
    other = json.loads((pytester.path / "other.json").read_text())
    passed = [test for test, facts in other.items() if facts["outcome"] == "passed" and facts["evaluation"]]
    assert passed == ["test_suite.py::test_word"]
    pytester.makepyfile(
        test_suite=GROUPS + "\n@pytest.mark.bitnet_eval\ndef test_new(bitnet_case): bitnet_case.ask('Hello')"
    )
    compared = ("--bitnet-compare=other.json", "--bitnet-report=r.md", "--bitnet-report=r.html")
    done = run(pytester, *compared, "-n", "2")
    done.assert_outcomes(passed=5, failed=1, skipped=1)
    said = "compared with other.gguf (other.json): 3 better, 1 worse, 0 the same, 2 not in both"
    done.stdout.fnmatch_lines([f"bitnet: {said}", "  worse   test_suite.py::test_word"])
    assert sum(line.startswith("  better  test_suite.py::test_") for line in done.outlines) == 3
    text, page = (pytester.path / "r.md").read_text(), Page((pytester.path / "r.html").read_text()).text
    assert "## Comparison with other.gguf\n\nC" in text
    for shown in (text.replace("\\", ""), page):
        assert f"C{said[1:]}. Sign test: p = 0.62." in shown
    assert "\n| group | other.gguf | trit.gguf |\n|---|---|---|\n" in text
    assert "\n| sums | 0 of 2 | 2 of 2 |\n" in text
    assert "\n| all | 1 of 4, 1 skipped | 4 of 5, 1 skipped |\n" in text
    row = next(line for line in text.splitlines() if line.startswith("| better | test\\_suite.py::test\\_else | "))
    assert row.endswith(" | 4 |")
    # The report beside the receipts can be compared as well; a run with itself is the same.
    itself = run(pytester, "--bitnet-compare=out/report.json", "--bitnet-model=other.gguf", "-k", "sum or else")
    itself.stdout.fnmatch_lines(["bitnet: compared with other.gguf (report.json): 0 better, 0 worse, 3 the same*"])


def test_reports_of_a_run_without_cases(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test(): pass")
    done = run(pytester, "--bitnet-report=r.md", "--bitnet-report=r.html")
    done.assert_outcomes(passed=1)
    done.stdout.no_fnmatch_line("*bitnet:*")
    for page in ("r.md", "r.html"):
        assert "No test is marked bitnet" in (pytester.path / page).read_text().replace("\\", "")


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("--bitnet-report=r.txt", "--bitnet-report: *r.txt has none of the endings .json, .md, .html, which say *"),
        ("--bitnet-report=there/r.md", "--bitnet-report: *there cannot be a folder (*); *"),
        ("--bitnet-compare=none.json", "--bitnet-compare: cannot read *none.json (No such file or directory)"),
        ("--bitnet-compare=there", "--bitnet-compare: cannot read *there (expected a report that *)"),
    ],
)
def test_files_that_are_no_reports(pytester: pytest.Pytester, option: str, said: str) -> None:
    (pytester.path / "there").write_text('{"test": {"outcome": "passed"}}')
    pytester.makepyfile("def test(): print('RUN')")
    done = run(pytester, "-s", option)
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    done.stderr.fnmatch_lines([f"ERROR: {said}"])
    done.stdout.no_fnmatch_line("*RUN*")


# -- Digests: which part changed ---------------------------------------------------------------------------------------


def test_a_changed_digest_names_the_part(pytester: pytest.Pytester, text_model: Path) -> None:
    suite = """
def test(bitnet_case):
    bitnet_case.complete("2+2=", max_tokens=1)
    chat = bitnet_case.chat("Be brief.", max_tokens=9)
    chat.ask("What is 2+2?")
    chat.ask("What is 3+3?")
"""
    pytester.makepyfile(test_suite=suite)
    run(pytester, "--bitnet-digests=d.json", "--bitnet-update-digests").assert_outcomes(passed=1)
    for old, new, lines in [
        (
            "max_tokens=9",
            "max_tokens=8",
            [
                "  prompt 'What is 2+2?': sampling.max_tokens is 8, was 9; the text is the same",
                "  prompt 'What is 3+3?': sampling.max_tokens is 8, was 9; the text is the same",
            ],
        ),
        (
            "max_tokens=9",
            "max_tokens=2",
            [
                "  prompt 'What is 2+2?': sampling.max_tokens is 2, was 9; the text is '2+', was '2+2=4.'; "
                'finish_reason is "length", was "stop"',
            ],
        ),
        ("brief", "Brief", ["  prompt 'What is 2+2?': system; prompt_ids; the text is the same"]),
        ('chat.ask("What is 2+2?")', 'chat.ask("What is 2+2?", seed=4)', ["*'What is 3+3?': previous: an earlier *"]),
        ('chat.ask("What is 3+3?")', "pass", ["  prompt 'What is 3+3?', answer '3+3=6.': in the file, but the test *"]),
        ('chat.ask("What is 3+3?")', 'chat.ask("What is 3+3?")\n    chat.ask("a")', ["  prompt 'a', *: not in the *"]),
        ("2+2=", "3+3=", ["  prompt '3+3=': the prompt was '2+2='; the text is '6', was '4'"]),
    ]:
        assert old in suite
        pytester.makepyfile(test_suite=suite.replace(old, new, 1))
        changed = run(pytester, "--bitnet-digests=d.json")
        changed.assert_outcomes(failed=1)
        changed.stdout.fnmatch_lines(["the answers differ from those in d.json", *lines])
    pytester.makepyfile(test_suite=suite)
    other = run(pytester, "--bitnet-digests=d.json", f"--bitnet-model={text_model}")
    other.stdout.fnmatch_lines(
        ["  prompt '2+2=': model; tokenizer; ffn_act is \"silu\", was \"relu2\"; *; the text is *, was '4'*"]
    )
    run(pytester, "--bitnet-digests=d.json").assert_outcomes(passed=1)


def test_a_file_of_digests_says_common_things_once(pytester: pytest.Pytester) -> None:
    test = "def {}(bitnet_case): bitnet_case.complete('2+2=', max_tokens={})\n"
    pytester.makepyfile(test_suite=test.format("test_one", 1) + test.format("test_two", 2))
    run(pytester, "--bitnet-digests=d.json", "--bitnet-update-digests").assert_outcomes(passed=2)
    found = json.loads((pytester.path / "d.json").read_text())
    assert found["common"]["sampling.top_k"] == 0
    assert [answer["claim"]["sampling.max_tokens"] for [answer] in found["tests"].values()] == [1, 2]
    assert "sampling.top_k" not in (pytester.path / "d.json").read_text().partition('"tests"')[2]
    # What is common changes with the tests; the others' entries stay complete.
    pytester.makepyfile(test_suite=test.format("test_one", "1, top_k=5") + test.format("test_two", 2))
    options = ("--bitnet-digests=d.json", "--bitnet-update-digests", "-k", "one")
    run(pytester, *options).assert_outcomes(passed=1, deselected=1)
    found = json.loads((pytester.path / "d.json").read_text())
    assert [answer["claim"]["sampling.top_k"] for [answer] in found["tests"].values()] == [5, 0]
    run(pytester, "--bitnet-digests=d.json").assert_outcomes(passed=2)


def test_files_of_digests_of_version_1_are_read(pytester: pytest.Pytester) -> None:
    test = "def {}(bitnet_case): bitnet_case.complete('2+2=', max_tokens={})\n"
    pytester.makepyfile(test_suite=test.format("test_one", 1) + test.format("test_two", 2))
    file = pytester.path / "d.json"
    run(pytester, "--bitnet-digests=d.json", "--bitnet-update-digests").assert_outcomes(passed=2)
    tests = json.loads(file.read_text())["tests"]
    digests = {test: [answer["digest"] for answer in answers] for test, answers in tests.items()}
    file.write_text(json.dumps(digests))
    run(pytester, "--bitnet-digests=d.json").assert_outcomes(passed=2)
    file.write_text(json.dumps({**digests, "test_suite.py::test_one": ["0" * 64]}))
    done = run(pytester, "--bitnet-digests=d.json")
    done.assert_outcomes(passed=1, failed=1)
    done.stdout.fnmatch_lines(["  prompt '2+2=': answer '4'; the file has no more than the digest of what it was"])
    # An update writes the new form, and keeps what it does not run.
    options = ("--bitnet-digests=d.json", "--bitnet-update-digests", "-k", "one")
    run(pytester, *options).assert_outcomes(passed=1, deselected=1)
    run(pytester, "--bitnet-digests=d.json").assert_outcomes(passed=2)
    assert json.loads(file.read_text())["tests"]["test_suite.py::test_two"] == [
        {"digest": digests["test_suite.py::test_two"][0]}
    ]
    file.write_text('{"version": 3}')
    assert run(pytester, "--bitnet-digests=d.json").ret == pytest.ExitCode.USAGE_ERROR
