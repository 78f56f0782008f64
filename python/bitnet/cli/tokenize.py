"""`bitnet tokenize`."""

import argparse

from .. import Tokenizer
from .._text_input import read_text
from ..errors import ArgumentError
from ._options import MODEL, Commands, add_command, add_model, model_path, names_model


def add_parser(commands: Commands) -> None:
    """Describe the command and its options."""
    command = add_command(
        commands,
        "tokenize",
        run,
        help="show the tokens of a text",
        description="Show the tokens of a text: id and text of each, one per line. With one argument, it is the text "
        "and MODEL is trit.",
    )
    add_model(command, f"{MODEL}; or a tokenizer.json file")
    command.add_argument("text", metavar="TEXT", help="the text, or - to read it from standard input")
    command.add_argument(
        "--parse-special",
        action="store_true",
        help="turn the names of control tokens, such as <|eot_id|>, into these tokens (default: keep them as text)",
    )
    command.add_argument("--ids", action="store_true", help="print only the ids, on one line")


def run(options: argparse.Namespace) -> None:
    """Print the tokens."""
    if options.model is None and names_model(options.text):
        raise ArgumentError(f"{options.text} is a model; give the text after it, or - to read it from standard input")
    tokenizer = Tokenizer(model_path(options.model))
    text = read_text("-") if options.text == "-" else options.text
    ids = tokenizer.encode(text, parse_special=options.parse_special)
    if options.ids:
        print(*ids)
        return
    for token in ids:
        print(f"{token:>8}  {tokenizer.decode([token], skip_special_tokens=False)!r}")
