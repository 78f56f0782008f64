"""Docstrings: everything public has one, the stubs' are those of `help()`, their examples run, the reference builds."""

from __future__ import annotations

import ast
import doctest
import functools
import importlib
import importlib.util
import inspect
import os
import pkgutil
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import bitnet
from conftest import ROOT

STUBS = ROOT / "python" / "bitnet" / "_core.pyi"
NAMES = [module.name for module in pkgutil.iter_modules(bitnet.__path__)]
# Ray has no wheels for some systems.
MODULES = ["bitnet", *(f"bitnet.{name}" for name in NAMES if name != "ray" or importlib.util.find_spec("ray"))]


def stubbed() -> Iterator[tuple[str, str | None]]:
    """Every public class, method and function of the stubs, with its docstring; of overloads any that has one."""
    found: dict[str, str | None] = {}
    for node in ast.parse(STUBS.read_text(encoding="utf-8")).body:
        members = [node, *node.body] if isinstance(node, ast.ClassDef) else [node]
        for member in members:
            if isinstance(member, (ast.ClassDef, ast.FunctionDef)) and not member.name.startswith("_"):
                name = member.name if member is node else f"{getattr(node, 'name', '')}.{member.name}"
                found[name] = found.get(name) or ast.get_docstring(member)
    yield from ((name, text) for name, text in found.items() if not name.startswith("_"))


def test_everything_public_is_documented() -> None:
    undocumented = [name for name, text in stubbed() if not text]
    for module in map(importlib.import_module, MODULES):
        undocumented += [module.__name__] if not module.__doc__ else []
        for name, value in vars(module).items():
            own = getattr(value, "__module__", None) == module.__name__
            if own and callable(value) and not name.startswith("_") and not inspect.getdoc(value):
                undocumented.append(f"{module.__name__}.{name}")
    assert undocumented == []


def test_help_shows_what_the_stubs_say() -> None:
    """Where this fails, src/py lacks `#[doc = doc!(…)]` before the item, or the build is older than the stubs."""

    def shown(name: str) -> str | None:
        return inspect.getdoc(functools.reduce(getattr, name.split("."), bitnet))

    assert [name for name, text in stubbed() if shown(name) != text] == []


@pytest.mark.parametrize("module", MODULES)
def test_examples_in_docstrings_run(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MPLBACKEND", "agg")
    assert doctest.testmod(importlib.import_module(module)).failed == 0


def test_every_large_class_has_an_example() -> None:
    """And `doctest` finds it, though the class is compiled."""
    shown = {test.name for test in doctest.DocTestFinder().find(bitnet) if test.examples}
    large = ("ChatSession", "Engine", "Receipt", "SamplingParams", "Template", "Tokenizer")
    assert shown >= {"bitnet", *(f"bitnet.{name}" for name in large)}


def test_a_users_script_is_checked_strictly(tmp_path: Path) -> None:
    """The types of the package are complete: strict mypy accepts a sound script, and finds what is wrong in another."""
    script = tmp_path / "script.py"
    script.write_text((ROOT / "tests" / "data" / "typed.py").read_text())
    mypy = [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--cache-dir",
        os.devnull,
        "--config-file",
        os.devnull,
        str(script),
    ]
    done = subprocess.run(mypy, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    script.write_text("import bitnet\nbitnet.Engine().generate('a', max_tokens='b')\nbitnet.Engine().stream(1)\n")
    done = subprocess.run(mypy, capture_output=True, text=True, cwd=tmp_path)
    assert [line for line in (1, 2, 3) if f"script.py:{line}: error" in done.stdout] == [2, 3], done.stdout


def test_the_reference_builds(tmp_path: Path) -> None:
    """As `make docs` does it, with every warning an error."""
    makefile = (ROOT / "Makefile").read_text()
    modules = makefile.partition("DOCUMENTED := ")[2].partition("\n")[0]
    recipe = makefile.partition("$(BIN)/pdoc ")[2].partition("\n")[0].replace("$(DOCUMENTED)", modules)
    (tmp_path / "bitnet.pyi").write_text(STUBS.read_text(encoding="utf-8").partition("\n")[2], encoding="utf-8")
    pdoc = [sys.executable, "-W", "error", "-m", "pdoc", *recipe.replace("target/docs", str(tmp_path)).split()]
    environment = {**os.environ, "MPLBACKEND": "agg", "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(pdoc, cwd=ROOT, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    page = (tmp_path / "bitnet.html").read_text(encoding="utf-8")
    for anchor in ("Engine.prefill", "Receipt.validate", "Template.spans", "isas", "TemplateError"):
        assert f'id="{anchor}"' in page
    assert "Number of tokens in the prefix cache" in page
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]*>", "", page.partition("<main")[2]))
    for signature in (
        "class Engine(path=None, *, n_ctx=None,",
        "class SamplingParams(*, temperature=0.0,",
        "parse_special: bool = False",
    ):
        assert signature in text
    assert "Ternary" in text.partition("View Source")[0], "the package's own text stands first"
