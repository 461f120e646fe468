"""`finetune --task t2i`: the stages that train a model of their own, a prior and a decoder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from vlcli.commands._training import Progress, curves, ended
from vlcli.errors import UsageError

if TYPE_CHECKING:
    from vlcli.commands._console import Console
    from vlcli.schemas.text_to_image import DiffusionRecipe

Stage = Literal["clip", "prior", "decoder"]


def stage_of(task: str, stage: Stage | None) -> Stage | None:
    """The stage that --task t2i is asked for; None of other tasks. UsageError where one is missing or too much."""
    if task != "t2i":
        if stage is not None:
            raise UsageError(f"--task {task} has no --stage")
        return None
    if stage is None:
        raise UsageError("--task t2i is of three stages", remedy="--stage clip, then prior, then decoder")
    return stage


def recipe_of(stage: Stage, recipe: str | None, settings: list[str]) -> DiffusionRecipe:
    """The recipe of a prior or a decoder. UsageError where diffusers is missing, before anything is read."""
    from vlcli.models.diffusers_extra import need_diffusers
    from vlcli.recipes import load_stage_recipe

    need_diffusers()
    return load_stage_recipe(recipe or f"r2d2-t2i-{stage}", stage, settings)


def train(
    source: Any,
    recipe: DiffusionRecipe,
    rows: Any,
    validation: Any,
    out: Path,
    console: Console,
    *,
    device: str,
    resume: bool,
    force: bool,
) -> None:
    """Train the stage of `recipe` on the pairs `rows`, with the dual encoder `source` as it is."""
    from vlcli.training.decoder import DecoderTraining
    from vlcli.training.prior import PriorTraining

    kind = PriorTraining if recipe.stage == "prior" else DecoderTraining
    with _Progress(console) as reporter:
        where: dict[str, Any] = {"validation": validation, "device": device, "resume": resume, "force": force}
        run = kind(recipe, source, rows, out, reporter, **where)
        with curves(out, console):
            result = run.run()
    ended(console, result, recipe.train.best, out)


class _Progress(Progress):
    """A prior's run, or a decoder's."""

    def plan(self, plan: dict[str, Any]) -> None:
        self.about(
            plan, f"{plan['pairs']} pairs, {plan['images']} images, of the dual encoder {plan['encoder']}"
        )
        self.console.note(f"  features of its images in {plan['features']}", level=1)

    def features(self, done: int, total: int) -> None:
        self._advance("features", done, total, "images")

    def step(self, step: int, total: int, values: dict[str, float]) -> None:
        line = (
            f"loss {values['loss']:.4f} lr {values['lr']:.1e} {values['pairs_per_second']:.0f} pairs/s"
            f" wait {100 * values['data_wait']:.0f}%"
        )
        self._advance("training", step, total, line)

    def validated(self, step: int, found: dict[str, Any], best: bool) -> None:
        said = (
            f"loss {found['loss']:.4f}, without condition {found['unconditional_loss']:.4f}, with another row's"
            f" {found['shuffled_loss']:.4f}"
        )
        if "t2i" in found:
            recalls = (
                "/".join(f"{found[which][f'R@{k}']:.1f}" for k in (1, 5, 10)) for which in ("t2i", "text")
            )
            said += ", R@1/5/10 of embeddings that are drawn {}, of the texts' own {}".format(*recalls)
        self.console.note(f"step {step}: {said}{'  (best so far)' if best else ''}")
