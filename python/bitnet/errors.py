"""The exceptions and warnings of this package. Each message says what was found, what was expected and what to do."""


class BitnetError(Exception):
    """Base class of every error that this package raises itself."""


class ModelNotFoundError(BitnetError, FileNotFoundError):
    """There is no model file at this path, or no model of this name on the hub."""


class ModelFileError(BitnetError, ValueError):
    """The file is not a GGUF file, or it is damaged."""


class UnsupportedModelError(BitnetError, ValueError):
    """The file is valid, but has an architecture, a tensor type or a feature that this engine does not support."""


class ModelError(BitnetError, ValueError):
    """The model's tensors and metadata contradict each other or the architecture, or hold impossible values."""


class TemplateError(BitnetError, ValueError):
    """A chat template is invalid, or it refuses a conversation. The message gives the line in the template."""


class ReceiptError(BitnetError, ValueError):
    """A receipt is not valid, or it cannot be replayed here. The message names the check ("gate") that failed."""


class ArgumentError(BitnetError, ValueError):
    """An argument is outside its range."""


class ContextLengthError(BitnetError, ValueError):
    """More tokens than the context holds. The message gives both numbers."""


class TokenIdError(BitnetError, ValueError):
    """A token id outside the vocabulary. The message gives the id and its position."""


class OutOfMemoryError(BitnetError, MemoryError):
    """The memory for a call could not be allocated. Nothing was changed."""


class ClosedError(BitnetError, RuntimeError):
    """The engine was closed before the call."""


class BitnetWarning(UserWarning):
    """Something works, but probably not as intended, such as a model whose weights look wrong.

    `warnings.filterwarnings("ignore", category=bitnet.BitnetWarning)` turns all of them off, "error" raises them.
    """
