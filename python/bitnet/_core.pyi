"""The compiled half of the package."""

import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, TypeAlias, final

import numpy as np
import numpy.typing as npt

_TokenIds: TypeAlias = Sequence[int] | npt.NDArray[np.integer[Any]]

__all__ = ["Engine", "Prefill", "__version__", "inspect", "isas", "processor", "read_bandwidth"]

__version__: str

@final
class Prefill:
    """What `Engine.prefill` did."""

    @property
    def tokens(self) -> int:
        """Positions of the prompt."""
    @property
    def cached_tokens(self) -> int:
        """Of these, positions that the cache held already."""
    @property
    def seconds(self) -> float:
        """Seconds spent computing the others."""
    @property
    def tokens_per_second(self) -> float:
        """Computed positions a second; 0 if none was computed."""

@final
class Engine:
    """An open model with its threads; immutable, and shared by any number of Python threads.

    path: a GGUF file, or the first file of a split model. It is mapped into memory and must not change meanwhile.
    n_ctx: positions that one sequence may have (default: the model's, at most 4096).
    n_threads: threads that compute (default: all processors that this process may use).
    isa: one of `bitnet.isas()` (default: the environment variable BITNET_ISA, else the best). The logits do not depend
        on it.
    kv_type: how keys and values are stored, "f16" or "f32".
    act_quant: "auto" (per-token int8 activations if every projection is ternary with one scale, as BitNet models were
        trained), "int8" or "none".
    ffn_act: "silu" or "relu2" (default: by architecture; `bitnet inspect` shows it).
    n_batch: positions that one forward pass takes at most (default 128). The logits do not depend on it.

    Raises ModelNotFoundError, ModelFileError, UnsupportedModelError, ModelError, ArgumentError, or OSError.
    """

    def __new__(
        cls,
        path: str | os.PathLike[str],
        *,
        n_ctx: int | None = None,
        n_threads: int | None = None,
        isa: str | None = None,
        kv_type: Literal["f16", "f32"] = "f16",
        act_quant: Literal["auto", "int8", "none"] = "auto",
        ffn_act: Literal["silu", "relu2"] | None = None,
        n_batch: int | None = None,
    ) -> Engine: ...
    def logits(self, ids: _TokenIds) -> npt.NDArray[np.float32]:
        """Logits after every id: float32 of shape [len(ids), n_vocab]. The warm cache is neither used nor changed.

        Raises TokenIdError, ContextLengthError, TypeError, ClosedError; KeyboardInterrupt on Ctrl-C.
        """
    def logits_batch(self, sequences: Sequence[_TokenIds]) -> list[npt.NDArray[np.float32]]:
        """`logits` of several sequences at once, which share every forward pass. The bits are those of `logits`."""
    def prefill(self, ids: _TokenIds) -> Prefill:
        """Compute a prompt and keep its keys and values warm; the cache then holds exactly these positions.

        Only what follows the longest common prefix with the warm cache is computed. After an error the cache is as it
        was; after Ctrl-C it holds the common prefix. Raises as `logits`.
        """
    def generate_tokens(
        self, ids: _TokenIds, max_tokens: int | None = None, stop_token_ids: _TokenIds | None = None
    ) -> list[int]:
        """Continue a prompt greedily and return the new ids; of equal logits the lowest id wins.

        Ends after max_tokens, before a stop id, or when the context is full. Uses and keeps the warm cache.
        Raises as `logits`, and ArgumentError for an empty prompt.
        """
    @property
    def cached_tokens(self) -> int:
        """Positions that the warm cache holds."""
    @property
    def memory(self) -> dict[str, int]:
        """Bytes: packed_weights (in memory of the engine's own), mapped_weights (read where they lie in the file),
        kv_cache (the warm cache), file."""
    @property
    def path(self) -> Path:
        """The model's path as given."""
    @property
    def arch(self) -> str:
        """The file's `general.architecture`."""
    @property
    def n_vocab(self) -> int:
        """Size of the vocabulary."""
    @property
    def n_ctx(self) -> int:
        """Positions that one sequence may have."""
    @property
    def n_threads(self) -> int:
        """Threads that compute."""
    @property
    def n_batch(self) -> int:
        """Positions that one forward pass takes at most."""
    @property
    def isa(self) -> str:
        """The instruction set in use."""
    @property
    def kv_type(self) -> str:
        """How keys and values are stored: "f16" or "f32"."""
    @property
    def act_quant(self) -> str:
        """What the projections' inputs are rounded to: "int8" or "none"."""
    @property
    def ffn_act(self) -> str:
        """The feed-forward network's activation: "silu" or "relu2"."""
    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
    def close(self) -> None:
        """Release the model. Calls under way in other threads finish first; later ones raise ClosedError."""
    def __enter__(self) -> Engine: ...
    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None, /
    ) -> None: ...

def isas() -> list[str]:
    """The instruction sets of this processor that the engine has kernels for, best last."""

def inspect(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Everything about a model file that can be said without running it.

    Keys: path, version, file_size (bytes), arch, config, activation, act_quant, act_quant_reason, metadata (list of
    key, type, value), tensors (list of name, type, shape, bytes), types (type -> tensors, bytes), warnings.
    Raises as `Engine`.
    """

def processor() -> dict[str, Any]:
    """The processor: name, cores (that this process may use), isas, target."""

def read_bandwidth(n_threads: int, megabytes: int = 512) -> float:
    """Gigabytes (1e9 bytes) a second that n_threads threads read from memory: the best of three passes."""
