"""The notebooks run from top to bottom, and show what they promise."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
from matplotlib.image import imread
from nbclient import NotebookClient

import bitnet
from conftest import ROOT

# Pictures, and how often an output says that what was computed elsewhere is the same.
PROMISES = {
    "evaluation": (2, 1),
    "first_steps": (1, len(bitnet.isas())),
    "prefill_and_decode": (4, 0),
    "receipts": (1, len(bitnet.isas()) + 5),
    "templates": (0, 0),
}
# The one line of all of them that says that something is not the same.
FORGERY = "'7+8=14.', replayed: False"


def run(path: Path) -> list[dict[str, Any]]:
    """The outputs of a notebook's cells; raises at the first that fails."""
    notebook = nbformat.read(path, as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells), "commit notebooks without outputs"
    place = {"metadata": {"path": str(path.parent)}}
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources=place).execute()
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


def test_each_notebook_promises_something() -> None:
    assert {path.stem for path in (ROOT / "notebooks").glob("*.ipynb")} == set(PROMISES)


@pytest.mark.parametrize("name", PROMISES)
def test_a_notebook_runs(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BITNET_MODEL", raising=False)
    monkeypatch.setenv("PYTHONWARNINGS", "error::DeprecationWarning:__main__")
    outputs = run(ROOT / "notebooks" / f"{name}.ipynb")
    assert [output["text"] for output in outputs if output.get("name") == "stderr"] == []
    pictures = [output["data"]["image/png"] for output in outputs if "image/png" in output.get("data", {})]
    texts = "\n".join(output.get("text") or output["data"].get("text/plain", "") for output in outputs)
    assert (len(pictures), texts.count("True")) == PROMISES[name]
    assert [line for line in texts.splitlines() if "False" in line] == [FORGERY] * (name == "receipts")
    for picture in pictures:
        pixels = imread(io.BytesIO(base64.b64decode(picture)))
        assert np.std(pixels[..., :3]) > 0.05, "an empty picture"


def test_a_copy_elsewhere_says_what_it_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One notebook makes its model with a script of the checkout."""
    monkeypatch.delenv("BITNET_MODEL", raising=False)
    monkeypatch.chdir(tmp_path)
    notebook = nbformat.read(ROOT / "notebooks" / "prefill_and_decode.ipynb", as_version=4)
    first = next(cell["source"] for cell in notebook.cells if cell["cell_type"] == "code")
    with pytest.raises(FileNotFoundError, match=r"benches/make_model\.py.*BITNET_MODEL"):
        exec(first, {})
