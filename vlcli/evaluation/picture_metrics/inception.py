"""Inception v3 out of a file of weights: torchvision's, or the one that FID was defined with (pytorch-fid's file, a
port of TensorFlow's of 2015), which pools differently in places."""

from __future__ import annotations

from pathlib import Path

import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.inception import Inception3, InceptionE

from vlcli.errors import InputError
from vlcli.images.config import PreprocessConfig
from vlcli.models.initial import fill, read_tensors

DIM = 2048
FID_CLASSES, TORCHVISION_CLASSES = 1008, 1000
AVERAGED = tuple(f"Mixed_{name}" for name in ("5b", "5c", "5d", "6b", "6c", "6d", "6e", "7b"))
# Both nets want pixels in −1 … 1.
PREPROCESS = PreprocessConfig(
    size=299, fit="squash", interpolation="bilinear", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)
)


class _WithoutPadding(nn.Module):
    """What averages of 3 × 3 that count the zeros around a picture become without these: those at its border grow."""

    def forward(self, pooled: Tensor) -> Tensor:
        height, width = pooled.shape[-2:]
        inside = F.avg_pool2d(pooled.new_ones(1, 1, height, width), kernel_size=3, stride=1, padding=1)
        return pooled / inside


class _MaximumE(InceptionE):
    """torchvision's last block, with maxima where it takes averages."""

    def _forward(self, x: Tensor) -> list[Tensor]:
        *others, _ = super()._forward(x)
        return [*others, self.branch_pool(F.max_pool2d(x, kernel_size=3, stride=1, padding=1))]


def read_inception(file: Path) -> tuple[nn.Module, str]:
    """(a net from pixels (b, 3, 299, 299) to (b, 2048), what it is called). Raises InputError for other weights."""
    state = {name: tensor for name, tensor in read_tensors(file).items() if not name.startswith("AuxLogits.")}
    head = state.get("fc.weight")
    classes = 0 if head is None or head.ndim != 2 else int(head.shape[0])
    if classes not in (FID_CLASSES, TORCHVISION_CLASSES):
        raise InputError(
            "these are not the weights of an Inception v3 (fc.weight of 1008 or 1000 classes)", file=str(file)
        )
    net = Inception3(num_classes=classes, aux_logits=False, transform_input=False, init_weights=False)
    if classes == FID_CLASSES:
        net.Mixed_7c = _MaximumE(DIM)
    counters = {
        name: value for name, value in net.state_dict().items() if name.endswith("num_batches_tracked")
    }
    fill(net, {**counters, **state}, "Inception v3", file)  # old files do not count batches
    if classes == FID_CLASSES:
        for name in AVERAGED:
            block = getattr(net, name)
            block.branch_pool = nn.Sequential(_WithoutPadding(), block.branch_pool)
    net.fc = net.dropout = nn.Identity()
    return net, "inception-v3-fid" if classes == FID_CLASSES else "inception-v3-torchvision"
