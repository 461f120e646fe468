"""A directory in Stable Diffusion's format, as diffusers saves it: model_index.json, unet/, vae/, scheduler/.

AltDiffusion's has the same parts. Weights are read from safetensors alone: nothing is unpickled, nothing is fetched.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from vlcli.errors import InputError, UsageError
from vlcli.models.diffusers_extra import need_diffusers
from vlcli.models.key_values_config import Prediction
from vlcli.models.layout import in_one_line
from vlcli.models.quickcheck import read_layout

INDEX = "model_index.json"
CONFIG, SCHEDULER, WEIGHTS = "config.json", "scheduler_config.json", "diffusion_pytorch_model"
UNET, VAE = "UNet2DConditionModel", "AutoencoderKL"
ALT = "AltDiffusion"  # how the names of its pipelines begin


@dataclass
class DiffusionModel:
    """`unet` and `vae` in evaluation mode and float32, `scheduler` as the directory names it.

    `unet_hash` and `vae_hash`: 16 hex of their tensors. `width`: of the states that the UNet's cross-attention reads.
    `alt`: it is an AltDiffusion, whose UNet reads what FlagAI's text side gives.
    """

    path: Path
    unet: Any
    vae: Any
    scheduler: Any
    alt: bool
    unet_hash: str
    vae_hash: str

    @property
    def width(self) -> int:
        return int(self.unet.config.cross_attention_dim)

    @property
    def factor(self) -> int:
        """Pixels on a side of one latent."""
        return int(2 ** (len(self.vae.config.block_out_channels) - 1))

    @property
    def size(self) -> int:
        """Pixels on a side of the pictures that the UNet was made for."""
        return int(self.unet.config.sample_size) * self.factor

    @property
    def prediction(self) -> Prediction:
        return cast(Prediction, self.scheduler.config.get("prediction_type", "epsilon"))

    def to(self, device: torch.device) -> DiffusionModel:
        self.unet.to(device)
        self.vae.to(device)
        return self


def require_diffusion(path: str | Path) -> None:
    """UsageError unless every part of such a directory is there; no weights are read."""
    path = Path(path)
    _index(path)
    for name, file in (("unet", CONFIG), ("vae", CONFIG), ("scheduler", SCHEDULER)):
        _configuration(path, name, file)


def is_alt(path: str | Path) -> bool:
    """Whether a directory is an AltDiffusion's."""
    return str(_index(Path(path)).get("_class_name", "")).startswith(ALT)


def open_diffusion(path: str | Path) -> DiffusionModel:
    """The model in a directory. UsageError for one that is none, or that cannot be guided by states of texts alone;
    InputError for what is damaged."""
    path = Path(path)
    alt = is_alt(path)
    library = need_diffusers()
    library.utils.logging.set_verbosity_error()
    unet, vae = _part(library, path, "unet", UNET), _part(library, path, "vae", VAE)
    found = DiffusionModel(
        path,
        unet,
        vae,
        _scheduler(library, path),
        alt,
        tensors_hash(unet.state_dict()),
        tensors_hash(vae.state_dict()),
    )
    _refuse_other_conditions(found)
    return found


def tensors_hash(tensors: Mapping[str, Tensor], *about: Any) -> str:
    """16 hex over tensors, their names and types, and JSON `about` them."""
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]


def read_json(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"not JSON ({error})", file=str(file)) from None
    if not isinstance(found, dict):
        raise InputError("not a JSON object", file=str(file))
    return found


def _index(path: Path) -> dict[str, Any]:
    if not path.is_dir():
        raise UsageError(f"{path}: no such directory")
    if not (path / INDEX).is_file():
        raise UsageError(f"{path}: no {INDEX}: not a directory in Stable Diffusion's format")
    return read_json(path / INDEX)


def _configuration(path: Path, name: str, file: str) -> dict[str, Any]:
    """The JSON file of the part `name`. UsageError where it is not there."""
    if not (path / name).is_dir():
        raise UsageError(f"{path}: no {name}/, which a directory in Stable Diffusion's format has")
    if not (path / name / file).is_file():
        raise UsageError(f"{path / name}: no {file}")
    return read_json(path / name / file)


def _part(library: Any, path: Path, name: str, kind: str) -> nn.Module:
    """The UNet or the VAE: all of its tensors, and no others."""
    config = _configuration(path, name, CONFIG)
    if config.get("_class_name") != kind:
        raise UsageError(f"{path / name}: a {config.get('_class_name')}, where Stable Diffusion has a {kind}")
    _check_files(path / name, kind)
    try:
        model, report = getattr(library, kind).from_pretrained(
            path / name,
            use_safetensors=True,
            local_files_only=True,
            low_cpu_mem_usage=False,
            output_loading_info=True,
            torch_dtype=torch.float32,
        )
    except (OSError, ValueError, RuntimeError, TypeError) as error:
        cause = " ".join(str(error).split())[:200]
        raise InputError(f"cannot be read: {cause}", file=str(path / name)) from error
    wrong = [f"tensor {one} is missing" for one in report["missing_keys"]]
    wrong += [f"tensor {one} has no place in the {kind}" for one in report["unexpected_keys"]]
    wrong += [f"tensor {one[0]} has another shape" for one in report["mismatched_keys"]]
    if wrong:
        raise InputError(in_one_line(wrong), file=str(path / name))
    return cast(nn.Module, model.eval().requires_grad_(False))


def _check_files(folder: Path, kind: str) -> None:
    """InputError for a damaged file of weights, UsageError where there are none that are read."""
    whole, index = folder / f"{WEIGHTS}.safetensors", folder / f"{WEIGHTS}.safetensors.index.json"
    if whole.is_file():
        read_layout(whole)
    elif index.is_file():
        for name in sorted({str(one) for one in read_json(index).get("weight_map", {}).values()}):
            if not (folder / name).is_file():
                raise InputError(f"no {name}, which {index.name} lists", file=str(folder))
            read_layout(folder / name)
    elif any(folder.glob("*.bin")):
        call = (
            f"diffusers.{kind}.from_pretrained('{folder}', use_safetensors=False).save_pretrained('{folder}')"
        )
        raise UsageError(
            f"{folder}: its weights are a pickle (.bin), and none are unpickled here",
            remedy=f'if you trust it: python -c "import diffusers; {call}"',
        )
    else:
        raise UsageError(f"{folder}: no {whole.name}")


def _scheduler(library: Any, path: Path) -> Any:
    config = _configuration(path, "scheduler", SCHEDULER)
    file = str(path / "scheduler" / SCHEDULER)
    kind: Any = getattr(library, str(config.get("_class_name")), None)
    is_scheduler = isinstance(kind, type) and issubclass(kind, library.SchedulerMixin)
    if not is_scheduler:
        raise InputError(f"{config.get('_class_name')} is no scheduler of diffusers", file=file)
    try:
        scheduler = kind.from_config(config)
    except (ValueError, TypeError, NotImplementedError) as error:
        raise InputError(f"no scheduler: {' '.join(str(error).split())}", file=file) from error
    said = scheduler.config.get("prediction_type", "epsilon")
    if said not in ("epsilon", "v_prediction"):
        raise UsageError(f"{file}: prediction_type {said!r} is neither epsilon nor v_prediction")
    return scheduler


def _refuse_other_conditions(found: DiffusionModel) -> None:
    """UsageError for a UNet that reads anything but noisy latents, a time and states of a text."""
    config, unet = found.unet.config, found.path / "unet"
    widths = config.cross_attention_dim
    if not isinstance(widths, int):
        if len(set(widths)) > 1:
            raise UsageError(f"{unet}: its cross-attention has several widths, {list(widths)}")
        found.unet.register_to_config(cross_attention_dim=int(widths[0]))
    for key in ("addition_embed_type", "class_embed_type", "encoder_hid_dim_type"):
        if config.get(key) is not None:
            raise UsageError(f"{unet}: it wants more than the states of a text ({key} = {config[key]!r})")
    if any(config.only_cross_attention if isinstance(config.only_cross_attention, (list, tuple)) else ()) or (
        config.only_cross_attention is True
    ):
        raise UsageError(f"{unet}: its self-attention is cross-attention too (only_cross_attention)")
    channels = found.vae.config.latent_channels
    if config.in_channels != channels or config.out_channels != channels:
        raise UsageError(
            f"{unet}: {config.in_channels} channels in, {config.out_channels} out, and the VAE has {channels}"
        )
