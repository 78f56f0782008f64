"""`bitnet inspect`."""

import argparse
import json
import os
from typing import Any

from .. import Template, Tokenizer, inspect
from .._format import byte_size, escape_line, one_line, plain_line, two_columns
from ..errors import ArgumentError, BitnetError
from ..models import card, inside
from ._options import INSIDE, Commands, add_command, add_model, model_path

_VALUE_CHARACTERS = 72
"""A longer value is cut to this many characters."""


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
    command.add_argument(
        "--tensors", action="store_true", help="also list every tensor: type, shape, size, share of zeros"
    )
    command.add_argument("--metadata", action="store_true", help="also list the metadata of the file")
    command.add_argument("--card", action="store_true", help=f"also print the model card; only {INSIDE} has one")
    command.add_argument(
        "--json",
        action="store_true",
        help="print everything as JSON; arrays of the metadata are cut to 64 items, with their length beside them",
    )


def run(options: argparse.Namespace) -> None:
    """Print what the file contains."""
    path = model_path(options.model)
    model = inspect(path, weights=options.tensors or options.json)  # both show the share of zeros
    is_inside = os.path.samefile(path, inside())
    if options.json:
        print(json.dumps(model | ({"card": card()} if is_inside else {}), indent=1, default=os.fspath))
        return
    if options.card and not is_inside:
        raise ArgumentError(f"{path} has no model card; see --metadata for what its makers wrote into it")
    values = {entry["key"]: entry["value"] for entry in model["metadata"]}
    about = {name: values.get(f"general.{name}") for name in ("name", "description", "license")}
    rows = {name: plain_line(value, _VALUE_CHARACTERS) for name, value in about.items() if isinstance(value, str)}
    rows |= {
        "file": f"{model['path']} ({_format(model)}, {byte_size(model['file_size'])})",
        "architecture": model["arch"],
    }
    if model["format"] == "packed":
        packed = {name: values.get(f"bitnet_pack.{name}") for name in ("file", "bytes", "layout", "fingerprint")}
        file = plain_line(str(packed["file"]), _VALUE_CHARACTERS)
        rows["packed from"] = f"{file} ({byte_size(packed['bytes'] or 0)}); its fingerprint is {packed['fingerprint']}"
        rows["layout"] = plain_line(str(packed["layout"]), _VALUE_CHARACTERS)
    rows |= {"cannot be run": model["error"]} if model["error"] else _how_it_runs(model)
    kinds = model["types"].items()
    warnings = list(model["warnings"])
    print(
        two_columns(
            rows
            | {
                "tensors": ", ".join(f"{kind['tensors']} {name} ({byte_size(kind['bytes'])})" for name, kind in kinds),
                "tokenizer": _tokenizer(path, values),
                "chat template": _template(path, warnings),
            }
        )
    )
    for warning in warnings:
        print(f"warning: {escape_line(warning)}")
    if options.tensors:
        print("\ntensors")
        for tensor in model["tensors"]:
            print(_tensor_line(tensor))
    if options.metadata:
        print("\nmetadata")
        print(two_columns({f"  {key}": one_line(value, _VALUE_CHARACTERS) for key, value in values.items()}))
    if options.card:
        print(f"\n{card()}", end="")
    more = [f"--{name}" for name in ("tensors", "metadata", "card") if not getattr(options, name)]
    more = [name for name in more if name != "--card" or is_inside]
    if more:
        print(f"\nmore: {', '.join(more)}")


def _format(model: dict[str, Any]) -> str:
    """The format of the model's files."""
    if model["format"] == "packed":
        return "packed model"
    return "Hugging Face directory" if model["version"] is None else f"GGUF version {model['version']}"


def _tokenizer(path: str, values: dict[str, Any]) -> str:
    """The kind of the tokenizer, by the metadata, and the rule that splits text."""
    kind = values.get("tokenizer.ggml.model", "no kind in the file")
    try:
        pre = Tokenizer(path).pre
    except BitnetError as error:
        return f"{kind}; cannot be used: {plain_line(str(error), _VALUE_CHARACTERS)}"
    if "tokenizer.ggml.model" not in values and pre == "tokenizer.json":
        return pre
    return f"{kind}, pre-tokenizer {pre}" + ("" if "tokenizer.ggml.pre" in values else " (the file names none)")


def _template(path: str, warnings: list[str]) -> str:
    """The name of the chat template, and where it comes from. Adds its warning to the others."""
    try:
        template = Template.from_model(path)
    except BitnetError as error:
        return f"cannot be used: {plain_line(str(error), _VALUE_CHARACTERS)}"
    if template.warning:
        warnings.append(template.warning)
    return f"{template.name} (from: {template.origin})"


def _tensor_line(tensor: dict[str, Any]) -> str:
    """A tensor as a line of the list."""
    shape = " x ".join(map(str, tensor["shape"]))
    line = f"  {escape_line(tensor['name']):<32} {tensor['type']:<7} {shape:<16} {byte_size(tensor['bytes'])}"
    zeros = tensor["zeros"]
    return line if zeros is None else f"{line:<72} {100 * zeros:.1f} % zeros"


def _how_it_runs(model: dict[str, Any]) -> dict[str, Any]:
    """The model's configuration as rows of text."""
    config = model["config"]
    head = "shares its weights with the embedding" if config["tied"] else "has its own weights"
    graph = {"graph": "; ".join(model["graph"])} if model["graph"] else {}
    return {
        "layers": f"{config['layers']}, hidden size {config['width']}, feed-forward {config['ffn']}",
        "heads": f"{config['heads']} of {config['head_dim']} channels, {config['kv_heads']} for keys and values",
        "vocabulary": f"{config['vocab']} tokens; the output head {head}",
        "context": f"{config['context']} tokens",
        "constants": f"rope theta {config['rope_theta']:g}, norm epsilon {config['eps']:g}",
        **graph,
        "activation": f"{model['activation']} ({model['activation_reason']})",
        "act_quant": f"{model['act_quant']} ({model['act_quant_reason']})",
    }
