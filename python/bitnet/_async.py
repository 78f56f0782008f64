"""How `await` and `async for` wait for work that the compiled engine does on another thread."""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, Protocol


class PendingCall(Protocol):
    """A call that a coroutine awaits. The compiled module implements it (`src/py/awaitable.rs`)."""

    def start(self) -> "asyncio.Future[tuple[Any, BaseException | None]]":
        """Start the call beside the running event loop.

        The future's result is a pair: the value, and the error or None. The future itself never fails, because
        `asyncio.shield` would log an error that nobody awaits.
        """

    def abandon(self) -> None:
        """Ask the step that is running to stop early."""


async def result(call: PendingCall) -> Any:
    """Run the call and return its value, or raise its error.

    If the task is cancelled, wait until the abandoned step has ended, so that the stream or session it used is free.
    """
    future = call.start()
    try:
        value, error = await asyncio.shield(future)
    except asyncio.CancelledError:
        call.abandon()
        while not future.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait([future])
        raise
    if error is None:
        return value
    try:
        raise error
    finally:
        del error  # otherwise this frame and the error's traceback keep each other alive


async def next_piece(advance: Callable[[], Coroutine[Any, Any, None]], take: Callable[[], Any]) -> Any:
    """Wait until a stream has computed its next piece, and return what `take` gives.

    Nothing can interrupt the coroutine between taking the piece and returning it.
    """
    await advance()
    piece = take()
    if piece is None:
        raise StopAsyncIteration
    return piece
