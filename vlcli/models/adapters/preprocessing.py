"""How each library writes down what it does with pictures, to our `PreprocessConfig` and back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from vlcli.errors import InputError
from vlcli.images.config import PreprocessConfig
from vlcli.models.adapters.format import CannotExpress
from vlcli.models.adapters.source import Source

INTERPOLATIONS = {0: "nearest", 2: "bilinear", 3: "bicubic"}  # Pillow's numbers
_RESAMPLE = {name: number for number, name in INTERPOLATIONS.items()}

# What the libraries' code does without asking a file, all with CLIP's mean and deviation.
OPENAI = PreprocessConfig(rgb="after")
CN_CLIP = PreprocessConfig(fit="squash", rgb="after")
WUKONG = PreprocessConfig()
R2D2 = PreprocessConfig(fit="squash")

# Fields in which two ways with the same picture differ in the last digits of some of its pixels, not in what is seen.
SUBTLE = ("rgb", "engine", "centre")


def at_size(config: PreprocessConfig, size: int) -> PreprocessConfig:
    return config.model_copy(update={"size": size})


def refuse_other(config: PreprocessConfig, wanted: PreprocessConfig) -> list[str]:
    """CannotExpress where a format whose preprocessing is fixed does not prepare pictures as `config` does; the names
    of the subtle settings in which it differs."""
    theirs = at_size(wanted, config.size)
    different = [name for name in type(config).model_fields if getattr(config, name) != getattr(theirs, name)]
    if grave := [name for name in different if name not in SUBTLE]:
        name = grave[0]
        raise CannotExpress(
            f"its preprocessing is fixed: {name} is {getattr(theirs, name)}, the model's {getattr(config, name)}"
        )
    return different


def _config(values: Mapping[str, Any], file: str) -> PreprocessConfig:
    try:
        return PreprocessConfig.model_validate(values)
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(str(part) for part in problem["loc"])
        raise InputError(f"preprocessing: {where}: {problem['msg']}", file=file) from error


# --- transformers ------------------------------------------------------------------------------------------


def from_transformers(source: Source, size: int) -> PreprocessConfig:
    """preprocessor_config.json as transformers' torch processors read it (the default since 5.0); without the file,
    CLIP's. `size`: the side that the weights want."""
    file = "preprocessor_config.json"
    found = source.settings.get(file)
    if found is None:
        file = "processor_config.json"
        found = source.settings.get(file, {}).get("image_processor", {})
    place = str((source.folder or source.path) / file)
    for step in ("do_resize", "do_rescale", "do_normalize"):
        if not found.get(step, True):
            raise InputError(f"{step} = false: pictures that come prepared are not known here", file=place)
    if found.get("rescale_factor", 1 / 255) != 1 / 255:
        raise InputError(f"rescale_factor {found['rescale_factor']} is not 1/255", file=place)
    values: dict[str, Any] = {"rgb": "white", "engine": "torch", "centre": "down"}
    shape = found.get("size", {"shortest_edge": size})
    if isinstance(shape, int):
        shape = {"shortest_edge": shape}
    cut = found.get("crop_size", {"height": size, "width": size})
    if isinstance(cut, int):
        cut = {"height": cut, "width": cut}
    cropped = found.get("do_center_crop", True)
    side = shape.get("shortest_edge")
    if side is None:
        if not shape.get("height") or shape.get("height") != shape.get("width"):
            raise InputError(f"size {shape} is no square and no shortest edge", file=place)
        side = shape["height"]
        values |= {"fit": "squash", "size": side}
        if cropped and (cut.get("height"), cut.get("width")) != (side, side):
            raise InputError("a crop behind a squashed picture is not known here", file=place)
    elif cropped and cut.get("height") == cut.get("width") is not None:
        values |= {"size": cut["height"], "resize": None if side == cut["height"] else side}
    else:
        raise InputError("pictures that are not square are not known here", file=place)
    if "resample" in found:
        if found["resample"] not in INTERPOLATIONS:
            raise InputError(f"resample {found['resample']} is none of {INTERPOLATIONS}", file=place)
        values["interpolation"] = INTERPOLATIONS[found["resample"]]
    values |= {
        ours: found[theirs]
        for ours, theirs in (("mean", "image_mean"), ("std", "image_std"))
        if theirs in found
    }
    config = _config(values, place)
    if config.size != size:
        raise InputError(f"it makes {config.size} pixels of a side, the weights want {size}", file=place)
    return config


def to_transformers(config: PreprocessConfig, kind: str) -> tuple[dict[str, Any], list[str]]:
    """preprocessor_config.json of an image processor `kind`, and the subtle settings in which it differs."""
    square = {"height": config.size, "width": config.size}
    squash = config.fit == "squash"
    written = {
        "image_processor_type": kind,
        "do_convert_rgb": True,
        "do_resize": True,
        "size": square if squash else {"shortest_edge": config.resize or config.size},
        "resample": _RESAMPLE[config.interpolation],
        "do_center_crop": not squash,
        "crop_size": square,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(config.mean),
        "image_std": list(config.std),
    }
    theirs = config.model_copy(update={"rgb": "white", "engine": "torch", "centre": "down"})
    return written, [name for name in SUBTLE if getattr(config, name) != getattr(theirs, name)]


# --- open_clip ---------------------------------------------------------------------------------------------


def from_open_clip(found: Mapping[str, Any], size: int, file: str) -> PreprocessConfig:
    """`preprocess_cfg` of an open_clip_config.json; what it does not say is CLIP's."""
    side = found.get("size", size)
    sides = side if isinstance(side, list) else [side, side]
    mode, fit = found.get("mode", "RGB"), found.get("resize_mode", "shortest")
    if sides[0] != sides[1] or mode != "RGB" or fit not in ("shortest", "squash"):
        raise InputError(f"preprocessing to {sides}, {mode}, {fit!r} is not known here", file=file)
    values = {"size": sides[0], "fit": "squash" if fit == "squash" else "crop", "rgb": "after"}
    values |= {name: found[name] for name in ("mean", "std", "interpolation") if name in found}
    config = _config(values, file)
    if config.size != size:
        raise InputError(
            f"preprocessing to {config.size} pixels of a side, the weights want {size}", file=file
        )
    return config


def to_open_clip(config: PreprocessConfig) -> tuple[dict[str, Any], list[str]]:
    """`preprocess_cfg`, and the subtle settings in which open_clip differs."""
    if config.resize not in (None, config.size):
        raise CannotExpress(
            f"it resizes to the size of its crop, the model to {config.resize} for {config.size}"
        )
    if config.interpolation == "nearest":
        raise CannotExpress("it has no interpolation 'nearest'")
    written = {
        "size": config.size,
        "mode": "RGB",
        "mean": list(config.mean),
        "std": list(config.std),
        "interpolation": config.interpolation,
        "resize_mode": "squash" if config.fit == "squash" else "shortest",
    }
    theirs = config.model_copy(update={"rgb": "after", "engine": "pillow", "centre": "nearest"})
    return written, [name for name in SUBTLE if getattr(config, name) != getattr(theirs, name)]


# --- timm --------------------------------------------------------------------------------------------------


def from_timm(found: Mapping[str, Any], file: str) -> PreprocessConfig:
    """`pretrained_cfg` of a timm model, as `timm.data` evaluates with it."""
    shape = found.get("test_input_size") or found.get("input_size") or (3, 224, 224)
    if len(shape) != 3 or shape[0] != 3 or shape[1] != shape[2]:
        raise InputError(f"input_size {shape} is no square of three colours", file=file)
    size = shape[-1]
    share = found.get("test_crop_pct") or found.get("crop_pct") or 0.875
    mode = found.get("crop_mode") or "center"
    values: dict[str, Any] = {"size": size, "interpolation": found.get("interpolation", "bicubic")}
    if mode == "squash" and math.floor(size / share) == size:
        values["fit"] = "squash"
    elif mode == "center":
        values["resize"] = None if math.floor(size / share) == size else math.floor(size / share)
    else:
        raise InputError(f"crop_mode {mode!r} with crop_pct {share} is not known here", file=file)
    values |= {name: found[name] for name in ("mean", "std") if name in found}
    return _config(values, file)


def to_timm(config: PreprocessConfig) -> tuple[dict[str, Any], list[str]]:
    """The part of a `pretrained_cfg` that says how pictures are prepared, and the subtle settings that differ."""
    if config.interpolation == "nearest":
        raise CannotExpress("it has no interpolation 'nearest'")
    written = {
        "input_size": [3, config.size, config.size],
        "fixed_input_size": True,
        "interpolation": config.interpolation,
        # timm rounds size / crop_pct down
        "crop_pct": config.size / (config.resize + 0.5) if config.resize not in (None, config.size) else 1.0,
        "crop_mode": "squash" if config.fit == "squash" else "center",
        "mean": list(config.mean),
        "std": list(config.std),
    }
    theirs = config.model_copy(update={"rgb": "before", "engine": "pillow", "centre": "nearest"})
    return written, [name for name in SUBTLE if getattr(config, name) != getattr(theirs, name)]
