"""The recipes of the papers' models: every value that a paper prints, and a model that can be built of each."""

import re
import tomllib

import pytest

from vlcli.curation.parallel_text import NINE
from vlcli.models.cost import cost, on_meta
from vlcli.models.dual import trainable_report
from vlcli.recipes import find, load_distill_recipe, load_recipe, names
from vlcli.training.r2d2_cost import step_flops

WUKONG = [
    f"wukong-{tower}{form}" for tower in ("vit-b", "vit-l", "swin") for form in ("", "-g", "-f", "-released")
]
ABLATIONS = [f"r2d2-wo-{part}" for part in ("et", "mlm", "twd", "tgd", "fgd")]
R2D2 = ["r2d2-vit-l", "r2d2-vit-b", "prd2", *ABLATIONS]
PAPERS = [
    *WUKONG,
    *R2D2,
    *("filip-base", "filip-large", "filip-base-yfcc", "filip-baseline-yfcc"),
    *("align", "align-mling", "altclip-m2", "altclip-m9", "lit-clip", "lit-filip", "lit-wukong"),
    *("altclip-m2-teacher", "altclip-m9-teacher"),
]


def test_they_are_all_there():
    assert set(PAPERS) <= set(names())


# Millions of parameters as the models are known: CLIP's image towers 87 and 303 (open_clip), Swin-L 195 (timm),
# EfficientNet-L2 480 with its head and classifier, BERT-Large 303 beside its embeddings, XLM-R Large 559.
@pytest.mark.parametrize(
    ("name", "image", "text", "tokens", "compared"),
    [
        ("wukong-vit-b", 87.5, 101.3, 49, 12),
        ("wukong-vit-b-g", 87.5, 101.3, 49, 1),
        ("wukong-vit-b-f", 87.5, 101.3, 49, 49),
        ("wukong-vit-b-released", 87.5, 48.7, 49, 12),
        ("wukong-vit-l", 303.2, 101.3, 256, 24),
        ("wukong-vit-l-g", 303.2, 101.3, 256, 1),
        ("wukong-vit-l-f", 303.2, 101.3, 256, 256),
        ("wukong-vit-l-released", 303.2, 101.3, 256, 24),
        ("wukong-swin", 195.0, 101.3, 49, 12),
        ("wukong-swin-g", 195.0, 101.3, 49, 1),
        ("wukong-swin-f", 195.0, 101.3, 49, 49),
        ("wukong-swin-released", 195.0, 101.3, 49, 12),
        ("filip-base", 87.5, 63.2, 49, 49),
        ("filip-base-yfcc", 87.5, 63.2, 49, 49),
        ("filip-baseline-yfcc", 87.5, 63.2, 49, 1),
        ("filip-large", 303.2, 123.1, 256, 256),
        ("align", 467.2, 405.2, 100, 1),
        ("align-mling", 467.2, 558.8, 100, 1),
        ("altclip-m2", 303.2, 558.8, 256, 1),
        ("altclip-m9", 303.2, 558.8, 256, 1),
        ("r2d2-vit-b", 85.8, 101.7, 196, 1),
        ("r2d2-vit-l", 303.2, 101.7, 256, 1),
        ("prd2", 303.2, 101.7, 256, 1),
    ],
)
def test_sizes_tokens_and_what_learns(name, image, text, tokens, compared):
    recipe = load_recipe(name)
    model = on_meta(recipe.model)
    report = trainable_report(model)
    assert report["image"]["parameters"] / 1e6 == pytest.approx(image, abs=0.06)
    assert report["text"]["parameters"] / 1e6 == pytest.approx(text, abs=0.06)
    found = cost(model, batch=recipe.data.batch_size)
    assert (found.tokens, found.compared) == (tokens, compared)
    locked = {part for part, row in report.items() if not row["trainable"]}
    partly = {part for part, row in report.items() if 0 < row["trainable"] < row["parameters"]}
    assert not partly
    # spec §2.4: Wukong and R2D2 lock the image tower, AltCLIP its projection too, the others nothing
    expected = {"wukong": {"image"}, "altclip": {"image", "image_projection"}}
    expected |= {"r2d2": {"image"}, "prd2": {"image"}}
    assert locked == expected.get(name.split("-")[0], set())


@pytest.mark.parametrize("name", [name for name in WUKONG if not name.endswith("released")])
def test_wukongs_table_3_and_4(name):
    recipe = load_recipe(name)
    model, text = recipe.model, recipe.model.text
    assert model.dim == (512 if "vit-b" in name else 768)
    assert (text.kind, text.width, text.layers, text.heads, text.context) == ("causal", 768, 12, 12, 32)
    assert (text.vocabulary, text.tokenizer, text.pooling) == (21128, "wordpiece-zh", "last")
    assert model.similarity == {"g": "global", "f": "tokenwise"}.get(
        name[-1] if name[-2] == "-" else "", "reduced"
    )
    assert (model.image.locked, model.image.preprocess.size, model.temperature.init) == (True, 224, 0.07)
    assert model.reduction.tokens == (24 if "vit-l" in name else 12)
    optimizer = recipe.optimizer
    assert (optimizer.name, optimizer.betas, optimizer.eps) == ("lamb", (0.9, 0.999), 1e-2)
    assert len(optimizer.no_decay) == 5
    assert (recipe.schedule.name, recipe.schedule.epochs, recipe.data.augment) == (
        "cosine",
        20,
        "autoaugment",
    )


@pytest.mark.parametrize(
    ("name", "width", "heads", "batch", "peak", "decay"),
    [
        ("filip-base-yfcc", 512, 8, 8192, 2.4e-2, 3e-2),
        ("filip-baseline-yfcc", 512, 8, 8192, 2.4e-2, 3e-2),
        ("filip-base", 512, 8, 40960, 1.789e-2, 3e-3),
        ("filip-large", 768, 12, 30720, 6.197e-3, 3e-3),
    ],
)
def test_filips_tables_7_to_9(name, width, heads, batch, peak, decay):
    recipe = load_recipe(name)
    model, text = recipe.model, recipe.model.text
    assert (model.dim, model.similarity) == ((512, "global") if "baseline" in name else (256, "tokenwise"))
    assert (text.width, text.layers, text.heads, text.context) == (width, 12, heads, 77)
    assert (text.vocabulary, text.tokenizer) == (49408, "clip-bpe")
    assert (model.image.locked, model.image.init, model.temperature.init) == (False, "random", 0.07)
    optimizer = recipe.optimizer
    assert (optimizer.name, optimizer.betas, optimizer.eps) == ("lamb", (0.9, 0.999), 1e-4)
    assert (recipe.data.batch_size, optimizer.weight_decay) == (batch, decay)
    assert recipe.peak_lr == pytest.approx(peak, rel=1e-3)
    schedule = recipe.schedule
    assert (schedule.name, schedule.warmup_steps, schedule.epochs) == ("cosine", 3000, 30)
    assert (recipe.data.draw, recipe.data.augment) == (("candidate",), "autoaugment")


@pytest.mark.parametrize("name", R2D2)
def test_r2d2s_sections_3_and_4(name):
    recipe = load_recipe(name)
    model, objective = recipe.model, recipe.objective.r2d2
    assert (model.dim, model.similarity, model.image.locked) == (768, "global", True)
    assert (model.text.name, model.text.layers, model.temperature.init) == ("roberta-wwm-ext", 12, 0.07)
    assert (model.image.preprocess.size, recipe.data.batch_size, recipe.schedule.epochs) == (224, 4096, 15)
    assert recipe.data.draw == ("field",)
    if model.ranking is not None:
        assert (model.ranking.layers, model.ranking.heads, model.ranking.shared_head) == (6, 12, False)
    target, features = objective.target_distillation, objective.feature_distillation
    assert (target.alpha, target.queue, target.decay, objective.momentum) == (0.4, 36_864, 0.99, 0.995)
    assert target.queue % recipe.data.batch_size == 0
    assert (features.student_temperature, features.teacher_temperature) == (0.1, 0.04)
    words = objective.masked_language
    assert words.share == 0.15
    switches = {
        "matching": objective.matching.weight == 1,
        "words": words.weight == 1,
        "enhanced": words.weight == 1 and words.enhanced,
        "target": target.enabled,
        "features": features.weight == 1,
    }
    off = {
        "prd2": {"matching", "words", "enhanced"},
        "r2d2-wo-et": {"enhanced"},
        "r2d2-wo-mlm": {"words", "enhanced"},
        "r2d2-wo-twd": {"target", "features"},
        "r2d2-wo-tgd": {"target"},
        "r2d2-wo-fgd": {"features"},
    }
    assert {name for name, on in switches.items() if not on} == off.get(name, set())
    assert (model.ranking is None) == (name == "prd2")


def test_enhanced_training_spares_a_pass_of_the_cross_encoder():
    """What R2D2 §4.4 measures as 154.0 against 168.8 GFLOPs: here of texts of 64 tokens."""
    steps = {}
    for name in ("r2d2-vit-l", "r2d2-wo-et"):
        recipe = load_recipe(name)
        model = on_meta(recipe.model)
        found = cost(model, batch=recipe.data.batch_size)
        passes = {"image_flops": found.image_flops, "text_flops": found.text_flops}
        steps[name] = step_flops(model, recipe.objective.r2d2, **passes)
    enhanced, apart = steps.values()
    assert {part for part in enhanced if enhanced[part] != apart[part]} == {"words"}
    assert (apart["words"] - enhanced["words"]) / 1e9 == pytest.approx(11.57, abs=0.01)


@pytest.mark.parametrize(("name", "vocabulary"), [("align", 100_000), ("align-mling", 250_000)])
def test_aligns_section_5(name, vocabulary):
    recipe = load_recipe(name)
    model, text = recipe.model, recipe.model.text
    assert (model.dim, model.similarity, model.image.preprocess.size) == (1376, "global", 289)
    assert (text.name, text.vocabulary, text.encoder["vocab_size"]) == ("bert-large", vocabulary, vocabulary)
    assert (text.context, text.pooling, model.image_projection.kind) == (64, "cls", "none")
    assert (model.temperature.init, model.temperature.learnable) == (1.0, True)
    assert (recipe.objective.reduction, recipe.objective.label_smoothing) == ("sum", 0.1)
    optimizer, schedule = recipe.optimizer, recipe.schedule
    assert (optimizer.name, recipe.peak_lr, optimizer.weight_decay) == ("lamb", 1e-3, 1e-5)
    assert (schedule.name, schedule.warmup_steps, recipe.steps(10**9)) == ("linear", 10_000, 1_200_000)
    assert (recipe.data.batch_size, recipe.data.augment) == (16_384, "crop-flip")


ENCODERS = ("bert-mini", "bert-small", "bert-medium", "bert-base", "bert-large")


@pytest.mark.parametrize(
    ("tower", "encoder"),
    [
        *(("b1", encoder) for encoder in ENCODERS),
        *((tower, "bert-mini") for tower in ("b3", "b5", "b7", "l2")),
    ],
)
def test_aligns_ablation_grid_by_set(tower, encoder):
    """ALIGN §6.1: 640 dimensions, B7's own; a linear layer brings the others there. Table 8: smaller ones too."""
    settings = [
        f"model.image.name=tf_efficientnet_{tower}",
        f"model.text.name={encoder}",
        "schedule.steps=1000000",
    ]
    for dim in (640, 320) if tower == "b7" else (640,):
        own = tower == "b7" and dim == 640
        kind = "none" if own else "linear"
        recipe = load_recipe("align", [*settings, f"model.dim={dim}", f"model.image_projection.kind={kind}"])
        model = on_meta(recipe.model)
        assert ("image_projection" in trainable_report(model)) != own
        assert model.text.width == recipe.model.text.width == model.text_projection.in_features
        assert recipe.model.text.vocabulary == 100_000


@pytest.mark.parametrize("name", ["altclip-m2", "altclip-m9"])
def test_altclips_table_8(name):
    recipe = load_recipe(name)
    model, text = recipe.model, recipe.model.text
    assert (model.dim, model.similarity, text.name, text.pooling) == (
        768,
        "global",
        "xlm-roberta-large",
        "cls",
    )
    assert (text.head.width, text.head.norm, text.padding_id, text.context) == (768, True, 1, 77)
    optimizer, schedule = recipe.optimizer, recipe.schedule
    assert (optimizer.name, optimizer.betas, optimizer.eps) == ("adamw", (0.99, 0.999), 1e-8)
    assert (recipe.peak_lr, optimizer.weight_decay, optimizer.clip_grad_norm) == (2e-6, 5e-2, 5.0)
    assert (recipe.data.batch_size, schedule.warmup_steps, recipe.steps(10**7)) == (1024, 2000, 2000)


@pytest.mark.parametrize(
    ("name", "languages", "steps"),
    [("altclip-m2-teacher", ("en", "zh"), 8870), ("altclip-m9-teacher", NINE, 146_500)],
)
def test_altclips_teacher_learning(name, languages, steps):
    """Table 8's first column, §4.1's mixture; M2's steps are ten epochs of ten million pairs."""
    recipe = load_distill_recipe(name)
    text, distill = recipe.model.text, recipe.distill
    assert (text.name, text.pooling, text.head.width, text.head.norm) == (
        "xlm-roberta-large",
        "cls",
        768,
        True,
    )
    assert (text.dropout, text.padding_id, text.context) == (0.0, 1, 77)
    assert (distill.target, distill.identity, distill.languages) == ("pooled", True, languages)
    if name.startswith("altclip-m9"):
        assert (distill.amount, distill.sources) == (18_000_000, {"opus": 5, "laion": 10, "cc3m": 3})
    optimizer, schedule = recipe.optimizer, recipe.schedule
    assert (optimizer.name, optimizer.betas, optimizer.eps) == ("adamw", (0.99, 0.999), 1e-8)
    assert (recipe.peak_lr, optimizer.weight_decay, optimizer.clip_grad_norm) == (2e-4, 0.2, 1.0)
    assert (recipe.data.batch_size, schedule.warmup_steps, schedule.epochs) == (11_264, 500, 10)
    assert recipe.steps(10**7) == steps
    # its text tower is that of the contrastive stage
    contrastive = load_recipe(name.removesuffix("-teacher")).model.text
    same = ("kind", "name", "context", "pooling", "head", "vocabulary", "padding_id", "tokenizer")
    assert [getattr(text, key) for key in same] == [getattr(contrastive, key) for key in same]


@pytest.mark.parametrize(
    ("name", "parent"),
    [("lit-clip", "wukong-vit-l-g"), ("lit-filip", "wukong-vit-l-f"), ("lit-wukong", "wukong-vit-l")],
)
def test_the_lit_recipes_are_other_names_and_no_more(name, parent):
    values = tomllib.loads(find(name).read_text(encoding="utf-8"))
    assert values == {"extends": parent}
    a, b = load_recipe(name), load_recipe(parent)
    assert a == b.model_copy(update={"name": name})


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        (
            "wukong-vit-l",
            ("lr", "lr_rule", "weight_decay", "warmup_steps", "batch_size", "learnable", "precision"),
        ),
        ("filip-base", ("t2i_special_tokens", "precision", "fit", "mean")),
        ("align", ("betas", "eps", "no_decay", "mean", "interpolation", "precision")),
        ("altclip-m9", ("context", "init", "learnable", "augment", "no_decay", "precision")),
    ],
)
def test_values_that_no_paper_gives_are_marked(name, keys):
    """Spec §2.1, §4.1 and §4.2: UNSPEC, and what stands only in released code."""
    text = find(name).read_text(encoding="utf-8")
    for key in keys:
        lines = re.findall(rf"^{key} *=.*$", text, re.M)
        assert any("# not from the paper" in line for line in lines), key


def test_keys_inside_lists_and_optional_tables_are_named_when_they_are_wrong():
    from vlcli.errors import UsageError

    with pytest.raises(UsageError, match=r"model\.text\.head\.widht: no such key; did you mean 'width'"):
        load_recipe("altclip-m9", ["model.text.head.widht=3"])
    with pytest.raises(UsageError, match=r"model\.train\.0\.rat: no such key; did you mean 'rate'"):
        load_recipe("align", ['model.train=[{pattern = ".*", rate = 1.0, rat = 1.0}]'])
    with pytest.raises(UsageError, match=r"text\.name 'bert-tiny' is neither"):
        load_recipe("align", ["model.text.name=bert-tiny"])
