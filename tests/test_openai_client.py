"""`bitnet serve` through OpenAI's own client, as users call it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import openai
import pydantic
import pytest

import bitnet
from bitnet.server import Settings, create_app
from served import eventually, running

ASKED: list[Any] = [{"role": "user", "content": "What is 2+2?"}]


@pytest.fixture(scope="module")
def trit() -> Iterator[bitnet.Engine]:
    """The model in the package."""
    with bitnet.Engine(n_threads=1) as engine:
        yield engine


@pytest.fixture(scope="module")
def address(trit: bitnet.Engine) -> Iterator[str]:
    """The address of a server that wants a key."""
    with running(create_app(trit, Settings(model_names=("trit",), api_keys=("secret",), max_choices=8))) as address:
        yield f"{address}/v1"


@pytest.fixture(scope="module")
def client(address: str) -> Iterator[openai.OpenAI]:
    """A client that does not try again, so that errors are seen."""
    with openai.OpenAI(base_url=address, api_key="secret", max_retries=0) as client:
        yield client


def test_chat(client: openai.OpenAI, trit: bitnet.Engine) -> None:
    told = client.chat.completions.create(model="trit", messages=ASKED, seed=1)
    own = trit.chat(ASKED, seed=1)
    assert told.choices[0].message.content == own.text
    assert told.choices[0].message.tool_calls is None
    assert told.choices[0].finish_reason == "stop"
    assert told.usage and told.usage.total_tokens == own.prompt_tokens + own.completion_tokens
    assert own.receipt and told.model_extra and told.model_extra["receipt_digest"] == own.receipt.digest
    assert told._request_id


def test_parameters_and_several_choices(client: openai.OpenAI, trit: bitnet.Engine) -> None:
    told = client.chat.completions.create(
        model="trit",
        messages=ASKED,
        temperature=1.5,
        top_p=0.95,
        seed=3,
        n=3,
        max_completion_tokens=6,
        presence_penalty=0.1,
        frequency_penalty=0.1,
        stop=["\n"],
        logit_bias={"50": 1},
        user="somebody",
        extra_body={"top_k": 50, "min_p": 0.01},
    )
    own = trit.chat(
        ASKED,
        temperature=1.5,
        top_p=0.95,
        seed=3,
        n=3,
        max_tokens=6,
        presence_penalty=0.1,
        frequency_penalty=0.1,
        stop=["\n"],
        logit_bias={50: 1},
        top_k=50,
        min_p=0.01,
    )
    assert [choice.message.content for choice in told.choices] == [one.text for one in own]
    assert [choice.index for choice in told.choices] == [0, 1, 2]


def test_streams(client: openai.OpenAI, trit: bitnet.Engine) -> None:
    stream = client.chat.completions.create(
        model="trit", messages=ASKED, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1]) == trit.chat(ASKED).text
    assert chunks[-1].usage and chunks[-1].usage.completion_tokens == 7
    with client.chat.completions.stream(model="trit", messages=ASKED, logprobs=True, n=2) as events:
        final = events.get_final_completion()
    assert [choice.message.content for choice in final.choices] == [trit.chat(ASKED).text] * 2
    assert final.choices[0].logprobs and final.choices[0].logprobs.content
    assert len(final.choices[0].logprobs.content) == 6


def test_log_probabilities(client: openai.OpenAI, trit: bitnet.Engine) -> None:
    told = client.chat.completions.create(model="trit", messages=ASKED, logprobs=True, top_logprobs=2).choices[0]
    own = trit.chat(ASKED, logprobs=2)
    assert told.logprobs and told.logprobs.content and own.logprobs
    assert [one.logprob for one in told.logprobs.content] == [one.logprob for one in own.logprobs]
    assert [len(one.top_logprobs) for one in told.logprobs.content] == [2] * 6
    text = client.completions.create(model="trit", prompt="2+2=", max_tokens=3, logprobs=2, echo=True).choices[0]
    assert text.logprobs and text.logprobs.token_logprobs and text.logprobs.tokens
    assert "".join(text.logprobs.tokens[1:]) == text.text


def test_completions(client: openai.OpenAI, trit: bitnet.Engine) -> None:
    told = client.completions.create(model="trit", prompt=["2+2=", "3+3="], max_tokens=4)
    assert [choice.text for choice in told.choices] == [
        one.text for one in trit.generate([trit.encode(text, add_bos=True) for text in ("2+2=", "3+3=")], max_tokens=4)
    ]
    ids = trit.encode("2+2=", add_bos=True)
    streamed = client.completions.create(model="trit", prompt=ids, max_tokens=4, stream=True)
    assert "".join(chunk.choices[0].text for chunk in streamed) == told.choices[0].text


def test_embeddings(client: openai.OpenAI, trit: bitnet.Engine) -> None:
    """The client asks for base64 and decodes it, unless it is told otherwise."""
    own = trit.embed(["a", "b"], normalize=True)
    told = client.embeddings.create(model="trit", input=["a", "b"])
    assert np.array([one.embedding for one in told.data], np.float32).tobytes() == own.tobytes()
    plain = client.embeddings.create(model="trit", input="a", encoding_format="float")
    assert np.array(plain.data[0].embedding, np.float32).tobytes() == own[0].tobytes()


def test_models(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["trit"]
    assert client.models.retrieve("trit").owned_by == "bitnet"


def test_responses(client: openai.OpenAI, trit: bitnet.Engine) -> None:
    told = client.responses.create(model="trit", input="What is 2+2?", max_output_tokens=50)
    assert (told.output_text, told.status) == (trit.chat(ASKED).text, "completed")
    assert told.usage and told.usage.output_tokens == 7
    with client.responses.stream(model="trit", input=ASKED) as events:
        deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
        final = events.get_final_response()
    assert "".join(deltas) == final.output_text == told.output_text
    again = client.responses.create(model="trit", input=[*ASKED, *told.output, ASKED[0]])
    assert again.usage and again.usage.input_tokens > told.usage.input_tokens


def test_errors_are_the_clients_exceptions(client: openai.OpenAI, address: str) -> None:
    def create(**fields: Any) -> Any:
        return client.chat.completions.create(**{"model": "trit", "messages": ASKED} | fields)

    with pytest.raises(openai.BadRequestError) as bad:
        create(temperature=-1)
    assert (bad.value.param, bad.value.type) == ("temperature", "invalid_request_error")
    with pytest.raises(openai.BadRequestError) as long:
        create(messages=[{"role": "user", "content": "a " * 5000}])
    assert long.value.code == "context_length_exceeded"
    with pytest.raises(openai.NotFoundError) as missing:
        create(model="gpt-4o")
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-4o")
    with pytest.raises(openai.AuthenticationError) as unknown:
        openai.OpenAI(base_url=address, api_key="other", max_retries=0).models.list()
    assert unknown.value.code == "invalid_api_key"
    with pytest.raises(openai.NotFoundError):
        client.files.list()


def test_an_error_within_a_stream(trit: bitnet.Engine) -> None:
    with (
        running(create_app(trit, Settings(model_names=("trit",), timeout=0.02))) as address,
        openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0) as client,
    ):
        how: dict[str, Any] = {"logit_bias": {"5": 100}, "extra_body": {"ignore_eos": True}, "stream": True}
        with pytest.raises((openai.APIError, openai.InternalServerError)) as late:
            list(client.chat.completions.create(model="trit", messages=ASKED, n=8, logprobs=True, **how))
        assert late.value.code == "timeout"
        with pytest.raises((openai.APIError, openai.InternalServerError)) as late:
            how["extra_body"] |= {"logit_bias": how.pop("logit_bias")}
            list(client.responses.create(model="trit", input=ASKED, **how))
        assert late.value.code == "timeout"


def test_a_queue_that_is_full_is_a_rate_limit(trit: bitnet.Engine) -> None:
    """The client tries again by itself, as the header Retry-After says, unless it is told not to."""
    with running(create_app(trit, Settings(model_names=("trit",), max_running=1, max_queue=0))) as address:

        async def ask(retries: int) -> list[Any]:
            async with openai.AsyncOpenAI(base_url=f"{address}/v1", api_key="none", max_retries=retries) as client:
                how: dict[str, Any] = {"logit_bias": {"5": 100}, "extra_body": {"ignore_eos": True}}
                calls = (client.chat.completions.create(model="trit", messages=ASKED, **how) for _ in range(4))
                return await asyncio.gather(*calls, return_exceptions=True)

        refused = [one for one in asyncio.run(ask(0)) if isinstance(one, Exception)]
        assert refused
        assert {type(one) for one in refused} == {openai.RateLimitError}
        assert not [one for one in asyncio.run(ask(6)) if isinstance(one, Exception)]


class Sum(pydantic.BaseModel):
    """A sum."""

    sum: int = pydantic.Field(ge=0, le=99)


def test_streams_of_a_class(client: openai.OpenAI) -> None:
    """Chunks that the client parses while they come, and the object at the end."""
    whole = client.chat.completions.parse(model="trit", messages=ASKED, response_format=Sum).choices[0].message.parsed
    with client.chat.completions.stream(model="trit", messages=ASKED, response_format=Sum) as events:
        final = events.get_final_completion()
    with client.responses.stream(model="trit", input=ASKED, text_format=Sum) as told:
        response = told.get_final_response()
    assert isinstance(whole, Sum)
    assert final.choices[0].message.parsed == response.output_parsed == whole


def test_a_time_out_of_the_client(trit: bitnet.Engine) -> None:
    """The client leaves after its time-out, and the server then computes nothing for it."""
    app = create_app(trit, Settings(model_names=("trit",)))
    how: dict[str, Any] = {"logit_bias": {"5": 100}, "n": 32, "extra_body": {"ignore_eos": True}}
    with (
        running(app) as address,
        openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0, timeout=0.05) as client,
    ):
        with pytest.raises(openai.APITimeoutError):
            client.chat.completions.create(model="trit", messages=ASKED, **how)
        gate = app.state.service.gate
        eventually(lambda: gate.running == gate.waiting == 0)
        patient = client.with_options(timeout=60)
        assert patient.chat.completions.create(model="trit", messages=ASKED).choices[0].message.content


def test_several_streamed_completions(client: openai.OpenAI) -> None:
    how: dict[str, Any] = {"model": "trit", "prompt": ["2+2=", "3+3="], "n": 2, "max_tokens": 3, "seed": 1}
    chunks = list(client.completions.create(**how, stream=True, stream_options={"include_usage": True}))
    texts = [""] * 4
    for chunk in chunks:
        for choice in chunk.choices:
            texts[choice.index] += choice.text
    whole = client.completions.create(**how)
    assert texts == [choice.text for choice in whole.choices]
    assert chunks[-1].usage and whole.usage
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens


def test_the_asynchronous_client_leaves_a_stream(address: str) -> None:
    async def ask() -> None:
        async with openai.AsyncOpenAI(base_url=address, api_key="secret") as client:
            parsed = await client.chat.completions.parse(model="trit", messages=ASKED, response_format=Sum)
            assert parsed.choices[0].message.parsed
            async with await client.chat.completions.create(model="trit", messages=ASKED, stream=True) as stream:
                async for _ in stream:
                    break
            tasks = [
                asyncio.ensure_future(client.responses.create(model="trit", input="Count to 100", temperature=1))
                for _ in range(4)
            ]
            await asyncio.sleep(0.01)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            assert (await client.embeddings.create(model="trit", input="a")).data

    asyncio.run(ask())


def test_the_asynchronous_client(address: str, trit: bitnet.Engine) -> None:
    async def ask() -> tuple[list[str | None], str]:
        async with openai.AsyncOpenAI(base_url=address, api_key="secret") as client:
            questions: list[Any] = [[{"role": "user", "content": f"What is {i}+{i}?"}] for i in range(10)]
            told = await asyncio.gather(
                *(client.chat.completions.create(model="trit", messages=one) for one in questions)
            )
            text = ""
            async for chunk in await client.chat.completions.create(model="trit", messages=ASKED, stream=True):
                text += chunk.choices[0].delta.content or ""
            return [one.choices[0].message.content for one in told], text

    answers, streamed = asyncio.run(ask())
    assert answers == [trit.chat([{"role": "user", "content": f"What is {i}+{i}?"}]).text for i in range(10)]
    assert streamed == trit.chat(ASKED).text


def test_leaving_a_stream_early(client: openai.OpenAI) -> None:
    with client.chat.completions.create(model="trit", messages=ASKED, stream=True) as stream:
        assert json.loads(next(iter(stream)).model_dump_json())["choices"][0]["delta"]["role"] == "assistant"
    assert client.chat.completions.create(model="trit", messages=ASKED).choices[0].message.content
