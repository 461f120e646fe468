"""Pictures of texts by a dual encoder, a prior and a decoder that were trained with one another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from PIL import Image

from vlcli.errors import UsageError
from vlcli.generation.pictures import noise_of, to_pictures
from vlcli.generation.rows import generated_by
from vlcli.generation.unclip import as_encoder, drawn, likeliest_embeddings, refuse_strangers, text_condition
from vlcli.models.decoder import Decoder
from vlcli.models.dual import DualEncoder
from vlcli.models.prior import Prior


@dataclass(frozen=True)
class Way:
    """How pictures are drawn: steps through the noise, and guidance away from what is said without a condition (1: the
    condition alone), of the decoder and of the prior; of how many embeddings of the prior the likeliest is drawn."""

    seed: int = 0
    steps: int = 50
    guidance: float = 2.0
    prior_steps: int = 25
    prior_guidance: float = 4.0
    prior_samples: int = 2


class Painter:
    """`painter(texts, names)` → a picture of each text. A picture is a function of its text, its name and the way; what
    else stands in its batch moves no more than the last digits of sums.

    Raises UsageError for parts that were not trained with one another, and for more steps than there are levels.
    """

    def __init__(self, clip: DualEncoder, prior: Prior, decoder: Decoder, way: Way) -> None:
        refuse_strangers(clip, prior=prior, decoder=decoder)
        for option, steps, part in (
            ("--steps", way.steps, decoder),
            ("--prior-steps", way.prior_steps, prior),
        ):
            if steps > (levels := part.config.noise.levels):
                raise UsageError(f"{option} {steps}: the {part.kind} knows {levels} levels of noise")
        self.clip, self.prior, self.decoder, self.way = as_encoder(clip), prior, decoder, way

    @property
    def origin(self) -> dict[str, Any]:
        """The `generated_by` of its pictures."""
        models = {"clip": self.clip.checkpoint_hash, "prior": self.prior.checkpoint_hash}
        models["decoder"] = self.decoder.checkpoint_hash
        return generated_by(models, **asdict(self.way))

    def __call__(self, texts: Sequence[str], names: Sequence[str]) -> list[Image.Image]:
        way, size, device = self.way, self.decoder.config.size, self.decoder.device
        told = text_condition(self.clip, *self.clip.tokenize(list(texts)))
        shape = (self.prior.config.dim,)
        noises = [
            noise_of(way.seed, [f"prior/{name}/{k}" for name in names], shape).to(device)
            for k in range(way.prior_samples)
        ]
        embeddings = likeliest_embeddings(
            self.prior, told, noises, steps=way.prior_steps, guidance=way.prior_guidance
        )
        noise = noise_of(way.seed, [f"decoder/{name}" for name in names], (3, size, size)).to(device)
        pixels = drawn(self.decoder, embeddings.float(), noise, steps=way.steps, guidance=way.guidance)
        return to_pictures(pixels)
