"""What `zeroshot` refuses: options that would do nothing, and sets of other tasks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vlcli.commands import _zeroshot_options as z
from vlcli.errors import UsageError


def set_of(dataset: str | None, metric: z.Metric | None) -> tuple[Any, str, bool]:
    """The public set, the number that is gone by, and whether images may be of several classes."""
    from vlcli.evaluation.class_sets import class_set

    of_other_tasks = {"icm": "matching", "iqm": "matching"}
    of_other_tasks |= dict.fromkeys(("sugarcrepe", "winoground", "aro"), "compositional")
    if dataset in of_other_tasks:
        raise UsageError(f"--dataset {dataset} is of --task {of_other_tasks[dataset]}")
    public = class_set(dataset) if dataset is not None else None
    goes_by = metric.value if metric is not None else "top1" if public is None else public.metric
    return public, goes_by, goes_by == "map11"


def refuse_predictions(
    path: Path | None, kind: z.PredictionsAs, others: dict[str, Any], *, classify: bool
) -> None:
    """UsageError where there are no predictions of one model in one language."""

    if path is None and kind is not z.PredictionsAs.jsonl:
        raise UsageError(f"--predictions-as {kind.value} says how --predictions is written", remedy="name it")
    if kind is z.PredictionsAs.elevater and not classify:
        raise UsageError("--predictions-as elevater is of classes")
    for name, given in others.items():
        if path is not None and given:
            raise UsageError(f"--predictions does not go with {name}")


def refuse_idle(
    protocol: z.Protocol,
    *,
    task: z.Task,
    train: list[str] | None,
    val: list[str] | None,
    prompts: str | None,
    langs: str | None,
) -> None:
    """UsageError for options that would do nothing."""

    if protocol is z.Protocol.zero_shot:
        if train or val:
            raise UsageError(
                "--protocol zero-shot learns from no rows", remedy="say which protocol takes --train"
            )
        return
    if task is not z.Task.classify:
        raise UsageError(f"--protocol {protocol.value} is of --task classify")
    if prompts is not None or langs is not None:
        raise UsageError(
            f"--protocol {protocol.value} reads no names: it goes with neither --prompts nor --langs"
        )
    if not train:
        raise UsageError(
            f"--protocol {protocol.value} learns from labelled rows", remedy="name them with --train"
        )


def refuse_of_other_protocols(protocol: z.Protocol, given: dict[str, Any]) -> None:
    """UsageError for a setting that the protocol does not read."""
    wanted = {"--k": ("knn",), "--l2": ("linear-probe", "ridge", "few-shot"), "--shots": ("few-shot",)}
    for name, value in given.items():
        if value is not None and protocol.value not in wanted[name]:
            raise UsageError(f"{name} goes with --protocol {' or '.join(wanted[name])}")
    if (l2 := given["--l2"]) is not None and not 0 < l2 < float("inf"):
        raise UsageError(f"--l2 {l2:g} is no penalty", remedy="a number above 0")
