"""Generate against every schema of the JSON Schema Test Suite, and validate what comes out.

    python benches/json_schema_suite.py JSON-Schema-Test-Suite/tests/draft2020-12 [--answers 5] [--model FILE]

The suite is https://github.com/json-schema-org/JSON-Schema-Test-Suite. Answers are drawn at temperature 1, the seed
counts up. A schema is either refused, when it has a keyword that is not supported, or every complete answer is valid.
An answer that reaches --max-tokens is only the beginning of a valid one; such answers are counted apart. A frequency
penalty keeps the small model inside from writing digits without an end. Numbers are exact: in
binary, 201.2008 is no multiple of 0.0001.
"""

import argparse
import json
import re
from collections import Counter
from fractions import Fraction
from pathlib import Path

import jsonschema

import bitnet

MESSAGES = [{"role": "user", "content": "What is 2+2?"}]


def number(text: str) -> Fraction | int | float:
    """The exact number that a text is, unless its exponent is beyond all bounds."""
    if abs(int(re.split("[eE]", text)[1])) > 1000 if re.search("[eE]", text) else False:
        return float(text)
    exact = Fraction(text)
    return int(exact) if exact.denominator == 1 else exact


def is_valid(schema: object, text: str) -> str | None:
    """Why an answer is not valid; None if it is. Raises re.error for a pattern that Python cannot read."""
    try:
        value = json.loads(text, parse_float=number)
        jsonschema.Draft202012Validator(schema, format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER).validate(
            value
        )
    except (ValueError, jsonschema.ValidationError) as error:
        return str(error).splitlines()[0]
    return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suite", type=Path)
    parser.add_argument("--answers", type=int, default=5, help="answers for each schema (default: 5)")
    parser.add_argument("--max-tokens", type=int, default=120, help="default: 120")
    parser.add_argument("--frequency-penalty", type=float, default=1.0, help="default: 1")
    parser.add_argument("--model", help="a model file (default: the model in the package)")
    options = parser.parse_args()
    paths = sorted(options.suite.rglob("*.json"))
    if not paths:
        parser.error(f"{options.suite}: there is no *.json file; expected a folder of JSON-Schema-Test-Suite")
    engine = bitnet.Engine(options.model)
    counts: Counter[str] = Counter()
    refused: Counter[str] = Counter()
    for path in paths:
        for group in json.loads(path.read_text(encoding="utf-8"), parse_float=number):
            counts["schemas"] += 1
            schema = group["schema"]
            params = {"json_schema": json.dumps(schema, default=float), "temperature": 1.0, "seed": 1}
            params["frequency_penalty"] = options.frequency_penalty
            try:
                answers = engine.chat(MESSAGES, n=options.answers, max_tokens=options.max_tokens, **params)
            except bitnet.ArgumentError as error:
                counts["refused"] += 1
                refused[str(error).splitlines()[0][:100]] += 1
                continue
            for answer in answers:
                why = None
                try:
                    counts["complete" if answer.finish_reason == "stop" else "cut"] += 1
                    why = is_valid(schema, answer.text) if answer.finish_reason == "stop" else None
                except re.error:
                    counts["of these with a pattern that Python cannot read"] += 1
                if why:
                    counts["INVALID"] += 1
                    print(f"{path.name}: {group['description']}\n  {params['json_schema']}\n  {answer.text!r}: {why}")
                if answer.receipt is not None and not engine.replay(answer.receipt):
                    counts["NOT REPLAYED"] += 1
    for reason, n in refused.most_common():
        print(f"  refused {n:4}  {reason}")
    print(", ".join(f"{name}: {n}" for name, n in counts.items()))


if __name__ == "__main__":
    main()
