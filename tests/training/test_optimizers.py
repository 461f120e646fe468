"""Decay rules of every recipe by name, LAMB and AdamW against their equations in plain Python floats."""

import math

import pytest
import torch
from torch import nn

from vlcli import recipes
from vlcli.models.config import DualEncoderConfig
from vlcli.models.dual import DualEncoder, trainable_report
from vlcli.schemas.parts import OptimizerConfig
from vlcli.training.lamb import Lamb
from vlcli.training.optimizers import build_optimizer, kinds, parameter_groups

SMALL = {
    "dim": 16,
    "image": {"name": "efficientnet_lite0", "preprocess": {"size": 32}},
    "text": {"width": 32, "layers": 1, "heads": 2},
}


def small(**image) -> DualEncoder:
    config = {**SMALL, "image": {**SMALL["image"], **image}}
    with torch.device("meta"):
        return DualEncoder(DualEncoderConfig.model_validate(config))


def test_what_is_spared_from_decay():
    model = small()
    found = {name: kind for name, _, kind in kinds(model)}
    assert found["log_scale"] == "temperature"
    assert found["text.token_embedding.weight"] == "token_embedding"
    assert found["text.positional_embedding"] == "positional_embedding"
    assert found["text.blocks.0.ln_1.bias"] == found["text.ln_final.weight"] == "norm"
    assert found["text.blocks.0.fc.bias"] == "bias"
    assert found["text.blocks.0.fc.weight"] == found["image_projection.weight"] == "weight"
    groups, report = parameter_groups(model, OptimizerConfig(weight_decay=0.1))
    assert [g["weight_decay"] for g in groups] == [0.1, 0.0]
    assert sum(row["parameters"] for row in report) == sum(p.numel() for g in groups for p in g["params"])
    assert {row["kind"] for row in report if row["decay"] == 0.1} == {"weight"}


@pytest.mark.parametrize(
    ("tower", "spared", "decayed"),
    [
        # A class token is none of the five that Wukong and FILIP spare (spec §4.1).
        ("vit_tiny_patch16_224", {"pos_embed": "positional_embedding"}, {"cls_token"}),
        (
            "swin_tiny_patch4_window7_224",
            {"layers.0.blocks.0.attn.relative_position_bias_table": "positional_embedding"},
            {"patch_embed.proj.weight"},
        ),
        ("efficientnet_lite0", {"bn1.weight": "norm", "bn1.bias": "norm"}, {"conv_stem.weight"}),
    ],
)
def test_an_unlocked_tower_follows_the_same_rules(tower, spared, decayed):
    with torch.device("meta"):
        import timm

        model = timm.create_model(tower, num_classes=0)
    found = {name: kind for name, _, kind in kinds(model)}
    assert len(found) == len(list(model.parameters()))
    assert {name: found[name] for name in spared} == spared
    assert {found[name] for name in decayed} == {"weight"}
    for name, parameter in model.named_parameters():
        if parameter.ndim < 2:  # no vector decays
            assert found[name] in ("bias", "norm"), name


OF_PRETRAIN = [name for name in recipes.names() if isinstance(recipes.load_any(name), recipes.Recipe)]


@pytest.mark.parametrize("name", OF_PRETRAIN)
def test_every_recipe_decays_matrices_alone_and_leaves_the_locked_tower_out(name):
    """Spec §4.1: no decay on bias, LayerNorm, token and positional embedding, temperature; ALIGN names no exception.

    Told by name and shape, without asking which module owns a tensor.
    """
    recipe = recipes.load_recipe(name)
    with torch.device("meta"):
        model = DualEncoder(recipe.model)
    groups, _ = parameter_groups(model, recipe.optimizer)
    parameters = dict(model.named_parameters())
    name_of = {parameter: name for name, parameter in parameters.items()}
    grouped = [name_of[p] for group in groups for p in group["params"]]
    free = {n for n, p in parameters.items() if p.requires_grad}
    assert sorted(grouped) == sorted(free), "each in one group, once"
    assert any(n.startswith("image.") for n in grouped) != recipe.model.image.locked
    assert any(n.startswith("text.") for n in grouped) != recipe.model.text.locked
    projected = {"text_projection"} if recipe.model.text_projection.kind != "none" else set()
    assert {n.split(".")[0] for n in grouped} >= {"log_scale"} | projected
    spared = ("positional_embedding", "pos_embed", "relative_position_bias_table")
    want = {n for n in free if parameters[n].ndim > 1 and not n.endswith(spared) and "embedding" not in n}
    if not recipe.optimizer.no_decay:
        want = free
    decayed = {name_of[p] for group in groups if group["weight_decay"] for p in group["params"]}
    assert decayed == want
    assert {group["weight_decay"] for group in groups} == {recipe.optimizer.weight_decay} | (
        {0.0} if recipe.optimizer.no_decay else set()
    )


def test_kinds_that_a_recipe_names_are_spared_and_no_others():
    groups, report = parameter_groups(small(), OptimizerConfig(weight_decay=0.1, no_decay=()))
    assert [group["weight_decay"] for group in groups] == [0.1]
    groups, report = parameter_groups(small(), OptimizerConfig(weight_decay=0.1, no_decay=("bias",)))
    assert {row["kind"] for row in report if not row["decay"]} == {"bias"}


def test_the_trainable_report_proves_what_is_frozen():
    report = trainable_report(small())
    assert report["image"]["trainable"] == 0
    assert report["image"]["parameters"] > 3_000_000
    for part in ("text", "text_projection", "image_projection", "log_scale"):
        assert report[part]["trainable"] == report[part]["parameters"] > 0


def length(values):
    return math.sqrt(sum(x * x for x in values))


def lamb_by_hand(w, gradients, rates, *, betas, eps, decay, bound=10.0):
    """pytorch-lamb's step in Python floats: m and v without correction, min(‖w‖, 10) / ‖u‖."""
    m, v = [0.0] * len(w), [0.0] * len(w)
    for g, rate in zip(gradients, rates, strict=True):
        m = [betas[0] * a + (1 - betas[0]) * x for a, x in zip(m, g, strict=True)]
        v = [betas[1] * a + (1 - betas[1]) * x * x for a, x in zip(v, g, strict=True)]
        u = [a / (math.sqrt(b) + eps) + decay * x for a, b, x in zip(m, v, w, strict=True)]
        ratio = min(length(w), bound) / length(u) if length(w) > 0 and length(u) > 0 else 1.0
        w = [x - rate * ratio * y for x, y in zip(w, u, strict=True)]
    return w


def adamw_by_hand(w, gradients, rates, *, betas, eps, decay):
    """Loshchilov & Hutter, Algorithm 2, with the rate as the schedule: decay apart, moments corrected."""
    m, v = [0.0] * len(w), [0.0] * len(w)
    for t, (g, rate) in enumerate(zip(gradients, rates, strict=True), start=1):
        m = [betas[0] * a + (1 - betas[0]) * x for a, x in zip(m, g, strict=True)]
        v = [betas[1] * a + (1 - betas[1]) * x * x for a, x in zip(v, g, strict=True)]
        step = [
            (a / (1 - betas[0] ** t)) / (math.sqrt(b / (1 - betas[1] ** t)) + eps)
            for a, b in zip(m, v, strict=True)
        ]
        w = [x - rate * decay * x - rate * s for x, s in zip(w, step, strict=True)]
    return w


# Tensors: ordinary; spared from decay; longer than 10; all zero (a fresh bias); no gradient ever reaches it.
TENSORS = {
    "plain": (torch.linspace(-1, 1, 12).view(4, 3), 0.03, 5.0),
    "spared": (torch.linspace(0.5, 2, 5), 0.0, 1.0),
    "long": (torch.linspace(-30, 50, 8), 0.03, 0.01),
    "zero": (torch.zeros(6), 0.03, 1.0),
    "still": (torch.tensor([3.0, 4.0]), 0.0, 0.0),
}


@pytest.mark.parametrize(
    ("name", "by_hand", "betas", "eps"),
    [
        ("lamb", lamb_by_hand, (0.9, 0.999), 1e-2),  # Wukong's
        ("lamb", lamb_by_hand, (0.9, 0.999), 1e-4),  # FILIP's
        ("adamw", adamw_by_hand, (0.9, 0.98), 1e-6),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_five_steps_equal_the_equations(name, by_hand, betas, eps, dtype):
    config = OptimizerConfig(name=name, betas=betas, eps=eps)
    weights = {key: nn.Parameter(start.to(dtype)) for key, (start, _, _) in TENSORS.items()}
    started = {key: w.detach().double().flatten().tolist() for key, w in weights.items()}
    groups = [
        {"params": [w for key, w in weights.items() if TENSORS[key][1] == decay], "weight_decay": decay}
        for decay in (0.03, 0.0)
    ]
    optimizer = build_optimizer(groups, config)
    rates = [0.025, 0.05, 0.1, 0.05, 0.0]
    g = torch.Generator().manual_seed(0)
    gradients = {
        key: [(torch.randn(w.shape, generator=g) * TENSORS[key][2]).to(dtype) for _ in rates]
        for key, w in weights.items()
    }
    for step, rate in enumerate(rates):
        for group in optimizer.param_groups:
            group["lr"] = rate
        for key, w in weights.items():
            w.grad = gradients[key][step].clone()
        optimizer.step()
    for key, w in weights.items():
        flat = [x.double().flatten().tolist() for x in gradients[key]]
        want = by_hand(started[key], flat, rates, betas=betas, eps=eps, decay=TENSORS[key][1])
        got = w.detach().double().flatten().tolist()
        tolerance = {torch.float64: 1e-12, torch.float32: 3e-6}[dtype]
        assert got == pytest.approx(want, rel=tolerance, abs=tolerance), key
    assert weights["still"].tolist() == [3.0, 4.0]


def test_one_step_of_lamb_in_numbers():
    """w = (3, 4), g = (1, 2), β = (0.9, 0.999), ε = 0.01, λ = 0.1, η = 0.5.

    m = (0.1, 0.2); √v = (0.0316228, 0.0632456); m / (√v + ε) = (2.4025307, 2.7305412);
    u = (2.7025307, 3.1305412), ‖u‖ = 4.1356931; ‖w‖ = 5; w − 0.5 · 5 / 4.1356931 · u.
    """
    w = nn.Parameter(torch.tensor([3.0, 4.0], dtype=torch.float64))
    w.grad = torch.tensor([1.0, 2.0], dtype=torch.float64)
    Lamb([w], lr=0.5, eps=0.01, weight_decay=0.1).step()
    assert w.tolist() == pytest.approx([1.366338, 2.107608], abs=1e-6)


def test_a_long_tensor_moves_as_if_it_were_ten_long():
    for bound, moved in ((10.0, 1.0), (math.inf, 10.0)):
        w = nn.Parameter(torch.full((100,), 10.0))  # length 100
        w.grad = torch.full((100,), 0.5)
        Lamb([w], lr=0.1, bound=bound).step()
        assert (10 - w).norm().item() == pytest.approx(moved, rel=1e-5)


def test_lamb_resumes_where_it_stopped_and_passes_over_tensors_without_gradient():
    def run(stop):
        w, idle = nn.Parameter(torch.linspace(0, 1, 7)), nn.Parameter(torch.ones(3))
        optimizer = Lamb([w, idle], lr=0.1, weight_decay=0.01)
        for step in range(6):
            if step == stop:
                saved, old = optimizer.state_dict(), w.detach().clone()
                w, idle = nn.Parameter(old), nn.Parameter(torch.ones(3))
                optimizer = Lamb([w, idle])
                optimizer.load_state_dict(saved)
            w.grad = torch.linspace(step, 3, 7)
            optimizer.step()
        assert idle.eq(1).all()
        return w

    assert torch.equal(run(None), run(3))


def test_lamb_reports_the_loss_of_its_closure():
    w = nn.Parameter(torch.ones(2))

    def closure():
        loss = (w * w).sum()
        loss.backward()
        return loss

    assert Lamb([w]).step(closure).item() == 2.0
    assert w.tolist() != [1.0, 1.0]
