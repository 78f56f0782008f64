"""`bitnet serve`."""

import argparse
import ipaddress
import sys
import warnings
from pathlib import Path
from typing import Any

from ..errors import ArgumentError, BitnetWarning
from ._options import (
    INSIDE,
    Commands,
    add_command,
    add_engine_options,
    add_option,
    add_sampling_options,
    model_path,
    number,
    sampling,
    whole,
)

_LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
"""Hosts that requests may name if the server can only be reached from this machine."""

_NO_DEFAULTS = ("seed", "stop")
"""Sampling options that make no sense for all requests."""

_RANGES = (
    ("port", 0, 65535),
    ("max_running", 1, 2**31),
    ("max_queue", 0, 2**31),
    ("timeout", 0, 2**31),
    ("grace", 0, 2**31),
    ("max_body", 1, 2**40),
    ("receipts", 0, 2**31),
)
"""Options with the values that they may have."""


def add_parser(commands: Commands) -> None:
    """Describe the command and its options."""
    command = add_command(
        commands,
        "serve",
        run,
        help="serve a model over HTTP as OpenAI's API does",
        description="Serve a model over HTTP: chat completions, completions, embeddings and responses as OpenAI's API "
        "has them. Requests that run at the same time share forward passes. The page http://127.0.0.1:8080 chats in a "
        "browser. SIGTERM or Ctrl-C ends the server once running requests have ended. It needs "
        "`pip install 'bitnet-engine[serve]'`.",
    )
    add_engine_options(command)
    add_option(
        command,
        "--max-batch",
        type=whole,
        metavar="N",
        help="answers that one forward pass advances (default: 32)",
    )
    command.add_argument(
        "--cache-bytes",
        type=whole,
        metavar="N",
        help="bytes of the prefix cache (default: 512 MiB, or what one sequence takes if that is more)",
    )
    group = command.add_argument_group("server options")
    group.add_argument(
        "--host", default="127.0.0.1", metavar="ADDRESS", help="address to listen on (default: 127.0.0.1)"
    )
    group.add_argument("--port", type=whole, default=8080, metavar="N", help="port; 0: any free one (default: 8080)")
    group.add_argument(
        "--alias",
        action="append",
        default=[],
        metavar="NAME",
        help="name of the model in requests and answers; may be given several times (default: the file's name)",
    )
    group.add_argument(
        "--api-key",
        action="append",
        default=[],
        metavar="KEY",
        help="a key that requests need, as `Authorization: Bearer KEY`; may be given several times. Other users of "
        "this machine can see it: prefer --api-key-file, or the variable BITNET_API_KEY (default: no key)",
    )
    group.add_argument("--api-key-file", type=Path, metavar="FILE", help="a file with one key in each line")
    group.add_argument(
        "--cors-origin",
        action="append",
        default=[],
        metavar="ORIGIN",
        help="let web pages of this origin, such as https://example.org, use the server; * means all; may be given "
        "several times (default: none)",
    )
    group.add_argument(
        "--allow-host",
        action="append",
        default=[],
        metavar="NAME",
        help="answer requests whose header Host has this name; may be given several times (default: localhost and "
        "--host while the server listens on this machine only and has no key, else all)",
    )
    group.add_argument(
        "--max-running", type=whole, metavar="N", help="requests that are computed at a time (default: --max-batch)"
    )
    group.add_argument(
        "--max-queue",
        type=whole,
        default=64,
        metavar="N",
        help="requests that wait for their turn; more get status 429 (default: 64)",
    )
    group.add_argument(
        "--timeout",
        type=number,
        default=600.0,
        metavar="S",
        help="seconds that a request may take, waiting included; 0: no limit (default: 600)",
    )
    group.add_argument(
        "--grace",
        type=number,
        default=30.0,
        metavar="S",
        help="seconds that running requests may take after SIGTERM or Ctrl-C (default: 30)",
    )
    group.add_argument(
        "--max-body", type=whole, default=16 << 20, metavar="N", help="largest body in bytes (default: 16777216)"
    )
    group.add_argument(
        "--receipts", type=whole, default=1000, metavar="N", help="receipts that the server keeps (default: 1000)"
    )
    group.add_argument(
        "--log-messages", action="store_true", help="write prompts and answers to standard error (default: off)"
    )
    group.add_argument("--no-access-log", action="store_true", help="write no line for each request")
    add_sampling_options(command, "sampling options, for requests that do not set them", _NO_DEFAULTS)


def run(options: argparse.Namespace) -> None:
    """Serve until SIGTERM or Ctrl-C."""
    from .. import Engine
    from ..server import serve
    from ..server.forms import FORMS
    from ..server.run import bind
    from ..server.settings import read_keys

    settings = _settings(options, read_keys(options.api_key, options.api_key_file))
    path = model_path(options.model)
    with bind(options.host, options.port) as opened:
        engine_options = {"n_threads": options.threads, "n_ctx": options.ctx, "kv_type": options.kv_type}
        engine_options |= {"lm_head": options.lm_head, "max_batch": options.max_batch}
        with Engine(path, cache_bytes=options.cache_bytes, **engine_options) as engine:
            if form := {name: value for name, value in settings.defaults.items() if name in FORMS}:
                engine._follow_form([], **form)  # refuses one that cannot be compiled
            warnings.simplefilter("ignore", BitnetWarning)  # later ones are about single requests
            host, port = opened.getsockname()[:2]
            address = f"http://{f'[{host}]' if ':' in host else host}:{port}"

            def ready() -> None:
                known = "with a key" if settings.api_keys else "no key needed"
                print(f"{settings.model_names[0]}: {address} ({address}/v1 for OpenAI clients; {known})", flush=True)

            serve(
                engine,
                settings,
                grace=options.grace,
                access_log=not options.no_access_log,
                opened=opened,
                ready=ready,
            )


def _settings(options: argparse.Namespace, keys: tuple[str, ...]) -> Any:
    """The server's settings of the options."""
    from ..server.settings import Settings

    for name, least, most in _RANGES:
        value = getattr(options, name)
        if value is not None and not least <= value <= most:
            raise ArgumentError(f"{name} is {value}, expected a number from {least} to {most}")
    if not keys and not _is_local(options.host):
        print(f"bitnet: warning: everyone who reaches {options.host} can use this server; set a key", file=sys.stderr)
    hosts = tuple(options.allow_host)
    if hosts or (_is_local(options.host) and not keys):
        hosts += (*_LOOPBACK, options.host)
    from .. import SamplingParams

    usual = SamplingParams()
    given = {name: value for name, value in sampling(options).items() if value != getattr(usual, name)}
    SamplingParams(**given)
    for name in _NO_DEFAULTS:
        if name in given:
            raise ArgumentError(f"--{name} is {given[name]!r}, but it cannot be the same for all requests; they set it")
    return Settings(
        model_names=tuple(options.alias) or (_name(options.model),),
        api_keys=keys,
        allowed_hosts=hosts,
        cors_origins=tuple(options.cors_origin),
        max_running=options.max_running,
        max_queue=options.max_queue,
        timeout=options.timeout,
        max_body=options.max_body,
        receipts=options.receipts,
        log_messages=options.log_messages,
        defaults=given,
    )


def _is_local(host: str) -> bool:
    """Whether only this machine reaches an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _name(model: str | None) -> str:
    """The name of a model in answers: that of its file, or OWNER/NAME on the hub."""
    if model is None or model == INSIDE:
        return INSIDE
    if model.startswith("hf:"):
        return "/".join(model.removeprefix("hf:").partition("@")[0].split("/")[:2])
    return Path(model).absolute().stem or "model"
