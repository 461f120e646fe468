"""A diffusion model that has learnt nothing, in Stable Diffusion's format, as diffusers saves it.

python tiny_diffusion.py DIR [WIDTH]    WIDTH of the states that its cross-attention reads (default: 512)

Its UNet, its VAE and its scheduler have the shape of Stable Diffusion's, in small: pictures of 32 pixels are latents of
16. All weights are random, so that its pictures are patterns and nothing else; what is shown with it is which tensors
are trained, not what they draw.
"""

import sys

import torch
from diffusers import AutoencoderKL, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel

SURE = -12.0  # the VAE's log variance: random weights would drown every picture in noise of its own


def unet(width):
    return UNet2DConditionModel(
        sample_size=16,
        in_channels=4,
        out_channels=4,
        layers_per_block=1,
        block_out_channels=(32, 64),
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        attention_head_dim=8,
        norm_num_groups=8,
        cross_attention_dim=width,
    )


def vae():
    model = AutoencoderKL(
        block_out_channels=(16, 32),
        down_block_types=("DownEncoderBlock2D", "DownEncoderBlock2D"),
        up_block_types=("UpDecoderBlock2D", "UpDecoderBlock2D"),
        latent_channels=4,
        norm_num_groups=8,
        sample_size=32,
    ).eval()
    with torch.no_grad():
        model.quant_conv.weight[4:] = 0
        model.quant_conv.bias[4:] = SURE
        spread = model.encode(torch.rand(64, 3, 32, 32) * 2 - 1).latent_dist.mean.std()
    model.register_to_config(scaling_factor=round(1 / float(spread), 4))
    return model


def main(folder, width=512):
    torch.manual_seed(0)
    # Stable Diffusion v1-4's
    scheduler = PNDMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        skip_prk_steps=True,
        set_alpha_to_one=False,
        steps_offset=1,
    )
    StableDiffusionPipeline(
        vae=vae(),
        text_encoder=None,
        tokenizer=None,
        unet=unet(int(width)),
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)


main(*sys.argv[1:])
