"""The parser of the command line: errors of one line that say what to type."""

import argparse
import sys
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from typing import Any, NoReturn

from ._habits import COMMANDS, HINTS

_NO_VALUE = "expected one argument"
"""What argparse says of an option without its value."""

_MISSING = "the following arguments are required: "
"""What argparse says before the names of the arguments that were not given."""


class UsageError(Exception):
    """The command line is wrong. The message is what to print."""


class Parser(argparse.ArgumentParser):
    """A parser that raises UsageError instead of ending the process, and takes no abbreviations.

    An abbreviation would change its meaning with each new option; `parse` suggests the whole name.
    """

    def __init__(self, **keywords: Any) -> None:
        """Take the arguments of ArgumentParser, by keyword."""
        super().__init__(**keywords, allow_abbrev=False)

    def _print_message(self, message: str, file: Any = None) -> None:
        """Print a help text or the version. That of argparse hides errors of writing."""
        (file or sys.stderr).write(message)

    def error(self, message: str) -> NoReturn:
        """Raise UsageError, with where to read more."""
        if _NO_VALUE in message:
            option = message.removeprefix("argument ").partition(":")[0].rpartition("/")[2]
            message += f"; write a value that begins with - as {option}=VALUE"
        missing = message.removeprefix(_MISSING)
        for action in self._actions:
            if missing != message and action.metavar == missing and action.choices:
                message = f"{missing} is missing; choose one of {', '.join(map(str, action.choices))}"
        raise UsageError(f"{self.prog}: {message.removeprefix('argument ')}; see `{self.prog} --help`")


def parse(top: Parser, arguments: Sequence[str]) -> argparse.Namespace:
    """Parse the arguments of `bitnet`. Raises UsageError; prints a help text and raises SystemExit if it is asked for.

    `bitnet` alone prints its help, and `bitnet help COMMAND` that of the command.
    """
    if not arguments:
        arguments = ["--help"]
    if arguments[0] == "help":
        arguments = [*arguments[1:], "--help"]
    _check_command(top, arguments[0])
    try:
        options, rest = top.parse_known_args(arguments)
    except UsageError as error:
        if _NO_VALUE not in str(error):  # what follows is then a value, not an option
            _explain_options(top, arguments, arguments)
        raise
    unknown = [text for text in rest if text.startswith("-") and text not in ("-", "--")]
    _explain_options(top, arguments, unknown)
    parser: Parser = options.parser
    if unknown:
        parser.error(f"unknown option {unknown[0]}")
    _place(parser, options, [text for text in rest if text != "--"])
    return options


def commands(parser: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.ArgumentParser, str]]:
    """Yield the commands below a parser, and those below them: name, parser, line in the list of commands."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            helps = {choice.dest: choice.help or "" for choice in action._choices_actions}
            for name, below in action.choices.items():
                inside = [(f"{name} {deeper}", lower, help) for deeper, lower, help in commands(below)]
                yield from inside or [(name, below, helps[name])]


def _check_command(top: Parser, first: str) -> None:
    """Raise UsageError unless the first argument is a command or an option of `bitnet` itself."""
    names = list(dict.fromkeys(name.split()[0] for name, _, _ in commands(top)))
    if first in names or first in top._option_string_actions:
        return
    if first.startswith("-"):  # llama.cpp has no commands
        message = f"name a command before {first}, such as `bitnet run {first} …` or `bitnet chat {first} …`"
    elif first in COMMANDS:
        raise UsageError(f"{top.prog}: there is no command {first}: {COMMANDS[first]}")
    else:
        close = get_close_matches(first, names, 1)
        message = f"there is no command {first}; " + (
            f"did you mean {close[0]}?" if close else f"the commands are {', '.join(names)}"
        )
    raise UsageError(f"{top.prog}: {message}; see `bitnet --help`")


def _explain_options(top: Parser, arguments: Sequence[str], suspects: Sequence[str]) -> None:
    """Raise UsageError with what to type in place of the first option that the command does not have, if that is
    known."""
    name, parser = _chosen(top, arguments)
    for text in suspects:
        option = text.partition("=")[0]
        if not option.startswith("-") or option in parser._option_string_actions:
            continue
        if hint := _hint(option, parser, top):
            raise UsageError(f"{name}: there is no option {option}: {hint}")


def _chosen(top: Parser, arguments: Sequence[str]) -> tuple[str, argparse.ArgumentParser]:
    """The full name and the parser of the command that the arguments name."""
    for words, parser, _ in commands(top):
        if list(arguments[: len(words.split())]) == words.split():
            return parser.prog, parser
    return top.prog, top


def _hint(option: str, parser: argparse.ArgumentParser, top: Parser) -> str | None:
    """What to type in place of an option that the parser does not have."""
    known = parser._option_string_actions
    long = "--" + option.lower().lstrip("-").replace("_", "-")
    if long in known:
        return f"did you mean {long}?"
    if hint := HINTS.get(option) or HINTS.get(long):
        return hint
    shown = [text for text, action in known.items() if text.startswith("--") and action.help != argparse.SUPPRESS]
    if len(long) > 3:
        begun = [text for text in shown if text.startswith(long)]
        close = begun if len(begun) == 1 else get_close_matches(long, shown, 1, cutoff=0.7)
        if close:
            return f"did you mean {close[0]}?"
    others = [name for name, other, _ in commands(top) if option in other._option_string_actions]
    return f"it is an option of `bitnet {others[0]}`" if others else None


def _place(parser: Parser, options: argparse.Namespace, rest: list[str]) -> None:
    """Give each positional argument its value again, with those that argparse left over.

    argparse settles optional arguments at the first one that it meets: in `MODEL --ids TEXT` or `--chat MODEL -n 3
    PROMPT` nothing is left for the last. Required arguments come first; then the values fill from the left. An argument
    that was given as a hidden option, such as -m MODEL, takes no value.
    """
    places, values, flagged = [], [], {}
    for action in parser._actions:
        if action.option_strings:
            continue
        if action.nargs == "+":
            getattr(options, action.dest).extend(rest)
            rest = []
            continue
        if (value := getattr(options, action.dest)) is not None:
            values.append(value)
        if (value := getattr(options, f"{action.dest}_flag", None)) is not None:
            flagged[action.dest] = value
        else:
            places.append(action)
    values += rest
    if len(values) > len(places):
        parser.error(f"unexpected argument {values[len(places)]!r}; put quotes around a text with spaces")
    spare = len(values) - sum(place.nargs is None for place in places)
    for place in places:
        filled = place.nargs is None or spare > 0
        spare -= place.nargs == "?"
        setattr(options, place.dest, values.pop(0) if filled else None)
    for name, value in flagged.items():
        setattr(options, name, value)
