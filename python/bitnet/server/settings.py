"""Settings of a server: who may use it, and its limits."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import ArgumentError

KEY_VARIABLE = "BITNET_API_KEY"
"""The environment variable with the keys of a server, with commas between them."""


@dataclass(frozen=True)
class Settings:
    """What a server allows. Sizes are in bytes and times in seconds."""

    model_names: tuple[str, ...] = ()
    """Names of the model; `/v1/models` shows the first. Default: the name of its file."""
    api_keys: tuple[str, ...] = ()
    """A request needs one of them. None: every request is answered."""
    allowed_hosts: tuple[str, ...] = ()
    """Values of the header Host that are answered. None: all."""
    cors_origins: tuple[str, ...] = ()
    """Origins of web pages that may use the server; "*" means all."""
    max_running: int | None = None
    """Requests that are computed at a time. Default: the engine's `max_batch`."""
    max_queue: int = 64
    """Requests that wait for their turn; more get status 429."""
    timeout: float = 600.0
    """Time that a request may take, waiting included; 0 for no limit."""
    body_timeout: float = 30.0
    """Time in which the body of a request must arrive."""
    max_body: int = 16 << 20
    """Largest body."""
    max_tokens: int | None = None
    """Largest number of tokens of an answer. Default: up to the end of the context."""
    max_choices: int = 128
    """Largest number of answers of a request: prompts times `n`."""
    max_items: int = 2048
    """Largest number of texts of a request for embeddings."""
    max_stops: int = 16
    """Largest number of stop strings."""
    keep_alive: float = 15.0
    """Pause after which a stream without news sends a comment, so that proxies keep the connection."""
    receipts: int = 1000
    """Number of receipts that the server keeps."""
    log_messages: bool = False
    """Write prompts and answers into the log."""
    defaults: dict[str, Any] = field(default_factory=dict)
    """Sampling parameters of requests that do not set them."""


def read_keys(keys: list[str], file: Path | None) -> tuple[str, ...]:
    """The keys of options, of a file with a key in each line, and of the environment variable BITNET_API_KEY.

    Raises:
        ArgumentError: A key is empty or has characters that a header cannot carry, or the file has no key.
    """
    found = list(keys)
    if file is not None:
        lines = [line.strip() for line in file.read_text(encoding="utf-8").splitlines()]
        listed = [line for line in lines if line and not line.startswith("#")]
        if not listed:
            raise ArgumentError(f"{file} has no key; write one key in each line")
        found += listed
    found += [key.strip() for key in os.environ.get(KEY_VARIABLE, "").split(",") if key.strip()]
    for key in found:
        if not key or not key.isascii() or not key.isprintable() or " " in key:
            raise ArgumentError("a key has no characters, or others than printable ASCII without spaces")
    return tuple(dict.fromkeys(found))
