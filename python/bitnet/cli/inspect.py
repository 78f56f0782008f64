"""`bitnet inspect`."""

import argparse
import json
import os
from typing import Any

from .. import inspect
from .._format import byte_size, one_line, two_columns
from ..models import card, inside
from ._options import Commands, add_command, add_model, model_path

_VALUE_CHARACTERS = 72
"""A longer metadata value is cut to this many characters."""


def add_parser(commands: Commands) -> None:
    """Describe the command and its options."""
    command = add_command(
        commands,
        "inspect",
        run,
        help="show what a model file contains and how the engine would run it",
        description="Show what a model file contains and how the engine would run it. The model is not loaded.",
    )
    add_model(command)
    command.add_argument("--tensors", action="store_true", help="also list every tensor with type, shape and size")
    command.add_argument("--json", action="store_true", help="print everything as JSON")


def run(options: argparse.Namespace) -> None:
    """Print what the file contains."""
    model = inspect(model_path(options.model))
    if options.json:
        print(json.dumps(model, indent=1, default=os.fspath))
        return
    head = {
        "file": f"{model['path']} (GGUF version {model['version']}, {byte_size(model['file_size'])})",
        "architecture": model["arch"],
    }
    print(two_columns(head | ({"cannot be run": model["error"]} if model["error"] else _how_it_runs(model))))
    print("\ntensors")
    types = model["types"].items()
    print(two_columns({f"  {name}": f"{type['tensors']}, {byte_size(type['bytes'])}" for name, type in types}))
    if options.tensors:
        print()
        for tensor in model["tensors"]:
            shape = " x ".join(map(str, tensor["shape"]))
            print(f"  {tensor['name']:<32} {tensor['type']:<7} {shape:<16} {byte_size(tensor['bytes'])}")
    print("\nmetadata")
    metadata = model["metadata"]
    print(two_columns({f"  {entry['key']}": one_line(entry["value"], _VALUE_CHARACTERS) for entry in metadata}))
    for warning in model["warnings"]:
        print(f"\nwarning: {warning}")
    if os.path.samefile(model["path"], inside()):
        print(f"\n{card()}")


def _how_it_runs(model: dict[str, Any]) -> dict[str, Any]:
    """The model's configuration as rows of text."""
    config = model["config"]
    head = "shares its weights with the embedding" if config["tied"] else "has its own weights"
    return {
        "layers": config["layers"],
        "hidden size": f"{config['width']}, feed-forward {config['ffn']}",
        "heads": f"{config['heads']} of {config['head_dim']} channels, {config['kv_heads']} for keys and values",
        "vocabulary": f"{config['vocab']} tokens; the output head {head}",
        "context": f"{config['context']} tokens",
        "constants": f"rope theta {config['rope_theta']:g}, norm epsilon {config['eps']:g}",
        "activation": model["activation"],
        "act_quant": f"{model['act_quant']} ({model['act_quant_reason']})",
    }
