"""A chat in twelve lines: read a line, run a command or stream an answer, save the receipt, repeat.

python examples/repl.py
"""

from contextlib import suppress

from bitnet import ChatSession, Engine

chat = ChatSession(Engine(), max_tokens=64)
commands = {"/help": lambda: "/help /clear /metrics /exit", "/clear": chat.clear, "/metrics": lambda: chat.metrics}
with suppress(EOFError):
    while (line := input("> ")) != "/exit":
        if line in commands:
            print(commands[line]())
        else:
            for piece in (stream := chat.stream(line)):
                print(piece.text, end="", flush=True)
            print(f"\n[{stream.completion_tokens} tokens]", stream.receipt.save(f"chat/{stream.receipt.digest}.json"))
