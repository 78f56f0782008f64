"""Errors in the words of the command line: flags in place of Python's keywords, paths and reasons without Python."""

import argparse
import os
import re

from .._format import escape_line
from ..errors import BitnetError, ReceiptError

_KEYWORDS = {"ctx": "n_ctx", "threads": "n_threads", "thinking": "enable_thinking"}
"""The keyword that an option sets, if its name is another."""

_PHRASES = (
    (r"open the engine with a larger n_ctx", "use a larger --ctx"),
    (r"\bn_batch or n_ctx\b", "--ctx"),
    (
        r"^template '(.*)' is not known; choose one of (.*), or give a Jinja source",
        r"--template \1: no such file, and "
        r"no template of this name; choose one of \2, or give a file with Jinja source",
    ),
    (
        r"^enable_thinking is set, but the chat template does not read this variable, so it cannot",
        "the chat template does not read the variable 'enable_thinking', so --thinking and --no-thinking cannot",
    ),
    (
        r"; it reads the variable thinking, which chat_template_kwargs=.* sets$",
        "; it reads the variable 'thinking', which only engine.chat in Python can set",
    ),
    (r"\bor force=True to replace\b", "or --force to replace"),
    (r"\bor leave isa out\b", "or leave --isa and BITNET_ISA out"),
    (r" ?\(Engine\.from_pretrained opens models of the Hugging Face Hub\)", ""),
    (r"\bpass token or run\b", "run"),
    (r"\brepo_id is ", "the name of a model of the Hugging Face Hub is "),
    (r"\bpass one of them as filename\b", "name one of them (hf:OWNER/NAME/FILE)"),
    (r"\bwith cache_dir or HF_HOME\b", "with the environment variable HF_HOME"),
    (r" \(cache=False\)", ""),
    (r"; see help\(bitnet\.SamplingParams\)", ""),
    (r" \(os error \d+\)", ""),
    (r"^the conversation is empty; give at least one message$", "give a message with --user TEXT or --messages FILE"),
    (r"\bthe positions that the model was trained for\b", "the context length that the model was trained for"),
    (r"; choose a template$", "; choose one with --template"),
    (
        r"^the model has a chat template, but generate and stream continue a text as it is; .*$",
        "the text is continued as it is, without the model's chat template; add --chat to send it as a message",
    ),
    (
        r", which is plain text here; call engine\.chat\(messages\), .*$",
        ", which is plain text here; to send a message, give it without the template and add --chat",
    ),
)
"""What speaks of Python calls, and what to say in its place."""


def explain(error: Exception, parser: argparse.ArgumentParser | None = None) -> str:
    """The message of an error as one line. `parser` is that of the command, whose options the message names."""
    return escape_line(_explained(error, parser))


def _explained(error: Exception, parser: argparse.ArgumentParser | None) -> str:
    """The message of an error, with what strangers wrote in it."""
    if isinstance(error, OSError) and not isinstance(error, BitnetError):
        return _of_system(error)
    text = str(error)
    if isinstance(error, ReceiptError):
        return re.sub(r"\bSome\(([^()]*)\)", r"\1", text)  # the names in it are those of the receipt's fields
    text = _in_flags(text)
    for keyword, flag in _flags(parser).items() if parser else ():
        # A keyword with "_" is no English word: it is told wherever it stands by itself. Others only as the subject.
        # In a file of requests the names are JSON keys; such a message begins with the file's name.
        anywhere = keyword in _KEYWORDS.values()
        text = re.sub(
            rf"(?<![\w.'\"-]){keyword}\b(?!['\"])" if anywhere else rf"^{keyword}(?= is | must |: )", flag, text
        )
    return text


def in_flags(text: str) -> str:
    """A message of the package as one line, with options of the command line in place of Python's."""
    return escape_line(_in_flags(text))


def _in_flags(text: str) -> str:
    """The same with what strangers wrote in it."""
    for pattern, phrase in _PHRASES:
        text = re.sub(pattern, phrase, text)
    return text


def _flags(parser: argparse.ArgumentParser) -> dict[str, str]:
    """The flag of each keyword that an option of the command sets."""
    named = [action for action in parser._actions if action.option_strings and action.help != argparse.SUPPRESS]
    return {_KEYWORDS.get(action.dest, action.dest): _long(action) for action in named}


def _long(action: argparse.Action) -> str:
    """The first long spelling of an option."""
    return next((text for text in action.option_strings if text.startswith("--")), action.option_strings[0])


def _of_system(error: OSError) -> str:
    """The file and the reason. Python's own text has an error number and the path as Python writes it."""
    reason = re.sub(r" \(os error \d+\)", "", error.strerror or str(error))
    named = isinstance(error.filename, (str, bytes, os.PathLike))
    return f"{os.fsdecode(error.filename)}: {reason}" if named else reason
