"""An image tower alone, as timm pushes it to a hub: config.json with its architecture's name, and weights.

Names are timm's own on both sides. A classification head is no part of a tower and stays behind.
"""

from __future__ import annotations

from typing import Any

import torch
from pydantic import ValidationError

from vlcli.errors import InputError, UsageError
from vlcli.models.adapters import preprocessing
from vlcli.models.adapters.format import (
    Asked,
    CannotExpress,
    Checkpoint,
    Files,
    Format,
    TowerCheckpoint,
    refuse_shapes,
)
from vlcli.models.adapters.parts import subtle_notes
from vlcli.models.adapters.source import Source
from vlcli.models.config import ImageTowerConfig
from vlcli.models.image_tower import TimmTower

NAME = "timm"
# Arguments that timm records for a model and that a tower is made without.
_OURS = ("num_classes", "img_size", "in_chans", "global_pool", "pretrained", "drop_rate")


def recognises(source: Source) -> bool:
    config = source.settings.get("config.json", {})
    return isinstance(config.get("architecture"), str) and "model_type" not in config


def read(source: Source, asked: Asked) -> TowerCheckpoint:
    file = str(source.weights)
    config = source.settings.get("config.json")
    if config is None or not isinstance(config.get("architecture"), str):
        raise UsageError(
            f"{source.path}: timm's weights do not say of which architecture they are",
            remedy='--model-config FILE with {"architecture": NAME}',
        )
    place_of = str((source.folder or source.path) / "config.json")
    found = {**config.get("pretrained_cfg", {})}
    arguments = {k: v for k, v in (config.get("model_args") or {}).items() if k not in _OURS}
    size = (config.get("model_args") or {}).get("img_size")
    if size is not None:
        found |= {
            "input_size": [3, size, size] if isinstance(size, int) else [3, *size],
            "test_input_size": None,
        }
    table: dict[str, Any] = {
        "name": config["architecture"].split(".")[0],
        "arguments": arguments,
        "locked": False,
        "preprocess": preprocessing.from_timm(found, place_of),
    }
    pool = config.get("global_pool")
    if pool not in (None, "token", "avg"):
        raise InputError(f"global_pool {pool!r} is not known here", file=place_of)
    try:
        tower = ImageTowerConfig.model_validate(table)
    except ValidationError as error:
        raise InputError(f"no tower of ours: {error.errors()[0]['msg']}", file=place_of) from error
    checkpoint = TowerCheckpoint(tower, dict(source.state))
    body = body_of(tower)
    if pool not in (None, getattr(body, "global_pool", pool)):
        pooling = "cls" if pool == "token" else "mean"
        tower = tower.model_copy(update={"arguments": {**arguments, "global_pool": pool}, "pooling": pooling})
        checkpoint.config, body = tower, body_of(tower)
    head = _head(body.pretrained_cfg.get("classifier"))
    left = [name for name in checkpoint.state if name.startswith(head)] if head else []
    expected = body.state_dict()
    for name in left:
        if name not in expected:
            del checkpoint.state[name]
            checkpoint.notes.append(f"the classification head stays behind: {name}")
    refuse_shapes(expected, checkpoint.state, file)
    return checkpoint


def _head(classifier: Any) -> tuple[str, ...]:
    names = (classifier,) if isinstance(classifier, str) else tuple(classifier or ())
    return tuple(f"{name}." for name in names)


def body_of(tower: ImageTowerConfig) -> Any:
    """timm's model of a tower, without memory."""
    with torch.device("meta"):
        return TimmTower(tower).body


def express(checkpoint: Checkpoint | TowerCheckpoint) -> Files:
    """The tower, or a dual encoder's image tower: its joint space, its text tower and its tokenizer stay behind."""
    if isinstance(checkpoint, Checkpoint):
        notes = ["the image tower alone: projections and the text tower stay behind"]
        inside = "image.body."
        state = {name[len(inside) :]: x for name, x in checkpoint.state.items() if name.startswith(inside)}
        tower = checkpoint.config.image
    else:
        tower, state, notes = checkpoint.config, checkpoint.state, []
    if not tower.final_norm or not tower.head_conv or tower.eps is not None:
        raise CannotExpress("the image tower departs from timm's architecture of its name")
    prepared, different = preprocessing.to_timm(tower.preprocess)
    body = body_of(tower)
    arguments = dict(tower.arguments)
    sized = "vit" in tower.name or "swin" in tower.name
    if sized and tower.preprocess.size != body.default_cfg["input_size"][-1]:
        arguments["img_size"] = tower.preprocess.size
    own = getattr(body, "global_pool", "avg")
    if tower.pooling != "auto" and own != ("token" if tower.pooling == "cls" else "avg"):
        raise CannotExpress(f"it pools by {own!r}, the model by {tower.pooling!r}")
    config: dict[str, Any] = {
        "architecture": tower.name,
        "num_classes": 0,
        "num_features": int(body.num_features),
        "global_pool": own,
        "pretrained_cfg": {**prepared, "num_classes": 0},
    }
    if arguments:
        config["model_args"] = arguments
    return Files(
        json={"config.json": config},
        tensors={"model.safetensors": state},
        notes=[*notes, *subtle_notes(different, NAME)],
    )


FORMAT = Format(NAME, "an image tower of timm, a directory", "", recognises, read, express)
