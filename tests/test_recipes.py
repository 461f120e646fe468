"""Recipes: every one validates, keys are checked by name, extends and --set compose."""

import math

import pytest

from vlcli.errors import UsageError
from vlcli.recipes import load_any, load_recipe, names, to_toml


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_the_named_recipes_are_there_and_validate():
    assert {"lit-clip", "lit-filip", "emoji-lit-clip", "emoji-lit-filip"} <= set(names())
    for name in names():
        assert load_any(name).name == name


def test_resolved_toml_reads_back_equal(tmp_path):
    for name in names():
        recipe = load_any(name)
        again = load_any(write(tmp_path / f"{name}.toml", to_toml(recipe)))
        assert again == recipe


def test_papers_values_of_lit_filip():
    """Wukong T3, T4: ViT-L/14, 224 px, text 12 × 768 × 12, context 32, LAMB with ε 1e-2, 20 epochs, τ 0.07."""
    recipe = load_recipe("lit-filip")
    model = recipe.model
    assert (model.similarity, model.dim, model.image.locked) == ("tokenwise", 768, True)
    assert (model.text.width, model.text.layers, model.text.heads, model.text.context) == (768, 12, 12, 32)
    assert (model.text.vocabulary, model.temperature.init) == (21128, 0.07)
    assert (recipe.optimizer.name, recipe.optimizer.eps, recipe.optimizer.betas) == (
        "lamb",
        1e-2,
        (0.9, 0.999),
    )
    assert recipe.schedule.epochs == 20
    assert load_recipe("lit-clip").model.similarity == "global"
    # peak = base · sqrt(batch / 512)
    assert recipe.peak_lr == pytest.approx(8e-4 * (recipe.data.batch_size / 512) ** 0.5)


def test_an_unknown_key_is_named_with_its_nearest(tmp_path):
    with pytest.raises(UsageError, match=r"model\.text\.widht: no such key; did you mean 'width'"):
        load_recipe("emoji-lit-clip", ["model.text.widht=3"])
    with pytest.raises(UsageError, match=r"optimiser: no such key; did you mean 'optimizer'"):
        load_recipe(write(tmp_path / "r.toml", "[optimiser]\nlr = 1.0\n"))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optimizer.lr=-1", "optimizer.lr"),
        ("optimizer.name=sgd", "optimizer.name"),
        ("model.text.heads=7", "not a multiple"),
        ("nonsense", "is not table.key=value"),
        ("objective.negatives=0", "objective.negatives"),
        ("objective.tokens.keep=0.25", "objective.tokens: a model of global similarity compares no tokens"),
        ("objective.tokens.precision=fp16", "objective.tokens: a model of global similarity"),
        ("model.i2t_padding=zero", 'i2t_padding = "zero" is for models that compare tokens'),
        ("model.temperature.init=0.0078125", "means a scale of 128, above max_scale 100"),
        ("data.draw=[]", "draw names no form"),
        ("data.crop_area=[0.5, 1.0]", 'crop_area belongs to augment = "resized-crop"'),
        ("data.crop_area=[0.5, 0.2]", "crop_area is not two shares"),
        ("data.crop_area=[0.0, 1.0]", "crop_area is not two shares"),
    ],
)
def test_values_that_do_not_hold(override, message):
    with pytest.raises(UsageError, match=message):
        load_recipe("emoji-lit-clip", [override])


@pytest.mark.parametrize(
    ("settings", "steps"),
    [
        ((), 3 * 6),
        (("data.last=keep",), 3 * 7),
        (("data.epoch_pairs=32",), 3 * 2),
        (("data.epoch_pairs=250", "data.last=keep"), 3 * 16),
        (("schedule.steps=5", "data.last=keep"), 5),
    ],
)
def test_steps_of_a_hundred_pairs(settings, steps):
    recipe = load_recipe("emoji-lit-clip", ["data.batch_size=16", "schedule.epochs=3", *settings])
    assert recipe.steps(100) == steps


def test_the_loss_by_chance_is_of_what_the_softmax_is_over():
    """ALIGN's sum of both directions, and a quarter of 15 negatives."""
    batch = "data.batch_size=16"
    assert load_recipe("emoji-lit-clip", [batch]).chance_loss == pytest.approx(math.log(16))
    few = load_recipe("emoji-lit-clip", [batch, "objective.negatives=0.25", "objective.reduction=sum"])
    assert few.chance_loss == pytest.approx(2 * math.log(1 + 4))


def test_set_wins_over_the_file_and_the_file_over_what_it_extends(tmp_path):
    parent = write(tmp_path / "parent.toml", "[train]\nseed = 1\nlog_every = 5\n[schedule]\nepochs = 7\n")
    child = write(tmp_path / "child.toml", f'extends = "{parent}"\n[train]\nseed = 2\n')
    recipe = load_recipe(child, ["train.log_every=9", "data.cache=some/where", 'data.draw=["candidates"]'])
    assert (recipe.train.seed, recipe.train.log_every, recipe.schedule.epochs) == (2, 9, 7)
    assert (recipe.data.cache, recipe.data.draw, recipe.name) == ("some/where", ("candidates",), "child")


def test_a_circle_of_extends_is_an_error(tmp_path):
    a = tmp_path / "a.toml"
    write(a, f'extends = "{tmp_path / "b.toml"}"\n')
    write(tmp_path / "b.toml", f'extends = "{a}"\n')
    with pytest.raises(UsageError, match="extends itself"):
        load_recipe(str(a))


def test_an_unknown_recipe_names_the_nearest():
    with pytest.raises(UsageError, match="did you mean 'lit-filip'"):
        load_recipe("lit-fillip")
