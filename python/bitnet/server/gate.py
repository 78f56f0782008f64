"""Admission: how many requests are computed, how many wait, and when they are given up."""

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from starlette.types import Receive

from .errors import ApiError, ClientGone, shutting_down

T = TypeVar("T")

_THREADS = 8
"""Threads of each pool, for calls of the engine that have no form for asyncio. The engine's own threads compute."""


class Permit:
    """A place among the requests that are computed."""

    def __init__(self, gate: "Gate") -> None:
        self._gate: Gate | None = gate

    def release(self) -> None:
        """Give the place to the request that has waited longest. Later calls do nothing."""
        if self._gate is not None:
            self._gate._leave()
            self._gate = None


class Gate:
    """Lets `running` requests be computed at a time and `queue` more wait for it; others are refused.

    The engine batches the answers of all that are computed; the gate only bounds their memory.
    """

    def __init__(self, running: int, queue: int) -> None:
        self._free = asyncio.Semaphore(running)
        self._limit, self._queue = running, queue
        self._pools: dict[str, ThreadPoolExecutor] = {}
        self.running = 0
        """Requests that are computed now."""
        self.waiting = 0
        """Requests that wait for their turn."""

    async def enter(self) -> Permit:
        """Wait for a place. Raises ApiError 429 if too many wait already."""
        if self.running + self.waiting >= self._limit + self._queue:
            message = f"{self.running} requests are computed and {self.waiting} wait; try again later"
            raise ApiError(429, message, code="queue_full", headers={"Retry-After": "1"})
        self.waiting += 1
        try:
            await self._free.acquire()
        finally:
            self.waiting -= 1
        self.running += 1
        return Permit(self)

    def _leave(self) -> None:
        self.running -= 1
        self._free.release()

    async def in_thread(self, call: Callable[..., T], *arguments: Any, pool: str = "short") -> T:
        """Run a call that blocks. If the task is cancelled, the call runs to its end first: it cannot be stopped.

        Short calls never wait for others: those that run the model belong to the pool "long", those that read large
        texts or compile grammars to the pool "text".
        """
        if pool not in self._pools:
            self._pools[pool] = ThreadPoolExecutor(_THREADS, f"bitnet-serve-{pool}")
        future = asyncio.get_running_loop().run_in_executor(self._pools[pool], call, *arguments)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            await until_done(future)
            raise

    def close(self) -> None:
        """End the threads once their calls have ended."""
        for pool in self._pools.values():
            pool.shutdown(wait=False, cancel_futures=True)
        self._pools.clear()


async def until_done(future: "asyncio.Future[Any]") -> None:
    """Wait for a future, whatever it gives and however often the task is cancelled meanwhile."""
    while not future.done():
        try:
            await asyncio.wait([future])
        except asyncio.CancelledError:
            continue
    if not future.cancelled():
        future.exception()  # marks it as seen


async def connected(receive: Receive, work: Coroutine[Any, Any, T], seconds: float) -> T:
    """Run the work; cancel it once the client has left or `seconds` (0: no limit) are over.

    Returns after the work has ended, also if it was cancelled.

    Raises:
        ClientGone: The client has closed the connection.
        ApiError: The time is over, or the server has cancelled the request because it ends.
    """
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(disconnect(receive))
    try:
        await asyncio.wait([task, gone], timeout=seconds or None, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise ClientGone if gone.done() else timed_out(seconds)
    except asyncio.CancelledError:
        raise shutting_down() from None
    finally:
        gone.cancel()
        task.cancel()
        await until_done(task)


def timed_out(seconds: float) -> ApiError:
    """A request that took too long."""
    return ApiError(504, f"the answer took longer than {seconds:g} seconds; ask for fewer tokens", code="timeout")


async def disconnect(receive: Receive) -> None:
    """Wait until the client has closed the connection."""
    while (await receive())["type"] != "http.disconnect":
        pass
