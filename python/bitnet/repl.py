"""`bitnet chat`: a conversation at the terminal, or through pipes."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

from . import ChatSession, Receipt
from .errors import BitnetError

KEYS = """\
  Ctrl-C    stop the answer; at the prompt: leave
  Ctrl-D    leave
A line that begins with a space is never a command."""


class Receipts:
    """Writes receipts into a folder: one file each, and `inference.json` as a copy of the newest."""

    def __init__(self, folder: Path) -> None:
        """Make the folder; raises OSError if nothing can be written into it."""
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(
                13, "nothing can be written into this folder; choose another --receipt-dir", str(folder)
            )
        self.folder = folder
        self.count = 0

    def save(self, receipt: Receipt) -> None:
        """Write one. Process and number keep apart what ends in the same millisecond."""
        self.count += 1
        stamp = receipt.timestamp.replace("-", "").replace(":", "")
        receipt.save(self.folder / f"chat-{stamp}-{os.getpid()}-{self.count}.json")
        receipt.save(self.folder / "inference.json")


class Repl:
    """Reads lines; each is a command or something to answer."""

    def __init__(self, chat: ChatSession, receipts: Receipts | None) -> None:
        """Nothing is read or printed yet."""
        self.chat = chat
        self.receipts = receipts
        self.commands: dict[str, tuple[str, Callable[[], bool]]] = {
            "/help": ("list the commands and keys", self.help),
            "/clear": ("forget the conversation; system prompt and template stay", self.clear),
            "/metrics": ("show tokens, times and rates of the conversation", self.metrics),
            "/exit": ("leave", lambda: False),
            "/quit": ("leave", lambda: False),
        }

    def run(self) -> None:
        """Read and answer up to the end of the input, or a command to leave."""
        template = self.chat.template
        print(f"model     {self.chat.engine.path}")
        print(f"template  {template.name} (from: {template.origin})")
        if template.warning:
            print(f"warning: {template.warning}", file=sys.stderr)
        print("/help lists the commands.\n", flush=True)
        interactive = sys.stdin.isatty() and sys.stdout.isatty()
        if interactive:
            import readline  # noqa: F401 - gives input() its line editing
        while True:
            try:
                line = input("> " if interactive else "")
            except EOFError:
                return
            except UnicodeDecodeError as error:
                print(f"bitnet: a line is not UTF-8 ({error}); it was ignored", file=sys.stderr)
                continue
            if not self.take(line):
                return

    def take(self, line: str) -> bool:
        """Obey or answer a line; whether to go on."""
        if not line.strip():
            return True
        if not line.startswith("/"):
            self.answer(line)
            return True
        name = line.split()[0]
        if name not in self.commands:
            print(f"bitnet: there is no command {name}; /help lists them", file=sys.stderr)
            return True
        return self.commands[name][1]()

    def answer(self, text: str) -> None:
        """Stream an answer; Ctrl-C ends it."""
        forgotten = self.chat.forgotten
        try:
            stream = self.chat.stream(text)
            if self.chat.forgotten > forgotten:
                print(f"(the oldest {self.chat.forgotten} turns no longer fit into the context)", file=sys.stderr)
            try:
                for piece in stream:
                    print(piece.text, end="", flush=True)
            except KeyboardInterrupt:
                stream.cancel()
            print(flush=True)
            if self.receipts and stream.receipt:
                self.receipts.save(stream.receipt)
        except (BitnetError, OSError) as error:
            if isinstance(error, BrokenPipeError):
                raise
            print(f"bitnet: {error}", file=sys.stderr)

    def help(self) -> bool:
        """`/help`."""
        for name, (text, _) in self.commands.items():
            print(f"  {name:<9} {text}")
        print(KEYS, flush=True)
        return True

    def clear(self) -> bool:
        """`/clear`."""
        self.chat.clear()
        return True

    def metrics(self) -> bool:
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
