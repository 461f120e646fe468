"""R2D2's cross encoder: post-LN layers, each of which reads its own side and then the other one (R2D2 §3.1)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlcli.models.config import CrossConfig
from vlcli.models.dropout import Dropout
from vlcli.models.text_passes import by_length


class Attention(nn.Module):
    """norm(x + out(attention from x to y)): queries (b, n, width), keys and values (b, m, other)."""

    def __init__(self, width: int, other: int, config: CrossConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(other, 2 * width)
        self.out = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width, config.eps)
        self.drop = Dropout(config.dropout)

    def split(self, x: Tensor) -> Tensor:
        """(b, n, width) → (b, heads, n, width / heads)."""
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def forward(self, x: Tensor, key_value: Tensor, mask: Tensor | None, keys: Tensor | None) -> Tensor:
        """`key_value` (b, m, 2 · width) is what the layer of that name made of y; mask (b, m), where y counts, or
        (b, n, m), where it does for each of x."""
        key, value = map(self.split, key_value.chunk(2, -1))
        seen = None if mask is None else mask[:, None] if mask.dim() == 3 else mask[:, None, None]
        attended = F.scaled_dot_product_attention(self.split(self.query(x)), key, value, attn_mask=seen)
        return self.norm(x + self.drop(self.out(attended.transpose(1, 2).flatten(2)), keys))

    def scores(self, x: Tensor, key_value: Tensor, mask: Tensor | None) -> Tensor:
        """How much each of x looks at each of y: (b, heads, n, m), rows that sum to 1."""
        query, key = self.split(self.query(x)), self.split(key_value.chunk(2, -1)[0])
        products = query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5
        if mask is not None:
            products = products.masked_fill(~mask[:, None, None], -torch.inf)
        return products.softmax(-1)


class CrossLayer(nn.Module):
    """Self-attention, cross-attention, MLP; each adds to its input and normalises the sum."""

    def __init__(self, width: int, other: int, config: CrossConfig) -> None:
        super().__init__()
        self.own = Attention(width, width, config)
        self.other = Attention(width, other, config)
        self.fc = nn.Linear(width, config.intermediate)
        self.proj = nn.Linear(config.intermediate, width)
        self.norm = nn.LayerNorm(width, config.eps)
        self.drop = Dropout(config.dropout)

    def own_side(self, x: Tensor, mask: Tensor | None, keys: Tensor | None) -> Tensor:
        return self.own(x, self.own.key_value(x), mask, keys)

    def other_side(self, x: Tensor, key_value: Tensor, mask: Tensor | None, keys: Tensor | None) -> Tensor:
        x = self.other(x, key_value, mask, keys)
        return self.norm(x + self.drop(self.proj(F.gelu(self.fc(x))), keys))


class CrossEncoder(nn.Module):
    """`encoder(x, y, rows, columns, ...)` → (p, n, width) for the pairs (x[rows[i]], y[columns[i]]).

    What depends on one side alone, the first self-attention of x and the keys and values of y, is computed once for
    each x and y, whatever the number of its pairs; and short texts do not pay for the padding of long ones.
    """

    def __init__(self, width: int, other: int, config: CrossConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(CrossLayer(width, other, config) for _ in range(config.layers))
        initialise(self, config.initializer_range)

    def forward(
        self,
        x: Tensor,
        y: Tensor,
        rows: Tensor,
        columns: Tensor,
        *,
        x_mask: Tensor | None = None,
        y_mask: Tensor | None = None,
        x_keys: Tensor | None = None,
        keys: Tensor | None = None,
    ) -> Tensor:
        """x (a, n, width), y (c, m, other), rows and columns (p,). The masks (a, n) and (c, m) are true where a side
        counts; x_keys (a,) and keys (p,) decide dropout. Zeros behind the longest of texts that are read together."""
        return self._states(x, y, rows, columns, x_mask, y_mask, x_keys, keys, len(self.layers))

    def attention(
        self, x: Tensor, y: Tensor, layer: int, *, x_mask: Tensor | None = None, y_mask: Tensor | None = None
    ) -> Tensor:
        """The cross-attention of layer `layer`, from 1, of the pairs (x[i], y[i]): (b, heads, n, m)."""
        assert 1 <= layer <= len(self.layers), f"layer {layer} of {len(self.layers)}"
        rows = torch.arange(len(x), device=x.device)
        state = self._states(x, y, rows, rows, x_mask, y_mask, None, None, layer - 1)
        here = self.layers[layer - 1]
        assert isinstance(here, CrossLayer)
        return here.other.scores(here.own_side(state, x_mask, None), here.other.key_value(y), y_mask)

    def _states(
        self,
        x: Tensor,
        y: Tensor,
        rows: Tensor,
        columns: Tensor,
        x_mask: Tensor | None,
        y_mask: Tensor | None,
        x_keys: Tensor | None,
        keys: Tensor | None,
        depth: int,
    ) -> Tensor:
        """What the first `depth` layers make of the pairs."""
        layers = [layer for layer in self.layers[:depth] if isinstance(layer, CrossLayer)]
        if not layers:
            return x[rows]
        key_values = [layer.other.key_value(y) for layer in layers]

        def first(some: Tensor, length: int) -> Tensor:
            return layers[0].own_side(x[some, :length], _of(x_mask, some, length), _of(x_keys, some))

        def paired(some: Tensor, length: int) -> Tensor:
            mine, others, drawn = rows[some], columns[some], _of(keys, some)
            mask, other_mask, state = _of(x_mask, mine, length), _of(y_mask, others), read[mine, :length]
            for number, (layer, key_value) in enumerate(zip(layers, key_values, strict=True)):
                if number:
                    state = layer.own_side(state, mask, drawn)
                state = layer.other_side(state, key_value[others], other_mask, drawn)
            return state

        if x_mask is None or not len(rows):  # a process may have no share of a step
            read = first(torch.arange(len(x), device=x.device), x.shape[1])
            return paired(torch.arange(len(rows), device=x.device), x.shape[1])
        read = by_length(x_mask, first)
        return by_length(x_mask[rows], paired)


def _of(x: Tensor | None, rows: Tensor, length: int | None = None) -> Tensor | None:
    """Some rows, as far as `length`, of a mask or of keys."""
    return None if x is None else x[rows] if length is None else x[rows, :length]


@torch.no_grad()
def initialise(module: nn.Module, std: float) -> None:
    """BERT's start: weights of this standard deviation, no biases."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=std)
            nn.init.zeros_(layer.bias)
