"""Servers for the tests: an application on a thread, and the command in a process of its own."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn


@contextmanager
def running(app: Any) -> Iterator[str]:
    """Serve an application on a free port; gives its address."""
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical", timeout_graceful_shutdown=1, lifespan="on"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(30)
        listening.close()
    assert not thread.is_alive()


@contextmanager
def command(*arguments: str | Path, log: Path | None = None) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Run `bitnet serve` on a free port; gives its address and its process."""
    words = [sys.executable, "-m", "bitnet", "serve", *map(str, arguments), "--port", "0"]
    with open(log or "/dev/null", "w") as stderr:
        process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=stderr, text=True)
        try:
            assert process.stdout
            line = process.stdout.readline()
            assert "http://" in line, f"{line!r}, status {process.poll()}"
            yield line.partition(": ")[2].partition(" ")[0], process
        finally:
            process.kill()
            process.wait()


def eventually(true: Callable[[], Any], seconds: float = 20) -> None:
    """Wait until something is true."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not become true in time"
        time.sleep(0.01)
