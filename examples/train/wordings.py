"""Wordings of questions (wordings.txt) and the words in them (words.txt).

Wordings whose name begins with "unseen" are used in tests only.
"""

from __future__ import annotations

import random
import re
from pathlib import Path


def read(path: Path) -> dict[str, list[str]]:
    """Read the entries of a file: a name in brackets, then one wording per line."""
    entries: dict[str, list[str]] = {}
    for line in path.read_text().splitlines():
        if line.startswith("["):
            wordings = entries.setdefault(line.strip("[]"), [])
        elif line:
            wordings.append(line)
    return entries


ENTRIES = read(Path(__file__).with_name("wordings.txt"))
SEEN = {name: wordings for name, wordings in ENTRIES.items() if not name.startswith("unseen ")}
WORDS = {name: " ".join(lines).split() for name, lines in read(Path(__file__).with_name("words.txt")).items()}
UNSEEN = {name.removeprefix("unseen "): wordings for name, wordings in ENTRIES.items() if name not in SEEN}

OPENERS = [
    "Hi, ",
    "OK, ",
    "ok ",
    "Now ",
    "So ",
    "Hey, ",
    "Please ",
    "And ",
    "and ",
    "Well, ",
    "Hello! ",
    "then ",
    "Trit, ",
    "um ",
    "hmm ",
    "lol ",
    "hey ",
]


def careless(rng: random.Random, wording: str) -> str:
    """Change a wording as a user might type it: case, punctuation, politeness, typing mistakes."""
    if rng.random() < 0.5:
        return wording
    if rng.random() < 0.12 and len(wording) > 6:
        opener = rng.choice(OPENERS)
        wording = opener + (wording[0].lower() + wording[1:] if not wording.startswith(("I ", "I'")) else wording)
    if rng.random() < 0.06 and len(wording) > 6:
        wording = wording.rstrip("?.!") + rng.choice([" please", ", please", " please?", " for me", " now", " then"])
    if rng.random() < 0.5:
        wording = re.sub(r"(^|[\s\"])([A-Z])", lambda m: m[1] + m[2].lower(), wording)
    elif rng.random() < 0.03:
        wording = re.sub(r"[a-z]+(?![^{]*})", lambda m: m[0].upper(), wording)
    if rng.random() < 0.35:
        wording = wording.rstrip("?.!")
    elif rng.random() < 0.15:
        wording = wording.rstrip("?.!") + rng.choice(["?", "!", " ?", "??", ".", "...", "?!"])
    if rng.random() < 0.2:
        wording = wording.replace("'", "")
    if rng.random() < 0.12:
        words = wording.split(" ")
        i = rng.randrange(len(words))
        words[i] = slip(rng, words[i])
        wording = " ".join(words)
    return wording


def slip(rng: random.Random, word: str) -> str:
    """Return the word with two letters swapped, one left out or one doubled."""
    if len(word) < 4 or "{" in word:
        return word
    i = rng.randrange(len(word) - 1)
    return rng.choice(
        [word[:i] + word[i + 1] + word[i] + word[i + 2 :], word[:i] + word[i + 1 :], word[:i] + word[i] + word[i:]]
    )
