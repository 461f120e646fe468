"""The decoder of unCLIP (R2D2 App. C): from an image embedding to the pixels of a small picture."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vlcli.images.config import PreprocessConfig
from vlcli.models.diffusers_extra import need_diffusers
from vlcli.models.diffusion_config import DecoderConfig

DOWN = ("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D")  # without attention, with it
UP = ("ResnetUpsampleBlock2D", "SimpleCrossAttnUpBlock2D")


class Decoder(nn.Module):
    """`decoder(noisy (b, 3, h, w), level (b,), embedding (b, d))` → what `config.noise.predicts` says, (b, 3, h, w).
    Pixels are in −1 … 1, embeddings standardised; a vector of zeros stands for none."""

    kind = "decoder"

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        attends = [side in config.attention for side in config.sides]
        self.body = need_diffusers().UNet2DConditionModel(
            sample_size=config.size,
            in_channels=3,
            out_channels=3,
            down_block_types=tuple(DOWN[one] for one in attends),
            mid_block_type="UNetMidBlock2DSimpleCrossAttn",
            up_block_types=tuple(UP[one] for one in reversed(attends)),
            block_out_channels=config.channels,
            layers_per_block=config.blocks,
            attention_head_dim=config.head_width,
            norm_num_groups=config.groups,
            cross_attention_dim=config.channels[-1],
            dropout=config.dropout,
            resnet_time_scale_shift="scale_shift",
            addition_embed_type="image",
            encoder_hid_dim_type="image_proj",
            encoder_hid_dim=config.dim,
        )
        self.embedding_mean: Tensor
        self.embedding_deviation: Tensor
        self.register_buffer("embedding_mean", torch.zeros(config.dim))
        self.register_buffer("embedding_deviation", torch.ones(config.dim))
        self.checkpoint_hash = ""

    @property
    def device(self) -> torch.device:
        return self.embedding_mean.device

    @property
    def pixels(self) -> PreprocessConfig:
        """How a picture becomes pixels of this model: its middle, at its size, from −1 to 1."""
        half = (0.5, 0.5, 0.5)
        return PreprocessConfig(size=self.config.size, mean=half, std=half)

    @torch.no_grad()
    def standardise_by(self, mean: Tensor, deviation: Tensor) -> None:
        """Take the mean (d,) and standard deviation (d,) of the training data's image embeddings."""
        self.embedding_mean.copy_(mean)
        self.embedding_deviation.copy_(deviation)

    def standardise(self, embedding: Tensor) -> Tensor:
        return (embedding - self.embedding_mean) / self.embedding_deviation

    def forward(self, noisy: Tensor, level: Tensor, embedding: Tensor) -> Tensor:
        condition = {"image_embeds": embedding}
        out: Tensor = self.body(noisy, level, None, added_cond_kwargs=condition, return_dict=False)[0]
        return out
