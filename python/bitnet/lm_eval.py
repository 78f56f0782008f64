"""Run lm-evaluation-harness on this engine: pip install 'bitnet-engine[lm-eval]'.

    python -m bitnet.lm_eval --model bitnet --model_args pretrained=model.gguf --tasks arc_easy

This command takes the harness's own arguments, and --certificate FILE. In Python, `import bitnet.lm_eval` registers
the model "bitnet", and `lm_eval.simple_evaluate(BitnetLM(engine), tasks=[…])` uses an open engine.
"""

import hashlib
import logging
import os
import random
import sys
from abc import ABCMeta
from collections.abc import Iterable, Mapping, Sequence
from inspect import signature
from itertools import groupby, islice
from pathlib import Path
from typing import Any

from lm_eval.api.model import TemplateLM
from lm_eval.api.registry import register_model
from lm_eval.models.utils import normalize_gen_kwargs
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window, warning_once
from tqdm import tqdm

from . import ChatSession, Engine, SamplingParams, Template, _core
from ._evaluated import EvaluationRecords
from ._format import escape_line
from .certificate import Certificate
from .errors import ArgumentError, BitnetError, TemplateError
from .hub import local
from .models import inside

__all__ = ["BitnetLM"]

_logger = logging.getLogger("lm_eval.bitnet")  # the harness shows the messages of loggers below its own name

_ENGINE_OPTIONS = [name for name in signature(Engine).parameters if name != "path"]
_SAMPLING = sorted({name for name in vars(SamplingParams) if not name.startswith("_")} - {"max_tokens", "stop"})
_CONTEXTS_AT_ONCE = 256
"""Contexts that are scored by one call, in shared forward passes; the progress bar moves after each call."""
_MARK = "\ufdd0"
"""Marks the end of a message in a prompt: a noncharacter, which no text contains."""


@register_model("bitnet")
class BitnetLM(TemplateLM, metaclass=ABCMeta):  # stubtest cannot infer the metaclass: the harness has no types
    """A model of the harness. Its log-likelihoods are those of `Engine.score`, bit for bit.

    pretrained: an open engine, a GGUF file, or `hf:owner/name` (default: the model in the package).
    max_length: another name of `n_ctx`.
    max_gen_toks: limit of generated tokens for tasks that set none (default 256).
    template: a Template, or the name of a built-in one (default: the model's own).
    enable_thinking: the template's variable of this name (default: the template decides). The harness gets answers
        whole, with thoughts, and ends them at its stop strings, so False suits most tasks.
    receipts: a folder that gets a receipt of each answer and score (default: none are kept). A run that was stopped
        goes on with the receipts that the folder has. `certificate` makes a certificate of them.
    Other keywords are those of `Engine`. The harness passes batch_size, max_batch_size and device to every model; they
    have no effect here.

    Prompts are read as by the harness's own models: BOS is put in front if the model expects it and the text does not
    begin with it, and control tokens in a text are recognised, since templates write them. A context that is too long
    loses its beginning, with a warning; max_gen_toks never takes more than half of n_ctx from it. Equal contexts, and
    what contexts have in common at their beginnings, are computed once. Requests share forward passes; the argument
    max_batch bounds how many.
    """

    def __init__(
        self,
        pretrained: Engine | str | os.PathLike[str] | None = None,
        *,
        max_length: int | None = None,
        max_gen_toks: int = 256,
        template: Template | str | None = None,
        enable_thinking: bool | None = None,
        receipts: str | os.PathLike[str] | None = None,
        batch_size: Any = None,
        max_batch_size: Any = None,
        device: Any = None,
        **options: Any,
    ) -> None:
        """Open the model. Raises ArgumentError for an unknown argument, and as `Engine`."""
        super().__init__()
        if unknown := sorted(options.keys() - _ENGINE_OPTIONS):
            known = ", ".join(
                [
                    "pretrained",
                    "max_length",
                    "max_gen_toks",
                    "template",
                    "enable_thinking",
                    "receipts",
                    *_ENGINE_OPTIONS,
                ]
            )
            raise ArgumentError(f"the model bitnet has no argument {', '.join(unknown)}; its arguments are {known}")
        if max_length is not None:
            if "n_ctx" in options:
                raise ArgumentError("max_length and n_ctx mean the same; give only one of them")
            options["n_ctx"] = max_length
        if isinstance(pretrained, Engine):
            if options:
                names = ", ".join(options)
                raise ArgumentError(f"pretrained is an open engine, so {names} cannot be set; pass a path instead")
            self.engine = pretrained
        else:
            self.engine = Engine(local(os.fspath(pretrained or inside())), **options)
        self.max_gen_toks = max_gen_toks
        self.max_length = self.engine.n_ctx
        self._template: Template | None = None
        self._variables: dict[str, Any] = {}
        if template is not None or enable_thinking is not None:
            self._template = ChatSession(self.engine, template=template, enable_thinking=enable_thinking).template
        if enable_thinking is not None:
            self._variables["enable_thinking"] = enable_thinking
        self._records = EvaluationRecords(Path(receipts), self.engine) if receipts is not None else None
        self._names: list[str] = []
        """The names of the requests whose log-likelihoods are being computed, if there are records."""
        if self._records:
            _with_records.append(self)

    def certificate(self, results: Mapping[str, Any]) -> Certificate:
        """The certificate of what `simple_evaluate` returned. The argument `receipts` must name a folder.

        Raises ArgumentError if the receipts are not all of these results.
        """
        if self._records is None:
            raise ArgumentError("there are no receipts to certify: open the model with receipts=FOLDER")
        return self._records.certificate(results)

    def set_cache_hook(self, cache_hook: Any) -> None:
        """Take the harness's cache. Raises ArgumentError if receipts are kept: a cached answer would have none."""
        if self._records:
            raise ArgumentError(
                "use_cache keeps answers without receipts; leave it out: the folder of receipts does the same, and a "
                "run that was stopped goes on with it"
            )
        super().set_cache_hook(cache_hook)

    @property
    def template(self) -> Template:
        """The chat template that formats conversations."""
        return self._template or self.engine.template

    @property
    def device(self) -> str:
        """The device that the harness reports: always "cpu"."""
        return "cpu"

    @property
    def eot_token_id(self) -> int:
        """The id of the token that ends a text: EOS, or else BOS."""
        tokenizer = self.engine.tokenizer
        found = tokenizer.eos_token_id if tokenizer.eos_token_id is not None else tokenizer.bos_token_id
        if found is None:
            raise ArgumentError(f"{self.engine.path} has neither an EOS nor a BOS token")
        return found

    @property
    def prefix_token_id(self) -> int:
        """The id that stands before a text without a context: BOS, or else EOS."""
        bos = self.engine.tokenizer.bos_token_id
        return self.eot_token_id if bos is None else bos

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        """The ids of a text. Unless told otherwise, BOS is added if the model expects it and the text has none."""
        tokenizer = self.engine.tokenizer
        ids = tokenizer.encode(string, parse_special=True)
        if add_special_tokens is None:
            add_special_tokens = tokenizer.add_bos and ids[:1] != [tokenizer.bos_token_id]
        bos = [tokenizer.bos_token_id] if add_special_tokens and tokenizer.bos_token_id is not None else []
        return bos + ids

    def _cut(self, contexts: Iterable[tuple[list[int], int]]) -> list[list[int]]:
        """The last n ids of each (ids, n). Warns once if some have more."""
        contexts = list(contexts)
        if cut := sum(len(ids) > n for ids, n in contexts):
            message = "%d of %d contexts are too long for n_ctx %d with what follows: their beginnings are cut off"
            _logger.warning(message, cut, len(contexts), self.max_length)
        return [ids[-n:] for ids, n in contexts]

    def loglikelihood(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """The log-likelihood of each continuation, and whether greedy decoding gives it."""
        self._names = self._records.names(requests) if self._records else []
        try:
            found: list[tuple[float, bool]] = super().loglikelihood(requests, disable_tqdm=disable_tqdm)
            return found
        finally:
            self._names = []

    def _loglikelihood_tokens(
        self,
        requests: Sequence[tuple[Any, list[int], list[int]]],
        disable_tqdm: bool = False,
        kind: str = "loglikelihood",
        **_: Any,
    ) -> list[tuple[float, bool]]:
        """For each (name, context ids, continuation ids): the log-likelihood, and whether greedy sampling gives it."""
        contexts = self._cut((before, max(self.max_length + 1 - len(ids), 1)) for _, before, ids in requests)
        found: dict[int, tuple[float, bool]] = {}
        records = self._records
        if records:
            for i, name in enumerate(self._names):
                if known := records.score(name, contexts[i], requests[i][2]):
                    found[i] = known
        with tqdm(
            total=len(requests), initial=len(found), desc=f"Running {kind} requests", disable=disable_tqdm
        ) as bar:
            order = sorted((i for i in range(len(requests)) if i not in found), key=contexts.__getitem__)
            groups = [(before, list(same)) for before, same in groupby(order, key=contexts.__getitem__)]
            for start in range(0, len(groups), _CONTEXTS_AT_ONCE):
                part = groups[start : start + _CONTEXTS_AT_ONCE]
                continuations = [[requests[i][2] for i in same] for before, same in part]
                all_scores = self.engine.score([before for before, _ in part], continuations)
                for (before, same), scores in zip(part, all_scores, strict=True):
                    every = zip(same, scores.logprobs, scores.is_greedy, scores.token_logprobs, strict=True)
                    for i, logprob, greedy, each in every:
                        found[i] = float(logprob), bool(greedy)
                        if records:
                            records.add_score(self._names[i], before, requests[i][2], logprob, greedy, each)
                        if requests[i][0] is not None:
                            self.cache_hook.add_partial("loglikelihood", requests[i][0], found[i])
                    bar.update(len(same))
        return [found[i] for i in range(len(requests))]

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
        """The log-likelihood of whole texts. Windows of n_ctx tokens count each id once; the first begins with BOS."""
        texts = [text for (text,) in (request.args for request in requests)]
        windows = []
        for text in texts:
            ids = self.tok_encode(text, add_special_tokens=False)
            rolling = get_rolling_token_windows(ids, self.prefix_token_id, self.max_length, context_len=1)
            windows.append([(None, *make_disjoint_window(window)) for window in rolling])
        parts = [window for own in windows for window in own]
        if self._records:
            named = zip(self._records.names(requests), windows, strict=True)
            self._names = [f"{name}/{number}" for name, own in named for number in range(len(own))]
        try:
            scores = iter(self._loglikelihood_tokens(parts, disable_tqdm, "loglikelihood_rolling"))
        finally:
            self._names = []
        totals = [sum(logprob for logprob, _ in islice(scores, len(own))) for own in windows]
        for text, total in zip(texts, totals, strict=True):
            self.cache_hook.add_partial("loglikelihood_rolling", (text,), total)
        return totals

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """Generate answers. Raises ArgumentError for an unknown setting, before the first answer is computed.

        Settings: `until` (stop strings); `max_gen_toks`, also as `max_new_tokens`, `max_tokens` or
        `max_completion_tokens`; `num_beams`, which must be 1; `do_sample`; and all other keywords of `SamplingParams`.
        As in the harness, a temperature above 0 samples unless `do_sample` is False. `do_sample` without a temperature
        samples at temperature 1, as in transformers. Without `seed`, seeds are drawn from Python's `random`, which the
        harness seeds; if receipts are kept, they follow from the names of the receipts.
        """
        arguments = [request.args for request in requests]
        names: list[str | None] = [None] * len(arguments)
        if self._records:
            names = [*self._records.names(requests)]
        settings = [self._sampling(given, name) for (_, given), name in zip(arguments, names, strict=True)]
        contexts = self._cut(
            (self.tok_encode(context), max(self.max_length - (params.max_tokens or 0), self.max_length // 2))
            for (context, _), params in zip(arguments, settings, strict=True)
        )
        answers = []
        bar = tqdm(arguments, desc="Running generate_until requests", disable=disable_tqdm)
        known: dict[int, str] = {}
        for i, name in enumerate(names):
            if self._records and name and (text := self._records.answer(name, contexts[i], settings[i])) is not None:
                known[i] = text
        pairs = enumerate(zip(contexts, settings, strict=True))
        completions = _core._Together(self.engine.stream(ids, params) for i, (ids, params) in pairs if i not in known)
        for i, (context, given) in enumerate(bar):
            if i in known:
                answers.append(known[i])
            else:
                completion = next(completions)
                answers.append(completion.text)
                if self._records and (name := names[i]):
                    self._records.add_answer(name, completion)
            self.cache_hook.add_partial("generate_until", (context, given), answers[-1])
        return answers

    def _sampling(self, given: Mapping[str, Any], name: str | None = None) -> SamplingParams:
        """The `SamplingParams` of a request's settings. `name` is that of its receipt."""
        options = {name: value for name, value in given.items() if value is not None}
        options["temperature"] = float(options.get("temperature", 1 if options.get("do_sample") else 0))
        options = dict(normalize_gen_kwargs(options, self.max_gen_toks))
        limit, until = options.pop("max_gen_toks"), options.pop("until")
        # The seed is in the receipt, which must be the same in each run: also that of greedy decoding, which draws
        # nothing. The state of `random` depends on what else the harness has done with it.
        drawn = options.pop("do_sample")
        if drawn and name:
            options.setdefault("seed", int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big"))
        options.setdefault("seed", random.getrandbits(64) if drawn else 0)
        if options.get("num_beams") == 1:
            del options["num_beams"]
        if unknown := sorted(options.keys() - _SAMPLING):
            found = ", ".join(f"{name}={options[name]!r}" for name in unknown)
            known = ", ".join(["until", "max_gen_toks", "do_sample", *_SAMPLING])
            raise ArgumentError(f"this engine has no generation setting {found}; its settings are {known}")
        return SamplingParams(max_tokens=limit, stop=[text for text in until if text], **options)

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """The prompt of a conversation. Without a generation prompt it ends inside the last message, to continue it.

        If the template refuses system messages, they are left out with a warning, as by the harness's own models.
        """
        if add_generation_prompt:
            return self._render(chat_history, True)
        *before, last = chat_history
        marked = self._render([*before, last | {"content": last["content"] + _MARK}], False)
        text, mark, after = marked.rpartition(_MARK)
        if not mark:
            raise TemplateError(f"the chat template does not write the last message, {last}, so it cannot be continued")
        # A template that trims messages keeps white space before the mark: prefer its text without the mark.
        plain = self._render(chat_history, False).removesuffix(after)
        return plain if plain.rstrip() == text.rstrip() else text

    def _render(self, messages: list[dict[str, str]], add_generation_prompt: bool) -> str:
        try:
            return self.template.render(messages, add_generation_prompt=add_generation_prompt, **self._variables)
        except TemplateError as error:
            others = [message for message in messages if message["role"] != "system"]
            if len(others) == len(messages):
                raise
            text = self.template.render(others, add_generation_prompt=add_generation_prompt, **self._variables)
            warning_once(_logger, f"system messages are left out, because the chat template refuses them: {error}")
            return text

    def chat_template(self, chat_template: bool | str = False) -> str:
        """The Jinja source of the chat template, for the harness's results."""
        if not chat_template:
            return ""
        if isinstance(chat_template, str) and chat_template != self.template.name:
            message = "--apply_chat_template asks for %r, but prompts use %r; choose with the model argument template="
            _logger.warning(message, chat_template, self.template.name)
        return self.template.source

    @property
    def tokenizer_name(self) -> str:
        """The key of the harness's cache of prompts: the model file's name and a hash of the chat template."""
        template = self.template
        known = repr((template.source, template.bos_token, template.eos_token, *self._variables.items())).encode()
        return f"{Path(self.engine.path).name}-{hashlib.sha256(known).hexdigest()[:16]}"

    def get_model_info(self) -> dict[str, Any]:
        """Facts for the harness's results: the model's fingerprint, and the settings that its numbers depend on."""
        answer: Any = self.engine.generate([0], max_tokens=1)  # the fingerprint is in receipts only
        document = answer.receipt.to_dict()
        claim, model = document["claim"], document["model_info"]
        names = ("n_ctx", "kv_type", "act_quant", "ffn_act", "lm_head", "numerics")
        settings = {name: claim[name] for name in names if name in claim}
        return {
            "model_file": model["file"],
            "model_fingerprint": claim["model"],
            "tokenizer_fingerprint": claim["tokenizer"],
            "architecture": model["architecture"],
            **settings,
            "bitnet_version": document["run"]["version"],
        }


_with_records: list[BitnetLM] = []
"""The models that keep receipts. The harness's command makes its model itself, and does not hand it out."""


def main() -> None:
    """Run the harness's own command, with this model registered.

    --certificate FILE writes a certificate of the results. It needs receipts=FOLDER among the model's arguments.
    """
    import lm_eval
    from lm_eval.__main__ import cli_evaluate

    evaluate = lm_eval.simple_evaluate

    try:
        if path := _take_certificate(sys.argv):

            def certified(*arguments: Any, **keywords: Any) -> Any:
                if "receipts" not in str(keywords.get("model_args")):
                    raise ArgumentError("--certificate needs receipts=FOLDER in --model_args: where to keep receipts")
                results = evaluate(*arguments, **keywords)
                if results is not None:
                    certificate = _with_records[-1].certificate(results)
                    certificate.save(path)
                    print(f"{escape_line(path)}: {certificate.count} receipts, root {certificate.root}")
                return results

            lm_eval.simple_evaluate = certified
        cli_evaluate()
    except BitnetError as error:
        print(f"bitnet: {escape_line(str(error))}", file=sys.stderr)
        sys.exit(2)
    finally:
        lm_eval.simple_evaluate = evaluate


def _take_certificate(arguments: list[str]) -> str | None:
    """Remove --certificate FILE from the arguments, which the harness does not know, and return FILE."""
    for i, text in enumerate(arguments):
        name, equals, value = text.partition("=")
        if name != "--certificate":
            continue
        if not equals and i + 1 == len(arguments):
            raise ArgumentError("--certificate needs the name of a file")
        found = value if equals else arguments[i + 1]
        del arguments[i : i + (1 if equals else 2)]
        return found
    return None


if __name__ == "__main__":
    main()
