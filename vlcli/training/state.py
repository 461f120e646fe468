"""Checkpoints of a run: written whole or not at all, found again, pruned."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from vlcli.errors import InputError, UsageError, VlcliError
from vlcli.models.captioner import Captioner
from vlcli.models.card import add_results, write_card
from vlcli.models.checkpoint import checkpoint_hash, save_checkpoint
from vlcli.models.checksums import write_checksums
from vlcli.models.classifier import Classifier
from vlcli.models.decoder import Decoder
from vlcli.models.dual import DualEncoder
from vlcli.models.key_values import KeyValues
from vlcli.models.prior import Prior
from vlcli.models.quickcheck import check_checkpoint
from vlcli.models.text_encoder import TextEncoder
from vlcli.training.run_directory import point, step_name

STATE = "training.pt"
KEYS = ("step", "optimizer", "scaler", "weights", "best", "best_step", "meter", "task")

# Keys of a recipe that may differ when a run goes on: they change what is shown and kept, not what is learned.
FREE = {
    "name",
    "title",
    "source",
    "model.image.init",
    "model.image.init_page",
    "model.text.init",
    "model.text.init_page",
    "data.cache",
    "data.cache_gib",
    "data.workers",
    "train.log_every",
    "train.save_every",
    "train.save_minutes",
    "train.evaluate_every",
    "train.keep",
    "train.chunk",
    "train.checkpointing",
    "train.trackers",
}


def save_state(
    run: Path,
    step: int,
    model: DualEncoder | TextEncoder | Classifier | Captioner | Prior | Decoder | KeyValues,
    state: dict[str, Any],
    *,
    recipe: dict[str, Any],
    lineage: dict[str, Any],
    results: Sequence[Mapping[str, Any]] = (),
) -> Path:
    """Write checkpoints/step-N with weights, training state and a model card, then point `last` at it.

    `state` is what a run that goes on reads (`KEYS`): tensors, numbers and texts. `results` are what was measured on
    these very weights; their `checkpoint` is written here, where it is known.

    The directory appears under its name when every file in it is on disk. No generator's state is in it: everything
    random is drawn from (seed, epoch, id), or from (seed, step, process).
    """
    place = run / "checkpoints" / step_name(step)
    temporary = place.with_name(f".{place.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        save_checkpoint(model, temporary, recipe=recipe, lineage=lineage)
        torch.save({"step": step, **state}, temporary / STATE)
        measured = checkpoint_hash(temporary)
        add_results(temporary, [{**result, "checkpoint": measured} for result in results], measured)
        write_card(temporary)
        write_checksums(temporary)
        for file in temporary.iterdir():
            _sync(file)
        _sync(temporary)
        os.replace(temporary, place)
    except (
        OSError,
        RuntimeError,
        SafetensorError,
    ) as error:  # torch's and safetensors' words for a full disk
        cause = (str(error).splitlines() or [type(error).__name__])[0]
        raise VlcliError(
            f"cannot write {place}: {cause}", remedy="--resume goes on from the last one"
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    _sync(place.parent)
    point(run / "last", place)
    return place


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def newest_state(run: Path, warn: Callable[[str], None]) -> tuple[Path, dict[str, Any]] | None:
    """The newest whole checkpoint of a run and its training state; a damaged one is passed over with a warning.

    None where the run was stopped before its first checkpoint. UsageError when there are some, and none is whole.
    """
    places = sorted((run / "checkpoints").glob("step-*"), reverse=True)
    for place in places:
        try:
            if findings := check_checkpoint(place, deep=True).findings:
                raise InputError(findings[0].message, file=findings[0].file)
            return place, read_state(place)
        except Exception as error:
            warn(f"{place.name} is passed over: {' '.join(str(error).split())[:200]}")
    if places:
        raise UsageError(f"{run}: no whole checkpoint to resume from", remedy="--force starts anew")
    warn(f"{run} has no checkpoint yet: the run starts at its beginning")
    return None


def read_state(place: Path) -> dict[str, Any]:
    """Training state with weights_only=True: no code in it is run."""
    state = torch.load(place / STATE, map_location="cpu", weights_only=True)
    if missing := [name for name in KEYS if name not in state]:
        raise InputError(
            f"it has no {missing[0]}: another version of vlcli wrote it", file=str(place / STATE)
        )
    return state


def refuse_another_recipe(place: Path, recipe: dict[str, Any]) -> None:
    """UsageError naming the first key in which `recipe` is not the one that the checkpoint was trained by."""
    before = _flat(json.loads((place / "config.json").read_text(encoding="utf-8"))["recipe"])
    for key, value in _flat(recipe).items():
        if key not in FREE and key in before and before[key] != value:
            raise UsageError(
                f"--resume: {key} was {before[key]}, is {value}",
                remedy="resume with the same data and recipe",
            )


def _flat(table: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in table.items():
        found |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return found
