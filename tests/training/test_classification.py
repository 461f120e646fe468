"""Training of classifiers: what learns and how fast, at which resolution, and that a run goes on bit for bit."""

import json
import os
import random
import shutil
import subprocess
import sys

import numpy as np
import orjson
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file
from test_processes import accelerate_launch
from training_cases import Silent

from vlcli.errors import InputError, UsageError
from vlcli.images.config import PreprocessConfig
from vlcli.models.checkpoint import load_classifier, save_checkpoint
from vlcli.models.classifier import classifier_at, for_evaluation
from vlcli.models.config import DualEncoderConfig, ImageTowerConfig, TextTowerConfig
from vlcli.models.dual import DualEncoder
from vlcli.models.positions import refuse_partial_patches
from vlcli.recipes import load_classify_recipe, with_settings
from vlcli.schemas.classification import ClassifyRecipe, ClassifyScheduleConfig
from vlcli.shards.pairs import load_pairs
from vlcli.training.class_loader import ClassTable
from vlcli.training.class_runs import summary, train_all
from vlcli.training.class_trials import applied, best_of, drawn
from vlcli.training.optimizers import build_optimizer, parameter_groups
from vlcli.training.schedules import learning_rate

COLOURS = {"blue": (40, 40, 230), "green": (30, 200, 30), "red": (220, 30, 30)}
LABELS = tuple(COLOURS)


def dual(tower="test_efficientnet", size=32):
    torch.manual_seed(0)
    image = ImageTowerConfig(name=tower, preprocess={"size": size})
    text = TextTowerConfig(width=16, layers=1, heads=2)
    return DualEncoder(DualEncoderConfig(dim=16, similarity="global", image=image, text=text)).eval()


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """Noisy squares of three colours: 12 to learn, 6 to choose by."""
    here, noise, found = tmp_path_factory.mktemp("squares"), np.random.default_rng(0), {}
    for name, count in (("train", 12), ("val", 6)):
        lines = []
        for i in range(count):
            pixels = COLOURS[LABELS[i % 3]] + noise.normal(0, 60, (24, 24, 3))
            Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(here / f"{name}-{i}.png")
            lines.append(
                json.dumps({"id": f"{name}/{i}", "image": f"{name}-{i}.png", "label": LABELS[i % 3]})
            )
        (here / f"{name}.jsonl").write_text("\n".join(lines))
        table = load_pairs([str(here / f"{name}.jsonl")], columns=("label",), need_text=False)
        found[name] = ClassTable(table, torch.arange(count) % 3)
    return found


def recipe(**settings):
    base = {
        "name": "tiny",
        "stages": ["head", "all"],
        "data": {"batch_size": 4, "workers": 0, "crop_ratio": 1.0},
    }
    values = ClassifyRecipe.model_validate(base)
    small = {"schedule.steps": 4, "train.log_every": 1, "train.save_every": 1, "train.evaluate_every": 2}
    return with_settings(values, {**small, "train.keep": 9, "train.precision": "fp32", **settings})


def train(tables, out, one, *, source=None, **options):
    reporter, before = Silent(), []
    model = source or dual()
    data = {"validation": tables["val"], "device": "cpu", **options}
    done = train_all(model, LABELS, one, tables["train"], out, reporter, before=before.append, **data)
    return done, reporter, before


# What the paper's values come to


def test_the_rate_falls_to_a_fifth_every_thirty_epochs():
    schedule = ClassifyScheduleConfig(name="step", epochs=100, every=30, factor=0.2)
    per_epoch = 7
    for step in range(100 * per_epoch):
        epoch = step // per_epoch
        expected = 0.1 * 0.2 ** [0, 1, 2, 3][epoch // 30]
        assert learning_rate(step, 100 * per_epoch, 0.1, schedule) == pytest.approx(expected, rel=1e-12), step
    short = schedule.model_copy(update={"steps": 10})  # of these, as of the epochs, 3, 3, 3 and 1
    rates = [learning_rate(step, short.total(per_epoch), 1.0, short) for step in range(10)]
    assert rates == pytest.approx([1.0] * 3 + [0.2] * 3 + [0.04] * 3 + [0.008])


def test_the_papers_values():
    imagenet, fine = load_classify_recipe("align-imagenet"), load_classify_recipe("align-fine-grained")
    for one, stage, lr, rate, sizes in (
        (imagenet, "head", 0.1, 0.0, (289, 360)),
        (imagenet, "all", 0.01, 0.1, (475, 600)),
        (fine, "head", 1e-2, 0.0, (289, 360)),
        (fine, "all", 1e-3, 1.0, (289, 360)),
    ):
        at = one.at(stage)
        pixels, seen = one.preprocessing(stage, PreprocessConfig(size=224, resize=256))
        assert (at.peak_lr, at.rate, (pixels.size, seen.size)) == (lr, rate, sizes)
        assert seen.resize == round(seen.size / 0.875)
        assert pixels.resize is None
    assert (imagenet.data.batch_size, imagenet.optimizer.weight_decay) == (1024, 0.0)
    assert (fine.data.batch_size, fine.optimizer.weight_decay, fine.steps(10**6)) == (256, 1e-5, 20_000)


def test_the_head_learns_ten_times_as_fast_as_the_tower_and_alone_in_the_first_stage():
    pixels = PreprocessConfig(size=32)
    for rate, groups_wanted in ((0.1, {1.0, 0.1}), (0.0, {1.0})):
        model = classifier_at(dual(), LABELS, pixels).learn(rate)
        one = recipe().at("all" if rate else "head")
        groups, _ = parameter_groups(model, one.optimizer)
        assert {group["rate"] for group in groups} == groups_wanted
        of = {id(p): group["rate"] for group in groups for p in group["params"]}
        for name, parameter in model.named_parameters():
            expected = 1.0 if name.startswith("head.") else rate
            assert of.get(id(parameter), 0.0) == expected, name
        optimizer = build_optimizer(groups, one.optimizer)
        assert type(optimizer) is torch.optim.SGD
        assert {group["momentum"] for group in optimizer.param_groups} == {0.9}


def test_a_step_is_momentum_on_the_gradient_with_decay_by_hand():
    weight = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
    config = recipe(**{"optimizer.weight_decay": 0.01}).optimizer
    optimizer = build_optimizer([{"params": [weight], "weight_decay": 0.01, "rate": 1.0}], config)
    expected, velocity = weight.detach().clone(), torch.zeros(2)
    for step, gradient in enumerate((torch.tensor([0.5, 1.0]), torch.tensor([-1.0, 0.25]))):
        optimizer.param_groups[0]["lr"] = rate = 0.1 / (step + 1)
        weight.grad = gradient.clone()
        optimizer.step()
        velocity = 0.9 * velocity + gradient + 0.01 * expected
        expected = expected - rate * velocity
    torch.testing.assert_close(weight.detach(), expected)


# Resolution


def test_positions_are_interpolated_and_the_class_tokens_own_left_alone():
    source = dual("test_vit", 32)
    patch = source.image.body.patch_embed.patch_size[0]
    small, large = PreprocessConfig(size=2 * patch), PreprocessConfig(size=3 * patch)
    model = classifier_at(source, LABELS, small, large)
    before, after = model.image.body.pos_embed, for_evaluation(model).image.body.pos_embed
    prefix = model.image.prefix
    grid = before[:, prefix:].reshape(1, 2, 2, -1).permute(0, 3, 1, 2)
    expected = F.interpolate(grid, size=(3, 3), mode="bicubic", antialias=True).permute(0, 2, 3, 1)
    torch.testing.assert_close(after[:, prefix:], expected.reshape(1, 9, -1))
    assert torch.equal(after[:, :prefix], before[:, :prefix])
    assert torch.equal(for_evaluation(model).head.weight, model.head.weight)


def test_a_resolution_that_patches_do_not_divide_is_refused_before_anything_is_written(tables, tmp_path):
    source = dual("test_vit", 32)
    patch = source.image.body.patch_embed.patch_size[0]
    for key in ("head.size", "all.eval_size"):
        with pytest.raises(
            UsageError, match=f"no whole number of patches of {patch}; --set {key}={2 * patch}"
        ):
            train(tables, tmp_path / "run", recipe(**{key: 2 * patch + 1}), source=source)
    assert not (tmp_path / "run").exists()
    refuse_partial_patches(dual().image.body, 289, "head.size")  # a convolutional tower takes any


# Runs


def test_both_stages_leave_two_runs_and_the_statistics_of_batch_norm_as_they_were(tables, tmp_path):
    out, source = tmp_path / "run", dual()
    (done,), reporter, before = train(
        tables, out, recipe(**{"all.size": 40, "all.eval_size": 48}), source=source
    )
    assert done.place == out
    assert [plan["stage"] for plan in reporter.plans] == ["head", "all"]
    assert len(before) == 1
    assert before[0]["n"] == 6
    first = load_file(out / "probe" / "last" / "model.safetensors")
    last = load_file(out / "last" / "model.safetensors")
    tower = {f"image.{name}": x for name, x in source.image.state_dict().items()}
    statistics = [
        name for name in tower if name.endswith(("running_mean", "running_var", "num_batches_tracked"))
    ]
    assert statistics
    assert all(torch.equal(first[name], x) for name, x in tower.items()), "the probe's features are frozen"
    assert all(torch.equal(last[name], tower[name]) for name in statistics)
    moved = [name for name, x in tower.items() if not torch.equal(last[name], x)]
    assert "image.body.conv_stem.weight" in moved
    assert any("bn" in name and name.endswith("bias") for name in moved), "norms themselves learn"
    assert not torch.equal(first["head.weight"], last["head.weight"])
    model = load_classifier(out)
    assert (model.image.training, model.preprocess.size) == (False, 48)
    assert load_classifier(out, as_trained=True).preprocess.size == 40
    assert all(not m.training for m in model.learn(1.0).image.modules() if "BatchNorm" in type(m).__name__)
    lines = [orjson.loads(line) for line in (out / "metrics.jsonl").read_bytes().splitlines()]
    assert [line["step"] for line in lines if "val" in line] == [2, 4]


def test_the_second_stage_starts_from_the_best_head_of_the_first(tables, tmp_path):
    out = tmp_path / "run"
    # so small a rate that all layers stay as they were: what the second run has is what it started from
    train(tables, out, recipe(**{"all.lr": 1e-30}))
    best = load_file(out / "probe" / "best" / "model.safetensors")
    after = load_file(out / "last" / "model.safetensors")
    assert best["head.weight"].any()
    assert all(torch.allclose(best[name], x, rtol=0, atol=1e-20) for name, x in after.items())


@pytest.mark.parametrize("stage", ["head", "all"])
def test_resumed_equals_uninterrupted_bit_for_bit(tables, tmp_path, stage):
    whole, part = tmp_path / "whole", tmp_path / "part"
    train(tables, whole, recipe())
    shutil.copytree(whole, part, symlinks=True)
    place = part
    if stage == "head":  # stopped in the first stage: of the second nothing is there
        place = part / "probe"
        for path in part.iterdir():
            if path.name != "probe":
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    for step in (3, 4):
        shutil.rmtree(place / "checkpoints" / f"step-{step:08d}")
    with pytest.raises(UsageError, match="not empty"):
        train(tables, part, recipe())
    train(tables, part, recipe(), resume=True)
    for run in ("probe", "."):
        for step in (3, 4):
            file = f"{run}/checkpoints/step-{step:08d}/model.safetensors"
            a, b = load_file(whole / file), load_file(part / file)
            assert all(torch.equal(a[name], b[name]) for name in a)
        losses = [
            [line.get("loss") for line in map(orjson.loads, (d / run / "metrics.jsonl").open("rb"))]
            for d in (whole, part)
        ]
        assert losses[0] == losses[1]
    other = {**tables, "val": ClassTable(tables["val"].table, tables["val"].labels.flip(0))}
    with pytest.raises(UsageError, match="--resume: validation was"):
        train(other, part, recipe(), resume=True)


def test_a_picture_that_cannot_be_had_ends_the_run(tables, tmp_path):
    table, labels = tables["train"]
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    (tmp_path / "rows.jsonl").write_text(json.dumps({"id": "broken", "image": str(broken), "label": "red"}))
    bad = load_pairs([str(tmp_path / "rows.jsonl")], columns=("label",), need_text=False)
    both = ClassTable(table, labels).and_(ClassTable(bad, torch.tensor([2])))
    with pytest.raises(InputError, match="image of broken"):
        train({**tables, "train": both}, tmp_path / "run", recipe(**{"schedule.steps": 9}))


def test_two_processes_train_as_one_does(tables, tmp_path):
    save_checkpoint(dual(), tmp_path / "dual", recipe={}, lineage={})
    settings = (
        "schedule.epochs=2",
        "data.batch_size=8",
        "data.last=keep",
        "data.workers=0",
        "train.log_every=1",
    )
    for out, launcher in (("one", [sys.executable]), ("two", accelerate_launch(2))):
        line = [
            *launcher,
            "-m",
            "vlcli",
            "finetune",
            tmp_path / "dual",
            "--task",
            "classify",
            "--device",
            "cpu",
        ]
        line += ["--recipe", "emoji-classify", "--data", tables["train"].table.source, "-o", tmp_path / out]
        line += [f"--set={setting}" for setting in settings]
        done = subprocess.run(
            line, env={**os.environ, "OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE, text=True
        )
        assert done.returncode == 0, done.stderr
    for run in ("probe", "."):
        lines = [
            [
                (x["loss"], x["train_top1"], x["grad_norm"])
                for x in map(orjson.loads, (d / run / "metrics.jsonl").open("rb"))
            ]
            for d in (tmp_path / "one", tmp_path / "two")
        ]
        assert len(lines[0]) == 4, "two batches an epoch, of 8 rows and of 4"
        for a, b in zip(*lines, strict=True):
            assert b == pytest.approx(a, rel=1e-4)


# Trials


def test_trials_are_points_of_the_grid_drawn_by_the_seed_without_repetition():
    grid = {"all.lr": [0.1, 0.01, 0.001], "schedule.steps": [1, 2]}
    one = recipe(trials={"count": 50, "grid": grid})
    everything = [(p["all.lr"], p["schedule.steps"]) for p in drawn(one)]
    assert sorted(everything) == sorted(
        (lr, steps) for lr in grid["all.lr"] for steps in grid["schedule.steps"]
    )
    few = recipe(trials={"count": 4, "grid": grid})
    assert drawn(few) == drawn(few)
    assert len(drawn(few)) == 4
    product = [{"all.lr": lr, "schedule.steps": n} for lr in grid["all.lr"] for n in grid["schedule.steps"]]
    assert drawn(few) == [product[i] for i in random.Random(0).sample(range(6), 4)]
    other = few.model_copy(update={"train": few.train.model_copy(update={"seed": 1})})
    assert drawn(other) != drawn(few)
    with pytest.raises(UsageError, match="no such key; did you mean 'lr'"):
        applied(one, {"all.lrr": 1.0})
    assert len(drawn(load_classify_recipe("vtab"))) == 50


def test_a_search_learns_again_from_all_rows_by_the_trial_that_was_chosen(tables, tmp_path, monkeypatch):
    out = tmp_path / "run"
    grid = {"all.lr": [1e-30, 0.1, 1e30]}  # one learns nothing, one something, one diverges
    one = recipe(trials={"grid": grid}, stages=["all"])
    done, reporter, _ = train(tables, out, one, runs=2)
    trials = [orjson.loads(line) for line in (out / "trials.jsonl").read_bytes().splitlines()]
    by_rate = {trial["settings"]["all.lr"]: trial for trial in trials}
    assert by_rate[1e30]["top1"] is None
    assert "not finite" in by_rate[1e30]["failed"]
    chosen = best_of(trials, "top1")
    assert [trial["chosen"] for trial in trials] == [trial is chosen for trial in trials]
    assert {trial["n"] for trial in trials} == {6}
    assert [run.place.name for run in done] == ["seed-0", "seed-1"]
    assert not (out / "trials").exists()
    finals = [plan for plan in reporter.plans if plan["rows"] == 18]
    assert len(finals) == 2, "both runs learn from the rows of both tables"
    config = json.loads((out / "seed-1" / "last" / "config.json").read_text())
    assert config["recipe"]["all"]["lr"] == chosen["settings"]["all.lr"]
    assert config["recipe"]["train"]["seed"] == 1
    # what was tried is not tried again, and trials on other rows are no trials
    _, other, _ = train(tables, out, one, runs=2, resume=True)
    assert len(other.plans) == 2
    with pytest.raises(UsageError, match="of other rows"):
        train({**tables, "val": tables["train"]}, out, one, runs=2, resume=True)


def test_mean_and_deviation_by_hand():
    found = summary({0: {"top1": 70.0}, 1: {"top1": 72.0}, 2: {"top1": 77.0}}, "test")
    assert found["mean"] == {"top1": pytest.approx(73.0)}
    assert found["sd"] == {"top1": pytest.approx((13.0) ** 0.5)}  # (9 + 1 + 16) / 2
    assert found["on"] == "test"
