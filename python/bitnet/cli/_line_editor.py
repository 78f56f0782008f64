"""Line editing of `bitnet chat` at a terminal. Pipes never get here, so they do not load prompt_toolkit."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import CompleteEvent, Completer, Completion, PathCompleter
from prompt_toolkit.document import Document
from prompt_toolkit.formatted_text import ANSI
from prompt_toolkit.history import FileHistory, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.shortcuts import CompleteStyle

from ..errors import ArgumentError
from ._terminal import coloured


def line_editor(history: Path | None, commands: Mapping[str, str]) -> Callable[[], str]:
    """A function that reads an input. `commands` has the arguments of each command, such as FILE, for the Tab key."""
    if history:
        if history.exists() and not history.is_file():
            raise ArgumentError(f"--history {history}: is not a regular file; name one, or a new one")
        history.open("ab").close()  # a file that cannot be written is an error now, not after the first input
    keys = KeyBindings()

    @keys.add("enter")
    def end(event: KeyPressEvent) -> None:
        event.current_buffer.validate_and_handle()

    @keys.add("escape", "enter")
    def new_line(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    # multiline=True, so that pasted lines stay one input.
    session: PromptSession[str] = PromptSession(
        history=FileHistory(str(history)) if history else InMemoryHistory(),
        key_bindings=keys,
        multiline=True,
        completer=_Commands(commands),
        complete_style=CompleteStyle.READLINE_LIKE,
    )
    return lambda: session.prompt(ANSI(coloured("> ", "1;32")))


class _Commands(Completer):
    """Completes the names of commands, and the names of files after those that take one."""

    def __init__(self, commands: Mapping[str, str]) -> None:
        """Take the commands with their arguments."""
        self.commands = commands
        self.paths = PathCompleter(expanduser=True)

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        """Yield what the text before the cursor can become."""
        text = document.text_before_cursor
        name, space, rest = text.partition(" ")
        if not name.startswith("/") or "\n" in text:
            return
        if not space:
            for command in self.commands:
                if command.startswith(name):
                    yield Completion(command, start_position=-len(name))
        elif "FILE" in self.commands.get(name, ""):
            yield from self.paths.get_completions(Document(rest.removeprefix("--cache ")), complete_event)
