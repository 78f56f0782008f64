"""Names of repositories, revisions and files, and the choice among the files of a repository."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import bitnet
from bitnet import hub

pytest.importorskip("huggingface_hub")


@pytest.mark.parametrize("revision", ["../x", "a/../../b", "/x", "..", "a//b", "C:x", "x\\y", "a\nb"])
def test_a_revision_is_no_path(tmp_path: Path, revision: str) -> None:
    with pytest.raises(bitnet.ArgumentError, match="expected a branch, a tag or a commit"):
        hub.model_file("maker/one", revision=revision, cache_dir=tmp_path)


@pytest.mark.parametrize(
    ("names", "files"),
    [
        (["model.safetensors", "config.json"], ["config.json", "model.safetensors"]),
        (
            ["model.safetensors.index.json", "config.json", "a.safetensors", "b.safetensors", "x/c.safetensors"],
            ["config.json", "model.safetensors.index.json", "a.safetensors", "b.safetensors"],
        ),
        (
            ["model.safetensors.index.json", "config.json", "model-00001-of-00001.safetensors", "other.safetensors"],
            ["config.json", "model.safetensors.index.json", "model-00001-of-00001.safetensors"],
        ),
        (["m.gguf", "model.safetensors", "config.json"], ["m.gguf"]),
    ],
)
def test_the_files_of_a_directory(names: list[str], files: list[str]) -> None:
    assert hub._files_of(None, names, "a/b") == files


@pytest.mark.parametrize("repo_id", ["a/b/c", "hf:m/one", "one", "", "a/b--c", "/etc/x.gguf", 5, None])
def test_a_repository_is_owner_and_name(repo_id: Any) -> None:
    with pytest.raises(bitnet.ArgumentError) as error:
        bitnet.Engine.from_pretrained(repo_id)
    assert str(error.value) == f"repo_id is {repo_id!r}, expected 'owner/name' of letters, digits, '-', '_' and '.'"


def test_names_are_texts() -> None:
    for what in ("filename", "revision"):
        with pytest.raises(bitnet.ArgumentError, match=f"^{what} is 5, expected a str$"):
            hub.model_file("maker/one", **{what: 5})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (["model.gguf", "mmproj-model-f16.gguf", "q/x.mmproj-i2_s.gguf"], "model.gguf"),
        (["model.gguf"], "model.gguf"),
        (["a/Model-I2_S.GGUF", "a/model-f16.gguf"], "a/Model-I2_S.GGUF"),
        (["m-tq1_0.gguf", "m-tq2_0.gguf", "m-q4_0.gguf"], "m-tq2_0.gguf"),
        (["m-i2-s.gguf", "m-f32.gguf"], "m-i2-s.gguf"),
        (["m-00001-of-00002.gguf", "m-00002-of-00002.gguf"], "m-00001-of-00002.gguf"),
        (["i2_s/m-f16.gguf", "m-IQ2_BN.gguf"], "m-IQ2_BN.gguf"),
        (["m-iq2_bn_r4.gguf", "m-iq2_bn.gguf"], "m-iq2_bn.gguf"),
        (["B-8B-F16.gguf", "B-8B-PQ2_0.gguf", "B-8B-Q2_0.gguf", "B-8B-Q2_0_g64.gguf"], "B-8B-Q2_0.gguf"),
        (["B-8B-F16.gguf", "B-8B-PQ2_0.gguf", "B-8B-Q2_0_g64.gguf"], "B-8B-PQ2_0.gguf"),
        (["B-27B-F16.gguf", "B-27B-mmproj-F16.gguf", "B-27B-PTQ1_0.gguf"], "B-27B-PTQ1_0.gguf"),
        (["B-Q1_0.gguf", "B-F16.gguf"], "B-Q1_0.gguf"),
        (["B-Q2_0.gguf", "B-TQ2_0.gguf", "B-TQ1_0.gguf"], "B-Q2_0.gguf"),
        (["B-Q2_g64.gguf", "B-F16.gguf"], "B-Q2_g64.gguf"),
        (["B-Q2_0_g64.gguf", "B-Q4_0.gguf"], "B-Q2_0_g64.gguf"),
    ],
)
def test_the_choice(names: list[str], chosen: str) -> None:
    assert hub._choose(names, "a/b") == chosen


def test_an_unclear_choice_lists_the_files() -> None:
    with pytest.raises(bitnet.ArgumentError, match=r"a-i2_s\.gguf, b-i2_s\.gguf, c\.gguf"):
        hub._choose(["b-i2_s.gguf", "a-i2_s.gguf", "c.gguf"], "a/b")
