"""Settings without effect are said, and others are not."""

import pytest
from training_cases import TINY, pairs

from vlcli.recipes import load_any, load_recipe, names
from vlcli.schemas.pretraining import Recipe
from vlcli.training.effects import keys_of, without_effect


def said(*overrides, recipe="emoji-lit-filip", table=None, **how):
    table = pairs() if table is None else table
    how = {"cached": True, "validates": True, **how}
    return without_effect(load_recipe(recipe, [*TINY, *overrides]), table, said=keys_of(overrides), **how)


QUIET = ("model.image.init=package:x",)  # TINY's tower is locked at random, which is said


def test_a_run_that_is_as_it_was_meant_says_nothing():
    assert said(*QUIET) == []
    assert len(pairs()) // 16 * 3 == 12  # the steps that the cases below are about


@pytest.mark.parametrize(
    ("overrides", "how", "wanted"),
    [
        (
            ["data.workers=2"],
            {},
            "data.workers has no effect: the features of the locked image tower are cached",
        ),
        (["data.workers=2"], {"cached": False}, None),
        (
            ["data.cache=/x", "model.image.locked=false"],
            {"cached": False},
            "data.cache has no effect: the image tower learns",
        ),
        (
            ["data.cache_gib=2", "data.augment=autoaugment"],
            {"cached": False},
            "data.cache_gib has no effect: data.augment changes the image each time",
        ),
        (["data.cache=off", "model.image.locked=false"], {"cached": False}, None),
        (["train.save_every=12"], {}, None),
        (
            ["train.save_every=13"],
            {},
            "train.save_every = 13 has no effect: the run has 12 steps, and saves after",
        ),
        (["train.evaluate_every=12"], {}, None),
        (
            ["train.evaluate_every=13"],
            {},
            "train.evaluate_every = 13 has no effect: the run has 12 steps, and val",
        ),
        (
            ["train.log_every=13"],
            {},
            "train.log_every = 13 has no effect: the run has 12 steps, and logs after",
        ),
        (
            [],
            {"validates": False},
            "train.evaluate_every and train.best have no effect without --val: the last",
        ),
        (["schedule.warmup_steps=11"], {}, None),
        (
            ["schedule.warmup_steps=12"],
            {},
            "schedule.name = cosine has no effect: the run has 12 steps, and sched",
        ),
        (
            ["model.text.dropout=0.1", "model.text.locked=true", "model.text.init=x"],
            {},
            "model.text.dropout = 0.1 has no effect: the t",
        ),
        (["model.text.dropout=0.1", "model.text.locked=true", "model.text.unlocked_from=0"], {}, None),
        (
            [],
            {"init": {"image": "x"}, "resumed": True},
            "--init image has no effect: the run goes on from its che",
        ),
        ([], {"init": {"image": "x"}}, None),
        (
            [],
            {"init": {"image": "random"}},
            "model.image.locked: the image tower starts at random, and never lear",
        ),
        (
            ["model.reduction.tokens=4"],
            {},
            "model.reduction.tokens has no effect: model.similarity is tokenwise",
        ),
        (["model.reduction.tokens=4", "model.similarity=reduced"], {}, None),
        (["model.t2i_special_tokens=include"], {}, None),
        (
            ["model.t2i_special_tokens=include", "model.similarity=global"],
            {},
            "model.t2i_special_tokens has no effect: a model of global similarity compares no tokens",
        ),
        (
            ["model.text.pooling=eot"],
            {},
            "model.text.pooling has no effect: a model of tokenwise similarity comp",
        ),
        (
            ["objective.tokens.scope=local"],
            {},
            "objective.tokens.scope has no effect: objective.tokens.keep = 1",
        ),
        (["objective.tokens.scope=local", "objective.tokens.keep=0.5"], {}, None),
        (
            ["model.text_projection.hidden=8"],
            {},
            "model.text_projection.hidden has no effect: it belongs to kind",
        ),
        (
            ["schedule.epochs=9", "schedule.steps=12"],
            {},
            "schedule.epochs has no effect: schedule.steps = 12 wins",
        ),
        (
            ["optimizer.no_decay=[]", "optimizer.weight_decay=0"],
            {},
            "optimizer.no_decay has no effect: optimizer",
        ),
        (
            ["data.joiner=x", "data.draw=['text']"],
            {},
            "data.joiner has no effect: data.draw joins no candidates",
        ),
        (
            ["model.temperature.max_scale=50", "model.temperature.learnable=false"],
            {},
            "model.temperature.max_scale has no effect: the temperature does not learn",
        ),
    ],
)
def test_one_line_for_each(overrides, how, wanted):
    found = said(*QUIET, *overrides, **how)
    if wanted is None:
        assert found == []
    else:
        (line,) = found
        assert line.startswith(wanted)


def test_columns_that_no_pair_has():
    table = pairs()
    table.candidates = [[] for _ in table.candidates]
    table.groups = [None] * len(table)
    assert said(*QUIET, table=table) == [
        "data.draw has no effect: none of the first 64 pairs has text_candidates,"
        " candidates, text+candidates give the text itself",
        "data.group has no effect: none of the first 64 pairs has a value in its column family",
    ]


def test_keys_of_settings():
    assert keys_of(["a.b=1", " c.d = x=y "]) == {"a.b", "c.d"}


@pytest.mark.parametrize("name", [name for name in names() if isinstance(load_any(name), Recipe)])
def test_no_shipped_recipe_says_what_has_no_effect(name):
    """On a corpus of its size, with everything that it asks for."""
    table = pairs()
    table.candidates = [["x"]] * len(table)
    table.groups = ["x"] * len(table)
    recipe = load_any(name)
    recipe = recipe.model_copy(update={"schedule": recipe.schedule.model_copy(update={"steps": 100_000})})
    assert without_effect(recipe, table, cached=recipe.caches_features, validates=True) == []
