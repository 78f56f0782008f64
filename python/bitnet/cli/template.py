"""`bitnet template`."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from .. import Template, Tokenizer
from .._format import one_line
from .._text_input import read_text
from ..errors import ArgumentError
from ._errors import in_flags
from ._options import (
    MODEL,
    Commands,
    add_command,
    add_model,
    add_option,
    add_template,
    chosen_template,
    is_gguf,
    is_model_directory,
    model_path,
)
from ._spans_view import spans_view, unseen_messages
from ._terminal import whole_text


def add_parser(commands: Commands) -> None:
    """Describe the command and its options."""
    command = add_command(
        commands,
        "template",
        run,
        help="show the prompt that a chat template makes of a conversation",
        description="Print the prompt that a chat template makes of a conversation.",
    )
    add_model(command, f"{MODEL}; or a file with Jinja source")
    command.add_argument(
        "--messages",
        metavar="FILE",
        help='a file with a JSON list of messages such as [{"role": "user", "content": "Hi"}], or - for standard input',
    )
    help = "system prompt, put before the messages (default: none)"
    add_option(command, "-s", "--system", metavar="TEXT", help=help)
    command.add_argument("--user", metavar="TEXT", help="a user's message, put after the messages (default: none)")
    add_template(command)
    command.add_argument(
        "--no-generation-prompt",
        action="store_true",
        help="end after the last message (default: begin the assistant's turn)",
    )
    command.add_argument(
        "--show", action="store_true", help="show which parts come from the template and which from messages"
    )
    command.add_argument(
        "--tokens", action="store_true", help="like --show, and show each part's tokens; needs a model file"
    )
    command.add_argument("--source", action="store_true", help="print the template's Jinja source, not a prompt")


def run(options: argparse.Namespace) -> None:
    """Print the prompt, a view of it, or the template's source."""
    path = model_path(options.model)
    is_model = is_gguf(path) or is_model_directory(path) or Path(path).name == "config.json"
    own = Template.from_model(path) if is_model else Template.from_jinja(read_text(path))
    template = chosen_template(own, options.template)
    if template.warning:
        print(f"bitnet: warning: {in_flags(template.warning)}", file=sys.stderr)
    if options.source:
        print(f"{template.name}, from {template.origin}\n{whole_text(template.source)}")
        return
    messages = _messages(options)
    answer = not options.no_generation_prompt
    try:
        prompt = template.render(messages, add_generation_prompt=answer)
    except TypeError as error:  # a message is not one
        raise ArgumentError(f"--messages {options.messages}: {error}") from error
    if not (options.show or options.tokens):
        sys.stdout.write(whole_text(prompt))
        return
    if options.tokens and not is_model:
        raise ArgumentError(f"{path} has no tokenizer; --tokens needs a model file")
    tokenizer = Tokenizer(path) if options.tokens else None
    spans = template.spans(messages, add_generation_prompt=answer, tokenizer=tokenizer)
    sys.stdout.write(spans_view(spans, tokenizer))
    for i in unseen_messages(spans, messages):
        print(f"bitnet: the template leaves out or takes apart the text of message {i}", file=sys.stderr)
    if tokenizer and any(span.token_ids is None for span in spans):
        print("bitnet: the tokens do not spell the prompt exactly; see `bitnet tokenize`", file=sys.stderr)


def _messages(options: argparse.Namespace) -> list[Any]:
    """The conversation that --system, --messages and --user give."""
    messages: list[Any] = [{"role": "system", "content": options.system}] if options.system is not None else []
    if options.messages is not None:
        try:
            given = json.loads(read_text(options.messages))
        except json.JSONDecodeError as error:
            raise ArgumentError(f"--messages {options.messages} is not a JSON list of messages: {error}") from error
        if not isinstance(given, list):
            raise ArgumentError(f"--messages {options.messages} is not a JSON list of messages, but one value")
        for i, message in enumerate(given):
            if not isinstance(message, dict):
                shown = one_line(message, 60)
                raise ArgumentError(f"--messages {options.messages}: messages[{i}] is {shown}, expected an object")
        messages += given
    if options.user is not None:
        messages.append({"role": "user", "content": options.user})
    return messages
