"""Text towers: Wukong's, FILIP's and CLIP's causal transformer (Wukong T3, FILIP T7), and the way to the others."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlcli.models.config import TextHeadConfig, TextTowerConfig
from vlcli.models.dropout import Dropout


class QuickGELU(nn.Module):
    """x · sigmoid(1.702 x), the activation of CLIP's and Wukong's released weights."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)


class Block(nn.Module):
    """Pre-LN: x + attention(ln_1(x)), then x + mlp(ln_2(x))."""

    def __init__(self, config: TextTowerConfig) -> None:
        super().__init__()
        width, dropout = config.width, config.dropout
        self.heads = config.heads
        self.ln_1 = nn.LayerNorm(width, config.eps)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.ln_2 = nn.LayerNorm(width, config.eps)
        self.fc = nn.Linear(width, 4 * width)
        self.act = QuickGELU() if config.activation == "quick_gelu" else nn.GELU()
        self.proj = nn.Linear(4 * width, width)
        self.drop_attention, self.drop_mlp = Dropout(dropout), Dropout(dropout)

    def forward(self, x: Tensor, keys: Tensor | None) -> Tensor:  # (B, n, width)
        B, n, width = x.shape
        q, k, v = self.qkv(self.ln_1(x)).view(B, n, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        # Padding stands behind [SEP], so under the causal mask no real token ever sees it: no second mask.
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.drop_attention(self.out(attended.transpose(1, 2).reshape(B, n, width)), keys)
        return x + self.drop_mlp(self.proj(self.act(self.fc(self.ln_2(x)))), keys)


class CausalTextTransformer(nn.Module):
    """`tower(ids (B, n), keys=(B,))` → hidden states (B, n, width) after the last LayerNorm; n ≤ context. `keys` decide
    dropout in training (dropout.py); a mask is not needed."""

    def __init__(self, config: TextTowerConfig) -> None:
        super().__init__()
        self.context, self.width = config.context, config.width
        self.token_embedding = nn.Embedding(config.vocabulary, config.width)
        self.positional_embedding = nn.Parameter(torch.empty(config.context, config.width))
        self.drop_embedding = Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.ln_final = nn.LayerNorm(config.width, config.eps)
        self._initialise(config)

    @torch.no_grad()
    def _initialise(self, config: TextTowerConfig) -> None:
        # Residual branches shrink with depth, so that the sum over layers keeps its variance at initialisation.
        branch = config.width**-0.5 * (2 * config.layers) ** -0.5
        nn.init.normal_(self.token_embedding.weight, std=0.02)
        nn.init.normal_(self.positional_embedding, std=0.01)
        for block in self.blocks:
            assert isinstance(block, Block)
            nn.init.normal_(block.qkv.weight, std=config.width**-0.5)
            nn.init.normal_(block.out.weight, std=branch)
            nn.init.normal_(block.fc.weight, std=(2 * config.width) ** -0.5)
            nn.init.normal_(block.proj.weight, std=branch)
            for linear in (block.qkv, block.out, block.fc, block.proj):
                nn.init.zeros_(linear.bias)

    def forward(self, ids: Tensor, mask: Tensor | None = None, keys: Tensor | None = None) -> Tensor:
        assert ids.shape[1] <= self.context, f"{ids.shape[1]} tokens, context {self.context}"
        x = self.token_embedding(ids) + self.positional_embedding[: ids.shape[1]]
        x = self.drop_embedding(x, keys)
        for block in self.blocks:
            x = block(x, keys)
        return self.ln_final(x)


class TextHead(nn.Module):
    """LayerNorm, if there is one, and a fully connected layer on hidden states (AltCLIP: pre_LN, transformation)."""

    def __init__(self, width: int, config: TextHeadConfig) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, config.eps) if config.norm else nn.Identity()
        self.fc = nn.Linear(width, config.width)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.fc(self.norm(hidden))


def text_tower(config: TextTowerConfig) -> nn.Module:
    """The tower that `config.kind` names: `tower(ids, mask, keys)` → hidden states (B, n, config.width)."""
    if config.kind == "causal":
        return CausalTextTransformer(config)
    from vlcli.models.encoder_tower import TransformersTower

    return TransformersTower(config)
