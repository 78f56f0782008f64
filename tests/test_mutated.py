"""Changed files, requests and forms of strangers: each is taken, or refused with an error of this package, soon and in
bounded memory.

A run tries some cases of each parser; BITNET_CASES=10000 tries that many, BITNET_FIRST=500 begins with another one.
The Rust parsers are fuzzed by `make fuzz`, too, and batch files in `test_fuzz_batch.py`.
"""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import struct
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

import bitnet
from bitnet.certificate import Certificate, ScoreReceipt
from bitnet.cli import main
from bitnet.server import Settings, create_app
from conftest import ROOT
from mutations import other_bytes, other_document
from test_pack import make_directory

FIXTURES = ROOT / "tests" / "fixtures"
MEMORY = 512 << 20
"""How much more memory than before all cases of a parser may take."""
SECONDS = 10.0
"""How long one case may take: far more than any does, for busy machines."""
ASKED = [{"role": "user", "content": "What is 2+2?"}]

Case = Callable[[random.Random], str]
"""Tries one change and says what came of it."""


def peak() -> int:
    """The most bytes of memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def attempt(cases: int, case: Case) -> Counter[str]:
    """Try cases, each drawn with its number. Returns how often what came of them."""
    cases, first = int(os.environ.get("BITNET_CASES", cases)), int(os.environ.get("BITNET_FIRST", 0))
    found: Counter[str] = Counter()
    before = peak()
    for number in range(first, first + cases):
        start = time.monotonic()
        try:
            found[case(random.Random(number))] += 1
        except BaseException:
            print(f"BITNET_FIRST={number} BITNET_CASES=1 repeats the failure")
            raise
        taken, memory = time.monotonic() - start, peak() - before
        assert taken < SECONDS, f"case {number} took {taken:.1f} s"
        assert memory < MEMORY, f"case {number} took {memory / 1e6:.0f} MB"
    print(f"{sum(found.values())} cases:", ", ".join(f"{n} {what}" for what, n in found.most_common()))
    return found


def outcome(call: Callable[[], object], *others: type[Exception]) -> str:
    """Say "taken", or the class of the error by which it was refused: one of this package's or of the others."""
    try:
        call()
    except (bitnet.BitnetError, *others) as error:
        assert str(error)
        return type(error).__name__
    return "taken"


@pytest.fixture(scope="module")
def trit() -> Iterator[bitnet.Engine]:
    """The model inside, open."""
    with bitnet.Engine(n_threads=1) as engine:
        yield engine


# -- Certificates -----------------------------------------------------------------------------------------------------


def rewritten(draw: random.Random, text: bytes) -> bytes:
    """JSON with other values or other bytes."""
    if draw.random() < 0.3:
        return other_bytes(draw, text)
    return json.dumps(other_document(draw, json.loads(text)), indent=2).encode()


def rewritten_line(draw: random.Random, text: bytes) -> bytes:
    """Lines of JSON, one of which is another."""
    lines = text.splitlines(keepends=True)
    at = draw.randrange(len(lines))
    lines[at] = rewritten(draw, lines[at]) if draw.random() < 0.2 else one_line(draw, lines[at])
    return b"".join(lines)


def one_line(draw: random.Random, line: bytes) -> bytes:
    document = other_document(draw, json.loads(line))
    return json.dumps(document, separators=(",", ":"), sort_keys=True).encode() + b"\n"


def test_certificates(trit: bitnet.Engine, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The file, its leaves and its receipts, by the library and by the command."""
    receipts: dict[str, Any] = {}
    for i in range(2):
        receipts[f"answer/{i}"] = trit.generate(trit.encode(f"{i}+{i}="), max_tokens=2, seed=0).receipt
        receipts[f"score/{i}"] = ScoreReceipt.of(trit, trit.encode(f"{i}+{i}="), trit.encode(f"{2 * i}"))
    whole = Certificate.make(receipts, tmp_path / "receipts", results={"acc": 0.5}).save(tmp_path / "certificate.json")
    files = {path: path.read_bytes() for path in (whole, *(tmp_path / "receipts").iterdir())}
    reseal = [False]

    def check() -> None:
        certificate = Certificate.load(whole)
        if reseal[0]:  # as a forger would, so that the checks behind the digest see it, too
            certificate.save(whole)
        with_model = certificate.verify(engine=trit)
        assert certificate.verify().ok or not with_model.ok
        assert all(str(problem) for problem in with_model.problems)
        if not with_model.ok:
            raise bitnet.ReceiptError("something is wrong")

    def case(draw: random.Random) -> str:
        path = draw.choice([whole, *files])
        path.write_bytes((rewritten if path.suffix == ".json" else rewritten_line)(draw, files[path]))
        reseal[0] = draw.random() < 0.5
        try:
            found = outcome(check, OSError)  # of a folder that is not there
            count = draw.choice(("0", "2"))
            statuses = [main(["certificate", "verify", str(whole), "--count", count, "--threads", "1"])]
            statuses.append(main(["certificate", "show", str(whole)]))
            assert set(statuses) <= {0, 1, 2}
            printed = capsys.readouterr()
            assert "Traceback" not in printed.err
        finally:
            for path, data in files.items():
                path.write_bytes(data)
        return found

    found = attempt(60, case)
    assert found["ReceiptError"]


# -- Requests to the server -------------------------------------------------------------------------------------------

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer", "minimum": 3}}, "required": ["a"]}
TOOL = {"type": "function", "function": {"name": "f", "description": "F.", "parameters": SCHEMA}}
CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a": 3}'}}
REQUESTS: list[tuple[str, dict[str, Any]]] = [
    ("/v1/chat/completions", {"messages": ASKED, "max_tokens": 2, "stream": True, "stop": ["x"], "n": 2}),
    ("/v1/chat/completions", {"messages": ASKED, "max_tokens": 2, "logprobs": True, "top_logprobs": 2, "seed": 1}),
    ("/v1/chat/completions", {"messages": ASKED, "max_tokens": 4, "json_schema": SCHEMA, "receipt": True}),
    ("/v1/chat/completions", {"messages": ASKED, "max_tokens": 4, "choice": ["a", "b"], "top_k": 4, "min_p": 0.1}),
    ("/v1/chat/completions", {"messages": ASKED, "max_tokens": 4, "regex": "[a-c]+", "logit_bias": {"3": -1.5}}),
    ("/v1/chat/completions", {"messages": ASKED, "max_tokens": 4, "grammar": 'start: "a" | start "b"'}),
    (
        "/v1/chat/completions",
        {"messages": ASKED, "max_tokens": 3, "response_format": {"type": "json_schema", "json_schema": {"name": "s"}}},
    ),
    ("/v1/chat/completions", {"messages": ASKED, "max_tokens": 4, "tools": [TOOL], "tool_choice": "required"}),
    (
        "/v1/chat/completions",
        {
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": [{"type": "text", "text": "Hi"}]},
                {"role": "assistant", "content": None, "tool_calls": [CALL]},
                {"role": "tool", "content": "3", "tool_call_id": "c1"},
            ],
            "max_tokens": 2,
            "chat_template_kwargs": {"a": 1},
        },
    ),
    ("/v1/completions", {"prompt": "2+2=", "max_tokens": 2, "logprobs": 2, "echo": True, "temperature": 0.5}),
    ("/v1/completions", {"prompt": [[1, 2, 3], [4]], "max_tokens": 1, "n": 2, "stream": True, "best_of": 2}),
    ("/v1/completions", {"prompt": ["a", "b"], "max_tokens": 0, "echo": True, "logprobs": 0}),
    ("/v1/embeddings", {"input": ["a", "b"], "pooling": "mean", "encoding_format": "base64"}),
    ("/v1/responses", {"input": "Hi", "max_output_tokens": 2, "instructions": "Be brief.", "stream": True}),
    (
        "/v1/responses",
        {
            "input": [
                {"role": "user", "content": [{"type": "input_text", "text": "Hi"}]},
                {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
                {"type": "function_call_output", "call_id": "c", "output": "3"},
            ],
            "max_output_tokens": 2,
            "tools": [{"type": "function", "name": "f", "parameters": SCHEMA}],
            "text": {"format": {"type": "json_schema", "name": "s", "schema": SCHEMA}},
        },
    ),
    ("/tokenize", {"content": "Hello", "with_pieces": True, "add_special": True}),
    ("/tokenize", {"messages": ASKED, "tools": [TOOL]}),
    ("/detokenize", {"tokens": [1, 2, 3]}),
    ("/apply-template", {"messages": ASKED, "continue_final_message": False, "enable_thinking": True}),
]
TYPES = ("application/json; charset=latin-1", "text/plain", "", "application/json\u00e9", "multipart/form-data")
PATHS = ("/v1/receipts/verify", "/v1/responses", "/v1/chat/completions/", "/%00", "/v1/models/%ff", "/v1/receipts/..")


def test_requests(trit: bitnet.Engine) -> None:
    """Also where each is sent to another endpoint. A stream that has begun must not end with a failure."""
    receipt = trit.chat(ASKED, max_tokens=2).receipt
    assert receipt is not None
    requests = [*REQUESTS, ("/v1/receipts/verify", {"receipt": receipt.to_dict(), "replay": True})]

    with TestClient(create_app(trit, Settings(max_tokens=8, max_choices=4))) as client:

        def case(draw: random.Random) -> str:
            path, document = draw.choice(requests)
            body = json.dumps(other_document(draw, document)).encode()
            if draw.random() < 0.2:
                body = other_bytes(draw, body)
            kind = "application/json"
            if draw.random() < 0.05:
                kind = draw.choice(TYPES)
            if draw.random() < 0.05:
                path = draw.choice(PATHS)
            reply = client.post(path, content=body, headers={"Content-Type": kind.encode()})
            assert reply.status_code == 200 or 400 <= reply.status_code < 500, (reply.status_code, reply.text)
            if reply.status_code != 200:
                assert reply.json()["error"]["message"]
            assert "internal_error" not in reply.text and '"status":5' not in reply.text, reply.text
            return str(reply.status_code)

        found = attempt(150, case)
        assert found["200"] and found["400"]
        assert client.get("/health").status_code == 200


# -- Model files ------------------------------------------------------------------------------------------------------


def used(path: Path) -> None:
    """List a model, open it and let it answer."""
    bitnet.inspect(path)
    with bitnet.Engine(path, n_threads=1, n_ctx=32) as engine:
        engine.generate([0, 1], max_tokens=2)
        engine.warnings  # noqa: B018


def other_gguf(draw: random.Random, data: bytes) -> bytes:
    """A copy with other numbers, names or bytes, mostly in the metadata."""
    header = data.index(b"bitnet_pack.content") + 2000
    changed = bytearray(data)
    for _ in range(draw.choice((1, 1, 2, 8))):
        at = draw.randrange(4, min(header if draw.random() < 0.8 else len(data), len(changed) - 8))
        match draw.randrange(4):
            case 0:
                changed[at] = draw.choice((0, 1, 0x7F, 0x80, 0xFF, changed[at] ^ 1 << draw.randrange(8)))
            case 1:
                changed[at : at + 8] = struct.pack("<Q", draw.choice((0, 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1)))
            case 2:
                changed[at : at + 4] = struct.pack("<f", draw.choice((0.0, -1.0, 1e38, float("nan"), float("inf"))))
            case _:
                return other_bytes(draw, bytes(changed))
    return bytes(changed)


@pytest.mark.filterwarnings("ignore::bitnet.BitnetWarning")
def test_packed_models(tmp_path: Path) -> None:
    models = [ROOT / "python" / "bitnet" / "models" / "trit.gguf"]
    models += [FIXTURES / f"{name}.gguf" for name in ("relu2-i2s", "llama-ptq1", "qwen35-hybrid", "qwen35-hadamard")]
    packed = []
    for i, model in enumerate(models):
        bitnet.pack(model, tmp_path / f"{i}.packed", layout=("two-bit", "base3")[i % 2], n_threads=1)
        packed.append((tmp_path / f"{i}.packed").read_bytes())
    path = tmp_path / "changed"

    def case(draw: random.Random) -> str:
        path.write_bytes(other_gguf(draw, draw.choice(packed)))
        checked = outcome(lambda: bitnet.check_packed(path, n_threads=1))
        found = outcome(lambda: used(path))
        assert found == "taken" or checked != "taken", "a file that is whole is not refused"
        return found

    found = attempt(100, case)
    assert found["taken"] and found["ModelFileError"]


@pytest.mark.filterwarnings("ignore::bitnet.BitnetWarning")
def test_directories(tmp_path: Path) -> None:
    """The headers of safetensors, config.json, the tokenizer's files."""
    whole = make_directory(tmp_path / "whole")
    safetensors = (whole / "model.safetensors").read_bytes()
    length = struct.unpack("<Q", safetensors[:8])[0]
    header, data = safetensors[8 : 8 + length], safetensors[8 + length :]
    small = ("config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json")
    folder = tmp_path / "changed"

    def case(draw: random.Random) -> str:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(whole, folder)
        name = draw.choice((*small, "model.safetensors", "model.safetensors"))
        if name in small:
            (folder / name).write_bytes(rewritten(draw, (whole / name).read_bytes()))
        else:
            other = rewritten(draw, header)
            sizes = (len(other),) * 8 + (0, 1, len(other) - 1, len(other) + 1, 2**32, 2**64 - 1)
            (folder / name).write_bytes(struct.pack("<Q", draw.choice(sizes)) + other + data)
        return outcome(lambda: used(folder))

    found = attempt(60, case)
    assert found["taken"] and found["ModelFileError"]


# -- Forms ------------------------------------------------------------------------------------------------------------

SCHEMAS: list[Any] = [
    SCHEMA,
    {"type": "array", "items": {"enum": ["a", 1, None]}, "minItems": 1, "maxItems": 3, "prefixItems": [True]},
    {"anyOf": [{"type": "string", "pattern": "^a+$"}, {"type": "string", "format": "date"}, {"const": {"a": [1]}}]},
    {"$defs": {"n": {"type": "object", "properties": {"next": {"$ref": "#/$defs/n"}}}}, "$ref": "#/$defs/n"},
    {"allOf": [{"type": "number", "maximum": 5}, {"multipleOf": 0.5}], "description": "d"},
    {
        "type": "object",
        "additionalProperties": {"type": "string", "minLength": 1, "maxLength": 4},
        "patternProperties": {"^x": {"type": "boolean"}},
        "minProperties": 1,
        "maxProperties": 2,
    },
    {"oneOf": [{"type": ["string", "null"]}, {"type": "integer", "exclusiveMinimum": 0, "exclusiveMaximum": 99}]},
]
REGEX_PARTS = [
    "a",
    "b",
    ".",
    "[a-c]",
    "[^x]",
    r"\d",
    r"\w",
    r"\s",
    r"\b",
    "^",
    "$",
    "(",
    ")",
    "|",
    "*",
    "+",
    "?",
    "{2}",
]
REGEX_PARTS += [
    "{1,}",
    "{3,1000}",
    "{0}",
    "(?i)",
    "(?:",
    "(?=",
    "(?<n>",
    "[",
    "]",
    "\\",
    r"\p{L}",
    r"\x",
    "\0",
    "é",
    "&",
    "~",
]
GRAMMARS = [
    'start: "a" | start "b"',
    "start: item+\nitem: NAME | NUMBER\nNAME: /[a-z]+/\nNUMBER: /[0-9]{1,3}/\n%ignore / +/",
    'start: a~1..3 b?\na[max_tokens=2]: /x+/\nb: %json {"type": "integer"}\n',
    'start: "(" start ")" | A\nA: ("x" | "y")* "z"\n',
    'start: %regex {"substring_words": "a b c"}',
    "start: x\n%import common.INT\nx: INT -> number\n",
]
GRAMMAR_PARTS = [
    "start",
    ":",
    "|",
    '"a"',
    "/b*/",
    "(",
    ")",
    "*",
    "+",
    "?",
    "~2",
    "\n",
    "%ignore",
    "%json",
    "{}",
    "[",
    "]",
]
GRAMMAR_PARTS += [
    "A",
    "a",
    "->",
    "%import common.WS",
    "//",
    "&",
    "~/a/",
    "<[1]>",
    "<[^3]>",
    "[stop=/x/]",
    "[lazy]",
    "\0",
    '"',
]


def form(draw: random.Random) -> dict[str, Any]:
    """A form that has been changed, or put together by chance."""
    match draw.randrange(6):
        case 0 | 1:
            return {"json_schema": other_document(draw, draw.choice(SCHEMAS))}
        case 2:
            return {"json_schema": json.dumps(other_document(draw, draw.choice(SCHEMAS)))}
        case 3:
            return {"regex": "".join(draw.choices(REGEX_PARTS, k=draw.choice((1, 3, 8, 20))))}
        case 4:
            return {"choice": other_document(draw, ["yes", "no", "perhaps"])}
        case _:
            if draw.random() < 0.3:
                return {"grammar": "start: " + " ".join(draw.choices(GRAMMAR_PARTS, k=draw.choice((1, 4, 10))))}
            changed = other_bytes(draw, draw.choice(GRAMMARS).encode()).decode(errors="replace")
            at = draw.randrange(len(changed) + 1)
            return {"grammar": changed[:at] + draw.choice(("", *GRAMMAR_PARTS)) + changed[at:]}


def test_forms(trit: bitnet.Engine) -> None:
    """A wrong type is Python's TypeError, as everywhere."""

    def case(draw: random.Random) -> str:
        how: dict[str, Any] = {**form(draw), "temperature": draw.choice((0.0, 2.0))}
        return outcome(lambda: trit.chat(ASKED, **how, max_tokens=6, seed=1), TypeError)

    found = attempt(120, case)
    assert found["taken"] and found["ArgumentError"]
