"""Ternary (BitNet, 1.58-bit) language models on an ordinary processor: exact and fast.

>>> import bitnet
>>> engine = bitnet.Engine()  # the small model inside the package; bitnet.Engine("model.gguf") opens another
>>> chat = bitnet.ChatSession(engine)
>>> reply = chat.send("What is 2+2?")
>>> reply.text
'2+2=4.'
>>> engine.replay(reply.receipt)
True
"""

from . import batch, plot
from ._core import (
    ChatSession,
    ChatTurn,
    Completion,
    Engine,
    LayerTrace,
    Logprob,
    Piece,
    Prefill,
    ProjectionTrace,
    Receipt,
    SamplingParams,
    Scores,
    Span,
    Stream,
    Template,
    Tensor,
    Tokenizer,
    Trace,
    __version__,
    check_packed,
    dot_peak,
    inspect,
    isas,
    look_up_peak,
    pack,
    processor,
    read_bandwidth,
)
from ._receipts import receipt_schema
from .errors import (
    ArgumentError,
    BitnetError,
    BitnetWarning,
    ClosedError,
    ContextLengthError,
    ModelError,
    ModelFileError,
    ModelNotFoundError,
    OutOfMemoryError,
    ReceiptError,
    TemplateError,
    TokenIdError,
    UnsupportedModelError,
)

__all__ = [
    "ArgumentError",
    "BitnetError",
    "BitnetWarning",
    "ChatSession",
    "ChatTurn",
    "ClosedError",
    "Completion",
    "ContextLengthError",
    "Engine",
    "LayerTrace",
    "Logprob",
    "ModelError",
    "ModelFileError",
    "ModelNotFoundError",
    "OutOfMemoryError",
    "Piece",
    "Prefill",
    "ProjectionTrace",
    "Receipt",
    "ReceiptError",
    "SamplingParams",
    "Scores",
    "Span",
    "Stream",
    "Template",
    "TemplateError",
    "Tensor",
    "TokenIdError",
    "Tokenizer",
    "Trace",
    "UnsupportedModelError",
    "__version__",
    "batch",
    "check_packed",
    "dot_peak",
    "inspect",
    "isas",
    "look_up_peak",
    "pack",
    "plot",
    "processor",
    "read_bandwidth",
    "receipt_schema",
]


def __getattr__(name: str) -> object:
    """Say what to import in place of a name of another library."""
    import sys

    from ._hints import module_attribute

    # `from bitnet import NAME` replaces an AttributeError by an error of its own.
    imported = sys._getframe(1).f_globals.get("__name__") == "importlib._bootstrap"
    hint = module_attribute(name)
    raise ImportError(hint, name=__name__) if imported and ";" in hint else AttributeError(hint)
