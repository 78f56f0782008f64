"""The ASGI application: routes, keys, errors."""

import base64
import hashlib
import hmac
import logging
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .. import Engine, __version__
from ..errors import BitnetError
from . import body as bodies
from . import receipts, tokens
from .chat import chat_completions
from .completions import completions
from .embeddings import embeddings
from .errors import ApiError, ClientGone, of_engine
from .openapi import document, requests
from .responses import responses
from .schemas import present
from .service import Service
from .settings import Settings

log = logging.getLogger("bitnet.server")

Handler = Callable[[Service, Request, dict[str, Any]], Awaitable[ASGIApp]]

_POSTS: dict[str, Handler] = {
    "/v1/chat/completions": chat_completions,
    "/v1/completions": completions,
    "/v1/embeddings": embeddings,
    "/v1/responses": responses,
    "/v1/receipts/verify": receipts.verify,
    "/tokenize": tokens.tokenize,
    "/detokenize": tokens.detokenize,
    "/apply-template": tokens.apply_template,
}
"""Endpoints that take a JSON object."""

_COMPILED = ("json_schema", "regex", "choice", "grammar", "response_format", "text", "tools")
"""Fields that become grammars, which may take long to compile."""

_OPEN = ("/health", "/", "/favicon.ico")
"""Paths that need no key."""

_BIG = 1 << 16
"""Bodies of more bytes are parsed on a thread, and their texts belong to the pool "text"."""


def create_app(engine: Engine, settings: Settings | None = None) -> Starlette:
    """The application that serves an open engine.

    Args:
        engine: The engine, which is not closed at the end.
        settings: Who may use the server, and its limits.
    """
    settings = settings or Settings()
    service = Service(engine, settings)
    schemas = requests(settings)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        import asyncio

        hashing = asyncio.ensure_future(service.warm_up())
        yield
        hashing.cancel()
        service.gate.close()

    routes = [
        Route(path, _endpoint(service, handler, schemas[path]), methods=["POST"]) for path, handler in _POSTS.items()
    ]
    routes += [Route(path, _getter(service, handler), methods=["GET"]) for path, handler in _GETS.items()]
    app = Starlette(
        routes=routes,
        lifespan=lifespan,
        middleware=[
            Middleware(_Accounts, service=service),
            *([Middleware(_Hosts, hosts=settings.allowed_hosts)] if settings.allowed_hosts else []),
            *([_cors(settings.cors_origins)] if settings.cors_origins else []),
            *([Middleware(_Keys, keys=settings.api_keys)] if settings.api_keys else []),
        ],
        exception_handlers={
            ApiError: _api_error,
            BitnetError: _engine_error,
            ClientGone: _client_gone,
            HTTPException: _http_error,
            Exception: _unknown_error,
        },
    )
    app.router.redirect_slashes = False
    app.state.service = service
    return app


def _cors(origins: Sequence[str]) -> Middleware:
    """Allow web pages of these origins."""
    return Middleware(
        CORSMiddleware,
        allow_origins=list(origins),
        allow_methods=["GET", "POST"],
        allow_headers=["*"],  # OpenAI's clients send many of their own
        expose_headers=["x-request-id"],
        max_age=600,
    )


def _endpoint(service: Service, handler: Handler, schema: bodies.Schema) -> Callable[[Request], Awaitable[Any]]:
    """An endpoint that takes a JSON object."""
    settings = service.settings

    def checked(body: bytes) -> dict[str, Any]:
        value = bodies.parse(body)
        if isinstance(value, dict):
            value = present(value)
        bodies.check(value, schema)
        return value  # type: ignore[no-any-return]

    async def endpoint(request: Request) -> Any:
        body = await bodies.read(request, settings.max_body, settings.body_timeout)
        is_big = len(body) > _BIG
        fields = await service.gate.in_thread(checked, body, pool="text") if is_big else checked(body)
        request.state.pool = "text" if is_big or any(fields.get(name) for name in _COMPILED) else "short"
        return await handler(service, request, fields)

    return endpoint


def _getter(
    service: Service, handler: Callable[[Service, Request], Awaitable[ASGIApp]]
) -> Callable[[Request], Awaitable[Any]]:
    """An endpoint without a body."""

    async def endpoint(request: Request) -> Any:
        return await handler(service, request)

    return endpoint


# -- Small endpoints --------------------------------------------------------------------------------------------------


async def _health(service: Service, request: Request) -> ASGIApp:
    """Whether the server answers."""
    if service.engine.closed:
        raise ApiError(503, "the server is shutting down", code="shutting_down")
    return JSONResponse({"status": "ok"})


async def _page(service: Service, request: Request) -> ASGIApp:
    """The page for people."""
    content, policy = _page_and_policy()
    return Response(
        content,
        media_type="text/html; charset=utf-8",
        headers={
            "cache-control": "no-cache",
            "content-security-policy": policy,
            "x-content-type-options": "nosniff",
            "referrer-policy": "no-referrer",
        },
    )


def _page_and_policy() -> tuple[bytes, str]:
    """The page, and the policy that lets a browser run its own script and style only, and reach this server only."""
    content = Path(__file__).with_name("page.html").read_bytes()

    def hashed(tag: bytes) -> str:
        _, _, rest = content.partition(b"<" + tag + b">")
        text, _, _ = rest.partition(b"</" + tag + b">")
        return f"'sha256-{base64.b64encode(hashlib.sha256(text).digest()).decode()}'"

    policy = (
        f"default-src 'none'; connect-src 'self'; img-src data:; script-src {hashed(b'script')}; "
        f"style-src {hashed(b'style')}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'"
    )
    return content, policy


async def _metrics(service: Service, request: Request) -> ASGIApp:
    """The counters."""
    gate, engine = service.gate, service.engine
    gauges: dict[str, tuple[str, float]] = {
        "bitnet_requests_running": ("Requests that are computed now.", gate.running),
        "bitnet_requests_waiting": ("Requests that wait for their turn.", gate.waiting),
        "bitnet_prefix_cache_tokens": ("Tokens in the prefix cache.", engine.cached_tokens),
        "bitnet_receipts": ("Receipts that are kept.", len(service.receipts)),
    }
    return PlainTextResponse(service.metrics.text(gauges), media_type="text/plain; version=0.0.4; charset=utf-8")


async def _models(service: Service, request: Request) -> ASGIApp:
    """The list of models: the one that is served."""
    return JSONResponse({"object": "list", "data": [_model(service, name) for name in service.names]})


async def _one_model(service: Service, request: Request) -> ASGIApp:
    """The model with a name."""
    name = request.path_params["model"]
    service.check_model({"model": name})
    return JSONResponse(_model(service, name))


def _model(service: Service, name: str) -> dict[str, Any]:
    """The description of the model, as `/v1/models` returns it."""
    engine = service.engine
    return {
        "id": name,
        "object": "model",
        "created": service.created,
        "owned_by": "bitnet",
        "root": service.name,
        "max_model_len": engine.n_ctx,
        "meta": {"arch": engine.arch, "n_vocab": engine.n_vocab, "n_ctx": engine.n_ctx, "version": __version__},
    }


async def _openapi(service: Service, request: Request) -> ASGIApp:
    """The description of all endpoints."""
    return JSONResponse(document(service))


_GETS: dict[str, Callable[[Service, Request], Awaitable[ASGIApp]]] = {
    "/": _page,
    "/health": _health,
    "/metrics": _metrics,
    "/openapi.json": _openapi,
    "/tokenizer_info": tokens.tokenizer_info,
    "/v1/models": _models,
    "/v1/models/{model:path}": _one_model,
    "/v1/receipts/{digest}": receipts.find,
}
"""Endpoints without a body."""


# -- Errors -----------------------------------------------------------------------------------------------------------


async def _api_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return error.response()


async def _engine_error(_: Request, error: Exception) -> Response:
    return (of_engine(error) or ApiError(500, "the server failed", code="internal_error")).response()


async def _client_gone(_: Request, error: Exception) -> Response:
    return Response(status_code=499)  # nobody reads it; the counters do


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 404:
        path = request.url.path
        near = [known for known in (f"/v1{path}", path.rstrip("/")) if known in {*_POSTS, *_GETS} - {path}]
        advice = f"; did you mean {near[0]}?" if near else ""
        return ApiError(404, f"there is no path {path[:100]!r} here{advice}", code="unknown_path").response()
    if error.status_code == 405:
        allowed = ", ".join(sorted((error.headers or {}).get("Allow", "").replace(" ", "").split(",")))
        if request.method == "OPTIONS":
            return Response(status_code=204, headers={"Allow": f"{allowed}, OPTIONS"})
        message = f"{request.method} is not possible here; use {allowed}"
        return ApiError(405, message, code="method_not_allowed", headers={"Allow": allowed}).response()
    return ApiError(error.status_code, str(error.detail)).response()


async def _unknown_error(_: Request, error: Exception) -> Response:
    return ApiError(500, "the server failed; its log tells why", code="internal_error").response()


# -- Around every request ---------------------------------------------------------------------------------------------


class _Accounts:
    """Counts requests and their times, and gives each response an id."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app, self._metrics = app, service.metrics
        self._paths = {*_POSTS, *(path for path in _GETS if "{" not in path)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        started, status, complete = time.monotonic(), 499, False

        async def noted(message: Message) -> None:
            nonlocal status, complete
            if message["type"] == "http.response.start":
                status = message["status"]
                id = uuid.uuid4().hex.encode()
                message = {**message, "headers": [*message.get("headers", ()), (b"x-request-id", id)]}
            elif message["type"] == "http.response.body" and not message.get("more_body", False):
                complete = True
            await send(message)

        try:
            await self._app(scope, receive, noted)
        except Exception:
            status, complete = 500, True
            raise
        finally:
            path = self._known(scope["path"])
            self._metrics.requests[path, status if complete or status >= 400 else 499] += 1
            self._metrics.request_seconds.add(time.monotonic() - started, path=path)

    def _known(self, path: str) -> str:
        """The path as a label; those with a name in it, and unknown ones, share one."""
        if path in self._paths:
            return path
        for beginning in ("/v1/models/", "/v1/receipts/"):
            if path.startswith(beginning):
                return beginning + "…"
        return "other"


class _Hosts:
    """Refuses requests for other hosts: a web page can make a browser send requests to this machine by a name of its
    own that points here."""

    def __init__(self, app: ASGIApp, hosts: Sequence[str]) -> None:
        self._app, self._hosts = app, {host.lower() for host in hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            host = Headers(scope=scope).get("host", "").lower()
            name = host[: host.find("]") + 1] if host.startswith("[") else host.partition(":")[0]
            if name not in self._hosts:
                message = f"the host {name[:100]!r} is not served here; start the server with --allow-host to add it"
                return await ApiError(403, message, code="host_not_allowed").response()(scope, receive, send)
        await self._app(scope, receive, send)


class _Keys:
    """Refuses requests without a valid key."""

    def __init__(self, app: ASGIApp, keys: Sequence[str]) -> None:
        self._app, self._keys = app, [key.encode() for key in keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] not in _OPEN:
            given = Headers(scope=scope).get("authorization", "")
            kind, _, key = given.partition(" ")
            if not given or kind.lower() != "bearer" or not self._is_known(key.strip()):
                found = "the key is not valid" if given else "there is no key"
                message = f"{found}; send the header Authorization: Bearer KEY"
                refused = ApiError(401, message, code="invalid_api_key", headers={"WWW-Authenticate": "Bearer"})
                return await refused.response()(scope, receive, send)
        await self._app(scope, receive, send)

    def _is_known(self, given: str) -> bool:
        """Compare with every key, in a time that does not depend on which character differs."""
        key = given.encode("utf-8", "surrogateescape")
        return any([hmac.compare_digest(key, own) for own in self._keys])
