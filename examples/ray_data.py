"""Answer a JSONL or Parquet file on all machines of a Ray cluster, or on this one; write a folder of Parquet files.

python examples/ray_data.py [PROMPTS ANSWERS [MODEL.gguf]]
"""

import json
import sys
import tempfile
from pathlib import Path

import pyarrow.parquet as parquet
import ray

from bitnet.ray import Answer


def main(source: str, target: str, model: str | None = None, actors: int = 2, cpus: int = 1) -> None:
    """Answer a file with a column "prompt" or "messages" in up to so many actors of so many threads."""
    rows = ray.data.read_parquet(source) if source.endswith(".parquet") else ray.data.read_json(source)
    rows.repartition(4 * actors).map_batches(  # a lost actor costs one of these parts
        Answer,
        fn_constructor_args=[model],
        fn_constructor_kwargs={"max_tokens": 32},
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=actors),  # reading and writing need CPUs, too
        num_cpus=cpus,
        batch_size=32,
        batch_format="pyarrow",
    ).write_parquet(target)


if __name__ == "__main__":
    if len(sys.argv) > 2:
        main(*sys.argv[1:])
    else:
        with tempfile.TemporaryDirectory() as folder:
            prompts = [{"id": i, "messages": [{"role": "user", "content": f"What is {i}+{i}?"}]} for i in range(8)]
            path = Path(folder) / "prompts.jsonl"
            path.write_text("".join(json.dumps(prompt) + "\n" for prompt in prompts), encoding="utf-8")
            main(str(path), f"{folder}/answers")
            for row in parquet.read_table(f"{folder}/answers").sort_by("id").to_pylist():
                print(row["id"], repr(row["text"]), row["digest"][:12])
