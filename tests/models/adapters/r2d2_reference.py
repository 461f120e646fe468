"""R2D2's ranking part, literally: one pair, one head, one token at a time, under the names of the released weights."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

EPS = 1e-12


class _Attention(nn.Module):
    """`self.{query,key,value}`, `output.{dense,LayerNorm}`."""

    def __init__(self, width: int, other: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.self = nn.ModuleDict(
            {
                "query": nn.Linear(width, width),
                "key": nn.Linear(other, width),
                "value": nn.Linear(other, width),
            }
        )
        self.output = nn.ModuleDict(
            {"dense": nn.Linear(width, width), "LayerNorm": nn.LayerNorm(width, eps=EPS)}
        )

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """x (n, width) reads y (m, other), of which nothing is padding."""
        query, key, value = self.self["query"](x), self.self["key"](y), self.self["value"](y)
        size = query.shape[1] // self.heads
        rows = []
        for i in range(len(x)):
            parts = []
            for head in range(self.heads):
                part = slice(head * size, (head + 1) * size)
                scores = torch.stack([query[i, part] @ key[j, part] for j in range(len(y))]) / math.sqrt(size)
                weights = scores.exp() / scores.exp().sum()
                parts.append(sum(weights[j] * value[j, part] for j in range(len(y))))
            rows.append(torch.cat(parts))
        return self.output["LayerNorm"](x + self.output["dense"](torch.stack(rows)))


class _Layer(nn.Module):
    def __init__(self, width: int, other: int, heads: int, inner: int) -> None:
        super().__init__()
        self.attention = _Attention(width, width, heads)
        self.crossattention = _Attention(width, other, heads)
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(width, inner)})
        self.output = nn.ModuleDict(
            {"dense": nn.Linear(inner, width), "LayerNorm": nn.LayerNorm(width, eps=EPS)}
        )

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        x = self.crossattention(self.attention(x, x), y)
        inner = self.intermediate["dense"](x)
        inner = inner * 0.5 * (1 + torch.erf(inner / math.sqrt(2)))
        return self.output["LayerNorm"](x + self.output["dense"](inner))


class JointLayer(nn.Module):
    """A cross encoder: `encoder.layer.N`, and embeddings that stand in the file and that nothing reads."""

    def __init__(self, width: int, other: int, heads: int, inner: int, layers: int) -> None:
        super().__init__()
        self.encoder = nn.ModuleDict(
            {"layer": nn.ModuleList(_Layer(width, other, heads, inner) for _ in range(layers))}
        )
        self.embeddings = nn.ModuleDict(
            {"word_embeddings": nn.Embedding(8, width), "LayerNorm": nn.LayerNorm(width, eps=EPS)}
        )

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        for layer in self.encoder["layer"]:
            x = layer(x, y)
        return x


def match_logits(model, text: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
    """Both heads' logits (2,) of one text (n, width), without padding, and one picture (1 + n1, image width)."""
    read = model.text_joint_layer(text, image)
    looked = model.img_joint_layer(model.img_joint_proj(image), text)
    return model.itm_head(read[0]), model.itm_head_i(looked[0])
