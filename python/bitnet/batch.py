"""Files of requests: `bitnet run --input FILE.jsonl --output FILE.jsonl`."""

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ._core import ChatSession, Completion, Engine, Receipt, SamplingParams, Template
from .errors import ArgumentError, BitnetError


@dataclass(frozen=True)
class Request:
    """A line of a file."""

    index: int
    id: Any
    prompt: str | list[int] | None
    """A text to be continued, or its ids."""
    messages: list[dict[str, str]]
    """Else a conversation to be answered: an optional system prompt, then turns up to the user's last."""
    params: SamplingParams
    mark: str
    """A hash of all that its answer depends on; the model counts by its file's name."""

    def answer(self, engine: Engine, template: Template) -> Completion:
        """Compute it."""
        if self.prompt is not None:
            return engine.generate(self.prompt, params=self.params)
        messages = list(self.messages)
        system = messages.pop(0)["content"] if messages[0]["role"] == "system" else None
        conversation = json.loads(ChatSession(engine, system, template=template).to_json())
        conversation["turns"] = messages[:-1]
        chat = ChatSession.from_json(engine, json.dumps(conversation))
        return chat.send(messages[-1]["content"], params=self.params)


def run(
    engine: Engine,
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    chat: bool = False,
    system: str | None = None,
    template: Template | None = None,
    save: Callable[[Receipt], None] | None = None,
    **sampling: Any,
) -> Iterator[tuple[int, int]]:
    """Answer every request of `source` by a line of `target`, in order; yields how many are answered, and of how many.

    A request is a JSON object: a `prompt` (a text or ids) or `messages`, an `id` if wanted (else its index), and
    sampling parameters, which change those given here. `chat` takes a text as what a user says, `system` stands before
    conversations that have no system prompt. An answer has index, id, text, finish_reason, prompt_tokens,
    completion_tokens and its receipt's digest; or, where it could not be computed, its error.

    What `target` holds is kept: a line that a killed process left unfinished is dropped, and the rest is answered.
    Raises ArgumentError if the lines of `source` are not such requests, or those of `target` not answers to them.
    """
    source, target, template = Path(source), Path(target), template or engine.template
    common = {"chat": chat, "system": system, "template": template.source, "model": engine.path.name, **sampling}
    requests = [
        request(line, f"{source}, line {number}", index, common, sampling)
        for index, (number, line) in enumerate(lines(source))
    ]
    done = answered(source, target, requests)
    yield done, len(requests)
    with target.open("ab", buffering=0) as file:
        for one in requests[done:]:
            facts: dict[str, Any] = {"index": one.index, "id": one.id}
            try:
                answer = one.answer(engine, template)
            except BitnetError as error:
                facts["error"] = str(error)
            else:
                for name in ("text", "finish_reason", "prompt_tokens", "completion_tokens"):
                    facts[name] = getattr(answer, name)
                if answer.receipt:
                    facts["digest"] = answer.receipt.digest
                    if save:
                        save(answer.receipt)
            file.write(json.dumps(facts | {"request": one.mark}, ensure_ascii=False).encode() + b"\n")
            yield one.index + 1, len(requests)


def lines(source: Path) -> list[tuple[int, str]]:
    """The lines that are not blank, with their numbers from 1."""
    try:
        text = source.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ArgumentError(f"{source} is not a text in UTF-8: {error}") from error
    return [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]


def request(line: str, place: str, index: int, common: dict[str, Any], sampling: dict[str, Any]) -> Request:
    """A line as what it asks for."""
    try:
        fields = json.loads(line)
    except ValueError as error:
        raise ArgumentError(f"{place} is not JSON: {error}") from error
    if not isinstance(fields, dict) or ("prompt" in fields) == ("messages" in fields):
        raise ArgumentError(f'{place}: expected an object with either "prompt" or "messages"')
    mark = hashlib.sha256(json.dumps([index, fields, common], sort_keys=True).encode()).hexdigest()
    name, prompt, messages = fields.pop("id", index), fields.pop("prompt", None), fields.pop("messages", [])
    if common["chat"] and isinstance(prompt, str):
        prompt, messages = None, [{"role": "user", "content": prompt}]
    if prompt is None:
        check(messages, place)
        if common["system"] is not None and messages[0]["role"] != "system":
            messages = [{"role": "system", "content": common["system"]}, *messages]
    elif not isinstance(prompt, str) and not (isinstance(prompt, list) and all(type(id) is int for id in prompt)):
        raise ArgumentError(f'{place}: "prompt" is neither a text nor a list of ids')
    try:
        params = SamplingParams(**{**sampling, **fields})
    except (TypeError, BitnetError) as error:
        raise ArgumentError(f"{place}: {error}") from error
    return Request(index, name, prompt, messages, params, mark)


def check(messages: Any, place: str) -> None:
    """A conversation that waits for an answer, or an error."""
    try:
        roles = [message["role"] for message in messages]
        texts = all(isinstance(message["content"], str) for message in messages)
    except (TypeError, KeyError) as error:
        raise ArgumentError(f'{place}: expected messages with "role" and "content", found {messages!r}') from error
    turns = roles[roles[:1] == ["system"] :]
    if not texts or not turns or turns != ["user", "assistant"] * (len(turns) // 2) + ["user"]:
        raise ArgumentError(f"{place}: expected texts in turn of user and assistant, the last a user's; found {roles}")


def answered(source: Path, target: Path, requests: list[Request]) -> int:
    """How many of the requests have an answer already. Drops an unfinished line."""
    if not target.exists():
        return 0
    whole, newline, torn = target.read_bytes().rpartition(b"\n")
    held = whole.split(b"\n") if newline else []
    for number, line in enumerate(held):
        try:
            mark = json.loads(line)["request"]
        except (ValueError, TypeError, KeyError):
            mark = None
        if number >= len(requests) or mark != requests[number].mark:
            raise ArgumentError(
                f"{target}, line {number + 1} is not the answer to request {number} of {source} with this model and "
                "these options; name another output"
            )
    if torn:
        with target.open("r+b") as file:
            file.truncate(len(whole) + len(newline))
    return len(held)
