"""The objective of a recipe in the training loop: every option acts, and what it does is what the loops say."""

import math
import shutil

import pytest
import torch
from safetensors.torch import load_file
from training_cases import Silent, recipe

from vlcli.training.objective import Objective, select
from vlcli.training.pretraining import Pretraining

LARGER = "model.image.preprocess.size=128"  # sixteen patches


def train(table, cache, out, *overrides, **options):
    reporter = Silent()
    settings = ("train.evaluate_every=0", "data.workers=0", *overrides)
    return Pretraining(recipe(cache, *settings), table, out, reporter, device="cpu", **options), reporter


def literal_objective(run, batch, step):
    """The loss of a batch, pair by pair: selection, similarity and softmax as the papers print them."""
    config, model = run.recipe.objective, run.model
    image, text, scale = model(batch.ids, batch.mask, features=batch.features, keys=batch.keys)
    n = len(batch.ids)
    words = [
        [
            (text.tokens[j, r], bool(text.content_mask[j, r]))
            for r in range(len(text.mask[j]))
            if text.mask[j, r]
        ]
        for j in range(n)
    ]
    patches = [list(image.tokens[i]) for i in range(n)]
    if config.tokens.keep < 1:
        all_words = torch.stack([word for side in words for word, _ in side])
        all_patches = torch.cat([torch.stack(side) for side in patches])

        def best(tokens, others, vectors):
            scores = [float((others @ vector).detach().max()) for vector in vectors]
            order = sorted(range(len(tokens)), key=lambda place: -scores[place])
            return order[: max(1, math.ceil(config.tokens.keep * len(tokens)))], order

        for j in range(n):
            kept, order = best(words[j], all_patches, [word for word, _ in words[j]])
            if not any(words[j][place][1] for place in kept):
                kept[-1] = next(place for place in order if words[j][place][1])
            words[j] = [words[j][place] for place in kept]
        for i in range(n):
            patches[i] = [patches[i][place] for place in best(patches[i], all_words, patches[i])[0]]

    def rounded(x):  # the values alone: a gradient in fp16 would lose what is small
        return x + (x.half().float() - x).detach() if config.tokens.precision == "fp16" else x

    i2t, t2i = torch.zeros(n, n), torch.zeros(n, n)
    for i in range(n):
        for j in range(n):
            scores = rounded(torch.stack(patches[i])) @ rounded(torch.stack([word for word, _ in words[j]])).T
            i2t[i, j] = scores.amax(1).mean()
            t2i[i, j] = scores.amax(0)[[content for _, content in words[j]]].mean()
    same = (batch.codes[:, :, None] == batch.codes[:, None]) & (batch.codes[:, :, None] >= 0)
    positives = same.any(0)
    seats = run.objective._seats(step, batch.codes).tolist()
    losses = []
    for scores in (i2t, t2i.T):
        total = 0.0
        for i in range(n):
            wrong = [j for j in range(n) if not positives[i, j]]
            wrong.sort(key=lambda j: (seats[j] - seats[i]) % n)
            right = [j for j in range(n) if positives[i, j]]
            columns = right + wrong[: math.ceil(config.negatives * len(wrong))]
            logs = (scale * scores[i, columns]).log_softmax(0)
            target = torch.full((len(columns),), config.label_smoothing / len(columns))
            target[: len(right)] += (1 - config.label_smoothing) / len(right)
            total = total - (target * logs).sum()
        losses.append(total / n)
    return sum(losses) if config.reduction == "sum" else sum(losses) / 2


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("objective.negatives=0.25", "objective.label_smoothing=0.1", "objective.reduction=sum"),
        ("objective.tokens.keep=0.25",),
        ("objective.tokens.keep=0.5", "objective.tokens.precision=fp16", "objective.negatives=0.5"),
        ("objective.tokens.keep=0.25", "objective.tokens.scope=local"),
    ],
    ids=lambda overrides: ",".join(text.split(".", 1)[1] for text in overrides) or "plain",
)
def test_the_loss_of_a_step_equals_the_loops(table, cache, tmp_path, overrides):
    run, _ = train(table, cache, tmp_path / "run", LARGER, *overrides)
    batch = next(run.loader.batches(0, 1))
    loss = run.losses(run.model, batch, 0).loss
    want = literal_objective(run, batch, 0)
    torch.testing.assert_close(loss, want, rtol=1e-5, atol=0)
    parameters = [p for p in run.model.parameters() if p.requires_grad]
    gradients = [torch.autograd.grad(value, parameters) for value in (loss, want)]
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5 * theirs.abs().max().item() + 1e-9)


def test_every_option_changes_what_is_learned(table, cache, tmp_path):
    options = (
        (),
        ("objective.reduction=sum",),
        ("objective.label_smoothing=0.1",),
        ("objective.negatives=0.5",),
        ("objective.negatives=0.25",),
        ("objective.tokens.keep=0.5",),
        ("objective.tokens.keep=0.25",),
        ("objective.tokens.precision=fp16",),
        ("model.temperature.init=1.0",),
    )
    losses = []
    for number, overrides in enumerate(options):
        run, reporter = train(
            table, cache, tmp_path / str(number), LARGER, "schedule.steps=2", "train.save_every=0", *overrides
        )
        run.run()
        losses.append(reporter.steps[-1][1]["loss"])
    assert len(set(losses)) == len(options)
    assert losses[7] == pytest.approx(losses[0], abs=1e-3), "fp16 changes little"


def test_negatives_are_drawn_by_seed_and_step(table, cache, tmp_path):
    run, _ = train(table, cache, tmp_path / "run", "objective.negatives=0.25")
    codes = torch.zeros(3, 16)
    seats = [run.objective._seats(step, codes).tolist() for step in (0, 1, 0)]
    assert seats[0] == seats[2] != seats[1]
    assert sorted(seats[0]) == list(range(16))
    other = Objective(run.model, run.recipe.objective, seed=run.recipe.train.seed + 1)
    assert other._seats(0, codes).tolist() != seats[0]


def test_a_resumed_run_draws_the_same_negatives_and_tokens(table, cache, tmp_path):
    whole, part = tmp_path / "whole", tmp_path / "part"
    options = [LARGER, "objective.negatives=0.5", "objective.tokens.keep=0.25", "train.keep=9"]
    options += ["schedule.steps=6"]
    train(table, cache, whole, *options)[0].run()
    shutil.copytree(whole, part, symlinks=True)
    shutil.rmtree(part / "checkpoints" / "step-00000006")
    train(table, cache, part, *options, resume=True)[0].run()
    a, b = (load_file(d / "checkpoints" / "step-00000006" / "model.safetensors") for d in (whole, part))
    assert all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("learnable", [True, False])
def test_a_learnable_temperature_moves_and_a_fixed_one_does_not(table, cache, tmp_path, learnable):
    run, reporter = train(
        table,
        cache,
        tmp_path / "run",
        f"model.temperature.learnable={str(learnable).lower()}",
        "model.temperature.init=0.015625",
        "schedule.steps=4",
    )
    before = run.model.log_scale.clone()
    run.run()
    assert torch.equal(run.model.log_scale, before) != learnable
    told = [values["temperature"] for _, values in reporter.steps]
    assert (len(set(told)) > 1) == learnable
    assert told[0] == pytest.approx(1 / 64)


def test_evaluation_sees_all_tokens(table, cache, tmp_path):
    """What is selected for the loss is not what the model encodes."""
    run, _ = train(table, cache, tmp_path / "run", LARGER, "objective.tokens.keep=0.25")
    batch = next(run.loader.batches(0, 1))
    run.model.eval()
    with torch.no_grad():
        image, text, _ = run.model(batch.ids, batch.mask, features=batch.features)
        kept_image, kept_text = select(image, text, run.recipe.objective.tokens)
    assert image.tokens.shape[1] == 16
    assert kept_image.tokens.shape[1] == 4
    assert kept_text.mask.sum(1).tolist() == [math.ceil(n / 4) for n in text.mask.sum(1).tolist()]
    assert kept_text.content_mask.any(1).all()
