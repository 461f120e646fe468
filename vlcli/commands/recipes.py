"""vlcli recipes: list, show, validate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from typer import Argument

from vlcli.commands import _complete as complete
from vlcli.commands._options import Json, Set
from vlcli.errors import UsageError

if TYPE_CHECKING:
    from vlcli.models.cost import Cost, TextCost
    from vlcli.models.diffusion_cost import DiffusionCost
    from vlcli.schemas.classification import ClassifyRecipe
    from vlcli.schemas.distillation import DistillRecipe
    from vlcli.schemas.key_values import KeyValuesRecipe
    from vlcli.schemas.pretraining import Recipe
    from vlcli.schemas.text_to_image import DiffusionRecipe

EXAMPLES = (
    "vlcli recipes list",
    "vlcli recipes show lit-filip",
    "vlcli recipes show finetune/r2d2-retrieval",
    "vlcli recipes validate my.toml",
)


def command(
    action: Annotated[Literal["list", "show", "validate"], Argument(help="What to do.")] = "list",
    recipes: Annotated[
        list[str] | None,
        Argument(metavar="NAME|FILE.toml", help="Default: all named ones.", autocompletion=complete.recipes),
    ] = None,
    overrides: Set = None,
    json_: Json = False,
) -> None:
    """List, show or validate recipes.

    `show` prints the resolved TOML (extends followed, --set applied) behind a comment of what the model costs: its
    parameters and those that learn, tokens of an image, floating point operations of a pair, and memory. A product and
    a sum are two operations; the memory is that of weights, gradients and an optimizer's moments in float32, and of
    what one pair keeps for the backward pass. `validate` builds every model without its weights and exits 2 at the
    first recipe that does not hold, naming the key.

    Recipes of `finetune` are called finetune/NAME here; they are shown and tried on a model of their paper, where
    `vlcli finetune` has the checkpoint's. Those of classes, which say nothing of the model, are shown without a cost.
    Priors and decoders are built where diffusers (the extra generate) is installed; elsewhere only their keys are
    looked at, and `validate` says so.
    """
    from vlcli.models.diffusers_extra import MissingDiffusers
    from vlcli.recipes import FINETUNE, load_any, load_finetune_on_its_paper, names, to_toml

    folder = f"{FINETUNE}/"
    chosen = [
        load_finetune_on_its_paper(name.removeprefix(folder), overrides)
        if name.startswith(folder)
        else load_any(name, overrides)
        for name in recipes or [*names(), *(f"{folder}{name}" for name in names(FINETUNE))]
    ]
    costs: dict[str, Cost | TextCost | DiffusionCost] = {}
    unbuilt: dict[str, str] = {}
    if action != "list":
        for recipe in chosen:
            try:
                found = _cost(recipe, only_build=action == "validate")
            except MissingDiffusers as error:
                unbuilt[recipe.name] = f" (its keys; {error})"
                continue
            except UsageError as error:
                raise UsageError(f"recipe {recipe.name}: {error}") from error
            if found is not None:
                costs[recipe.name] = found
    if json_:
        import orjson

        tables = {
            r.name: r.model_dump(mode="json") | ({"cost": costs[r.name].as_dict()} if r.name in costs else {})
            for r in chosen
        }
        print(orjson.dumps(tables, option=orjson.OPT_INDENT_2).decode())
    elif action == "show":
        said = (_said(costs[recipe.name]) if recipe.name in costs else "" for recipe in chosen)
        print("\n".join(cost + to_toml(recipe) for cost, recipe in zip(said, chosen, strict=True)), end="")
    elif action == "list":
        width = max(len(recipe.name) for recipe in chosen)
        for recipe in chosen:
            print(f"{recipe.name:{width}}  {recipe.title}")
    else:
        for recipe in chosen:
            print(f"{recipe.name}: ok{unbuilt.get(recipe.name, '')}")


def _cost(
    recipe: Recipe | DistillRecipe | DiffusionRecipe | KeyValuesRecipe | ClassifyRecipe, *, only_build: bool
) -> Cost | TextCost | DiffusionCost | None:
    """What the recipe's model costs; None where it is only to be built, or is no part of the recipe."""
    from vlcli.models.config import TextEncoderConfig
    from vlcli.models.cost import cost, on_meta, text_cost, text_on_meta
    from vlcli.schemas.classification import ClassifyRecipe
    from vlcli.schemas.distillation import DistillRecipe
    from vlcli.schemas.key_values import KeyValuesRecipe
    from vlcli.schemas.text_to_image import DiffusionRecipe

    if isinstance(recipe, KeyValuesRecipe):
        return None
    precision = recipe.train.precision
    if isinstance(recipe, ClassifyRecipe):
        _build_classifier(recipe)
        return None
    if isinstance(recipe, DiffusionRecipe):
        from vlcli.models.diffusion_cost import diffusion_cost, diffusion_on_meta
        from vlcli.recipes import FINETUNE, paper_model

        drawing = diffusion_on_meta(recipe.model, paper_model(recipe.name.removeprefix(f"{FINETUNE}/")))
        return None if only_build else diffusion_cost(drawing)
    if isinstance(recipe, DistillRecipe):
        student = text_on_meta(TextEncoderConfig(text=recipe.model.text))
        return None if only_build else text_cost(student, precision=precision)
    model = on_meta(recipe.model)
    if only_build:
        return None
    found = cost(model, batch=recipe.data.batch_size, precision=precision)
    if recipe.objective.r2d2 is None:
        return found
    from dataclasses import replace

    from vlcli.training.r2d2_cost import step_flops

    passes = {"image_flops": found.image_flops, "text_flops": found.text_flops}
    return replace(found, step=step_flops(model, recipe.objective.r2d2, **passes))


def _build_classifier(recipe: ClassifyRecipe) -> None:
    """Build what every stage and every trial of it trains."""
    from vlcli.models.cost import on_meta
    from vlcli.recipes import FINETUNE, paper_model
    from vlcli.training.class_stages import try_resolutions

    model = on_meta(paper_model(recipe.name.removeprefix(f"{FINETUNE}/")))
    try_resolutions(recipe, model.image.body, model.config.image.preprocess)


def _said(cost: Cost | TextCost | DiffusionCost) -> str:
    """The cost as a comment of TOML."""
    rows = [*cost.parts.items(), ("all", {"parameters": cost.parameters, "trainable": cost.trainable})]
    lines = [f"{'':17} {'parameters':>15} {'trainable':>15}"]
    lines += [f"{part:17} {row['parameters']:15,} {row['trainable']:15,}" for part, row in rows]
    giga = 1e9
    memory = f"memory: {cost.state / 2**30:.2f} GiB for weights, gradients and moments,"
    from vlcli.models.diffusion_cost import DiffusionCost

    if isinstance(cost, DiffusionCost):
        return _comment([*lines, memory.rstrip(",")])
    kept = f" {cost.activations / 2**20:.1f} MiB for each pair of a process"
    with_backward = f"{cost.training_flops / giga:.2f} with the backward pass"
    from vlcli.models.cost import TextCost

    if isinstance(cost, TextCost):
        lines += [
            f"tokens of a text: up to {cost.context}",
            f"GFLOPs a text: {cost.text_flops / giga:.2f}; {with_backward}",
            memory + kept,
        ]
        return _comment(lines)
    reduced = "" if cost.compared in (1, cost.tokens) else f", of which token reduction makes {cost.compared}"
    lines += [
        f"tokens an image: {cost.tokens}{reduced}; a text: up to {cost.context}",
        f"GFLOPs a pair: image {cost.image_flops / giga:.2f}, text {cost.text_flops / giga:.2f};"
        f" {with_backward};"
        f" {cost.similarity_flops / giga:.2f} more to compare it with a batch of {cost.batch}",
        memory + kept,
    ]
    if cost.step:
        parts = ", ".join(f"{name} {flops / giga:.2f}" for name, flops in cost.step.items() if flops)
        lines.insert(-1, f"GFLOPs of a training pair, forward: {sum(cost.step.values()) / giga:.2f}; {parts}")
    return _comment(lines)


def _comment(lines: list[str]) -> str:
    return "".join(f"# {line}".rstrip() + "\n" for line in lines)
