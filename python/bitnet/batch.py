"""Files of requests: `bitnet run --input FILE.jsonl --output FILE.jsonl`."""

import hashlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any

from ._core import ChatSession, Completion, Engine, Receipt, SamplingParams, Template
from .errors import ArgumentError, ContextLengthError, TemplateError, TokenIdError

if sys.platform != "win32":
    import fcntl

REFUSALS = (ArgumentError, ContextLengthError, TemplateError, TokenIdError)
"""The errors that a request meets each time: they are its answer. Others may pass, and end the run."""


@dataclass(frozen=True)
class Request:
    """A line of a file."""

    index: int
    prompt: str | list[int] | None
    """A text to be continued, or its ids."""
    messages: list[dict[str, str]]
    """Else a conversation to be answered: an optional system prompt, then turns up to the user's last."""
    params: SamplingParams
    head: bytes
    """How the line of its answer begins: with index, id and a hash of all that decides the answer."""

    def answer(self, engine: Engine, chat: ChatSession) -> Completion:
        """Compute it; `chat` says how conversations are formatted."""
        if self.prompt is not None:
            return engine.generate(self.prompt, params=self.params)
        messages = list(self.messages)
        system = messages.pop(0)["content"] if messages[0]["role"] == "system" else None
        conversation = json.loads(chat.to_json()) | {"system": system, "turns": messages[:-1]}
        chat = ChatSession.from_json(engine, json.dumps(conversation), template=chat.template)
        return chat.send(messages[-1]["content"], params=self.params)


def run(
    engine: Engine,
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    chat: bool = False,
    system: str | None = None,
    template: Template | str | None = None,
    save: Callable[[Receipt], None] | None = None,
    params: SamplingParams | None = None,
    **sampling: Any,
) -> Iterator[tuple[int, int]]:
    """Answer every request of `source` by a line of `target`, in order; yields how many are answered, and of how many.

    A request is a JSON object: a `prompt` (a text or ids) or `messages`, an `id` if wanted (else its index), and
    sampling parameters, which change those given here. `chat` takes a text as what a user says, `system` stands before
    conversations that have no system prompt, `template` is that of `ChatSession`; `save` is given each receipt before
    its answer is written. The source "-" is standard input. An answer has index, id, request (a hash of all that
    decides it), text, finish_reason, prompt_tokens, completion_tokens and its receipt's digest; or the error of a
    request that cannot be answered.

    What `target` holds is kept: a line that a killed process left unfinished is dropped, and the rest is answered.
    Raises ArgumentError if the lines of `source` are not such requests, if `target` holds anything but answers to
    them, is no regular file or is being written; OSError if it cannot be written; as `Engine.generate` where memory is
    short or the engine closed. After any error `target` has whole lines, and another run goes on with it.
    """
    pattern = ChatSession(engine, system, template=template, params=params, **sampling)
    requests = read(source, engine, pattern, chat)
    target = Path(target)
    if target.exists():
        if not target.is_file():
            raise ArgumentError(f"{target}: expected a regular file for the answers; name another output")
        if str(source) != "-" and target.samefile(source):
            raise ArgumentError(f"{target} is the input itself; name another output")
    with target.open("a+b", buffering=0) as file:
        lock(file)
        done = answered(file, requests)
        yield done, len(requests)
        for one in requests[done:]:
            facts: dict[str, Any] = {}
            try:
                answer = one.answer(engine, pattern)
            except REFUSALS as error:
                facts["error"] = str(error)
            else:
                for name in ("text", "finish_reason", "prompt_tokens", "completion_tokens"):
                    facts[name] = getattr(answer, name)
                if answer.receipt:
                    facts["digest"] = answer.receipt.digest
                    if save:
                        save(answer.receipt)
            append(file, one.head + b", " + json.dumps(facts)[1:].encode() + b"\n")
            yield one.index + 1, len(requests)


def read(source: str | os.PathLike[str], engine: Engine, pattern: ChatSession, chat: bool) -> list[Request]:
    """All requests, checked. What they leave open is as in `pattern`."""
    system, template = pattern.system, pattern.template
    common = {name: getattr(pattern.params, name) for name in dir(SamplingParams) if not name.startswith("_")}
    model = [engine.path.name, engine.memory["file"], engine.n_ctx, engine.kv_type, engine.act_quant, engine.ffn_act]
    setting = [*model, template.source, template.bos_token, template.eos_token]
    requests: list[Request] = []
    for place, line in lines(source):
        index, fields = len(requests), parsed(line, place)
        name = fields.pop("id", index)
        prompt, messages = asked(fields, place)
        if chat and isinstance(prompt, str):
            messages = [{"role": "user", "content": prompt}]
            prompt = None
        if messages and messages[0]["role"] != "system" and system is not None:
            messages = [{"role": "system", "content": system}, *messages]
        params = SamplingParams(**(common | sampled(fields, place)))
        mark = hashlib.sha256(json.dumps([setting, prompt, messages, repr(params)], sort_keys=True).encode())
        head = json.dumps({"index": index, "id": name, "request": mark.hexdigest()}).removesuffix("}").encode()
        requests.append(Request(index, prompt, messages, params, head))
    return requests


def lines(source: str | os.PathLike[str]) -> list[tuple[str, str]]:
    """The lines that are not blank, each after its place: the file and the number from 1."""
    piped = str(source) == "-"
    name = "standard input" if piped else source
    with open(0 if piped else source, "rb", closefd=not piped) as file:
        content = file.read()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ArgumentError(f"{name} is not a text in UTF-8: {error}") from error
    return [(f"{name}, line {number}", line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]


def parsed(line: str, place: str) -> dict[str, Any]:
    """The fields of a line, which can be written again."""
    try:
        fields = json.loads(line)
        json.dumps(fields, ensure_ascii=False, allow_nan=False).encode()
    except UnicodeEncodeError as error:
        raise ArgumentError(f"{place} holds a lone surrogate, which is no character; remove it") from error
    except RecursionError as error:
        raise ArgumentError(f"{place} is nested too deeply") from error
    except ValueError as error:
        raise ArgumentError(f"{place} is not JSON: {error}") from error
    if not isinstance(fields, dict) or ("prompt" in fields) == ("messages" in fields):
        raise ArgumentError(f'{place}: expected an object with either "prompt" or "messages"')
    return fields


def asked(fields: dict[str, Any], place: str) -> tuple[str | list[int] | None, list[dict[str, str]]]:
    """Takes the prompt out of the fields, or else the messages."""
    if "messages" in fields:
        messages = fields.pop("messages")
        check(messages, place)
        return None, messages
    prompt = fields.pop("prompt")
    if not isinstance(prompt, str) and not (isinstance(prompt, list) and all(type(id) is int for id in prompt)):
        raise ArgumentError(f'{place}: "prompt" is {shown(prompt)}, which is neither a text nor a list of ids')
    return prompt, []


def check(messages: Any, place: str) -> None:
    """A conversation that waits for an answer, or an error."""
    if not isinstance(messages, list):
        raise ArgumentError(f'{place}: "messages" is {shown(messages)}, expected a list')
    for i, message in enumerate(messages):
        if not isinstance(message, dict) or set(message) != {"role", "content"}:
            raise ArgumentError(f'{place}: messages[{i}] is {shown(message)}, expected "role" and "content" alone')
        if not isinstance(content := message["content"], str):
            raise ArgumentError(f'{place}: messages[{i}]["content"] is {shown(content)}, expected a text')
    roles = [message["role"] for message in messages]
    turns = roles[roles[:1] == ["system"] :]
    if turns != ["user", "assistant"] * (len(turns) // 2) + ["user"]:
        raise ArgumentError(f"{place}: expected user and assistant in turn, the last a user's; found {shown(roles)}")


def sampled(fields: dict[str, Any], place: str) -> dict[str, Any]:
    """Sampling parameters as Python takes them; JSON has texts for the ids of a bias."""
    taken = {}
    for name, value in fields.items():
        if not hasattr(SamplingParams, name):
            raise ArgumentError(f"{place}: {name} is not a sampling parameter; see SamplingParams")
        try:
            if name == "logit_bias" and isinstance(value, dict):
                value = {int(id): bias for id, bias in value.items()}
            SamplingParams(**{name: value})
        except (TypeError, ValueError, OverflowError) as error:
            what = str(error) if str(error).startswith(name) else f"{name}: {error}"
            raise ArgumentError(f"{place}: {what}") from error
        taken[name] = value
    return taken


def shown(value: Any) -> str:
    """A value as JSON, cut."""
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:59] + "…"


def lock(file: FileIO) -> None:
    """Keep other processes from writing the file until it is closed, where the system can."""
    if sys.platform == "win32":
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise ArgumentError(f"{file.name}: another process is writing this file; wait, or name another") from error
    except OSError:
        pass  # a file system without locks


def answered(file: FileIO, requests: list[Request]) -> int:
    """How many of the requests have an answer already. Drops the next one's, if it is unfinished."""
    file.seek(0)
    *whole, torn = file.read().split(b"\n")
    for number, line in enumerate([*whole, torn] if torn else whole):
        head = requests[number].head if number < len(requests) else b"\n"  # with which no line begins
        kept = number < len(whole) and line.startswith(head) and is_json(line)
        dropped = number == len(whole) and (line.startswith(head) or head.startswith(line))
        if not (kept or dropped):
            raise ArgumentError(
                f"{file.name}, line {number + 1} is not the answer to request {number} with this model and these "
                "options; name another output"
            )
    if torn:
        file.truncate(file.tell() - len(torn))
    return len(whole)


def is_json(line: bytes) -> bool:
    """Whether it can be read; a line that was torn and written over cannot."""
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


def append(file: FileIO, line: bytes) -> None:
    """Write a whole line; where that fails, nothing."""
    end = file.seek(0, os.SEEK_END)
    try:
        while line:
            line = line[file.write(line) :]
    except OSError as error:
        file.truncate(end)
        error.filename = file.name
        raise
