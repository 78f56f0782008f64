"""Options that several commands share, and what they stand for."""

import argparse
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from .. import ChatSession, Engine, SamplingParams, Template
from .._text_input import read_text
from ..errors import ArgumentError, ModelNotFoundError
from ..hub import local
from ..models import NAME, inside
from ._habits import ALIASES

Options: TypeAlias = argparse._ActionsContainer
"""A parser, or a group of its options."""


class Commands(Protocol):
    """What `ArgumentParser.add_subparsers` returns."""

    def add_parser(self, name: str, *, help: str, description: str) -> argparse.ArgumentParser:
        """Add a command, and return its parser."""


INSIDE = NAME
"""The name of the model in the package."""

MODEL = (
    "a GGUF file, a directory with config.json, hf:OWNER/NAME[@REVISION][/FILE] for a model of the Hugging Face Hub, "
    f"or {INSIDE}"
)
MODEL_DEFAULT = f"(default: {INSIDE}, the model in the package)"


def add_command(
    commands: Commands, name: str, run: Callable[[argparse.Namespace], int | None], *, help: str, description: str
) -> argparse.ArgumentParser:
    """Add a command that calls `run`. `help` is its line in the list of commands; its own help has the description."""
    command = commands.add_parser(name, help=help, description=description)
    command.set_defaults(run=run, parser=command)
    return command


def add_option(command: Options, *names: str, **keywords: Any) -> None:
    """Add an option, and the other spellings that `ALIASES` has for it, which the help does not show."""
    shown = command.add_argument(*names, **keywords)
    hidden = [alias for name in names for alias in ALIASES.get(name, ())]
    if hidden:
        kept = {key: value for key, value in keywords.items() if key not in ("help", "default", "dest")}
        command.add_argument(*hidden, **kept, dest=shown.dest, help=argparse.SUPPRESS, default=argparse.SUPPRESS)


def whole(text: str) -> int:
    """Parse a whole number."""
    try:
        return int(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected a whole number") from error


def number(text: str) -> float:
    """Parse a number."""
    try:
        return float(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected a number") from error


def text_or_file(text: str) -> str:
    """The text of a file, if there is one of this name; else the text itself, unless it can only be a name."""
    try:
        if os.path.isfile(text):
            return read_text(text)
    except (OSError, ArgumentError) as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    if re.fullmatch(r"[^\s:{}]+\.\w+", text):
        raise argparse.ArgumentTypeError(f"{text}: no such file")
    return text


# -- The model --------------------------------------------------------------------------------------------------------


def add_model(command: Options, help: str | None = None) -> None:
    """Add the optional argument MODEL. It is accepted as -m MODEL too, which the help does not show."""
    command.add_argument("model", metavar="MODEL", nargs="?", help=f"{help or MODEL} {MODEL_DEFAULT}")
    command.add_argument("-m", "--model", dest="model_flag", help=argparse.SUPPRESS)


def names_model(text: str) -> bool:
    """Whether a text is meant as a MODEL, not as a prompt."""
    if text == INSIDE or text.startswith("hf:") or text.endswith((".gguf", ".safetensors", "tokenizer.json")):
        return True
    return is_gguf(text) or is_model_directory(text)


def is_model_directory(path: str) -> bool:
    """Whether a path is a directory as the Hugging Face Hub has them, with the model's configuration."""
    return os.path.isfile(os.path.join(path, "config.json"))


def is_gguf(path: str) -> bool:
    """Whether a path is a regular file that begins as a GGUF file does. Reading from a pipe would take its bytes."""
    if not os.path.isfile(path):
        return False
    with open(path, "rb") as file:
        return file.read(4) == b"GGUF"


def model_path(model: str | None) -> str:
    """The path of the model that the argument names. Downloads a model of the hub."""
    if model is None:
        return str(inside())
    path = local(model)
    if os.path.isdir(path) and not is_model_directory(path):
        files = sorted(name for name in os.listdir(path) if name.endswith(".gguf"))
        found = ", ".join(files) or "it has no GGUF file, and no config.json"
        raise ArgumentError(f"{model} is a folder; name a file in it: {found}")
    if not os.path.exists(path):
        is_name = re.fullmatch(r"[\w.-]+/[\w.-]+", model) and not model.endswith(".gguf")
        hub = f"hf:{model}" if is_name else "hf:OWNER/NAME"
        raise ModelNotFoundError(
            f"{model}: no such file; give the path of a GGUF file, {hub} for a model of the Hugging Face Hub, or "
            f"{INSIDE} for the model in the package"
        )
    return path


def add_engine_options(command: argparse.ArgumentParser) -> None:
    """Add the model, and the options with which it is opened."""
    add_model(command)
    group = command.add_argument_group("engine options")
    add_threads(group)
    add_option(
        group,
        "-c",
        "--ctx",
        type=whole,
        metavar="N",
        help="context length in tokens, for prompt and answer together (default: the model's own, at most 4096)",
    )
    group.add_argument(
        "--kv-type",
        choices=["f16", "f32"],
        default="f16",
        help="number format of the KV cache; f32 takes twice the memory (default: f16)",
    )
    group.add_argument(
        "--lm-head",
        choices=["auto", "exact", "int8"],
        default="auto",
        help="how logits are computed: int8 takes the least memory, with other answers (default: auto, exact answers)",
    )


def add_threads(command: Options, help: str = "threads that compute (default: one per available core)") -> None:
    """Add --threads."""
    add_option(command, "-t", "--threads", type=whole, metavar="N", help=help)


def open_engine(options: argparse.Namespace) -> Engine:
    """Open the model with the options of `add_engine_options`."""
    path = model_path(options.model)
    return Engine(path, n_threads=options.threads, n_ctx=options.ctx, kv_type=options.kv_type, lm_head=options.lm_head)


# -- Conversations ----------------------------------------------------------------------------------------------------


def add_template(command: Options) -> None:
    """Add --template."""
    add_option(
        command,
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
    if os.path.exists(choice) and not os.path.isdir(choice):  # a file, or a pipe from the shell
        return Template.from_jinja(read_text(choice), *tokens)
    return Template.named(choice, *tokens)


def add_chat_options(command: argparse.ArgumentParser) -> None:
    """Add the options of a conversation."""
    group = command.add_argument_group("conversation options")
    add_option(group, "-s", "--system", metavar="TEXT", help="system prompt (default: none)")
    add_template(group)
    add_option(
        group,
        "--thinking",
        action=_Thinking,
        help="let the model think before it answers, or keep it from thinking, if its chat template can do so; a "
        "terminal shows the thoughts dimmed, a file or a pipe gets the answer alone (default: the template decides)",
    )


class _Thinking(argparse.Action):
    """--thinking and --no-thinking, for each spelling: True, False, or None without the option."""

    def __init__(self, option_strings: list[str], **keywords: Any) -> None:
        """Add the spellings that say no."""
        no = [f"--no-{text.removeprefix('--')}" for text in option_strings]
        super().__init__([*option_strings, *no], nargs=0, **keywords)

    def __call__(
        self, parser: argparse.ArgumentParser, options: argparse.Namespace, values: Any, text: Any = ""
    ) -> None:
        """Keep which of them was given."""
        setattr(options, self.dest, not text.startswith("--no-"))


def open_chat(engine: Engine, options: argparse.Namespace) -> ChatSession:
    """Start a conversation with the options of `add_chat_options` and `add_sampling_options`."""
    template = chosen_template(engine.template, options.template)
    settings = {"template": template, "enable_thinking": options.thinking}
    return ChatSession(engine, options.system, **settings, **sampling(options))


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
    type: Callable[[str], Any] | None = number
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
        whole,
        "N",
        short=("-n",),
    ),
    SamplingOption(
        "temperature",
        "divide the logits by this before sampling; 0 takes the most likely token each time",
        "0, greedy",
    ),
    SamplingOption("top_k", "keep the K most likely tokens", "0, off", whole, "K"),
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
        whole,
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
        whole,
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
    SamplingOption(
        "speculate",
        "'lookup' guesses tokens that stood in the text before and computes several at once; the answer stays the same",
        "no guesses",
        str,
        "HOW",
    ),
    SamplingOption(
        "json_schema",
        "answer with JSON of this JSON Schema: a file, or the schema itself as JSON text",
        "no form",
        text_or_file,
        "SCHEMA",
    ),
    SamplingOption(
        "regex", "answer with a text that matches this regular expression (Rust's syntax)", "no form", str, "REGEX"
    ),
    SamplingOption(
        "choice",
        "answer with one of the given texts; may be given several times",
        "no form",
        str,
        "TEXT",
        repeated=True,
    ),
    SamplingOption(
        "grammar",
        "answer with a text of this grammar in Lark's notation: a file, or the grammar itself",
        "no form",
        text_or_file,
        "GRAMMAR",
    ),
)
"""The options of `add_sampling_options`. A test compares them with the keywords of `SamplingParams`."""


def add_sampling_options(
    command: argparse.ArgumentParser, title: str = "sampling options", hidden: Sequence[str] = ()
) -> None:
    """Add the options that say how tokens are sampled. The help leaves out those that are `hidden`."""
    group = command.add_argument_group(title)
    defaults = SamplingParams()
    for option in SAMPLING_OPTIONS:
        how: dict[str, Any] = {"action": "store_true"}
        if option.type is not None:
            how = {"type": option.type, "metavar": option.metavar, "default": getattr(defaults, option.name)}
        if option.repeated:
            how["action"] = "append"
        flag = f"--{option.name.replace('_', '-')}"
        text = argparse.SUPPRESS if option.name in hidden else f"{option.help} (default: {option.default})"
        add_option(group, *option.short, flag, help=text, **how)


def sampling(options: argparse.Namespace) -> dict[str, Any]:
    """The keywords of `SamplingParams` that the options of `add_sampling_options` give."""
    return {option.name: getattr(options, option.name) for option in SAMPLING_OPTIONS}
