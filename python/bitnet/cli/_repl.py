"""The loop of `bitnet chat`: at a terminal with line editing, or through pipes."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from .. import ChatSession, Receipt
from .._format import rate, token_counts, two_columns
from ..errors import ArgumentError, BitnetError
from ._receipt_folder import ReceiptFolder
from ._terminal import coloured

_KEYS = {
    "Ctrl-C": "stop the answer; at the prompt: quit",
    "Ctrl-D": "quit",
    "Alt-Enter": "begin a new line in the same message; pasted line breaks stay in it too",
    "Up, Down": "go through earlier messages",
}

_ReadInput = Callable[[], str]
"""Waits for the next input. Raises EOFError at the end of all input."""


class _Command(NamedTuple):
    """A command such as /help."""

    arguments: str
    """Its arguments, as /help shows them."""
    help: str
    run: Callable[[str], bool]
    """Executes it with the rest of the line, and returns whether the loop goes on."""


class Repl:
    """Reads inputs: each is a command, or a message that the model answers."""

    def __init__(self, chat: ChatSession, receipts: ReceiptFolder | None, history: Path | None = None) -> None:
        """Prepare the loop. `receipts` gets the receipt of each answer; `history` keeps what is typed at a terminal."""
        self.chat = chat
        self.receipts = receipts
        self.terminal = sys.stdin.isatty() and sys.stdout.isatty()
        self.read_input: _ReadInput = _line_editor(history) if self.terminal else input
        self.commands = {
            "/help": _Command("", "list the commands and keys", self.help),
            "/clear": _Command("", "forget all turns; system prompt and template stay", self.clear),
            "/metrics": _Command("", "show token counts, times and rates of the conversation", self.metrics),
            "/history": _Command("", "show the turns of the conversation", self.history),
            "/rewind": _Command("[N]", "take back the last N exchanges (default: 1)", self.rewind),
            "/save": _Command("[--cache] FILE", "save the conversation; --cache saves the KV cache too", self.save),
            "/load": _Command("FILE", "continue a saved conversation in place of this one", self.load),
            "/exit": _Command("", "quit", lambda rest: False),
            "/quit": _Command("", "quit", lambda rest: False),
        }

    def run(self) -> None:
        """Read and answer inputs until they end, or until a command quits."""
        template = self.chat.template
        banner = sys.stdout if self.terminal else sys.stderr  # through pipes, stdout has the answers only
        print(f"model     {self.chat.engine.path}", file=banner)
        print(f"template  {template.name} (from: {template.origin})", file=banner)
        if template.warning:
            print(f"warning: {template.warning}", file=sys.stderr)
        print("/help lists the commands.\n", file=banner, flush=True)
        while True:
            try:
                text = self.read_input()
            except EOFError:
                return
            except UnicodeDecodeError as error:
                print(f"bitnet: ignored a line that is not UTF-8: {error}", file=sys.stderr)
                continue
            try:
                if not self.take(text):
                    return
            except BrokenPipeError:
                raise
            except (BitnetError, OSError) as error:
                print(f"bitnet: {error}", file=sys.stderr)

    def take(self, text: str) -> bool:
        """Execute a command, or answer a message. Returns whether the loop goes on."""
        if not text.strip():
            return True
        if not text.startswith("/"):
            self.answer(text)
            return True
        name, _, rest = text.strip().partition(" ")
        if name not in self.commands:
            print(f"bitnet: there is no command {name}; /help lists the commands", file=sys.stderr)
            return True
        return self.commands[name].run(rest.strip())

    def answer(self, text: str) -> None:
        """Print the answer to a message piece by piece. Ctrl-C stops it."""
        forgotten = self.chat.forgotten
        stream = None
        try:
            stream = self.chat.stream(text)
            if self.chat.forgotten > forgotten:
                print(f"(the oldest {self.chat.forgotten} turns no longer fit into the context)", file=sys.stderr)
            for piece in stream:
                print(piece.text, end="", flush=True)
        except KeyboardInterrupt:
            if stream:
                stream.cancel()
        print(flush=True)
        if stream and stream.receipt:
            if self.terminal:
                print(coloured(_status_line(stream.receipt), "2"), flush=True)
            if self.receipts:
                self.receipts.save(stream.receipt)

    def help(self, rest: str) -> bool:
        """List the commands and keys."""
        rows = {f"  {name} {command.arguments}".rstrip(): command.help for name, command in self.commands.items()}
        print(two_columns(rows | {f"  {key}": what for key, what in _KEYS.items()}))
        print("A line that begins with a space is a message, even if a / follows.", flush=True)
        return True

    def clear(self, rest: str) -> bool:
        """Forget all turns."""
        self.chat.clear()
        return True

    def metrics(self, rest: str) -> bool:
        """Print the sums over the conversation."""
        sums = self.chat.metrics
        rows = {
            "exchanges": sums["exchanges"],
            "tokens": token_counts(sums["prompt_tokens"], sums["cached_tokens"], sums["completion_tokens"]),
            "prefill": f"{sums['prefill_seconds']:.3f} s, {rate(sums['prefill_tokens_per_second'])}",
            "decode": f"{sums['decode_seconds']:.3f} s, {rate(sums['decode_tokens_per_second'])}",
        }
        print(two_columns(rows), flush=True)
        return True

    def history(self, rest: str) -> bool:
        """Print the turns."""
        for turn in self.chat.history:
            print(f"{turn.role}{' (stopped)' if turn.cancelled else ''}: {turn.text}")
        sys.stdout.flush()
        return True

    def rewind(self, rest: str) -> bool:
        """Take back exchanges."""
        if rest and not (rest.isdecimal() and len(rest) < 10):
            raise ArgumentError(f"/rewind takes a number of exchanges, found {rest[:20]!r}")
        self.chat.rewind(int(rest or 1))
        return True

    def save(self, rest: str) -> bool:
        """Save the conversation."""
        option, _, path = rest.partition(" ")
        cache = option == "--cache"
        self.chat.save(_file_of("/save", path.strip() if cache else rest), cache=cache)
        return True

    def load(self, rest: str) -> bool:
        """Load a conversation. After an error the current one goes on."""
        self.chat = ChatSession.load(self.chat.engine, _file_of("/load", rest))
        return True


def _file_of(command: str, path: str) -> Path:
    """The file that a command's argument names."""
    if not path:
        raise ArgumentError(f"{command} needs the name of a file")
    return Path(path).expanduser()


def _line_editor(history: Path | None) -> _ReadInput:
    """Line editing at a terminal. Pipes never get here, so they do not load prompt_toolkit."""
    from prompt_toolkit import PromptSession
    from prompt_toolkit.formatted_text import ANSI
    from prompt_toolkit.history import FileHistory, InMemoryHistory
    from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

    if history:
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
        history=FileHistory(str(history)) if history else InMemoryHistory(), key_bindings=keys, multiline=True
    )
    return lambda: session.prompt(ANSI(coloured("> ", "1;32")))


def _status_line(receipt: Receipt) -> str:
    """The figures of an answer on one line."""
    prompt, reused, generated = receipt.prompt_tokens, receipt.cached_tokens, receipt.completion_tokens
    seconds = receipt.seconds
    prefill = _rate(prompt - reused, seconds["prefill"])
    decode = _rate(generated - 1, seconds["decode"])  # the prefill already gives the first token
    return (
        f"[prompt {prompt} tokens, {reused} reused, {prefill}; answer {generated} tokens, {decode}; "
        f"{receipt.finish_reason}]"
    )


def _rate(tokens: int, seconds: float) -> str:
    """Tokens per second; "-" if nothing was computed."""
    return rate(tokens / seconds) if tokens and seconds else "- tokens/s"
