"""Runs `bitnet.ray` on a cluster of two raylets, for `test_ray.py`: python tests/ray_runs.py FOLDER

A process of its own, because Ray sets signal handlers and starts threads. FOLDER/rows.jsonl has the rows; the answers
are written to FOLDER/answers, and what else happened to FOLDER/runs.json.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import ray
from ray.cluster_utils import Cluster

from bitnet import SamplingParams, Template, models
from bitnet.ray import Answer, Embed, Score

ROOT = Path(__file__).resolve().parent.parent
NODE = {"num_cpus": 3, "object_store_memory": 80 << 20, "include_dashboard": False}
"""A machine of the cluster: its CPUs are enough for one actor of two, and for reading and writing files."""
FATAL = 77
"""The id of the row whose first actor dies."""


def pool(size: int, cpus: int = 1) -> dict[str, Any]:
    """The arguments of `map_batches` for this many actors."""
    strategy = ray.data.ActorPoolStrategy(size=size)
    return {"compute": strategy, "num_cpus": cpus, "batch_size": 8, "batch_format": "pyarrow"}


def answer(folder: Path) -> None:
    """Answer the file, while an actor is killed once."""
    mark = folder / "killed"

    class Traced(Answer):
        """Adds where each row was answered; kills itself once."""

        def __call__(self, batch: Any) -> Any:
            if FATAL in batch.column("id").to_pylist() and not mark.exists():
                mark.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            place = f"{ray.get_runtime_context().get_node_id()} {os.getpid()}"
            batch = super().__call__(batch)
            batch = batch.append_column("place", pa.array([place] * batch.num_rows))
            return batch.append_column("threads", pa.array([self.engine.n_threads] * batch.num_rows))

    rows = ray.data.read_json(str(folder / "rows.jsonl")).repartition(12)
    template = Template.from_model(models.inside()).at("2026-01-31T12:00:00")
    options = {"params": SamplingParams(max_tokens=16), "system": "Be brief.", "template": template, "receipts": True}
    rows.map_batches(Traced, fn_constructor_kwargs=options, **pool(2, cpus=2)).write_parquet(str(folder / "answers"))


def failure(model: str) -> str:
    """The message of a run that fails."""
    rows = ray.data.from_items([{"prompt": "2+2="}])
    try:
        rows.map_batches(Answer, fn_constructor_args=[model], **pool(1)).take_all()
    except Exception as error:
        return str(error)
    return ""


def score() -> dict[str, Any]:
    """A row with scores and a vector."""
    rows = ray.data.from_items([{"context": "2+2=", "continuations": ["4", "5"], "text": "2+2="}])
    embedding = {"fn_constructor_kwargs": {"prefix": "embed_"}}
    [row] = rows.map_batches(Score, **pool(1)).map_batches(Embed, **embedding, **pool(1)).take_all()
    return {name: value.tolist() if hasattr(value, "tolist") else value for name, value in row.items()}


def example(address: str) -> str:
    """What the example prints on this cluster."""
    command = [sys.executable, str(ROOT / "examples" / "ray_data.py")]
    environment = {**os.environ, "RAY_ADDRESS": address}
    return subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True).stdout


def main(folder: Path) -> None:
    """Start the cluster, and do everything."""
    cluster = Cluster(initialize_head=True, head_node_args=NODE)
    try:
        cluster.add_node(**NODE)
        ray.init(address=cluster.address, log_to_driver=False)
        ray.data.DataContext.get_current().enable_progress_bars = False
        answer(folder)
        runs = {
            "no model": failure("/nowhere.gguf"),
            "scores": score(),
            "example": example(cluster.address),
        }
        (folder / "runs.json").write_text(json.dumps(runs))
    finally:
        ray.shutdown()
        cluster.shutdown()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
