"""A batch in chunks, and layers computed twice, against the step that holds everything: the same gradients."""

import dataclasses
import os
import subprocess

import pytest
import torch
from gradients import CASES, step
from test_processes import accelerate_launch
from training_cases import Silent, recipe

from vlcli.errors import UsageError
from vlcli.models.image_tower import ImageFeatures
from vlcli.models.recompute import recompute_layers, statistics, statistics_kept
from vlcli.recipes import load_distill_recipe, load_recipe
from vlcli.training.pretraining import Pretraining

OPTIONS = ("train.evaluate_every=0", "data.workers=0", "model.text.dropout=0.2", "model.text.layers=2")
LARGER = "model.image.preprocess.size=128"
UNLOCKED = ("model.image.locked=false", "data.cache=off")
VIT = (
    "model.image.name=vit_tiny_patch16_224",
    "model.image.arguments={depth = 2, embed_dim = 32, num_heads = 2, drop_path_rate = 0.3}",
    *UNLOCKED,
)
BERT = (
    "model.text.kind=transformers",
    "model.text.encoder={model_type = 'bert', hidden_size = 32, num_hidden_layers = 2, num_attention_heads = 2,"
    " intermediate_size = 64, max_position_embeddings = 64}",
    "model.text.pooling=cls",
)


def make(table, cache, out, *overrides):
    reporter = Silent()
    return Pretraining(recipe(cache, *OPTIONS, *overrides), table, out, reporter, device="cpu"), reporter


def double(batch):
    """The batch, with a locked tower's features in float64."""
    if batch.features is None:
        return dataclasses.replace(batch, pixels=batch.pixels.double())
    return dataclasses.replace(batch, features=ImageFeatures(*(x.double() for x in batch.features)))


def gradients(run, batch, chunk=0):
    """The loss of a step, its gradients, and the running statistics after it; the model stays as it was."""
    train = run.recipe.train.model_copy(update={"chunk": chunk})
    run.recipe = run.recipe.model_copy(update={"train": train})
    before = {name: x.clone() for name, x in run.model.named_buffers()}
    run.model.zero_grad()
    torch.manual_seed(5)
    outcome = run.losses(run.model, batch, 0)
    outcome.backward() if outcome.backward else outcome.loss.backward()
    found = {name: p.grad.clone() for name, p in run.model.named_parameters() if p.grad is not None}
    found |= {name: x.clone() for name, x in run.model.named_buffers()}
    for name, x in run.model.named_buffers():
        x.copy_(before[name])
    return {"loss": outcome.loss.detach(), **outcome.shown, **found}


@pytest.mark.parametrize("case", sorted(CASES))
def test_a_step_in_chunks_is_the_direct_step_in_float64(table, cache, tmp_path, case):
    """Of every objective, with dropout; the last chunk may be short, and one pair alone is a chunk."""
    run, _ = make(table, cache, tmp_path / "run", *CASES[case])
    run.model.double()
    batch = double(next(run.batches(0, 1)))
    direct = gradients(run, batch)
    assert any(name.startswith("reduction.") for name in direct) == ("reduced" in case)
    for chunk in (1, 5, 15):
        cached = gradients(run, batch, chunk)
        assert {"log_scale", "text_projection.weight"} <= direct.keys() == cached.keys()
        torch.testing.assert_close(cached, direct, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("similarity", ["global", "tokenwise", "reduced"])
def test_both_towers_learn_in_chunks(table, cache, tmp_path, similarity):
    tower = [word.replace(", drop_path_rate = 0.3", "") for word in VIT]
    run, reporter = make(table, cache, tmp_path / "run", *tower, f"model.similarity={similarity}")
    run.model.double()
    batch = double(next(run.batches(0, 1)))
    direct, cached = gradients(run, batch), gradients(run, batch, 6)
    assert any(name.startswith("image.body.blocks.1") for name in direct)
    torch.testing.assert_close(cached, direct, rtol=1e-8, atol=1e-12)
    assert not reporter.warnings


def literal_chunks(run, batch, chunk):
    """The features of chunks with one graph over all, towers drawing from torch's generator as they come."""
    from vlcli.models.dual import cat
    from vlcli.objectives.contrastive import total_loss

    run.model.zero_grad()
    torch.manual_seed(5)
    parts = [
        run._forward(run.model, batch, slice(start, start + chunk))
        for start in range(0, len(batch.ids), chunk)
    ]
    images, texts, scales = zip(*parts, strict=True)
    total_loss(run.objective(cat(images), cat(texts), scales[0], batch.codes, batch.local, 0)).backward()
    return {name: p.grad.clone() for name, p in run.model.named_parameters() if p.grad is not None}


def test_towers_that_draw_from_torchs_generator_draw_the_same_twice(table, cache, tmp_path):
    """timm's stochastic depth, transformers' dropout."""
    run, _ = make(table, cache, tmp_path / "run", *VIT, *BERT, "model.similarity=global")
    run.model.double()
    batch = double(next(run.batches(0, 1)))
    cached = gradients(run, batch, 4)
    want = literal_chunks(run, batch, 4)
    assert any(name.startswith("text.body.encoder") for name in want)
    torch.testing.assert_close({name: cached[name] for name in want}, want, rtol=1e-9, atol=1e-12)


def test_batch_normalisation_of_chunks_is_said_and_moves_once(table, cache, tmp_path):
    run, reporter = make(table, cache, tmp_path / "run", *UNLOCKED, "train.chunk=8")
    assert any("train.chunk = 8: batch normalisation sees chunks" in text for text in reporter.warnings)
    run.model.double()
    batch = double(next(run.batches(0, 1)))
    before = {name: x.clone() for name, x in run.model.named_buffers()}
    want = literal_chunks(run, batch, 8)
    moved = {name: x.clone() for name, x in run.model.named_buffers()}
    for name, x in run.model.named_buffers():
        x.copy_(before[name])
    cached = gradients(run, batch, 8)
    torch.testing.assert_close({name: cached[name] for name in want}, want, rtol=1e-8, atol=1e-12)
    torch.testing.assert_close({name: cached[name] for name in moved}, moved, rtol=1e-9, atol=1e-12)
    assert any(not torch.equal(moved[name], before[name]) for name in moved)


TOWERS = {
    "ours": ("text", ()),
    "transformers": ("text", BERT),
    "vit": ("image", VIT),
    "vit-global": ("image", (*VIT, "model.similarity=global")),
    "efficientnet": ("image", UNLOCKED),
    "half-locked": ("text", ("model.text.locked=true", "model.text.unlocked_from=1")),
}


@pytest.mark.parametrize("name", sorted(TOWERS))
def test_layers_computed_twice_give_the_same_gradients(table, cache, tmp_path, name):
    """Bit for bit, dropout, stochastic depth and running statistics included; alone and with chunks."""
    side, overrides = TOWERS[name]
    run, _ = make(table, cache, tmp_path / "run", *overrides)
    batch = next(run.batches(0, 1))
    wanted = [gradients(run, batch, chunk) for chunk in (0, 8)]
    tower = getattr(run.model, side)
    calls = []
    assert recompute_layers(tower) == (
        1 if name == "half-locked" else sum("forward" in m.__dict__ for m in tower.modules())
    )
    for layer in tower.modules():
        if "forward" in layer.__dict__:
            layer.register_forward_pre_hook(lambda *_: calls.append(1))
    for chunk, want in zip((0, 8), wanted, strict=True):
        got = gradients(run, batch, chunk)
        assert got.keys() == want.keys()
        assert all(torch.equal(got[key], want[key]) for key in want)
    assert calls


def saved_bytes(run, batch, chunk=0):
    """What autograd holds on to during a step: the most at any time cannot be had, the sum of a graph can."""
    held = {}

    def keep(x):
        held[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        outcome = run.losses(run.model, batch, 0)
    assert chunk == 0 or outcome.backward
    return sum(held.values())


def test_what_is_held_shrinks(table, cache, tmp_path):
    """A graph of layers computed twice holds a fraction, and a step in chunks no graph of the towers at all."""
    whole = saved_bytes(*prepared(table, cache, tmp_path / "a", *VIT))
    less = saved_bytes(*prepared(table, cache, tmp_path / "b", *VIT, "train.checkpointing=['image', 'text']"))
    assert less < whole / 2
    none = saved_bytes(*prepared(table, cache, tmp_path / "c", *VIT, "train.chunk=4"), chunk=4)
    assert none < whole / 4


def prepared(table, cache, out, *overrides):
    run, _ = make(table, cache, out, *overrides)
    return run, next(run.batches(0, 1))


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (("train.chunk=16",), "train.chunk = 16 has no effect: a process has 16 pairs of each batch"),
        (("train.chunk=15",), None),
    ],
)
def test_a_chunk_that_does_nothing_is_said(table, cache, tmp_path, overrides, said):
    _, reporter = make(table, cache, tmp_path / "run", *overrides)
    assert reporter.warnings == ([said] if said else [])


def test_checkpointing_a_tower_that_learns_nothing_is_refused(table, cache, tmp_path):
    with pytest.raises(UsageError, match="the image tower has no layer that learns"):
        make(table, cache, tmp_path / "run", "train.checkpointing=['image']")
    assert not (tmp_path / "run").exists()


def test_r2d2_has_no_chunks():
    with pytest.raises(UsageError, match=r"train\.chunk: R2D2's losses read more of the towers"):
        load_recipe("emoji-r2d2", ["train.chunk=4"])
    with pytest.raises(UsageError, match=r"train\.chunk: no such key"):
        load_distill_recipe("emoji-altclip-teacher", ["train.chunk=4"])


def test_statistics_are_kept_even_when_something_fails():
    layer = torch.nn.BatchNorm1d(3)
    with pytest.raises(ValueError, match="Expected more than 1 value"), statistics_kept(layer):
        [layer(torch.randn(rows, 3)) for rows in (4, 1)]
    assert layer.running_mean.eq(0).all()
    assert layer.num_batches_tracked == 0
    assert len(statistics(layer)) == 3
    assert not statistics(layer.eval())


def test_a_run_in_chunks_learns_what_a_direct_run_does(table, cache, tmp_path):
    """Through the engine, several steps."""
    told = []
    for name, extra in (("a", ()), ("b", ("train.chunk=6", "train.checkpointing=['text']"))):
        run, reporter = make(table, cache, tmp_path / name, "schedule.steps=4", *extra)
        run.run()
        told.append([values for _, values in reporter.steps])
    for key in ("loss", "i2t_loss", "grad_norm", "temperature"):
        assert [x[key] for x in told[1]] == pytest.approx([x[key] for x in told[0]], rel=1e-4)


def test_two_processes_in_chunks_equal_one_that_holds_everything(tmp_path):
    names = ["uneven", "tokenwise", "selected", "reduced-paper"]
    script = os.path.join(os.path.dirname(__file__), "gradients.py")
    (tmp_path / "two").mkdir()
    changes = ["--set=train.chunk=3", "--set=train.checkpointing=['text']"]
    process = subprocess.run(
        [*accelerate_launch(2), script, tmp_path / "two", tmp_path / "cache", *changes, *names],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        text=True,
        timeout=600,
    )
    assert process.returncode == 0, process.stderr
    two = torch.load(tmp_path / "two" / "results.pt", weights_only=True)
    for name in names:
        one = step(tmp_path / "one" / name, tmp_path / "cache", *CASES[name])
        assert {"loss", "scale", "log_scale", "text_projection.weight"} <= one.keys() == two[name].keys()
        largest = max(gradient.abs().max().item() for gradient in one.values())
        for key, gradient in one.items():
            bound = max(1e-5 * gradient.abs().max().item(), 1e-7 * largest)
            assert (two[name][key] - gradient).abs().max().item() <= bound, f"{name}: {key}"
