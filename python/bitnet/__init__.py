"""Ternary (BitNet, 1.58-bit) language models on an ordinary processor: exact and fast.

>>> import bitnet
>>> engine = bitnet.Engine("ggml-model-i2_s.gguf")  # doctest: +SKIP
>>> engine.logits([1, 2, 3]).shape  # doctest: +SKIP
(3, 128256)
"""

from ._core import (
    ChatSession,
    ChatTurn,
    Completion,
    Engine,
    Logprob,
    Piece,
    Prefill,
    Receipt,
    SamplingParams,
    Scores,
    Span,
    Stream,
    Template,
    Tokenizer,
    __version__,
    dot_peak,
    inspect,
    isas,
    processor,
    read_bandwidth,
)
from .errors import (
    ArgumentError,
    BitnetError,
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
from .receipts import receipt_schema

__all__ = [
    "ArgumentError",
    "BitnetError",
    "ChatSession",
    "ChatTurn",
    "ClosedError",
    "Completion",
    "ContextLengthError",
    "Engine",
    "Logprob",
    "ModelError",
    "ModelFileError",
    "ModelNotFoundError",
    "OutOfMemoryError",
    "Piece",
    "Prefill",
    "Receipt",
    "ReceiptError",
    "SamplingParams",
    "Scores",
    "Span",
    "Stream",
    "Template",
    "TemplateError",
    "TokenIdError",
    "Tokenizer",
    "UnsupportedModelError",
    "__version__",
    "dot_peak",
    "inspect",
    "isas",
    "processor",
    "read_bandwidth",
    "receipt_schema",
]
