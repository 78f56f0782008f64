"""The errors of this package. Each message says what was found, what was expected and what to do."""


class BitnetError(Exception):
    """Base of every error that this package raises by itself."""


class ModelNotFoundError(BitnetError, FileNotFoundError):
    """The model's path does not exist."""


class ModelFileError(BitnetError, ValueError):
    """The file is not a GGUF file, or a broken one."""


class UnsupportedModelError(BitnetError, ValueError):
    """A sound file with an architecture, a tensor type or a feature that this engine does not run."""


class ModelError(BitnetError, ValueError):
    """Tensors and metadata contradict each other or the architecture, or hold values that cannot be."""


class TemplateError(BitnetError, ValueError):
    """A chat template that cannot be used, or that refuses a conversation; the message gives the template's line."""


class ReceiptError(BitnetError, ValueError):
    """A receipt whose figures do not agree, or that cannot be replayed here; the message names the gate that failed."""


class ArgumentError(BitnetError, ValueError):
    """An argument outside its range."""


class ContextLengthError(BitnetError, ValueError):
    """More positions than the context holds; the message gives both numbers."""


class TokenIdError(BitnetError, ValueError):
    """A token id outside the vocabulary; the message gives the id and its position."""


class OutOfMemoryError(BitnetError, MemoryError):
    """The machine does not give the memory that the call needs; nothing was changed."""


class ClosedError(BitnetError, RuntimeError):
    """The engine was closed before the call."""
