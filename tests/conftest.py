"""Shared ground of the Python tests: the model maker on the path, and models made once per run."""

from __future__ import annotations

import hashlib
import os
import signal
import sys
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import bitnet
from bitnet._synthetic import Spec, make_model

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from text_model import make_text_model  # noqa: E402

# A shell's background job inherits an ignored SIGINT, and so would the processes that the Ctrl-C tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

ModelMaker = Callable[[Spec], Path]


def likelihoods(answer: Any) -> list[float]:
    """Of its ids. The ids of a small random model may be the same after another prompt; these are not."""
    return [choice.logprob for choice in answer.logprobs]


def message_of(kind: type[Exception], call: Callable[..., object], *args: Any, **kwargs: Any) -> str:
    """The message of the exception that the call raises, which must be of exactly this class."""
    with pytest.raises(kind) as caught:
        call(*args, **kwargs)
    assert caught.type is kind, f"{caught.type.__name__}: {caught.value}"
    return str(caught.value)


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> ModelMaker:
    """`model(spec)` gives the path of that model; it is made once, whichever worker asks first."""
    # Workers of pytest-xdist have neighbouring base folders: their parent is shared by all of one run.
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base) / "models"
    folder.mkdir(exist_ok=True)

    def make(spec: Spec) -> Path:
        path = folder / f"{hashlib.sha256(repr(spec).encode()).hexdigest()[:16]}.gguf"
        if not path.exists():
            unfinished = path.with_suffix(f".{os.getpid()}")
            make_model(unfinished, spec)
            unfinished.replace(path)
        return path

    return make


@pytest.fixture(scope="session")
def text_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small random model with a vocabulary; see `text_model.py`."""
    path = tmp_path_factory.mktemp("text") / "model.gguf"
    make_text_model(path)
    return path


@pytest.fixture
def engine(text_model: Path) -> Iterator[Any]:
    """The text model, open."""
    with bitnet.Engine(text_model, n_threads=2) as engine:
        yield engine


_COLD: weakref.WeakKeyDictionary[Any, Any] = weakref.WeakKeyDictionary()


def fresh(chat: Any) -> Any:
    """The same conversation on an engine without a prefix cache, with nothing computed."""
    engine = chat.engine
    if engine not in _COLD:
        _COLD[engine] = bitnet.Engine(engine.path, n_ctx=engine.n_ctx, n_threads=1, cache_bytes=0)
    return bitnet.ChatSession.from_json(_COLD[engine], chat.to_json())
