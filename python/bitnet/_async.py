"""How `await` and `async for` wait for work of the engine."""

import asyncio
from contextlib import suppress
from typing import Any, Protocol


class Work(Protocol):
    """A coroutine's work, as the compiled half hands it over."""

    def start(self) -> "asyncio.Future[tuple[Any, BaseException | None]]":
        """Begin beside the running event loop. An error is handed over, for `shield` logs those that nobody awaits."""

    def abandon(self) -> None:
        """Give up the step under way."""


async def result(work: Work) -> Any:
    """What the work gives. A cancelled task ends after its step is abandoned, so that what it used is free again."""
    future = work.start()
    try:
        value, error = await asyncio.shield(future)
    except asyncio.CancelledError:
        work.abandon()
        while not future.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait([future])
        raise
    if error is None:
        return value
    try:
        raise error
    finally:
        del error  # or the frame would keep the error that keeps the frame
