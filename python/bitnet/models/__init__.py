"""The model inside the package, and its card."""

from importlib.resources import files
from pathlib import Path


def inside() -> Path:
    """The path of the model that `Engine()` opens."""
    return Path(str(files(__name__) / "trit.gguf"))


def card() -> str:
    """What it is, how it was trained, how well it does, what it cannot do; Markdown."""
    return (files(__name__) / "trit.md").read_text(encoding="utf-8")
