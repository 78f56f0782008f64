"""The notebooks run from top to bottom, and their committed outputs are those of the run.

Texts must be equal, but for cells with a tag: "timings" (its outputs hold times), "machine" (its text depends on the
processor), "install" (it installs the package and is not run). Pictures may differ. After a change of a notebook or of
an output, run all of them again and commit the result:

    python tests/test_notebooks.py
"""

from __future__ import annotations

import base64
import io
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
from matplotlib.image import imread
from nbclient import NotebookClient

import bitnet

NOTEBOOKS = Path(__file__).resolve().parent.parent / "notebooks"
# Pictures, and how often an output says that what was computed elsewhere is the same.
PROMISES = {
    "evaluation": (2, 1),
    "first_steps": (1, len(bitnet.isas())),
    "prefill_and_decode": (4, 0),
    "receipts": (1, len(bitnet.isas()) + 5),
    "templates": (0, 0),
    "ternary_arithmetic": (4, 3 + len(bitnet.isas())),
}
# The one line of all of them that says that something is not the same.
FORGERY = "'7+8=14.', replayed: False"
FREE = ("timings", "machine")
WIDGET = "application/vnd.jupyter.widget-view+json"


def run(path: Path, folder: Path) -> Any:
    """Run a notebook in this folder, and return it with its outputs; raises at the first cell that fails."""
    notebook = nbformat.read(path, as_version=4)
    place = {"metadata": {"path": str(folder)}}
    options: dict[str, Any] = {"skip_cells_with_tag": "install", "record_timing": False, "store_widget_state": False}
    for cell in code(notebook):
        cell["outputs"], cell["execution_count"] = [], None
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources=place, **options).execute()
    for cell in code(notebook):
        # A widget is shown only while its kernel lives.
        cell["outputs"] = [output for output in cell["outputs"] if WIDGET not in output.get("data", {})]
    notebook["metadata"]["language_info"] = {"name": "python"}
    return notebook


def code(notebook: Any) -> Iterator[Any]:
    """The cells with code."""
    return (cell for cell in notebook.cells if cell["cell_type"] == "code")


def comparable(cell: Any) -> list[Any]:
    """The outputs of a cell without what may differ: pictures, and in a cell with a tag the texts."""
    free = any(tag in cell["metadata"].get("tags", []) for tag in FREE)
    found: list[Any] = []
    for output in cell["outputs"]:
        kind = (output["output_type"], output.get("name"))
        # A process may print in several pieces.
        if output["output_type"] == "stream" and found and found[-1][0] == kind:
            found[-1][1]["text"] += output["text"]
            continue
        texts = dict(output.get("data", {})) if output["output_type"] != "stream" else {"text": output["text"]}
        found.append((kind, texts))
    for _, texts in found:
        pictured = "image/png" in texts
        for name in texts:
            if free or name == "image/png" or pictured:
                texts[name] = "…"
    return found


def words(notebook: Any) -> str:
    """All output texts."""
    outputs = [output for cell in code(notebook) for output in cell["outputs"]]
    return "\n".join(output.get("text") or output["data"].get("text/plain", "") for output in outputs)


def test_each_notebook_promises_something() -> None:
    assert {path.stem for path in NOTEBOOKS.glob("*.ipynb")} == set(PROMISES)


@pytest.mark.parametrize("name", PROMISES)
def test_a_notebook_runs_and_gives_its_committed_outputs(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a folder without a checkout."""
    monkeypatch.delenv("BITNET_MODEL", raising=False)
    monkeypatch.setenv("PYTHONWARNINGS", "error::DeprecationWarning:__main__")
    path = NOTEBOOKS / f"{name}.ipynb"
    committed, ran = nbformat.read(path, as_version=4), run(path, tmp_path)
    assert [cell["execution_count"] for cell in code(committed)] == [cell["execution_count"] for cell in code(ran)], (
        "run it as a whole before you commit it"
    )
    for before, after in zip(code(committed), code(ran), strict=True):
        assert comparable(before) == comparable(after), before["source"]
    outputs = [output for cell in code(ran) for output in cell["outputs"]]
    assert [output["text"] for output in outputs if output.get("name") == "stderr"] == []
    pictures = [output["data"]["image/png"] for output in outputs if "image/png" in output.get("data", {})]
    assert (len(pictures), words(ran).count("True")) == PROMISES[name]
    assert [line for line in words(ran).splitlines() if "False" in line] == [FORGERY] * (name == "receipts")
    for picture in pictures:
        pixels = imread(io.BytesIO(base64.b64decode(picture)))
        assert np.std(pixels[..., :3]) > 0.05, "an empty picture"


@pytest.mark.parametrize("name", PROMISES)
def test_a_notebook_can_be_shared(name: str) -> None:
    """It installs what it needs, shows what it computed, and holds nothing of the machine that ran it."""
    path = NOTEBOOKS / f"{name}.ipynb"
    notebook = nbformat.read(path, as_version=4)
    first, *others = code(notebook)
    assert (first["source"], first["metadata"]["tags"]) == (
        "%pip install --quiet 'bitnet-engine[notebook]'",
        ["install"],
    )
    assert [cell["metadata"].get("tags", []) for cell in others if "install" in cell["metadata"].get("tags", [])] == []
    assert sum(bool(cell["outputs"]) for cell in others) > len(others) / 2
    assert notebook["metadata"].keys() == {"kernelspec", "language_info"}
    text = path.read_text(encoding="utf-8")
    assert len(text) < 600_000
    assert re.findall(r"/(?:home|root|tmp|work)/", text) == []


def test_outputs_that_differ_are_found() -> None:
    """The comparison above can fail, and only where it should."""

    def cell(text: str, picture: str = "a", tags: tuple[str, ...] = ()) -> Any:
        shown = {"output_type": "display_data", "data": {"image/png": picture, "text/plain": f"<Figure {picture}>"}}
        said = [{"output_type": "stream", "name": "stdout", "text": part} for part in text.split("|")]
        return {"metadata": {"tags": list(tags)}, "outputs": [*said, shown]}

    assert comparable(cell("one two")) == comparable(cell("one |two", picture="b"))
    assert comparable(cell("one two")) != comparable(cell("one three"))
    for tag in FREE:
        assert comparable(cell("1 ms", tags=(tag,))) == comparable(cell("2 ms", tags=(tag,)))
        assert comparable({**cell("1 ms", tags=(tag,)), "outputs": []}) != comparable(cell("1 ms", tags=(tag,)))


def main() -> None:
    """Run all notebooks, or those that the command line names, and write them with their outputs."""
    os.environ.pop("BITNET_MODEL", None)
    for name in sys.argv[1:] or PROMISES:
        path = NOTEBOOKS / f"{name}.ipynb"
        nbformat.write(run(path, NOTEBOOKS), path)


if __name__ == "__main__":
    main()
