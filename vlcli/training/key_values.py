"""Fine-tuning of a diffusion model's keys and values for another text encoder: the task of `--task diffusion-kv`
(AltCLIP §5.4).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from vlcli import __version__
from vlcli.errors import UsageError
from vlcli.evaluation.embed import decode_row
from vlcli.images.config import PreprocessConfig
from vlcli.images.preprocess import Preprocess
from vlcli.models.conditioner import Conditioner
from vlcli.models.diffusers_extra import need_diffusers
from vlcli.models.diffusion_directory import DiffusionModel
from vlcli.models.dropout import pair_key
from vlcli.models.dual import trainable_report
from vlcli.models.key_values import load_key_values, new_key_values
from vlcli.schemas.key_values import KeyValuesRecipe
from vlcli.shards.pair_table import PairTable
from vlcli.training.engine import Engine, Outcome, Score
from vlcli.training.loader import Loader, TrainingBatch
from vlcli.training.meter import Reporter
from vlcli.training.order import per_epoch
from vlcli.training.r2d2_objective import rows_of

HALF = (0.5, 0.5, 0.5)  # a VAE reads pixels from −1 to 1
AT_ONCE = 16  # validation pairs of a forward pass


@dataclass
class _Reads:
    """What a Loader asks of a model: the encoder's texts, the VAE's pictures."""

    tokenizer: Any
    config: Any
    preprocess: Preprocess
    device: torch.device


class Draws(NamedTuple):
    """What is random of each pair of a batch."""

    empty: Tensor  # (b,) uniform in [0, 1): below the recipe's share its text is left empty
    times: Tensor  # (b,) int64
    posterior: Tensor  # (b, c, h, w) normal, for the VAE's latents
    noise: Tensor  # (b, c, h, w) normal

    def to(self, device: torch.device) -> Draws:
        return Draws(*(x.to(device) for x in self))


def draws(keys: Sequence[int], shape: tuple[int, ...], times: int) -> Draws:
    """Of each pair by its key alone, on the CPU: the same on every device and in every process."""
    found = []
    for key in keys:
        rng = torch.Generator().manual_seed(key)
        found.append(
            Draws(
                torch.rand((), generator=rng),
                torch.randint(times, (), generator=rng),
                torch.randn(shape, generator=rng),
                torch.randn(shape, generator=rng),
            )
        )
    if not found:
        nothing = torch.empty(0, *shape)
        return Draws(torch.empty(0), torch.empty(0, dtype=torch.int64), nothing, nothing)
    return Draws(*(torch.stack(column) for column in zip(*found, strict=True)))


class Denoising:
    """The loss of Stable Diffusion: how far off a UNet is when it says which noise is in noisy latents of a picture
    (or their velocity, where its scheduler says so), given the states of the picture's text."""

    def __init__(self, source: DiffusionModel, conditioner: Conditioner, *, empty: float, size: int) -> None:
        if size % source.factor:
            raise UsageError(
                f"pictures of {size} pixels are no whole number of latents of {source.factor}",
                remedy=f"--set diffusion.size={size // source.factor * source.factor}",
            )
        self.source, self.conditioner, self.empty = source, conditioner, empty
        self.scheduler = need_diffusers().DDPMScheduler.from_config(source.scheduler.config)
        self.times = int(self.scheduler.config.num_train_timesteps)
        side = size // source.factor
        self.shape = (int(source.vae.config.latent_channels), side, side)

    @torch.no_grad()
    def latents(self, pixels: Tensor, posterior: Tensor) -> Tensor:
        """pixels (b, 3, H, W) from −1 to 1 → (b, c, h, w): a draw of the VAE's posterior, in the UNet's units."""
        found = self.source.vae.encode(pixels).latent_dist
        latents: Tensor = (found.mean + found.std * posterior) * self.source.vae.config.scaling_factor
        return latents

    def texts(self, ids: Tensor, mask: Tensor, empty: Tensor) -> tuple[Tensor, Tensor]:
        """ids and mask (b, length), where the drawn texts are empty ones."""
        ids, mask = self.conditioner.pad(ids, mask)
        bare_ids, bare_mask = self.conditioner.tokenize([""])
        left = (empty < self.empty)[:, None]
        return torch.where(left, bare_ids, ids), torch.where(left, bare_mask, mask)

    def __call__(
        self, model: Callable[..., Tensor], pixels: Tensor, ids: Tensor, mask: Tensor, drawn: Draws
    ) -> Tensor:
        """(b,) the mean squared error of each pair, in float32."""
        latents = self.latents(pixels, drawn.posterior)
        noisy = self.scheduler.add_noise(latents, drawn.noise, drawn.times)
        states = self.conditioner(*self.texts(ids, mask, drawn.empty))
        said = model(noisy, drawn.times, states)
        target = drawn.noise
        if self.source.prediction == "v_prediction":
            target = self.scheduler.get_velocity(latents, drawn.noise, drawn.times)
        return (said.float() - target.float()).square().flatten(1).mean(1)


class KeyValuesTraining:
    """A run: `KeyValuesTraining(recipe, source, conditioner, train, out, reporter, …).run()`."""

    def __init__(
        self,
        recipe: KeyValuesRecipe,
        source: DiffusionModel,
        conditioner: Conditioner,
        train: PairTable,
        out: Path,
        reporter: Reporter,
        *,
        validation: PairTable | None = None,
        device: str = "auto",
        resume: bool = False,
        force: bool = False,
        max_bad: str = "0",
    ) -> None:
        self.engine = Engine(recipe, out, reporter, device=device, resume=resume, force=force)
        if self.engine.sharding is not None:
            raise UsageError(
                "--task diffusion-kv: every process has the whole UNet", remedy="launch it without FSDP"
            )
        self.recipe = recipe = self.engine.recipe  # with its precision settled
        self.table, self.validation = train, validation
        self.total = recipe.steps(len(train))
        parts = {"unet": source.unet_hash, "vae": source.vae_hash, "encoder": conditioner.fingerprint}
        self.identity = {
            "split_hash": train.split_hash,
            "total": self.total,
            "validation": None if validation is None else validation.split_hash,
            **parts,
        }
        self.engine.refuse_other_data(self.identity)
        self.lineage = {"vlcli": __version__, "split_hash": train.split_hash, "pairs": len(train), **parts}
        resumed = self.engine.resumed
        self.model = (
            load_key_values(resumed, source) if resumed is not None else new_key_values(source, conditioner)
        )
        self.model.train()
        source.to(self.engine.device)
        conditioner.to(self.engine.device)
        size = recipe.diffusion.size or source.size
        self.denoising = Denoising(source, conditioner, empty=recipe.diffusion.empty, size=size)
        self.preprocess = Preprocess(PreprocessConfig(size=size, mean=HALF, std=HALF))
        encoder = conditioner.encoder
        reads = _Reads(encoder.tokenizer, encoder.config, self.preprocess, self.engine.device)
        self.loader = Loader(
            train,
            cast(Any, reads),
            recipe.data,
            seed=recipe.train.seed,
            rank=self.engine.accelerator.process_index,
            world=self.engine.accelerator.num_processes,
            max_bad=max_bad,
            warn=self.engine.warn,
        )
        self.steps_per_epoch = self.loader.steps_per_epoch
        self.engine.adopt(self)

    def run(self) -> dict[str, Any]:
        """Train to the last step: see `Engine.run`."""
        return self.engine.run()

    # What the engine asks of a task

    @property
    def validates(self) -> bool:
        return self.validation is not None

    def plan(self) -> dict[str, Any]:
        return {
            "pairs": len(self.table),
            "images": self.table.images,
            "mixture": per_epoch(self.table.shares, self.recipe.data),
            "parameters": trainable_report(self.model),
            "tensors": len(self.model.config.tensors),
        }

    def batches(self, start: int, stop: int) -> Iterator[TrainingBatch]:
        for batch in self.loader.batches(start, stop):
            yield batch.to(self.engine.device, self.preprocess)

    def losses(self, model: nn.Module, batch: TrainingBatch, step: int) -> Outcome:
        assert batch.pixels is not None
        drawn = draws(batch.keys.tolist(), self.denoising.shape, self.denoising.times).to(self.engine.device)
        errors = self.denoising(model, batch.pixels, batch.ids, batch.mask, drawn)
        return Outcome(errors.sum() / rows_of(batch), {})

    def stepped(self) -> None:
        pass

    def values(self) -> dict[str, float]:
        return {}

    def validate(self) -> Score | None:
        """The loss on the validation pairs, each with its first text, and noise and time by its id; and what it is
        without texts, and with those of the next pair: how much of it the texts have earned."""
        if self.validation is None:
            return None
        texts = [some[0] for some in self.validation.texts]
        of_each = {
            "loss": texts,
            "unconditional_loss": [""] * len(texts),
            "shuffled_loss": texts[1:] + texts[:1],
        }
        self.model.eval()
        try:
            errors = {name: torch.cat([*self._errors(self.validation, one)]) for name, one in of_each.items()}
        finally:
            self.model.train()
        found = {name: float(each.double().mean()) for name, each in errors.items()}
        return Score({"n": len(texts), **found}, -found["loss"])

    @torch.no_grad()
    def _errors(self, table: PairTable, texts: Sequence[str]) -> Iterator[Tensor]:
        device, denoising = self.engine.device, self.denoising
        for start in range(0, len(table), AT_ONCE):
            rows = range(start, min(start + AT_ONCE, len(table)))
            pixels = torch.stack([self.preprocess(decode_row(table, i)) for i in rows]).to(device)
            ids, mask = denoising.conditioner.encoder.tokenize([texts[i] for i in rows])
            keys = [pair_key("validation", table.ids[i]) for i in rows]
            drawn = draws(keys, denoising.shape, denoising.times)._replace(empty=torch.ones(len(keys)))
            yield denoising(self._said, pixels, ids, mask, drawn.to(device)).cpu()

    def _said(self, noisy: Tensor, times: Tensor, states: Tensor) -> Tensor:
        with self.engine.accelerator.autocast():  # VAE and encoder stay in float32
            said: Tensor = self.model(noisy, times, states)
        return said

    def state_dict(self) -> dict[str, Any]:
        return {"bad": self.loader.bad.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.loader.bad.load_state_dict(state.get("bad", {}))
