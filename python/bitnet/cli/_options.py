"""Options that several commands share, and what they stand for."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from .. import ChatSession, Engine, SamplingParams, Template
from .._text_input import read_text
from ..hub import local
from ..models import inside

Options: TypeAlias = argparse._ActionsContainer
"""A parser, or a group of its options."""


class Commands(Protocol):
    """What `ArgumentParser.add_subparsers` returns."""

    def add_parser(self, name: str, *, help: str, description: str) -> argparse.ArgumentParser:
        """Add a command, and return its parser."""


MODEL = "a GGUF file, or hf:OWNER/NAME[@REVISION][/FILE] for a model of the Hugging Face Hub"


def add_command(
    commands: Commands, name: str, run: Callable[[argparse.Namespace], int | None], *, help: str, description: str
) -> argparse.ArgumentParser:
    """Add a command that calls `run`. `help` is its line in the list of commands; its own help has the description."""
    command = commands.add_parser(name, help=help, description=description)
    command.set_defaults(run=run)
    return command


# -- The model --------------------------------------------------------------------------------------------------------


def add_model(command: Options) -> None:
    """Add the optional argument MODEL."""
    command.add_argument("model", metavar="MODEL", nargs="?", help=f"{MODEL} (default: Trit, the model in the package)")


def model_path(model: str | None) -> str:
    """The path of the model that the argument names. Downloads a model of the hub."""
    return local(model) if model else str(inside())


def add_engine_options(command: argparse.ArgumentParser) -> None:
    """Add the model, and the options with which it is opened."""
    add_model(command)
    group = command.add_argument_group("engine options")
    add_threads(group)
    group.add_argument(
        "-c",
        "--ctx",
        type=int,
        metavar="N",
        help="context length in tokens, for prompt and answer together (default: the model's own, at most 4096)",
    )
    group.add_argument(
        "--kv-type",
        choices=["f16", "f32"],
        default="f16",
        help="number format of the KV cache; f32 takes twice the memory (default: f16)",
    )


def add_threads(command: Options) -> None:
    """Add --threads."""
    command.add_argument(
        "-t", "--threads", type=int, metavar="N", help="threads that compute (default: one per available core)"
    )


def open_engine(options: argparse.Namespace) -> Engine:
    """Open the model with the options of `add_engine_options`."""
    path = model_path(options.model)
    return Engine(path, n_threads=options.threads, n_ctx=options.ctx, kv_type=options.kv_type)


# -- Conversations ----------------------------------------------------------------------------------------------------


def add_template(command: Options) -> None:
    """Add --template."""
    command.add_argument(
        "--template",
        metavar="NAME_OR_FILE",
        help="chat template: raw, instruct, llama3-chat, bitnet, or a file with Jinja source "
        "(default: the model's own)",
    )


def chosen_template(own: Template, choice: str | None) -> Template:
    """The template that --template names, with the special tokens of the model's own; without a choice, its own."""
    if choice is None:
        return own
    tokens = own.bos_token, own.eos_token
    if Path(choice).is_file():
        return Template.from_jinja(read_text(choice), *tokens)
    return Template.named(choice, *tokens)


def add_chat_options(command: argparse.ArgumentParser) -> None:
    """Add the options of a conversation."""
    group = command.add_argument_group("conversation options")
    group.add_argument("-s", "--system", metavar="TEXT", help="system prompt (default: none)")
    add_template(group)


def open_chat(engine: Engine, options: argparse.Namespace) -> ChatSession:
    """Start a conversation with the options of `add_chat_options` and `add_sampling_options`."""
    template = chosen_template(engine.template, options.template)
    return ChatSession(engine, options.system, template=template, **sampling(options))


# -- Sampling ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SamplingOption:
    """A keyword of `SamplingParams` as an option of the command line. Its default is that of `SamplingParams`."""

    name: str
    """The keyword; the option is --name, with "-" for "_"."""
    help: str
    """What it does, with its unit."""
    default: str
    """The default, as the help shows it."""
    type: Callable[[str], Any] | None = float
    """Converts the text of the value; None for an option without a value."""
    metavar: str = "X"
    """The value's name in the help."""
    short: tuple[str, ...] = ()
    """Other spellings."""
    repeated: bool = False
    """Whether the option may be given several times; its values then form a list."""


SAMPLING_OPTIONS = (
    SamplingOption(
        "max_tokens",
        "end the answer after this many tokens",
        "no limit but the context length",
        int,
        "N",
        short=("-n",),
    ),
    SamplingOption(
        "temperature",
        "divide the logits by this before sampling; 0 takes the most likely token each time",
        "0, greedy",
    ),
    SamplingOption("top_k", "keep the K most likely tokens", "0, off", int, "K"),
    SamplingOption(
        "top_p",
        "nucleus sampling: keep the most likely tokens whose probabilities add up to P",
        "1.0, off",
        metavar="P",
    ),
    SamplingOption(
        "min_p", "keep tokens with at least this fraction of the top token's probability", "0, off", metavar="P"
    ),
    SamplingOption(
        "repetition_penalty", "make recent tokens less likely by this factor; values above 1 repeat less", "1.0, off"
    ),
    SamplingOption(
        "repeat_last_n",
        "number of recent tokens, prompt included, that --repetition-penalty affects",
        "64",
        int,
        "N",
    ),
    SamplingOption("presence_penalty", "subtract this from the logit of every token the answer contains", "0, off"),
    SamplingOption(
        "frequency_penalty",
        "subtract this from a token's logit for each time the answer contains it",
        "0, off",
    ),
    SamplingOption(
        "seed",
        "seed of the random draws, from 0 to 2**64 - 1",
        "a new one for each answer; its receipt records it",
        int,
        "N",
    ),
    SamplingOption(
        "stop",
        "stop string: end the answer before this text; may be given several times",
        "none",
        str,
        "TEXT",
        repeated=True,
    ),
    SamplingOption("ignore_eos", "continue past the model's end-of-sequence tokens", "off", None),
)
"""The options of `add_sampling_options`. A test compares them with the keywords of `SamplingParams`."""


def add_sampling_options(command: argparse.ArgumentParser) -> None:
    """Add the options that say how tokens are sampled."""
    group = command.add_argument_group("sampling options")
    defaults = SamplingParams()
    for option in SAMPLING_OPTIONS:
        how: dict[str, Any] = {"action": "store_true"}
        if option.type is not None:
            how = {"type": option.type, "metavar": option.metavar, "default": getattr(defaults, option.name)}
        if option.repeated:
            how["action"] = "append"
        flag = f"--{option.name.replace('_', '-')}"
        group.add_argument(*option.short, flag, help=f"{option.help} (default: {option.default})", **how)


def sampling(options: argparse.Namespace) -> dict[str, Any]:
    """The keywords of `SamplingParams` that the options of `add_sampling_options` give."""
    return {option.name: getattr(options, option.name) for option in SAMPLING_OPTIONS}
