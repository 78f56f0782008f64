"""Notebook support: objects as tables, plots of receipts, progress bars."""

from __future__ import annotations

import contextlib
import io
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import matplotlib.style
import pytest

import bitnet
from bitnet import ChatSession, Engine, Template
from bitnet._shards import shard_names, shard_number
from conftest import ROOT

EVIL = "<script>alert('x')</script> & \"<img src=x onerror=y>"


class Tags(HTMLParser):
    """Collects the tags and the text of an HTML page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def inside() -> Any:
    with Engine(n_threads=2) as engine:
        yield engine


@pytest.fixture(scope="module")
def chat(inside: Engine) -> ChatSession:
    chat = ChatSession(inside, system=EVIL, max_tokens=12)
    for text in ("What is 2+2?", EVIL, "Spell cat."):
        chat.send(text)
    return chat


def test_objects_are_tables_and_text(inside: Engine, chat: ChatSession) -> None:
    for shown, said in [
        (inside, ["Engine trit.gguf", "bitnet-b1.58", inside.isa, "threads 2", f"{inside.n_ctx} positions"]),
        (inside.template, ["Template bitnet", "gguf", "User: Hello<|eot_id|>", inside.template.source]),
        (chat, ["ChatSession", "1 user", "What is 2+2?", "3 assistant", chat.history[-1].text, "reused"]),
        (chat.receipts[0], ["Receipt", chat.receipts[0].digest, chat.receipts[0].timestamp]),
    ]:
        bundle = shown._repr_mimebundle_(include=None, exclude=None)
        assert set(bundle) == {"text/plain", "text/html"}
        assert bundle["text/html"] == shown._repr_html_()
        page = Tags(bundle["text/html"])
        for text in said:
            assert text in bundle["text/plain"]
            assert text in page.text


def test_a_receipt_shows_what_was_asked_and_answered(
    inside: Engine, chat: ChatSession, text_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If a variable of the notebook holds an engine of that model, or a conversation with one."""
    receipt = chat.receipts[0]
    for name, value, shown in [
        ("chat", chat, True),
        ("engine", inside, True),
        ("engine", Engine(text_model), False),
        ("engine", None, False),
    ]:
        with monkeypatch.context() as patch:
            patch.setattr(sys.modules["__main__"], f"notebook_{name}", value, raising=False)
            text, page = (receipt._repr_mimebundle_()[kind] for kind in ("text/plain", "text/html"))
            assert ("User: What is 2+2?<|eot_id|>Assistant: " in text) == shown
            assert ("answer    2+2=4.\n" in text) == shown
            assert ("What is 2+2?&lt;|eot_id|&gt;" in page) == shown
            assert "prompt    " not in receipt.redact()._repr_mimebundle_()["text/plain"]
            forged = receipt.to_dict()
            forged["claim"]["output_ids"][0] = 10**6
            assert "ended " in bitnet.Receipt.from_json(json.dumps(forged))._repr_mimebundle_()["text/plain"]
    closed = Engine()
    closed.close()
    monkeypatch.setattr(sys.modules["__main__"], "notebook_engine", closed, raising=False)
    assert "answer  " not in receipt._repr_mimebundle_()["text/plain"]


def test_a_long_prompt_of_a_receipt_is_cut_and_an_answer_ends_at_its_stop_string(inside: Engine) -> None:
    receipt = ChatSession(inside, stop=["=4", "4."]).send("What is 2+2?").receipt
    rows = bitnet._receipts.summary(receipt, inside.tokenizer)
    assert (rows["answer"], rows["prompt"][-33:]) == ("2+2", "User: What is 2+2?<|eot_id|>Assistant: "[-33:])
    longer = inside.generate("hello " * 100, max_tokens=1).receipt
    prompt = bitnet._receipts.summary(longer, inside.tokenizer)["prompt"]
    assert prompt.startswith("…") and len(prompt) == 501 and prompt.endswith("hello ")


def test_a_receipt_shows_only_settings_that_are_not_the_default(inside: Engine) -> None:
    def shown(answer: Any, with_tokenizer: bool = True, redacted: bool = False) -> dict[str, str]:
        receipt = answer.receipt.redact() if redacted else answer.receipt
        return bitnet._receipts.summary(receipt, inside.tokenizer if with_tokenizer else None)

    plain = inside.generate("2+2=")
    assert shown(plain)["sampling"] == "greedy, all defaults"
    assert shown(plain, redacted=True)["sampling"] == "greedy, all defaults"
    assert shown(plain, with_tokenizer=False)["sampling"] == "stop_token_ids [580, 581]"
    assert shown(plain)["settings"] == "act_quant int8, ffn_act relu2, n_ctx 384"
    assert not {"template", "system"} & shown(plain).keys()
    assert "previous" not in shown(plain)["digest"]
    warm = inside.generate("2+2=", temperature=0.5, top_k=3, seed=7, stop="never", max_tokens=2)
    said = 'temperature 0.5, top_k 3, seed 7, max_tokens 2, stop ["never"]'
    assert shown(warm)["sampling"] == said
    assert shown(warm, redacted=True)["sampling"] == said.replace('["never"]', "redacted")
    assert shown(inside.generate("2+2=", stop_token_ids=[9]))["sampling"] == "stop_token_ids [9, 580, 581]"
    assert shown(inside.generate("2+2=", logit_bias={5: 1.0}, max_tokens=1))["sampling"].startswith("logit_bias [[5, ")
    with Engine(kv_type="f32") as engine:
        rows = shown(ChatSession(engine, "Be brief.").send("What is 2+2?"))
    assert rows["settings"] == "act_quant int8, ffn_act relu2, n_ctx 384, kv_type f32"
    assert (rows["template"], rows["system"]) == ("bitnet (from: gguf)", '"Be brief."')


def test_what_others_wrote_is_shown_and_not_run(chat: ChatSession) -> None:
    template = Template.from_jinja(f"{{# {EVIL} #}}{EVIL}{{{{ messages[0].content }}}}", bos_token=EVIL)
    for shown in (chat, chat.receipts[1], template, Template.from_jinja("{{ raise_exception('<script>no') }}")):
        page = Tags(shown._repr_html_())
        assert page.tags <= {"table", "caption", "b", "tr", "th", "td", "span"}
        assert "<script>" in page.text


def test_a_long_source_is_cut() -> None:
    template = Template.from_jinja("{# " + "long " * 1000 + "#}")
    assert len(template._repr_html_()) < 2500
    assert f"{len(template.source)} characters in all" in template._repr_html_()


def test_a_long_conversation_shows_its_last_turns(inside: Engine) -> None:
    chat = ChatSession(inside, max_tokens=1)
    for i in range(13):
        chat.send(f"Turn {i}!")
    page = Tags(chat._repr_html_()).text
    assert re.findall(r"Turn (\d+)!", page) == [str(i) for i in range(3, 13)]
    assert "6 turns, in chat.history" in page
    assert "4 userTurn 3!" in page


def test_a_closed_engine_and_a_redacted_receipt_are_shown_too(chat: ChatSession) -> None:
    engine = Engine()
    engine.close()
    assert "closed" in engine._repr_html_()
    redacted = chat.receipts[0].redact()
    assert "What is" not in redacted._repr_html_()
    assert "redacted" in redacted._repr_html_()


def test_the_timeline_shows_what_the_receipts_say(chat: ChatSession) -> None:
    times, tokens, prompts = bitnet.plot.timeline(chat.receipts).axes
    drawn = {container.get_label(): [bar.get_width() for bar in container] for container in times.containers}
    for turn, receipt in enumerate(chat.receipts):
        assert drawn["prefill"][turn] == pytest.approx(1e3 * receipt.seconds["prefill"])
        assert drawn["decode"][turn] == pytest.approx(1e3 * receipt.seconds["decode"])
        assert sum(part[turn] for part in drawn.values()) == pytest.approx(1e3 * receipt.seconds["wall"])
        steps = tokens.lines[turn].get_ydata()
        assert list(steps) == pytest.approx([s / 1e6 for s in receipt.to_dict()["run"]["step_ns"]])
    marks = times.collections[0].get_offsets()
    assert [x for x, _ in marks] == pytest.approx([1e3 * one.seconds["first_token"] for one in chat.receipts])
    reused, computed = ([bar.get_height() for bar in container] for container in prompts.containers)
    assert reused == [one.cached_tokens for one in chat.receipts]
    assert reused[1] > 0
    assert [a + b for a, b in zip(reused, computed, strict=True)] == [one.prompt_tokens for one in chat.receipts]
    for axes in (times, tokens, prompts):
        assert axes.get_title() and axes.get_xlabel() and axes.get_ylabel()


def test_answers_of_one_token_have_no_later_ones(inside: Engine, chat: ChatSession) -> None:
    short = inside.generate([1, 2], max_tokens=1).receipt
    tokens = bitnet.plot.timeline([short, short]).axes[1]
    assert list(tokens.lines) == []
    assert [text.get_text() for text in tokens.texts] == ["no later tokens"]
    assert list(tokens.get_xticks()) == [] == list(tokens.get_yticks())
    assert tokens.get_legend() is None
    mixed = bitnet.plot.timeline([short, *chat.receipts]).axes[1]
    assert [text.get_text() for text in mixed.get_legend().get_texts()] == ["answer 2", "answer 3", "answer 4"]
    assert list(mixed.texts) == []


def test_many_answers_can_be_told_apart(chat: ChatSession) -> None:
    """Each answer has a colour; the legend names some of them, and covers nothing."""
    figure = bitnet.plot.timeline(chat.receipts * 15)
    figure.canvas.draw()
    times, tokens, prompts = figure.axes
    assert len({line.get_color() for line in tokens.lines}) == 45
    named = [text.get_text() for text in tokens.get_legend().get_texts()]
    assert 3 < len(named) < 8
    assert (named[0], named[-1]) == ("answer 1", "answer 45")
    for axes in (times, tokens, prompts):
        assert axes.get_legend().get_window_extent().x0 > axes.bbox.x1


def test_the_first_token_is_marked_on_a_dark_ground_too(chat: ChatSession) -> None:
    for style, colour in (("default", (0, 0, 0, 1)), ("dark_background", (1, 1, 1, 1))):
        with matplotlib.style.context(style):
            times = bitnet.plot.timeline(chat.receipts).axes[0]
        assert tuple(times.collections[0].get_edgecolor()[0]) == colour


def test_the_module_of_plots_names_what_is_for_users() -> None:
    assert bitnet.plot.__all__ == ["receipt", "timeline"]


def test_one_receipt_is_a_picture(chat: ChatSession) -> None:
    picture = io.BytesIO()
    chat.receipts[0].plot().savefig(picture, format="png")
    assert picture.getvalue().startswith(b"\x89PNG")
    with pytest.raises(ValueError, match="no receipt"):
        bitnet.plot.timeline([])


def test_progress_is_shown_where_it_is_asked_for(inside: Engine, capfd: pytest.CaptureFixture[str]) -> None:
    """Bars go to Python's `sys.stderr`; nothing writes to the file descriptors directly."""
    ids = [1 + i % (inside.n_vocab - 1) for i in range(300)]
    shown = io.StringIO()
    with contextlib.redirect_stderr(shown), Engine(progress=True) as engine:
        assert engine.prefill(ids[:150]).cached_tokens == 0
        quiet, before = shown.getvalue(), inside.prefill(ids)
        done = engine.prefill(ids, progress=True)
        assert (done.tokens, done.cached_tokens, engine.cached_tokens) == (before.tokens, 150, 300)
        assert engine.generate_tokens(ids, max_tokens=8) == inside.generate_tokens(ids, max_tokens=8)
        loud = shown.getvalue()
        answers = engine.generate(["a", "b", "c"], max_tokens=2, progress=True)
    assert re.search(r"read trit.gguf: 100%.*1.08M/1.08M", quiet)
    assert re.search(r"prefill: 100%.*300/300", loud) and "prefill" not in quiet
    assert re.search(r"generate: 100%.*3/3", shown.getvalue()) and "generate" not in loud
    assert [one.text for one in answers] == [inside.generate(text, max_tokens=2).text for text in "abc"]
    assert capfd.readouterr() == ("", "")


def test_progress_changes_no_error(inside: Engine, capfd: pytest.CaptureFixture[str]) -> None:
    inside.clear_cache()
    inside.prefill([1, 2, 3])
    with pytest.raises(bitnet.ContextLengthError):
        inside.prefill([1] * (inside.n_ctx + 1), progress=True)
    with pytest.raises(bitnet.TokenIdError, match="position 299"):
        inside.prefill([1] * 299 + [inside.n_vocab], progress=True)
    assert inside.cached_tokens == 3
    with pytest.raises(bitnet.ModelNotFoundError):
        Engine("absent.gguf", progress=True)
    assert inside.prefill([], progress=True).tokens == 0


def test_the_files_of_a_split_model_are_read(tmp_path: Path) -> None:
    """The bar counts the bytes of all files; then the engine refuses them, since they are not GGUF."""
    for i, size in ((1, 1000), (2, 2000), (3, 4000)):
        (tmp_path / f"m-{i:05}-of-00003.gguf").write_bytes(bytes(size))
    shown = io.StringIO()
    with contextlib.redirect_stderr(shown), pytest.raises(bitnet.ModelFileError):
        Engine(tmp_path / "m-00001-of-00003.gguf", progress=True)
    assert re.search(r"100%.*7.00k/7.00k", shown.getvalue())


def test_the_names_of_a_split_model() -> None:
    names = [f"m-0000{i}-of-00003.gguf" for i in (1, 2, 3)]
    assert [shard_names(name) for name in ("m.gguf", *names)] == [["m.gguf"], names, names, names]
    assert [shard_number(name) for name in ("m.gguf", *names)] == [None, 1, 2, 3]


def test_without_the_extra_the_package_says_what_to_install() -> None:
    """And everything else works without the extra."""
    code = """
import sys
sys.modules.update(matplotlib=None, tqdm=None)
import bitnet
engine = bitnet.Engine()
receipt = engine.generate([1, 2], max_tokens=2).receipt
engine._repr_html_()
for call in (receipt.plot, lambda: engine.prefill([1], progress=True), lambda: bitnet.Engine(progress=True)):
    try:
        call()
    except ImportError as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stderr == ""
    assert done.stdout.count("pip install 'bitnet-engine[notebook]'") == 3
