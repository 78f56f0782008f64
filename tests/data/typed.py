"""What a user may write: strict mypy takes every line of it. It is checked, never run."""

from pathlib import Path

import numpy as np
import numpy.typing as npt

import bitnet
from bitnet import ChatSession, ChatTurn, Completion, Engine, Receipt, SamplingParams, Span, Template


def lengths(answers: list[Completion]) -> list[int]:
    return [answer.completion_tokens for answer in answers]


def talk(path: Path | None) -> dict[str, float]:
    with Engine(path, n_threads=2, kv_type="f32", progress=False) as engine:
        logits: npt.NDArray[np.float32] = engine.logits(np.array([1, 2, 3]))
        text: str = "".join(piece.text for piece in engine.stream("a", max_tokens=3, stop=["b"]))
        one: Completion = engine.generate(engine.encode(text), SamplingParams(temperature=0.5), seed=1)
        many: list[Completion] = engine.generate(["a", "b"], max_tokens=2)
        chat = ChatSession(engine, system="Be brief.", template="instruct", top_k=3)
        receipt: Receipt | None = chat.send("a").receipt
        if receipt is not None:
            receipt.plot().savefig("figure.png")
            bitnet.plot.timeline([receipt, *chat.receipts])
            print(engine.replay(receipt), receipt.seconds["wall"], logits.shape, lengths([one, *many]))
        spans: list[Span] = engine.template.spans([ChatTurn("user", "a"), {"role": "user", "content": "b"}])
        template: Template = Template.named("raw")
        print(template.render(chat.history), [span.role or "template" for span in spans])
        return chat.metrics
