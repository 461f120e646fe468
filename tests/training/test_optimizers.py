"""Decay rules by kind, LAMB against a literal transcription of its equations, schedules by hand."""

import math

import pytest
import torch

from vlcli.models.config import DualEncoderConfig
from vlcli.models.dual import DualEncoder, trainable_report
from vlcli.recipes import OptimizerConfig, ScheduleConfig
from vlcli.training.optimizers import build_optimizer, kinds, parameter_groups
from vlcli.training.schedules import learning_rate

SMALL = DualEncoderConfig.model_validate(
    {
        "dim": 16,
        "image": {"name": "efficientnet_lite0", "preprocess": {"size": 32}},
        "text": {"width": 32, "layers": 1, "heads": 2},
    }
)


def test_what_is_spared_from_decay():
    model = DualEncoder(SMALL)
    found = {name: kind for name, _, kind in kinds(model)}
    assert found["log_scale"] == "temperature"
    assert found["text.token_embedding.weight"] == "token_embedding"
    assert found["text.positional_embedding"] == "positional_embedding"
    assert found["text.blocks.0.ln_1.bias"] == found["text.ln_final.weight"] == "norm"
    assert found["text.blocks.0.fc.bias"] == "bias"
    assert found["text.blocks.0.fc.weight"] == found["image_projection.weight"] == "weight"
    assert not any(name.startswith("image.") for name in found), "a locked tower is not optimised"
    groups, report = parameter_groups(model, OptimizerConfig(weight_decay=0.1))
    assert [g["weight_decay"] for g in groups] == [0.1, 0.0]
    assert sum(row["parameters"] for row in report) == sum(p.numel() for g in groups for p in g["params"])
    assert {row["kind"] for row in report if row["decay"] == 0.1} == {"weight"}


def test_the_trainable_report_proves_what_is_frozen():
    report = trainable_report(DualEncoder(SMALL))
    assert report["image"]["trainable"] == 0
    assert report["image"]["parameters"] > 3_000_000
    for part in ("text", "text_projection", "image_projection", "log_scale"):
        assert report[part]["trainable"] == report[part]["parameters"] > 0


def test_lamb_is_the_trust_ratio_for_every_tensor_without_bias_correction():
    torch.manual_seed(0)
    config = OptimizerConfig(name="lamb", betas=(0.9, 0.999), eps=1e-2, weight_decay=0.03)
    weight, spared = torch.nn.Parameter(torch.randn(4, 3)), torch.nn.Parameter(torch.randn(5))
    optimizer = build_optimizer(
        [{"params": [weight], "weight_decay": 0.03}, {"params": [spared], "weight_decay": 0.0}], config
    )
    reference = [weight.detach().double().clone(), spared.detach().double().clone()]
    first = [torch.zeros_like(x) for x in reference]
    second = [torch.zeros_like(x) for x in reference]
    for step in range(3):
        rate = 0.1 / (step + 1)
        for group in optimizer.param_groups:
            group["lr"] = rate
        gradients = [torch.randn_like(weight) * 5, torch.randn_like(spared)]
        weight.grad, spared.grad = gradients[0].clone(), gradients[1].clone()
        optimizer.step()
        for i, decay in enumerate((0.03, 0.0)):
            g = gradients[i].double()
            first[i] = 0.9 * first[i] + 0.1 * g
            second[i] = 0.999 * second[i] + 0.001 * g * g
            update = first[i] / (second[i].sqrt() + 1e-2) + decay * reference[i]
            reference[i] = reference[i] - rate * reference[i].norm() / update.norm() * update
    torch.testing.assert_close(weight.double(), reference[0], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(spared.double(), reference[1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "step", "want"),
    [
        ("cosine", 0, 0.25),
        ("cosine", 3, 1.0),
        ("cosine", 4, 1.0),
        ("cosine", 9, 0.5 * (1 + math.cos(math.pi * 5 / 10))),
        ("cosine", 13, 0.5 * (1 + math.cos(math.pi * 9 / 10))),
        ("linear", 9, 0.5),
        ("constant", 13, 1.0),
    ],
)
def test_schedules_by_hand(name, step, want):
    config = ScheduleConfig(name=name, warmup_steps=4)
    assert learning_rate(step, 14, 2.0, config) == pytest.approx(2 * want)


def test_a_warm_up_longer_than_the_run_is_cut_to_it():
    config = ScheduleConfig(warmup_steps=3000)
    assert learning_rate(9, 10, 1.0, config) == 1.0
