"""Give a new dual encoder its initial weights, tower by tower."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from vlcli.errors import InputError
from vlcli.models.dual import DualEncoder
from vlcli.models.initial import checkpoint_of, read_tensors
from vlcli.models.initial_image import load_image_tower
from vlcli.models.initial_text import load_text_tower

# A linear projection as weights hold it beside its tower: ours and transformers' (out, in), OpenAI's (in, out).
_PROJECTIONS = {
    "image": (("image_projection", False), ("visual_projection", False), ("visual.proj", True)),
    "text": (("text_projection", False), ("text_projection", True)),
}


def initialise(model: DualEncoder, image: Path | None, text: Path | None) -> None:
    """Fill the towers from what `find_weights` found; None leaves a tower as it was made.

    A projection comes along where its `init` is "tower", a text head where a checkpoint of ours has one. Raises
    InputError for weights that do not fit.
    """
    if image is not None:
        load_image_tower(model.image, image)
        if model.config.image_projection.init == "tower":
            _load_projection(model.image_projection, "image", image)
    if text is not None:
        load_text_tower(model.text, text, model.config.text.name or "the text tower")
        if model.text_head is not None:
            load_head(model.text_head, text)
        if model.config.text_projection.init == "tower":
            _load_projection(model.text_projection, "text", text)


def _load_projection(layer: nn.Module, side: str, path: Path) -> None:
    state = _state(path)
    if not isinstance(layer, nn.Linear):  # an mlp, which only a checkpoint of ours has
        inside = f"{side}_projection."
        state = {name.removeprefix(inside): x for name, x in state.items() if name.startswith(inside)}
        if state:
            return _copy(layer, state, f"{side}_projection", path)
    for name, transposed in _PROJECTIONS[side]:
        weight = state.get(name if transposed else f"{name}.weight")
        if weight is not None:
            found = {"weight": weight.T if transposed else weight, "bias": state.get(f"{name}.bias")}
            _copy(layer, {key: x for key, x in found.items() if x is not None}, f"{side}_projection", path)
            return
    raise InputError(
        f'no {side} projection beside the tower, which {side}_projection.init = "tower" wants',
        file=str(path),
        remedy=f"--set model.{side}_projection.init=random",
    )


def load_head(head: nn.Module, path: Path) -> None:
    """Fill a text head from a checkpoint of ours that has one."""
    inside = "text_head."
    found = {name.removeprefix(inside): x for name, x in _state(path).items() if name.startswith(inside)}
    if found:
        _copy(head, found, "text.head", path)


def _state(path: Path) -> dict[str, Tensor]:
    return read_tensors((checkpoint_of(path) if path.is_dir() else None) or path)


def _copy(layer: nn.Module, found: Mapping[str, Tensor], name: str, path: Path) -> None:
    expected = layer.state_dict()
    shapes = [{key: tuple(x.shape) for key, x in tensors.items()} for tensors in (found, expected)]
    if shapes[0] != shapes[1]:
        raise InputError(f"does not fit {name}: it has {shapes[0]}, the model {shapes[1]}", file=str(path))
    layer.load_state_dict(dict(found))
