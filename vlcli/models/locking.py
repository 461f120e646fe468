"""Which parameters learn, and how fast: an ordered list of (pattern → rate), first match wins (big_vision's idea).

The list is `model.train`; behind it stand the short forms `locked` and `unlocked_from` of the towers; behind those,
only where `model.train` is empty, a rule for all that is left.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from torch import nn

from vlcli.errors import UsageError
from vlcli.models.config import CaptionerConfig, DualEncoderConfig, ImageTowerConfig, TextTowerConfig

# A layer in a parameter's name: ViT's and BERT's blocks.3. and layer.3., EfficientNet's blocks.1.0., Swin's
# layers.0.blocks.1., ResNet's layer2.0.
_LAYER = re.compile(
    r"(?:^|\.)(?:(?:blocks?|layers?|stages|h)\.(\d+)(?:\.(?:blocks\.|layers\.)?(\d+))?|layer(\d+)\.(\d+))\."
)


class _Rule(NamedTuple):
    said: str  # where it stands
    matches: Callable[[str], Any]
    rate: float  # 0: locked


def rates(names: Sequence[str], config: DualEncoderConfig | CaptionerConfig) -> dict[str, float]:
    """The factor on the learning rate of each parameter, 0 where it is locked. `names` in the order of definition.

    Raises UsageError for a rule that no parameter falls to and for a parameter that no rule covers.
    """
    rules = [
        _Rule(
            f"model.train[{number}] {rule.pattern!r}",
            re.compile(rule.pattern).fullmatch,
            0.0 if rule.rate == "locked" else rule.rate,
        )
        for number, rule in enumerate(config.train)
    ]
    rules += _short_forms(names, "image", config.image) + _short_forms(names, "text", config.text)
    if not config.train:
        rules.append(_Rule("", lambda name: True, 1.0))
    fixed = isinstance(config, DualEncoderConfig) and not config.temperature.learnable
    found: dict[str, float] = {"log_scale": 0.0} if fixed else {}
    used = {""}
    for name in names:
        if name in found:
            continue
        rule = next((rule for rule in rules if rule.matches(name)), None)
        if rule is None:
            raise UsageError(
                f"model.train: no pattern covers the parameter {name}",
                remedy='end the list with pattern = ".*" to say what the rest does',
            )
        found[name] = rule.rate
        used.add(rule.said)
    for rule in rules:
        if rule.said not in used:
            earlier = any(map(rule.matches, names))
            raise UsageError(
                f"{rule.said}: {'earlier patterns take all that it matches' if earlier else 'it matches no parameter'}",
                remedy=f"parameters are called like {names[0]} and {names[-1]}",
            )
    return found


def _short_forms(names: Sequence[str], side: str, tower: ImageTowerConfig | TextTowerConfig) -> list[_Rule]:
    if not tower.locked:
        return []
    own = [name for name in names if name.startswith(f"{side}.")]
    if tower.unlocked_from is None:
        locked = {*own, *(name for name in names if name.startswith(f"{side}_head."))}
        return [_Rule(f"model.{side}.locked", locked.__contains__, 0.0)]
    below = frozenset(own[: _first_of_layer(own, side, tower.unlocked_from)])
    rest = [name for name in names if name.startswith((f"{side}.", f"{side}_head.")) and name not in below]
    # what learns may have been given other rates before, all of it
    return [
        _Rule(f"model.{side}.unlocked_from", below.__contains__, 0.0),
        _Rule("", frozenset(rest).__contains__, 1.0),
    ]


def _first_of_layer(own: Sequence[str], side: str, layer: int) -> int:
    """How many of a tower's parameters stand before layer `layer`; what follows the last layer is layer "count"."""
    keys = [_layer_of(name) for name in own]
    if any(key is not None and len(key) == 2 for key in keys):  # stages of blocks: a layer is a block
        keys = [key if key is not None and len(key) == 2 else None for key in keys]
    order = list(dict.fromkeys(key for key in keys if key is not None))
    if layer > len(order):
        raise UsageError(f"model.{side}.unlocked_from is {layer}: the tower has {len(order)} layers")
    if layer < len(order):
        return keys.index(order[layer])
    return max(i for i, key in enumerate(keys) if key is not None) + 1 if order else len(own)


def _layer_of(name: str) -> tuple[str, ...] | None:
    found = _LAYER.search(name)
    return None if found is None else tuple(number for number in found.groups() if number is not None)


def layer_names(names: Iterable[str]) -> list[str]:
    """The layers that parameters of one tower belong to, by the layer's own name, in order; of stages of blocks the
    blocks."""
    found = [(name[: match.end() - 1], _layer_of(name)) for name in names if (match := _LAYER.search(name))]
    deepest = max((len(key) for _, key in found if key is not None), default=0)
    return list(dict.fromkeys(layer for layer, key in found if key is not None and len(key) == deepest))


def apply_rates(model: nn.Module, config: DualEncoderConfig | CaptionerConfig) -> dict[str, float]:
    """Lock what is to be locked; returns the rate of each parameter."""
    found = rates([name for name, _ in model.named_parameters()], config)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(found[name] > 0)
    return found


def is_locked(module: nn.Module) -> bool:
    """Whether nothing in it learns."""
    return not any(parameter.requires_grad for parameter in module.parameters())


def keep_locked_in_evaluation(module: nn.Module) -> None:
    """Put the parts of a tower of which no parameter learns into evaluation mode."""
    if next(module.parameters(), None) is None:
        return
    if is_locked(module):
        module.eval()
    else:
        for child in module.children():
            keep_locked_in_evaluation(child)
