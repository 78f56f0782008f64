"""`bitnet chat`: a conversation at the terminal, or through pipes."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

from . import ChatSession, Receipt
from .errors import ArgumentError, BitnetError
from .picture import coloured

KEYS = """\
  Ctrl-C    stop the answer; at the prompt: leave
  Ctrl-D    leave
  Alt-Enter begin a new line; pasted ones stay together
  Up, Down  earlier inputs
A line that begins with a space is never a command."""

Ask = Callable[[], str]
"""Asks for the next input: EOFError at its end."""


class Receipts:
    """Writes a command's receipts into a folder: one file each, and `inference.json` as a copy of the newest."""

    def __init__(self, folder: Path, command: str) -> None:
        """Make the folder; raises OSError if nothing can be written into it."""
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(
                13, "nothing can be written into this folder; choose another --receipt-dir", str(folder)
            )
        self.folder = folder
        self.command = command
        self.count = 0

    def save(self, receipt: Receipt) -> None:
        """Write one. Process and number keep apart what ends in the same millisecond."""
        self.count += 1
        stamp = receipt.timestamp.replace("-", "").replace(":", "")
        receipt.save(self.folder / f"{self.command}-{stamp}-{os.getpid()}-{self.count}.json")
        receipt.save(self.folder / "inference.json")


class Repl:
    """Reads inputs; each is a command or something to answer."""

    def __init__(self, chat: ChatSession, receipts: Receipts | None, history: Path | None = None) -> None:
        """Nothing is read or printed yet. `history` keeps the inputs of a terminal."""
        self.chat = chat
        self.receipts = receipts
        self.terminal = sys.stdin.isatty() and sys.stdout.isatty()
        self.ask: Ask = at_terminal(history) if self.terminal else input
        self.commands: dict[str, tuple[str, Callable[[str], bool]]] = {
            "/help": ("list the commands and keys", self.help),
            "/clear": ("forget the conversation; system prompt and template stay", self.clear),
            "/metrics": ("show tokens, times and rates of the conversation", self.metrics),
            "/history": ("show the turns", self.history),
            "/rewind": ("N: take back the last N exchanges (default 1)", self.rewind),
            "/save": ("FILE: write the conversation; --cache FILE: with what is computed", self.save),
            "/load": ("FILE: go on with a conversation that was saved", self.load),
            "/exit": ("leave", lambda rest: False),
            "/quit": ("leave", lambda rest: False),
        }

    def run(self) -> None:
        """Read and answer up to the end of the input, or a command to leave."""
        template = self.chat.template
        aside = sys.stdout if self.terminal else sys.stderr  # through pipes, stdout is for answers
        print(f"model     {self.chat.engine.path}", file=aside)
        print(f"template  {template.name} (from: {template.origin})", file=aside)
        if template.warning:
            print(f"warning: {template.warning}", file=sys.stderr)
        print("/help lists the commands.\n", file=aside, flush=True)
        while True:
            try:
                text = self.ask()
            except EOFError:
                return
            except UnicodeDecodeError as error:
                print(f"bitnet: a line is not UTF-8 ({error}); it was ignored", file=sys.stderr)
                continue
            try:
                if not self.take(text):
                    return
            except BrokenPipeError:
                raise
            except (BitnetError, OSError) as error:
                print(f"bitnet: {error}", file=sys.stderr)

    def take(self, text: str) -> bool:
        """Obey or answer an input; whether to go on."""
        if not text.strip():
            return True
        if not text.startswith("/"):
            self.answer(text)
            return True
        name, _, rest = text.strip().partition(" ")
        if name not in self.commands:
            print(f"bitnet: there is no command {name}; /help lists them", file=sys.stderr)
            return True
        return self.commands[name][1](rest.strip())

    def answer(self, text: str) -> None:
        """Stream an answer; Ctrl-C ends it."""
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
                print(coloured(status(stream.receipt), "2"), flush=True)
            if self.receipts:
                self.receipts.save(stream.receipt)

    def help(self, rest: str) -> bool:
        """`/help`."""
        for name, (text, _) in self.commands.items():
            print(f"  {name:<9} {text}")
        print(KEYS, flush=True)
        return True

    def clear(self, rest: str) -> bool:
        """`/clear`."""
        self.chat.clear()
        return True

    def metrics(self, rest: str) -> bool:
        """`/metrics`."""
        sums = self.chat.metrics
        print(f"exchanges  {sums['exchanges']}")
        print(
            f"tokens     {sums['prompt_tokens']} prompt ({sums['cached_tokens']} reused), "
            f"{sums['completion_tokens']} generated"
        )
        print(f"prefill    {sums['prefill_seconds']:.3f} s, {sums['prefill_tokens_per_second']:.1f} tokens/s")
        print(f"decode     {sums['decode_seconds']:.3f} s, {sums['decode_tokens_per_second']:.1f} tokens/s", flush=True)
        return True

    def history(self, rest: str) -> bool:
        """`/history`."""
        for turn in self.chat.history:
            print(f"{turn.role}{' (stopped)' if turn.cancelled else ''}: {turn.text}")
        sys.stdout.flush()
        return True

    def rewind(self, rest: str) -> bool:
        """`/rewind`."""
        if rest and not (rest.isdecimal() and len(rest) < 10):
            raise ArgumentError(f"/rewind takes a number of exchanges, found {rest[:20]!r}")
        self.chat.rewind(int(rest or 1))
        return True

    def save(self, rest: str) -> bool:
        """`/save`."""
        option, _, path = rest.partition(" ")
        cache = option == "--cache"
        self.chat.save(named("/save", path.strip() if cache else rest), cache=cache)
        return True

    def load(self, rest: str) -> bool:
        """`/load`. If it fails, the conversation goes on as it was."""
        self.chat = ChatSession.load(self.chat.engine, named("/load", rest))
        return True


def named(command: str, path: str) -> Path:
    """The file that a command names."""
    if not path:
        raise ArgumentError(f"{command} takes the name of a file")
    return Path(path).expanduser()


def at_terminal(history: Path | None) -> Ask:
    """Line editing. The library is not loaded for pipes."""
    from prompt_toolkit import PromptSession
    from prompt_toolkit.formatted_text import ANSI
    from prompt_toolkit.history import FileHistory, InMemoryHistory
    from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

    if history:
        history.open("ab").close()  # so that a file that cannot be written is an error now
    keys = KeyBindings()

    @keys.add("enter")
    def end(event: KeyPressEvent) -> None:
        event.current_buffer.validate_and_handle()

    @keys.add("escape", "enter")
    def new_line(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    # Several lines, so that what is pasted stays one input.
    session: PromptSession[str] = PromptSession(
        history=FileHistory(str(history)) if history else InMemoryHistory(), key_bindings=keys, multiline=True
    )
    return lambda: session.prompt(ANSI(coloured("> ", "1;32")))


def status(receipt: Receipt) -> str:
    """An answer's figures in a line."""
    prompt, reused, generated = receipt.prompt_tokens, receipt.cached_tokens, receipt.completion_tokens
    seconds = receipt.seconds
    # The prompt gives the first token.
    rates = rate(prompt - reused, seconds["prefill"]), rate(generated - 1, seconds["decode"])
    return (
        f"[prompt {prompt} tokens, {reused} reused, {rates[0]} tokens/s; "
        f"answer {generated} tokens, {rates[1]} tokens/s; {receipt.finish_reason}]"
    )


def rate(tokens: int, seconds: float) -> str:
    """Tokens a second, if there were any."""
    return f"{tokens / seconds:.1f}" if tokens and seconds else "-"
