"""Answer, score and embed data sets of any size with Ray Data: pip install 'bitnet-engine[ray]'.

The classes here are for `map_batches` of a data set of Ray. Each actor opens the model once, with as many threads as
Ray has given it CPUs:

    import ray
    from bitnet.ray import Answer

    rows = ray.data.read_parquet("questions/")  # a column "prompt", or "messages"
    rows.map_batches(
        Answer, fn_constructor_args=["model.gguf"], fn_constructor_kwargs={"max_tokens": 64},
        compute=ray.data.ActorPoolStrategy(size=4), num_cpus=8, batch_size=32, batch_format="pyarrow",
    ).write_parquet("answers/")

Here four actors of eight threads share the work. docs/ray.md says more.
"""

import hashlib
import json
import math
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from inspect import signature
from typing import Any, Literal

from . import ChatSession, Completion, Engine, SamplingParams, Template
from ._requests import REFUSALS, take_prompt, take_sampling, take_thinking
from .errors import ArgumentError

try:
    import pyarrow as pa
    import ray
except ImportError as _error:
    raise ImportError("bitnet.ray needs Ray Data: pip install 'bitnet-engine[ray]'") from _error

__all__ = ["Answer", "Embed", "Score"]

_ENGINE_OPTIONS = [name for name in signature(Engine).parameters if name not in ("path", "progress")]
_SAMPLING = [name for name in dir(SamplingParams) if not name.startswith("_")]
_PLACE = "this row"
"""Where a wrong value is, for error messages."""

_Model = str | os.PathLike[str] | None


class _Actor:
    """An open engine, and the input and output of batches."""

    _name: str
    """The class, for error messages; Ray derives classes of its own."""

    def __init__(self, model: _Model, prefix: str, options: dict[str, Any], known: Iterable[str]) -> None:
        if unknown := sorted(options.keys() - _ENGINE_OPTIONS):
            names = ", ".join([*known, *_ENGINE_OPTIONS])
            raise ArgumentError(f"{self._name} has no argument {', '.join(unknown)}; its arguments are {names}")
        self.engine = Engine(model, **{"n_threads": _assigned_threads(), **options})
        self._prefix = prefix

    def _rows(self, batch: Any, needed: Iterable[str], others: Iterable[str] = ()) -> list[dict[str, Any]]:
        """The values of these columns in each row. A value that is null is left out, as if there were no column."""
        if not isinstance(batch, pa.Table):
            raise ArgumentError(
                f"the batch is a {type(batch).__name__}, expected a pyarrow.Table, which keeps types and missing "
                'values: pass batch_format="pyarrow" to map_batches'
            )
        needed = list(needed)
        if not any(name in batch.column_names for name in needed):
            raise ArgumentError(
                f"the data set has no column {' or '.join(needed)}, its columns are {', '.join(batch.column_names)}; "
                f"name the right one: {needed[0]}=COLUMN"
            )
        columns = {name: batch.column(name) for name in (*needed, *others) if name in batch.column_names}
        values = {name: [_plain(value) for value in column.to_pylist()] for name, column in columns.items()}
        return [
            {name: values[name][i] for name in values if values[name][i] is not None} for i in range(batch.num_rows)
        ]

    def _with(self, batch: Any, columns: dict[str, tuple[Any, list[Any]]]) -> Any:
        """The batch with these columns added: a type and the values of each."""
        for name, (kind, values) in columns.items():
            if self._prefix + name in batch.column_names:
                raise ArgumentError(
                    f"the data set already has a column {self._prefix + name}; rename it, drop it, or put something "
                    'before the names of the new columns, such as prefix="answer_"'
                )
            batch = batch.append_column(self._prefix + name, pa.array(values, kind))
        return batch


@dataclass(frozen=True)
class _Request:
    """A row that can be answered."""

    row: int
    prompt: str | list[int] | None
    """None if there are messages."""
    messages: list[dict[str, str]]
    enable_thinking: bool | None
    params: SamplingParams


class Answer(_Actor):
    """Answers prompts or conversations: a batch's rows together, each with the bits that it has alone.

    Columns that it reads, all but one of the first two optional:
        prompt: A text, or a list of token ids, to continue.
        messages: A conversation: a list of structs with role and content (and perhaps reasoning). A row has either this
            or a prompt.
        enable_thinking: As for `Engine.chat`, for this row.
        temperature, max_tokens, seed, stop and all other names of `SamplingParams`: They override the parameters that
            are given here. A null leaves them.

    Columns that it adds; all others stay as they are:
        text, reasoning, finish_reason, prompt_tokens, completion_tokens: As in `Completion`.
        digest: The digest of the receipt.
        receipt: The receipt as JSON text, with `receipts=True`. `Receipt.from_json` reads it.
        error: Why the row cannot be answered, such as a prompt that is too long; then those above are null. Otherwise
            this is null.

    A row without a seed gets one that is computed from its prompt or conversation, so the same rows give the same
    answers and digests in every run, on one machine and on many. For several answers to one prompt, give each row a
    seed.

    Args:
        model: A path, which must exist on every machine, or a name as for `Engine`. Default: the model in the package.
        prompt: Name of the column with prompts.
        messages: Name of the column with conversations.
        chat: Treat a prompt that is a text as a user's message.
        system: The system prompt of conversations that have none.
        template: The chat template, as for `Engine.chat`.
        enable_thinking: As for `Engine.chat`.
        receipts: Add the column receipt.
        prefix: Text before the names of the added columns.
        params: Sampling parameters for all rows.
        options: Sampling parameters and arguments of `Engine`, one by one. Default of n_threads: the number of CPUs
            that Ray has assigned to the actor, at least 1.

    Raises ArgumentError for an unknown argument, and as `Engine`.
    """

    _name = "Answer"

    def __init__(
        self,
        model: _Model = None,
        *,
        prompt: str = "prompt",
        messages: str = "messages",
        chat: bool = False,
        system: str | None = None,
        template: Template | str | None = None,
        enable_thinking: bool | None = None,
        receipts: bool = False,
        prefix: str = "",
        params: SamplingParams | None = None,
        **options: Any,
    ) -> None:
        common = params or SamplingParams()
        given = {name: options.pop(name) for name in _SAMPLING if name in options}
        self._sampling = {name: getattr(common, name) for name in _SAMPLING} | given
        SamplingParams(**self._sampling)  # raises for a wrong value
        known = [name for name in signature(Answer).parameters if name != "options"]
        super().__init__(model, prefix, options, [*known, *_SAMPLING])
        if chat or template is not None or enable_thinking is not None:
            session = ChatSession(self.engine, template=template, enable_thinking=enable_thinking)
            template = session.template  # finds a wrong template now, not in the first batch
        self._prompt, self._messages, self._chat, self._system = prompt, messages, chat, system
        self._template, self._enable_thinking, self._receipts = template, enable_thinking, receipts

    def __call__(self, batch: Any) -> Any:
        """Answer the rows of a pyarrow.Table, and return it with the answers.

        Raises ArgumentError if the batch is something else, has neither a column of prompts nor of messages, or has a
        column of the name of one to be added. Also raises the errors of `Engine.generate` that no row is to blame for.
        """
        requests, errors = self._requests(batch)
        answers: dict[int, Completion] = {}
        for group in _groups(requests):
            try:
                answers |= {one.row: answer for one, answer in zip(group, self._answered(group), strict=True)}
            except REFUSALS:  # only the logits show that some requests are impossible: such a row is found alone
                for one in group:
                    try:
                        [answers[one.row]] = self._answered([one])
                    except REFUSALS as error:
                        errors[one.row] = str(error)
        return self._with(batch, self._columns([answers.get(i) for i in range(batch.num_rows)], errors))

    def _requests(self, batch: Any) -> tuple[list[_Request], dict[int, str]]:
        """The rows that can be answered, and what is wrong with the others."""
        requests, errors = [], {}
        others = ["enable_thinking", *_SAMPLING]
        for i, row in enumerate(self._rows(batch, [self._prompt, self._messages], others)):
            try:
                request = self._request(i, row)
                self._begun(request)
            except REFUSALS as error:
                errors[i] = str(error)
            else:
                requests.append(request)
        return requests, errors

    def _request(self, i: int, fields: dict[str, Any]) -> _Request:
        """The row's fields, checked one by one."""
        asked = {
            name: fields.pop(column)
            for name, column in (("prompt", self._prompt), ("messages", self._messages))
            if column in fields
        }
        if len(asked) != 1:
            found = "both" if asked else "neither"
            raise ArgumentError(f"{_PLACE} has {found} of {self._prompt} and {self._messages}, expected one of them")
        prompt, messages = take_prompt(asked, _PLACE)
        if self._chat and isinstance(prompt, str):
            messages = [{"role": "user", "content": prompt}]
            prompt = None
        if messages and messages[0]["role"] != "system" and self._system is not None:
            messages = [{"role": "system", "content": self._system}, *messages]
        thinking = take_thinking(fields, _PLACE, bool(messages))
        sampling = self._sampling | take_sampling(fields, _PLACE)
        if sampling["seed"] is None:
            sampling["seed"] = _seed(prompt, messages)
        thinking = self._enable_thinking if thinking is None else thinking
        return _Request(i, prompt, messages, thinking, SamplingParams(**sampling))

    def _begun(self, one: _Request) -> None:
        """Raise the errors of a prompt that is too long, has unknown ids, or that the template refuses.

        Otherwise one such row would cost the whole batch. A stream computes nothing until it is iterated.
        """
        if one.prompt is not None:
            self.engine.stream(one.prompt, one.params)
        else:
            self.engine.chat_stream(
                one.messages, one.params, template=self._template, enable_thinking=one.enable_thinking
            )

    def _answered(self, group: list[_Request]) -> list[Completion]:
        """Compute the answers of requests of one kind."""
        params = [one.params for one in group]
        if group[0].prompt is not None:
            return self.engine.generate([one.prompt for one in group if one.prompt is not None], params)
        return self.engine.chat(
            [one.messages for one in group], params, template=self._template, enable_thinking=group[0].enable_thinking
        )

    def _columns(self, answers: list[Completion | None], errors: dict[int, str]) -> dict[str, tuple[Any, list[Any]]]:
        """The columns to add, with their types: so they are the same in every file, whatever is null."""
        columns: dict[str, tuple[Any, list[Any]]] = {}
        for name in ("text", "reasoning", "finish_reason", "prompt_tokens", "completion_tokens"):
            kind = pa.int64() if name.endswith("tokens") else pa.string()
            columns[name] = kind, [answer and getattr(answer, name) for answer in answers]
        receipts = [answer and answer.receipt for answer in answers]
        columns["digest"] = pa.string(), [receipt and receipt.digest for receipt in receipts]
        if self._receipts:
            columns["receipt"] = pa.string(), [receipt and receipt.to_json() for receipt in receipts]
        columns["error"] = pa.string(), [errors.get(i) for i in range(len(answers))]
        return columns


class Score(_Actor):
    """Scores continuations of a context, such as the choices of a question, as `Engine.score` does.

    Columns that it reads: the context, a text or token ids; and its continuations, a list of the same.

    Columns that it adds; all others stay as they are:
        logprobs: For each continuation the natural logarithm of its probability.
        is_greedy: For each continuation whether greedy sampling gives it.
        error: Why the row cannot be scored; then those above are null. Otherwise this is null.

    Args:
        model: A path, which must exist on every machine, or a name as for `Engine`. Default: the model in the package.
        context: Name of the column with contexts.
        continuations: Name of the column with lists of continuations.
        prefix: Text before the names of the added columns.
        options: Arguments of `Engine`; n_threads as for `Answer`.

    Raises ArgumentError for an unknown argument, and as `Engine`.
    """

    _name = "Score"

    def __init__(
        self,
        model: _Model = None,
        *,
        context: str = "context",
        continuations: str = "continuations",
        prefix: str = "",
        **options: Any,
    ) -> None:
        super().__init__(model, prefix, options, ["model", "context", "continuations", "prefix"])
        self._context, self._continuations = context, continuations

    def __call__(self, batch: Any) -> Any:
        """Score the rows of a pyarrow.Table, and return it with the scores. Raises as `Answer.__call__`."""
        rows = self._rows(batch, [self._context], [self._continuations])
        with ThreadPoolExecutor(self.engine.max_batch) as threads:  # rows that are scored at once share passes
            scored = list(threads.map(self._outcome, rows))
        columns: dict[str, tuple[Any, list[Any]]] = {
            "logprobs": (pa.list_(pa.float64()), [chances for chances, _, _ in scored]),
            "is_greedy": (pa.list_(pa.bool_()), [best for _, best, _ in scored]),
            "error": (pa.string(), [error for _, _, error in scored]),
        }
        return self._with(batch, columns)

    def _outcome(self, row: dict[str, Any]) -> tuple[list[float] | None, list[bool] | None, str | None]:
        """The scores of a row, or the reason why it has none."""
        try:
            return *self._scored(row), None
        except (*REFUSALS, TypeError) as error:
            return None, None, str(error)

    def _scored(self, row: dict[str, Any]) -> tuple[list[float], list[bool]]:
        """The log-probability of each continuation, and whether greedy sampling gives it."""
        for column in (self._context, self._continuations):
            if column not in row:
                raise ArgumentError(f"{_PLACE} has no {column}")
        if row[self._continuations] == []:  # of which nobody knows whether they are texts or ids
            return [], []
        scores = self.engine.score(row[self._context], row[self._continuations])
        return scores.logprobs.tolist(), scores.is_greedy.tolist()


class Embed(_Actor):
    """Makes one vector of each text, as `Engine.embed` does: a batch's texts together, each with the bits it has alone.

    It reads a column of texts or of token ids, and adds these; all others stay as they are:
        embedding: The vector, a list of float32.
        error: Why the row has none; then embedding is null. Otherwise this is null.

    Args:
        model: A path, which must exist on every machine, or a name as for `Engine`. Default: the model in the package.
        text: Name of the column with texts.
        pooling: As for `Engine.embed`.
        normalize: As for `Engine.embed`.
        prefix: Text before the names of the added columns.
        options: Arguments of `Engine`; n_threads as for `Answer`.

    Raises ArgumentError for an unknown argument, and as `Engine`.
    """

    _name = "Embed"

    def __init__(
        self,
        model: _Model = None,
        *,
        text: str = "text",
        pooling: Literal["mean", "last", "cls"] | None = None,
        normalize: bool = False,
        prefix: str = "",
        **options: Any,
    ) -> None:
        super().__init__(model, prefix, options, ["model", "text", "pooling", "normalize", "prefix"])
        self._text, self._pooling, self._normalize = text, pooling, normalize
        self.engine.embed([0], pooling)  # finds a wrong pooling now, not in the first batch

    def __call__(self, batch: Any) -> Any:
        """Embed the rows of a pyarrow.Table, and return it with the vectors. Raises as `Answer.__call__`."""
        texts = [row.get(self._text) for row in self._rows(batch, [self._text])]
        vectors: list[Any] = [None] * len(texts)
        errors = [None if text is not None else f"{_PLACE} has no {self._text}" for text in texts]
        found = [i for i, text in enumerate(texts) if text is not None]
        try:
            for i, vector in zip(found, self._embedded([texts[i] for i in found]), strict=True):
                vectors[i] = vector
        except (*REFUSALS, TypeError):
            for i in found:
                try:
                    [vectors[i]] = self._embedded([texts[i]])
                except (*REFUSALS, TypeError) as error:
                    errors[i] = str(error)
        return self._with(batch, {"embedding": (pa.list_(pa.float32()), vectors), "error": (pa.string(), errors)})

    def _embedded(self, texts: list[Any]) -> Any:
        return self.engine.embed(texts, self._pooling, self._normalize) if texts else []


def _assigned_threads() -> int | None:
    """The number of CPUs that Ray has assigned to this actor, at least 1. None outside of an actor: Engine decides."""
    if not ray.is_initialized():
        return None
    context: Any = ray.get_runtime_context()
    if context.get_actor_id() is None:
        return None
    return max(int(context.get_assigned_resources().get("CPU", 0)), 1)


def _plain(value: Any) -> Any:
    """A value of a column as JSON has it; None if it is missing.

    All structs of a column have all fields; those that one lacks are null, and are left out here. Where Ray has read
    the column with pandas, a missing value is NaN, and the integers of a column that lacks some are floats.
    """
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    if isinstance(value, float) and math.isnan(value):
        return None
    return value.tolist() if hasattr(value, "tolist") else value  # Ray has lists of equal lengths as tensors


def _seed(prompt: str | list[int] | None, messages: list[dict[str, str]]) -> int:
    """A seed that depends on what is asked only: the first 8 bytes of the SHA-256 of its JSON text."""
    asked = json.dumps(messages if prompt is None else prompt, sort_keys=True)
    return int.from_bytes(hashlib.sha256(asked.encode()).digest()[:8], "big")


def _groups(requests: list[_Request]) -> list[list[_Request]]:
    """The requests that one call can answer: prompts, and conversations by whether the model is to think."""
    groups: dict[tuple[bool, bool | None], list[_Request]] = {}
    for one in requests:
        groups.setdefault((one.prompt is None, one.enable_thinking if one.prompt is None else None), []).append(one)
    return list(groups.values())
