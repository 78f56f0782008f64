"""lm-evaluation-harness on this engine: its own task definitions, on a few local documents."""

from __future__ import annotations

import json
import logging
import math
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import bitnet

pytest.importorskip("lm_eval", reason="lm_eval is not installed: pip install --group test")

QUESTIONS = [
    ("Which one is hello?", ["world", "hello world", "é"], 1),
    ("Which one is the world?", ["world", "hold", "low hell"], 0),
    ("Which one is the world? ", ["old", "a"], 1),
]
PAGES = ["hello world " * 100, "A short page . The end", "hold the world"]

EVALUATE = """
import json, pathlib, sys
import lm_eval
import bitnet.lm_eval

model, folder = sys.argv[1:]
own = pathlib.Path(lm_eval.__file__).parent / "tasks"
tasks = []
definitions = {"arc_easy": "arc/arc_easy", "wikitext": "wikitext/wikitext", "gsm8k": "gsm8k/gsm8k",
               "noridiom": "noreval/noridiom/nob/noridiom_nob_p0"}
for name, definition in definitions.items():
    files = dict.fromkeys(("train", "validation", "test"), f"{folder}/{name}.json")
    change = {"include": f"{own}/{definition}.yaml", "task": f"local_{name}", "dataset_path": "json",
              "dataset_name": None, "dataset_kwargs": {"data_files": files}, "num_fewshot": 0}
    tasks.append(f"{folder}/{name}.yaml")
    pathlib.Path(tasks[-1]).write_text(json.dumps(change))  # JSON is valid YAML
results = lm_eval.simple_evaluate(
    "bitnet", {"pretrained": model, "n_threads": 1, "max_gen_toks": 20}, tasks, bootstrap_iters=0
)
samples = {
    name: [found for _, found in sorted({sample["doc_id"]: sample["resps"] for sample in all}.items())]
    for name, all in results["samples"].items()
}
print(json.dumps({"results": results["results"], "samples": samples, "config": results["config"]}, default=str))
"""


@pytest.fixture(scope="module")
def documents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Documents for the tasks, in the format of their data sets."""
    folder = tmp_path_factory.mktemp("documents")
    arc = [
        {"question": q, "choices": {"text": texts, "label": ["A", "B", "C"][: len(texts)]}, "answerKey": "ABC"[right]}
        for q, texts, right in QUESTIONS
    ]
    gsm = [{"question": "hello?", "answer": "#### 4"}, {"question": "world?", "answer": "#### 2"}]
    idioms = [{"language": "nob", "idiom_start": "hello", "completion": "world", "accepted_completions": ["world"]}]
    pages = [{"page": page} for page in PAGES]
    for name, rows in [("arc_easy", arc), ("wikitext", pages), ("gsm8k", gsm), ("noridiom", idioms)]:
        (folder / f"{name}.json").write_text("\n".join(map(json.dumps, rows)))
    return folder


def test_its_tasks_give_what_the_engine_gives(text_model: Path, documents: Path, tmp_path: Path) -> None:
    env = os.environ | {"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    command = [sys.executable, "-c", EVALUATE, str(text_model), str(documents)]
    done = subprocess.run(command, capture_output=True, text=True, env=env, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    results, samples = report["results"], report["samples"]

    with bitnet.Engine(text_model) as engine:
        right = {"acc": 0, "acc_norm": 0}
        for (question, texts, answer), found in zip(QUESTIONS, samples["local_arc_easy"], strict=True):
            scores = engine.score(f"Question: {question}\nAnswer:", [f" {text}" for text in texts])
            assert [logprob for ((logprob, _),) in found] == scores.logprobs.tolist()
            assert [greedy for ((_, greedy),) in found] == scores.is_greedy.tolist()
            right["acc"] += int(scores.logprobs.argmax() == answer)
            lengths = [len(text) for text in texts]
            right["acc_norm"] += int((scores.logprobs / lengths).argmax() == answer)
        assert {name: results["local_arc_easy"][f"{name},none"] * 3 for name in right} == pytest.approx(right)

        total = 0.0
        for page, found in zip(PAGES, samples["local_wikitext"], strict=True):
            text = page.replace(" . ", ". ")  # as the task's definition does
            assert found == [[sum(rolling(engine, text))]]
            total += found[0][0]
        words = sum(len(page.split(" ")) for page in PAGES)
        assert results["local_wikitext"]["word_perplexity,none"] == pytest.approx(math.exp(-total / words))

        for question, found in zip(("hello?", "world?"), samples["local_gsm8k"], strict=True):
            stop = ["Question:", "</s>", "<|im_end|>"]
            answer = engine.generate(f"Question: {question}\nAnswer:", max_tokens=20, stop=stop)
            assert found == [[answer.text]]

        # This task sets until, do_sample, num_beams and max_new_tokens.
        answer = engine.generate("Fullfør dette uttrykket: hello", max_tokens=16, stop="\n")
        assert samples["local_noridiom"] == [[[answer.text]]]

        receipt = answer.receipt
        assert receipt is not None
        claim = receipt.to_dict()["claim"]
        settings = ("n_ctx", "kv_type", "act_quant", "ffn_act", "numerics")
        expected = {name: claim[name] for name in settings} | {
            "model_file": "model.gguf",
            "model_fingerprint": claim["model"],
            "tokenizer_fingerprint": claim["tokenizer"],
            "architecture": "llama",
            "bitnet_version": bitnet.__version__,
        }
        assert report["config"] | expected == report["config"]


def rolling(engine: Any, text: str) -> list[float]:
    """Log-likelihoods of the windows of a text: the first begins with BOS, the last is as long as the context."""
    ids, n = engine.encode(text), engine.n_ctx
    parts = [([engine.tokenizer.bos_token_id], ids[:n])]
    for start in range(n, len(ids), n):
        end = min(start + n, len(ids))
        parts.append((ids[end - n - 1 : start], ids[start:end]))
    return [float(engine.score(context, [rest]).logprobs[0]) for context, rest in parts]


def requests(kind: Any, *arguments: tuple[Any, ...]) -> list[Any]:
    """Requests as the harness makes them."""
    from lm_eval.api.instance import Instance

    return [Instance(kind, {}, one, 0) for one in arguments]


def answers(engine: Any, *settings: dict[str, Any]) -> list[str]:
    """The harness model's answers to "hello" with each of these settings."""
    from bitnet.lm_eval import BitnetLM

    asked = requests("generate_until", *(("hello", given) for given in settings))
    return BitnetLM(engine).generate_until(asked, disable_tqdm=True)


def says(engine: Any, **keywords: Any) -> str:
    """The engine's own answer to "hello"."""
    text: str = engine.generate("hello", **keywords).text
    return text


def test_prompts_and_limits(text_model: Path) -> None:
    from bitnet.lm_eval import BitnetLM

    with bitnet.Engine(text_model) as engine:
        model, bos = BitnetLM(engine), engine.tokenizer.bos_token_id
        assert model.tok_encode("hello") == [bos, *engine.encode("hello")]
        assert model.tok_encode("<|begin_of_text|>hello") == model.tok_encode("hello")
        assert model.tok_encode("hello", add_special_tokens=False) == engine.encode("hello")
        assert (model.prefix_token_id, model.eot_token_id) == (bos, engine.tokenizer.eos_token_id)
        # An empty context, and one that is too long and loses its beginning.
        empty, long = model.loglikelihood(
            requests("loglikelihood", ("", "world"), ("a" * 400, " world")), disable_tqdm=True
        )
        assert empty[0] == engine.score([bos], [engine.encode("world")]).logprobs[0]
        assert long[0] == engine.score(engine.encode("a" * 256), [engine.encode(" world")]).logprobs[0]
        assert model.generate_until(requests("generate_until", ("a" * 400, {"until": [], "max_gen_toks": 4}))) == [
            engine.generate(engine.encode("a" * 252), max_tokens=4).text
        ]
        with pytest.raises(bitnet.ArgumentError, match="pretrained is an open engine, so n_ctx cannot be set"):
            BitnetLM(engine, n_ctx=4)


@pytest.mark.parametrize(
    "given",
    [
        {"max_new_tokens": 5, "num_beams": 1, "do_sample": False},
        {"max_tokens": 5, "until": None, "temperature": None},
        {"max_gen_toks": "5", "until": "", "temperature": "0"},
    ],
)
def test_settings_mean_what_they_mean_to_the_harness(engine: Any, given: dict[str, Any]) -> None:
    assert answers(engine, given) == [says(engine, max_tokens=5)]


def test_unknown_settings_are_refused_before_anything_is_computed(engine: Any) -> None:
    unknown = r"no generation setting length_penalty=2, num_beams=4; its settings are until, .*, top_p"
    with pytest.raises(bitnet.ArgumentError, match=unknown):
        answers(engine, {}, {"num_beams": 4, "length_penalty": 2, "top_p": 0.9})
    assert engine.cached_tokens == 0


def test_a_temperature_or_do_sample_samples(engine: Any) -> None:
    greedy, warm, hot = ({"max_tokens": 16, "seed": 1, "temperature": temperature} for temperature in (0.0, 1.0, 2.0))
    limits = {"max_gen_toks": 16, "seed": 1}
    given: list[dict[str, Any]] = [{"temperature": 2.0}, {"do_sample": True}, {"do_sample": False, "temperature": 2.0}]
    assert answers(engine, *(limits | one for one in given)) == [says(engine, **one) for one in (hot, warm, greedy)]
    assert len({says(engine, **one) for one in (greedy, warm, hot)}) == 3


def test_draws_follow_the_harnesss_seed(engine: Any) -> None:
    def sampled(seed: int) -> list[str]:
        random.seed(seed)
        return answers(engine, *[{"do_sample": True, "max_gen_toks": 16}] * 2)

    first, second = sampled(0)
    assert sampled(0) == [first, second]
    assert first != second
    assert sampled(1) != [first, second]


def test_progress_is_shown_unless_disabled(engine: Any, capsys: pytest.CaptureFixture[str]) -> None:
    from bitnet.lm_eval import BitnetLM

    model = BitnetLM(engine)
    arguments: dict[str, tuple[Any, ...]] = {
        "loglikelihood": ("hello", " world"),
        "loglikelihood_rolling": ("hello world",),
        "generate_until": ("hello", {"max_gen_toks": 1}),
    }
    for kind, one in arguments.items():
        asked = requests(kind, one, one)
        quiet = getattr(model, kind)(asked, disable_tqdm=True)
        assert capsys.readouterr().err == ""
        assert getattr(model, kind)(asked) == quiet
        shown = capsys.readouterr().err
        assert f"Running {kind} requests: 100%" in shown
        assert "2/2" in shown


def test_one_warning_tells_how_many_contexts_are_cut(engine: Any, caplog: pytest.LogCaptureFixture) -> None:
    from bitnet.lm_eval import BitnetLM

    model = BitnetLM(engine)
    caplog.set_level(logging.WARNING, logger="lm_eval")
    model.loglikelihood(requests("loglikelihood", ("a" * 400, "b"), ("b" * 400, "c"), ("c", "d")), disable_tqdm=True)
    model.loglikelihood_rolling(requests("loglikelihood_rolling", ("a" * 400,)), disable_tqdm=True)
    settings = {"max_gen_toks": 4}
    model.generate_until(requests("generate_until", ("a" * 253, settings), ("a" * 251, settings)), disable_tqdm=True)
    cut = "contexts are too long for n_ctx 256 with what follows: their beginnings are cut off"
    assert [record.getMessage() for record in caplog.records] == [f"2 of 3 {cut}", f"1 of 2 {cut}"]


def test_arguments(text_model: Path) -> None:
    from bitnet.lm_eval import BitnetLM

    model = BitnetLM(text_model, max_length=64, n_threads=1)
    assert (model.engine.n_ctx, model.max_length, model.device) == (64, 64, "cpu")
    model.engine.close()
    with pytest.raises(
        bitnet.ArgumentError, match=r"no argument dtype, trust_remote_code; its arguments are pretrained, .*n_ctx"
    ):
        BitnetLM(text_model, dtype="float16", trust_remote_code=True)
    with pytest.raises(bitnet.ArgumentError, match="give only one of them"):
        BitnetLM(text_model, n_ctx=64, max_length=64)


def test_the_chat_template_is_the_models() -> None:
    from bitnet.lm_eval import BitnetLM

    model = BitnetLM(n_threads=1)
    turns = [{"role": "user", "content": "What is 2+2?"}]
    prompt = model.apply_chat_template(turns)
    assert prompt == model.engine.template.render(turns)
    assert model.apply_chat_template([*turns, {"role": "assistant", "content": "It is"}], False) == prompt + "It is"
    assert model.chat_template(True) == model.engine.template.source
    assert model.chat_template(False) == ""
    assert model.tokenizer_name.startswith("trit.gguf-")
    model.engine.close()


TRIMMED = "{% for m in messages %}[{{ m.role }}] {{ m.content | trim }}<|eot_id|>{% endfor %}"
SPACED = "{% for m in messages %}[{{ m.role }}] {{ m.content | trim + ' ' }}<|eot_id|>{% endfor %}"
KEPT = "{% for m in messages %}[{{ m.role }}] {{ m.content }}<|eot_id|>{% endfor %}"
OMITTED = "{% for m in messages if m.content %}[{{ m.role }}] {{ m.content | trim }}<|eot_id|>{% endfor %}"


@pytest.mark.parametrize("source", [TRIMMED, SPACED, KEPT, OMITTED], ids=["trimmed", "spaced", "kept", "omitted"])
@pytest.mark.parametrize("content", ["t", "", " ", "It is ", "\nIt is <|eot_id|> [user] Hi", "Hi"])
def test_a_prompt_can_end_inside_the_last_message(engine: Any, source: str, content: str) -> None:
    from bitnet.lm_eval import BitnetLM

    model = BitnetLM(engine, template=bitnet.Template.from_jinja(source))
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": content}]
    shown = content if source == KEPT else content.strip()
    before = model.template.render(turns[:1])
    assert model.apply_chat_template(turns, False) == f"{before}[assistant] {shown}"


def test_a_template_that_hides_the_last_message_is_refused(engine: Any) -> None:
    from bitnet.lm_eval import BitnetLM

    model = BitnetLM(engine, template=bitnet.Template.from_jinja("{{ messages[0].content }}"))
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "It is"}]
    with pytest.raises(bitnet.TemplateError, match="does not write the last message"):
        model.apply_chat_template(turns, add_generation_prompt=False)


def test_a_system_message_that_the_template_refuses_is_left_out(engine: Any, caplog: pytest.LogCaptureFixture) -> None:
    from bitnet.lm_eval import BitnetLM

    refuses = "{% if messages[0].role == 'system' %}{{ raise_exception('no system here') }}{% endif %}" + TRIMMED
    model = BitnetLM(engine, template=bitnet.Template.from_jinja(refuses))
    turns = [{"role": role, "content": role} for role in ("system", "user", "assistant")]
    caplog.set_level(logging.WARNING, logger="lm_eval")
    assert model.apply_chat_template(turns[:2]) == "[user] user<|eot_id|>"
    assert model.apply_chat_template(turns, False) == "[user] user<|eot_id|>[assistant] assistant"
    (record,) = caplog.records
    assert "no system here" in record.getMessage()
    with pytest.raises(bitnet.TemplateError, match="empty"):
        model.apply_chat_template([])


def test_another_template_is_an_argument(engine: Any, caplog: pytest.LogCaptureFixture) -> None:
    from bitnet.lm_eval import BitnetLM

    model = BitnetLM(engine, template="bitnet")
    turns = [{"role": "user", "content": "Hi"}]
    assert model.apply_chat_template(turns) == bitnet.Template.named("bitnet").render(turns)
    assert model.chat_template("bitnet") == model.template.source
    assert caplog.records == []
    # The harness passes a template's name to chat_template, but not to apply_chat_template.
    assert model.chat_template("llama3-chat") == model.template.source
    assert "choose with the model argument template=" in caplog.text
    # The harness finds its stored prompts by this name, which depends on the template.
    names = [BitnetLM(engine, template=name).tokenizer_name for name in ("bitnet", "bitnet", "instruct")]
    assert names[0] == names[1] != names[2]
    with pytest.raises(bitnet.TemplateError, match="'chatml' is not known"):
        BitnetLM(engine, template="chatml")


def test_thinking_is_switched_by_an_argument(engine: Any) -> None:
    from bitnet.lm_eval import BitnetLM

    template = bitnet.Template.from_jinja("{{ messages[0].content }}{% if enable_thinking %}<think>{% endif %}")
    turns = [{"role": "user", "content": "Hi"}]
    models = [BitnetLM(engine, template=template, enable_thinking=value) for value in (None, False, True)]
    assert [model.apply_chat_template(turns) for model in models] == ["Hi", "Hi", "Hi<think>"]
    assert len({model.tokenizer_name for model in models}) == 3
    with pytest.raises(bitnet.ArgumentError, match="does not read this variable"):
        BitnetLM(engine, enable_thinking=False)


def test_the_command_is_the_harnesss_own() -> None:
    done = subprocess.run([sys.executable, "-m", "bitnet.lm_eval", "--help"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "lm-eval" in done.stdout


def test_the_command_says_in_one_line_what_is_wrong(documents: Path, tmp_path: Path) -> None:
    task = {
        "task": "local_hello", "dataset_path": "json", "test_split": "test", "output_type": "generate_until",
        "dataset_kwargs": {"data_files": {"test": str(documents / "gsm8k.json")}},
        "doc_to_text": "{{question}}", "doc_to_target": "{{answer}}",
        "metric_list": [{"metric": "exact_match"}],
    }  # fmt: skip
    (tmp_path / "hello.yaml").write_text(json.dumps(task))
    env = os.environ | {"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    run = [sys.executable, "-m", "bitnet.lm_eval", "run", "--model", "bitnet", "--tasks", str(tmp_path / "hello.yaml")]
    for wrong, found in [("--model_args dtype=float16", "dtype"), ("--gen_kwargs num_beams=4", "num_beams=4")]:
        done = subprocess.run([*run, *wrong.split()], capture_output=True, text=True, env=env, cwd=tmp_path)
        assert done.returncode == 2, done.stderr
        assert "Traceback" not in done.stderr
        assert found in done.stderr.splitlines()[-1]
        assert done.stderr.splitlines()[-1].startswith("bitnet: ")
