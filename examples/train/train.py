"""Train the model of this folder, or resume a training.

    python examples/train/train.py RUN [--steps N] [--rows N] [--seed N]

RUN is a folder for checkpoint.pt (saved every two minutes and at the end), log.csv and tokenizer.gguf. The same seed,
machine and number of threads give the same weights. Every batch follows from the seed and its step, so a resumed
training gives the same result as an uninterrupted one.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

import data
from arithmetic import Turn
from model import BitNet, Config

WARM_UP = 100
SAVE_SECONDS = 120
TEST_EVERY = 500
COOL_DOWN = 0.4


def rate(step: int, steps: int) -> float:
    """Return the learning rate as a fraction of its peak: warm-up, constant, then linearly down to zero.

    While it is constant nothing depends on `steps`, so a training can be stopped there and resumed with other `steps`.
    """
    return min((step + 1) / WARM_UP, (steps - step) / (steps * COOL_DOWN), 1.0)


def make_optimizers(model: BitNet, peak: float) -> list[torch.optim.Optimizer]:
    """Return the optimizers: Muon for the projections, AdamW for embedding and norms."""
    projections = [p for name, p in model.named_parameters() if p.ndim == 2 and "blk" in name]
    rest = [p for name, p in model.named_parameters() if p.ndim == 1 or "blk" not in name]
    return [
        torch.optim.Muon(projections, lr=peak, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(rest, lr=peak, betas=(0.9, 0.95), weight_decay=0.0),
    ]


def mask_of(number: Tensor) -> Tensor:
    """Return the attention mask: each id sees itself and the ids before it in the same conversation."""
    n = number.shape[1]
    same = number[:, :, None] == number[:, None, :]
    return (same & torch.ones(n, n, dtype=torch.bool, device=number.device).tril())[:, None]


def loss_of(model: torch.nn.Module, ids: Tensor, targets: Tensor, number: Tensor) -> Tensor:
    """Return the mean cross-entropy over the targets."""
    with torch.autocast(ids.device.type, torch.bfloat16):
        logits = model(ids, mask_of(number))
    return F.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), ignore_index=-1)


def held_out_batch(tokenizer: object, length: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return held-out problems, one conversation per row; only the last answer has targets."""
    rows = []
    for problem in data.test_conversations(seed=2, per_skill=2):
        turns = [Turn("", user, answer) for user, answer in problem["turns"]]  # type: ignore[attr-defined]
        ids, own = data.encode(tokenizer, None, turns)  # type: ignore[arg-type]
        if len(ids) <= length:
            last = len(ids) - own[::-1].index(False)
            rows.append((ids, last))
    out = [torch.zeros(len(rows), length, dtype=torch.long) for _ in range(3)]
    out[1][:] = -1
    for i, (text, last) in enumerate(rows):
        out[0][i, : len(text)] = torch.tensor(text)
        out[1][i, last - 1 : len(text) - 1] = torch.tensor(text[last:])
        out[2][i, : len(text)] = 1
    return out[0], out[1], out[2]


def main() -> None:
    """Train as the command line says."""
    parser = argparse.ArgumentParser(description="Train a small BitNet b1.58 model.")
    parser.add_argument("run", type=Path, help="folder of the training")
    parser.add_argument("--steps", type=int, default=19500, help="steps of the whole training (default: 19500)")
    parser.add_argument("--rows", type=int, default=10, help="rows of a batch, 384 tokens each (default: 10)")
    parser.add_argument("--seed", type=int, default=1, help="seed of weights and data (default: 1)")
    parser.add_argument("--rate", type=float, default=3e-3, help="peak learning rate (default: 0.003)")
    parser.add_argument("--layers", type=int, default=5, help="number of layers (default: 5)")
    parser.add_argument("--ffn", type=int, default=512, help="intermediate size, a multiple of 128 (default: 512)")
    parser.add_argument("--until", type=int, help="stop at this step; the same command without it resumes")
    options = parser.parse_args()

    options.run.mkdir(parents=True, exist_ok=True)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(options.seed)
    tokenizer = data.make_tokenizer(options.run / "tokenizer.gguf", options.seed)
    config = Config(vocab=tokenizer.vocab_size, layers=options.layers, ffn=options.ffn)
    model = BitNet(config).to(device)
    optimizers = make_optimizers(model, options.rate)
    step = 0
    checkpoint = options.run / "checkpoint.pt"
    if checkpoint.exists():
        state = torch.load(checkpoint, map_location=device)
        model.load_state_dict(state["model"])
        for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        step = state["step"]
    print(f"{sum(p.numel() for p in model.parameters()):,} weights, from step {step} to {options.steps} on {device}")

    def save() -> None:
        state = {"model": model.state_dict(), "optimizers": [o.state_dict() for o in optimizers], "step": step}
        state |= {"config": dataclasses.asdict(config), "options": {k: str(v) for k, v in vars(options).items()}}
        torch.save(state, checkpoint.with_suffix(".new"))
        checkpoint.with_suffix(".new").replace(checkpoint)

    compiled = torch.compile(model)
    held_out = [t.to(device) for t in held_out_batch(tokenizer, config.context)]
    begin = saved_at = time.time()
    losses: list[float] = []
    with (options.run / "log.csv").open("a", newline="") as file:
        log = csv.writer(file)
        while step < min(options.steps, options.until or options.steps):
            arrays = data.batch(tokenizer, f"train {options.seed} {step}", options.rows, config.context)
            loss = loss_of(compiled, *(torch.from_numpy(a).to(device) for a in arrays))
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            for optimizer in optimizers:
                for group in optimizer.param_groups:
                    group["lr"] = options.rate * rate(step, options.steps)
                optimizer.step()
                optimizer.zero_grad()
            step += 1
            losses.append(loss.item())
            if step % 50 == 0:
                print(
                    f"step {step} loss {sum(losses[-50:]) / len(losses[-50:]):.4f} {time.time() - begin:.0f} s",
                    flush=True,
                )
            if step % TEST_EVERY == 0 or step == options.steps:
                with torch.no_grad():
                    parts = [loss_of(model, *(t[i : i + 50] for t in held_out)).item() for i in range(0, 150, 50)]
                row = [step, step * options.rows * config.context, sum(losses) / len(losses), sum(parts) / len(parts)]
                log.writerow([*row, round(time.time() - begin)])
                file.flush()
                print(
                    "step {} tokens {} loss {:.4f} held out {:.4f}".format(*row),
                    f"{time.time() - begin:.0f} s",
                    flush=True,
                )
                losses = []
            if time.time() - saved_at > SAVE_SECONDS:
                save()
                saved_at = time.time()
    save()


if __name__ == "__main__":
    main()
