"""A foreign checkpoint as it lies on the disk: its tensors, and the JSON files and the folder beside them."""

from __future__ import annotations

import json
import pickle
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from vlcli.errors import InputError, UsageError
from vlcli.models.adapters.pickles import is_torchscript, read_arrays, read_torchscript

# Weights under these names have their other files beside them; a file of another name stands alone.
STANDARD = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.bin",
)
SETTINGS = ("config.json", "open_clip_config.json", "preprocessor_config.json", "processor_config.json")
# Where trainers put the weights among the rest of their state; timm's moving average is what timm itself loads.
_INSIDE = ("state_dict_ema", "state_dict", "model_ema", "model", "module")
_LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # torch's files before they were zip archives


@dataclass
class Source:
    """`path` is what the user named, `weights` the file of tensors. `settings` maps a file's name to its JSON.
    `folder` holds the other files, None where the weights stand alone. `scripted`: from a TorchScript archive."""

    path: Path
    weights: Path
    state: dict[str, Tensor]
    settings: dict[str, dict[str, Any]] = field(default_factory=dict)
    folder: Path | None = None
    scripted: bool = False

    @property
    def keys(self) -> set[str]:
        return set(self.state)


def read_source(path: str | Path, *, model_config: Path | None = None) -> Source:
    """The foreign checkpoint in the file or directory `path`. `model_config` stands for a config beside the weights.

    Raises UsageError where there is none, InputError where it is damaged or holds anything but tensors.
    """
    path = Path(path)
    if not path.exists():
        raise UsageError(f"{path}: no such checkpoint or run")
    weights = path if path.is_file() else _find(path)
    folder = weights.parent if path.is_dir() or weights.name in STANDARD else None
    settings: dict[str, dict[str, Any]] = {}
    if folder is not None:
        settings = {name: read_json(folder / name) for name in SETTINGS if (folder / name).is_file()}
    if model_config is not None:
        if not model_config.is_file():
            raise UsageError(f"--model-config {model_config}: no such file")
        found = read_json(model_config)
        # open_clip's own files name the towers' tables, transformers' a type, timm's an architecture
        is_open_clip = "vision_cfg" in found or "model_cfg" in found
        settings["open_clip_config.json" if is_open_clip else "config.json"] = found
    state, scripted = _read(weights)
    return Source(path, weights, state, settings, folder, scripted)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object; InputError for anything else."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"not JSON ({error})", file=str(path)) from None
    if not isinstance(found, dict):
        raise InputError("not a JSON object", file=str(path))
    return found


def _find(folder: Path) -> Path:
    for name in STANDARD:
        if (folder / name).is_file():
            return folder / name
    others = sorted(
        f for f in folder.iterdir() if f.suffix in (".safetensors", ".pt", ".pth", ".bin", ".ckpt", ".pkl")
    )
    if len(others) == 1:
        return others[0]
    if others:
        names = ", ".join(file.name for file in others[:4])
        raise UsageError(f"{folder}: several files of weights ({names})", remedy="name one of them")
    raise UsageError(f"{folder}: neither a checkpoint (config.json) nor a run (best, last), and no weights")


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of one file, or of the files that an index lists, by name; nothing that a pickle names is called."""
    return _read(path)[0]


def _read(path: Path) -> tuple[dict[str, Tensor], bool]:
    try:
        if path.name.endswith(".index.json"):
            return _read_parts(path), False
        return _read_file(path)
    except InputError as error:
        if str(error).startswith(str(path.parent)):
            raise
        raise InputError(str(error), file=str(path)) from error


def _read_parts(index: Path) -> dict[str, Tensor]:
    places = read_json(index).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(name, str) for name in places.values()):
        raise InputError("it lists no weights", file=str(index))
    state: dict[str, Tensor] = {}
    for name in sorted(set(places.values())):
        if Path(name).name != name or not (index.parent / name).is_file():
            raise InputError(f"it lists {name}, which is not beside it", file=str(index))
        state |= _read(index.parent / name)[0]
    if absent := sorted(set(places) - set(state)):
        raise InputError(
            f"{len(absent)} tensors that it lists are not there, {absent[0]} first", file=str(index)
        )
    return state


def _read_file(path: Path) -> tuple[dict[str, Tensor], bool]:
    with open(path, "rb") as file:
        head = file.read(32)
    if path.suffix == ".safetensors" or head[8:9] == b"{":
        try:
            return load_file(path), False
        except (SafetensorError, OSError) as error:
            raise InputError(f"cannot read the weights: {error}") from error
    if head.startswith(b"PK\3\4"):
        try:
            with zipfile.ZipFile(path) as archive:
                scripted = is_torchscript(archive)
            if scripted:
                return read_torchscript(path), True
        except (zipfile.BadZipFile, KeyError, EOFError, NotImplementedError) as error:
            raise InputError(f"cannot read the weights: {error}") from error
        return flat(_torch_load(path)), False
    if head.startswith(_LEGACY):
        return flat(_torch_load(path)), False
    if head.startswith(b"\x80"):
        return read_arrays(path), False
    raise InputError("neither safetensors nor a torch or pickle file")


def _torch_load(path: Path) -> Any:
    try:
        with open(path, "rb") as file:
            mapped = file.read(2) == b"PK"
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        # torch's text begins with the advice to run the file all the same
        said = str(error).rpartition("WeightsUnpickler error: ")[2]
        if named := re.search(r"GLOBAL ([\w.]+)", said):
            cause = f"its pickle names {named[1]}, which weights do not need: nothing of it is run"
        else:
            cause = f"cannot read the weights: {said.splitlines()[0] if said else 'damaged pickle'}"
        raise InputError(cause) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, AttributeError) as error:
        raise InputError(f"cannot read the weights: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def flat(state: Any) -> dict[str, Tensor]:
    """The tensors by name, out of a trainer's state and from behind the `module.` of a wrapped model."""
    for _ in range(2):
        inside = next(
            (k for k in _INSIDE if isinstance(state, Mapping) and isinstance(state.get(k), Mapping)), None
        )
        if inside is None:
            break
        state = state[inside]
    if not isinstance(state, Mapping) or not state or not all(isinstance(v, Tensor) for v in state.values()):
        raise InputError("not a dict of tensors")
    names = [str(name) for name in state]
    cut = len("module.") if all(name.startswith("module.") for name in names) else 0
    return {name[cut:]: tensor for name, tensor in zip(names, state.values(), strict=True)}
