"""POST /v1/embeddings."""

import base64
from typing import Any

import numpy as np
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp

from .errors import engine_arguments, invalid
from .service import Service

_TOGETHER = 64
"""Texts that one call computes; a request that is cancelled ends after the call."""


async def embeddings(service: Service, request: Request, body: dict[str, Any]) -> ASGIApp:
    """One vector for each text."""
    service.check_model(body)
    given = body["input"]
    texts = given if isinstance(given, list) and not isinstance(given[0], int) else [given]
    how = {"pooling": body.get("pooling"), "normalize": body.get("normalize", True)}
    engine = service.engine

    def embed(part: list[Any]) -> tuple[Any, int]:
        tokens = sum(engine.count_tokens(part))
        return engine.embed(part, **how), tokens

    async def work() -> tuple[list[Any], int]:
        vectors, tokens = [], 0
        for start in range(0, len(texts), _TOGETHER):
            with engine_arguments("input"):
                part, count = await service.gate.in_thread(embed, texts[start : start + _TOGETHER])
            size = body.get("dimensions", part.shape[1])
            if size != part.shape[1]:
                message = f"'dimensions' is {size}, and the vectors of this model have {part.shape[1]}; leave it out"
                raise invalid(message, "dimensions")
            vectors += list(part)
            tokens += count
        return vectors, tokens

    vectors, tokens = await service.answer(request, work)
    service.metrics.tokens["prompt"] += tokens
    encode = _base64 if body.get("encoding_format") == "base64" else _list
    data = [{"object": "embedding", "index": i, "embedding": encode(vector)} for i, vector in enumerate(vectors)]
    counts = {"prompt_tokens": tokens, "total_tokens": tokens}
    return JSONResponse({"object": "list", "data": data, "model": service.name, "usage": counts})


def _list(vector: Any) -> Any:
    """A vector as a list of numbers."""
    return vector.tolist()


def _base64(vector: Any) -> str:
    """A vector as little-endian float32 in base64."""
    return base64.b64encode(np.asarray(vector, "<f4").tobytes()).decode()
