"""Conversations for training and tests, and their tokenizer. Everything follows from a seed.

    python examples/train/data.py                    # print some conversations
    python examples/train/data.py heldout.jsonl.gz   # write the held-out problems, which training never sees

To train on something else, replace `conversation` and `test_conversations`.
"""

from __future__ import annotations

import collections
import gzip
import json
import random
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

import arithmetic as ar
import bitnet
import language as la
import order as od
import wordings
from arithmetic import NoProblem, Talk, Turn
from bitnet._gguf_writer import Value, write_gguf

SKILLS = {
    ar.add: 8,
    ar.subtract: 9,
    ar.multiply: 7,
    ar.another: 4,
    ar.follow_up: 15,
    ar.three: 2,
    ar.tale: 2.5,
    od.compare: 9,
    od.parity: 1,
    od.extreme: 3,
    od.sort: 9,
    od.other_way: 7,
    la.spell: 6,
    la.reverse: 9,
    la.letters: 5,
    la.one_letter: 7,
    la.same_word: 12,
    la.count: 5,
    la.neighbour: 3,
    la.tell: 7,
    la.recall: 7,
    la.what_result: 1,
    la.small_talk: 5,
    la.identity: 5,
    la.refuse: 7,
}
RESULTS = (ar.add, ar.subtract, ar.multiply, ar.another, ar.follow_up, ar.three, ar.tale, od.parity, la.neighbour)

BOS, EOS, EOT = "<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"
TEMPLATE = (  # the template of BitNet b1.58 2B-4T
    "{% set loop_messages = messages %}{% for message in loop_messages %}{% set content = message['role'] | capitalize "
    "+ ': '+ message['content'] | trim + '<|eot_id|>' %}{{ content }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant: ' }}{% endif %}"
)
WORD_TOKENS = 320  # number of words that are one token each; everything else is spelled in bytes
Ids = npt.NDArray[np.int64]


def conversation(rng: random.Random, longest: int = 12) -> tuple[str | None, list[Turn]]:
    """Generate a conversation: a system prompt or None, and its turns."""
    system = rng.choice(wordings.SEEN["system"]) if rng.random() < 0.25 else None
    talk, turns = Talk(rng), []
    count = min(longest, 1 + int(rng.expovariate(1 / 4.5)))
    while len(turns) < count:
        turns.append(any_turn(talk))
    return system, turns


def any_turn(talk: Talk) -> Turn:
    """Generate a turn of a random skill."""
    while True:
        try:
            return say(talk, talk.rng.choices(list(SKILLS), list(SKILLS.values()))[0])
        except NoProblem:
            continue


def say(talk: Talk, skill: Callable[[Talk], Turn]) -> Turn:
    """Generate a turn of a skill. Then forget what "it" and "that" no longer refer to."""
    turn = skill(talk)
    if skill not in (la.spell, la.reverse, la.letters, la.one_letter, la.same_word):
        talk.word = None
    if skill not in (od.sort, od.other_way):
        talk.items = None
    talk.age = 0 if skill in RESULTS else talk.age + 1
    if talk.age > 1:
        talk.last = None
    return turn


# -- The tokenizer: frequent words are tokens, everything else is bytes; so every digit is a token --------------------


def byte_letters() -> list[str]:
    """Return the printable characters that stand for the 256 bytes in GPT-2 vocabularies."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = iter(range(256, 512))
    return [chr(b) if b in plain else chr(next(others)) for b in range(256)]


def vocabulary(seed: int, sample: int = 6000) -> list[str]:
    """Return all tokens: bytes, the most frequent words (with the space before them), control tokens.

    A word that begins an answer is not a token. After "Assistant: " the prompt of the next turn would contain the token
    " word", but the model has generated "word" without the space.
    """
    words: collections.Counter[str] = collections.Counter()
    first = set()
    for i in range(sample):
        _, turns = conversation(random.Random(f"vocabulary {seed} {i}"))
        for turn in turns:
            words.update(re.findall(r" [A-Za-z]{2,}", f" {turn.user} {turn.answer}"))
            first.update(re.findall(r"^[A-Za-z]+", turn.answer))
    frequent = [word for word, _ in words.most_common() if word[1:] not in first][:WORD_TOKENS]
    roles = ["System", "User", "Assistant"]
    return [*byte_letters(), *roles, *("Ġ" + word[1:] for word in frequent), BOS, EOS, EOT]


def tokenizer_metadata(tokens: list[str]) -> dict[str, Value]:
    """Return the tokenizer as GGUF metadata. llama-bpe maps words of the vocabulary directly: no merges are needed."""
    control = {BOS, EOS, EOT}
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "llama-bpe",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [3 if token in control else 1 for token in tokens],
        "tokenizer.ggml.merges": [],
        "tokenizer.ggml.bos_token_id": tokens.index(BOS),
        "tokenizer.ggml.eos_token_id": tokens.index(EOS),
        "tokenizer.ggml.eot_token_id": tokens.index(EOT),
        "tokenizer.ggml.add_bos_token": True,
        "tokenizer.chat_template": TEMPLATE,
    }


def make_tokenizer(path: Path, seed: int) -> bitnet.Tokenizer:
    """Write the tokenizer to a file and open it: training uses the tokenizer of the engine."""
    if not path.exists():
        write_gguf(path, {"general.architecture": "bitnet-b1.58"} | tokenizer_metadata(vocabulary(seed)), [])
    return bitnet.Tokenizer(path)


# -- Batches ----------------------------------------------------------------------------------------------------------


def encode(tokenizer: bitnet.Tokenizer, system: str | None, turns: list[Turn]) -> tuple[list[int], list[bool]]:
    """Return the ids of a conversation, and which of them the model has to predict."""
    ids = tokenizer.encode(BOS + (f"System: {system}{EOT}" if system else ""), parse_special=True)
    own = [False] * len(ids)
    for turn in turns:
        asked = tokenizer.encode(f"User: {turn.user}{EOT}Assistant: ", parse_special=True)
        answer = tokenizer.encode(turn.answer + EOT, parse_special=True)
        ids += asked + answer
        own += [False] * len(asked) + [True] * len(answer)
    return ids, own


def batch(tokenizer: bitnet.Tokenizer, seed: str, rows: int, length: int) -> tuple[Ids, Ids, Ids]:
    """Return ids, targets (-1: no loss) and the number of each id's conversation in its row (0: padding)."""
    rng = random.Random(seed)
    ids, targets, number = (np.zeros((rows, length), np.int64) for _ in range(3))
    targets[:] = -1
    waiting: list[tuple[list[int], list[bool]]] = []
    for row in range(rows):
        start, count = 0, 1
        while True:
            while len(waiting) < 24:
                found = encode(tokenizer, *conversation(rng))
                if len(found[0]) <= length:
                    waiting.append(found)
            fitting = [c for c in waiting if len(c[0]) <= length - start]
            if not fitting:
                break
            # The oldest starts a row, so that long ones are used, too. Then the longest that fits follows.
            chosen = waiting[0] if start == 0 else max(fitting, key=lambda c: len(c[0]))
            waiting.remove(chosen)
            text, own = chosen
            end = start + len(text)
            ids[row, start:end], number[row, start:end] = text, count
            targets[row, start : end - 1] = [i if mine else -1 for i, mine in zip(text[1:], own[1:], strict=True)]
            start, count = end, count + 1
    return ids, targets, number


# -- Held-out problems ------------------------------------------------------------------------------------------------


def test_conversations(seed: int, per_skill: int) -> Iterator[dict[str, object]]:
    """Generate conversations whose last turn is scored: a held-out problem, alone, later, or in a held-out wording."""
    for skill in SKILLS:
        alone = skill not in (ar.another, ar.follow_up, od.other_way, la.same_word, la.recall, la.what_result)
        for kind in ("single", "multi", "unseen"):
            often = skill in (ar.add, ar.subtract, ar.multiply, ar.follow_up)
            for i in range(per_skill * 3 if often else per_skill):
                rng = random.Random(f"test {seed} {skill.__name__} {kind} {i}")
                turn = None
                while turn is None:
                    talk, before = Talk(rng), []
                    wanted = 0 if alone and kind != "multi" else rng.randint(1, 4)
                    try:
                        while len(before) < wanted:
                            before.append(any_turn(talk))
                        talk.test, talk.unseen = True, kind == "unseen"
                        turn = say(talk, skill)
                    except NoProblem:
                        continue
                how = "unseen wording" if kind == "unseen" else "single" if not before else "multi"
                turns = [(t.user, t.answer) for t in [*before, turn]]
                yield {"skill": turn.skill, "digits": turn.digits, "how": how, "turns": turns}


def main() -> None:
    """Print conversations, or write the held-out problems."""
    if len(sys.argv) == 1:
        for i in range(8):
            system, turns = conversation(random.Random(i))
            print(f"-- {system or ''}")
            for turn in turns:
                print(f"{turn.skill:>10} | {turn.user}\n{'':>10} > {turn.answer}")
        return
    lines = (json.dumps(problem, ensure_ascii=False) + "\n" for problem in test_conversations(seed=1, per_skill=30))
    Path(sys.argv[1]).write_bytes(gzip.compress("".join(lines).encode(), mtime=0))


if __name__ == "__main__":
    main()
