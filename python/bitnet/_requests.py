"""The fields of a request: checked here for batch files and for data sets of Ray."""

from typing import Any

from ._core import SamplingParams
from ._format import one_line
from .errors import ArgumentError, ContextLengthError, TemplateError, TokenIdError

REFUSALS = (ArgumentError, ContextLengthError, TemplateError, TokenIdError)
"""Errors that a request causes every time, so they are its answer. Any other error ends the run."""

_THOUGHTS = {"reasoning", "reasoning_content"}
"""Fields of an assistant's message with the thoughts before its answer; if both are there, the second one counts."""

_TOOL_FIELDS = ("tools", "tool_choice", "parallel_tool_calls")
"""Fields of a request with messages that `Engine.chat` takes as keywords."""

_VALUE_CHARACTERS = 60
"""A longer value is cut to this many characters in an error message."""


def take_prompt(
    fields: dict[str, Any], place: str, tools: bool = False
) -> tuple[str | list[int] | None, list[dict[str, Any]]]:
    """Remove prompt or messages from the fields, and return (prompt, no messages) or (None, messages). `tools`: whether
    messages may have calls of tools and their results."""
    if "messages" in fields:
        messages = fields.pop("messages")
        if tools and uses_tools(messages):
            _check_calls(messages, place)
        else:
            _check_messages(messages, place)
        return None, messages
    prompt = fields.pop("prompt")
    if not isinstance(prompt, str) and not (isinstance(prompt, list) and all(type(id) is int for id in prompt)):
        raise ArgumentError(f'{place}: "prompt" is {_shown(prompt)}, expected a text or a list of token ids')
    return prompt, []


def take_thinking(fields: dict[str, Any], place: str, has_messages: bool) -> bool | None:
    """Remove "enable_thinking" from the fields, and return it; None without it."""
    value = fields.pop("enable_thinking", None)
    if value is not None and not isinstance(value, bool):
        raise ArgumentError(f'{place}: "enable_thinking" is {_shown(value)}, expected true, false or null')
    if value is not None and not has_messages:
        raise ArgumentError(f'{place}: "enable_thinking" does not change how a prompt is continued; give messages')
    return value


def take_tools(fields: dict[str, Any], place: str, has_messages: bool) -> dict[str, Any]:
    """Remove the fields of tools, and return those that are not null as keywords of `Engine.chat`."""
    taken = {name: fields.pop(name) for name in _TOOL_FIELDS if name in fields}
    taken = {name: value for name, value in taken.items() if value is not None}
    for name, kinds, expected in (
        ("tools", list, "a list of functions"),
        ("tool_choice", (str, dict), 'a text such as "auto", or an object'),
        ("parallel_tool_calls", bool, "true or false"),
    ):
        if name in taken and not isinstance(taken[name], kinds):
            raise ArgumentError(f'{place}: "{name}" is {_shown(taken[name])}, expected {expected}')
    choice = taken.get("tool_choice")
    if isinstance(choice, dict):
        function = choice.get("function")
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise ArgumentError(f'{place}: "tool_choice" is {_shown(choice)}, expected a function with a "name"')
    if taken and not has_messages:
        raise ArgumentError(f'{place}: "{next(iter(taken))}" does not change how a prompt is continued; give messages')
    return taken


def uses_tools(messages: Any) -> bool:
    """Whether a conversation has calls of tools or their results."""
    return isinstance(messages, list) and any(
        isinstance(message, dict) and (message.get("role") == "tool" or "tool_calls" in message) for message in messages
    )


def _check_calls(messages: list[Any], place: str) -> None:
    """Raise ArgumentError unless these are messages with texts, though an answer may have calls instead."""
    for i, message in enumerate(messages):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise ArgumentError(f'{place}: messages[{i}] is {_shown(message)}, expected an object with a "role"')
        calls, content = message.get("tool_calls"), message.get("content")
        if calls is not None and not isinstance(calls, list):
            raise ArgumentError(f'{place}: messages[{i}]["tool_calls"] is {_shown(calls)}, expected a list')
        if not isinstance(content, str) and not (content is None and calls):
            raise ArgumentError(f'{place}: messages[{i}]["content"] is {_shown(content)}, expected a text')
        for name in sorted(_THOUGHTS & set(message)):
            if message[name] is not None and not isinstance(message[name], str):
                raise ArgumentError(f'{place}: messages[{i}]["{name}"] is {_shown(message[name])}, expected a text')


def _check_messages(messages: Any, place: str) -> None:
    """Raise ArgumentError unless this is a conversation whose last turn is the user's."""
    if not isinstance(messages, list):
        raise ArgumentError(f'{place}: "messages" is {_shown(messages)}, expected a list')
    for i, message in enumerate(messages):
        thoughts = _THOUGHTS if isinstance(message, dict) and message.get("role") == "assistant" else set()
        if not isinstance(message, dict) or set(message) - thoughts != {"role", "content"}:
            what = f"messages[{i}] is {_shown(message)}"
            raise ArgumentError(f'{place}: {what}, expected an object with "role" and "content" only')
        for name in sorted(set(message) - {"role"}):
            value = message[name]
            if not isinstance(value, str) and not (name in thoughts and value is None):
                raise ArgumentError(f'{place}: messages[{i}]["{name}"] is {_shown(value)}, expected a text')
    roles = [message["role"] for message in messages]
    turns = roles[roles[:1] == ["system"] :]
    if turns != ["user", "assistant"] * (len(turns) // 2) + ["user"]:
        raise ArgumentError(
            f"{place}: the roles are {_shown(roles)}; expected user and assistant in turn, and the last to be user"
        )


def take_sampling(fields: dict[str, Any], place: str) -> dict[str, Any]:
    """The sampling parameters of a request, as `SamplingParams` takes them. JSON has texts as the keys of a bias."""
    taken = {}
    for name, value in fields.items():
        if not hasattr(SamplingParams, name):
            raise ArgumentError(f"{place}: {name} is not a sampling parameter; see help(bitnet.SamplingParams)")
        try:
            if name == "logit_bias" and isinstance(value, dict):
                value = {int(id): bias for id, bias in value.items()}
            SamplingParams(**{name: value})
        except (TypeError, ValueError, OverflowError) as error:
            what = str(error) if str(error).startswith(name) else f"{name}: {error}"
            raise ArgumentError(f"{place}: {what}") from error
        taken[name] = value
    return taken


def _shown(value: Any) -> str:
    """A value for an error message."""
    return one_line(value, _VALUE_CHARACTERS)
