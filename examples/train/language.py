"""Skills other than arithmetic: letters, memory, small talk, and refusals."""

from __future__ import annotations

import string

from arithmetic import NoProblem, Talk, Turn, spoken
from wordings import WORDS

ABOUT = "I can add, subtract, multiply, compare, count, sort, spell and reverse, and remember what you tell me."
CANNOT = "I can't do that. Ask me: what can you do?"
TOO_BIG = "That is too big for me. I add and subtract up to 999, and multiply up to 99 by 9."

# Questions that always have the same answer. The wordings have the same names.
ANSWERS = {
    "greet": "Hello! What can I do for you?",
    "morning": "Good morning! What can I do for you?",
    "evening": "Good evening! What can I do for you?",
    "how_are_you": "I am fine, thank you. What can I do for you?",
    "thanks": "You are welcome!",
    "bye": "Goodbye!",
    "praise": "Thank you!",
    "okay": "OK. What is next?",
    "wrong": "I am sorry. I am small and make mistakes.",
    "sure": "I think so, but I am small and make mistakes.",
    "who": "I am Trit, a tiny language model. My weights are -1, 0 and 1.",
    "maker": "The bitnet project trained me from scratch, on sums and short talks.",
    "size": "I have about 3 million weights, most of them -1, 0 or 1.",
    "home": "I live inside the bitnet package, on your own computer.",
    "human": "No, I am a program: Trit, a tiny language model.",
    "able": ABOUT + " Try: what is 23+45?",
    "unable": "I know nothing of the world, only numbers, letters and what you tell me.",
    "divide": "I can't divide. I add, subtract and multiply.",
    "decimal": "I only know whole numbers.",
}


def manners(talk: Talk, *kinds: str) -> Turn:
    """Ask a question that has a fixed answer."""
    kind = talk.rng.choice(kinds)
    n, m = talk.rng.randint(2, 99), talk.rng.randint(2, 99)
    frac = f"{talk.rng.randint(0, 99)}.{talk.rng.randint(1, 99)}"
    return Turn(skill_of(kind), talk.ask(kind, n=n, m=m, f=frac), ANSWERS[kind])


def skill_of(kind: str) -> str:
    """Return the skill that an answer counts for in the scores."""
    if kind in ("who", "maker", "size", "home", "human", "able", "unable"):
        return "identity"
    return "refuse" if kind in ("divide", "decimal") else "manners"


def small_talk(talk: Talk) -> Turn:
    return manners(
        talk, "greet", "greet", "morning", "evening", "how_are_you", "thanks", "bye", "praise", "okay", "wrong", "sure"
    )


def identity(talk: Talk) -> Turn:
    return manners(talk, "who", "who", "maker", "size", "home", "human", "able", "able", "unable")


def refuse(talk: Talk) -> Turn:
    """Ask for something that the model cannot do; the answer says so."""
    rng = talk.rng
    kind = rng.random()
    if kind < 0.12:
        return manners(talk, "divide")
    if kind < 0.2:
        return manners(talk, "decimal")
    if kind < 0.35:
        big, small = rng.randint(1000, 10 ** rng.randint(4, 7)), rng.randint(0, 10 ** rng.randint(1, 5))
        a, b = (big, small) if rng.random() < 0.5 else (small, big)
        sign = rng.choice("+-**")
        if sign == "*" and rng.random() < 0.8:
            a, b = rng.randint(13, 99), rng.randint(13, 999)
        return Turn("refuse", talk.ask("expression", e=spoken(talk, a, sign, b)), TOO_BIG)

    def make() -> tuple[str, str, str]:
        words = WORDS["words" if rng.random() < 0.6 else "names"]
        topic = rng.choice(words) if rng.random() < 0.7 else talk.new_word()
        topic = topic.title() if rng.random() < 0.3 else topic
        return f"topic {topic}", topic, rng.choice(WORDS["words"])

    topic, other = talk.draw(make)
    numbers = {"n": rng.randint(2, 999), "m": rng.randint(2, 99), "y": rng.randint(1000, 2030)}
    return Turn("refuse", talk.ask("other", t=topic, u=other, **numbers), CANNOT)


# -- Letters ----------------------------------------------------------------------------------------------------------


def word_for(talk: Talk, what: str, longest: int) -> str:
    """Draw a word for a skill, in lower case or capitalized."""

    def make() -> tuple[str | None, str]:
        word = talk.new_word(longest)
        # A word that is one token has no key: the model has to memorize its letters.
        return None if word in WORDS["whole"] else f"{what} {word}", word

    word: str = talk.draw(make)[0]
    if talk.word == word and talk.rng.random() < 0.5:
        raise NoProblem
    talk.word, talk.items = word.title() if talk.rng.random() < 0.1 else word, None
    return talk.word


def spell(talk: Talk) -> Turn:
    word = word_for(talk, "spell", 10)
    return Turn("spell", talk.ask("spell", w=word), spelled(word))


def reverse(talk: Talk) -> Turn:
    if talk.rng.random() < 0.12:

        def make() -> tuple[str, str]:
            digits = "".join(talk.rng.choices(string.digits, k=talk.rng.randint(2, 6)))
            return f"reverse {digits}", digits

        word = talk.draw(make)[0]
    else:
        word = word_for(talk, "reverse", 6)
    return Turn("reverse", talk.ask("reverse", w=word), backwards(word))


def letters(talk: Talk) -> Turn:
    word = word_for(talk, "letters", 10)
    return Turn("letters", talk.ask("letters", w=word), counted(word))


# Each answer names the word before its letters, after a space: then it is the same token as in the question.


def spelled(word: str) -> str:
    return f"The word {word}: {'-'.join(word)}."


def backwards(word: str) -> str:
    """Return the answer to `reverse`: the letters, then the reversed word."""
    return f"The word {word}: {'-'.join(word)}, so {word[::-1]}."


def counted(word: str) -> str:
    """Return the answer to `letters`: the numbered letters, then their number."""
    return (
        f"The word {word}: "
        + ", ".join(f"{i} {letter}" for i, letter in enumerate(word, 1))
        + f": {len(word)} letters."
    )


def one_letter(talk: Talk) -> Turn:
    """Ask how often a letter occurs in a word."""
    word = word_for(talk, "letters", 10)
    letter = talk.rng.choice(word.lower() if talk.rng.random() < 0.85 else string.ascii_lowercase)
    steps, count = [], 0
    for other in word:
        count += other.lower() == letter
        steps.append(f"{other} {count}" if other.lower() == letter else other)
    return Turn(
        "one_letter", talk.ask("one_letter", w=word, c=letter), f"The word {word}: {', '.join(steps)}: {count}."
    )


def same_word(talk: Talk) -> Turn:
    """Ask about the last word again: "and backwards?"."""
    word = talk.word
    if word is None or len(word) > 6:
        raise NoProblem
    kind = talk.rng.choice(["reverse", "spell", "letters"])
    talk.draw(lambda: (None if word in WORDS["whole"] else f"{kind} {word.lower()}",))
    answer = {"reverse": backwards, "spell": spelled, "letters": counted}[kind](word)
    return Turn("same_word", talk.ask("again_" + kind), answer)


# -- Counting ---------------------------------------------------------------------------------------------------------


def count(talk: Talk) -> Turn:
    """Ask to count up or down, at most 15 steps."""
    rng = talk.rng

    def make() -> tuple[str, int, int]:
        a = 1 if rng.random() < 0.3 else rng.randint(0, rng.choice([9, 99]))
        b = a + rng.randint(2, 14)
        return f"count {a} {b}", a, b

    a, b = talk.draw(make)
    if rng.random() < 0.35:
        user, numbers = talk.ask("count_down", a=b, b=a), range(b, a - 1, -1)
    else:
        user, numbers = talk.ask("count_to" if a == 1 else "count", a=a, b=b), range(a, b + 1)
    return Turn("count", user, ", ".join(map(str, numbers)) + ".")


def neighbour(talk: Talk) -> Turn:
    """Ask what comes after or before a number."""

    def make() -> tuple[str | None, int]:
        n = max(1, talk.number(998))
        return f"next {n}" if n > 20 else None, n

    n = talk.draw(make)[0]
    after = talk.rng.random() < 0.6
    talk.last = n + 1 if after else n - 1
    return Turn("next", talk.ask("after" if after else "before", n=n), f"{talk.last}.")


# -- Memory -----------------------------------------------------------------------------------------------------------


def tell(talk: Talk) -> Turn:
    """Tell the model something about the user."""
    rng, kind = (
        talk.rng,
        talk.rng.choice(["name", "name", "name", "favorite", "favorite", "number", "age", "town", "mood"]),
    )
    if kind == "mood":
        return Turn("manners", talk.ask("mood", v=rng.choice(WORDS["feelings"])), "I see. What can I do for you?")
    key = f"favorite {rng.choice(WORDS['kinds'])}" if kind == "favorite" else kind

    def make() -> tuple[str, str]:
        if kind == "name" or kind == "town":
            value = rng.choice(WORDS["names"]) if rng.random() < 0.6 else talk.new_word(whole=False).title()
            value = value.lower() if rng.random() < 0.15 else value
        elif kind == "age":
            value = str(rng.randint(3, 99))
        elif kind == "number" or key == "favorite number":
            value = str(talk.number())
        else:
            value = talk.new_word(whole=False)
        return f"{kind} {value.lower()}" if kind != "age" else "age", value

    was_test, talk.test = talk.test, talk.test and kind != "age"
    value = talk.draw(make)[0]
    talk.test = was_test
    talk.facts[key] = value
    user = talk.ask("tell_" + kind, v=value, k=key.removeprefix("favorite "))
    if kind == "name":
        return Turn("remember", user, f"Nice to meet you, {value}!")
    return Turn("remember", user, f"OK, I will remember: {fact(key, value)}.")


def fact(key: str, value: str) -> str:
    """Phrase a fact as the model repeats it."""
    if key == "age":
        return f"you are {value} years old"
    if key == "town":
        return f"you live in {value}"
    return f"the number is {value}" if key == "number" else f"your {key} is {value}"


def recall(talk: Talk) -> Turn:
    """Ask for a fact. The answer repeats it, or says that the user has not told it."""
    rng = talk.rng
    known = sorted(talk.facts)
    if known and rng.random() < 0.8:
        key = rng.choice(known)
    else:
        key = rng.choice(["name", "name", "age", "town", "number", "favorite " + rng.choice(WORDS["kinds"])])
    kind = "favorite" if key.startswith("favorite") else key
    user = talk.ask("recall_" + kind, k=key.removeprefix("favorite "))
    if key in talk.facts:
        answer = fact(key, talk.facts[key])
        return Turn("recall", user, answer[0].upper() + answer[1:] + ".")
    missing = {"age": "how old you are", "town": "where you live", "number": "a number"}.get(key, f"your {key}")
    return Turn("recall", user, f"You have not told me {missing}.")


def what_result(talk: Talk) -> Turn:
    """Ask for the last result again."""
    if talk.last is None:
        raise NoProblem
    return Turn("recall", talk.ask("result"), f"The last result is {talk.last}.")
