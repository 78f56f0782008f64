"""Write docs/cli.md from the parsers, so that the page says what `--help` says.

python -m bitnet.cli._page > docs/cli.md

The text is built from the parsers' actions, because argparse formats help differently from version to version.
"""

import argparse
import textwrap

from . import build_parser
from ._parser import commands

_WIDTH = 98
_OPTION_COLUMNS = 28

_HEAD = """\
<!-- Generated: python -m bitnet.cli._page > docs/cli.md -->
# The command `bitnet`

`bitnet COMMAND --help` prints the same at a terminal. Without MODEL, a command uses Trit, the small
model in the package, which is also named `trit`.

| command | |
|---|---|
"""

_TAIL = """\
## Exit status
| status | |
|---|---|
| 0 | success |
| 1 | a receipt or certificate is wrong, or a claim differs; `bitnet doctor`: a wrong answer |
| 2 | an error; one line on standard error says what is wrong |
| 130 | Ctrl-C |

## Environment
| variable | |
|---|---|
| `BITNET_ISA` | instruction set of every command, see `bitnet doctor` (default: the best one) |
| `NO_COLOR` | if set, no colours |
| `HF_HOME`, `HF_ENDPOINT`, `HF_HUB_OFFLINE` | as in `huggingface_hub` |
"""


def page() -> str:
    """The whole page, as Markdown."""
    rows, sections = [], []
    for name, parser, help in commands(build_parser()):
        rows.append(f"| [{name}](#bitnet-{name.replace(' ', '-')}) | {help} |\n")
        sections.append(_section(f"bitnet {name}", parser))
    return "".join([_HEAD, *rows, "\n", *sections, _TAIL])


def _section(name: str, parser: argparse.ArgumentParser) -> str:
    """The section of one command: description, usage, arguments and options."""
    described = "\n".join(textwrap.wrap(parser.description or "", _WIDTH))
    lines = [f"## `{name}`", described, "```", *_usage(name, parser)]
    for group in parser._action_groups:
        options = [action for action in group._group_actions if _is_shown(action)]
        if options:
            title = "arguments" if group.title == "positional arguments" else group.title
            lines += ["", f"{title}:", *(line for action in options for line in _option(action))]
    lines += ["```", *textwrap.wrap(parser.epilog or "", _WIDTH)]
    return "\n".join(lines) + "\n\n"


def _usage(name: str, parser: argparse.ArgumentParser) -> list[str]:
    """The usage lines: required options and arguments by name, all others as [options]."""
    required = [
        "(" + " | ".join(f"{action.option_strings[0]} {_value(action)}" for action in group._group_actions) + ")"
        for group in parser._mutually_exclusive_groups
        if group.required
    ]
    arguments = [_value(action) for action in parser._actions if not action.option_strings]
    usage = " ".join([name, "[options]", *required, *arguments])
    return textwrap.wrap(usage, _WIDTH, subsequent_indent="    ", break_on_hyphens=False)


def _is_shown(action: argparse.Action) -> bool:
    """Whether the page lists an option: not --help, and not one that is only accepted, such as --temp."""
    return action.help != argparse.SUPPRESS and not isinstance(action, argparse._HelpAction)


def _value(action: argparse.Action) -> str:
    """The value of an option or argument, as the usage shows it; empty for an option without a value."""
    if action.nargs == 0:
        return ""
    choices = "{" + ",".join(map(str, action.choices)) + "}" if action.choices else action.dest.upper()
    name = action.metavar if isinstance(action.metavar, str) else choices
    if isinstance(action.nargs, int):
        return " ".join([name] * action.nargs)
    return {"?": f"[{name}]", "+": f"{name}…"}.get(str(action.nargs), name)


def _option(action: argparse.Action) -> list[str]:
    """An option or argument with its help, in two columns. The help begins on a line of its own if the name is long."""
    name = "  " + f"{', '.join(action.option_strings)} {_value(action)}".strip()
    column = " " * _OPTION_COLUMNS
    lines = textwrap.wrap(action.help or "", _WIDTH - _OPTION_COLUMNS, break_on_hyphens=False)
    lines = [column + line for line in lines]
    if len(name) + 2 <= _OPTION_COLUMNS:
        lines[0] = f"{name:<{_OPTION_COLUMNS}}" + lines[0].lstrip()
        return lines
    return [name, *lines]


if __name__ == "__main__":
    print(page(), end="")
