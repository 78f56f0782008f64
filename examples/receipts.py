"""Save, validate, alter, redact and replay a receipt.

python examples/receipts.py [MODEL.gguf]
"""

import sys
import tempfile
from pathlib import Path

from bitnet import ChatSession, Engine, Receipt, ReceiptError, isas


def main(model: str | None = None) -> None:
    """Ask a question and show what its receipt proves."""
    with Engine(model) as engine, tempfile.TemporaryDirectory() as folder:
        reply = ChatSession(engine, max_tokens=32).send("What is 2+3?")
        path = reply.receipt.save(Path(folder) / "receipt.json")
        print(reply.text, reply.receipt.digest, {name: f"{s:.6f}" for name, s in reply.receipt.seconds.items()})

        receipt = Receipt.load(path)
        receipt.validate()  # recomputes every sum
        try:
            Receipt.from_json(path.read_text().replace('"finish_reason": "', '"finish_reason": "un')).validate()
        except ReceiptError as error:
            print("altered:", error)

        redacted = receipt.redact()  # replaces prompt and answer by their hashes
        print("redacted, the same digest:", redacted.digest == receipt.digest)
        with Engine(model, isa=isas()[0], n_threads=1) as elsewhere:
            print("replayed:", elsewhere.replay(receipt))
            prompt = receipt.to_dict()["claim"]["prompt_ids"]
            print("replayed with the prompt:", elsewhere.replay(redacted, prompt))


if __name__ == "__main__":
    main(*sys.argv[1:])
