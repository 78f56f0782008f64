"""Stream a short conversation and print figures from its receipts; then rewind it and fork it.

python examples/chat.py [MODEL.gguf "What is 2+2?" "What about 3+3?"]
"""

import sys

from bitnet import ChatSession, Engine


def main(path: str | None = None, *questions: str) -> None:
    """Ask the questions in one conversation, replay the answers, ask the last question again."""
    with Engine(path) as engine:
        chat = ChatSession(engine, system="Be brief.", max_tokens=64)
        for question in questions or ("What is 2+2?", "What about 3+3?"):
            print(f"> {question}")
            for piece in chat.stream(question):
                print(piece.text, end="", flush=True)
            receipt = chat.receipts[-1]
            receipt.validate()
            reused = f"{receipt.cached_tokens} of {receipt.prompt_tokens} prompt tokens reused"
            print(f"\n[{reused}, {receipt.seconds['wall']:.2f} s, digest {receipt.digest[:12]}]")
        print("replayed:", all(engine.replay(receipt) for receipt in chat.receipts))

        last = chat.history[-2].text
        other = chat.fork()  # shares the KV cache
        chat.rewind(1)
        print("again:", chat.send(last).text == other.history[-1].text)
        print("once more:", other.send(last).text)


if __name__ == "__main__":
    main(*sys.argv[1:])
