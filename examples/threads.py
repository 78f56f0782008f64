"""Share one engine among threads. Each has its own conversation; the answers do not depend on the others.

python examples/threads.py [MODEL.gguf]
"""

import sys
from concurrent.futures import ThreadPoolExecutor

from bitnet import ChatSession, Engine


def main(path: str | None = None) -> None:
    """Ask from 16 threads at once, then the same from one thread, and compare."""
    with Engine(path) as engine:

        def talk(n: int) -> list[str]:
            chat = ChatSession(engine, max_tokens=32)
            return [chat.send(f"What is {n}+{i}?").text for i in range(3)]

        with ThreadPoolExecutor(16) as pool:
            together = list(pool.map(talk, range(16)))
        print("\n".join(together[7]))
        print("the same alone:", together == [talk(n) for n in range(16)])


if __name__ == "__main__":
    main(*sys.argv[1:])
