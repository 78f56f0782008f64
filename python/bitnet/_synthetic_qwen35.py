"""The shapes, values and metadata keys that only synthetic models of the architecture `qwen35` have.

Most of its layers are gated delta nets, the others attention with an output gate. Weights can be stored rotated.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ._gguf_writer import Value

if TYPE_CHECKING:
    from ._synthetic import Spec

Draw = Callable[[np.random.Generator, tuple[int, ...]], npt.NDArray[Any]]

GATES = ("ssm_alpha.weight", "ssm_beta.weight")  # projections that published files hold as floats, never rotated
# What is neither a projection nor a norm. The decay of a head for each token is exp(ssm_a * softplus(alpha + dt)), so
# some heads remember hundreds of tokens here, and some a few.
DRAWS: dict[str, Draw] = {
    "ssm_a": lambda rng, shape: -np.exp(rng.uniform(-4.0, 0.7, shape)),
    "ssm_dt.bias": lambda rng, shape: rng.uniform(-1.0, 1.0, shape),
    "ssm_conv1d.weight": lambda rng, shape: rng.uniform(-0.8, 0.8, shape),
}


def draw_gate(rng: np.random.Generator, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """Return the weights of a gate, whose outputs are about as large as its inputs."""
    return rng.normal(0.0, shape[1] ** -0.5, shape)


def check(spec: Spec) -> None:
    """Raise ValueError for a shape that no model of this architecture can have."""
    if spec.full_interval < 1 or spec.ssm_conv < 1:
        raise ValueError(f"full_interval and ssm_conv are 1 or more; found {spec.full_interval} and {spec.ssm_conv}")
    if spec.ssm_value_heads % spec.ssm_key_heads:
        counts = f"{spec.ssm_value_heads} and {spec.ssm_key_heads}"
        raise ValueError(f"ssm_value_heads must be a multiple of ssm_key_heads; found {counts}")
    if spec.rope_dim is not None and (spec.rope_dim % 2 or not 0 < spec.rope_dim <= spec.hd):
        raise ValueError(f"rope_dim is an even number up to head_dim {spec.hd}; found {spec.rope_dim}")
    if not spec.hadamard:
        return
    if not spec.untied:
        raise ValueError("a model with rotated weights (hadamard) needs an output matrix of its own: untied=True")
    if spec.hadamard & (spec.hadamard - 1):
        raise ValueError(f"hadamard is a power of two; found {spec.hadamard}")
    for width in input_widths(spec):
        if width % spec.hadamard:
            raise ValueError(f"hadamard {spec.hadamard} does not divide the width {width} of a projection's input")


def is_recurrent(spec: Spec, i: int) -> bool:
    """Return whether a layer is a gated delta net."""
    return (i + 1) % spec.full_interval != 0


def value_width(spec: Spec) -> int:
    """Return the channels of all value heads of a gated delta net."""
    return spec.ssm_value_heads * spec.ssm_head_dim


def layer_shapes(spec: Spec, i: int) -> dict[str, tuple[int, ...]]:
    """Return the tensors of a layer and their shapes, rows first."""
    width, values = spec.width, value_width(spec)
    qkv = 2 * spec.ssm_key_heads * spec.ssm_head_dim + values
    attention, kv = spec.heads * spec.hd, spec.kv_heads * spec.hd
    delta_net: dict[str, tuple[int, ...]] = {
        "ssm_a": (spec.ssm_value_heads,),
        "ssm_conv1d.weight": (qkv, spec.ssm_conv),
        "ssm_dt.bias": (spec.ssm_value_heads,),
        "ssm_alpha.weight": (spec.ssm_value_heads, width),
        "ssm_beta.weight": (spec.ssm_value_heads, width),
        "attn_qkv.weight": (qkv, width),
        "attn_gate.weight": (values, width),
        "ssm_norm.weight": (spec.ssm_head_dim,),
        "ssm_out.weight": (width, values),
    }
    gated_attention: dict[str, tuple[int, ...]] = {
        "attn_q.weight": (2 * attention, width),  # the query of each head, then its gate
        "attn_q_norm.weight": (spec.hd,),
        "attn_k.weight": (kv, width),
        "attn_k_norm.weight": (spec.hd,),
        "attn_v.weight": (kv, width),
        "attn_output.weight": (width, attention),
    }
    ffn: dict[str, tuple[int, ...]] = {
        "post_attention_norm.weight": (width,),
        "ffn_gate.weight": (spec.ffn, width),
        "ffn_up.weight": (spec.ffn, width),
        "ffn_down.weight": (width, spec.ffn),
    }
    mixer = delta_net if is_recurrent(spec, i) else gated_attention
    return {"attn_norm.weight": (width,), **mixer, **ffn}


def is_projection(name: str, shape: tuple[int, ...]) -> bool:
    """Return whether a tensor of `layer_shapes` holds trits, which can be rotated."""
    return len(shape) == 2 and name not in DRAWS and name not in GATES


def keys(spec: Spec) -> dict[str, Value]:
    """Return the metadata keys of the shape, without the prefix."""
    rope = spec.rope_dim or spec.hd
    first, third = -(-rope // 6), rope // 2 // 3  # the pairs that a picture's positions would rotate, as published
    return {
        "attention.key_length": spec.hd,
        "attention.value_length": spec.hd,
        "rope.dimension_count": rope,
        "rope.dimension_sections": [first, rope // 2 - first - third, third, 0],
        "ssm.conv_kernel": spec.ssm_conv,
        "ssm.state_size": spec.ssm_head_dim,
        "ssm.group_count": spec.ssm_key_heads,
        "ssm.time_step_rank": spec.ssm_value_heads,
        "ssm.inner_size": value_width(spec),
        "attention.recurrent_layers": [is_recurrent(spec, i) for i in range(spec.layers)],
        "full_attention_interval": spec.full_interval,
    }


def input_widths(spec: Spec) -> list[int]:
    """Return the widths of the inputs of all projections, each once."""
    layers = [layer_shapes(spec, i) for i in range(spec.layers)]
    widths = [shape[1] for layer in layers for name, shape in layer.items() if is_projection(name, shape)]
    return list(dict.fromkeys([spec.width, *widths]))


def rotation_keys(spec: Spec, generator: Callable[[str], np.random.Generator]) -> dict[str, Value]:
    """Return the metadata keys of rotated weights; `generator` gives the random numbers of a name."""
    if not spec.hadamard:
        return {}
    widths = input_widths(spec)
    signs = [generator(f"signs.{width}").integers(0, 2, width) * 2 - 1 for width in widths]
    rotated = [
        f"blk.{i}.{name}"
        for i in range(spec.layers)
        for name, shape in layer_shapes(spec, i).items()
        if is_projection(name, shape)
    ]
    found: dict[str, Value] = {
        "version": 1,
        "block_size": spec.hadamard,
        "transform": "normalized-sylvester-walsh-hadamard",
        "axis": "input-last-dimension",
        "sign_mode": "explicit",
        "sign_widths": widths,
        "sign_values": np.concatenate(signs).tolist(),
        "weight_names": ["output.weight", *rotated],
        "inverse_weight_names": ["token_embd.weight"],
        "gdn_v_grouped": spec.gdn_v_grouped,
    }
    return {f"prism.hadamard.{key}": value for key, value in found.items()}
