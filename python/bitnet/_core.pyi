"""Type stubs and docstrings of the compiled module `bitnet._core`."""

from __future__ import annotations  # for pdoc, which runs this file

import os
from collections.abc import Callable, Coroutine, Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, NoReturn, TypeAlias, TypedDict, final, overload

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from typing_extensions import Unpack

_Path: TypeAlias = str | bytes | os.PathLike[str] | os.PathLike[bytes]
_TokenIds: TypeAlias = Sequence[int] | npt.NDArray[np.integer[Any]]
_Schema: TypeAlias = str | bool | dict[str, Any] | type[Any]
_LogitsProcessor: TypeAlias = Callable[[npt.NDArray[np.uint32], npt.NDArray[np.float32]], Any]
_Prompts: TypeAlias = list[str] | list[list[int]] | list[npt.NDArray[np.integer[Any]]] | list[str | list[int]]

__all__ = [
    "ChatSession",
    "ChatTurn",
    "Completion",
    "Engine",
    "LayerTrace",
    "Logprob",
    "Piece",
    "Prefill",
    "ProjectionTrace",
    "Receipt",
    "SamplingParams",
    "Scores",
    "Span",
    "Stream",
    "Template",
    "Tensor",
    "Tokenizer",
    "Trace",
    "__version__",
    "check_packed",
    "dot_peak",
    "inspect",
    "isas",
    "look_up_peak",
    "pack",
    "processor",
    "read_bandwidth",
]

__version__: str

class _Options(TypedDict, total=False):
    n_ctx: int | None
    n_threads: int | None
    isa: str | None
    kv_type: Literal["f16", "f32"]
    act_quant: Literal["auto", "int8", "int16", "int24", "none"]
    ffn_act: Literal["silu", "relu2", "gelu_tanh"] | None
    n_batch: int | None
    lm_head: Literal["auto", "exact", "int8"]
    max_batch: int | None
    cache_bytes: int | None

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
    speculate: Literal["lookup"] | None
    json_schema: _Schema | None
    regex: str | None
    choice: str | Sequence[str] | None
    grammar: str | None
    logits_processor: _LogitsProcessor | None

@final
class SamplingParams:
    """Parameters that decide how the next token is chosen from the logits.

    Methods that generate text also take these parameters as keywords. Keywords override the values in `params`.

    The parameters apply in this order: logit_bias; repetition, presence and frequency penalties; temperature; top_k;
    top_p; min_p; random draw. At temperature 0 the token with the largest logit is taken after the penalties; the
    lowest id wins a tie. Draw number i depends on (seed, i) only.

    Args:
        temperature: Divides the logits. 0 takes the most likely token (greedy decoding). Default: 0.
        top_k: Keeps this many of the most likely tokens. Default: 0, all tokens.
        top_p: Nucleus sampling: keeps the most likely tokens until their probabilities add up to this value. Default:
            1, all tokens.
        min_p: Keeps tokens with at least this fraction of the top token's probability. Default: 0, all tokens.
        repetition_penalty: Divides positive logits and multiplies negative logits of tokens among the last
            `repeat_last_n`. Default: 1, off.
        repeat_last_n: Number of tokens that the repetition penalty looks back, prompt included. Default: 64.
        presence_penalty: Subtracted from the logit of each token that was generated before. Default: 0.
        frequency_penalty: Subtracted from a token's logit once for each time it was generated. Default: 0.
        logit_bias: Maps token ids to values that are added to their logits; infinity forces an id, minus infinity bans
            it. Ids beyond the vocabulary are ignored. Banning every id is an error.
        seed: Seed of the random draws, from 0 to 2**64 - 1. Default: None, a new seed for each completion; the receipt
            records it.
        max_tokens: Largest number of tokens to generate. Default: None, up to a stop or the end of the context.
        stop: One or more stop strings. They end the completion and are not part of its text. The text of a control
            token, such as "</s>", means that token. A string with such a text inside, such as "</s>User:", ends the
            completion where the token and the text follow one another.
        stop_token_ids: Ids that end the completion, in addition to the model's own.
        ignore_eos: Do not stop at the model's own stop ids. Default: False.
        logprobs: Number of most likely tokens to report for each position. 0 reports the chosen token's log-probability
            only. Default: None, no log-probabilities.
        speculate: "lookup" guesses tokens that stood in the text before, such as those of code that is edited or a text
            that is quoted, and computes several in one pass where they are likely. The completion is the same, bit for
            bit; the receipt tells how many were guessed and accepted. Models with recurrent states guess nothing.
            Default: None, off.
        json_schema: The completion is JSON of this schema, on one line, as `json.dumps` writes it. A JSON Schema (draft
            2020-12) as a dict or as JSON text; a pydantic model, a dataclass or another type that has one; True for any
            JSON object. `Completion.parsed` is the value. docs/forms.md says what of JSON Schema is supported.
        regex: The whole completion matches this regular expression, in the syntax of Rust's crate regex without anchors
            and look-around.
        choice: The completion is one of these texts.
        grammar: The completion follows this grammar, in Lark's notation as llguidance reads it.
        logits_processor: A function (ids, logits) that is called before each token is chosen, and changes the logits in
            place or returns others: ids are a uint32 array of all tokens so far, prompt included; logits a float32
            array of shape [n_vocab]. All other parameters apply afterwards, `logprobs` among them. Receipts name the
            function, and such completions cannot be replayed. If it raises, the completion ends, as cancelled.

    At most one of json_schema, regex, choice and grammar can be given. Only tokens that keep the completion in its form
    can be chosen, after the penalties and before `temperature`; where only one token is possible it is taken without
    computing logits. The completion ends when it is complete, with finish_reason "stop"; one that reaches `max_tokens`
    before ("length") is only the beginning of such a text. Where the prompt has begun the thoughts of the answer, the
    form begins after them.

    Raises:
        ArgumentError: A value is out of range, or a schema, expression or grammar cannot be used.
        TypeError: A name is unknown.

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
        speculate: Literal["lookup"] | None = None,
        json_schema: _Schema | None = None,
        regex: str | None = None,
        choice: str | Sequence[str] | None = None,
        grammar: str | None = None,
        logits_processor: _LogitsProcessor | None = None,
    ) -> SamplingParams: ...
    @property
    def temperature(self) -> float:
        """Divides the logits; 0 means greedy decoding."""
    @property
    def top_k(self) -> int:
        """Number of most likely tokens that are kept; 0 means all."""
    @property
    def top_p(self) -> float:
        """Sum of probabilities at which nucleus sampling stops adding tokens; 1 means all."""
    @property
    def min_p(self) -> float:
        """Smallest probability that is kept, as a fraction of the top token's; 0 means all."""
    @property
    def repetition_penalty(self) -> float:
        """Divides positive and multiplies negative logits of the last `repeat_last_n` tokens; 1 means off."""
    @property
    def repeat_last_n(self) -> int:
        """Number of tokens that the repetition penalty looks back, prompt included."""
    @property
    def presence_penalty(self) -> float:
        """Subtracted from the logit of each token that was generated before."""
    @property
    def frequency_penalty(self) -> float:
        """Subtracted from a token's logit once for each time it was generated."""
    @property
    def logit_bias(self) -> dict[int, float]:
        """Values that are added to the logits, by token id."""
    @property
    def seed(self) -> int | None:
        """Seed of the random draws; None means a new one for each completion."""
    @property
    def max_tokens(self) -> int | None:
        """Largest number of tokens to generate; None means no limit but the context."""
    @property
    def stop(self) -> list[str]:
        """Stop strings: they end the completion and are not part of its text."""
    @property
    def stop_token_ids(self) -> list[int]:
        """Ids that end the completion, in addition to the model's own."""
    @property
    def ignore_eos(self) -> bool:
        """Whether generation continues past the model's own stop ids."""
    @property
    def logprobs(self) -> int | None:
        """Number of most likely tokens reported for each position; None means no log-probabilities at all."""
    @property
    def speculate(self) -> Literal["lookup"] | None:
        """How tokens are guessed in advance: "lookup", by what stood in the text before; None means off."""
    @property
    def json_schema(self) -> str | None:
        """The JSON Schema of the completion, as JSON text; None means any text."""
    @property
    def regex(self) -> str | None:
        """The regular expression that the completion matches; None means any text."""
    @property
    def choice(self) -> list[str] | None:
        """The texts of which the completion is one; None means any text."""
    @property
    def grammar(self) -> str | None:
        """The grammar that the completion follows, in Lark's notation; None means any text."""
    @property
    def logits_processor(self) -> _LogitsProcessor | None:
        """The function that changes the logits before each token is chosen; None if there is none."""
    def __eq__(self, other: object, /) -> bool: ...
    def __ne__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...

@final
class Tokenizer:
    """The vocabulary of a model and its rules, read from a GGUF file, a `tokenizer.json` or a directory with one.

    Only metadata is read, no weights. For a GGUF file without a tokenizer, the `tokenizer.json` beside it is used. The
    files `tokenizer_config.json` and `generation_config.json` beside a `tokenizer.json` name the BOS, EOS and stop
    tokens.

    Args:
        path: A GGUF file, a `tokenizer.json`, or a directory with a `tokenizer.json`.
        pre: Name of the pre-tokenizer to use instead of the one that the GGUF file names.

    Raises the errors of `Engine` for a file that is missing, damaged or not supported.

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
    def __call__(self, *_arguments: Any, **_keywords: Any) -> NoReturn: ...
    @classmethod
    def from_pretrained(cls, repo_id: str, filename: str | None = None, **how: Any) -> Tokenizer:
        """Open the tokenizer of a model on the Hugging Face Hub. Arguments as for `Engine.from_pretrained`.

        The model file is downloaded, if it is not in the cache.
        """
    def encode(self, text: str, add_bos: bool = False, parse_special: bool = False) -> list[int]:
        """Convert text to token ids.

        Args:
            text: The text.
            add_bos: Put the BOS token in front, if the model has one.
            parse_special: Recognize control tokens in the text. Leave it off for text that users write.
        """
    def decode(self, ids: _TokenIds, skip_special_tokens: bool = True) -> str:
        """Convert token ids to text. Bytes that are not valid UTF-8 become U+FFFD.

        Args:
            ids: Token ids.
            skip_special_tokens: Leave out control tokens.

        Raises `TokenIdError` for an id outside the vocabulary.
        """
    def id_to_token(self, id: int) -> str | None:
        """The token with this id as the file spells it, or None if there is no such id."""
    def token_to_id(self, token: str) -> int | None:
        """The id of a token as the file spells it, or None if there is no such token."""
    def apply_chat_template(
        self,
        messages: Sequence[_Message] | list[list[_Message]] | list[list[dict[str, Any]]],
        tools: Sequence[dict[str, Any]] | None = None,
        add_generation_prompt: bool = False,
        continue_final_message: bool = False,
        tokenize: bool = True,
        **variables: Any,
    ) -> Any:
        """Same as `Template.encode` with the model's own template, by the name and the defaults of transformers.

        Args:
            messages: As for `Template.encode`, or a list of conversations, which gives a list of results.
            tools: As for `Template.encode`.
            add_generation_prompt: End with the start of an assistant turn. Note the default.
            continue_final_message: As for `Template.encode`.
            tokenize: False returns the prompt as text, as `Template.render` does.
            variables: As for `Template.encode`.
        """
    def __len__(self) -> int:
        """Same as `vocab_size`."""
    @property
    def vocab_size(self) -> int:
        """Number of tokens in the vocabulary."""
    @property
    def bos_token_id(self) -> int | None:
        """Id of the token that begins a text (BOS)."""
    @property
    def eos_token_id(self) -> int | None:
        """Id of the token that ends a text (EOS)."""
    @property
    def add_bos(self) -> bool:
        """Whether the model expects a BOS token in front of a text."""
    @property
    def stop_token_ids(self) -> list[int]:
        """Ids at which generation stops, such as EOS and the end of a turn."""
    @property
    def pre(self) -> str:
        """Name of the pre-tokenizer, the rule that splits text before byte-pair encoding."""
    @property
    def warning(self) -> str | None:
        """A warning for the user, such as that the pre-tokenizer is a guess, or that the file adds a token at the end
        of a text, which prompts are left without; None if there is none."""

@final
class Logprob:
    """A token with its log-probability."""

    @property
    def id(self) -> int:
        """Token id."""
    @property
    def text(self) -> str:
        """Text of this token alone."""
    @property
    def logprob(self) -> float:
        """Natural logarithm of the token's probability, before any sampling parameter applies."""
    @property
    def bytes(self) -> bytes:
        """Bytes that this token stands for. A character may consist of several tokens."""
    def __eq__(self, other: object, /) -> bool: ...

@final
class Piece:
    """One step of a stream: a token and the text that it adds. `str()` gives the text; `==` with a str compares it."""

    @property
    def text(self) -> str:
        """Text that this step adds to the stream.

        It is empty while a character is incomplete, while the text might be the start of a stop string or of a tool
        call, and while the model thinks before it answers. The texts of all pieces add up to the whole text.
        """
    @property
    def reasoning(self) -> str:
        """Text that this step adds to the thoughts before a chat answer, see `Completion.reasoning`; often empty."""
    @property
    def tool_calls(self) -> list[dict[str, Any]] | None:
        """The tool calls that this step completes, see `Completion.tool_calls`; mostly None."""
    @property
    def token_id(self) -> int | None:
        """Id of the token; None in a last piece that only reports a stop id."""
    @property
    def logprob(self) -> Logprob | None:
        """Log-probability of the token, if `logprobs` was requested."""
    @property
    def top_logprobs(self) -> list[Logprob] | None:
        """The most likely tokens at this position, best first, if `logprobs` was requested."""
    @property
    def finish_reason(self) -> str | None:
        """Why the stream ended, in the last piece: "stop", "length" or "context"; None before."""
    def __eq__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...

@final
class Completion:
    """A finished completion. `str()` gives its text; `==` with a str compares the text."""

    @property
    def text(self) -> str:
        """The generated text, without a stop string. A chat answer is without the thoughts before it and without tool
        calls."""
    @property
    def reasoning(self) -> str | None:
        """What the model thought before a chat answer: the text between `<think>` and `</think>`.

        None if there was no such text, or if the chat template has neither mark; `Engine.generate` never looks for
        them. If the completion ends within the thoughts, `text` is empty. `token_ids` has all tokens, thoughts and
        marks included.
        """
    @property
    def parsed(self) -> Any:
        """The value of a JSON completion, if `json_schema` was given: an object of the class that the schema was made
        of, or dicts, lists, texts, numbers.

        None without `json_schema`, and if the completion ended before it was complete (`finish_reason` is not "stop").
        Raises the error of the class if it refuses a value for reasons that its schema does not hold.
        """
    @property
    def tool_calls(self) -> list[dict[str, Any]] | None:
        """The calls of `tools` in a chat answer, in order; None if there are none.

        A call is {"id": "...", "type": "function", "function": {"name": "...", "arguments": "{...}"}}, as in OpenAI's
        API: the arguments are the JSON text of an object. They are sure to follow the tool's schema only with
        `tool_choice` "required" or a name. Text that is not a call of one of the tools stays in `text`. `token_ids` has
        all tokens, those of calls included. An id follows from the seed, the length of the prompt and the call's place
        among the calls, so the same prompt and seed give the same ids.
        """
    @property
    def token_ids(self) -> list[int]:
        """The generated ids, without a stop id."""
    @property
    def finish_reason(self) -> str | None:
        """Why generation ended.

        "stop": a stop id or stop string; "length": `max_tokens` was reached; "context": the context is full.
        """
    @property
    def prompt_tokens(self) -> int:
        """Number of tokens in the prompt."""
    @property
    def cached_tokens(self) -> int:
        """Number of prompt tokens that were already in the KV cache."""
    @property
    def completion_tokens(self) -> int:
        """Number of tokens that were sampled, including a stop id."""
    @property
    def seed(self) -> int:
        """Seed of the random draws."""
    @property
    def ttft(self) -> float:
        """Time to first token in seconds, including the prefill."""
    @property
    def decode_seconds(self) -> float:
        """Seconds spent on all tokens after the first."""
    @property
    def logprobs(self) -> list[Logprob] | None:
        """The log-probability of each generated token, if `logprobs` was requested."""
    @property
    def top_logprobs(self) -> list[list[Logprob]] | None:
        """For each generated token the most likely tokens at its position, best first, if requested."""
    @property
    def receipt(self) -> Receipt | None:
        """The receipt: what was computed, from what, and how."""
    def to_dict(self) -> dict[str, Any]:
        """Return all properties as a dict that `json.dumps` accepts, the receipt as `Receipt.to_dict`."""
    def __eq__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...
    def __getitem__(self, key: Any, /) -> Any: ...

@final
class Receipt:
    """A record of a completion that anyone who has the model can check by computing it again.

    Its JSON document (schema 1.0.0) has two main blocks. "claim" holds everything that decides the result: model,
    settings, prompt ids, sampling parameters with the seed, and the generated ids. "run" says how it was computed:
    kernels with their counts and times, threads, seconds of each part. `digest` is a hash of the claim, the same on
    every processor and with any number of threads.

    `validate` and the digest find accidental changes. `Engine.replay` also finds forged receipts. docs/receipts.md
    describes the fields; `bitnet.receipt_schema()` returns the JSON Schema.

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
        """Read a receipt from a file that `save` wrote, of at most 32 MiB and 2,097,152 values.

        Raises:
            OSError: The file cannot be read, or it is a device or a pipe.
            ReceiptError: The file is not a receipt, or is larger (gate "form").
        """
    @staticmethod
    def from_json(text: str) -> Receipt:
        """Read a receipt from JSON text.

        Raises:
            ReceiptError: The text is not a receipt (gate "form").
        """
    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the JSON document to a file and return its path.

        Missing folders are created. The file is replaced atomically: it never holds part of a document.
        """
    def validate(self) -> None:
        """Recompute every sum, every derived field and the digest.

        Raises:
            ReceiptError: A value does not agree; the message names the first check (gate) that failed.
        """
    def redact(self) -> Receipt:
        """Return a copy without prompt ids, output ids, system prompt and stop strings.

        Each is replaced by its length and BLAKE3 hash. The copy has the same digest and still validates; whoever has
        the prompt can replay it. A hash does not hide a text that can be guessed, because the guess can be verified.
        """
    def to_json(self) -> str:
        """Return the document as indented JSON text."""
    def to_dict(self) -> dict[str, Any]:
        """Return the document as a dict."""
    def plot(self) -> Figure:
        """Draw the timeline of this completion with `bitnet.plot.timeline`.

        Raises:
            ImportError: matplotlib is not installed.
        """
    def with_test_results(self, *, total_tests: int, passed: int, failed: int = 0, skipped: int = 0) -> Receipt:
        """Return a copy that also records the results of tests that were run on the completion."""
    @property
    def digest(self) -> str:
        """BLAKE3 hash of the redacted claim as JSON (UTF-8, sorted keys, no spaces), as hexadecimal text.

        The claim contains the hash of the model file, so the first digest of an engine reads the whole file.
        """
    @property
    def timestamp(self) -> str:
        """When the completion ended, in UTC (RFC 3339)."""
    @property
    def prompt_tokens(self) -> int:
        """Number of tokens in the prompt."""
    @property
    def cached_tokens(self) -> int:
        """Number of prompt tokens that were already in the KV cache."""
    @property
    def computed_tokens(self) -> int:
        """Number of tokens that were computed: the rest of the prompt, and all sampled tokens but the last."""
    @property
    def completion_tokens(self) -> int:
        """Number of tokens that were sampled, including a stop id."""
    @property
    def finish_reason(self) -> str:
        """Why generation ended: "stop", "length", "context" or "cancelled"."""
    @property
    def kernels(self) -> list[str]:
        """Names of the kernels that ran, each with its instruction set."""
    @property
    def seconds(self) -> dict[str, float]:
        """Seconds spent in each part: render, tokenize, prefill, first_token, decode, sample, detokenize, wall,
        consumer.

        `first_token` is the time to the first token and `wall` the whole time inside the engine. `consumer` is the time
        that the consumer of a stream spent between pulls; the other entries do not include it.
        """
    def __eq__(self, other: object, /) -> bool: ...
    def _repr_html_(self) -> str: ...
    def _repr_mimebundle_(self, **_options: Any) -> dict[str, str]: ...

@final
class Stream:
    """A completion in progress: an iterator of `Piece`, for `for` and `async for`.

    Each iteration computes one token. Nothing is computed ahead of the consumer, and nothing after the stream is
    deleted.

    A stream has one consumer: iterating while another thread or task does so raises ArgumentError. Other threads may
    read its properties, which show the state after the last step, and call `cancel`. After Ctrl-C, or after the
    consuming task is cancelled, the step in progress is abandoned and the stream can be continued.
    """

    def __iter__(self) -> Stream: ...
    def __next__(self) -> Piece: ...
    def __aiter__(self) -> Stream: ...
    def __anext__(self) -> Coroutine[Any, Any, Piece]: ...
    def cancel(self) -> None:
        """End the stream, from any thread.

        The step in progress is abandoned, and the consumer's loop ends. `finish_reason` becomes "cancelled" unless the
        stream has already ended.
        """
    def aclose(self) -> Coroutine[Any, Any, None]:
        """Same as `cancel`, for `contextlib.aclosing`."""
    @property
    def text(self) -> str:
        """Text so far, without the thoughts before a chat answer and without tool calls."""
    @property
    def reasoning(self) -> str | None:
        """Thoughts so far, see `Completion.reasoning`; None if there are none.

        If a `</think>` follows that no `<think>` opened, the text before it turns out to be thoughts: it moves from
        `text` to here, though the pieces so far had it as their `text`.
        """
    @property
    def tool_calls(self) -> list[dict[str, Any]] | None:
        """The tool calls that are complete so far, see `Completion.tool_calls`; None if there are none."""
    @property
    def parsed(self) -> Any:
        """The value of a JSON completion that is complete, as `Completion.parsed`; None before."""
    @property
    def token_ids(self) -> list[int]:
        """Generated ids so far, without a stop id."""
    @property
    def finish_reason(self) -> str | None:
        """Why the stream ended: "stop", "length", "context" or "cancelled"; None while it is in progress."""
    @property
    def prompt_tokens(self) -> int:
        """Number of tokens in the prompt."""
    @property
    def cached_tokens(self) -> int:
        """Number of prompt tokens that were already in the KV cache."""
    @property
    def completion_tokens(self) -> int:
        """Number of tokens sampled so far, including a stop id."""
    @property
    def seed(self) -> int:
        """Seed of the random draws."""
    @property
    def receipt(self) -> Receipt | None:
        """The receipt; None while the stream is in progress, and if it ended before the first token."""

@final
class ChatTurn:
    """One message of a conversation. `str()` gives the text; `==` with a str compares it.

    Args:
        role: "system", "user" or "assistant".
        text: The message.
        cancelled: The user stopped this answer before it was complete.
        reasoning: What the model thought before this answer. The template gets it as `reasoning_content`.

    Raises:
        ArgumentError: The role is none of these.
    """

    def __new__(cls, role: str, text: str, cancelled: bool = False, reasoning: str | None = None) -> ChatTurn: ...
    @property
    def role(self) -> str:
        """Who wrote the message: "system", "user" or "assistant"."""
    @property
    def text(self) -> str:
        """The message."""
    @property
    def cancelled(self) -> bool:
        """Whether the user stopped this answer before it was complete."""
    @property
    def reasoning(self) -> str | None:
        """What the model thought before this answer; None if it did not."""
    def __eq__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...

_Message: TypeAlias = ChatTurn | dict[str, Any]

@final
class Span:
    """A part of a prompt that has one author; see `Template.spans`. `str()` and `==` are those of its text."""

    @property
    def text(self) -> str:
        """Text of this part."""
    @property
    def role(self) -> str | None:
        """Role of the message that the text comes from; None if the template wrote it."""
    @property
    def message(self) -> int | None:
        """Index of that message; None if the template wrote the text."""
    @property
    def start(self) -> int:
        """Start of the span, in bytes of the prompt's UTF-8."""
    @property
    def end(self) -> int:
        """End of the span, in bytes of the prompt's UTF-8."""
    @property
    def rewritten(self) -> bool:
        """Whether the template changed the text of the message, apart from trimming it."""
    @property
    def token_ids(self) -> list[int] | None:
        """Ids of the tokens that begin in this span.

        None without a tokenizer, and if the decoded tokens differ from the prompt. A token that the tokenizer puts in
        front (BOS) has an empty span of its own.
        """
    def __eq__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...

@final
class Template:
    """A chat template: a Jinja source that turns a conversation into a prompt.

    It renders as `apply_chat_template` of transformers does. Templates come with models and are not trusted: steps and
    output are limited, and every failure is a TemplateError that gives the line.

    >>> from bitnet import Template
    >>> template = Template.named("bitnet")
    >>> template.render([{"role": "user", "content": "Hi"}])
    'User: Hi<|eot_id|>Assistant: '
    >>> [(span.role, span.text) for span in template.spans([{"role": "user", "content": "Hi"}])]
    [(None, 'User: '), ('user', 'Hi'), (None, '<|eot_id|>Assistant: ')]
    """

    @staticmethod
    def from_jinja(source: str, bos_token: str | None = None, eos_token: str | None = None) -> Template:
        """Create a template from its Jinja source.

        Args:
            source: The Jinja source.
            bos_token: Value of the variable `bos_token` in the source.
            eos_token: Value of the variable `eos_token` in the source.
        """
    @staticmethod
    def named(name: str, bos_token: str | None = None, eos_token: str | None = None) -> Template:
        """Return a built-in template.

        Args:
            name: "raw", "instruct", "llama3-chat" or "bitnet" (the template of BitNet b1.58 2B-4T).
            bos_token: Text of the BOS token. "llama3-chat" needs it: its prompts begin with it.
            eos_token: Text of the EOS token.
        """
    @staticmethod
    def detect(
        jinja: str | None = None,
        tokenizer_name: str | None = None,
        bos_token: str | None = None,
        eos_token: str | None = None,
    ) -> Template:
        """Choose a template from what is known about a model.

        The order of preference: the Jinja source, a built-in template that the name suggests, "raw". `origin` tells
        which one was chosen, `warning` whether it was a guess.

        Args:
            jinja: Jinja source from the model file.
            tokenizer_name: Name of the tokenizer or the model. If it is a path, the last component counts.
            bos_token: Text of the BOS token.
            eos_token: Text of the EOS token.
        """
    @staticmethod
    def from_model(path: str | os.PathLike[str], variant: str | None = None) -> Template:
        """Return the template of a model file. No weights are read.

        A GGUF file without a tokenizer gets the template of the files beside it, as transformers saves them:
        `chat_template.jinja`, or `chat_template` in `tokenizer_config.json`.

        Args:
            path: A GGUF file, a `tokenizer.json`, or a directory with a `tokenizer.json`.
            variant: Name of one of several templates, such as "tool_use". Default: the main one, which renders
                conversations with tools by "tool_use" if the model has it.

        Raises:
            ArgumentError: The model has no template of this name.
        """
    def render(
        self,
        messages: Sequence[_Message],
        tools: Sequence[dict[str, Any]] | None = None,
        add_generation_prompt: bool | None = None,
        continue_final_message: bool = False,
        **variables: Any,
    ) -> str:
        """Render a conversation as a prompt.

        To give the prompt to a model, use `encode` or `Engine.chat`: in a plain text, control tokens become letters.

        Args:
            messages: Dicts or `ChatTurn`s. Dicts reach the template unchanged.
            tools: JSON schemas of functions, as dicts. If the model has a template of its own for tools
                (`tool_use`), that one renders.
            add_generation_prompt: End with the start of an assistant turn. Default: True, unless
                `continue_final_message`.
            continue_final_message: End inside the final message, so that the model continues it, as transformers
                defines it.
            variables: More variables for the template.

        Raises:
            TemplateError: The template fails, or refuses the conversation.
            TypeError: A message, tool or variable is of a type that JSON does not have, or a keyword is an argument of
                `apply_chat_template` that has no meaning here, such as `tokenize`.
            ArgumentError: Both add_generation_prompt and continue_final_message are true.
        """
    def encode(
        self,
        messages: Sequence[_Message],
        tokenizer: Tokenizer,
        tools: Sequence[dict[str, Any]] | None = None,
        add_generation_prompt: bool | None = None,
        continue_final_message: bool = False,
        **variables: Any,
    ) -> list[int]:
        """Convert a conversation to the token ids of its prompt.

        Control tokens are recognized only where the template wrote them: text of a message never becomes one. BOS is
        added if the model expects it and the template does not write it. `engine.generate(ids)` continues the prompt.

        Args:
            messages: As for `render`.
            tokenizer: The model's tokenizer.
            tools: As for `render`.
            add_generation_prompt: As for `render`.
            continue_final_message: As for `render`.
            variables: As for `render`.

        >>> from bitnet import Engine
        >>> engine = Engine()
        >>> ids = engine.template.encode([{"role": "user", "content": "Hi"}], engine.tokenizer)
        >>> engine.decode(ids, skip_special_tokens=False)
        '<|begin_of_text|>User: Hi<|eot_id|>Assistant: '
        """
    def spans(
        self,
        messages: Sequence[_Message],
        tools: Sequence[dict[str, Any]] | None = None,
        add_generation_prompt: bool | None = None,
        continue_final_message: bool = False,
        *,
        tokenizer: Tokenizer | None = None,
        **variables: Any,
    ) -> list[Span]:
        """Split the result of `render` into spans, in order, each with its author and optionally its tokens.

        This is a visualization. It follows the texts of the messages through the template. If a template inspects a
        text or takes it apart, that text may count as the template's. Tools always do.

        Args:
            messages: As for `render`.
            tools: As for `render`.
            add_generation_prompt: As for `render`.
            continue_final_message: As for `render`.
            tokenizer: Fills `Span.token_ids`.
            variables: As for `render`.
        """
    def render_chat(self, history: Sequence[ChatTurn], system: str | None = None) -> str:
        """Render turns that wait for an answer, after an optional system prompt. Short for `render`."""
    def apply(self, user: str, system: str | None = None) -> str:
        """Render a single question, after an optional system prompt. Short for `render`."""
    def at(self, now: str) -> Template:
        """Return the same template with a fixed clock.

        Args:
            now: Local time that the template sees, such as "2026-07-04T12:00:00".
        """
    @property
    def name(self) -> str:
        """Name of the built-in template that this one equals, or "jinja"."""
    @property
    def source(self) -> str:
        """Jinja source."""
    @property
    def origin(self) -> str:
        """Where the template comes from.

        "argument": the caller; "gguf": the model file; "tokenizer": the name of the tokenizer or model suggests it;
        "fallback": nothing is known, so it is "raw".
        """
    @property
    def warning(self) -> str | None:
        """A warning for the user, such as that the template is a guess; None if there is none."""
    @property
    def bos_token(self) -> str | None:
        """Value of the variable `bos_token` in the source."""
    @property
    def eos_token(self) -> str | None:
        """Value of the variable `eos_token` in the source."""
    @property
    def stop_sequences(self) -> list[str]:
        """Texts that end the assistant's turn."""
    @property
    def add_bos(self) -> bool:
        """Whether the prompt needs a BOS token in front: the template has one and does not write it itself."""
    def __eq__(self, other: object, /) -> bool: ...
    def _repr_html_(self) -> str: ...
    def _repr_mimebundle_(self, **_options: Any) -> dict[str, str]: ...

@final
class ChatSession:
    """A conversation: its turns, its KV cache and its receipts. An engine can have any number of them.

    Each prompt is rendered as a whole, but only the part after the longest common prefix with the KV cache is computed.
    When the context is full, the oldest exchanges leave the prompt until it fills at most three quarters of the
    context; `history` keeps all turns.

    Args:
        engine: The engine.
        system: System prompt.
        messages: Messages so far: an optional system prompt, then pairs of a user's and an assistant's message.
        template: A `Template`, the name of a built-in one, or the name of one of several in the model. Default: the
            model's own.
        enable_thinking: Whether the model thinks before it answers, as for `Engine.chat`. `send` and `stream` can
            override it for one answer.
        params: Sampling parameters of all answers.
        keywords: Sampling parameters one by one; they override `params`. `send` and `stream` can override both for one
            answer.

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
        messages: Sequence[_Message] | None = None,
        template: Template | str | None = None,
        enable_thinking: bool | None = None,
        params: SamplingParams | None = None,
        **keywords: Unpack[_Sampling],
    ) -> ChatSession: ...
    def __call__(self, *_arguments: Any, **_keywords: Any) -> NoReturn: ...
    def stream(
        self,
        text: str,
        params: SamplingParams | None = None,
        *,
        enable_thinking: bool | None = None,
        **keywords: Unpack[_Sampling],
    ) -> Stream:
        """Start an answer and return it as a stream.

        The question and the answer enter the history when the answer ends. An answer that is cancelled, or whose stream
        is deleted, after its first token enters as it is, marked as cancelled.

        Raises:
            ArgumentError: Another answer is in progress, a parameter is out of range, or `enable_thinking` is given and
                the template does not read it.
            ContextLengthError: The question does not fit into the context.
            TemplateError: The template fails, or refuses the conversation.
        """
    def send(
        self,
        text: str,
        params: SamplingParams | None = None,
        *,
        enable_thinking: bool | None = None,
        **keywords: Unpack[_Sampling],
    ) -> Completion:
        """Return the whole answer. Arguments and errors as for `stream`."""
    def asend(
        self,
        text: str,
        params: SamplingParams | None = None,
        *,
        enable_thinking: bool | None = None,
        **keywords: Unpack[_Sampling],
    ) -> Coroutine[Any, Any, Completion]:
        """Same as `send`, for asyncio. The event loop is never blocked.

        Cancelling the task cancels the answer.
        """
    def clear(self) -> None:
        """Delete the turns, the receipts and the KV cache. System prompt, template and parameters stay.

        Raises:
            ArgumentError: An answer is in progress.
        """
    def fork(self) -> ChatSession:
        """Return an independent conversation that continues from here, with the same turns, receipts and parameters.

        Both share the KV cache up to the point where they diverge.

        Raises:
            ArgumentError: An answer is in progress.
        """
    def rewind(self, n: int) -> None:
        """Remove the last n exchanges and their receipts.

        Turns that have left the prompt stay out of it, unless the prompt would then be empty.

        Raises:
            ArgumentError: There are fewer than n exchanges, or an answer is in progress.
        """
    def to_json(self) -> str:
        """Return system prompt, template, turns and parameters as JSON text. Receipts are saved by `Receipt.save`."""
    @staticmethod
    def from_json(engine: Engine, text: str, *, template: Template | None = None) -> ChatSession:
        """Restore a conversation from the text that `to_json` returned.

        Args:
            engine: The engine, which may run another model.
            text: The JSON text.
            template: Use this template instead of the saved one. A clock that `Template.at` fixed is not saved.

        Raises:
            ArgumentError: The text is not a saved conversation.
            TemplateError: The saved template cannot be used.
        """
    def save(self, path: str | os.PathLike[str], *, cache: bool = False) -> Path:
        """Write `to_json` to a file and return its path.

        Missing folders are created. The file is replaced atomically.

        Args:
            path: The file.
            cache: Also save the KV cache: `engine.per_token["kv_bytes"]` bytes for each token. This reads the whole
                model file for its hash.
        """
    @staticmethod
    def load(engine: Engine, path: str | os.PathLike[str], *, cache: bool = True) -> ChatSession:
        """Read a conversation from a file that `save` wrote. A saved KV cache saves time and does not change the
        answers.

        Args:
            engine: The engine.
            path: The file.
            cache: Use the saved KV cache. False skips it, so that another model can continue the conversation.

        Raises:
            ArgumentError: The file is not a saved conversation, or its cache is damaged or belongs to another model,
                `kv_type`, `act_quant`, `ffn_act` or version of the numerics.
            TemplateError: The saved template cannot be used.
            OSError: The file cannot be read.
        """
    @property
    def engine(self) -> Engine:
        """The engine."""
    @property
    def template(self) -> Template:
        """The template that renders the prompts."""
    @property
    def system(self) -> str | None:
        """The system prompt. It is not part of `history`."""
    @property
    def enable_thinking(self) -> bool | None:
        """Whether the model thinks before it answers; None leaves it to the template."""
    @property
    def params(self) -> SamplingParams:
        """The sampling parameters of all answers."""
    @property
    def history(self) -> list[ChatTurn]:
        """All turns; user and assistant alternate."""
    @property
    def forgotten(self) -> int:
        """Number of turns at the start of `history` that left the prompt because the context was full."""
    @property
    def receipts(self) -> list[Receipt]:
        """The receipts of the answers, oldest first.

        Each claims the digest of the one before and keeps that one in memory. A receipt takes about 2 kB, and 4 bytes
        for each token of its prompt and answer.
        """
    @property
    def metrics(self) -> dict[str, float]:
        """Sums over the receipts: exchanges, prompt_tokens, cached_tokens, completion_tokens, prefill_seconds,
        decode_seconds, wall_seconds; and the rates prefill_tokens_per_second and decode_tokens_per_second.
        """
    def __copy__(self) -> ChatSession: ...
    def __deepcopy__(self, _memo: Any) -> ChatSession: ...
    def _repr_html_(self) -> str: ...
    def _repr_mimebundle_(self, **_options: Any) -> dict[str, str]: ...

@final
class Prefill:
    """Result of `Engine.prefill`."""

    @property
    def tokens(self) -> int:
        """Number of tokens in the prompt."""
    @property
    def cached_tokens(self) -> int:
        """Number of tokens that were already in the KV cache."""
    @property
    def seconds(self) -> float:
        """Seconds spent computing the other tokens."""
    @property
    def tokens_per_second(self) -> float:
        """Computed tokens per second; 0 if none was computed."""
    def __eq__(self, other: object, /) -> bool: ...

@final
class Scores:
    """Log-probabilities of continuations; see `Engine.score`."""

    @property
    def logprobs(self) -> npt.NDArray[np.float32]:
        """Log-probability of each continuation: float32 of shape [len(continuations)].

        It is the sum over the continuation's tokens, added in float64 and in order.
        """
    @property
    def is_greedy(self) -> npt.NDArray[np.bool_]:
        """Whether greedy decoding would produce exactly this continuation: bool of shape [len(continuations)]."""
    @property
    def token_logprobs(self) -> list[npt.NDArray[np.float32]]:
        """Log-probabilities of the tokens: for each continuation float32 of shape [its tokens]."""
    @property
    def computed_tokens(self) -> int:
        """Number of tokens that were computed: what the prefix cache does not hold of the context, once, and all tokens
        of each continuation but its last.
        """

@final
class Tensor:
    """A tensor of a model as numbers. `np.asarray(tensor)` gives its values.

    >>> from bitnet import Engine
    >>> tensor = Engine().tensor("blk.0.attn_q.weight")
    >>> tensor.type, tensor.shape, tensor.trits.dtype
    ('I2_S', (256, 256), dtype('int8'))
    >>> tensor.trits[0, :8].tolist(), tensor.scales.shape
    ([1, -1, 0, 0, 0, -1, 1, 0], (1, 1))
    >>> bool((tensor.to_float() == tensor.trits * tensor.scales).all())
    True
    """

    @property
    def name(self) -> str:
        """Name in the file, such as "blk.0.attn_q.weight"."""
    @property
    def type(self) -> str:
        """Type in the file, such as "I2_S" or "F16"."""
    @property
    def shape(self) -> tuple[int, ...]:
        """Shape as numpy has it: (rows, columns) of a matrix, (length,) of a norm or bias."""
    @property
    def trits(self) -> npt.NDArray[np.int8] | None:
        """The weights as -1, 0 and 1, of shape [rows, columns]; None if the tensor is not ternary.

        A matrix is ternary if its type is (I2_S, TQ*_0, IQ*_BN, Q2_0, …), or if its values are -1, 0 and 1 times
        one scale.
        """
    @property
    def scales(self) -> npt.NDArray[np.float32] | None:
        """The scales of the trits; None if the tensor is not ternary.

        Of shape [1, 1] if the tensor has one scale; [rows, 1] if each row has one (IQ1_BN, IQ2_BN); [rows, columns /
        n] if each block of n columns has one (256 in TQ*_0, 128 or 64 in Q2_0).
        """
    def to_float(self) -> npt.NDArray[np.float32]:
        """The values as float32, of shape `shape`: the bits that the engine computes with.

        A projection is also multiplied by the value of the tensor `….scale`, if the file has one.
        """
    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]: ...

@final
class Trace:
    """The values inside a model, from `Engine.trace`. All arrays are the engine's own numbers."""

    @property
    def token_ids(self) -> list[int]:
        """The ids of the n positions."""
    @property
    def layers(self) -> dict[int, LayerTrace]:
        """The chosen layers by index."""
    @property
    def hidden(self) -> npt.NDArray[np.float32]:
        """The hidden states after the output norm, which the output head reads: [n, hidden size]."""
    @property
    def logits(self) -> npt.NDArray[np.float32]:
        """The logits: [n, vocabulary], the bits of `Engine.logits`."""

@final
class LayerTrace:
    """The values inside one layer, at n positions."""

    @property
    def layer(self) -> int:
        """Index of the layer, from 0."""
    @property
    def hidden(self) -> npt.NDArray[np.float32]:
        """The hidden states (residual stream) before the layer: [n, hidden size]."""
    @property
    def attention(self) -> npt.NDArray[np.float32]:
        """The attention weights after the softmax: [heads, n, n]. Row i of a head adds up to 1 and is 0 after column
        i. The engine itself divides by the sum of a row last, after it has added up the values. A gated delta net has
        none: [0, n, n].
        """
    @property
    def ffn(self) -> npt.NDArray[np.float32]:
        """The neurons of the feed-forward network, activation(gate) * up, before any norm: [n, feed-forward size]."""
    @property
    def projections(self) -> dict[str, ProjectionTrace]:
        """The linear layers by name: attn_q, attn_k, attn_v, attn_output, ffn_gate, ffn_up, ffn_down. A gated delta net
        has attn_qkv, attn_gate and ssm_out in place of the first four.
        """

@final
class ProjectionTrace:
    """What a linear layer read and gave, at n positions.

    With int8 activations, the output at position t is the integer sum `trits @ x_int8[t]` times
    `scale / x_scale[t]`, in float32, plus a bias if there is one; `scale` is that of the tensor (or of the row).
    """

    @property
    def tensor(self) -> str:
        """Name of its weights, for `Engine.tensor`."""
    @property
    def x(self) -> npt.NDArray[np.float32]:
        """The input as floats: [n, columns]. With int8 activations it is `x_int8 / x_scale`."""
    @property
    def x_int8(self) -> npt.NDArray[np.int8] | None:
        """The input rounded to int8: [n, columns]; None if the model does not round to one scale per token."""
    @property
    def x_scale(self) -> npt.NDArray[np.float32] | None:
        """For each position 127 / max|x|, by which its input was multiplied before rounding: [n]; None as above."""
    @property
    def output(self) -> npt.NDArray[np.float32]:
        """The output: [n, rows]. Queries and keys are not yet rotated."""

@final
class Engine:
    """An open model with its threads. It is immutable; any number of Python threads can share it.

    Calls of different threads and tasks run together: steps that wait when the engine becomes free share a forward
    pass, which reads the weights once for all of them. A prompt of one caller delays the answers of others little.

    The prefix cache keeps the KV cache of prompts and answers. Later prompts and contexts, of sessions as well, compute
    only what comes after the longest prefix that it holds.

    The logits are the same bits for every `isa`, `n_threads`, `n_batch` and `max_batch`, with or without a cache,
    whatever runs beside them.

    A pickled engine holds its path and options: it is opened again where it is unpickled, once for each process.

    Args:
        path: A GGUF file, the first file of a split model, or a directory with `config.json` and safetensors files. It
            is memory-mapped and must not change while the engine is open. "hf:owner/name" is a model of the Hugging
            Face Hub (see `from_pretrained`), "trit" the model inside the package, which is the default.
        n_ctx: Context length of a sequence in tokens. Default: the model's, at most 4096.
        n_threads: Number of threads that compute. Default: all processors that this process may use.
        isa: Instruction set, one of `bitnet.isas()`. Default: the environment variable BITNET_ISA, else the best.
        kv_type: Type of the KV cache, "f16" or "f32".
        act_quant: Quantization of the projections' inputs. "int8": 8 bits with one scale per token, as BitNet models
            were trained, or one per token and 128 columns if the weights have several scales; "int16": 16 bits with one
            scale per token and 128 columns, within 1e-3 of the logits' spread of float32; "int24": 24 bits, within
            1e-4, for models that magnify roundings; "none": float32. "auto": "int8" if every projection is ternary with
            one scale; "int16" if every projection is ternary with a scale for each group of columns, or "int24" if
            the model has gated delta nets, too; else "none".
        ffn_act: Activation of the feed-forward network, "silu", "relu2" or "gelu_tanh". Default: by architecture.
        n_batch: Largest number of tokens in one forward pass. Default: 128.
        lm_head: "auto" keeps an 8-bit copy of the output head that finds the few tokens that can be chosen, and
            computes exact logits for these only. "exact" computes all logits and has no copy; results do not change.
            "int8" defines the logits by the 8-bit copy alone: other logits, by about 1 % of their spread, and the
            stored head need not be in memory. It is refused for heads that are smaller than such a copy, and stands in
            the claim of receipts.
        max_batch: Largest number of completions that one forward pass advances; more wait for their turn. Default: 32.
        cache_bytes: Largest size of the prefix cache in bytes; what was not used for longest leaves first. 0 turns it
            off. Default: 512 MiB, or what a sequence of n_ctx tokens takes if that is more.
        progress: Read the file in advance and show a progress bar (needs tqdm, see the extra "notebook").

    Raises:
        ModelNotFoundError: The path does not exist.
        ModelFileError: The file is not GGUF, or is damaged.
        UnsupportedModelError: The architecture, a tensor type or a feature is not supported.
        ModelError: Tensors and metadata contradict each other or the architecture.
        ArgumentError: An argument is out of range.
        OutOfMemoryError: The memory could not be allocated.
        OSError: The file cannot be read.
        KeyboardInterrupt: Ctrl-C was pressed.

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
        act_quant: Literal["auto", "int8", "int16", "int24", "none"] = "auto",
        ffn_act: Literal["silu", "relu2", "gelu_tanh"] | None = None,
        n_batch: int | None = None,
        lm_head: Literal["auto", "exact", "int8"] = "auto",
        max_batch: int | None = None,
        cache_bytes: int | None = None,
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
        """Open a model of the Hugging Face Hub; download it first if it is not in the cache of `huggingface_hub`.

        It needs `pip install 'bitnet-engine[hub]'`. An interrupted download resumes, also in a later process. The
        SHA-256 of every download is checked. Concurrent processes download a file once. Progress is shown on stderr.

        Environment variables: HF_ENDPOINT sets another hub, HF_HUB_OFFLINE=1 implies local_files_only,
        HF_HUB_DISABLE_PROGRESS_BARS=1 hides the progress.

        Args:
            repo_id: The repository, "owner/name".
            filename: A GGUF file of the repository; the first file of a split model. Default: the only GGUF file; if
                there are several, the only one of the first type found among I2_S, TQ2_0, TQ1_0, IQ2_BN, IQ1_BN. Image
                projectors (`mmproj`) do not count. In a repository without GGUF files it is "config.json": the
                directory with its safetensors files.
            revision: A branch, a tag, or a commit (at least its first 7 digits). Default: "main".
            cache_dir: Folder of the cache. Default: that of `huggingface_hub`, see its HF_HOME.
            local_files_only: Do not use the network. Without it, the cache is also used if the hub is unreachable or
                fails; only a hub that says that the repository or revision does not exist (404) overrides the cache.
            token: Access token for the hub. Default: the token of `hf auth login`.
            options: The other arguments of `Engine`.

        Raises:
            ModelNotFoundError: The repository, revision or file does not exist; or the hub is unreachable and the cache
                does not have the file.
            ArgumentError: repo_id is not "owner/name", or the choice of the file is not clear; the message lists the
                files.
            BitnetError: huggingface_hub is not installed, the hub refuses access, the download fails, or the cache
                cannot be used.

        Also raises the errors of `Engine`.
        """
    @overload
    def logits(self, ids: str | _TokenIds) -> npt.NDArray[np.float32]:
        """Logits after every token. The prefix cache is neither used nor changed.

        Args:
            ids: Token ids, at most n_ctx; a text, which gets a BOS token if the model expects one; or a list of
                either, whose items share forward passes.

        Returns:
            float32 of shape [number of ids, n_vocab]; for a list, one array for each item.

        Raises:
            TokenIdError: An id is outside the vocabulary.
            ContextLengthError: There are more than n_ctx ids.
            TypeError: ids is not a sequence of integers.
            OutOfMemoryError: The memory could not be allocated.
            ModelError: A weight turned out to be damaged.
            ClosedError: The engine is closed.
            KeyboardInterrupt: Ctrl-C was pressed.
        """
    @overload
    def logits(self, ids: _Prompts) -> list[npt.NDArray[np.float32]]: ...
    def logits_batch(self, sequences: Sequence[_TokenIds]) -> list[npt.NDArray[np.float32]]:
        """Logits of several sequences at once, which share every forward pass. Each array has the bits of `logits`."""
    @overload
    def logprobs(self, ids: str | _TokenIds) -> npt.NDArray[np.float32]:
        """Log-probability of each token, given the tokens before it. The prefix cache is neither used nor changed.

        The natural logarithm of the softmax over the logits, computed in float64 in a fixed order. At most `n_batch`
        rows of logits are in memory at a time.

        Args:
            ids: As for `logits`.

        Returns:
            float32 of shape [number of ids - 1]: the first token has none. Shape [0] if there are no ids. For a list,
            one array for each item.

        Raises the errors of `logits`.
        """
    @overload
    def logprobs(self, ids: _Prompts) -> list[npt.NDArray[np.float32]]: ...
    def _likelihoods(self, ids: _TokenIds, k: int) -> list[tuple[Logprob, list[Logprob]]]:
        """For each id but the first its log-probability and the `k` most likely tokens in its place, best first.

        The prefix cache keeps the ids but the last.
        """
    @overload
    def score(self, context: str, continuations: str | Sequence[str]) -> Scores:
        """Log-probabilities of several continuations of a context, such as the choices of a question.

        A context is computed once, also across calls: the prefix cache keeps it. The continuations, of all contexts of
        a list, share forward passes. The bits are those of `logprobs`.

        Texts are converted to ids as lm-evaluation-harness does it. The context gets a BOS token if the model expects
        one. Context and continuation are tokenized together; the ids after the context's are the continuation's. White
        space at the end of the context moves to the continuations. Control tokens in texts are plain text.

        Args:
            context: A text or token ids; or a list of either.
            continuations: Texts if the context is a text, else sequences of ids; or a single one. Context and
                continuation may have n_ctx + 1 ids together. An empty continuation has log-probability 0. For a list of
                contexts: a list with the continuations of each.

        Returns:
            `Scores` with one entry per continuation, in order; for a list of contexts, a list of them.

        Raises:
            ArgumentError: The context has no ids, or a text has no id of its own after the context.

        Also raises the errors of `logits`.
        """
    @overload
    def score(self, context: _TokenIds, continuations: _TokenIds | Sequence[_TokenIds]) -> Scores: ...
    @overload
    def score(self, context: list[str], continuations: Sequence[str | Sequence[str]]) -> list[Scores]: ...
    @overload
    def score(
        self, context: list[list[int]], continuations: Sequence[_TokenIds | Sequence[_TokenIds]]
    ) -> list[Scores]: ...
    @overload
    def perplexity(self, text: str | _TokenIds, stride: int | None = None) -> float:
        """Perplexity of a text: exp of the mean negative log-probability of its tokens.

        A window of n_ctx tokens moves over the text in steps of `stride`. Each token counts once, in the first window
        that contains it, so that after the first window every token has at least n_ctx - stride tokens before it. The
        first token of a window does not count.

        Args:
            text: A text, which gets a BOS token if the model expects one; token ids; or a list of either, which gives a
                list of perplexities.
            stride: Step of the window in tokens. Default: half of n_ctx, rounded up.

        Raises:
            ArgumentError: stride is larger than n_ctx, or the text has fewer than two tokens.

        Also raises the errors of `logits`.
        """
    @overload
    def perplexity(self, text: _Prompts, stride: int | None = None) -> list[float]: ...
    def embed(
        self,
        texts: str | _TokenIds | _Prompts,
        pooling: Literal["mean", "last", "cls"] | None = None,
        normalize: bool = False,
    ) -> npt.NDArray[np.float32]:
        """One vector for each text: the hidden states after the final norm, pooled.

        The texts share forward passes, which does not change the bits. The prefix cache is neither used nor changed.

        Args:
            texts: A list of texts, or of sequences of token ids; or a single one. A text gets a BOS token if the model
                expects one, and a token at its end if the file asks for one, as those of Microsoft's embedding models
                do. Ids are taken as they are.
            pooling: "mean" averages over all tokens, in float64; "last" takes the last token, "cls" the first. Default:
                what the file states (the metadata key pooling_type), or else "mean".
            normalize: Scale each vector to Euclidean length 1.

        Returns:
            float32 of shape [len(texts), hidden size]; [hidden size] for a single text.

        Raises:
            ArgumentError: A text has no ids.

        Also raises the errors of `logits`.
        """
    def tensor(self, name: str) -> Tensor:
        """Read a tensor of the model as trits with their scales, or as floats.

        Args:
            name: Name in the file, one of `tensor_names`.

        Raises:
            ArgumentError: There is no such tensor. The message lists names that look alike.
            ModelError: The tensor holds an invalid code, or a value that is not finite.
            OutOfMemoryError: The memory could not be allocated.

        >>> Engine().tensor("output_norm.weight").to_float().shape
        (256,)
        """
    @property
    def tensor_names(self) -> list[str]:
        """Names of all tensors, in the order of the file."""
    def trace(self, prompt: str | _TokenIds, layers: int | Sequence[int] | None = None) -> Trace:
        """Run a sequence from its beginning and return the values inside the model.

        Args:
            prompt: A text, encoded as by `generate`, or token ids.
            layers: Indices of the layers to record; -1 is the last. Default: all.

        Raises:
            ArgumentError: There is no such layer, or the trace would be larger than 2 GiB. Choose fewer layers then, or
                give fewer tokens.
            TokenIdError, ContextLengthError, ClosedError, OutOfMemoryError: As for `logits`.
            KeyboardInterrupt: Ctrl-C was pressed.

        >>> engine = Engine()
        >>> trace = engine.trace("2+2=", layers=[0, -1])
        >>> list(trace.layers), trace.logits.shape == (len(trace.token_ids), engine.n_vocab)
        ([0, 4], True)
        >>> trace.layers[0].attention.shape  # heads, positions, positions
        (4, 5, 5)
        """
    def prefill(self, ids: _TokenIds, *, progress: bool = False) -> Prefill:
        """Compute a prompt and keep it in the prefix cache.

        Only the part after the longest common prefix with the cache is computed. After an error or Ctrl-C the cache is
        unchanged; with a progress bar it keeps the forward passes that were finished.

        Args:
            ids: Token ids.
            progress: Show a progress bar (needs tqdm).

        Raises the errors of `logits`.
        """
    @overload
    def generate_tokens(
        self, ids: _TokenIds, max_tokens: int | None = None, stop_token_ids: _TokenIds | None = None
    ) -> list[int]:
        """Continue a prompt by greedy decoding. The lowest id wins a tie.

        Generation ends after max_tokens, before a stop id, or when the context is full. The prefix cache is used and
        updated.

        A list of prompts gives a list of results, each the same as for the prompt alone. All sequences share every
        forward pass.

        Args:
            ids: Token ids, or a list of prompts.
            max_tokens: Largest number of tokens to generate. Default: None, up to a stop or the end of the context.
            stop_token_ids: Ids that end generation. Default: none.

        Returns:
            The new ids, without a stop id.

        Raises:
            ArgumentError: A prompt is empty.

        Also raises the errors of `logits`.
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
        """The model's tokenizer.

        Raises:
            ModelError: The file has no tokenizer, or one that cannot be used.
        """
    @property
    def template(self) -> Template:
        """The model's chat template.

        Raises:
            TemplateError: The template of the file cannot be used.
        """
    def encode(self, text: str, add_bos: bool = False, parse_special: bool = False) -> list[int]:
        """Same as `Tokenizer.encode`."""
    def decode(self, ids: _TokenIds, skip_special_tokens: bool = True) -> str:
        """Same as `Tokenizer.decode`."""
    def count_tokens(self, prompt: str | _TokenIds | Sequence[_Message] | _Prompts) -> Any:
        """Number of tokens of a prompt, as `generate` computes it, or of messages, as `chat` does.

        Args:
            prompt: A text (with the BOS token if the model expects one), token ids, or a list of messages. A list of
                texts or of lists of ids gives a list of numbers.

        >>> from bitnet import Engine
        >>> Engine().count_tokens([{"role": "user", "content": "What is 2+2?"}])
        14
        """
    def stream(
        self, prompt: str | _TokenIds, params: SamplingParams | None = None, **keywords: Unpack[_Sampling]
    ) -> Stream:
        """Start to continue a prompt and return the completion as a stream. The prefix cache is used and updated.

        The model sees the prompt as it is. To ask a model that has a chat template, use `chat_stream`; a text that
        looks like a mistake gives a `BitnetWarning`.

        Args:
            prompt: A text or token ids. A text gets a BOS token if the model expects one, and control tokens in it are
                plain text. Ids are used unchanged.
            params: Sampling parameters.
            keywords: Sampling parameters one by one, see `SamplingParams`; they override `params`.

        Raises:
            ArgumentError: The prompt is empty, or a parameter is out of range.

        Also raises the errors of `logits`.
        """
    @overload
    def generate(
        self,
        prompt: str | _TokenIds,
        params: SamplingParams | None = None,
        *,
        n: None = None,
        progress: bool = False,
        **keywords: Unpack[_Sampling],
    ) -> Completion:
        """Return the whole completion of a prompt. A list of prompts gives a list of completions, computed
        together.

        Args:
            prompt: As for `stream`, or a list of prompts.
            params: As for `stream`; for a list of prompts also a list, with one for each.
            n: Return a list of this many completions for each prompt. Completion i uses the seed `seed + i`, if a seed
                is given. Default: None, one completion that is not in a list.
            progress: Show a progress bar over a list of prompts (needs tqdm).
            keywords: As for `stream`.

        Raises the errors of `stream`.
        """
    @overload
    def generate(
        self,
        prompt: _Prompts,
        params: SamplingParams | list[SamplingParams] | None = None,
        *,
        n: None = None,
        progress: bool = False,
        **keywords: Unpack[_Sampling],
    ) -> list[Completion]: ...
    @overload
    def generate(
        self,
        prompt: str | _TokenIds,
        params: SamplingParams | None = None,
        *,
        n: int,
        progress: bool = False,
        **keywords: Unpack[_Sampling],
    ) -> list[Completion]: ...
    @overload
    def generate(
        self,
        prompt: _Prompts,
        params: SamplingParams | list[SamplingParams] | None = None,
        *,
        n: int,
        progress: bool = False,
        **keywords: Unpack[_Sampling],
    ) -> list[list[Completion]]: ...
    @overload
    def agenerate(
        self,
        prompt: str | _TokenIds,
        params: SamplingParams | None = None,
        *,
        n: None = None,
        **keywords: Unpack[_Sampling],
    ) -> Coroutine[Any, Any, Completion]:
        """Same as `generate`, for asyncio. The event loop is never blocked, and concurrent calls take turns token by
        token.

        Cancelling the task abandons the step in progress. Invalid calls, such as on a closed engine or with a parameter
        out of range, raise immediately; other errors are raised when you await.
        """
    @overload
    def agenerate(
        self,
        prompt: _Prompts,
        params: SamplingParams | list[SamplingParams] | None = None,
        *,
        n: None = None,
        **keywords: Unpack[_Sampling],
    ) -> Coroutine[Any, Any, list[Completion]]: ...
    @overload
    def agenerate(
        self,
        prompt: str | _TokenIds,
        params: SamplingParams | None = None,
        *,
        n: int,
        **keywords: Unpack[_Sampling],
    ) -> Coroutine[Any, Any, list[Completion]]: ...
    @overload
    def agenerate(
        self,
        prompt: _Prompts,
        params: SamplingParams | list[SamplingParams] | None = None,
        *,
        n: int,
        **keywords: Unpack[_Sampling],
    ) -> Coroutine[Any, Any, list[list[Completion]]]: ...
    @overload
    def chat(
        self,
        messages: Sequence[_Message],
        params: SamplingParams | None = None,
        *,
        tools: Sequence[dict[str, Any]] | None = None,
        tool_choice: str | dict[str, Any] | None = "auto",
        parallel_tool_calls: bool | None = True,
        template: Template | str | None = None,
        add_generation_prompt: bool | None = None,
        continue_final_message: bool = False,
        enable_thinking: bool | None = None,
        chat_template_kwargs: dict[str, Any] | None = None,
        n: None = None,
        progress: bool = False,
        **keywords: Unpack[_Sampling],
    ) -> Completion:
        """Answer messages: render them with the chat template and return the assistant's next message.

        Nothing is kept between calls except the prefix cache; `ChatSession` keeps the conversation. A list of
        conversations gives a list of completions, computed together.

        Args:
            messages: Dicts with "role" and "content", or `ChatTurn`s; or a list of such lists. A content that is a list
                of text parts is joined by line breaks. An earlier answer may have its thoughts as "reasoning_content"
                or "reasoning"; the template decides whether they stay. It may have "tool_calls", and a message
                {"role": "tool", "tool_call_id": "...", "content": "..."} has the result of a call. Text in messages
                never becomes a control token.
            params: Sampling parameters; for a list of conversations also a list, with one for each.
            tools: Functions that the model may call, as dicts: {"type": "function", "function": {"name": "...",
                "description": "...", "parameters": JSON schema}}. The template shows them to the model; if it cannot,
                they are described in the system prompt. `tool_calls` of the completion has the calls. docs/tools.md
                has an example.
            tool_choice: "auto": the model decides whether it calls a tool. "none": it gets to see no tools. "required":
                it calls at least one. The name of a tool, or {"type": "function", "function": {"name": "..."}}: it
                makes one call of this tool. The last two constrain the answer to calls that follow the tools' schemas.
            parallel_tool_calls: Whether an answer may have several calls. If not, only the first one is kept.
            template: A `Template`, the name of a built-in one, or the name of one of several in the model. Default: the
                model's own.
            add_generation_prompt: End the prompt with the start of an assistant message. Default: True, unless
                `continue_final_message`.
            continue_final_message: Leave the final message open, so that the model continues it. The completion holds
                only what the model adds.
            enable_thinking: Whether the model thinks before it answers: the template's variable of this name. Default:
                None, the template decides. The thoughts are `reasoning` of the completion.
            chat_template_kwargs: Other variables of the template, such as {"documents": [...]}.
            n: Return a list of this many completions, as for `generate`.
            progress: Show a progress bar over a list of conversations (needs tqdm).
            keywords: Sampling parameters one by one, see `SamplingParams`; they override `params`.

        Raises:
            TypeError: Something is not a message; the error names `messages[i]`.
            ArgumentError: `enable_thinking` is given, and the template does not read it; a tool has no name; or
                `tool_choice` asks for a tool that is not there.
            TemplateError: The template fails, or refuses the conversation.
            ContextLengthError: The messages do not fit into the context.

        Also raises the errors of `stream`.

        >>> from bitnet import Engine
        >>> engine = Engine()
        >>> engine.chat([{"role": "user", "content": "What is 2+2?"}]).text
        '2+2=4.'
        >>> begun = [{"role": "user", "content": "What is 2+2?"}, {"role": "assistant", "content": "2+2="}]
        >>> engine.chat(begun, continue_final_message=True).text
        '4.'
        """
    @overload
    def chat(
        self,
        messages: list[list[_Message]] | list[list[dict[str, Any]]] | list[list[ChatTurn]],
        params: SamplingParams | list[SamplingParams] | None = None,
        *,
        tools: Sequence[dict[str, Any]] | None = None,
        tool_choice: str | dict[str, Any] | None = "auto",
        parallel_tool_calls: bool | None = True,
        template: Template | str | None = None,
        add_generation_prompt: bool | None = None,
        continue_final_message: bool = False,
        enable_thinking: bool | None = None,
        chat_template_kwargs: dict[str, Any] | None = None,
        n: None = None,
        progress: bool = False,
        **keywords: Unpack[_Sampling],
    ) -> list[Completion]: ...
    @overload
    def chat(
        self,
        messages: Sequence[_Message],
        params: SamplingParams | None = None,
        *,
        tools: Sequence[dict[str, Any]] | None = None,
        tool_choice: str | dict[str, Any] | None = "auto",
        parallel_tool_calls: bool | None = True,
        template: Template | str | None = None,
        add_generation_prompt: bool | None = None,
        continue_final_message: bool = False,
        enable_thinking: bool | None = None,
        chat_template_kwargs: dict[str, Any] | None = None,
        n: int,
        progress: bool = False,
        **keywords: Unpack[_Sampling],
    ) -> list[Completion]: ...
    @overload
    def chat(
        self,
        messages: list[list[_Message]] | list[list[dict[str, Any]]] | list[list[ChatTurn]],
        params: SamplingParams | list[SamplingParams] | None = None,
        *,
        tools: Sequence[dict[str, Any]] | None = None,
        tool_choice: str | dict[str, Any] | None = "auto",
        parallel_tool_calls: bool | None = True,
        template: Template | str | None = None,
        add_generation_prompt: bool | None = None,
        continue_final_message: bool = False,
        enable_thinking: bool | None = None,
        chat_template_kwargs: dict[str, Any] | None = None,
        n: int,
        progress: bool = False,
        **keywords: Unpack[_Sampling],
    ) -> list[list[Completion]]: ...
    @overload
    def achat(
        self,
        messages: Sequence[_Message],
        params: SamplingParams | None = None,
        *,
        tools: Sequence[dict[str, Any]] | None = None,
        tool_choice: str | dict[str, Any] | None = "auto",
        parallel_tool_calls: bool | None = True,
        template: Template | str | None = None,
        add_generation_prompt: bool | None = None,
        continue_final_message: bool = False,
        enable_thinking: bool | None = None,
        chat_template_kwargs: dict[str, Any] | None = None,
        n: None = None,
        **keywords: Unpack[_Sampling],
    ) -> Coroutine[Any, Any, Completion]:
        """Same as `chat`, for asyncio; see `agenerate`."""
    @overload
    def achat(
        self,
        messages: list[list[_Message]] | list[list[dict[str, Any]]] | list[list[ChatTurn]],
        params: SamplingParams | list[SamplingParams] | None = None,
        *,
        tools: Sequence[dict[str, Any]] | None = None,
        tool_choice: str | dict[str, Any] | None = "auto",
        parallel_tool_calls: bool | None = True,
        template: Template | str | None = None,
        add_generation_prompt: bool | None = None,
        continue_final_message: bool = False,
        enable_thinking: bool | None = None,
        chat_template_kwargs: dict[str, Any] | None = None,
        n: None = None,
        **keywords: Unpack[_Sampling],
    ) -> Coroutine[Any, Any, list[Completion]]: ...
    @overload
    def achat(
        self,
        messages: Sequence[_Message],
        params: SamplingParams | None = None,
        *,
        tools: Sequence[dict[str, Any]] | None = None,
        tool_choice: str | dict[str, Any] | None = "auto",
        parallel_tool_calls: bool | None = True,
        template: Template | str | None = None,
        add_generation_prompt: bool | None = None,
        continue_final_message: bool = False,
        enable_thinking: bool | None = None,
        chat_template_kwargs: dict[str, Any] | None = None,
        n: int,
        **keywords: Unpack[_Sampling],
    ) -> Coroutine[Any, Any, list[Completion]]: ...
    @overload
    def achat(
        self,
        messages: list[list[_Message]] | list[list[dict[str, Any]]] | list[list[ChatTurn]],
        params: SamplingParams | list[SamplingParams] | None = None,
        *,
        tools: Sequence[dict[str, Any]] | None = None,
        tool_choice: str | dict[str, Any] | None = "auto",
        parallel_tool_calls: bool | None = True,
        template: Template | str | None = None,
        add_generation_prompt: bool | None = None,
        continue_final_message: bool = False,
        enable_thinking: bool | None = None,
        chat_template_kwargs: dict[str, Any] | None = None,
        n: int,
        **keywords: Unpack[_Sampling],
    ) -> Coroutine[Any, Any, list[list[Completion]]]: ...
    def chat_stream(
        self,
        messages: Sequence[_Message],
        params: SamplingParams | None = None,
        *,
        tools: Sequence[dict[str, Any]] | None = None,
        tool_choice: str | dict[str, Any] | None = "auto",
        parallel_tool_calls: bool | None = True,
        template: Template | str | None = None,
        add_generation_prompt: bool | None = None,
        continue_final_message: bool = False,
        enable_thinking: bool | None = None,
        chat_template_kwargs: dict[str, Any] | None = None,
        **keywords: Unpack[_Sampling],
    ) -> Stream:
        """Start to answer messages and return the answer as a stream. Arguments and errors as for `chat`."""
    @overload
    def replay(self, receipt: Receipt, prompt: str | _TokenIds | None = None) -> bool:
        """Compute the completion of a receipt again. Return whether it has the same ids and the same end.

        The prompt and the receipt's ids are computed like one prompt, and each id is chosen again from the logits
        before it. This takes a fraction of the time of the completion. A redacted receipt does not hold its ids, so
        its completion is generated.

        A list of receipts gives a list of results; they share forward passes. A cancelled completion is computed up to
        where it stopped. Some fields of a receipt cannot be checked: docs/receipts.md lists them.

        Args:
            receipt: The receipt, or a list of receipts.
            prompt: The prompt of a redacted receipt, as for `stream`; for a list of receipts a list, with None for
                those that hold their prompt. If a redacted stop string ended the completion, only the ids are
                compared.

        Raises:
            ReceiptError: The receipt belongs to another model, `kv_type`, `act_quant`, `ffn_act`, `lm_head` or version
                of the numerics; or the context of the engine is too short for it; or what it says of the model or the
                system prompt is not so; or it is redacted and the prompt is missing or is not the receipt's. For a
                list, the message names the index.
        """
    @overload
    def replay(
        self, receipt: Sequence[Receipt], prompt: Sequence[str | _TokenIds | None] | None = None
    ) -> list[bool]: ...
    @overload
    def replay_ids(self, receipt: Receipt, prompt: str | _TokenIds | None = None) -> list[int]:
        """Compute the completion of a receipt again and return its ids. Arguments and errors as for `replay`.

        Up to the first id that differs from the receipt's, the ids are the receipt's. From there on the completion is
        generated, as long as that of the receipt.
        """
    @overload
    def replay_ids(
        self, receipt: Sequence[Receipt], prompt: Sequence[str | _TokenIds | None] | None = None
    ) -> list[list[int]]: ...
    def _follow_form(self, ids: _TokenIds, **keywords: Any) -> list[tuple[int, float]]: ...
    def _replay(self, receipt: Receipt, prompt: str | _TokenIds | None = None) -> tuple[bool, list[int], list[str]]: ...
    def _replay_each(
        self,
        receipts: Sequence[Receipt],
        prompts: Sequence[str | _TokenIds | None] | None,
        report: Callable[[int, tuple[bool, list[int], list[str]] | Exception], None],
    ) -> None: ...
    def clear_cache(self) -> None:
        """Empty the prefix cache. Sessions keep their own KV caches."""
    @property
    def cached_tokens(self) -> int:
        """Number of tokens in the prefix cache; what sequences have in common counts once."""
    @property
    def memory(self) -> dict[str, int]:
        """Sizes in bytes.

        packed_weights: weights in memory of the engine; mapped_weights: weights that are read from the mapped file,
        which processes share: of a packed model all of them; head_copy: the copy of the output head (8-bit, or packed
        trits), made when a completion first needs it, unless it is mapped; head_upper: the upper six bits of an 8-bit
        one, which the pass of a single token reads first, made by the first of these; neuron_copy: the feed-forward
        matrices by neurons, in models with relu² large enough to skip zeros, made by the first pass of a single
        token; kv_cache: the prefix cache; file: the model file; resident: memory that the whole process takes now;
        resident_file: the part of it that are pages of mapped files, which the system drops when it needs memory. The
        last two are 0 where the system does not tell them (they come from Linux's /proc).
        """
    @property
    def per_token(self) -> dict[str, int]:
        """Cost of one token.

        ternary_macs: multiply-adds of int8 activations and ternary weights; weight_bytes: weights read by one decode
        step, for any number of sequences; kv_bytes: keys and values read for each earlier token of the sequence;
        state_bytes: recurrent state of a sequence, whatever its length, which each step reads and writes (0 for models
        without gated delta nets).
        """
    @property
    def lm_head(self) -> str:
        """How logits are computed: "auto", "exact" or "int8"."""
    @property
    def path(self) -> Path:
        """Path of the model, as given."""
    @property
    def arch(self) -> str:
        """Architecture: `general.architecture` of the file."""
    @property
    def n_vocab(self) -> int:
        """Size of the vocabulary."""
    @property
    def n_ctx(self) -> int:
        """Context length of a sequence in tokens."""
    @property
    def n_threads(self) -> int:
        """Number of threads that compute."""
    @property
    def n_batch(self) -> int:
        """Largest number of tokens in one forward pass."""
    @property
    def max_batch(self) -> int:
        """Largest number of completions that one forward pass advances."""
    @property
    def cache_bytes(self) -> int:
        """Largest size of the prefix cache in bytes."""
    @property
    def isa(self) -> str:
        """Instruction set in use."""
    @property
    def kv_type(self) -> str:
        """Type of the KV cache: "f16" or "f32"."""
    @property
    def act_quant(self) -> str:
        """Quantization of the projections' inputs: "int8", "int16", "int24" or "none"."""
    @property
    def ffn_act(self) -> str:
        """Activation of the feed-forward network: "silu", "relu2" or "gelu_tanh"."""
    @property
    def warnings(self) -> list[str]:
        """What looks wrong in the file or its weights, although the model runs.

        Opening the engine gives each of them as a `BitnetWarning`.
        """
    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
    def close(self) -> None:
        """Release the model. Calls and streams in progress continue to their end; later calls raise ClosedError."""
    def __call__(self, *_arguments: Any, **_keywords: Any) -> NoReturn: ...
    def __copy__(self) -> Engine: ...
    def __deepcopy__(self, _memo: Any) -> Engine: ...
    def __enter__(self) -> Engine: ...
    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None, /
    ) -> None: ...
    def _repr_html_(self) -> str: ...
    def _repr_mimebundle_(self, **_options: Any) -> dict[str, str]: ...

def isas() -> list[str]:
    """Instruction sets of this processor that the engine has kernels for; the best is last."""

def inspect(path: _Path, *, weights: bool = False) -> dict[str, Any]:
    """Describe a model file without running it.

    Args:
        path: A GGUF file, or a directory with `config.json` and safetensors files.
        weights: Also count the zeros of ternary tensors. This reads all weights once more.

    Returns:
        A dict with the keys path, format ("gguf", "safetensors" or "packed"), version (of GGUF; None for a directory),
        file_size (bytes), arch, config, graph (list of phrases: how the graph differs from Llama's), activation,
        activation_reason, act_quant, act_quant_reason, metadata (list of key, type, value; an array has its length, and
        at most 64 items as value), tensors (list of name, type, shape, bytes, zeros), types (type -> tensors, bytes),
        warnings, error. zeros is the share of a ternary tensor's weights that are zero; None for other tensors, or if
        weights is false. If the file is valid but the engine cannot run it, error says why; config, graph, activation
        and act_quant are None, and the bytes of a tensor reach up to the next tensor.

    Raises the errors of `Engine` for a file that is missing or damaged.
    """

def pack(
    model: _Path,
    out: _Path,
    *,
    layout: Literal["auto", "two-bit", "base3"] = "auto",
    force: bool = False,
    n_threads: int | None = None,
) -> dict[str, Any]:
    """Write a model in the layout that the engine computes with.

    `Engine(out)` maps such a file: it opens without packing weights, and processes share its memory. Its answers and
    the digests of its receipts are those of the model. The file holds all that the model needs.

    Args:
        model: A GGUF file, a directory with `config.json` and safetensors files, or the name of a model.
        out: The file to write. It appears when it is complete.
        layout: "two-bit": four trits in a byte; "base3": five, where rows are long enough. Every processor reads both.
            Default: the one that is faster on this processor.
        force: Replace an existing file.
        n_threads: Number of threads. Default: one for each core that this process may use.

    Returns:
        A dict with the keys path, bytes, content (BLAKE3 of the file's content), layout, fingerprint (of the model),
        model_file and model_bytes.

    Raises ArgumentError if `out` exists or `model` is packed already, and UnsupportedModelError if the model has no
    ternary projections.
    """

def check_packed(path: _Path, model: _Path | None = None, *, n_threads: int | None = None) -> dict[str, Any]:
    """Check that a packed file is whole: its content has the hash that it states.

    Args:
        path: A file that `pack` wrote.
        model: The model that was packed. If given, it is packed again in memory, and must give the same file: this
            proves the fingerprint that receipts of the packed model state.
        n_threads: Number of threads. Default: one for each core that this process may use.

    Returns:
        A dict as `pack` returns it.

    Raises ModelFileError if the file is damaged or of another model.
    """

def processor() -> dict[str, Any]:
    """Facts about the processor: name, cores (that this process may use), isas, target."""

def read_bandwidth(n_threads: int, megabytes: int | None = None) -> float:
    """Measure how fast memory can be read, in gigabytes (1e9 bytes) per second. The best of three runs counts.

    Args:
        n_threads: Number of threads that read.
        megabytes: Amount of memory to read, in MiB. Default: 512.
    """

def dot_peak(n_threads: int, isa: str | None = None) -> float:
    """Measure the peak rate of the integer dot product on data in registers, in multiply-adds per second.

    The best of three runs counts.

    Args:
        n_threads: Number of threads that compute.
        isa: Instruction set. Default: the best.
    """

def look_up_peak(n_threads: int, isa: str | None = None) -> float:
    """Measure the rate at which sums of four activations are looked up, in multiply-adds per second.

    The sums are in tables in the nearest cache. Each look-up stands for four multiply-adds of each token in a register.
    0.0 if products of many tokens, such as prompts, go by the integer dot product instead: because the instruction set
    has no such kernel, or because dots are faster on this processor, which is measured once in a process. The best of
    three runs counts.

    Args:
        n_threads: Number of threads that compute.
        isa: Instruction set. Default: the best.
    """

@final
class _Together:
    """The completions of streams of one engine, in order; the streams are pulled to their ends together.

    `streams` is asked for more streams as others end. A stream that fails raises its error in its place; the next call
    gives the completion of the next stream.
    """

    def __new__(cls, streams: Iterable[Stream]) -> _Together: ...
    def __iter__(self) -> _Together: ...
    def __next__(self) -> Completion: ...

def _sampling_parameters() -> list[tuple[str, str, str, str, str | None]]:
    """The list of sampling parameters, for tests: name, type and default as in these stubs, a line of help, and the
    version that added the parameter (None for 0.1.0)."""

def _sampling_schema() -> str:
    """The JSON Schema of `claim.sampling` in a receipt, as JSON text."""
