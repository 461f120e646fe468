"""Checkpoints from one format into another: what stands there, what it becomes, and files that appear when whole."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from vlcli import __version__
from vlcli.errors import InputError, UsageError, VlcliError
from vlcli.models.adapters.format import (
    Asked,
    CannotExpress,
    Checkpoint,
    Files,
    TowerCheckpoint,
    refuse_misfit,
    refuse_shapes,
    towers_alone,
)
from vlcli.models.adapters.registry import FORMATS, recognise
from vlcli.models.adapters.source import read_json, read_source, read_weights
from vlcli.models.adapters.timm_tower import body_of
from vlcli.models.adapters.tokenizing import write_tokenizer
from vlcli.models.card import add_results, write_card
from vlcli.models.checkpoint import checkpoint_hash, first_problem
from vlcli.models.checksums import sha256_of, write_checksums
from vlcli.models.config import DualEncoderConfig, ImageTowerConfig
from vlcli.models.dual import DualEncoder
from vlcli.models.formats import ONNX, OURS
from vlcli.models.layout import layout_stamp
from vlcli.models.quickcheck import CONFIG, DUAL, WEIGHTS, find_checkpoint, is_foreign
from vlcli.models.storage import Uninitialised, layout_of
from vlcli.records.atomic import atomic_directory, atomic_file, refuse_existing
from vlcli.text.model_tokenizers import saved_tokenizer


@dataclass
class Opened:
    """A checkpoint of any format. `weights` is the file of its tensors, or the index of several."""

    format: str
    checkpoint: Checkpoint | TowerCheckpoint
    weights: Path
    recipe: dict[str, Any] = field(default_factory=dict)
    lineage: dict[str, Any] = field(default_factory=dict)

    @property
    def size(self) -> tuple[int, int]:
        """How many tensors, and how many values in them."""
        state = self.checkpoint.state
        return len(state), sum(tensor.numel() for tensor in state.values())


def open_checkpoint(
    path: str | Path,
    asked: Asked = Asked(),
    *,
    format: str | None = None,
    model_config: Path | None = None,
) -> Opened:
    """What stands at `path`, its tensors mapped from the disk where the file allows it.

    Raises UsageError where nothing does or where it may be of two formats, InputError where it is damaged, of an
    unknown format, or holds what its format has no place for.
    """
    place = find_checkpoint(path)
    if format in (None, OURS) and not is_foreign(place):
        return _open_ours(place, asked)
    if format == OURS:
        raise UsageError(f"{path}: no checkpoint of vlcli")
    source = read_source(place, model_config=model_config)
    found = recognise(source, format)
    return Opened(found.name, found.read(source, asked), source.weights)


def _open_ours(place: Path, asked: Asked) -> Opened:
    config = read_json(place / CONFIG)
    kind, file = config.get("kind"), str(place / CONFIG)
    state = read_weights(place / WEIGHTS)
    try:
        if kind == "image":
            tower = ImageTowerConfig.model_validate(config["architecture"])
            refuse_shapes(body_of(tower).state_dict(), state, str(place / WEIGHTS))
            return Opened(OURS, TowerCheckpoint(tower, state), place / WEIGHTS, {}, config.get("lineage", {}))
        if kind not in DUAL:
            known = ", ".join(map(repr, (*DUAL, "image")))
            raise UsageError(f"{place} is a checkpoint of kind {kind!r}; formats are known of {known}")
        architecture = DualEncoderConfig.model_validate(config["architecture"])
    except (ValidationError, KeyError) as error:
        raise InputError(f"architecture: {first_problem(error)}", file=file) from error
    tokenizer = saved_tokenizer(place, padding_id=architecture.text.padding_id)
    checkpoint = Checkpoint(architecture, state, tokenizer)
    refuse_misfit(checkpoint, str(place / WEIGHTS))
    if asked.towers_only:
        checkpoint = towers_alone(checkpoint)
    return Opened(OURS, checkpoint, place / WEIGHTS, config.get("recipe", {}), config.get("lineage", {}))


def express(opened: Opened, to: str) -> Files:
    """The checkpoint in the format `to`, not yet written. UsageError naming what the format cannot express."""
    checkpoint = opened.checkpoint
    if to == OURS:
        return _ours(opened)
    if isinstance(checkpoint, TowerCheckpoint) and to != "timm":
        raise UsageError(
            f"--to {to}: an image tower alone is no model of it", remedy="--to timm and --to vlcli hold one"
        )
    try:
        return FORMATS[to].express(checkpoint)
    except CannotExpress as error:
        raise UsageError(f"{to} cannot express this model: {error}") from error


def _ours(opened: Opened) -> Files:
    checkpoint = opened.checkpoint
    kind = "image" if isinstance(checkpoint, TowerCheckpoint) else checkpoint.config.kind
    lineage = opened.lineage
    if opened.format != OURS:
        lineage = {"converted": {"from": opened.format, "weights": sha256_of(opened.weights)}}
    architecture = checkpoint.config.model_dump(mode="json")
    config: dict[str, Any] = {
        "kind": kind,
        "architecture": architecture,
        "layout": layout_stamp(architecture, layout_of(checkpoint.state)),
        "recipe": opened.recipe,
        "versions": {"vlcli": __version__, "torch": torch.__version__},
        "lineage": lineage,
    }
    files = Files(json={CONFIG: config}, tensors={WEIGHTS: checkpoint.state})
    if isinstance(checkpoint, Checkpoint):
        config["pieces"] = checkpoint.tokenizer.vocab_size
        files.tokenizer, files.length = checkpoint.tokenizer, checkpoint.config.text.context
    return files


def model_of(opened: Opened) -> DualEncoder:
    """The model itself. Raises UsageError for an image tower alone."""
    checkpoint = opened.checkpoint
    if isinstance(checkpoint, TowerCheckpoint):
        raise UsageError(
            f"{opened.weights} is an image tower alone", remedy="pretrain --init image=PATH takes one"
        )
    with Uninitialised():
        model = DualEncoder(checkpoint.config, checkpoint.tokenizer)
    model.load_state_dict(checkpoint.state)
    model.checkpoint_hash = fingerprint(opened)
    return model


def write_onnx(opened: Opened, out: Path, *, force: bool = False) -> float:
    """Both towers as graphs in the directory `out`; the largest difference between torch and onnxruntime."""
    from vlcli.models.onnx_export import export

    if getattr(opened.checkpoint.config, "ranking", None) is not None:
        raise UsageError(
            "--to onnx: the graphs are of two towers, R2D2's ranking part has none",
            remedy="--towers-only leaves it out",
        )
    with atomic_directory(out, force=force) as folder:
        told = export(model_of(opened), folder)
    return max(told[tower]["largest_difference"] for tower in ("image", "text"))


def default_output(place: Path, to: str) -> Path:
    """`ViT-B-32.pt` to vlcli → `ViT-B-32-vlcli` in the working directory."""
    name = place.resolve().name
    return Path(f"{name.removesuffix(place.suffix) if place.is_file() else name}-{to}{suffix_of(to)}")


def suffix_of(to: str) -> str:
    """Of the one file that a format is, "" where it is a directory."""
    return "" if to in (OURS, ONNX) else FORMATS[to].suffix


def refuse_place(out: Path, to: str, *, force: bool) -> None:
    """UsageError where the output cannot stand, before anything is read."""
    if not force:
        refuse_existing(out)
    elif out.is_dir() and suffix_of(to):
        raise UsageError(f"{out} is a directory, {to} a file")
    elif out.is_dir() and any(out.iterdir()) and not any((*out.glob("*config.json"), *out.glob("*.onnx"))):
        raise UsageError(f"{out} holds no checkpoint", remedy="--force replaces only one that does")
    elif out.is_file() and not suffix_of(to):
        raise UsageError(f"{out} is a file, {to} a directory")


@dataclass(frozen=True)
class Card:
    """What a model card says beside what stands in the checkpoint: results that were measured on it, its licence."""

    results: Sequence[Mapping[str, Any]] = ()
    license: str = "unknown"


def write(files: Files, out: Path, *, card: Card | None = None, force: bool = False) -> int:
    """Put the files at `out`: a directory, or the one torch file. Nothing appears there unless all of it is whole.

    With `card`, which a checkpoint of ours has, returns how many of its results were measured on other weights.
    """
    others = 0
    try:
        if files.torch is not None:
            _write_torch(files.torch, out, force=force)
            return 0
        with atomic_directory(out, force=force) as folder:
            _fill(files, folder)
            if card is not None:
                others = add_results(folder, card.results, checkpoint_hash(folder))
                write_card(folder, license=card.license)
                write_checksums(folder)
    except (SafetensorError, RuntimeError) as error:  # their words for a full disk
        cause = (str(error).splitlines() or [type(error).__name__])[0]
        raise VlcliError(f"cannot write {out}: {cause}") from error
    return others


def _write_torch(found: Any, out: Path, *, force: bool) -> None:
    """A pickle of tensors and numbers, because the format is one."""
    with atomic_file(out, force=force) as file:
        torch.save(found, file)


def _fill(files: Files, folder: Path) -> None:
    for name, found in files.json.items():
        text = json.dumps(found, ensure_ascii=False, indent=2)
        (folder / name).write_text(text + "\n", encoding="utf-8", newline="\n")
    mode = (folder / next(iter(files.json))).stat().st_mode & 0o777
    for name, state in files.tensors.items():
        save_file(_plain(state), folder / name, metadata={"format": "pt"})
        (folder / name).chmod(mode)  # safetensors makes a file for its owner alone
    if files.tokenizer is not None:
        write_tokenizer(files.tokenizer, folder, length=files.length)


def _plain(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous, and none of them in another's memory, which safetensors refuses."""
    seen: set[int] = set()
    plain: dict[str, Tensor] = {}
    for name, tensor in state.items():
        tensor = tensor.detach().contiguous()
        if tensor.untyped_storage().data_ptr() in seen:
            tensor = tensor.clone()
        seen.add(tensor.untyped_storage().data_ptr())
        plain[name] = tensor
    return plain


def fingerprint(opened: Opened) -> str:
    """First 16 hex of sha256 over the architecture and the weights: what a number was measured with."""
    architecture = opened.checkpoint.config.model_dump(mode="json")
    digest = hashlib.sha256(json.dumps(architecture, sort_keys=True).encode())
    digest.update(sha256_of(opened.weights).encode())
    return digest.hexdigest()[:16]
