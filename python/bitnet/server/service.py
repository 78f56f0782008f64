"""What all endpoints share: the engine, the limits, the counters, the receipts."""

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol, TypeVar

from starlette.requests import Request

from .. import Engine, Receipt
from .errors import ApiError, engine_arguments
from .gate import Gate, Permit, connected
from .metrics import Metrics
from .settings import Settings
from .sse import EventStream

T = TypeVar("T")

log = logging.getLogger("bitnet.server")


class Finished(Protocol):
    """An answer that is complete: a `Completion`, or a `Stream` at its end."""

    @property
    def text(self) -> str: ...
    @property
    def prompt_tokens(self) -> int: ...
    @property
    def cached_tokens(self) -> int: ...
    @property
    def completion_tokens(self) -> int: ...
    @property
    def receipt(self) -> Receipt | None: ...


class ReceiptStore:
    """Keeps receipts by digest; evicts the least recently requested one."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._receipts: OrderedDict[str, Receipt] = OrderedDict()

    def keep(self, digest: str, receipt: Receipt) -> None:
        """Keep a receipt."""
        self._receipts[digest] = receipt
        self._receipts.move_to_end(digest)
        while len(self._receipts) > self._limit:
            self._receipts.popitem(last=False)

    def find(self, digest: str) -> Receipt | None:
        """The receipt with this digest; None if it is not kept (any more)."""
        if (receipt := self._receipts.get(digest)) is not None:
            self._receipts.move_to_end(digest)
        return receipt

    def __len__(self) -> int:
        return len(self._receipts)


class Service:
    """An open engine and what a server keeps beside it."""

    def __init__(self, engine: Engine, settings: Settings) -> None:
        self.engine, self.settings = engine, settings
        self.names = settings.model_names or (Path(engine.path).stem or "model",)
        self.created = int(time.time())
        self.gate = Gate(settings.max_running or engine.max_batch, settings.max_queue)
        self.metrics = Metrics()
        self.receipts = ReceiptStore(settings.receipts)

    @property
    def name(self) -> str:
        """The model's name in answers."""
        return self.names[0]

    def check_model(self, body: dict[str, Any]) -> None:
        """Raise ApiError 404 if the request names another model."""
        name = body.get("model", self.name)
        if name not in self.names:
            known = ", ".join(self.names)
            message = f"there is no model {str(name)[:100]!r}; this server has {known} (--alias adds names)"
            raise ApiError(404, message, param="model", code="model_not_found")

    async def warm_up(self) -> None:
        """Hash the model file for the digests of receipts, beside the event loop."""

        def digest() -> None:
            receipt = self.engine.generate(self.engine.encode("a") or [0], max_tokens=1).receipt
            if receipt is not None:
                _ = receipt.digest

        with suppress(Exception):  # the first answer tells of it
            await asyncio.to_thread(digest)

    async def answer(self, request: Request, work: Callable[[], Awaitable[T]]) -> T:
        """Do the work once there is room for it. Gives up when the client leaves or the time is over."""

        async def admitted() -> T:
            permit = await self.gate.enter()
            try:
                with engine_arguments():
                    return await work()
            finally:
                permit.release()

        return await connected(request.receive, admitted(), self.settings.timeout)

    async def stream(
        self,
        request: Request,
        begin: Callable[[], Awaitable[T]],
        events: Callable[[T], AsyncGenerator[bytes, None]],
        failed: Callable[[ApiError], bytes] | None = None,
    ) -> EventStream:
        """Begin streams once there is room for them, and return the response that sends their events."""
        started = time.monotonic()

        async def admitted() -> tuple[Permit, T]:
            permit = await self.gate.enter()
            try:
                with engine_arguments():
                    return permit, await begin()
            except BaseException:
                permit.release()
                raise

        timeout = self.settings.timeout
        permit, begun = await connected(request.receive, admitted(), timeout)
        return EventStream(
            events(begun),
            permit,
            keep_alive=self.settings.keep_alive,
            timeout=timeout,
            started=started,
            failed=failed,
        )

    async def account(self, answers: Sequence[Finished], wanted: bool) -> list[dict[str, Any]]:
        """Count the answers and keep their receipts. Returns the fields that each tells of its receipt: its digest,
        and the document if it is wanted."""
        for answer in answers:
            self.metrics.tokens["prompt"] += answer.prompt_tokens
            self.metrics.tokens["cached"] += answer.cached_tokens
            self.metrics.tokens["completion"] += answer.completion_tokens
        found = [answer.receipt for answer in answers]
        return await self.gate.in_thread(self._receipt_fields, found, wanted)

    def _receipt_fields(self, receipts: list[Receipt | None], wanted: bool) -> list[dict[str, Any]]:
        fields: list[dict[str, Any]] = []
        for receipt in receipts:
            if receipt is None:
                fields.append({})
                continue
            self.receipts.keep(receipt.digest, receipt)
            fields.append({"receipt_digest": receipt.digest} | ({"receipt": receipt.to_dict()} if wanted else {}))
        return fields

    def log_messages(self, prompt: Any, answers: Sequence[Finished]) -> None:
        """Write the prompt and the answers into the log, if the settings say so."""
        if self.settings.log_messages:
            log.info("prompt %r, answers %r", prompt, [answer.text for answer in answers])


def usage(answers: Sequence[Finished], of_prompts: int = 1) -> dict[str, Any]:
    """The tokens of a request. `of_prompts`: how many prompts it has; the answers to each follow one another."""
    each = len(answers) // of_prompts or 1
    prompt = sum(answer.prompt_tokens for answer in answers[::each])
    completion = sum(answer.completion_tokens for answer in answers)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": sum(answer.cached_tokens for answer in answers[::each])},
    }


def timings(answers: Sequence[Finished]) -> dict[str, Any]:
    """The times of a request by llama-server's names. Answers of one request are computed together: tokens add up, of
    the times the longest counts."""
    seconds = [answer.receipt.seconds for answer in answers if answer.receipt is not None]
    cached = sum(answer.cached_tokens for answer in answers)
    computed = sum(answer.prompt_tokens for answer in answers) - cached
    predicted = sum(answer.completion_tokens for answer in answers)
    prompt = max((own["first_token"] for own in seconds), default=0.0)
    decode = max((own["decode"] for own in seconds), default=0.0)
    later = max(predicted - len(answers), 0)  # the first token of each belongs to the prompt's time
    return {
        "cache_n": cached,
        "prompt_n": computed,
        "prompt_ms": prompt * 1e3,
        "prompt_per_second": computed / prompt if prompt else 0.0,
        "predicted_n": predicted,
        "predicted_ms": decode * 1e3,
        "predicted_per_second": later / decode if decode else 0.0,
    }
