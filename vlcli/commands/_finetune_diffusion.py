"""`finetune --task diffusion-kv`: the keys and values of a diffusion model, for another text encoder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Option

from vlcli.commands._plan import mixture_lines
from vlcli.commands._training import Progress, curves, ended, fate, recipe_settings, run_directory
from vlcli.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vlcli.commands._console import Console

RECIPE = "altclip-diffusion"

Encoder = Annotated[
    str | None,
    Option(
        "--encoder",
        metavar="RUN",
        help="The text encoder that guides a diffusion model: a run or a checkpoint; default: an AltDiffusion's own.",
    ),
]


@dataclass(frozen=True)
class Rows:
    """What --data and --val name, and how they are read."""

    data: Sequence[str] | None
    val: Sequence[str] | None
    head: int | None
    renames: Any
    image_root: Path | None

    def tables(self) -> tuple[Any, Any]:
        """Of training, and of validation where it is named."""
        from vlcli.shards.pairs import load_pairs

        options: dict[str, Any] = {"renames": self.renames, "image_root": self.image_root, "group": None}
        train = load_pairs(self.data or ["shards/"], head=self.head, **options)
        if not self.val:
            return train, None
        validation = load_pairs(self.val, **options)
        if not len(validation):
            raise UsageError(f"--val {validation.source}: no rows")
        return train, validation


class DiffusionProgress(Progress):
    """A run that learns to tell noise."""

    def plan(self, plan: dict[str, Any]) -> None:
        what = f"{plan['tensors']} keys and values, {plan['pairs']} pairs, {plan['images']} images"
        self.about(plan, what)
        for line in mixture_lines(plan["mixture"]):
            self.console.note(line)

    def features(self, done: int, total: int) -> None:
        self._advance("features", done, total, "images")

    def step(self, step: int, total: int, values: dict[str, float]) -> None:
        line = (
            f"loss {values['loss']:.4f} lr {values['lr']:.1e}"
            f" {values['pairs_per_second']:.0f} pairs/s wait {100 * values['data_wait']:.0f}%"
        )
        self._advance("training", step, total, line)

    def validated(self, step: int, found: dict[str, Any], best: bool) -> None:
        mark = "  (best so far)" if best else ""
        self.console.note(
            f"step {step}: loss {found['loss']:.4f} of {found['n']} pairs, without texts"
            f" {found['unconditional_loss']:.4f}, with another pair's {found['shuffled_loss']:.4f}{mark}"
        )


def open_text_side(model: str, encoder: str | None) -> Any:
    """The text encoder that --encoder names, else an AltDiffusion directory's own."""
    from vlcli.models.adapters.alt_diffusion import has_text_side, read_text_side
    from vlcli.models.conditioner import open_encoder
    from vlcli.models.diffusion_directory import is_alt

    if encoder is not None:
        return open_encoder(encoder)
    if not is_alt(model):
        raise UsageError("no text encoder", remedy="name a run or a checkpoint with --encoder")
    if not has_text_side(Path(model)):
        wanted = "text_encoder/model.safetensors and tokenizer/"
        raise UsageError(f"{model}: no {wanted}", remedy="name a run or a checkpoint with --encoder")
    return read_text_side(Path(model))


def key_values(
    model: str,
    encoder: str | None,
    recipe: str | None,
    rows: Rows,
    output: Path | None,
    console: Console,
    *,
    overrides: list[str] | None,
    seed: int | None,
    precision: str | None,
    batch_size: int | None,
    device: str,
    resume: bool,
    force: bool,
    dry_run: bool,
) -> None:
    """Train into a run's directory, or say what would be done."""
    from vlcli.models.diffusion_directory import require_diffusion
    from vlcli.recipes import load_key_values_recipe, to_toml

    settings = recipe_settings(overrides, seed=seed, precision=precision, batch_size=batch_size)
    resolved = load_key_values_recipe(recipe or RECIPE, settings)
    out = run_directory(output, resolved.name, resume=resume, force=force, dry_run=dry_run)
    require_diffusion(model)
    train, validation = rows.tables()
    if dry_run:
        print(
            f"# {len(train)} pairs, {resolved.steps(len(train))} steps of {resolved.data.batch_size}, peak lr"
            f" {resolved.peak_lr:g}; {fate(out, resume=resume, force=force)}"
        )
        print(to_toml(resolved), end="")
        return
    from vlcli.models.conditioner import Conditioner
    from vlcli.models.diffusion_directory import open_diffusion
    from vlcli.training.finetuning import fine_tune
    from vlcli.training.key_values import KeyValuesTraining

    conditioner = Conditioner(open_text_side(model, encoder), resolved.diffusion.states)
    with DiffusionProgress(console) as reporter:
        run = KeyValuesTraining(
            resolved,
            open_diffusion(model),
            conditioner,
            train,
            out,
            reporter,
            validation=validation,
            device=device,
            resume=resume,
            force=force,
        )
        with curves(out, console):
            result = fine_tune(run, lambda found: reporter.validated(0, found, False))
    ended(console, result, resolved.train.best, out)
