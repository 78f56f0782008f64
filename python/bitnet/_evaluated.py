"""The receipts of an evaluation by lm-evaluation-harness: names, what is known already, and the certificate."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from . import Completion, Engine, SamplingParams, Tokenizer
from ._records import Records, ScoreReceipt, about, read_receipt, score_claim, settings_of
from .certificate import Certificate, certify
from .errors import ArgumentError, BitnetError

_FORMS = ("json_schema", "regex", "choice", "grammar", "logits_processor")
"""Sampling parameters that an answer depends on although `claim.sampling` does not have them."""

_LARGEST = 2**53 - 1


class EvaluationRecords:
    """The receipts of one model's answers and scores, in a folder."""

    def __init__(self, folder: Path, engine: Engine) -> None:
        """Open the folder. Raises ArgumentError if another process writes into it."""
        self.records = Records(folder)
        self.tokenizer: Tokenizer = engine.tokenizer
        self.settings, self.model_file, self.version = about(engine)
        self._requests: dict[str, tuple[str, int]] = {}
        """The task and the document of each request, by its name."""

    def names(self, requests: Sequence[Any]) -> list[str]:
        """The name of each request: TASK/DOC/TYPE/REQUEST/REPEAT, with numbers from 0.

        The harness lists a request that it repeats as often as it wants it answered.
        """
        seen: Counter[tuple[Any, ...]] = Counter()
        names = []
        for request in requests:
            key = request.task_name, request.doc_id, request.request_type, request.idx
            if request.task_name is None or request.doc_id is None:
                raise ArgumentError("receipts need requests with a task and a document, as the harness makes them")
            names.append("/".join(map(str, (*key, seen[key]))))
            self._requests[names[-1]] = request.task_name, request.doc_id
            seen[key] += 1
        return names

    def _known(self, name: str) -> tuple[Any, Mapping[str, Any]] | None:
        """A receipt of this name that is valid and of this model and these settings, and its record."""
        record = self.records.record(name)
        if record is None:
            return None
        try:
            receipt = read_receipt(self.records.folder, record)
            receipt.validate()
        except (BitnetError, OSError):
            return None
        claim = receipt.claim if isinstance(receipt, ScoreReceipt) else receipt.to_dict()["claim"]
        return (receipt, record) if settings_of(claim) == self.settings else None

    def score(self, name: str, context: list[int], continuation: list[int]) -> tuple[float, bool] | None:
        """The log-likelihood and whether it is greedy, if there is a receipt of it. Counts the receipt."""
        receipt, _ = self._known(name) or (None, {})
        if not isinstance(receipt, ScoreReceipt):
            return None
        if (receipt.claim["context_ids"], receipt.claim["continuation_ids"]) != (list(context), list(continuation)):
            return None
        self.records.count(name, receipt)
        return receipt.logprob, receipt.is_greedy

    def add_score(self, name: str, context: list[int], continuation: list[int], *found: Any) -> None:
        """Write the receipt of a score, with what `Engine.score` gave."""
        claim = score_claim(self.settings, context, continuation, *found)
        self.records.add(name, ScoreReceipt(claim, self.model_file, self.version))

    def answer(self, name: str, ids: list[int], params: SamplingParams) -> str | None:
        """The text of the answer to these ids, if there is a receipt of it. Counts the receipt."""
        receipt, record = self._known(name) or (None, {})
        if receipt is None or isinstance(receipt, ScoreReceipt):
            return None
        claim = receipt.to_dict()["claim"]
        asked = claim.keys() - self.settings.keys() == _PLAIN and claim["prompt_ids"] == list(ids)
        if not asked or any(claim[part] is not None for part in ("template", "system", "previous")):
            return None
        if any(getattr(params, form, None) is not None for form in _FORMS) or receipt.finish_reason == "cancelled":
            return None
        if claim["sampling"] != self._sampling(params, claim["sampling"]):
            return None
        text = self._text(claim)
        if record.get("text") != text:  # the receipt does not cover it: altered, or ended by something unusual
            return None
        self.records.count(name, receipt)
        return text

    def _sampling(self, params: SamplingParams, claimed: Mapping[str, Any]) -> dict[str, Any]:
        """What the receipt of an answer with these parameters claims."""
        own = {part: getattr(params, part, None) for part in claimed}
        ends = set(params.stop_token_ids) | set([] if params.ignore_eos else self.tokenizer.stop_token_ids)
        bias = [list(pair) for pair in sorted((params.logit_bias or {}).items())]
        return own | {"stop_token_ids": sorted(ends), "logit_bias": bias}

    def _text(self, claim: Mapping[str, Any]) -> str:
        """The text of a claim's ids, up to the first stop string."""
        text = self.tokenizer.decode(claim["output_ids"])
        ends = [text.find(stop) for stop in claim["sampling"]["stop"] if stop in text]
        return text[: min(ends)] if ends and claim["finish_reason"] == "stop" else text

    def add_answer(self, name: str, completion: Completion) -> None:
        """Write the receipt of an answer, with its text, so that a run that is resumed does not compute it again."""
        if completion.receipt:
            self.records.add(name, completion.receipt, text=completion.text)

    def certificate(self, results: Mapping[str, Any]) -> Certificate:
        """The certificate of the harness's results. Raises ArgumentError if the receipts are not all of them."""
        samples: Mapping[str, Any] = results["n-samples"]
        documents: dict[str, set[int]] = {task: set() for task in samples}
        own = []
        for name in self.records.names():
            # The windows of a long text have the name of their request, and a number.
            task, document = self._requests.get(name) or self._requests[name.rpartition("/")[0]]
            if task in documents:
                documents[task].add(document)
                own.append(name)
        for task, counts in samples.items():
            if len(documents[task]) != counts["effective"]:
                raise ArgumentError(
                    f"there are receipts of {len(documents[task])} documents of {task}, but the results are of "
                    f"{counts['effective']}; pass what simple_evaluate returned for this model"
                )
        return certify(self.records, own, _made(results), plain(results["results"]))


_PLAIN = {"template", "system", "prompt_ids", "sampling", "output_ids", "finish_reason", "previous"}
"""The parts of an answer's claim beside the settings, if no grammar and no function took part."""


def _made(results: Mapping[str, Any]) -> dict[str, Any]:
    """How the harness made its requests, as far as its results say."""
    config = results.get("config", {})
    tasks = {
        task: {
            "version": results.get("versions", {}).get(task),
            "num_fewshot": results.get("n-shot", {}).get(task),
            "documents": counts["effective"],
            "of": counts["original"],
            "hash": results.get("task_hashes", {}).get(task),
        }
        for task, counts in results["n-samples"].items()
    }
    asked = ("limit", "gen_kwargs", "random_seed", "numpy_seed", "torch_seed", "fewshot_seed", "bootstrap_iters")
    chat = ("system_instruction_sha", "fewshot_as_multiturn", "chat_template_sha")
    made = {
        "by": "lm-evaluation-harness",
        "version": results.get("lm_eval_version"),
        "model_args": config.get("model_args"),
        "tasks": tasks,
        **{name: config.get(name) for name in asked},
        **{name: results.get(name) for name in chat},
    }
    found: dict[str, Any] = plain(made)
    return found


def plain(value: Any) -> Any:
    """A value as JSON that is the same for every reader: numbers that JSON does not have, or that not every reader
    takes exactly, and everything else become texts."""
    if isinstance(value, Mapping):
        return {str(key): plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    if hasattr(value, "item") and not isinstance(value, str):  # numpy's numbers
        value = value.item()
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int):
        return value if abs(value) <= _LARGEST else str(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    return str(value)
