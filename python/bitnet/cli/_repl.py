"""The loop of `bitnet chat`: at a terminal with line editing, or through pipes."""

import json
import sys
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path
from typing import NamedTuple

from .. import ChatSession, Receipt, inspect
from .._format import escape_line, plain_line, rate, token_counts, two_columns
from ..errors import ArgumentError, BitnetError
from ..models import inside
from ._answer import print_answer
from ._errors import in_flags
from ._receipt_folder import ReceiptFolder
from ._terminal import coloured, whole_text

_KEYS = {
    "Ctrl-C": "stop the answer; at the prompt: quit",
    "Ctrl-D": "quit",
    "Alt-Enter": "begin a new line in the same message; pasted line breaks stay in it too",
    "Up, Down": "go through earlier messages",
    "Tab": "complete a command or a file name",
}

_ALIASES = {
    "/?": "/help",
    "/bye": "/exit",
    "/q": "/exit",
    "/reset": "/clear",
    "/undo": "/rewind",
    "/regenerate": "/retry",
}
"""Commands of other programs that mean the same."""

_TRY = "What is 345+678? | how many r's in strawberry | My name is Ann."
"""Messages that the model inside was trained for."""

_ABOUT = 200
"""The name and the description of a model are each cut to this many characters."""

_ANSWER = "36"
"""The colour of answers, as an ANSI code."""

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

    def __init__(
        self,
        chat: ChatSession,
        receipts: ReceiptFolder | None,
        history: Path | None,
        *,
        open_model: Callable[[str], ChatSession],
        explain: Callable[[Exception], str],
        show_thoughts: bool = True,
    ) -> None:
        """Prepare the loop.

        `receipts` gets the receipt of each answer; `history` keeps what is typed at a terminal; `open_model` begins a
        conversation with another model; `explain` tells an error; `show_thoughts`: whether a terminal shows them.
        """
        self.chat = chat
        self.receipts = receipts
        self.open_model = open_model
        self.explain = explain
        self.show_thoughts = show_thoughts
        self.enable_thinking: bool | None = None  # what /thinking says; None: as the conversation says
        self.terminal = sys.stdin.isatty() and sys.stdout.isatty()
        self.notes = sys.stdout if self.terminal else sys.stderr  # through pipes, stdout has answers and command output
        self.commands = {
            "/help": _Command("", "list the commands and keys", self.help),
            "/clear": _Command("", "forget all turns; system prompt and template stay", self.clear),
            "/metrics": _Command("", "show token counts, times and rates of the conversation", self.metrics),
            "/history": _Command("", "show the turns of the conversation", self.history),
            "/retry": _Command("", "answer the last message again", self.retry),
            "/rewind": _Command("[N]", "take back the last N exchanges (default: 1)", self.rewind),
            "/system": _Command("[TEXT]", "set the system prompt, or show it; the turns stay", self.system),
            "/thinking": _Command(
                "[on|off|show|hide]", "let the model think or not, or show its thoughts", self.thinking
            ),
            "/model": _Command("NAME_OR_FILE", "start again with another model; the options stay", self.model),
            "/save": _Command("[--cache] FILE", "save the conversation; --cache saves the KV cache too", self.save),
            "/load": _Command("FILE", "continue a saved conversation in place of this one", self.load),
            "/exit": _Command("", "quit", lambda rest: False),
            "/quit": _Command("", "quit", lambda rest: False),
        }
        self.read_input: _ReadInput = input
        if self.terminal:
            from ._line_editor import line_editor  # here, because it loads prompt_toolkit

            self.read_input = line_editor(history, {name: each.arguments for name, each in self.commands.items()})

    def run(self) -> None:
        """Read and answer inputs until they end, or until a command quits."""
        self.welcome()
        print("/help lists the commands.\n", file=self.notes, flush=True)
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
                print(f"bitnet: {self.explain(error)}", file=sys.stderr)

    def welcome(self) -> None:
        """Say which model it is, what it can do, and which template it uses."""
        path, template = self.chat.engine.path, self.chat.template
        about = {entry["key"]: entry["value"] for entry in inspect(path)["metadata"]}
        told = [about.get(f"general.{name}") for name in ("name", "description")]
        if line := ": ".join(plain_line(text, _ABOUT) for text in told if isinstance(text, str) and text):
            print(line, file=self.notes)
        print(f"model     {escape_line(str(path))}", file=self.notes)
        print(f"template  {template.name} (from: {template.origin})", file=self.notes)
        if template.warning:
            print(f"warning: {in_flags(template.warning)}", file=sys.stderr)
        if path.samefile(inside()):
            print(f"Try: {_TRY}", file=self.notes)

    def say(self, text: str) -> bool:
        """Print what a command did: at a terminal, on standard output. Returns that the loop goes on."""
        print(text, file=self.notes, flush=True)
        return True

    def take(self, text: str) -> bool:
        """Execute a command, or answer a message. Returns whether the loop goes on."""
        if not text.strip():
            return True
        if not text.startswith("/"):
            self.answer(text)
            return True
        name, _, rest = text.strip().partition(" ")
        if name == "/set" and rest.startswith("system"):  # Ollama's
            name, _, rest = f"/{rest}".partition(" ")
        if name == "/set" and rest in ("think", "nothink"):
            name, rest = "/thinking", "on" if rest == "think" else "off"
        name = _ALIASES.get(name, name)
        if name not in self.commands:
            close = get_close_matches(name, self.commands, 1, cutoff=0.7)
            meant = f"did you mean {close[0]}?" if close else "/help lists the commands"
            print(
                f"bitnet: there is no command {escape_line(name)}; {meant}; a message begins with a space",
                file=sys.stderr,
            )
            return True
        return self.commands[name].run(rest.strip())

    def answer(self, text: str) -> None:
        """Print the answer to a message piece by piece. Ctrl-C stops it."""
        forgotten = self.chat.forgotten
        stream = None
        try:
            stream = self.chat.stream(text, enable_thinking=self.enable_thinking)
            if self.chat.forgotten > forgotten:
                print(f"(the oldest {self.chat.forgotten} turns no longer fit into the context)", file=sys.stderr)
            print_answer(stream, colour=_ANSWER, thoughts=self.show_thoughts)
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
        return self.say("all turns are forgotten")

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
        if not self.chat.history:
            return self.say("no turns yet")
        for turn in self.chat.history:
            print(f"{turn.role}{' (stopped)' if turn.cancelled else ''}: {whole_text(turn.text)}")
        sys.stdout.flush()
        return True

    def rewind(self, rest: str) -> bool:
        """Take back exchanges."""
        if rest and not (rest.isdecimal() and len(rest) < 10):
            raise ArgumentError(f"/rewind takes a number of exchanges, found {rest[:20]!r}")
        self.chat.rewind(int(rest or 1))
        return self.say(f"taken back: {_exchanges(int(rest or 1))}; {_exchanges(len(self.chat.history) // 2)} left")

    def retry(self, rest: str) -> bool:
        """Answer the last message again."""
        if not self.chat.history:
            raise ArgumentError("/retry: there is no message to answer again")
        message = self.chat.history[-2].text
        self.chat.rewind(1)
        if not self.chat.params.temperature:
            self.say("at temperature 0 the answer is the same each time; see --temperature of `bitnet chat`")
        self.answer(message)
        return True

    def system(self, rest: str) -> bool:
        """Set or show the system prompt."""
        if not rest:
            system = self.chat.system
            print("there is no system prompt" if system is None else whole_text(system), flush=True)
            return True
        document = json.loads(self.chat.to_json()) | {"system": rest}
        self.chat = ChatSession.from_json(self.chat.engine, json.dumps(document), template=self.chat.template)
        return self.say("the system prompt is set; it holds from the next answer on")

    def thinking(self, rest: str) -> bool:
        """Let the model think or not, or show or hide its thoughts."""
        if rest in ("on", "off"):
            # A new conversation fails here if the template cannot turn thinking on or off.
            chat = ChatSession(self.chat.engine, template=self.chat.template, enable_thinking=rest == "on")
            self.enable_thinking = chat.enable_thinking
        elif rest in ("show", "hide"):
            self.show_thoughts = rest == "show"
        elif rest:
            raise ArgumentError(f"/thinking takes on, off, show or hide; found {rest[:20]!r}")
        chosen = self.chat.enable_thinking if self.enable_thinking is None else self.enable_thinking
        how = {None: "as the template decides", True: "on", False: "off"}[chosen]
        return self.say(f"thinking: {how}; thoughts are {'shown' if self.show_thoughts else 'hidden'} at a terminal")

    def model(self, rest: str) -> bool:
        """Begin a conversation with another model. After an error the current one goes on."""
        if not rest:
            raise ArgumentError("/model needs the name of a model: a GGUF file, hf:OWNER/NAME or trit")
        old, self.chat = self.chat, self.open_model(rest)
        self.enable_thinking = None
        old.engine.close()
        self.welcome()
        return True

    def save(self, rest: str) -> bool:
        """Save the conversation."""
        option, _, path = rest.partition(" ")
        cache = option == "--cache"
        saved = self.chat.save(_file_of("/save", path.strip() if cache else rest), cache=cache)
        return self.say(f"saved: {_exchanges(len(self.chat.history) // 2)}, in {escape_line(str(saved))}")

    def load(self, rest: str) -> bool:
        """Load a conversation. After an error the current one goes on."""
        self.chat = ChatSession.load(self.chat.engine, _file_of("/load", rest))
        return self.say(f"loaded: {_exchanges(len(self.chat.history) // 2)}")


def _exchanges(count: int) -> str:
    """A number of exchanges in words."""
    return f"{count} exchange{'' if count == 1 else 's'}"


def _file_of(command: str, path: str) -> Path:
    """The file that a command's argument names."""
    if not path:
        raise ArgumentError(f"{command} needs the name of a file")
    return Path(path).expanduser()


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
