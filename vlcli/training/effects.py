"""Settings that somebody gave and that change nothing: said before a run starts, one line each."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping

from vlcli.schemas.pretraining import Recipe
from vlcli.shards.pair_table import PairTable

LOOK = 100_000  # pairs of which columns are looked at
IMAGES_ARE_CACHED = "the features of the locked image tower are cached"


def without_effect(
    recipe: Recipe,
    pairs: PairTable,
    *,
    said: Collection[str] = (),
    cached: bool,
    validates: bool,
    resumed: bool = False,
    init: Mapping[str, str] | None = None,
) -> list[str]:
    """A line for each setting of `recipe` that has no effect on a run with `pairs`.

    `said` are the keys of --set, which a user gave for this very run: what a recipe has from the one that it extends
    is not held against it. `cached`: the image tower's features are; `validates`: there are pairs to validate on;
    `init`: what --init gave.
    """
    total = recipe.steps(len(pairs))
    return [
        *_of_data(recipe, pairs, cached),
        *_of_intervals(recipe, total, validates),
        *_of_towers(recipe, resumed, init or {}),
        *(f"{key} has no effect: {why}" for key, why in _idle_keys(recipe) if key in said),
    ]


def _of_data(recipe: Recipe, pairs: PairTable, cached: bool) -> Iterator[str]:
    data = recipe.data
    given = data.model_fields_set
    if cached and "workers" in given:
        yield f"data.workers has no effect: {IMAGES_ARE_CACHED}, no picture is read"
    learns = not recipe.model.image.locked or recipe.model.image.unlocked_from is not None
    if not cached and data.cache != "off":
        why = "the image tower learns" if learns else ""
        why = why or ("data.augment changes the image each time" if data.augment != "none" else "")
        keys = [
            key for key in ("cache", "cache_gib") if key in given and (key != "cache" or data.cache != "auto")
        ]
        yield from (f"data.{key} has no effect: {why}" for key in keys if why)
    looked = f"none of the first {min(len(pairs), LOOK):,} pairs has"
    if data.draw != ("text",) and not any(pairs.candidates[:LOOK]):
        forms = ", ".join(form for form in data.draw if form != "text")
        yield f"data.draw has no effect: {looked} text_candidates, {forms} give the text itself"
    if data.group and "group" in given and not any(pairs.groups[:LOOK]):
        yield f"data.group has no effect: {looked} a value in its column {data.group}"


def _of_intervals(recipe: Recipe, total: int, validates: bool) -> Iterator[str]:
    train, schedule = recipe.train, recipe.schedule
    if not total:
        return  # fewer pairs than a batch: that is said elsewhere
    run = f"the run has {total} steps"
    for key, does in (("save_every", "saves"), ("evaluate_every", "validates"), ("log_every", "logs")):
        value = getattr(train, key)
        if value > total and key in train.model_fields_set and (validates or key != "evaluate_every"):
            yield f"train.{key} = {value} has no effect: {run}, and {does} after the last"
    if not validates:
        keys = [f"train.{key}" for key in ("evaluate_every", "best") if key in train.model_fields_set]
        if keys:
            have = "have" if len(keys) > 1 else "has"
            yield f"{' and '.join(keys)} {have} no effect without --val: the last checkpoint counts as the best"
    if schedule.warmup_steps >= total:
        yield (
            f"schedule.name = {schedule.name} has no effect: {run}, and schedule.warmup_steps = {schedule.warmup_steps}"
            " is cut to them"
        )


def _of_towers(recipe: Recipe, resumed: bool, init: Mapping[str, str]) -> Iterator[str]:
    model = recipe.model
    if resumed:
        yield from (
            f"--init {side} has no effect: the run goes on from its checkpoint" for side in sorted(init)
        )
        init = {}
    text = model.text
    locked = text.locked and text.unlocked_from is None
    if locked and text.dropout:
        yield f"model.text.dropout = {text.dropout:g} has no effect: the text tower is locked"
    for side, tower in (("image", model.image), ("text", text)):
        start = init.get(side, tower.init)
        if tower.locked and tower.unlocked_from is None and start == "random" and not resumed:
            yield f"model.{side}.locked: the {side} tower starts at random, and never learns anything"


def _idle_keys(recipe: Recipe) -> Iterator[tuple[str, str]]:
    """(key, why) of every key that does nothing beside the others."""
    model, objective, schedule = recipe.model, recipe.objective, recipe.schedule
    if model.similarity != "reduced":
        yield from _all("model.reduction", type(model.reduction), f"model.similarity is {model.similarity}")
    if model.similarity == "global":
        yield "model.t2i_special_tokens", "a model of global similarity compares no tokens"
        yield "objective.tokens.scope", "a model of global similarity compares no tokens"
    else:
        yield "model.text.pooling", f"a model of {model.similarity} similarity compares every token"
        if objective.tokens.keep == 1:
            yield "objective.tokens.scope", "objective.tokens.keep = 1 selects none"
    for side, config in (("image", model.image_projection), ("text", model.text_projection)):
        if config.kind != "mlp":
            yield f"model.{side}_projection.hidden", f'it belongs to kind = "mlp", not to "{config.kind}"'
            yield f"model.{side}_projection.dropout", f'it belongs to kind = "mlp", not to "{config.kind}"'
    if not model.temperature.learnable:
        yield "model.temperature.max_scale", "the temperature does not learn"
    if schedule.steps is not None:
        yield "schedule.epochs", f"schedule.steps = {schedule.steps} wins"
    if not recipe.optimizer.weight_decay:
        yield "optimizer.no_decay", "optimizer.weight_decay is 0"
    if not {"candidates", "text+candidates"} & set(recipe.data.draw):
        yield "data.joiner", "data.draw joins no candidates"


def _all(table: str, settings: type, why: str) -> Iterator[tuple[str, str]]:
    """The table and every key in it."""
    yield table, why
    yield from ((f"{table}.{key}", why) for key in settings.model_fields)  # type: ignore[attr-defined]


def keys_of(overrides: Collection[str]) -> set[str]:
    """The keys of `table.key=value` settings."""
    return {re.sub(r"\s", "", override.partition("=")[0]) for override in overrides}
