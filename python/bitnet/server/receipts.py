"""/v1/receipts: the receipts of this server's answers, and the check of any receipt."""

import json
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp

from .. import Receipt
from ..errors import ReceiptError
from .errors import ApiError, invalid
from .service import Service


async def find(service: Service, request: Request) -> ASGIApp:
    """The receipt with a digest."""
    digest = request.path_params["digest"]
    receipt = service.receipts.find(digest)
    if receipt is None:
        message = f"there is no receipt with this digest here; the server keeps the last {service.settings.receipts}"
        raise ApiError(404, message, param="digest", code="receipt_not_found")
    return JSONResponse(await service.gate.in_thread(receipt.to_dict))


async def verify(service: Service, request: Request, body: dict[str, Any]) -> ASGIApp:
    """Validate a receipt and compute its answer again. The status is 200 whatever the result."""
    prompt, engine = body.get("prompt"), service.engine

    def validate() -> tuple[Receipt | None, str | None]:
        try:
            receipt = Receipt.from_json(json.dumps(body["receipt"]))
            receipt.validate()
        except ReceiptError as error:
            return None, str(error)
        return receipt, None

    def replay(receipt: Receipt) -> dict[str, Any]:
        try:
            same, ids, unchecked = engine._replay(receipt, prompt)
        except ReceiptError as error:
            return {"same": None, "error": str(error)}
        claimed = receipt.to_dict()["claim"]["output_ids"]
        first = None
        if not same and isinstance(claimed, list):
            pairs = zip(claimed, ids, strict=False)
            first = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(claimed), len(ids)))
        return {"same": same, "first_difference": first, "not_checked": unchecked}

    async def work() -> dict[str, Any]:
        receipt, error = await service.gate.in_thread(validate)
        if receipt is None:
            return {"valid": False, "error": error, "digest": None, "replay": None}
        result: dict[str, Any] = {"valid": True, "error": None, "digest": receipt.digest, "replay": None}
        if body.get("replay", True):
            if receipt.prompt_tokens + receipt.completion_tokens > engine.n_ctx + 1:
                raise invalid(f"the receipt's answer does not fit into this server's context of {engine.n_ctx}")
            result["replay"] = await service.gate.in_thread(replay, receipt, pool="long")
        return result

    return JSONResponse(await service.answer(request, work))
