"""The compiled half of the package."""

from __future__ import annotations  # for pdoc, which runs this file

import os
from collections.abc import Coroutine, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, TypeAlias, TypedDict, final, overload

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from typing_extensions import Unpack

_Path: TypeAlias = str | bytes | os.PathLike[str] | os.PathLike[bytes]
_TokenIds: TypeAlias = Sequence[int] | npt.NDArray[np.integer[Any]]
_Prompts: TypeAlias = list[str] | list[list[int]] | list[npt.NDArray[np.integer[Any]]] | list[str | list[int]]

__all__ = [
    "ChatSession",
    "ChatTurn",
    "Completion",
    "Engine",
    "Logprob",
    "Piece",
    "Prefill",
    "Receipt",
    "SamplingParams",
    "Scores",
    "Span",
    "Stream",
    "Template",
    "Tokenizer",
    "__version__",
    "dot_peak",
    "inspect",
    "isas",
    "processor",
    "read_bandwidth",
]

__version__: str

class _Options(TypedDict, total=False):
    n_ctx: int | None
    n_threads: int | None
    isa: str | None
    kv_type: Literal["f16", "f32"]
    act_quant: Literal["auto", "int8", "none"]
    ffn_act: Literal["silu", "relu2"] | None
    n_batch: int | None
    lm_head: Literal["auto", "exact"]

class _Sampling(TypedDict, total=False):
    temperature: float
    top_k: int
    top_p: float
    min_p: float
    repetition_penalty: float
    repeat_last_n: int
    presence_penalty: float
    frequency_penalty: float
    logit_bias: dict[int, float]
    seed: int | None
    max_tokens: int | None
    stop: str | Sequence[str] | None
    stop_token_ids: _TokenIds
    ignore_eos: bool
    logprobs: int | None

@final
class SamplingParams:
    """How to choose the next id. All of it can be given as flat keywords too, wherever something is sampled; beside
    `params`, keywords change some of them.

    Order: logit_bias, repetition, presence and frequency penalties, (temperature 0: the largest, of equals the lowest
    id), temperature, top_k, top_p, min_p, draw. Draw number i depends on (seed, i) alone.

    temperature: divides the logits (default 0: greedy).
    top_k: candidates by rank (default 0: all).
    top_p: the fewest candidates whose probabilities reach it (default 1: all).
    min_p: candidates at least as probable as this share of the best (default 0: all).
    repetition_penalty: divides positive and multiplies negative logits of the last repeat_last_n ids (default 64), the
        prompt's included (default 1: none).
    presence_penalty, frequency_penalty: subtracted from the logits of generated ids, once, and once for each time
        (default 0).
    logit_bias: id -> what is added; ids above the vocabulary's are left out.
    seed: of the draws, 0 to 2**64 - 1 (default None: chosen for each answer, and recorded).
    max_tokens: ids at most (default None: up to a stop or the end of the context).
    stop: a text or texts that end the answer and are never shown.
    stop_token_ids: ids that end it, besides the model's own.
    ignore_eos: the model's own do not end it.
    logprobs: how many of the best ids to report with each token (default None: none, and no log-probability).

    Raises ArgumentError outside a range, TypeError for an unknown name.

    >>> from bitnet import SamplingParams
    >>> params = SamplingParams(temperature=0.5, top_p=0.95, seed=1)
    >>> params.temperature, params.top_k, params.seed
    (0.5, 0, 1)
    """

    def __new__(
        cls,
        *,
        temperature: float = 0.0,
        top_k: int = 0,
        top_p: float = 1.0,
        min_p: float = 0.0,
        repetition_penalty: float = 1.0,
        repeat_last_n: int = 64,
        presence_penalty: float = 0.0,
        frequency_penalty: float = 0.0,
        logit_bias: dict[int, float] = {},
        seed: int | None = None,
        max_tokens: int | None = None,
        stop: str | Sequence[str] | None = (),
        stop_token_ids: _TokenIds = (),
        ignore_eos: bool = False,
        logprobs: int | None = None,
    ) -> SamplingParams: ...
    @property
    def temperature(self) -> float:
        """What the logits are divided by; 0: the largest is taken."""
    @property
    def top_k(self) -> int:
        """How many candidates stay, by rank; 0: all."""
    @property
    def top_p(self) -> float:
        """The probability that the candidates reach together; 1: all stay."""
    @property
    def min_p(self) -> float:
        """The least probability of a candidate, as a share of the best one's; 0: all stay."""
    @property
    def repetition_penalty(self) -> float:
        """Divides positive and multiplies negative logits of the last `repeat_last_n` ids; 1: none."""
    @property
    def repeat_last_n(self) -> int:
        """How many ids the repetition penalty looks back on."""
    @property
    def presence_penalty(self) -> float:
        """Subtracted from the logit of each id that was generated."""
    @property
    def frequency_penalty(self) -> float:
        """Subtracted from the logit of an id for each time that it was generated."""
    @property
    def logit_bias(self) -> dict[int, float]:
        """Added to the logits, by id."""
    @property
    def seed(self) -> int | None:
        """Of the draws; None: chosen for each answer, and recorded in its receipt."""
    @property
    def max_tokens(self) -> int | None:
        """How many ids at most; None: up to a stop or the end of the context."""
    @property
    def stop(self) -> list[str]:
        """Texts that end an answer and are never shown."""
    @property
    def stop_token_ids(self) -> list[int]:
        """Ids that end an answer, besides the model's own."""
    @property
    def ignore_eos(self) -> bool:
        """Whether the model's own stop ids do not end an answer."""
    @property
    def logprobs(self) -> int | None:
        """How many of the best ids are reported with each token; None: none, and no log-probability."""
    def __eq__(self, other: object, /) -> bool: ...
    def __ne__(self, other: object, /) -> bool: ...

@final
class Tokenizer:
    """A model's vocabulary with its rules, from a GGUF file, of which no weights are read, or from a `tokenizer.json`.

    A GGUF file without a tokenizer takes the `tokenizer.json` beside it. Beside a `tokenizer.json`, the files
    `tokenizer_config.json` and `generation_config.json` name the tokens that begin and end a text.
    pre: overrides the pre-tokenizer that a GGUF file names. Raises as `Engine`.

    >>> from bitnet import Tokenizer, models
    >>> tokenizer = Tokenizer(models.inside())
    >>> tokenizer.decode(tokenizer.encode("Hello, world!"))
    'Hello, world!'
    >>> tokenizer.decode(tokenizer.encode("a<|eot_id|>"))  # plain text, not the control token
    'a<|eot_id|>'
    >>> tokenizer.decode(tokenizer.encode("a<|eot_id|>", parse_special=True))
    'a'
    """

    def __new__(cls, path: _Path, *, pre: str | None = None) -> Tokenizer: ...
    def encode(self, text: str, add_bos: bool = False, parse_special: bool = False) -> list[int]:
        """Ids of a text. Control tokens are recognised in it only if parse_special: leave it off for users' texts."""
    def decode(self, ids: _TokenIds, skip_special_tokens: bool = True) -> str:
        """Text of ids; bytes that are no UTF-8 become U+FFFD, ids outside the vocabulary nothing."""
    def id_to_token(self, id: int) -> str | None:
        """A token as the file spells it."""
    def token_to_id(self, token: str) -> int | None:
        """The id of a token as the file spells it."""
    @property
    def vocab_size(self) -> int:
        """How many ids there are."""
    @property
    def bos_token_id(self) -> int | None:
        """The token that begins a text."""
    @property
    def eos_token_id(self) -> int | None:
        """The token that ends a text."""
    @property
    def add_bos(self) -> bool:
        """Whether the model expects BOS in front."""
    @property
    def stop_token_ids(self) -> list[int]:
        """The ids that end an answer."""
    @property
    def pre(self) -> str:
        """The pre-tokenizer."""

@final
class Logprob:
    """An id with its log-probability."""

    @property
    def id(self) -> int:
        """The id."""
    @property
    def text(self) -> str:
        """Its text."""
    @property
    def logprob(self) -> float:
        """Natural logarithm of its probability before any sampling parameter."""

@final
class Piece:
    """A piece of an answer."""

    @property
    def text(self) -> str:
        """The characters that have become certain; may be empty. All pieces together are the answer's text."""
    @property
    def token_id(self) -> int | None:
        """The id; None in the last piece if a stop id ended the answer."""
    @property
    def logprob(self) -> Logprob | None:
        """The id's log-probability, if asked for."""
    @property
    def top_logprobs(self) -> list[Logprob] | None:
        """The best ids, best first, if asked for."""
    @property
    def finish_reason(self) -> str | None:
        """In the last piece: "stop", "length" or "context"."""

@final
class Completion:
    """A whole answer."""

    @property
    def text(self) -> str:
        """Its text."""
    @property
    def token_ids(self) -> list[int]:
        """Its ids, without a stop id."""
    @property
    def finish_reason(self) -> str | None:
        """Why it ended: "stop", "length" or "context"."""
    @property
    def prompt_tokens(self) -> int:
        """Positions of the prompt."""
    @property
    def cached_tokens(self) -> int:
        """Of these, positions that the cache held already."""
    @property
    def completion_tokens(self) -> int:
        """Ids that were sampled, a stop id included."""
    @property
    def seed(self) -> int:
        """The seed of its draws."""
    @property
    def ttft(self) -> float:
        """Seconds to the first id, computing the prompt included."""
    @property
    def decode_seconds(self) -> float:
        """Seconds for all later ids."""
    @property
    def logprobs(self) -> list[Logprob] | None:
        """For each id its log-probability, if asked for."""
    @property
    def top_logprobs(self) -> list[list[Logprob]] | None:
        """For each id the best ones of its place, best first, if asked for."""
    @property
    def receipt(self) -> Receipt | None:
        """What was computed and how."""

@final
class Receipt:
    """What an answer claims, and how it was run: schema 1.0.0 with the blocks "claim" and "run".

    The claim names everything that decides the answer (model, settings, prompt ids, sampling with the seed in effect,
    ids) and is hashed into `digest`, which is the same on every processor and number of threads. The run tells how:
    kernels with the rows and the time that they counted, threads, seconds of each part. The digest finds accidents;
    `Engine.replay` finds forgery. docs/receipts.md describes it, `bitnet.receipt_schema` is its JSON Schema.

    >>> from bitnet import Engine, Receipt
    >>> engine = Engine()
    >>> receipt = engine.generate("2+2=", max_tokens=4).receipt
    >>> receipt.validate()
    >>> Receipt.from_json(receipt.to_json()) == receipt
    True
    >>> receipt.redact().digest == receipt.digest
    True
    >>> engine.replay(receipt)
    True
    """

    @staticmethod
    def load(path: str | os.PathLike[str]) -> Receipt:
        """Read a file that `save` wrote. Raises OSError, or ReceiptError (gate "form") if it is no receipt."""
    @staticmethod
    def from_json(text: str) -> Receipt:
        """Read a document. Raises ReceiptError (gate "form") if it is no receipt."""
    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the document, which appears as a whole or not at all; make missing folders. Returns the path."""
    def validate(self) -> None:
        """Recompute every sum and every derived field. Raises ReceiptError that names the first gate that fails."""
    def redact(self) -> Receipt:
        """A copy with the number and the BLAKE3 of prompt ids, output ids, system prompt and stop texts in their place.

        Its digest is the same, it validates, and who has the prompt can replay it. Whoever guesses what was left out
        can prove the guess by the hash.
        """
    def to_json(self) -> str:
        """The document as indented JSON text."""
    def to_dict(self) -> dict[str, Any]:
        """The document."""
    def plot(self) -> Figure:
        """The picture of `bitnet.plot.timeline` for this answer alone. Raises ImportError without matplotlib."""
    def with_test_results(self, *, total_tests: int, passed: int, failed: int = 0, skipped: int = 0) -> Receipt:
        """A copy with the results of tests that were run on the answer."""
    @property
    def digest(self) -> str:
        """BLAKE3 of the redacted claim's JSON (UTF-8, keys sorted, no spaces), in hexadecimal.

        The claim holds the BLAKE3 of the model's file: the first digest of an engine reads the whole file.
        """
    @property
    def timestamp(self) -> str:
        """When the answer ended, in UTC (RFC 3339)."""
    @property
    def prompt_tokens(self) -> int:
        """Positions of the prompt."""
    @property
    def cached_tokens(self) -> int:
        """Of these, positions that the cache held already."""
    @property
    def computed_tokens(self) -> int:
        """Positions that were computed: the rest of the prompt, and all sampled ids but the last."""
    @property
    def completion_tokens(self) -> int:
        """Ids that were sampled, a stop id included."""
    @property
    def finish_reason(self) -> str:
        """Why the answer ended: "stop", "length", "context" or "cancelled"."""
    @property
    def kernels(self) -> list[str]:
        """The kernels that counted rows, each with its instruction set."""
    @property
    def seconds(self) -> dict[str, float]:
        """Seconds inside the engine: render, tokenize, prefill, first_token, decode, sample, detokenize, wall.

        `first_token` is everything up to the first id, `wall` everything. `consumer` is what the consumer of a stream
        spent between pulls; it is in none of the others.
        """
    def __eq__(self, other: object, /) -> bool: ...
    def _repr_html_(self) -> str: ...
    def _repr_mimebundle_(self, **_options: Any) -> dict[str, str]: ...

@final
class Stream:
    """An answer under way: an iterator of `Piece`, for `for` and for asyncio's `async for`.

    Pulled: nothing is computed ahead of its consumer, nothing after it is dropped. It has one consumer: a pull while
    another thread or task is pulling raises ArgumentError. Others may look on meanwhile, at the answer as it was after
    the last step, and cancel it. After Ctrl-C, or once a task that pulled was cancelled, it can be pulled on: the step
    under way is abandoned, and was before the task ends.
    """

    def __iter__(self) -> Stream: ...
    def __next__(self) -> Piece: ...
    def __aiter__(self) -> Stream: ...
    def __anext__(self) -> Coroutine[Any, Any, Piece]: ...
    def cancel(self) -> None:
        """End the answer, from any thread: the step under way is abandoned, and its consumer finds the end. The
        finish_reason becomes "cancelled" if there was none."""
    def aclose(self) -> Coroutine[Any, Any, None]:
        """`cancel` for asyncio, as `contextlib.aclosing` awaits it."""
    @property
    def text(self) -> str:
        """The text so far."""
    @property
    def token_ids(self) -> list[int]:
        """The ids so far, without a stop id."""
    @property
    def finish_reason(self) -> str | None:
        """Why it ended: "stop", "length", "context", "cancelled"; None while it goes on."""
    @property
    def prompt_tokens(self) -> int:
        """Positions of the prompt."""
    @property
    def cached_tokens(self) -> int:
        """Of these, positions that the cache held already."""
    @property
    def completion_tokens(self) -> int:
        """Ids sampled so far, a stop id included."""
    @property
    def seed(self) -> int:
        """The seed of its draws."""
    @property
    def receipt(self) -> Receipt | None:
        """What was computed and how; None while it goes on, or if it ended before its first id."""

@final
class ChatTurn:
    """One turn of a conversation: role ("system", "user" or "assistant"), text, and whether its user stopped it.

    Raises ArgumentError for another role.
    """

    def __new__(cls, role: str, text: str, cancelled: bool = False) -> ChatTurn: ...
    @property
    def role(self) -> str:
        """Who speaks, in lower case."""
    @property
    def text(self) -> str:
        """What is said."""
    @property
    def cancelled(self) -> bool:
        """Whether it is an answer that its user stopped."""
    def __eq__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...

_Message: TypeAlias = ChatTurn | dict[str, Any]

@final
class Span:
    """A stretch of a prompt: see `Template.spans`."""

    @property
    def text(self) -> str:
        """Its text."""
    @property
    def role(self) -> str | None:
        """The role of the message that it stands in; None if the template wrote it."""
    @property
    def message(self) -> int | None:
        """The position of that message."""
    @property
    def start(self) -> int:
        """Where it begins, in bytes of the prompt's UTF-8."""
    @property
    def end(self) -> int:
        """Where it ends."""
    @property
    def rewritten(self) -> bool:
        """Whether the template changed the message's text, other than by trimming it."""
    @property
    def token_ids(self) -> list[int] | None:
        """The tokens that begin in it; None without a tokenizer, and where its tokens do not spell the prompt.

        A token that the tokenizer puts in front (BOS) has an empty span.
        """
    def __eq__(self, other: object, /) -> bool: ...
    def __ne__(self, other: object, /) -> bool: ...

@final
class Template:
    """What turns a conversation into a prompt: a Jinja source, rendered as transformers' `apply_chat_template` does.

    A template is a stranger's program: it runs with a limit on steps and on output. What goes wrong is a
    TemplateError with the line.

    >>> from bitnet import Template
    >>> template = Template.named("bitnet")
    >>> template.render([{"role": "user", "content": "Hi"}])
    'User: Hi<|eot_id|>Assistant: '
    >>> [(span.role, span.text) for span in template.spans([{"role": "user", "content": "Hi"}])]
    [(None, 'User: '), ('user', 'Hi'), (None, '<|eot_id|>Assistant: ')]
    """

    @staticmethod
    def from_jinja(source: str, bos_token: str | None = None, eos_token: str | None = None) -> Template:
        """A template from its source; the tokens are what the source knows as `bos_token` and `eos_token`."""
    @staticmethod
    def named(name: str, bos_token: str | None = None, eos_token: str | None = None) -> Template:
        """A built-in template: "raw", "instruct", "llama3-chat" or "bitnet" (that of BitNet b1.58 2B-4T). Prompts of
        "llama3-chat" begin with bos_token, which has to be given for it."""
    @staticmethod
    def detect(
        jinja: str | None = None,
        tokenizer_name: str | None = None,
        bos_token: str | None = None,
        eos_token: str | None = None,
    ) -> Template:
        """The template of a model: its file's Jinja source, else what the name of its tokenizer or model suggests,
        else "raw". See `origin` and `warning`. Of a path only the last part counts as a name."""
    @staticmethod
    def from_model(path: str | os.PathLike[str]) -> Template:
        """The template of a model file, which is not opened otherwise."""
    def render(
        self,
        messages: Sequence[_Message],
        tools: Sequence[dict[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        **variables: Any,
    ) -> str:
        """The prompt of a conversation. Dicts reach the template untouched; other keywords become variables."""
    def spans(
        self,
        messages: Sequence[_Message],
        tools: Sequence[dict[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        *,
        tokenizer: Tokenizer | None = None,
        **variables: Any,
    ) -> list[Span]:
        """What `render` gives in stretches, in order: who wrote each, and with a tokenizer its tokens.

        A picture for people, as good as can be: the texts of messages are followed through the template. Of one that a
        template looks at or takes apart nothing may be found; then it counts as the template's. Tools do always.
        """
    def render_chat(self, history: Sequence[ChatTurn], system: str | None = None) -> str:
        """`render` of turns that wait for an answer, with a system prompt before them."""
    def apply(self, user: str, system: str | None = None) -> str:
        """`render_chat` of a single question."""
    def at(self, now: str) -> Template:
        """The same template with its clock stopped at this local time, such as "2026-07-04T12:00:00"."""
    @property
    def name(self) -> str:
        """The built-in template that it is, or "jinja"."""
    @property
    def source(self) -> str:
        """The Jinja source."""
    @property
    def origin(self) -> str:
        """Where it came from: "argument", "gguf", "tokenizer" or "fallback"."""
    @property
    def warning(self) -> str | None:
        """What its user should know, if anything."""
    @property
    def bos_token(self) -> str | None:
        """What the source knows under this name."""
    @property
    def eos_token(self) -> str | None:
        """What the source knows under this name."""
    @property
    def stop_sequences(self) -> list[str]:
        """Texts that end the assistant's turn."""
    @property
    def add_bos(self) -> bool:
        """Whether a BOS token has to be put in front of its prompts, because it does not write one itself."""
    def __eq__(self, other: object, /) -> bool: ...
    def _repr_html_(self) -> str: ...
    def _repr_mimebundle_(self, **_options: Any) -> dict[str, str]: ...

@final
class ChatSession:
    """A conversation: its turns, its computed prefix, its receipts. An engine may have any number of them.

    template: a Template or the name of a built-in one (None: the engine's). Sampling parameters, as `params` or flat
    keywords, hold for every answer; those given to `send` or `stream` change them for one.

    The next prompt computes only what follows the longest common prefix with what the cache holds. When the context is
    full, whole exchanges leave the prompt, the oldest first, down to three quarters of it; the history keeps all.

    >>> from bitnet import ChatSession, Engine
    >>> chat = ChatSession(Engine(), max_tokens=32)
    >>> chat.send("What is 2+2?").text
    '2+2=4.'
    >>> chat.send("What is 3+3?").cached_tokens > 0  # the first exchange is not computed again
    True
    >>> [turn.role for turn in chat.history]
    ['user', 'assistant', 'user', 'assistant']
    """

    def __new__(
        cls,
        engine: Engine,
        system: str | None = None,
        *,
        template: Template | str | None = None,
        params: SamplingParams | None = None,
        **keywords: Unpack[_Sampling],
    ) -> ChatSession: ...
    def stream(self, text: str, params: SamplingParams | None = None, **keywords: Unpack[_Sampling]) -> Stream:
        """Begin to answer. The exchange enters the history when the answer ends; one that is cancelled or dropped after
        its first token enters as it is, marked. Raises ArgumentError while another answer is under way."""
    def send(self, text: str, params: SamplingParams | None = None, **keywords: Unpack[_Sampling]) -> Completion:
        """The whole answer."""
    def asend(
        self, text: str, params: SamplingParams | None = None, **keywords: Unpack[_Sampling]
    ) -> Coroutine[Any, Any, Completion]:
        """`send` for asyncio: awaited beside the event loop. A task that is cancelled cancels the answer."""
    def clear(self) -> None:
        """Forget turns, receipts and the computed prefix; system prompt, template and parameters stay."""
    def fork(self) -> ChatSession:
        """A conversation of its own that goes on from here, with the same turns, receipts and parameters.

        Both share what is computed until they diverge. Raises ArgumentError while an answer is under way.
        """
    def rewind(self, n: int) -> None:
        """Take back the last n exchanges, with their receipts, so that the metrics are the sums of those that stay.

        Turns that have left the prompt stay out of it, unless none would be in it. Raises ArgumentError if there are
        not so many, or while an answer is under way.
        """
    def to_json(self) -> str:
        """System prompt, template, turns and parameters as JSON text; receipts have files of their own."""
    @staticmethod
    def from_json(engine: Engine, text: str, *, template: Template | None = None) -> ChatSession:
        """The conversation of such a text, which goes on with the next prompt that the saved one would have had.

        template: in place of the saved one, whose stopped clock would run again.
        Raises ArgumentError if it is none, TemplateError for its template.
        """
    def save(self, path: str | os.PathLike[str], *, cache: bool = False) -> Path:
        """Write `to_json` into a file, which appears as a whole or not at all; make missing folders. Returns the path.

        cache: append what is computed (`per_token["kv_bytes"]` of the engine for each position) with its hash and the
        fingerprint of the model, for which the whole model file is read.
        """
    @staticmethod
    def load(engine: Engine, path: str | os.PathLike[str], *, cache: bool = True) -> ChatSession:
        """Read a file that `save` wrote. A saved cache is used again, for the same answers as without it.

        Raises as `from_json`, and ArgumentError if the cache is damaged, or computed from another model, another
        kv_type, act_quant or ffn_act, or by another order of float operations; cache=False leaves it out, unread.
        """
    @property
    def engine(self) -> Engine:
        """Its engine."""
    @property
    def template(self) -> Template:
        """What formats its prompts."""
    @property
    def system(self) -> str | None:
        """The system prompt, which is no turn."""
    @property
    def params(self) -> SamplingParams:
        """How its answers are sampled."""
    @property
    def history(self) -> list[ChatTurn]:
        """All turns, user and assistant alternating."""
    @property
    def forgotten(self) -> int:
        """How many turns at the beginning have left the prompt because the context was full."""
    @property
    def receipts(self) -> list[Receipt]:
        """The receipts of its answers; each claims the digest of the one before, and keeps it in memory.

        One takes about 2 kB, and 4 bytes for each id of its prompt and answer.
        """
    @property
    def metrics(self) -> dict[str, float]:
        """Sums over the receipts: exchanges, prompt_tokens, cached_tokens, completion_tokens, prefill_seconds,
        decode_seconds, wall_seconds, and the rates prefill_tokens_per_second and decode_tokens_per_second."""
    def _repr_html_(self) -> str: ...
    def _repr_mimebundle_(self, **_options: Any) -> dict[str, str]: ...

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
class Scores:
    """How likely continuations of a context are: see `Engine.score`."""

    @property
    def logprobs(self) -> npt.NDArray[np.float32]:
        """float32 of shape [len(continuations)]: of each the sum of its ids', taken in float64, in order."""
    @property
    def is_greedy(self) -> npt.NDArray[np.bool_]:
        """bool of the same shape: whether greedy sampling would give exactly these ids."""
    @property
    def token_logprobs(self) -> list[npt.NDArray[np.float32]]:
        """For each continuation float32 of shape [number of its ids]."""
    @property
    def computed_tokens(self) -> int:
        """Positions that were computed, by the kernels' own count: the context once, and of each continuation all ids
        but the last."""

@final
class Engine:
    """An open model with its threads; immutable, and shared by any number of Python threads.

    path: a GGUF file, or the first file of a split model (default: the model inside the package, see
        `bitnet.models`). It is mapped into memory and must not change meanwhile. `from_pretrained` opens models of the
        Hugging Face Hub by name.
    n_ctx: positions that one sequence may have (default: the model's, at most 4096).
    n_threads: threads that compute (default: all processors that this process may use).
    isa: one of `bitnet.isas()` (default: the environment variable BITNET_ISA, else the best). The logits do not depend
        on it.
    kv_type: how keys and values are stored, "f16" or "f32".
    act_quant: "auto" (per-token int8 activations if every projection is ternary with one scale, as BitNet models were
        trained), "int8" or "none".
    ffn_act: "silu" or "relu2" (default: by architecture; `bitnet inspect` shows it).
    n_batch: positions that one forward pass takes at most (default 128). The logits do not depend on it.
    lm_head: "auto" keeps a copy of the output head in 8 bits, which says which few ids a choice can fall on, so that
        only their logits are computed exactly; "exact" computes all of them. The answers do not depend on it.
    progress: read the file beforehand, with a progress bar (tqdm, of the extra "notebook").

    Raises ModelNotFoundError, ModelFileError, UnsupportedModelError, ModelError, ArgumentError, OutOfMemoryError
    or OSError; KeyboardInterrupt on Ctrl-C.

    >>> from bitnet import Engine
    >>> with Engine() as engine:
    ...     ids = engine.encode("User: What is 2+2?")
    ...     engine.logits(ids).shape == (len(ids), engine.n_vocab)
    ...     pieces = [piece.text for piece in engine.stream(ids, max_tokens=5)]
    ...     "".join(pieces) == engine.generate(ids, max_tokens=5).text
    True
    True
    """

    def __new__(
        cls,
        path: _Path | None = None,
        *,
        n_ctx: int | None = None,
        n_threads: int | None = None,
        isa: str | None = None,
        kv_type: Literal["f16", "f32"] = "f16",
        act_quant: Literal["auto", "int8", "none"] = "auto",
        ffn_act: Literal["silu", "relu2"] | None = None,
        n_batch: int | None = None,
        lm_head: Literal["auto", "exact"] = "auto",
        progress: bool = False,
    ) -> Engine: ...
    @classmethod
    def from_pretrained(
        cls,
        repo_id: str,
        filename: str | None = None,
        revision: str | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        local_files_only: bool = False,
        token: str | bool | None = None,
        **options: Unpack[_Options],
    ) -> Engine:
        """Open a model of a repository on the Hugging Face Hub, downloaded into the cache of `huggingface_hub` if it is
        not there: pip install 'bitnet-engine[hub]'. The other keywords are those of `Engine`.

        filename: a GGUF file of the repository, of a split model the first part (default: the only one; of several the
            only one of the first type that is there of I2_S, TQ2_0, TQ1_0, IQ2_BN, IQ1_BN; projectors of images,
            `mmproj`, do not count).
        revision: a branch, a tag, or a commit or the first 7 digits of it or more (default: "main").
        cache_dir: the cache's folder (default: that of `huggingface_hub`, see its HF_HOME).
        local_files_only: ask the cache alone. A hub that cannot be reached, fails or refuses leaves the cache as well;
            one that does not have the repository or the revision is believed.
        token: for the hub (default: that of `hf auth login`).

        A connection that breaks is taken up again where it broke, and the next call goes on with a download that Ctrl-C
        or a kill of the process interrupted. The SHA-256 of what came is checked. Two processes download a file once.
        Progress is shown on stderr, which the environment variable HF_HUB_DISABLE_PROGRESS_BARS=1 turns off;
        HF_ENDPOINT names another hub, HF_HUB_OFFLINE=1 is local_files_only everywhere.

        Raises ModelNotFoundError where the repository, the revision or the file is not there, or the hub cannot be
        reached and the cache does not have it; ArgumentError where repo_id is no `owner/name`, or, with a list of the
        files, where the choice is not clear; BitnetError without huggingface_hub, where the hub refuses, a download
        fails or the cache cannot be used; and as `Engine`.
        """
    def logits(self, ids: _TokenIds) -> npt.NDArray[np.float32]:
        """Logits after every id: float32 of shape [len(ids), n_vocab]. The warm cache is neither used nor changed.

        Raises TokenIdError, ContextLengthError, TypeError, OutOfMemoryError, ClosedError; ModelError where a damaged
        weight shows only now; KeyboardInterrupt on Ctrl-C.
        """
    def logits_batch(self, sequences: Sequence[_TokenIds]) -> list[npt.NDArray[np.float32]]:
        """`logits` of several sequences at once, which share every forward pass. The bits are those of `logits`."""
    def logprobs(self, ids: _TokenIds) -> npt.NDArray[np.float32]:
        """Natural logarithm of each id's probability after those before it: float32 of shape [len(ids) - 1], since the
        first has none before it ([0] for no ids).

        A log-softmax in float64, in fixed order, of the logits that `logits` gives; of these `n_batch` rows are in
        memory at a time. The warm cache is neither used nor changed. Raises as `logits`.
        """
    @overload
    def score(self, context: str, continuations: Sequence[str]) -> Scores:
        """How likely each of several continuations of a context is. The context is computed once, continuations share
        forward passes; the bits are those of `logprobs`.

        Texts, or ids that are taken as they are. A text is turned into ids as lm-evaluation-harness does it: the
        context with BOS where the model expects it; of context and continuation together what follows the context's
        ids; white space at the context's end goes to the continuations. Control tokens are plain text.

        Context and continuation may have n_ctx + 1 ids together. An empty continuation has log-probability 0. The
        warm cache is neither used nor changed. Raises as `logits`, and ArgumentError for a context without ids, or
        a text that has no id of its own.
        """
    @overload
    def score(self, context: _TokenIds, continuations: Sequence[_TokenIds]) -> Scores: ...
    def perplexity(self, text: str | _TokenIds, stride: int | None = None) -> float:
        """exp of the mean negative log-probability of a text's ids, each of which is counted once.

        A window of n_ctx positions moves over the text by `stride` positions (default: half of n_ctx, rounded up); in
        each the ids are counted that no window before had, so that all but the first window's have at least
        n_ctx - stride ids before them. The first id of a window is never counted. A text gets BOS in front where the
        model expects it, which is not counted.

        Raises as `logits`, and ArgumentError for a stride above n_ctx, or where no id follows another.
        """
    def embed(
        self, texts: Sequence[str] | Sequence[_TokenIds], pooling: Literal["mean", "last"] = "mean"
    ) -> npt.NDArray[np.float32]:
        """A vector for each text: float32 of shape [len(texts), width].

        The state behind the output norm, which the output head would read: its mean over all positions (BOS, where
        the model expects it, included; taken in float64), or that of the last position. Not scaled to unit length.
        Texts share forward passes; the bits do not depend on that. The warm cache is neither used nor changed.

        Raises as `logits`, TypeError for a single text, and ArgumentError for a text without ids.
        """
    def prefill(self, ids: _TokenIds, *, progress: bool = False) -> Prefill:
        """Compute a prompt and keep its keys and values warm; the cache then holds exactly these positions.

        Only what follows the longest common prefix with the warm cache is computed. After an error or Ctrl-C the cache
        is as it was; with a progress bar it keeps the passes that were finished. Raises as `logits`.
        """
    @overload
    def generate_tokens(
        self, ids: _TokenIds, max_tokens: int | None = None, stop_token_ids: _TokenIds | None = None
    ) -> list[int]:
        """Continue a prompt greedily and return the new ids; of equal logits the lowest id wins.

        Ends after max_tokens, before a stop id, or when the context is full. Uses and keeps the warm cache.
        Raises as `logits`, and ArgumentError for an empty prompt.

        Of a list of prompts, a list of what each alone would give: all are continued at once and share every forward
        pass. Each begins with a copy of what the warm cache holds of it; the warm cache stays as it is.
        """
    @overload
    def generate_tokens(
        self,
        ids: list[list[int]] | list[npt.NDArray[np.integer[Any]]],
        max_tokens: int | None = None,
        stop_token_ids: _TokenIds | None = None,
    ) -> list[list[int]]: ...
    @property
    def tokenizer(self) -> Tokenizer:
        """The model's tokenizer. Raises ModelError if the file has none that this engine can build."""
    @property
    def template(self) -> Template:
        """The model's chat template. Raises TemplateError if the file's cannot be read."""
    def encode(self, text: str, add_bos: bool = False, parse_special: bool = False) -> list[int]:
        """As `Tokenizer.encode`."""
    def decode(self, ids: _TokenIds, skip_special_tokens: bool = True) -> str:
        """As `Tokenizer.decode`."""
    def stream(
        self, prompt: str | _TokenIds, params: SamplingParams | None = None, **keywords: Unpack[_Sampling]
    ) -> Stream:
        """Answer a prompt piece by piece. A text gets BOS in front where the model expects it, and its control tokens
        are plain text; ids are taken as they are. Uses and keeps the warm cache.

        params: how to sample, see `SamplingParams`; keywords are the same one by one, and change some of `params`.

        Raises as `logits`, and ArgumentError."""
    @overload
    def generate(
        self,
        prompt: str | _TokenIds,
        params: SamplingParams | None = None,
        *,
        progress: bool = False,
        **keywords: Unpack[_Sampling],
    ) -> Completion:
        """The whole answer to a prompt; of a list of prompts, a list of answers, computed one after the other, with a
        progress bar if wanted. Prompts, params and keywords as for `stream`, which it raises as."""
    @overload
    def generate(
        self,
        prompt: _Prompts,
        params: SamplingParams | None = None,
        *,
        progress: bool = False,
        **keywords: Unpack[_Sampling],
    ) -> list[Completion]: ...
    @overload
    def agenerate(
        self, prompt: str | _TokenIds, params: SamplingParams | None = None, **keywords: Unpack[_Sampling]
    ) -> Coroutine[Any, Any, Completion]:
        """`generate` for asyncio: awaited beside the event loop, which is never kept waiting, and in steps, so that any
        number of them take turns. A task that is cancelled abandons the step under way. What is wrong with the call
        itself (a closed engine, parameters out of range) raises at once, the rest where it is awaited."""
    @overload
    def agenerate(
        self,
        prompt: _Prompts,
        params: SamplingParams | None = None,
        **keywords: Unpack[_Sampling],
    ) -> Coroutine[Any, Any, list[Completion]]: ...
    def replay(self, receipt: Receipt, prompt: str | _TokenIds | None = None) -> bool:
        """Compute a receipt's answer again; whether it has the same ids and ends alike.

        A cancelled answer is computed up to where it stopped. A redacted receipt takes its prompt, as `stream` does; if
        a stop text ended it, only the ids are compared.

        Raises ReceiptError if the receipt is of another model, another kv_type, act_quant or ffn_act, or another order
        of float operations; if it is redacted and no prompt is given, or not its prompt.
        """
    def replay_ids(self, receipt: Receipt, prompt: str | _TokenIds | None = None) -> list[int]:
        """The ids that computing a receipt's answer again gives: those that `replay` compares. Raises as `replay`."""
    @property
    def cached_tokens(self) -> int:
        """Positions that the warm cache holds."""
    @property
    def memory(self) -> dict[str, int]:
        """Bytes: packed_weights (in memory of the engine's own), mapped_weights (read where they lie in the file),
        head_copy (the output head in 8 bits, once an answer has needed it), kv_cache (the warm cache), file."""
    @property
    def per_token(self) -> dict[str, int]:
        """What computing a token costs: ternary_macs (multiply-adds of int8 by trits), weight_bytes (read by a step,
        however many sequences share it; of the output head its copy, once it is made), kv_bytes (keys and values
        read for every position before its own)."""
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
        """Release the model. Calls and streams that have begun go on to their end; later calls raise ClosedError."""
    def __enter__(self) -> Engine: ...
    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None, /
    ) -> None: ...
    def _repr_html_(self) -> str: ...
    def _repr_mimebundle_(self, **_options: Any) -> dict[str, str]: ...

def isas() -> list[str]:
    """The instruction sets of this processor that the engine has kernels for, best last."""

def inspect(path: _Path) -> dict[str, Any]:
    """Everything about a model file that can be said without running it.

    Keys: path, version, file_size (bytes), arch, config, activation, act_quant, act_quant_reason, metadata (list of
    key, type, value; of an array its count, and at most its first 64 items as value), tensors (list of name, type,
    shape, bytes), types (type -> tensors, bytes), warnings, error.

    error is None, or says why the engine cannot run a file that is sound: then config, activation and act_quant are
    None, and a tensor's bytes reach up to the next one. Raises as `Engine` for a broken file.
    """

def processor() -> dict[str, Any]:
    """The processor: name, cores (that this process may use), isas, target."""

def read_bandwidth(n_threads: int, megabytes: int | None = None) -> float:
    """Gigabytes (1e9 bytes) a second that n_threads threads read from memory (default: 512 MB): the best of three."""

def dot_peak(n_threads: int, isa: str | None = None) -> float:
    """Multiply-adds a second that n_threads threads reach in registers alone, by the integer dot product of an
    instruction set (default: the best): the best of three."""

def _sampling_parameters() -> list[tuple[str, str, str, str, str | None]]:
    """The list of sampling parameters, for tests: name, type and default as in these stubs, a line of help, and the
    version that added the parameter (None for 0.1.0)."""

def _sampling_schema() -> str:
    """The JSON Schema of `claim.sampling` in a receipt, as JSON text."""
