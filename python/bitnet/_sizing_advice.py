"""What a plan means, in sentences: what bounds it, and what to change."""

from typing import Any

from ._format import byte_size


def advice(plan: dict[str, Any]) -> list[str]:
    """The sentences for a plan of `bitnet.sizing.plan`, those about memory first."""
    return [*_memory(plan), *_rates(plan), *_threads(plan), *_processes(plan)]


def _memory(plan: dict[str, Any]) -> list[str]:
    """Whether the sessions fit, and what makes them fit."""
    memory, sessions = plan["memory"], plan["sessions"]
    if memory["available"] is None:
        return ["This system does not tell how much memory is free, so compare the total yourself."]
    if memory["fits"]:
        return [f"Memory is no limit: {_fitting(plan['max_sessions'])}."]
    lack = memory["total"] - memory["available"]
    told = [
        f"Memory is the limit: {byte_size(lack)} too little. {_fitting(plan['max_sessions'])}; "
        f"each takes {byte_size(plan['session']['bytes'])}."
    ]
    if plan["kv_type"] == "f32":
        saved = sessions * plan["session"]["kv_bytes"] // 2
        told.append(f"Use kv_type f16: it saves {byte_size(saved)}{_enough(saved, lack)}.")
    caches = memory["prefix_caches"]
    if caches:
        told.append(
            f"Give the prefix cache less memory (cache_bytes): it may have {byte_size(caches)}{_enough(caches, lack)}."
        )
    # Without a process's own weights, the others read the same ones.
    own = memory["weights"] + memory["head_copies"]
    saved = own - own // plan["processes"]
    if saved:
        told.append(
            f"Pack the model (`bitnet pack`): its processes then share the weights, which saves {byte_size(saved)}"
            f"{_enough(saved, lack)}."
        )
    if plan["max_context"]:
        told.append(f"With a context of {plan['max_context']} tokens all {sessions} sessions fit.")
    if plan["max_sessions"]:
        machines = -(-sessions // plan["max_sessions"])
        told.append(f"Or use {machines} such machines: bitnet.ray (docs/ray.md) shares out the rows of a data set.")
    return told


def _fitting(count: int) -> str:
    """How many sessions fit."""
    return f"{count or 'No'} session{'s fit' if count != 1 else ' fits'}"


def _enough(saved: int, lack: int) -> str:
    """Whether a saving makes all fit."""
    return ", which is enough" if saved >= lack else ""


def _rates(plan: dict[str, Any]) -> list[str]:
    """What limits the speed."""
    rates = plan["rates"]
    if rates is None:
        return ["The weights fit into the processor's cache, so this machine's limits say nothing about the speed."]
    one, most = rates[0], rates[-1]
    if one["limited_by"] == "memory":
        told = [
            f"One stream is limited by reading memory: {byte_size(plan['per_token']['weight_bytes'])} of weights for "
            "each token. Streams that decode together share this reading."
        ]
    else:
        told = ["One stream is limited by arithmetic, so that streams that decode together are no faster in all."]
    turn = next((rate["streams"] for rate in rates if rate["limited_by"] == "arithmetic"), 1)
    if turn > 1:
        told.append(f"From {turn} streams with short contexts on, arithmetic is the limit: more streams only share it.")
    if most["limited_by"] == "memory" and most["share_of_own_reads"] > 0.5:
        how = "fewer tokens of context" + (" or kv_type f16" if plan["kv_type"] == "f32" else "")
        told.append(
            f"With {most['streams']} streams and full contexts, {100 * most['share_of_own_reads']:.0f} % of reading is "
            f"their own keys, values and states: {how} would make them faster."
        )
    waiting = plan["sessions"] - plan["processes"] * plan["max_batch"]
    if waiting > 0:
        told.append(
            f"{plan['processes'] * plan['max_batch']} streams decode at once; if all {plan['sessions']} do, "
            f"{waiting} wait for their turn (max_batch)."
        )
    return told


def _threads(plan: dict[str, Any]) -> list[str]:
    """Whether more threads help."""
    threads, cores = plan["threads"], plan["cores"]
    if threads > cores:
        return [f"{threads} threads on {cores} cores are slower than {cores}: use {cores}."]
    if threads < cores:
        return [f"This machine has {cores} cores: plan with more threads to see what they add."]
    return [f"All {cores} cores are used. If the rates are too low, add a machine."]


def _processes(plan: dict[str, Any]) -> list[str]:
    """What several processes cost."""
    processes = plan["processes"]
    if processes == 1:
        return []
    told = [
        f"Each of the {processes} processes reads the weights for its own streams. One process with all threads reads "
        "them once for all: use several only if one process's Python code is the limit, or to keep clients apart."
    ]
    if plan["threads"] < processes:
        told.append(
            f"{processes} processes with {plan['threads']} threads take turns; use at most one for each thread."
        )
    return told
