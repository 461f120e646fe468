"""From texts to pictures in unCLIP's three steps (R2D2 App. C): a dual encoder reads the texts, a prior makes image
embeddings of them, a decoder draws those.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from vlcli.errors import UsageError
from vlcli.generation.noise_process import NoiseProcess, guided
from vlcli.models.decoder import Decoder
from vlcli.models.dual import DualEncoder
from vlcli.models.prior import Prior, TextCondition


def as_encoder(model: DualEncoder) -> DualEncoder:
    """`model` as what the other parts build on: two towers that do not learn, without a ranking part. UsageError where
    it has no single vector for an image."""
    if model.config.similarity != "global":
        raise UsageError(
            f"the dual encoder compares tokens ({model.config.similarity}); a prior and a decoder work with one vector"
            " for an image",
            remedy="name a model of global similarity",
        )
    model.ranking = None
    return model.eval().requires_grad_(False)


def refuse_strangers(clip: DualEncoder, **parts: Prior | Decoder) -> None:
    """UsageError unless `parts` were trained with that very dual encoder."""
    for name, part in parts.items():
        if part.config.encoder != clip.checkpoint_hash:
            raise UsageError(
                f"the {name} was trained with the dual encoder {part.config.encoder}, --clip is"
                f" {clip.checkpoint_hash}",
                remedy="parts that were not trained with one another do not speak of the same embeddings",
            )


@torch.no_grad()
def text_condition(encoder: DualEncoder, ids: Tensor, mask: Tensor) -> TextCondition:
    """What a prior reads of texts (ids and mask (b, n))."""
    hidden = encoder.text_states(ids, mask)
    pooled = F.normalize(encoder.text_vector(hidden, ids, mask).float(), dim=-1)
    return TextCondition(pooled, hidden.float(), mask)


@torch.no_grad()
def predicted_embeddings(
    prior: Prior, texts: TextCondition, noise: Tensor, *, steps: int, guidance: float = 1.0
) -> Tensor:
    """(b, d) image embeddings of length 1 for texts, out of noise (b, d)."""
    nothing = texts.dropped(torch.ones(len(noise), dtype=torch.bool, device=noise.device))

    def model(noisy: Tensor, level: Tensor) -> Tensor:
        said: Tensor = prior(noisy, level, texts)
        return said if guidance == 1 else guided(said, prior(noisy, level, nothing), guidance)

    process = NoiseProcess(prior.config.noise)
    return F.normalize(prior.restore(process.denoise(model, noise, steps=steps)), dim=-1)


@torch.no_grad()
def likeliest_embeddings(
    prior: Prior, texts: TextCondition, noises: Sequence[Tensor], *, steps: int, guidance: float = 1.0
) -> Tensor:
    """(b, d): of the embeddings that several noises (b, d) lead to, for each text the one whose product with the text's
    own vector is largest (Ramesh et al. 2022, DALL-E 2, §2.2: two of them)."""
    drawn = torch.stack(
        [predicted_embeddings(prior, texts, x, steps=steps, guidance=guidance) for x in noises]
    )
    best = (drawn * texts.pooled).sum(-1).argmax(0)  # (b,)
    return drawn[best, torch.arange(len(best), device=best.device)]


@torch.no_grad()
def drawn(
    decoder: Decoder, embeddings: Tensor, noise: Tensor, *, steps: int, guidance: float = 1.0
) -> Tensor:
    """(b, 3, h, w) pixels in −1 … 1 of image embeddings (b, d), out of noise (b, 3, h, w)."""
    condition = decoder.standardise(embeddings)
    nothing = torch.zeros_like(condition)

    def model(noisy: Tensor, level: Tensor) -> Tensor:
        said: Tensor = decoder(noisy, level, condition)
        return said if guidance == 1 else guided(said, decoder(noisy, level, nothing), guidance)

    return NoiseProcess(decoder.config.noise).denoise(model, noise, steps=steps, bound=1.0)
