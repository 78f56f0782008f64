"""Runs the application with uvicorn: the socket, the log, the end."""

import logging
import signal
import socket
import threading
from collections.abc import Callable
from typing import Any

import uvicorn

from .. import Engine
from ..errors import ArgumentError
from .app import create_app
from .settings import Settings

_BACKLOG = 256
"""Connections that the system accepts before the server takes them."""

_LOG: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "plain": {"format": "%(asctime)s %(levelname)s %(message)s"},
        "access": {
            "()": "uvicorn.logging.AccessFormatter",
            "fmt": '%(asctime)s %(client_addr)s "%(request_line)s" %(status_code)s',
            "use_colors": False,
        },
    },
    "handlers": {
        "plain": {"class": "logging.StreamHandler", "formatter": "plain", "stream": "ext://sys.stderr"},
        "access": {"class": "logging.StreamHandler", "formatter": "access", "stream": "ext://sys.stderr"},
    },
    "loggers": {
        "uvicorn": {"handlers": ["plain"], "level": "WARNING", "propagate": False},
        "uvicorn.error": {"level": "WARNING"},
        "uvicorn.access": {"handlers": ["access"], "level": "INFO", "propagate": False},
        "bitnet.server": {"handlers": ["plain"], "level": "INFO", "propagate": False},
    },
}


def bind(host: str, port: int) -> socket.socket:
    """Open the server's socket. Raises ArgumentError if the address cannot be used."""
    try:
        family, kind, proto, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        opened = socket.socket(family, kind, proto)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind(address)
    except (OSError, OverflowError, UnicodeError) as error:
        raise ArgumentError(
            f"cannot listen on {host} port {port}: {getattr(error, 'strerror', None) or error}; choose another --port "
            "(0: any free one) or --host"
        ) from error
    opened.listen(_BACKLOG)
    return opened


class _Server(uvicorn.Server):
    """A server that tells when it is ready."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to accept connections."""
        await super().startup(sockets)
        if self.started:
            self._ready()


def serve(
    engine: Engine,
    settings: Settings | None = None,
    *,
    host: str = "127.0.0.1",
    port: int = 8080,
    grace: float = 30.0,
    access_log: bool = True,
    opened: socket.socket | None = None,
    ready: Callable[[], None] = lambda: None,
) -> None:
    """Serve an engine until SIGTERM or Ctrl-C.

    At the end, no connection is accepted any more, and requests that run may go on for `grace` seconds; then they are
    cancelled. A second signal cancels them at once.

    Args:
        engine: The engine. It is not closed at the end.
        settings: Who may use the server, and its limits.
        host: Address to listen on.
        port: Port to listen on.
        grace: Seconds that requests may take after the signal.
        access_log: Write a line for each request to standard error.
        opened: A listening socket, in place of host and port.
        ready: Is called when connections are accepted.

    Raises:
        ArgumentError: The address cannot be used.
    """
    listening = opened or bind(host, port)
    usual = None
    if threading.current_thread() is threading.main_thread():
        # uvicorn raises the signal again once it has ended, which would end the process before the caller can go on.
        usual = signal.signal(signal.SIGTERM, lambda *_: None)
    config = uvicorn.Config(
        create_app(engine, settings),
        log_config=_LOG,
        access_log=access_log,
        timeout_graceful_shutdown=round(grace),
        timeout_keep_alive=75,  # longer than clients keep idle connections, which else meet a closed one
        server_header=False,
        proxy_headers=False,
        h11_max_incomplete_event_size=64 << 10,
        lifespan="on",
        ws="none",
    )
    try:
        _Server(config, ready).run(sockets=[listening])
    finally:
        listening.close()
        if usual is not None:
            signal.signal(signal.SIGTERM, usual)
        logging.getLogger("bitnet.server").handlers.clear()
