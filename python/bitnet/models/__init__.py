"""Trit, the small model that comes with the package, and its model card."""

from importlib.resources import files
from pathlib import Path

NAME = "trit"
"""The name of the model that commands and `Engine` accept in place of a path."""


def inside() -> Path:
    """The path of the model that `Engine()` opens."""
    return Path(str(files(__name__) / "trit.gguf"))


def card() -> str:
    """The model card as Markdown: what the model is, how it was trained, its scores and its limits."""
    return (files(__name__) / "trit.md").read_text(encoding="utf-8")
