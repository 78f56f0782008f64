"""Run a hundred conversations concurrently with asyncio; then cancel an answer.

python examples/asynchronous.py [MODEL.gguf]
"""

import asyncio
import sys

from bitnet import ChatSession, Engine


async def ask(engine: Engine, question: str) -> str:
    """Ask one question in a conversation of its own, streamed."""
    stream = ChatSession(engine, max_tokens=32).stream(question)
    return "".join([piece.text async for piece in stream])


async def main(path: str | None = None) -> None:
    """Ask a hundred questions, then cancel another one."""
    with Engine(path) as engine:
        questions = [f"What is {i}+{j}?" for i in range(10) for j in range(10)]
        answers = await asyncio.gather(*(ask(engine, question) for question in questions))
        for question, answer in list(zip(questions, answers, strict=True))[::11]:
            print(question, answer)

        chat = ChatSession(engine)
        task = asyncio.create_task(chat.asend("Tell me everything."))
        await asyncio.sleep(0)
        task.cancel()  # abandons the step in progress; the conversation can be used again
        await asyncio.wait([task])
        print("cancelled:", task.cancelled())
        print((await chat.asend("What is 2+2?")).text)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
