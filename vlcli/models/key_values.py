"""The keys and values of a UNet's cross-attention: what learns when another text encoder guides it (AltCLIP §5.4)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from torch import Tensor, nn

from vlcli.errors import InputError, UsageError
from vlcli.models.checkpoint import checkpoint_hash, first_problem, read_config
from vlcli.models.conditioner import Conditioner
from vlcli.models.diffusion_directory import DiffusionModel
from vlcli.models.key_values_config import KeyValuesConfig
from vlcli.models.quickcheck import CONFIG, WEIGHTS, find_checkpoint
from vlcli.models.storage import fill

KIND = "diffusion-kv"
PROJECTIONS = ("attn2.to_k", "attn2.to_v")  # of a transformer block's second attention, which reads the text


def is_key_value(name: str) -> bool:
    """Whether a parameter of a UNet, by its name, is of a cross-attention's key or value projection."""
    return any(f".{projection}." in name for projection in PROJECTIONS)


class KeyValues(nn.Module):
    """A UNet of which the keys and values of its cross-attention alone learn, and are saved: `state_dict` has them and
    nothing else, under the UNet's own names."""

    kind = KIND

    def __init__(self, unet: Any, config: KeyValuesConfig) -> None:
        super().__init__()
        self.config, self.unet = config, unet
        self.checkpoint_hash = ""
        for name, parameter in unet.named_parameters():
            parameter.requires_grad_(name in config.tensors)

    def forward(self, noisy: Tensor, times: Tensor, states: Tensor) -> Tensor:
        """noisy latents (b, c, h, w), times (b,), states (b, n, width) → what the UNet predicts (b, c, h, w)."""
        said: Tensor = self.unet(noisy, times, encoder_hidden_states=states, return_dict=False)[0]
        return said

    def state_dict(self, *arguments: Any, **named: Any) -> dict[str, Tensor]:  # type: ignore[override]
        whole = self.unet.state_dict(*arguments, **named)
        return {name: whole[name] for name in self.config.tensors}

    def load_state_dict(
        self, state_dict: Mapping[str, Tensor], strict: bool = True, assign: bool = False
    ) -> Any:
        found = self.unet.load_state_dict(state_dict, strict=False, assign=assign)
        rest = set(self.unet.state_dict()) - self.config.tensors.keys()
        if strict and (found.unexpected_keys or set(found.missing_keys) != rest):
            raise RuntimeError(f"not the keys and values of this UNet: {sorted(state_dict)[:3]}")
        return found


def new_key_values(model: DiffusionModel, conditioner: Conditioner) -> KeyValues:
    """The UNet of `model` before the first step. UsageError unless it can read what the text encoder says."""
    names = {
        name: tuple(tensor.shape) for name, tensor in model.unet.state_dict().items() if is_key_value(name)
    }
    if not names:
        raise UsageError(f"{model.path / 'unet'}: no cross-attention with {' and '.join(PROJECTIONS)}")
    refuse_width(model, conditioner)
    config = KeyValuesConfig(
        unet=model.unet_hash,
        vae=model.vae_hash,
        encoder=conditioner.fingerprint,
        states=conditioner.states,
        width=conditioner.width,
        length=conditioner.length,
        prediction=model.prediction,
        tensors=names,
    )
    return KeyValues(model.unet, config)


def refuse_width(model: DiffusionModel, conditioner: Conditioner) -> None:
    """UsageError unless the states of a text are as wide as the UNet's cross-attention reads."""
    if conditioner.width == model.width:
        return
    others = [f"{name} {width}" for name, width in conditioner.widths.items() if name != conditioner.states]
    has = f" (it has {', '.join(others)})" if others else ""
    fits = next((name for name, width in conditioner.widths.items() if width == model.width), None)
    raise UsageError(
        f"the UNet reads states of {model.width} dimensions, the text encoder's are {conditioner.width}{has}",
        remedy=f"--set diffusion.states={fits}" if fits else "another encoder, or another diffusion model",
    )


def read_key_values(path: str | Path) -> tuple[Path, KeyValuesConfig]:
    """The checkpoint of kind "diffusion-kv" behind `path`, and its configuration."""
    place = find_checkpoint(path)
    config = read_config(place, kinds=(KIND,))
    try:
        return place, KeyValuesConfig.model_validate(config["architecture"])
    except (ValidationError, KeyError) as error:
        raise InputError(f"architecture: {first_problem(error)}", file=str(place / CONFIG)) from error


def load_key_values(path: str | Path, model: DiffusionModel) -> KeyValues:
    """The keys and values of a run or checkpoint, in the UNet of `model`.

    UsageError where they are of another UNet, InputError where they are not exactly its keys and values.
    """
    place, config = read_key_values(path)
    if config.unet != model.unet_hash:
        raise UsageError(
            f"{place}: keys and values of the UNet {config.unet}, that of {model.path} is {model.unet_hash}"
        )
    wanted = {name: tuple(x.shape) for name, x in model.unet.state_dict().items() if is_key_value(name)}
    if wanted != config.tensors:
        raise InputError("its tensors are not the UNet's keys and values", file=str(place / CONFIG))
    found = KeyValues(model.unet, config)
    fill(found, place / WEIGHTS)
    found.checkpoint_hash = checkpoint_hash(place)
    return found.eval()
