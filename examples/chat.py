"""A short conversation, streamed, with what its receipts say.

python examples/chat.py MODEL.gguf "What is 2+2?" "What about 3+3?"
"""

import sys

from bitnet import ChatSession, Engine


def main(path: str, *questions: str) -> None:
    """Ask each question after the other, in one conversation."""
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


if __name__ == "__main__":
    main(*sys.argv[1:])
