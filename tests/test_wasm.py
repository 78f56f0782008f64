"""The core as WebAssembly: receipts are replayed in node and in a browser's tab, with the digests and verdicts of the
native engine. `make wasm` builds the module."""

from __future__ import annotations

import functools
import http.server
import json
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import bitnet
from bitnet.models import inside
from browser import HAS_CHROMIUM, NO_CHROMIUM, chromium
from conftest import ROOT
from served import eventually
from test_receipt_mutants import forged

PAGE = ROOT / "docs" / "verify"
MODULE = PAGE / "bitnet.wasm"
OLD = ROOT / "tests" / "fixtures" / "v0.1.0"
if not MODULE.exists():
    pytest.skip(f"no {MODULE.name} beside the page; `make wasm` builds it", allow_module_level=True)

NODE = shutil.which("node")
needs_node = pytest.mark.skipif(not NODE, reason="no node here (Debian: nodejs)")
needs_chromium = pytest.mark.skipif(not HAS_CHROMIUM, reason=NO_CHROMIUM)

WAYS: dict[str, dict[str, Any]] = {
    "greedy": {},
    "sampled": {"temperature": 0.9, "top_p": 0.9, "seed": 7},
    "filtered": {"temperature": 1.5, "top_k": 20, "min_p": 0.02, "seed": 2**63 + 1},
    "penalties": {
        **{"temperature": 0.8, "repetition_penalty": 1.3, "presence_penalty": 0.4, "frequency_penalty": 0.2},
        **{"repeat_last_n": 16, "seed": 3},
    },
    "biased": {"logit_bias": {51: 2.5, 43: float("-inf")}, "temperature": 0.5, "seed": 11},
    "form": {"regex": "[0-9]{3,5}", "temperature": 1.0, "seed": 5},
    "stop": {"stop": ["."]},
}
"""Ways to choose ids."""


@pytest.fixture(scope="module")
def receipts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Receipts of the model inside, made natively, by name; `forged` has another id at index 3."""
    folder = tmp_path_factory.mktemp("receipts")
    paths = {name: folder / f"{name}.json" for name in [*WAYS, "chat", "f32", "forged", "damaged"]}
    with bitnet.Engine(n_threads=1) as engine:
        for name, parameters in WAYS.items():
            question = [{"role": "user", "content": "Who are you?"}]
            engine.chat(question, **{"max_tokens": 12, **parameters}).receipt.save(paths[name])
        chat = bitnet.ChatSession(engine, "Be kind.")
        chat.send("What is 2+2?")
        chat.send("Who are you?").receipt.save(paths["chat"])
        greedy = bitnet.Receipt.load(paths["greedy"])
        ids = list(greedy.to_dict()["claim"]["output_ids"])
        ids[3] = (ids[3] + 1) % engine.n_vocab
        forged(greedy, output_ids=ids).save(paths["forged"])
    with bitnet.Engine(n_threads=1, kv_type="f32", act_quant="none", n_ctx=100) as engine:
        engine.generate([1, 2, 3], max_tokens=8).receipt.save(paths["f32"])
    document = json.loads(paths["greedy"].read_text("utf-8"))
    document["claim"]["n_ctx"] += 1
    paths["damaged"].write_text(json.dumps(document), "utf-8")
    return paths


def replayed(*files: Path, model: Path | None = None) -> list[dict[str, Any]]:
    """What the module says in node: of the model, and of each receipt."""
    command = [str(NODE), str(ROOT / "tests" / "replay.mjs"), str(MODULE), str(model or inside()), *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@needs_node
def test_node_replays_what_was_made_natively(receipts: dict[str, Path]) -> None:
    honest = [name for name in receipts if name not in ("forged", "damaged")]
    model, *found = replayed(*(receipts[name] for name in honest))
    assert model["architecture"] == "bitnet-b1.58" and model["isas"][0] == "scalar"
    for name, one in zip(honest, found, strict=True):
        receipt = bitnet.Receipt.load(receipts[name])
        assert one["replay"]["same"] is True, (name, one)
        assert one["digest"] == receipt.digest, name
        assert one["model"]["blake3"] == model["blake3"] == receipt.to_dict()["claim"]["model"]


@needs_node
def test_node_replays_old_receipts_with_their_digests() -> None:
    expected = json.loads((OLD / "expected.json").read_text("utf-8"))["receipts"]
    _, *found = replayed(*(OLD / "receipts" / f"{name}.json" for name in expected))
    for (name, told), one in zip(expected.items(), found, strict=True):
        assert one["valid"] and one["digest"] == told["digest"]
        if name.endswith("-redacted"):
            assert one["replay"]["same"] is None and "redacted" in one["replay"]["error"]
        else:
            assert one["replay"]["same"] is True, (name, one)


@needs_node
def test_node_finds_a_forged_id_and_a_damaged_receipt(receipts: dict[str, Path]) -> None:
    _, wrong, damaged = replayed(receipts["forged"], receipts["damaged"])
    claimed = bitnet.Receipt.load(receipts["forged"]).to_dict()["claim"]["output_ids"]
    honest = bitnet.Receipt.load(receipts["greedy"]).to_dict()["claim"]["output_ids"]
    assert wrong["valid"] and wrong["replay"]["same"] is False
    assert wrong["replay"]["first_difference"] == 3
    assert (wrong["replay"]["claimed"], wrong["replay"]["found"]) == (claimed[3], honest[3])
    assert damaged["valid"] is False and "gate" in damaged["error"]


@needs_node
def test_another_model_is_named(receipts: dict[str, Path], text_model: Path) -> None:
    model, found = replayed(receipts["greedy"], model=text_model)
    assert found["replay"]["same"] is None
    assert model["blake3"] in found["replay"]["error"] and "claim." in found["replay"]["error"]


@needs_node
def test_the_module_imports_nothing() -> None:
    """Without imports it reaches no file, no network and no clock, whatever a model or a receipt holds."""
    script = "process.stdout.write(JSON.stringify(WebAssembly.Module.imports(new WebAssembly.Module(fs.readFileSync("
    done = subprocess.run([str(NODE), "-e", f"{script}process.argv[1])))))", MODULE], capture_output=True, check=True)
    assert json.loads(done.stdout) == []


# -- In a browser -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """The address of the page on a server of static files."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(PAGE)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/index.html"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with chromium(tmp_path_factory.mktemp("browser")) as browser:
        yield browser


def results(browser: Any, count: int) -> list[tuple[str, str]]:
    """Kind and text of each receipt in the list, once all have a verdict."""
    script = "return [...document.querySelectorAll('#results li')].map(one => [one.className, one.innerText])"
    eventually(lambda: [bool(kind) for kind, _ in browser.execute_script(script)] == [True] * count, seconds=120)
    return [(kind, text) for kind, text in browser.execute_script(script)]


def model_line(browser: Any, beginning: str) -> str:
    read = functools.partial(browser.execute_script, "return document.getElementById('model').innerText")
    eventually(lambda: str(read()).startswith(beginning), seconds=120)
    return str(read())


@needs_chromium
def test_the_page_replays_chosen_receipts(browser: Any, url: str, receipts: dict[str, Path]) -> None:
    browser.get(url)
    model_line(browser, "Model: trit.gguf (bitnet-b1.58")
    names = [*WAYS, "chat", "f32", "forged", "damaged"]
    browser.find_element("id", "files").send_keys("\n".join(str(receipts[name]) for name in names))
    for name, (kind, text) in zip(names, results(browser, len(names)), strict=True):
        lines = text.splitlines()
        assert lines[0] == f"{name}.json"
        if name == "damaged":
            assert kind == "error" and lines[1].startswith("Not valid")
            continue
        assert bitnet.Receipt.load(receipts[name]).digest in lines
        if name == "forged":
            assert kind == "differs" and "At index 3 of the answer it claims" in text
        else:
            assert kind == "proven" and lines[1].startswith("Proven The same "), text
            assert "Told, not proven: claim.previous" in text


@needs_chromium
def test_the_page_takes_dropped_files(browser: Any, url: str, receipts: dict[str, Path], text_model: Path) -> None:
    """A receipt that waits for its model is replayed once it is there."""
    browser.get(url)
    model_line(browser, "Model: trit.gguf")
    drop = """const files = new DataTransfer();
    files.items.add(new File([arguments[1]], arguments[0]));
    document.dispatchEvent(new DragEvent("drop", { dataTransfer: files, cancelable: true, bubbles: true }));"""
    browser.execute_script(drop, "mine.json", receipts["sampled"].read_text("utf-8"))
    assert results(browser, 1)[0][0] == "proven"
    browser.find_element("id", "files").send_keys(str(text_model))
    model_line(browser, f"Model: {text_model.name}")
    ((kind, text),) = results(browser, 1)
    assert kind == "error" and "This model cannot compute the answer again" in text
    browser.find_element("id", "files").send_keys(str(inside()))
    model_line(browser, "Model: trit.gguf")
    assert results(browser, 1)[0][0] == "proven"
    browser.execute_script(drop, "nothing.gguf", "no model")
    assert "cannot be used" in model_line(browser, "nothing.gguf")
    assert results(browser, 1)[0][0] == "error"


@needs_chromium
def test_the_page_asks_its_own_server_only(browser: Any, url: str) -> None:
    browser.get(url)
    model_line(browser, "Model: trit.gguf")
    asked = browser.execute_script("return performance.getEntriesByType('resource').map(one => one.name)")
    assert asked and all(one.startswith(url.removesuffix("index.html")) for one in asked)
    refused = """const [done] = [arguments[arguments.length - 1]];
    fetch("http://127.0.0.1:9/").then(() => done("sent"), (error) => done(error.name));
    """
    assert browser.execute_async_script(refused) == "TypeError"
    policy = browser.execute_script("return document.querySelector('meta[http-equiv]').content")
    assert (
        "default-src 'none'" in policy
        and "unsafe-inline" not in policy
        and "unsafe-eval" not in policy.replace("wasm-unsafe-eval", "")
    )
