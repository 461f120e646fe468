"""Models without storage: built in a moment to be described, or to take the tensors of a file as they are."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from vlcli.errors import InputError
from vlcli.models.captioner import Captioner
from vlcli.models.classifier import Classifier
from vlcli.models.config import CaptionerConfig, ClassifierConfig, DualEncoderConfig, TextEncoderConfig
from vlcli.models.decoder import Decoder
from vlcli.models.diffusion_config import DecoderConfig, PriorConfig
from vlcli.models.dual import DualEncoder
from vlcli.models.key_values_config import KeyValuesConfig
from vlcli.models.layout import Layout, in_one_line, misfits
from vlcli.models.prior import Prior
from vlcli.models.text_encoder import TextEncoder

ALIGNED = 64  # bytes
_TYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


class Uninitialised(TorchFunctionMode):
    """Modules made inside keep the memory of their parameters as it comes, so that the system never provides it.

    Whatever would write to a parameter in place is passed over, in this thread alone; a file has the values. Buffers
    are computed as always, unlike on the meta device: no file has those that a constructor makes (the windows of
    Swin, the positions of BERT).
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        written = args[0] if args else kwargs.get("tensor")  # nn.init passes its tensor by name
        if isinstance(written, nn.Parameter) and _is_in_place(func.__name__):
            return written
        return func(*args, **kwargs)


def _is_in_place(name: str) -> bool:
    """normal_, fill_, div_; not __get__, and not what writes no element."""
    return name.endswith("_") and not name.endswith("__") and name != "requires_grad_"


def layout_of(tensors: Mapping[str, Tensor]) -> Layout:
    """What a file of these tensors holds."""
    return {name: (_TYPES[tensor.dtype], tuple(tensor.shape)) for name, tensor in tensors.items()}


class _NoTokenizer:
    """Has no pieces, so that any embedding table is large enough."""

    vocab_size = 0


Architecture = (
    DualEncoderConfig
    | TextEncoderConfig
    | ClassifierConfig
    | CaptionerConfig
    | PriorConfig
    | DecoderConfig
    | KeyValuesConfig
)


def layout_of_architecture(config: Architecture) -> Layout:
    """The tensors of a model of that architecture."""
    if isinstance(config, KeyValuesConfig):
        return {name: ("F32", shape) for name, shape in config.tensors.items()}
    with torch.device("meta"):
        if isinstance(config, PriorConfig):
            return layout_of(Prior(config).state_dict())
        if isinstance(config, DecoderConfig):
            return layout_of(Decoder(config).state_dict())
        if isinstance(config, ClassifierConfig):
            return layout_of(Classifier(config).state_dict())
        if isinstance(config, CaptionerConfig):
            return layout_of(Captioner(config, cast(Any, _NoTokenizer())).state_dict())
        if isinstance(config, TextEncoderConfig):
            return layout_of(TextEncoder(config, cast(Any, _NoTokenizer())).state_dict())
        return layout_of(DualEncoder(config, cast(Any, _NoTokenizer())).state_dict())


def fill(model: nn.Module, file: Path) -> None:
    """Give `model` the tensors of a safetensors file, mapped: there is no copy of them but the pages of the file.

    A tensor of another floating point type than the model's is converted, and is a copy. Writing to a mapped tensor
    copies its page; the file stays as it is. Raises InputError for a file that cannot be read or does not fit.
    """
    expected = model.state_dict()
    try:
        with safe_open(file, framework="pt", device="cpu") as opened:
            slices = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118 (it is no dict)
            found = {name: (part.get_dtype(), tuple(part.get_shape())) for name, part in slices.items()}
            if wrong := misfits(found, layout_of(expected)):
                raise InputError(f"it does not fit the architecture: {in_one_line(wrong)}", file=str(file))
            tensors = {name: _as(opened.get_tensor(name), expected[name]) for name in found}
    except (SafetensorError, OSError) as error:
        raise InputError(f"cannot read the weights: {error}", file=str(file)) from error
    model.load_state_dict(tensors, assign=True)


def align(model: nn.Module) -> None:
    """Copy what does not lie as torch itself allots memory: in a mapped file a tensor may begin anywhere, and matrix
    products are rounded otherwise there."""
    for tensor in [*model.parameters(), *model.buffers()]:
        if tensor.device.type == "cpu" and tensor.data_ptr() % ALIGNED:
            tensor.data = tensor.data.clone()


def _as(tensor: Tensor, like: Tensor) -> Tensor:
    return tensor if tensor.dtype == like.dtype else tensor.to(like.dtype)
