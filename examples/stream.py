"""Stream a completion to the terminal, then list the least certain tokens. Ctrl-C ends it.

It continues the text as it is, without a chat template: a question gets more text, not an answer. Given as ids, the
prompt gives no warning about that.

python examples/stream.py [MODEL.gguf ["Once upon"]]
"""

import math
import sys

from bitnet import Engine


def main(path: str | None = None, prompt: str = "2+2=") -> None:
    """Print each piece as it arrives, then the three tokens with the lowest probability."""
    with Engine(path) as engine:
        ids = engine.encode(prompt, add_bos=engine.tokenizer.add_bos)
        stream = engine.stream(ids, max_tokens=48, logprobs=0)
        doubts = []
        try:
            print(prompt, end="", flush=True)
            for piece in stream:
                print(piece.text, end="", flush=True)
                if piece.logprob:
                    doubts.append((math.exp(piece.logprob.logprob), piece.logprob.text))
        except KeyboardInterrupt:
            stream.cancel()
        print(f"\n[{stream.completion_tokens} tokens, ended by {stream.finish_reason!r}]")
        for odds, text in sorted(doubts)[:3]:
            print(f"least sure of {text!r}: {odds:.2f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
