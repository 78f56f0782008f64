"""Answer the requests of a JSONL file and show the progress, as `bitnet run --input` does.

python examples/batch.py [PROMPTS.jsonl ANSWERS.jsonl [MODEL.gguf]]
"""

import json
import sys
import tempfile
from pathlib import Path

from bitnet import Engine
from bitnet.batch import run


def main(source: Path, target: Path, model: str | None = None) -> None:
    """Answer the requests that have no answer in the target file yet; print all answers."""
    with Engine(model) as engine:
        for done, total in run(engine, source, target, max_tokens=32):
            print(f"\r{done} of {total}", end="", file=sys.stderr)
    print(file=sys.stderr)
    for line in target.read_text(encoding="utf-8").splitlines():
        answer = json.loads(line)
        if "error" in answer:
            print(answer["id"], "was not answered:", answer["error"])
        else:
            print(answer["id"], repr(answer["text"]), answer["digest"][:12])


if __name__ == "__main__":
    if len(sys.argv) > 2:
        main(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:])
    else:
        with tempfile.TemporaryDirectory() as folder:
            prompts = [{"messages": [{"role": "user", "content": f"What is {i}+{i}?"}]} for i in range(8)]
            path = Path(folder) / "prompts.jsonl"
            path.write_text("".join(json.dumps(prompt) + "\n" for prompt in prompts), encoding="utf-8")
            main(path, Path(folder) / "answers.jsonl")
