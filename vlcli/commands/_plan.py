"""What pretrain says instead of training: the plan of a run, and where the time of its steps goes."""

from __future__ import annotations

from typing import Any

MIB = 2**20


def plan_lines(plan: dict[str, Any], fate: str) -> list[str]:
    """The plan as comments of the recipe's TOML."""
    scored = (
        f", chosen by {plan['best']} on {plan['validation_pairs']} pairs" if plan["validation_pairs"] else ""
    )
    memory, saved = plan["memory"], plan["checkpoints"]
    every = f"every {saved['every']} steps" if saved["every"] else "at the end"
    lines = [
        f"{plan['pairs']} pairs, {plan['steps']} steps of {plan['batch_size']}, peak lr {plan['peak_lr']:g}{scored};"
        f" {fate}",
        *mixture_lines(plan["mixture"]),
        f"{plan['processes']} process(es) of {plan['pairs_a_process']} pairs, in {plan['precision']};"
        f" {plan['steps_per_epoch']} steps an epoch, loss by chance {plan['chance_loss']:.2f}",
        *(
            f"  {part}: {count['trainable']:,} trainable, {count['parameters'] - count['trainable']:,} frozen"
            for part, count in plan["parameters"].items()
        ),
        f"memory of a process: {_size(memory['state'])} for weights, gradients and moments,"
        f" {_size(memory['activations'])} for what {plan['pairs_a_process']} pairs keep for the backward pass",
    ]
    if cache := plan["feature_cache"]:
        size = f"features of the locked image tower: at most {_size(cache['bytes'])}"
        where = (
            f"in {cache['folder']}" if cache["within"] else "more than data.cache_gib: they are not cached"
        )
        lines.append(f"{size} {where}")
    lines += [
        f"checkpoints of {_size(saved['bytes'])} {every}, of which {saved['kept']} stay, the best and the last",
        f"writes {', '.join(plan['files'])}",
        *(f"warning: {text}" for text in plan["warnings"]),
    ]
    return lines


def _size(count: int) -> str:
    """Bytes for people."""
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / MIB:.1f} MiB"


def mixture_lines(sources: list[tuple[str, int, float]]) -> list[str]:
    """How much of each source an epoch has."""
    return [f"  {source}: {pairs} pairs an epoch, each {times:.3g} times" for source, pairs, times in sources]


def profile_rows(found: dict[str, Any]) -> list[list[str]]:
    """A profile as rows of a table."""
    flops, memory = found["flops_per_step"], found["memory"]
    rows = [
        ["pairs/s", f"{found['pairs_per_second']:,.1f}"],
        ["seconds a step", f"{found['seconds_per_step']:.3f}"],
        ["GFLOPs a step, counted by torch", f"{flops['counted'] / 1e9:,.1f}"],
        ["GFLOPs a step, by shapes", f"{flops['analytic'] / 1e9:,.1f}"],
        ["GFLOP/s", f"{found['flops_per_second'] / 1e9:,.1f}"],
        ["GFLOP/s of a matrix product", f"{found['matmul_flops_per_second'] / 1e9:,.1f}"],
        ["utilisation", f"{100 * found['utilisation']:.1f} %"],
    ]
    if memory["peak"] is not None:
        rows.append(["peak memory", f"{memory['peak'] / MIB:,.0f} MiB"])
    if memory["before"] is not None:
        rows.append(["of it before the steps", f"{memory['before'] / MIB:,.0f} MiB"])
    rows += [[f"time: {name}", f"{100 * share:.1f} %"] for name, share in found["shares"].items()]
    return rows


def profile_title(found: dict[str, Any]) -> str:
    """What was measured, and on what."""
    return (
        f"{found['recipe']} · {found['batch_size']} pairs a step · {found['precision']} · features {found['features']}"
        f" · median of {found['steps']} steps · {found['processes']} process(es) of {found['threads']} threads"
        f" · {found['device']}"
    )
