"""Wukong's released models, written literally from the layout of their checkpoints: names, shapes, operations."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


class QuickGELU(nn.Module):
    def forward(self, x):
        return x * torch.sigmoid(1.702 * x)


class Block(nn.Module):
    def __init__(self, width, heads, mask=None):
        super().__init__()
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mlp = nn.Sequential()
        self.mlp.add_module("c_fc", nn.Linear(width, 4 * width))
        self.mlp.add_module("gelu", QuickGELU())
        self.mlp.add_module("c_proj", nn.Linear(4 * width, width))
        self.mask = mask

    def forward(self, x):
        y = self.ln_1(x)
        x = x + self.attn(y, y, y, need_weights=False, attn_mask=self.mask)[0]
        return x + self.mlp(self.ln_2(x))


class Transformer(nn.Module):
    def __init__(self, width, layers, mask=None):
        super().__init__()
        self.resblocks = nn.Sequential(*[Block(width, width // 64, mask) for _ in range(layers)])

    def forward(self, x):
        return self.resblocks(x)


class TokenLearner(nn.Module):
    def __init__(self, dim, tokens):
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.attention_maps = nn.Sequential(
            nn.Conv2d(dim, dim, 1, groups=8, bias=False), nn.Conv2d(dim, tokens, 1, bias=False)
        )
        self.feat_conv = nn.Conv2d(dim, dim, 1, groups=8, bias=False)

    def forward(self, x):  # (b, h, w, c)
        maps = self.attention_maps(self.norm(x).permute(0, 3, 1, 2)).flatten(2).softmax(-1)
        values = self.feat_conv(x.permute(0, 3, 1, 2)).flatten(2)
        return torch.einsum("bnp,bcp->bnc", maps, values)


class ViT(nn.Module):
    def __init__(self, size, patch, width, layers, dim, tokens):
        super().__init__()
        self.side, self.dim = size // patch, dim
        self.conv1 = nn.Conv2d(3, width, patch, patch, bias=False)
        self.class_embedding = nn.Parameter(torch.randn(width))
        self.positional_embedding = nn.Parameter(torch.randn(self.side**2 + 1, width))
        self.ln_pre, self.ln_post = nn.LayerNorm(width), nn.LayerNorm(width)
        self.transformer = Transformer(width, layers)
        self.proj = nn.Parameter(torch.randn(width, dim))
        if tokens:
            self.token_learner = TokenLearner(dim, tokens)

    def forward(self, pixels):
        x = self.conv1(pixels).flatten(2).transpose(1, 2)
        x = torch.cat([self.class_embedding.expand(len(x), 1, -1), x], 1) + self.positional_embedding
        x = self.ln_post(self.transformer(self.ln_pre(x))) @ self.proj
        return x[:, 0], x[:, 1:]


class WindowAttention(nn.Module):
    def __init__(self, width, window, heads):
        super().__init__()
        self.heads = heads
        self.relative_position_bias_table = nn.Parameter(torch.randn((2 * window - 1) ** 2, heads))
        place = torch.stack(
            torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij")
        ).flatten(1)
        offset = (place[:, :, None] - place[:, None, :]).permute(1, 2, 0) + window - 1
        self.register_buffer("relative_position_index", offset[..., 0] * (2 * window - 1) + offset[..., 1])
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x, mask):  # (b·windows, n, c)
        b, n, c = x.shape
        q, k, v = self.qkv(x).view(b, n, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        scores = q @ k.transpose(-2, -1) * (c // self.heads) ** -0.5
        scores = scores + self.relative_position_bias_table[self.relative_position_index].permute(2, 0, 1)
        if mask is not None:
            windows = len(mask)
            scores = (scores.view(b // windows, windows, self.heads, n, n) + mask[:, None]).view(
                b, self.heads, n, n
            )
        return self.proj((scores.softmax(-1) @ v).transpose(1, 2).reshape(b, n, c))


class SwinBlock(nn.Module):
    def __init__(self, width, side, heads, window, shift):
        super().__init__()
        if side <= window:
            shift = 0
        self.side, self.window, self.shift = side, window, shift
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = WindowAttention(width, window, heads)
        self.mlp = nn.Module()
        self.mlp.fc1, self.mlp.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        mask = None
        if shift:
            region = torch.zeros(side, side)
            bounds = (slice(0, -window), slice(-window, -shift), slice(-shift, None))
            for i, rows in enumerate(bounds):
                for j, columns in enumerate(bounds):
                    region[rows, columns] = 3 * i + j
            of = self.windows(region[None, :, :, None])[..., 0]
            mask = (of[:, None, :] != of[:, :, None]).float() * -100
        self.register_buffer("attn_mask", mask)

    def windows(self, x):  # (b, h, w, c) → (b·windows, window², c)
        b, _, _, c = x.shape
        w, k = self.window, self.side // self.window
        return x.view(b, k, w, k, w, c).transpose(2, 3).reshape(-1, w * w, c)

    def forward(self, x):  # (b, h·w, c)
        b, n, c = x.shape
        w, k = self.window, self.side // self.window
        y = self.norm1(x).view(b, self.side, self.side, c).roll((-self.shift, -self.shift), (1, 2))
        y = self.attn(self.windows(y), self.attn_mask)
        y = y.view(b, k, k, w, w, c).transpose(2, 3).reshape(b, self.side, self.side, c)
        x = x + y.roll((self.shift, self.shift), (1, 2)).reshape(b, n, c)
        return x + self.mlp.fc2(F.gelu(self.mlp.fc1(self.norm2(x))))


class Merging(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.norm, self.reduction = nn.LayerNorm(4 * width), nn.Linear(4 * width, 2 * width, bias=False)

    def forward(self, x):
        b, n, c = x.shape
        x = x.view(b, round(n**0.5), round(n**0.5), c)
        corners = [x[:, 0::2, 0::2], x[:, 1::2, 0::2], x[:, 0::2, 1::2], x[:, 1::2, 1::2]]
        return self.reduction(self.norm(torch.cat(corners, -1).view(b, n // 4, 4 * c)))


class Stage(nn.Module):
    def __init__(self, width, side, depth, heads, window, last):
        super().__init__()
        self.blocks = nn.ModuleList(
            SwinBlock(width, side, heads, window, 0 if i % 2 == 0 else window // 2) for i in range(depth)
        )
        self.downsample = None if last else Merging(width)

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return x if self.downsample is None else self.downsample(x)


class Swin(nn.Module):
    def __init__(self, size, patch, width, depths, heads, window, dim, tokens):
        super().__init__()
        self.dim = dim
        self.patch_embed = nn.Module()
        self.patch_embed.proj, self.patch_embed.norm = nn.Conv2d(3, width, patch, patch), nn.LayerNorm(width)
        last = len(depths) - 1
        self.layers = nn.ModuleList(
            Stage(width * 2**i, size // patch // 2**i, depth, heads[i], window, i == last)
            for i, depth in enumerate(depths)
        )
        self.norm = nn.LayerNorm(width * 2**last)
        self.head = nn.Linear(width * 2**last, dim)
        self.side = size // patch // 2**last
        if tokens:
            self.token_learner = TokenLearner(dim, tokens)

    def forward(self, pixels):
        x = self.patch_embed.norm(self.patch_embed.proj(pixels).flatten(2).transpose(1, 2))
        for layer in self.layers:
            x = layer(x)
        x = self.norm(x)
        return self.head(x.mean(1)), self.head(x)


class Text(Transformer):
    def __init__(self, vocabulary, context, width, layers, dim):
        super().__init__(width, layers, torch.full((context, context), float("-inf")).triu(1))
        self.token_embedding = nn.Embedding(vocabulary, width)
        self.positional_embedding = nn.Parameter(torch.randn(context, width))
        self.ln_final = nn.LayerNorm(width)
        self.text_projection = nn.Parameter(torch.randn(width, dim))

    def forward(self, ids):
        x = super().forward(self.token_embedding(ids) + self.positional_embedding)
        return self.ln_final(x) @ self.text_projection


class Wukong(nn.Module):
    """`similarity`: "global", "tokenwise" or "reduced"; ids are padded with 0 to the context."""

    def __init__(self, visual, text, similarity):
        super().__init__()
        self.visual, self.transformer, self.similarity = visual, text, similarity
        self.loss = nn.Module()
        self.loss.logit_scale = nn.Parameter(torch.tensor(2.9))

    def image(self, pixels):
        """Raw features: (b, d), (b, patches, d) or (b, tokens, d)."""
        pooled, patches = self.visual(pixels)
        if self.similarity == "global":
            return pooled
        if self.similarity == "tokenwise":
            return patches
        side = self.visual.side
        return self.visual.token_learner(patches.view(len(patches), side, side, -1))

    def text(self, ids):
        """Raw features: (B, d) at the last token that is not 0, or (B, n, d)."""
        x = self.transformer(ids)
        return x[torch.arange(len(x)), (ids != 0).sum(1) - 1] if self.similarity == "global" else x

    def i2t(self, pixels, ids):
        """(b, B): the image's side, where padding is a token of zeros."""
        image, text = F.normalize(self.image(pixels), dim=-1), F.normalize(self.text(ids), dim=-1)
        if self.similarity == "global":
            return image @ text.T
        return torch.einsum("bid,Bjd->bBij", image, text * (ids != 0)[..., None]).amax(3).mean(2)
