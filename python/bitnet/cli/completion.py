"""`bitnet completion`."""

import argparse
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from ._options import INSIDE, Commands, add_command
from ._parser import commands


def add_parser(commands: Commands) -> None:
    """Describe the command and its options."""
    command = add_command(
        commands,
        "completion",
        run,
        help="print a script for completion in the shell",
        description="Print a script that completes commands, options, their values and files with the Tab key. For "
        'bash, add this line to ~/.bashrc: eval "$(bitnet completion bash)". For zsh, add to ~/.zshrc after compinit: '
        'eval "$(bitnet completion zsh)". For fish: bitnet completion fish > ~/.config/fish/completions/bitnet.fish',
    )
    command.add_argument("shell", metavar="SHELL", choices=["bash", "zsh", "fish"], help="bash, zsh or fish")


def run(options: argparse.Namespace) -> None:
    """Print the script."""
    from . import build_parser  # here, because it imports this module

    top = build_parser()
    sys.stdout.write({"bash": _bash, "zsh": _zsh, "fish": _fish}[options.shell](top))


@dataclass(frozen=True)
class _Flag:
    """An option as a shell completes it."""

    names: list[str]
    help: str
    takes_value: bool
    values: list[str]
    """The values to choose from; empty if the value is free, or a file."""
    is_file: bool


def _flags(parser: argparse.ArgumentParser) -> Iterator[_Flag]:
    """Yield the options of a command that its help shows."""
    for action in parser._actions:
        if action.option_strings and action.help != argparse.SUPPRESS:
            name = action.metavar if isinstance(action.metavar, str) else ""
            yield _Flag(
                list(action.option_strings),
                (action.help or "").partition(" (default:")[0],
                action.nargs != 0,
                [*map(str, action.choices or ()), *([INSIDE] if name == "MODEL" else [])],
                any(word in name for word in ("FILE", "DIR", "MODEL", "OUTPUT")),
            )


def _arguments(parser: argparse.ArgumentParser) -> list[str]:
    """The words that a command's arguments can be, beside files."""
    words: list[str] = []
    for action in parser._actions:
        if not action.option_strings:
            words += map(str, action.choices or ())
            words += [INSIDE] if action.dest == "model" else []
    return words


def _names(top: argparse.ArgumentParser) -> dict[str, str]:
    """What can follow the words so far: for "" the commands, for "receipt" its actions."""
    below: dict[str, list[str]] = {}
    for name, _, _ in commands(top):
        *before, last = name.split()
        for depth, word in enumerate([*before, last]):
            known = below.setdefault(" ".join(before[:depth]), [])
            if word not in known:
                known.append(word)
    return {words: " ".join(names) for words, names in below.items()}


_BASH = """\
_bitnet() {{
    local word="${{COMP_WORDS[COMP_CWORD]}}" before="${{COMP_WORDS[COMP_CWORD-1]}}" command="" i
    for ((i = 1; i < COMP_CWORD; i++)); do
        case "${{command:+$command }}${{COMP_WORDS[i]}}" in
            {known}) command="${{command:+$command }}${{COMP_WORDS[i]}}" ;;
        esac
    done
    case "$command $before" in
{values}
    esac
    case "$command" in
{flags}
    esac
}}
complete -o bashdefault -o default -F _bitnet bitnet
"""


def _bash(top: argparse.ArgumentParser) -> str:
    """The script for bash. Where it suggests nothing, bash completes file names."""
    names = _names(top)
    known = [f"{words} {name}".strip() for words, below in names.items() for name in below.split()]
    values, flags = [], []
    for words, parser, _ in commands(top):
        replies: dict[str, list[str]] = {}
        for flag in _flags(parser):
            if flag.takes_value:
                reply = _reply(" ".join(flag.values), flag.is_file) if flag.values or flag.is_file else _NOTHING
                replies.setdefault(reply, []).extend(shlex.quote(f"{words} {name}") for name in flag.names)
        values += [f"        {'|'.join(patterns)}) {reply}; return ;;" for reply, patterns in replies.items()]
        shown = " ".join(name for flag in _flags(parser) for name in flag.names if name.startswith("--"))
        choices = any(action.choices for action in parser._actions if not action.option_strings)
        free = _reply(" ".join(_arguments(parser)), is_file=not choices)
        flags.append(
            f'        {shlex.quote(words)}) if [[ "$word" == -* ]]; then {_reply(shown, False)}; else {free}; fi ;;'
        )
    for words, below in names.items():
        shown = f"{below} --help" + " --version" * (not words)
        flags.append(f"        {shlex.quote(words)}) {_reply(shown, False)} ;;")
    return _BASH.format(known="|".join(map(shlex.quote, known)), values="\n".join(values), flags="\n".join(flags))


_NOTHING = "COMPREPLY=(); compopt +o default +o bashdefault 2>/dev/null"
"""The bash command that suggests nothing, not even files."""


def _reply(words: str, is_file: bool) -> str:
    """The bash command that suggests some words, and files."""
    reply = f'COMPREPLY=($(compgen -W {shlex.quote(words)} -- "$word"))'
    if is_file:
        reply += "; local IFS=$'\\n'; COMPREPLY+=($(compgen -f -- \"$word\")); compopt -o filenames 2>/dev/null"
    return reply


def _zsh(top: argparse.ArgumentParser) -> str:
    """The script for zsh: that for bash, through zsh's own bashcompinit."""
    return "autoload -U +X bashcompinit && bashcompinit\n" + _bash(top)


def _fish(top: argparse.ArgumentParser) -> str:
    """The script for fish, with the help of each option."""
    lines = ["complete -c bitnet -n __fish_use_subcommand -f -a --help -d 'show the help'"]
    groups = {name for name in _names(top) if name}
    for name in _names(top)[""].split():
        help = next((help for words, _, help in commands(top) if words == name), "")
        lines.append(f"complete -c bitnet -n __fish_use_subcommand -f -a {name} -d {_fish_text(help)}")
    for words, parser, help in commands(top):
        first, _, second = words.partition(" ")
        when = f"__fish_seen_subcommand_from {first}"
        if first in groups:
            others = _names(top)[first]
            lines.append(
                f"complete -c bitnet -n '{when}; and not __fish_seen_subcommand_from {others}' -f -a {second} "
                f"-d {_fish_text(help)}"
            )
            when += f"; and __fish_seen_subcommand_from {second}"
        for word in _arguments(parser):
            lines.append(f"complete -c bitnet -n '{when}' -a {word}")
        for flag in _flags(parser):
            spelled = " ".join(f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}" for name in flag.names)
            value = " -x" if flag.takes_value and not flag.is_file else " -r" if flag.takes_value else ""
            value += f" -a {_fish_text(' '.join(flag.values))}" if flag.values else ""
            lines.append(f"complete -c bitnet -n '{when}' {spelled}{value} -d {_fish_text(flag.help)}")
    return "\n".join(lines) + "\n"


def _fish_text(text: str) -> str:
    """A text in single quotes, as fish reads them."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
