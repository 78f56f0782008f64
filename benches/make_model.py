"""Make synthetic ternary models: any shape, any supported tensor type, random trits.

    python benches/make_model.py 2b-4t.gguf --preset 2b-4t
    python benches/make_model.py odd.gguf --arch bitnet --width 400 --heads 4 --linear TQ1_0 --embedding Q6_K

The same options and seed give the same file. `bitnet.bench.synthetic` does the same from Python.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

from bitnet._synthetic import ARCHS, EMBEDDING_TYPES, LINEAR_TYPES, PRESETS, ROPE_SCALINGS, make_model

SIZES = {
    "layers": "number of layers",
    "width": "hidden size",
    "ffn": "intermediate size of the feed-forward network",
    "heads": "number of attention heads",
    "kv-heads": "number of heads of keys and values",
    "head-dim": "channels per head (default: width / heads)",
    "vocab-size": "number of tokens in the vocabulary",
    "context": "context length in tokens",
    "shards": "scales per projection, each for an equal share of its rows (default: 1)",
    "group": "columns that share a scale, which then each row has for itself (default: all)",
    "seed": "seed of all random values (default: 1)",
    "original-context": "positions before the scaling of the rotary embedding (default: context / factor)",
    "window": "positions that most layers of gemma3 see (default: 0, all)",
    "window-pattern": "every layer of this number sees all positions (default: 6)",
    "full-interval": "every layer of this number of qwen35 is attention (default: 4)",
    "ssm-key-heads": "key heads of a gated delta net (default: 2)",
    "ssm-value-heads": "value heads of a gated delta net (default: 6)",
    "ssm-head-dim": "channels of each of these heads (default: 32)",
    "ssm-conv": "tokens that the convolution before them sees (default: 4)",
    "rope-dim": "channels of a head of qwen35 that rotate (default: all)",
    "hadamard": "block of the transform by which weights of qwen35 are stored rotated (default: 0, they are not)",
    "pooling": "1 mean, 2 cls, 3 last: an embedding model (default: 0)",
}


def main() -> None:
    """Make the model that the command line describes: a preset, with some of its fields replaced."""
    parser = argparse.ArgumentParser(description="Make a synthetic ternary model as a GGUF file.")
    parser.add_argument("path", type=Path, help="the file to write")
    parser.add_argument(
        "--preset",
        choices=PRESETS,
        default="tiny",
        help="shape to start from; the other options change it (default: tiny)",
    )
    parser.add_argument("--arch", choices=ARCHS, help="architecture")
    for name, meaning in SIZES.items():
        parser.add_argument(f"--{name}", type=int, help=meaning)
    parser.add_argument("--rope-theta", type=float, help="base of the rotary embedding")
    parser.add_argument("--rope-scaling", choices=ROPE_SCALINGS, help="scaling of the rotary embedding")
    parser.add_argument("--rope-factor", type=float, help="factor of that scaling (default: 4)")
    parser.add_argument("--relu-zeros", type=float, help="share of the gates that are at most 0 (default: half)")
    parser.add_argument("--softcap", type=float, help="bound of the logits of gemma3 (default: 0, none)")
    parser.add_argument(
        "--head-spread",
        type=float,
        metavar="F",
        help="multiply every 1,000th row of a float output head by F (default: 1). The largest of 128,256 random "
        "logits is 4.4 standard deviations above their mean, with F = 2.5 about 6.5. In trained models it is 6 or "
        "more, so that few tokens can be chosen and few exact logits are computed",
    )
    parser.add_argument("--norm-in", action=argparse.BooleanOptionalAction, help="a norm before every projection")
    parser.add_argument("--eps", type=float, help="epsilon of the norms")
    parser.add_argument("--untied", action=argparse.BooleanOptionalAction, help="separate output matrix")
    parser.add_argument("--linear", choices=LINEAR_TYPES, help="tensor type of the projections")
    parser.add_argument("--embedding", choices=EMBEDDING_TYPES, help="tensor type of the embedding")
    parser.add_argument("--output", choices=EMBEDDING_TYPES, help="tensor type of the output matrix")
    parser.add_argument("--ssm-gates", choices=EMBEDDING_TYPES, help="tensor type of alpha and beta of qwen35")
    parser.add_argument(
        "--gdn-v-grouped",
        action=argparse.BooleanOptionalAction,
        help="rotate ssm_out with its value heads in the order of their key heads (default: yes)",
    )
    parser.add_argument("--vocab", type=Path, metavar="FILE.gguf", help="copy the tokenizer of this file")
    args = vars(parser.parse_args())
    path, preset, vocab = args.pop("path"), args.pop("preset"), args.pop("vocab")
    try:
        spec = dataclasses.replace(PRESETS[preset], **{key: value for key, value in args.items() if value is not None})
        make_model(path, spec, vocab)
    except ValueError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
