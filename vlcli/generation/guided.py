"""Pictures by a diffusion model that a text encoder of ours guides (AltCLIP §5.4): every prompt from the same noise, so
that what differs between two pictures is what their prompts say.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from vlcli.errors import UsageError
from vlcli.evaluation.embed import inference
from vlcli.generation.pictures import noise_of, to_pictures
from vlcli.models.conditioner import Conditioner
from vlcli.models.diffusers_extra import need_diffusers
from vlcli.models.diffusion_directory import DiffusionModel
from vlcli.models.dropout import pair_key
from vlcli.models.dual import DualEncoder
from vlcli.models.key_values import load_key_values, read_key_values, refuse_width
from vlcli.models.key_values_config import States
from vlcli.models.text_encoder import TextEncoder

ONE = "prompt"  # the key of the noise that all prompts share


class Guided:
    """A diffusion model and the text encoder that guides it. `kv`: a run or checkpoint of `finetune --task
    diffusion-kv`, whose keys and values take the place of the UNet's own.

    UsageError where they were trained with another UNet or encoder, or do not fit one another.
    """

    def __init__(
        self, model: DiffusionModel, encoder: DualEncoder | TextEncoder, kv: str | None, device: torch.device
    ) -> None:
        self.model = model
        self.models = {"unet": model.unet_hash, "vae": model.vae_hash}
        states: States = "head-without-norm" if model.alt and encoder.config.text.head else "head"
        if kv is not None:
            config = read_key_values(kv)[1]
            states = config.states
            self.models["kv"] = load_key_values(kv, model).checkpoint_hash
        self.conditioner = Conditioner(encoder, states)
        self.models["encoder"] = self.conditioner.fingerprint
        if kv is not None and config.encoder != self.conditioner.fingerprint:
            raise UsageError(
                f"{kv} was trained with the text encoder {config.encoder}, this one is {self.conditioner.fingerprint}"
            )
        refuse_width(model, self.conditioner)
        self.device = device
        model.to(device)
        self.conditioner.to(device)
        self.pipeline: Any = need_diffusers().StableDiffusionPipeline(
            vae=model.vae,
            text_encoder=None,
            tokenizer=None,
            unet=model.unet,
            scheduler=model.scheduler,
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
        self.pipeline.set_progress_bar_config(disable=True)

    def origin(self, *, seed: int, steps: int, guidance: float) -> dict[str, Any]:
        """The settings that a picture depends on, for `generated_by`."""
        return {
            "seed": seed,
            "steps": steps,
            "guidance": guidance,
            "scheduler": type(self.model.scheduler).__name__,
            "states": self.conditioner.states,
        }

    def _set_steps(self, steps: int) -> None:
        scheduler = self.model.scheduler
        if steps > (most := scheduler.config.num_train_timesteps):
            raise UsageError(f"--steps {steps}: the model was trained with {most}")
        try:
            scheduler.set_timesteps(steps)
        except (ValueError, IndexError) as error:  # a multistep method wants a few to begin with
            name = type(scheduler).__name__
            raise UsageError(
                f"--steps {steps}: too few for the model's {name}", remedy="take more"
            ) from error

    def noise(self, seed: int) -> Tensor:
        """(1, c, h, w): where every picture of a seed begins."""
        side = self.model.size // self.model.factor
        return noise_of(seed, [ONE], (int(self.model.unet.config.in_channels), side, side))

    @torch.no_grad()
    def __call__(
        self, texts: Sequence[str], *, seed: int, steps: int, guidance: float, precision: str = "fp32"
    ) -> list[Image.Image]:
        """A picture of each text. `guidance`: how many times what the text changes counts, beside no text at all; 1: as
        it is, 0: no text. UsageError for what lies between, which the pipeline does not know."""
        if 0 < guidance < 1:
            raise UsageError(f"--guidance {guidance:g}: a diffusion model takes 0, or 1 and more")
        self._set_steps(steps)
        n, nothing = len(texts), self.conditioner.of_texts([""])
        states = self.conditioner.of_texts(texts) if guidance else nothing.expand(n, -1, -1)
        # what a scheduler draws on its way is the same for every picture, too
        drawn = [torch.Generator(self.device).manual_seed(pair_key(seed, ONE, "steps")) for _ in texts]
        with inference(self.conditioner, precision):
            found = self.pipeline(
                prompt_embeds=states,
                negative_prompt_embeds=nothing.expand(n, -1, -1),
                latents=self.noise(seed).to(self.device).expand(n, -1, -1, -1),
                num_inference_steps=steps,
                guidance_scale=guidance,
                generator=drawn,
                height=self.model.size,
                width=self.model.size,
                output_type="pt",
            ).images
        return to_pictures(2 * found - 1)
