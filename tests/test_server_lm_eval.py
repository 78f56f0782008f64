"""lm-evaluation-harness through `bitnet serve`: its `local-completions` gives what the engine itself gives."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import bitnet
from bitnet.server import Settings, create_app
from served import running

pytest.importorskip("lm_eval")

from lm_eval.api.instance import Instance
from lm_eval.models.openai_completions import LocalCompletionsAPI

QUESTIONS = [("User: What is 2+2?", " 4"), ("User: What is 2+2?", " five"), ("2+2=", "4, so 44"), ("3+3=", "6")]


@pytest.fixture(scope="module")
def trit() -> Iterator[bitnet.Engine]:
    """The model in the package."""
    with bitnet.Engine(n_threads=1) as engine:
        yield engine


@pytest.fixture(scope="module")
def harness(trit: bitnet.Engine) -> Iterator[Any]:
    """The harness's model, which asks a server for everything, tokens included."""
    with running(create_app(trit, Settings(model_names=("trit",)))) as address:
        yield LocalCompletionsAPI(
            base_url=f"{address}/v1/completions",
            model="trit",
            tokenizer_backend="remote",
            max_length=trit.n_ctx,
            batch_size=3,
        )


def instances(kind: Any, arguments: list[Any]) -> list[Any]:
    """Requests of the harness."""
    return [Instance(kind, {}, one, i) for i, one in enumerate(arguments)]


def test_loglikelihoods_are_the_engines(harness: Any, trit: bitnet.Engine) -> None:
    likely = trit.generate(trit.encode("2+2="), max_tokens=4).text
    questions = [*QUESTIONS, ("2+2=", likely)]
    found = harness.loglikelihood(instances("loglikelihood", questions))
    for (context, continuation), (logprob, greedy) in zip(questions, found, strict=True):
        whole, before = trit.encode(context + continuation), trit.encode(context)
        own = trit.score(before, whole[len(before) :])
        assert logprob == pytest.approx(float(own.logprobs[0]), abs=1e-4)
        assert greedy == bool(own.is_greedy[0])
    assert {greedy for _, greedy in found} == {True, False}


def test_generated_texts_are_the_engines(harness: Any, trit: bitnet.Engine) -> None:
    settings = {"until": ["\n"], "max_gen_toks": 6, "temperature": 0}
    found = harness.generate_until(instances("generate_until", [(text, settings) for text, _ in QUESTIONS]))
    assert found == [trit.generate(trit.encode(text), max_tokens=6, stop="\n").text for text, _ in QUESTIONS]
