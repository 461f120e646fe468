"""Noise into a sample and out of it again: the forward process of diffusion (Ho et al. 2020, Eq 4), and its way back
without chance (DDIM, Song et al. 2021, Eq 12 with η = 0), so that what is drawn is a function of the noise that it
starts from.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from vlcli.models.diffusion_config import NoiseConfig


class NoiseProcess:
    """x_t = √ᾱ_t x_0 + √(1 − ᾱ_t) ε for levels t = 0 … `levels` − 1. `kept` (levels,) float32 has ᾱ_t, the share of
    the sample's variance that a level keeps."""

    def __init__(self, config: NoiseConfig) -> None:
        self.config = config
        self.kept = torch.cumprod(1 - _betas(config), 0).float()

    def __len__(self) -> int:
        return self.config.levels

    def _factors(self, level: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """√ᾱ and √(1 − ᾱ) of levels (b,), in the shape (b, 1, …) of `like`."""
        kept = self.kept.to(level.device)[level].reshape(-1, *[1] * (like.dim() - 1))
        return kept.sqrt(), (1 - kept).sqrt()

    def add(self, sample: Tensor, noise: Tensor, level: Tensor) -> Tensor:
        """The samples (b, …) at the levels (b,)."""
        signal, spread = self._factors(level, sample)
        return signal * sample + spread * noise

    def target(self, sample: Tensor, noise: Tensor, level: Tensor) -> Tensor:
        """What a model is to say of them: what `config.predicts` names."""
        if self.config.predicts == "sample":
            return sample
        if self.config.predicts == "epsilon":
            return noise
        signal, spread = self._factors(level, sample)
        return signal * noise - spread * sample

    def sample_of(self, said: Tensor, noisy: Tensor, level: Tensor) -> Tensor:
        """The sample without noise, as a model's answer `said` has it."""
        if self.config.predicts == "sample":
            return said
        signal, spread = self._factors(level, noisy)
        if self.config.predicts == "epsilon":
            return (noisy - spread * said) / signal
        return signal * noisy - spread * said

    def way_back(self, steps: int) -> list[int]:
        """The levels of `steps` steps, from the noisiest; evenly spaced, at most as many as there are levels."""
        if not 1 <= steps <= len(self):
            raise ValueError(f"{steps} steps: there are {len(self)} levels of noise")
        return [math.ceil(len(self) * (steps - k) / steps) - 1 for k in range(steps)]

    def denoise(
        self,
        model: Callable[[Tensor, Tensor], Tensor],
        noise: Tensor,
        *,
        steps: int,
        bound: float | None = None,
    ) -> Tensor:
        """From noise (b, …) to samples. `model(noisy, level (b,))` answers as `config.predicts` says; no sample is
        thought to be beyond ± `bound`."""
        levels, x = self.way_back(steps), noise
        for here, there in zip(levels, [*levels[1:], None], strict=True):
            level = torch.full((len(x),), here, dtype=torch.int64, device=x.device)
            sample = self.sample_of(model(x, level), x, level)
            if bound is not None:
                sample = sample.clamp(-bound, bound)
            if there is None:
                return sample
            signal, spread = self._factors(level, x)
            x = self.add(sample, (x - signal * sample) / spread, torch.full_like(level, there))
        raise AssertionError("a way has a last step")


def _betas(config: NoiseConfig) -> Tensor:
    """(levels,) float64: the share of variance that is lost from each level to the next."""
    if config.schedule == "linear":
        return torch.linspace(1e-4, 0.02, config.levels, dtype=torch.float64)
    edges = torch.arange(config.levels + 1, dtype=torch.float64) / config.levels
    signal = ((edges + 0.008) / 1.008 * math.pi / 2).cos().square()
    return (1 - signal[1:] / signal[:-1]).clamp(max=0.999)


def guided(conditional: Tensor, unconditional: Tensor, guidance: float) -> Tensor:
    """Away from what is said without a condition (Ho & Salimans 2022): 1 is the condition alone, 0 none."""
    return unconditional + guidance * (conditional - unconditional)
