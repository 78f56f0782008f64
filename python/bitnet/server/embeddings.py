"""POST /v1/embeddings."""

import base64
from collections.abc import Iterator
from typing import Any

import numpy as np
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp

from .errors import ApiError, engine_arguments, invalid
from .service import Service

_TOGETHER = 2048
"""Tokens that one call computes, if a text has no more; a request that is cancelled ends after the call."""


async def embeddings(service: Service, request: Request, body: dict[str, Any]) -> ASGIApp:
    """One vector for each text."""
    service.check_model(body)
    given = body["input"]
    texts = given if isinstance(given, list) and not isinstance(given[0], int) else [given]
    _check_ids(texts, service.engine.n_vocab)
    how = {"pooling": body.get("pooling"), "normalize": body.get("normalize", True)}
    engine = service.engine

    async def work() -> tuple[list[Any], int]:
        vectors: list[Any] = []
        with engine_arguments("input"):
            counts = await service.gate.in_thread(engine.count_tokens, texts, pool=request.state.pool)
        _check_lengths(counts, engine.n_ctx)
        for few in _parts(texts, counts):
            with engine_arguments("input"):
                part = await service.gate.in_thread(lambda few: engine.embed(few, **how), few, pool="long")
            size = body.get("dimensions", part.shape[1])
            if size != part.shape[1]:
                message = f"'dimensions' is {size}, and the vectors of this model have {part.shape[1]}; leave it out"
                raise invalid(message, "dimensions")
            vectors += list(part)
        return vectors, sum(counts)

    vectors, tokens = await service.answer(request, work)
    service.metrics.tokens["prompt"] += tokens
    encode = _base64 if body.get("encoding_format") == "base64" else _list
    data = [{"object": "embedding", "index": i, "embedding": encode(vector)} for i, vector in enumerate(vectors)]
    counts = {"prompt_tokens": tokens, "total_tokens": tokens}
    return JSONResponse({"object": "list", "data": data, "model": service.name, "usage": counts})


def _check_lengths(counts: list[int], n_ctx: int) -> None:
    """Refuse texts that do not fit before any is computed."""
    for i, count in enumerate(counts):
        if count > n_ctx:
            message = f"'input[{i}]' has {count} tokens, and the context of this model holds {n_ctx}"
            raise ApiError(400, message, param="input", code="context_length_exceeded")


def _check_ids(texts: list[Any], n_vocab: int) -> None:
    """Refuse ids outside the vocabulary: clients may send those of OpenAI's tokenizer, as LangChain does."""
    highest = max((max(ids) for ids in texts if not isinstance(ids, str)), default=0)
    if highest >= n_vocab:
        message = f"'input' has token id {highest}, but this model's ids end at {n_vocab - 1}; send texts"
        raise invalid(f"{message} (LangChain: check_embedding_ctx_length=False)", "input")


def _parts(texts: list[Any], counts: list[int]) -> Iterator[list[Any]]:
    """The texts in parts of at most `_TOGETHER` tokens, or of one text."""
    part: list[Any] = []
    total = 0
    for text, count in zip(texts, counts, strict=True):
        if part and total + count > _TOGETHER:
            yield part
            part, total = [], 0
        part.append(text)
        total += count
    yield part


def _list(vector: Any) -> Any:
    """A vector as a list of numbers."""
    return vector.tolist()


def _base64(vector: Any) -> str:
    """A vector as little-endian float32 in base64."""
    return base64.b64encode(np.asarray(vector, "<f4").tobytes()).decode()
