"""Fill an image tower from weights under timm's, CLIP's or EfficientNet-Lite's names, at another resolution too."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from vlcli.errors import InputError
from vlcli.models.adapters import efficientnet_lite
from vlcli.models.adapters.clip_names import HF_IMAGE, POSITION_IDS
from vlcli.models.adapters.names import to_ours
from vlcli.models.image_tower import TimmTower
from vlcli.models.initial import checkpoint_of, fill, read_tensors
from vlcli.models.positions import resize_positions

_HEADS = ("classifier.", "head.fc.", "head.weight", "head.bias", "fc.")


def load_image_tower(tower: TimmTower, path: Path) -> None:
    """Fill `tower` from `path`: timm's own names, OpenAI CLIP's and open_clip's (through timm's filters), transformers'
    CLIP, efficientnet-lite-pytorch's, or a checkpoint of ours.

    Positions are interpolated to the tower's resolution. A classification head is left out, and what the tower was
    told to go without; any other mismatch is an InputError.
    """
    ours = checkpoint_of(path) if path.is_dir() else None
    state = read_tensors(ours or path)
    if ours is not None:
        state = _under(state, "image.body.") or state  # a tower alone has timm's names
    elif efficientnet_lite.matches(set(state)):
        state = efficientnet_lite.to_timm(state)
    elif any("embeddings.class_embedding" in name for name in state):
        state = _from_hf_clip(state)
    else:
        _refuse_other_patches(state, tower, path)
        rename: Any = getattr(sys.modules[type(tower.body).__module__], "checkpoint_filter_fn", None)
        state = state if rename is None else rename(state, tower.body)
    expected = tower.body.state_dict()
    dropped = (*_HEADS, *tower.left_out)
    state = {name: x for name, x in state.items() if name in expected or not name.startswith(dropped)}
    fill(tower.body, resize_positions(state, tower.body), tower.name, path)


def _under(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): x for name, x in state.items() if name.startswith(prefix)}


def _from_hf_clip(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """transformers' CLIPVisionModel, CLIPModel and kin: the vision tower alone. What has no place keeps its name."""
    inside = next(name for name in state if name.endswith("embeddings.class_embedding"))
    vision = _under(state, inside.removesuffix("embeddings.class_embedding"))
    vision = {name.replace("encoder.layer.", "encoder.layers."): x for name, x in vision.items()}
    placed = to_ours(HF_IMAGE, vision, known=[POSITION_IDS])
    return placed.state | {name: vision[name] for name in placed.unplaced}


def _refuse_other_patches(state: Mapping[str, Tensor], tower: TimmTower, path: Path) -> None:
    """timm's filters resample patch kernels of another size without a word; that is another model."""
    kernel = getattr(getattr(tower.body, "patch_embed", None), "proj", None)
    if kernel is None or kernel.weight.dim() != 4:
        return
    for name, tensor in state.items():
        same = tensor.dim() == 4 and tensor.shape[-2:] == kernel.weight.shape[-2:]
        if name.endswith(("visual.conv1.weight", "patch_embed.proj.weight")) and not same:
            shapes = f"{tuple(tensor.shape)}, the tower's is {tuple(kernel.weight.shape)}"
            raise InputError(f"does not fit {tower.name}: {name} has shape {shapes}", file=str(path))
