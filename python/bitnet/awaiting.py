"""How `await` and `async for` wait for work of the engine."""

import asyncio
from contextlib import suppress
from typing import Any, Protocol


class Work(Protocol):
    """A coroutine's work, as the compiled half hands it over."""

    def start(self) -> "asyncio.Future[Any]":
        """Begin beside the running event loop."""

    def abandon(self) -> None:
        """Give up the step under way."""


async def result(work: Work) -> Any:
    """What the work gives. A cancelled task ends after its step is abandoned, so that what it used is free again."""
    future = work.start()
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        work.abandon()
        while not future.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait([future])
        future.exception()  # nobody else looks at it
        raise
