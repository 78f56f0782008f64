"""Answer a file of requests; a run that was stopped is resumed. The library behind `bitnet run --input --output`."""

import hashlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any

from . import _core
from ._core import ChatSession, Completion, Engine, Receipt, SamplingParams, Stream, Template
from ._requests import REFUSALS, take_prompt, take_sampling, take_thinking, take_tools, uses_tools
from ._text_input import read_text
from .errors import ArgumentError

if sys.platform != "win32":
    import fcntl

__all__ = ["run"]


@dataclass(frozen=True)
class _Request:
    """One line of the input file."""

    index: int
    prompt: str | list[int] | None
    """A text or token ids to continue, or None if the request has messages."""
    messages: list[dict[str, Any]]
    """A conversation to answer: an optional system prompt, then turns; the last one is the user's, or the result of a
    tool."""
    tools: dict[str, Any]
    """The keywords of `Engine.chat` for tools."""
    enable_thinking: bool | None
    """As for `ChatSession.send`."""
    params: SamplingParams
    head: bytes
    """The beginning of the answer's line: index, id, and a hash of everything that the answer depends on."""

    def stream(self, engine: Engine, chat: ChatSession) -> Stream:
        """Start to answer. `chat` has the template and the settings for conversations."""
        if self.prompt is not None:
            return engine.stream(self.prompt, params=self.params)
        if self.tools or uses_tools(self.messages):
            thinking = chat.enable_thinking if self.enable_thinking is None else self.enable_thinking
            return engine.chat_stream(
                self.messages, self.params, template=chat.template, enable_thinking=thinking, **self.tools
            )
        messages = list(self.messages)
        system = messages.pop(0)["content"] if messages[0]["role"] == "system" else None
        conversation = json.loads(chat.to_json()) | {"system": system, "turns": [*map(_turn, messages[:-1])]}
        chat = ChatSession.from_json(engine, json.dumps(conversation), template=chat.template)
        return chat.stream(messages[-1]["content"], params=self.params, enable_thinking=self.enable_thinking)


def run(
    engine: Engine,
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    chat: bool = False,
    system: str | None = None,
    template: Template | str | None = None,
    enable_thinking: bool | None = None,
    save: Callable[[Receipt], None] | None = None,
    params: SamplingParams | None = None,
    **sampling: Any,
) -> Iterator[tuple[int, int]]:
    """Answer each request of the file `source` with one line in the file `target`, in order. Yields, before the first
    answer and after each one, how many requests are answered and how many there are.

    A request is a JSON object on one line. It has a "prompt" (a text or token ids) or "messages"; it may have an "id"
    (default: its index) and sampling parameters, which override those of this call. One with messages may have "tools",
    "tool_choice" and "parallel_tool_calls", as for `Engine.chat`.
    source: a path; "-" is standard input.
    chat: treat a "prompt" that is a text as a user's message to the chat template.
    system: the system prompt of conversations that have none.
    template, enable_thinking: as for `ChatSession`.
    save: is called with each receipt before its answer is written.

    An answer is a JSON object with index, id, request (a hash of everything that the answer depends on), text,
    finish_reason, prompt_tokens, completion_tokens and digest (of its receipt). If the model thought before its answer,
    reasoning has its thoughts; if it called tools, tool_calls has the calls. If the request cannot be answered, "error"
    stands in place of everything after request.

    Answers that `target` already holds are kept. A last line that a killed process did not finish is dropped, and the
    remaining requests are answered.

    Raises ArgumentError if a line of `source` is not a valid request, or if `target` holds something other than
    answers to these requests, is not a regular file, or is being written by another process; OSError if it cannot be
    written; and as `Engine.generate` if memory runs out or the engine is closed. After any error `target` has whole
    lines only, and the next call resumes.
    """
    pattern = ChatSession(engine, system, template=template, enable_thinking=enable_thinking, params=params, **sampling)
    requests = _read_requests(source, engine, pattern, chat)
    target = Path(target)
    if target.exists():
        if not target.is_file():
            raise ArgumentError(f"{target}: the output must be a regular file; name another output")
        if str(source) != "-" and target.samefile(source):
            raise ArgumentError(f"{target} is the input file itself; name another output")
    with target.open("a+b", buffering=0) as file:
        _lock(file)
        done = _count_answered(file, requests)
        yield done, len(requests)
        for request, answer in _answers(requests[done:], engine, pattern):
            fields: dict[str, Any] = {}
            if isinstance(answer, str):
                fields["error"] = answer
            else:
                for name in ("text", "finish_reason", "prompt_tokens", "completion_tokens"):
                    fields[name] = getattr(answer, name)
                if answer.reasoning is not None:
                    fields["reasoning"] = answer.reasoning
                if answer.tool_calls is not None:
                    fields["tool_calls"] = answer.tool_calls
                if answer.receipt:
                    fields["digest"] = answer.receipt.digest
                    if save:
                        save(answer.receipt)
            _append(file, request.head + b", " + json.dumps(fields)[1:].encode() + b"\n")
            yield request.index + 1, len(requests)


def _answers(
    requests: list[_Request], engine: Engine, pattern: ChatSession
) -> Iterator[tuple[_Request, Completion | str]]:
    """Each request with its answer, or with the reason why it cannot be answered. Some are computed at once."""
    refused: dict[int, str] = {}

    def streams() -> Iterator[Stream]:
        for request in requests:
            try:
                yield request.stream(engine, pattern)
            except REFUSALS as error:
                refused[request.index] = str(error)

    completions = _core._Together(streams())
    waiting: list[Completion | str] = []
    for request in requests:
        if not waiting and request.index not in refused:
            try:
                waiting += [completion] if (completion := next(completions, None)) else []
            except REFUSALS as error:
                waiting.append(str(error))
        # The call may have found that this request is refused: then the completion is that of a later one.
        if request.index in refused:
            yield request, refused[request.index]
        else:
            yield request, waiting.pop()


def _read_requests(source: str | os.PathLike[str], engine: Engine, pattern: ChatSession, chat: bool) -> list[_Request]:
    """All requests, checked. `pattern` has the system prompt, template and sampling parameters for all of them."""
    system, template = pattern.system, pattern.template
    common = {name: getattr(pattern.params, name) for name in dir(SamplingParams) if not name.startswith("_")}
    model = [engine.path.name, engine.memory["file"], engine.n_ctx, engine.kv_type, engine.act_quant, engine.ffn_act]
    model += [engine.lm_head] if engine.lm_head == "int8" else []
    setting = [*model, template.source, template.bos_token, template.eos_token]
    setting += [] if pattern.enable_thinking is None else [f"enable_thinking {pattern.enable_thinking}"]
    requests: list[_Request] = []
    for place, line in _lines(source):
        index, fields = len(requests), _parsed(line, place)
        name = fields.pop("id", index)
        prompt, messages = take_prompt(fields, place, tools=True)
        if chat and isinstance(prompt, str):
            messages = [{"role": "user", "content": prompt}]
            prompt = None
        if messages and messages[0]["role"] != "system" and system is not None:
            messages = [{"role": "system", "content": system}, *messages]
        thinking = take_thinking(fields, place, bool(messages))
        tools = take_tools(fields, place, bool(messages))
        sampling = common | take_sampling(fields, place)
        params, deciding = SamplingParams(**sampling), SamplingParams(**(sampling | {"speculate": None}))
        own: list[Any] = [] if thinking is None else [f"enable_thinking {thinking}"]
        own += [json.dumps(tools)] if tools else []
        mark = hashlib.sha256(json.dumps([setting + own, prompt, messages, repr(deciding)], sort_keys=True).encode())
        head = json.dumps({"index": index, "id": name, "request": mark.hexdigest()}).removesuffix("}").encode()
        requests.append(_Request(index, prompt, messages, tools, thinking, params, head))
    return requests


def _turn(message: dict[str, str]) -> dict[str, str | None]:
    """A message as saved conversations hold it."""
    thoughts = message.get("reasoning_content", message.get("reasoning"))
    return {"role": message["role"], "content": message["content"], "reasoning": thoughts}


def _lines(source: str | os.PathLike[str]) -> list[tuple[str, str]]:
    """The lines that are not blank, each with its place: the file's name and the line's number, from 1."""
    name = "standard input" if str(source) == "-" else source
    lines = read_text(source).removeprefix("\ufeff").split("\n")
    return [(f"{name}, line {number}", line) for number, line in enumerate(lines, 1) if line.strip()]


def _parsed(line: str, place: str) -> dict[str, Any]:
    """The fields of a line, all of which can be written as JSON again."""
    try:
        fields = json.loads(line)
        json.dumps(fields, ensure_ascii=False, allow_nan=False).encode()
    except UnicodeEncodeError as error:
        raise ArgumentError(f"{place} holds a lone surrogate, which is not a character; remove it") from error
    except RecursionError as error:
        raise ArgumentError(f"{place} is nested too deeply") from error
    except ValueError as error:
        raise ArgumentError(f"{place} is not JSON: {error}") from error
    if not isinstance(fields, dict) or ("prompt" in fields) == ("messages" in fields):
        raise ArgumentError(f'{place}: expected an object with either "prompt" or "messages"')
    return fields


def _lock(file: FileIO) -> None:
    """Keep other processes from writing the file until it is closed, if the system can."""
    if sys.platform == "win32":
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        message = f"{file.name}: another process is writing this file; wait for it, or name another output"
        raise ArgumentError(message) from error
    except OSError:
        pass  # the file system has no locks


def _count_answered(file: FileIO, requests: list[_Request]) -> int:
    """How many requests have an answer in the file. Truncates the last line if it is unfinished."""
    file.seek(0)
    *whole, torn = file.read().split(b"\n")
    for number, line in enumerate([*whole, torn] if torn else whole):
        head = requests[number].head if number < len(requests) else b"\n"  # no line begins with a newline
        kept = number < len(whole) and line.startswith(head) and _is_json(line)
        dropped = number == len(whole) and (line.startswith(head) or head.startswith(line))
        if not (kept or dropped):
            raise ArgumentError(
                f"{file.name}, line {number + 1} is not an answer to request {number} with this model and these "
                "options; name another output"
            )
    if torn:
        file.truncate(file.tell() - len(torn))
    return len(whole)


def _is_json(line: bytes) -> bool:
    """Whether the line is valid JSON; a line that was torn and then written over is not."""
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


def _append(file: FileIO, line: bytes) -> None:
    """Write a whole line, or nothing if that fails."""
    end = file.seek(0, os.SEEK_END)
    try:
        while line:
            line = line[file.write(line) :]
    except OSError as error:
        file.truncate(end)
        error.filename = file.name
        raise
