"""The page of `bitnet serve` in a real browser: chat, settings, receipts, keys, errors, keyboard, colours, sizes."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from starlette.testclient import TestClient

import bitnet
from bitnet.server import Settings, create_app
from browser import ANSWER, HAS_CHROMIUM, NO_CHROMIUM, Page, chromium, scripted
from scripted_model import scripted_model
from served import eventually, running
from test_receipt_mutants import forged
from test_thinking import ASKED, PLAIN, QWEN3, SCRIPT

if not HAS_CHROMIUM:
    pytest.skip(NO_CHROMIUM, allow_module_level=True)

LAST, NOTICE = ".turn:last-child ", "#notice p"
HOSTILE = "<img src=x onerror=alert(1)><script>alert(2)</script>"
MARKDOWN = """# Title

Some **bold**, *slanted* and `code`, [a link](https://example.org/a), 2*3*4 and snake_case_name.
A second line.

1. one
2. two
   - inner `x`
3. three

````python
if a:
    print("```")
````

| a | b |
|---|---|
| 1 | **2** |

> quoted
***
[bad](javascript:alert(1)) <b>no</b> **open"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with chromium(tmp_path_factory.mktemp("browser")) as browser:
        yield browser


@pytest.fixture
def page(browser: Any) -> Iterator[Page]:
    """The page; at the end, the browser must not have complained about anything unexpected."""
    page = Page(browser)
    page.screen()
    browser.get_log("browser")
    yield page
    complaints = [entry["message"] for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]
    expected = page.statuses | {"favicon.ico"}  # of /health; the page has an icon of its own
    assert [one for one in complaints if not any(words in one for words in expected)] == []


@pytest.fixture(scope="module")
def trit() -> Iterator[bitnet.Engine]:
    with bitnet.Engine(n_threads=1) as engine:
        yield engine


@pytest.fixture(scope="module")
def url(trit: bitnet.Engine) -> Iterator[str]:
    """The address of a server of the model in the package."""
    with running(create_app(trit)) as url:
        yield url


@pytest.fixture(scope="module")
def endless(tmp_path_factory: pytest.TempPathFactory) -> Iterator[bitnet.Engine]:
    """A model that goes on until its large context is full."""
    words = ["tick ", "tock\n\n"]
    path = tmp_path_factory.mktemp("endless") / "endless.gguf"
    scripted_model(path, ["\n", *words, words[0]], template=PLAIN, context=1 << 17, words=words)
    with bitnet.Engine(path, n_ctx=1 << 17, n_threads=1) as engine:
        yield engine


# -- Chat -------------------------------------------------------------------------------------------------------------


def test_a_question_is_answered(page: Page, url: str, trit: bitnet.Engine) -> None:
    page.open(url)
    eventually(lambda: page.texts("#model") == ["trit"])
    assert page.texts("#context") == ["384 tokens of context"]
    page.click("#examples button", "What is 2+2?")
    assert page.answers(1) == ["2+2=4."]
    (told,) = page.texts(".told")
    assert told.startswith("complete\n14 prompt tokens") and "\n7 answer tokens\nprefill " in told
    assert told.count(" tok/s") == 2
    own = trit.chat([{"role": "user", "content": "What is 2+2?"}]).receipt
    assert own and page.claim()["output_ids"] == own.to_dict()["claim"]["output_ids"]
    assert page.ask("Who are you?", 2)[1].startswith("I am Trit")
    assert "cached)" in page.texts(".told")[1]
    assert " of 384 tokens" in page.texts("#context")[0]


def test_the_conversation_is_kept_cleared_and_restored(page: Page, url: str) -> None:
    page.open(url).ask("What is 2+2?")
    page.kept()
    page.browser.refresh()
    assert page.answers(1) == ["2+2=4."]
    page.click("#clear")
    assert page.texts(".turn") == [] and page.texts("#examples") != []
    assert page.kept(0) == []
    page.click("#notice button", "Undo")
    assert page.texts(ANSWER) == ["2+2=4."] and len(page.kept()) == 2


def test_a_message_is_edited(page: Page, url: str) -> None:
    page.open(url).ask("What is 2+2?")
    page.ask("Who are you?", 2)
    page.click(".user:first-child .edit")
    page.type(Keys.CONTROL + "a", "What is 3+4?", Keys.ESCAPE)
    assert page.texts(".user .text") == ["What is 2+2?", "Who are you?"], "Esc changes nothing"
    page.click(".user:first-child .edit")
    page.type(Keys.CONTROL + "a")
    page.type("What is 3+4?", Keys.ENTER)
    assert page.answers(1) == ["3+4=7."]
    assert page.texts(".user .text") == ["What is 3+4?"]


def test_an_answer_is_computed_again(page: Page, url: str) -> None:
    page.open(url, settings={"temperature": "2", "max_tokens": "20"}).ask("Who are you?")
    before = page.kept()[-1]["digest"]
    page.click(".retry")
    eventually(lambda: page.kept()[-1]["digest"] != before)
    assert [turn["role"] for turn in page.kept()] == ["user", "assistant"]
    page.ask("What is 2+2?", 2)
    assert len(page.all(".retry")) == 1, "only the last answer can be computed again"
    page.click(".retry")
    eventually(lambda: len(page.kept(2)) == 4)
    assert len(page.answers(2)) == 2


def test_an_answer_is_stopped(page: Page, endless: bitnet.Engine) -> None:
    app = create_app(endless)
    with running(app) as url:
        page.open(url)
        for i, stop in enumerate((lambda: page.type(Keys.ESCAPE), lambda: page.click("#stop")), 1):
            page.browser.find_element(By.ID, "question").send_keys("x", Keys.ENTER)
            eventually(lambda: len(page.texts(ANSWER)[-1:]) == 1 and "tock" in page.texts(ANSWER)[-1])
            assert app.state.service.gate.running == 1
            stop()
            answers = page.answers(i)
            assert answers[-1].startswith("tick tock") and page.texts(".end")[-1] == "stopped by you"
            eventually(lambda: app.state.service.gate.running == 0)
            assert page.browser.switch_to.active_element.get_attribute("id") == "question"


def test_a_new_chat_ends_the_answer(page: Page, endless: bitnet.Engine) -> None:
    app = create_app(endless)
    with running(app) as url:
        page.open(url)
        page.browser.find_element(By.ID, "question").send_keys("x", Keys.ENTER)
        eventually(lambda: "tock" in "".join(page.texts(ANSWER)))
        page.click("#clear")
        eventually(lambda: app.state.service.gate.running == 0 and not page.all("#stop"))
        assert page.texts(".turn") == []
        page.click("#notice button", "Undo")
        assert page.texts(".end") == ["stopped by you"]


def test_the_view_stays_where_the_user_is(page: Page, endless: bitnet.Engine) -> None:
    left = "const s = document.getElementById('scroll'); return s.scrollHeight - s.scrollTop - s.clientHeight"
    with running(create_app(endless)) as url:
        page.open(url)
        page.browser.find_element(By.ID, "question").send_keys("x", Keys.ENTER)
        first = "return document.querySelector('.answer .text').firstElementChild"
        eventually(lambda: page.run("return document.getElementById('scroll').scrollTop") > 300)
        kept = page.run(first)
        page.run("document.getElementById('scroll').scrollTop = 100")
        before = page.run(left)
        eventually(lambda: page.run(left) > before + 500)
        assert page.run("return document.getElementById('scroll').scrollTop") == 100
        page.click("#down")
        eventually(lambda: page.run(left) < 100)
        page.type(Keys.ESCAPE)
        page.answers(1)
        eventually(lambda: page.run(left) < 2)
        assert page.run(first) == kept, "finished lines are not made again"


def test_thoughts_are_folded(page: Page, tmp_path: Path) -> None:
    scripted_model(tmp_path / "model.gguf", SCRIPT, template=QWEN3)
    with bitnet.Engine(tmp_path / "model.gguf", n_threads=1) as engine, running(create_app(engine)) as url:
        assert page.open(url).ask("x") == ["\t42"]
        assert page.texts(".thoughts") == ["Thoughts"]
        page.click(".thoughts summary")
        assert page.texts(".thoughts div") == ["hm?"]
        own = engine.chat([*ASKED, {"role": "assistant", "content": "\t42", "reasoning_content": "hm?"}, *ASKED])
        page.ask("x", 2)
        assert page.kept(2)[-1]["usage"]["prompt_tokens"] == own.prompt_tokens
        page.open(url, settings={"enable_thinking": "false"}).ask("x")
        assert own.receipt and (off := engine.chat(ASKED, enable_thinking=False, max_tokens=1).receipt)
        assert page.claim()["prompt_ids"] == off.to_dict()["claim"]["prompt_ids"]


def test_an_answer_is_copied(page: Page, url: str) -> None:
    page.open(url).ask("What is 2+2?")
    grant = {"permissions": ["clipboardReadWrite"], "origin": url}
    page.browser.execute_cdp_cmd("Browser.grantPermissions", grant)
    for place, text in ((".answer", "2+2=4."), (".user", "What is 2+2?")):
        page.click(f"{place} button", "Copy")
        eventually(lambda place=place: "Copied" in page.texts(f"{place} button"))
        assert page.run("return navigator.clipboard.readText()") == text
        page.run("navigator.clipboard.writeText = undefined")  # as on an origin that is not secure


# -- Text -------------------------------------------------------------------------------------------------------------


def test_a_hostile_answer_stays_text(page: Page, tmp_path: Path) -> None:
    with scripted(tmp_path / "model.gguf", HOSTILE, words=(HOSTILE,)) as url:
        assert page.open(url).ask(HOSTILE) == [HOSTILE]
        page.browser.refresh()
        assert page.answers(1) == [HOSTILE] == page.texts(".user .text")
        assert page.run("return document.querySelectorAll('main img, main script').length") == 0


def test_markdown_is_the_same_whole_and_in_pieces(page: Page, url: str) -> None:
    page.open(url)
    made = page.run(
        """return [1, 3, 7, 1e6].map(size => {
          const root = document.createElement("div"), markdown = new Markdown(root);
          for (let i = 0; i < arguments[0].length; i += size) markdown.push(arguments[0].slice(i, i + size));
          markdown.end();
          root.normalize();
          return root.innerHTML;
        })""",
        MARKDOWN,
    )
    assert len(set(made)) == 1
    for part in (
        '<h3 dir="auto">Title</h3>',
        "<strong>bold</strong>, <em>slanted</em> and <code>code</code>, a link <a ",
        ">https://example.org/a</a>, 2*3*4 and snake_case_name.\nA second line.</p>",
        '<li dir="auto">two<ul><li dir="auto">inner <code>x</code></li></ul></li><li dir="auto">three</li></ol>',
        'if a:\n    print("```")\n</span>',
        '<tr class="head"><td dir="auto">a</td>',
        "<strong>2</strong></td></tr></tbody></table>",
        '<blockquote dir="auto">quoted</blockquote><hr>',
        "[bad](javascript:alert(1)) &lt;b&gt;no&lt;/b&gt; **open</p>",
    ):
        assert part in made[0], part


def test_long_answers_take_no_more_work_for_each_piece(page: Page, url: str) -> None:
    """Every piece makes at most the last line anew, and only the end of a long line."""
    page.open(url)
    text = "word " * 4000
    most, shown = page.run(
        """const root = document.createElement("div"), markdown = new Markdown(root), inline = markdown.inline;
        let work = 0, most = 0;
        markdown.inline = function (parent, text) { work += text.length; inline.call(this, parent, text); };
        for (let i = 0; i < arguments[0].length; i += 5) {
          work = 0;
          markdown.push(arguments[0].slice(i, i + 5));
          most = Math.max(most, work);
        }
        markdown.end();
        return [most, root.textContent];""",
        text,
    )
    assert shown == text
    assert most < 5000


# -- Settings ---------------------------------------------------------------------------------------------------------


def test_settings_reach_the_server(page: Page, url: str) -> None:
    given = {"temperature": "0.75", "top_p": "0.9", "top_k": "7", "min_p": "0.05", "repetition_penalty": "1.1"}
    given |= {"max_tokens": "5", "seed": str(2**64 - 1)}
    page.open(url)
    page.click("#open-settings")
    for name, value in (given | {"system": "Be kind."}).items():
        page.browser.find_element(By.ID, f"set-{name}").send_keys(value)
    page.click("#settings .close")
    page.ask("Who are you?")
    claim = page.claim()
    assert {name: str(claim["sampling"][name]) for name in given} == given
    assert (claim["system"], len(claim["output_ids"])) == ("Be kind.", 5)
    assert page.texts(".end") == ["cut off: longest answer or context reached"]
    page.browser.refresh()
    page.click("#open-settings")
    assert page.run("return document.getElementById('set-top_k').value") == "7", "settings are kept"
    page.click("#reset")
    assert page.run("return [...document.querySelectorAll('#fields input')].map(field => field.value).join('')") == ""


def test_a_setting_that_is_not_valid_is_not_sent(page: Page, url: str) -> None:
    page.open(url, settings={"top_p": "1.5"})
    page.browser.find_element(By.ID, "question").send_keys("Who are you?", Keys.ENTER)
    eventually(lambda: page.all("#settings"))
    assert page.run("return document.activeElement.id") == "set-top_p"
    assert page.texts(".turn") == []
    page.type(Keys.BACKSPACE * 3, Keys.ESCAPE)
    page.type(Keys.ENTER)
    page.answers(1)


# -- Receipts ---------------------------------------------------------------------------------------------------------


def test_a_receipt_is_shown_and_replayed(page: Page, url: str, browser: Any) -> None:
    page.open(url, settings={"temperature": "1"}).ask("What is 2+2?")
    turn = page.kept()[-1]
    page.click(".receipt-link", turn["digest"][:10])
    eventually(lambda: page.all("#document"))
    assert page.texts("#digest") == [turn["digest"]]
    page.click("#document summary")
    shown = page.browser.find_element(By.CSS_SELECTOR, "#document pre").get_property("textContent")
    receipt = bitnet.Receipt.from_json(shown)
    receipt.validate()
    assert receipt.digest == turn["digest"], "a seed of 64 bits survives"
    page.click("#replay")
    eventually(lambda: page.texts("#found strong") == ["Proven"])
    assert "the same tokens, in 0." in page.texts("#found")[0]
    page.click("#download")
    file = browser.folder / f"receipt-{turn['digest'][:12]}.json"
    eventually(file.exists)
    assert bitnet.Receipt.load(file).digest == turn["digest"]
    page.click("#receipt .close")
    assert len(page.all(".receipt-link.proven")) == 1


def test_what_a_replay_finds(page: Page, url: str, trit: bitnet.Engine) -> None:
    receipt: Any = trit.chat([{"role": "user", "content": "What is 2+2?"}]).receipt
    ids = receipt.to_dict()["claim"]["output_ids"]
    other = forged(receipt, output_ids=[*ids[:4], ids[4] + 1, *ids[5:]])
    model: Any = forged(receipt, model="00" * 32)
    broken = receipt.to_dict() | {"digest": "00" * 32}
    cases = [
        ("Differs", "another answer from token 5 on", other.digest, other.to_dict()),
        ("Another receipt", "not the one of this answer", "11" * 32, receipt.to_dict()),
        ("Not valid", "contradicts itself", receipt.digest, broken),
        ("Not replayed", "cannot compute the answer again", model.digest, model.to_dict()),
    ]
    for title, words, digest, document in cases:
        answer = {"role": "assistant", "text": "2+2=5.", "finish": "stop", "digest": digest}
        answer["receipt"] = json.dumps(document)
        page.open(url, turns=[{"role": "user", "text": "What is 2+2?"}, answer])
        page.click(".receipt-link")
        eventually(lambda: page.all("#document"))
        page.click("#replay")
        eventually(lambda title=title: page.texts("#found strong") == [title])
        assert words in page.texts("#found")[0]
        page.click("#receipt .close")
        assert page.all(".receipt-link.proven") == []


# -- Errors -----------------------------------------------------------------------------------------------------------


def test_a_server_with_keys_is_asked_with_one(page: Page, trit: bitnet.Engine) -> None:
    page.statuses = {"401"}
    with running(create_app(trit, Settings(api_keys=("secret",)))) as url:
        page.open(url)
        eventually(lambda: page.all("#key"))
        page.type("wrong", Keys.ENTER)
        eventually(lambda: page.texts("#key-told") == ["The server does not accept the key that was given."])
        page.type("secret", Keys.ENTER)
        eventually(lambda: not page.all("#key"))
        assert page.ask("What is 2+2?") == ["2+2=4."]
        page.browser.refresh()
        assert page.ask("What is 2+2?", 2)[1] == "2+2=4.", "the key is kept while the tab is open"
        page.run("key = 'old'")
        page.browser.find_element(By.ID, "question").send_keys("Who are you?", Keys.ENTER)
        eventually(lambda: page.all("#key"))
        page.type("secret", Keys.ENTER)
        assert page.answers(3)[2].startswith("I am Trit"), "the question is asked again with the new key"


def test_a_busy_server(page: Page, endless: bitnet.Engine) -> None:
    page.statuses = {"429"}
    app = create_app(endless, Settings(max_running=1, max_queue=0))
    with running(app) as url:
        body = {"messages": ASKED, "stream": True}
        with httpx.stream("POST", f"{url}/v1/chat/completions", json=body, timeout=60) as other:
            assert other.status_code == 200
            page.open(url)
            page.browser.find_element(By.ID, "question").send_keys("x", Keys.ENTER)
            eventually(lambda: page.texts(NOTICE))
            assert page.texts(NOTICE) == ["The server is busy: too many requests wait. Try again in 1 s."]
        eventually(lambda: app.state.service.gate.running == 0)
        page.click("#notice button", "Try again")
        eventually(lambda: "tick" in "".join(page.texts(ANSWER)))
        page.type(Keys.ESCAPE)
        page.answers(1)


def test_a_context_that_is_full(page: Page, url: str) -> None:
    page.statuses = {"400"}
    page.open(url)
    eventually(lambda: page.texts("#model") == ["trit"])
    page.browser.find_element(By.ID, "question").send_keys("2 + 2 " * 200, Keys.ENTER)
    eventually(lambda: page.texts(NOTICE))
    assert "does not fit into the model's context of 384 tokens" in page.texts(NOTICE)[0]
    assert page.ask("What is 2+2?") == ["2+2=4."], "a message without an answer is left out"


def test_a_server_that_is_gone(page: Page, trit: bitnet.Engine) -> None:
    page.statuses = {"ERR_CONNECTION_REFUSED"}
    with running(create_app(trit)) as url:
        page.open(url).ask("What is 2+2?")
        page.kept()
    page.browser.find_element(By.ID, "question").send_keys("Who are you?", Keys.ENTER)
    eventually(lambda: page.texts(NOTICE))
    assert page.texts(NOTICE)[0].startswith("The server does not answer. Check that")
    assert page.texts(ANSWER) == ["2+2=4."]


def test_an_answer_that_breaks_off(page: Page, endless: bitnet.Engine) -> None:
    with running(create_app(endless, Settings(timeout=0.5))) as url:
        page.open(url)
        page.browser.find_element(By.ID, "question").send_keys("x", Keys.ENTER)
        assert page.answers(1)[0].startswith("tick tock")
        assert page.texts(".end") == ["broke off"]
        assert "longer than the server allows" in page.texts(NOTICE)[0]


# -- Keyboard, colours, sizes -----------------------------------------------------------------------------------------


def test_the_keyboard_alone(page: Page, url: str) -> None:
    def focused() -> str:
        return str(page.run("return document.activeElement.id || document.activeElement.className"))

    page.open(url)
    assert focused() == "question"
    page.type("What is", Keys.SHIFT + Keys.ENTER + Keys.NULL, "2+2?")
    assert page.run("return document.getElementById('question').value") == "What is\n2+2?"
    page.type(Keys.CONTROL + "a")
    page.type("What is 2+2?", Keys.ENTER)
    page.answers(1)
    page.kept()
    assert focused() == "question"
    seen = []
    for _ in range(20):
        page.type(Keys.SHIFT + Keys.TAB)
        seen.append(focused())
        outline = page.run("return getComputedStyle(document.activeElement).outlineStyle")
        assert outline != "none", f"no focus is seen on {seen[-1]}"
        if "receipt-link" in seen[-1]:
            break
    else:
        pytest.fail(f"Shift+Tab led to {seen}")
    page.type(Keys.ENTER)
    eventually(lambda: focused() == "replay")
    page.type(Keys.ENTER)
    eventually(lambda: page.texts("#found strong") == ["Proven"])
    page.type(Keys.ESCAPE)
    assert "receipt-link" in focused() and not page.all("#receipt")


def test_everything_has_a_name(page: Page, url: str) -> None:
    """As assistive technology sees it: every button and field has a name, and the answer is announced."""
    page.open(url).ask("What is 2+2?")
    nodes = page.browser.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    named = {"button", "textbox", "link", "dialog", "spinbutton", "combobox", "log"}
    roles = [(node["role"]["value"], node.get("name", {}).get("value")) for node in nodes if not node.get("ignored")]
    assert [role for role, name in roles if role in named and not name] == []
    assert ("log", "Conversation") in roles and ("textbox", "Message") in roles
    assert page.run("return document.querySelector('.answer').hasAttribute('aria-busy')") is False


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_have_contrast(page: Page, url: str, scheme: str) -> None:
    page.screen(scheme=scheme)
    page.open(url).ask("What is 2+2?")
    pairs = page.run(
        """const numbers = color => color.match(/[\\d.]+/g).map(Number);
        return [...document.querySelectorAll("h1 span, header button, .turn, .turn *, textarea, kbd, .round")]
          .filter(one => one.checkVisibility({ opacityProperty: true })).map(one => {
            let behind = one;
            while (behind.parentElement && numbers(getComputedStyle(behind).backgroundColor)[3] === 0)
              behind = behind.parentElement;
            return [numbers(getComputedStyle(one).color), numbers(getComputedStyle(behind).backgroundColor)];
          })"""
    )

    def luminance(color: list[float]) -> float:
        parts = [c / 255 / 12.92 if c <= 10 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in color[:3]]
        return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]

    assert len(pairs) > 10
    for pair in pairs:
        high, low = sorted(map(luminance, pair), reverse=True)
        assert (high + 0.05) / (low + 0.05) >= 4.5, pair
    paper = page.run("return getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
    assert (luminance(paper) < 0.05) == (scheme == "dark")


def test_a_phone(page: Page, url: str) -> None:
    page.screen(width=320, height=640)
    wide = "x" * 500
    turns = [{"role": "user", "text": wide}, {"role": "assistant", "text": f"{wide}\n```\n{wide}\n```\n| {wide} | b |"}]
    page.open(url).ask("What is 2+2?")
    page.open(url, turns=[turns[0], turns[1] | {"finish": "stop"}, *page.kept()])
    page.answers(2)
    for opener in (None, "#open-settings", ".receipt-link"):
        if opener:
            page.click(opener)
        overflow = page.run(
            """return [...document.querySelectorAll("body, main, header, footer, dialog[open], dialog[open] .body")]
              .filter(one => one.scrollWidth > one.clientWidth + 1).map(one => one.tagName)"""
        )
        assert overflow == [], opener
        assert page.run("return document.documentElement.scrollWidth") == 320
        if opener:
            page.click("dialog[open] .close")


# -- The server's part ------------------------------------------------------------------------------------------------


def test_the_page_may_run_its_own_script_only(page: Page, url: str, trit: bitnet.Engine) -> None:
    with TestClient(create_app(trit)) as client:
        policy = client.get("/").headers["content-security-policy"]
    assert "unsafe" not in policy and "default-src 'none'" in policy
    page.statuses = {"Content Security Policy", "Trusted"}
    page.open(url)
    added = "const s = document.createElement('script'); s.textContent = 'window.hit = 1'; document.head.append(s)"
    with contextlib.suppress(Exception):
        page.run(added)
    assert page.run("return window.hit") is None
    assert page.run("try { document.body.innerHTML = '<b>'; return 'set' } catch { return 'refused' }") == "refused"


def test_the_page_asks_no_other_server(page: Page, url: str) -> None:
    page.open(url).ask("What is 2+2?")
    asked = page.run("return performance.getEntriesByType('resource').map(one => one.name)")
    assert asked and all(one.startswith((url, "data:")) for one in asked)
