"""The OpenAPI 3.1 document of the server. Its schemas of requests are those that check them."""

from typing import Any

from .. import __version__
from . import responses_input, schemas
from .answers import ANSWERS
from .body import Schema
from .service import Service
from .settings import Settings

_POSTS = {
    "/v1/chat/completions": ("ChatCompletion", "Answer a conversation", True),
    "/v1/completions": ("Completion", "Continue texts", True),
    "/v1/embeddings": ("Embeddings", "Vectors of texts", False),
    "/v1/responses": ("Response", "Answer an input", True),
    "/v1/receipts/verify": ("Verification", "Validate a receipt and compute its answer again", False),
    "/tokenize": ("Tokens", "Token ids of a text, or of the prompt that messages become", False),
    "/detokenize": ("Text", "Text of token ids", False),
    "/apply-template": ("Prompt", "The prompt that messages become", False),
}
"""Path -> the name of its response, what it does, and whether it can stream."""

_GETS = {
    "/v1/models": ("Models", "The model that is served, by each of its names"),
    "/v1/models/{model}": ("Model", "The model with a name"),
    "/v1/receipts/{digest}": ("Receipt", "The receipt of an answer of this server"),
    "/tokenizer_info": ("TokenizerInfo", "What lm-evaluation-harness asks of a tokenizer"),
    "/health": ("Health", "Whether the server answers; needs no key"),
    "/openapi.json": (None, "This document"),
    "/metrics": ("text/plain", "Counters in the text format of Prometheus"),
    "/": ("text/html", "A page that chats; needs no key"),
}

_REFUSALS = {
    "400": "The request is not valid, or too long for the context",
    "404": "There is no such model, receipt or path",
    "408": "The body did not arrive in time",
    "413": "The body is too large",
    "415": "The body is not JSON",
    "429": "Too many requests wait; the header Retry-After says when to try again",
    "503": "The server is shutting down or out of memory",
    "504": "The answer took too long",
}


def requests(settings: Settings) -> dict[str, Schema]:
    """The schema of each path's request."""
    return {
        "/v1/chat/completions": schemas.chat(settings),
        "/v1/completions": schemas.completions(settings),
        "/v1/embeddings": schemas.embeddings(settings),
        "/v1/responses": responses_input.schema(settings),
        "/v1/receipts/verify": schemas.verify(),
        "/tokenize": schemas.tokenize(),
        "/detokenize": schemas.detokenize(),
        "/apply-template": schemas.apply_template(),
    }


def document(service: Service) -> dict[str, Any]:
    """The document."""
    settings = service.settings
    paths: dict[str, Any] = {}
    bodies = requests(settings)
    for path, (answer, summary, streams) in _POSTS.items():
        content = _json(answer)
        if streams:
            content["text/event-stream"] = {}  # with stream: true
        body = {"required": True, "content": {"application/json": {"schema": _ref(f"{answer}Request")}}}
        responses = {"200": {"description": "Done", "content": content}} | _errors(settings, _REFUSALS)
        paths[path] = {
            "post": {"summary": summary, "operationId": _id(path), "requestBody": body, "responses": responses}
        }
    for path, (kind, summary) in _GETS.items():
        content = {kind: {"schema": {"type": "string"}}} if kind and "/" in kind else _json(kind)
        is_open = path in ("/health", "/")
        errors = {} if is_open else _errors(settings, {"404": _REFUSALS["404"]} if "{" in path else {})
        responses = {"200": {"description": "Done", "content": content}} | errors
        name = path.partition("{")[2].rstrip("}")
        place = {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        operation = {"summary": summary, "operationId": _id(path), "responses": responses}
        operation |= {"parameters": [place]} if name else {}
        operation |= {"security": []} if is_open and settings.api_keys else {}
        paths[path] = {"get": operation}
    components: dict[str, Any] = {"schemas": dict(ANSWERS)}
    components["schemas"] |= {f"{_POSTS[path][0]}Request": schema for path, schema in bodies.items()}
    whole: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {
            "title": "bitnet",
            "version": __version__,
            "description": "A ternary language model behind OpenAI's API. Null is the same as leaving a field out.",
        },
        "paths": paths,
        "components": components,
    }
    if settings.api_keys:
        components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        whole["security"] = [{"key": []}]
    return whole


def _ref(name: str) -> Schema:
    """A reference to a schema."""
    return {"$ref": f"#/components/schemas/{name}"}


def _json(name: str | None) -> dict[str, Any]:
    """A content of JSON."""
    return {"application/json": {"schema": _ref(name) if name else {"type": "object"}}}


def _errors(settings: Settings, found: dict[str, str]) -> dict[str, Any]:
    """The responses that tell of errors."""
    keys = {"401": "There is no valid key"} if settings.api_keys else {}
    hosts = {"403": "The header Host names another host"} if settings.allowed_hosts else {}
    errors = keys | hosts | found | {"500": "The server failed"}
    return {status: {"description": text, "content": _json("Error")} for status, text in errors.items()}


def _id(path: str) -> str:
    """The name of a path's operation."""
    return "_".join(part.strip("{}") for part in path.replace(".", "_").replace("-", "_").split("/") if part) or "page"
