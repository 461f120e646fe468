"""R2D2's objective in training: what its literal self says of each part, on two processes, resumed, at its limits."""

import os
import subprocess
from collections import Counter
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from r2d2_cases import CASES, PATCHES, R2D2, Literal, recipe, run_of, step
from safetensors.torch import load_file
from test_processes import accelerate_launch
from training_cases import pairs

import vlcli
from vlcli.errors import UsageError
from vlcli.models.flops import FlopCounter
from vlcli.objectives import matching
from vlcli.recipes import load_recipe
from vlcli.training.loader import draw_text, fields_of, generator
from vlcli.training.r2d2_cost import step_flops

ABLATIONS = {
    "whole": (),
    "argmax, global": (f"{R2D2}.matching.negatives=argmax", f"{R2D2}.matching.scope=global"),
    "weighted": (
        f"{R2D2}.matching.positive_weight=2.0",
        f"{R2D2}.matching.weight=0.5",
    ),
    "negatives unmasked": (f"{R2D2}.masked_language.masked_negatives=false",),
    "momentum columns": (f"{R2D2}.target_distillation.columns=momentum",),
    "w/o ET": (f"{R2D2}.masked_language.enhanced=false",),
    "w/o MLM": (f"{R2D2}.masked_language.weight=0", "model.ranking.mask_head=false"),
    "w/o TgD": (f"{R2D2}.target_distillation.enabled=false",),
    "w/o FgD": (f"{R2D2}.feature_distillation.weight=0",),
    "patches": PATCHES,
}
PARTS = ("pre_ranking_loss", "matching_loss", "words_loss", "features_loss")


@pytest.fixture(scope="module")
def same_cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


def assert_is_its_literal_self(run, shares=1, steps=2):
    """Steps of a run's objective beside the literal one: parts, gradients, and what they keep."""
    config = run.recipe.objective.r2d2
    literal = Literal(run.model, config, seed=run.recipe.train.seed, shares=shares)
    parameters = [p for p in run.model.parameters() if p.requires_grad]
    losses = []
    for number, batch in enumerate(run.batches(0, steps)):
        parts, want = run.objective(run.model, batch, number), literal.parts(batch, number)
        assert parts.keys() == want.keys()
        for name, value in parts.items():
            torch.testing.assert_close(value, want[name].to(value.dtype), rtol=2e-5, atol=1e-6, msg=name)
        gradients = [
            torch.autograd.grad(sum(x.values()), parameters, allow_unused=True) for x in (parts, want)
        ]
        for ours, theirs in zip(*gradients, strict=True):
            assert ours is not None, "every parameter learns"
            theirs = torch.zeros_like(ours) if theirs is None else theirs
            bound = 1e-4 * theirs.abs().max().item() + 2e-6
            torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=bound)
        with torch.no_grad():
            for parameter, gradient in zip(parameters, gradients[0], strict=True):
                parameter -= 0.05 * gradient
        run.stepped()
        literal.stepped()
        losses.append({name: x.item() for name, x in parts.items()})
    for side, centre in literal.centres.items():
        torch.testing.assert_close(run.objective.centres[side], centre, rtol=1e-4, atol=1e-6)
    if run.objective.queue is not None and literal.queue:
        held = run.objective.queue
        assert int(held.filled.sum()) == len(literal.queue)
        torch.testing.assert_close(
            held.weights[held.filled].sort().values, torch.tensor([x[3] for x in literal.queue]).sort().values
        )
    return losses


@pytest.mark.parametrize("name", ABLATIONS)
def test_every_part_of_two_steps_is_what_its_literal_self_says(name, same_cache, tmp_path):
    run = run_of(same_cache, tmp_path / "run", *ABLATIONS[name])
    assert all(len(parts) > 1 for parts in assert_is_its_literal_self(run))


def test_prd2_is_the_towers_alone(same_cache, tmp_path):
    run = run_of(same_cache, tmp_path / "run", name="emoji-prd2")
    assert assert_is_its_literal_self(run)[0].keys() == {"pre_ranking_loss", "features_loss"}
    assert run.model.config.kind == "dual"


@pytest.fixture(scope="module")
def two_processes(same_cache, tmp_path_factory):
    out = tmp_path_factory.mktemp("two")
    run = subprocess.run(
        [*accelerate_launch(2), Path(__file__).with_name("r2d2_cases.py"), out, same_cache],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        text=True,
        timeout=900,
    )
    assert run.returncode == 0, run.stderr
    return torch.load(out / "results.pt", weights_only=True)


@pytest.mark.parametrize("name", CASES)
def test_two_processes_are_one(name, two_processes, same_cache, tmp_path, monkeypatch):
    """Of scope "local", one process that looks for negatives half by half."""
    if "local" in name:
        whole = matching.hard_negatives

        def half_by_half(logits, positives, draws=None):
            half = torch.arange(len(logits)) // max(1, len(logits) // 2)
            return whole(logits, positives | (half[:, None] != half[None]), draws)

        monkeypatch.setattr("vlcli.training.r2d2_objective.hard_negatives", half_by_half)
    one, two = step(tmp_path / "one", same_cache, *CASES[name]), two_processes[name]
    assert one.keys() == two.keys()
    assert {"loss", "pre_ranking_loss", "log_scale", "text_projection.weight"} <= one.keys()
    largest = max(x.abs().max().item() for key, x in one.items() if not key.endswith("loss"))
    for key, value in one.items():
        bound = 2e-5 * value.abs().max().item() + (0 if key.endswith("loss") else 1e-6 * largest)
        apart = (two[key] - value).abs().max().item()
        assert apart <= bound, f"{key} differs by {apart:g}, more than {bound:g}"


def test_a_run_that_goes_on_is_the_run_that_never_stopped(same_cache, tmp_path):
    """Bit for bit: weights, queue, centres, momentum copies."""
    options = (
        "train.save_every=3",
        "schedule.steps=7",
        "model.ranking.dropout=0.1",
        "model.text.dropout=0.1",
    )
    run_of(same_cache, tmp_path / "whole", *options).run()
    stopped = run_of(same_cache, tmp_path / "stopped", *options)
    stopped.engine.stop_signal = False
    before, count = stopped.stepped, []

    def stop_in_the_middle():
        before()
        count.append(1)
        if len(count) == 5:
            raise KeyboardInterrupt

    stopped.stepped = stop_in_the_middle
    with pytest.raises(KeyboardInterrupt):
        stopped.run()
    run_of(same_cache, tmp_path / "stopped", *options, resume=True).run()
    places = [tmp_path / name / "last" for name in ("whole", "stopped")]
    one, two = (load_file(place / "model.safetensors") for place in places)
    assert all(torch.equal(x, two[name]) for name, x in one.items())
    states = [torch.load(place / "training.pt", weights_only=True)["task"] for place in places]
    assert states[0].keys() == states[1].keys() == {"bad", "centres", "teacher", "queue"}
    for part, held in states[0].items():
        for name, x in held.items():
            assert torch.equal(torch.as_tensor(x), torch.as_tensor(states[1][part][name])), f"{part} {name}"
    moved = states[0]["teacher"]["text_projection.weight"]
    assert not torch.equal(moved, one["text_projection.weight"]), "the teacher lags behind"


def test_a_checkpoint_is_an_r2d2_whose_towers_retrieve(same_cache, tmp_path):
    run_of(same_cache, tmp_path / "run", "schedule.steps=2").run()
    model = vlcli.load(tmp_path / "run")
    assert model.config.kind == "r2d2"
    assert model.ranking is not None
    ids, mask = model.tokenize(["狐狸", "fox"])
    assert model.encode_text(ids, mask).pooled.shape == (2, 16)


@pytest.mark.parametrize("enhanced", [True, False])
def test_a_step_costs_what_its_shapes_say(enhanced, same_cache, tmp_path):
    """Texts as long as the context, pictures from the cache: of the image tower there is the projection alone."""
    overrides = ("model.text.context=9", f"{R2D2}.masked_language.enhanced={str(enhanced).lower()}")
    run = run_of(same_cache, tmp_path / "run", *overrides)
    model, batch = run.model, next(run.batches(0, 1))
    n, config = len(batch.ids), run.recipe.objective.r2d2
    batch.ids = torch.full((n, 9), 1000)
    batch.ids[:, 0], batch.ids[:, -1] = model.tokenizer.cls_id, model.tokenizer.sep_id
    batch.mask = torch.ones(n, 9).bool()
    with FlopCounter() as text:
        model.text_vector(model.text_states(batch.ids, batch.mask), batch.ids, batch.mask)
    with FlopCounter() as count:
        run.objective(model, batch, 0)
    image = 2 * model.image.width * model.config.dim
    parts = step_flops(model, config, image_flops=image, text_flops=text.forward // n)
    columns = n + config.target_distillation.queue
    products = 2 * model.config.dim * n * (2 * 2 * columns + 2 * n)  # pre-ranking, and looking for negatives
    assert count.forward == n * sum(parts.values()) + products
    assert parts["words"] > 0


# --- limits ------------------------------------------------------------------------------------------------


def finite(parts):
    assert all(torch.isfinite(x) for x in parts.values()), parts
    sum(parts.values()).backward()


@pytest.mark.parametrize("negatives", ["argmax", "multinomial"])
def test_a_batch_of_one_identity_has_no_negatives(negatives, same_cache, tmp_path):
    run = run_of(same_cache, tmp_path / "run", f"{R2D2}.matching.negatives={negatives}")
    batch = next(run.batches(0, 1))
    batch.codes[0] = 7
    parts = run.objective(run.model, batch, 0)
    want = Literal(run.model, run.recipe.objective.r2d2, seed=0).parts(batch, 0)
    torch.testing.assert_close(parts["matching_loss"], want["matching_loss"], rtol=1e-5, atol=1e-6)
    finite(parts)
    finite(run.objective(run.model, batch, 1))  # all that is queued is its own


def test_a_queue_larger_than_the_corpus_holds_no_negative_of_itself(same_cache, tmp_path):
    run = run_of(same_cache, tmp_path / "run", f"{R2D2}.target_distillation.queue=100", "schedule.epochs=4")
    assert len(assert_is_its_literal_self(run, steps=5)) == 5
    assert run.run()["steps"] == run.total


def test_texts_without_a_word_to_mask_are_left_alone(same_cache, tmp_path):
    run = run_of(same_cache, tmp_path / "run", f"{R2D2}.masked_language.enhanced=false")
    batch = next(run.batches(0, 1))
    batch.ids, batch.mask = batch.ids[:, :2].clone(), batch.mask[:, :2].clone()
    batch.ids[:, 1] = run.model.tokenizer.sep_id
    parts = run.objective(run.model, batch, 0)
    assert parts["words_loss"].item() == 0
    finite(parts)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (("model.ranking.mask_head=false",), "masked_language: wants model.ranking.mask_head"),
        ((f"{R2D2}.matching.weight=0",), "model.ranking would learn nothing"),
        (("model.patch_mask=true",), "model.patch_mask would learn nothing"),
        (("model.similarity=tokenwise",), "similarity must be global"),
        (("model.ranking.heads=5",), "is not a multiple of ranking.heads 5"),
        ((f"{R2D2}.feature_distillation.share=0.3",), "one text is masked once"),
        (("objective.label_smoothing=0.1",), "has neither label_smoothing"),
    ],
)
def test_what_does_not_fit_together_is_one_line(overrides, words, tmp_path):
    with pytest.raises(UsageError, match=words.replace(".", r"\.")):
        recipe(tmp_path, *overrides)


def test_an_image_tower_without_patch_embeddings_cannot_mask_them(tmp_path):
    overrides = (*PATCHES[1:], "model.image.name=tf_efficientnet_lite0")
    with pytest.raises(UsageError, match="no embeddings of patches"):
        run_of(tmp_path / "cache", tmp_path / "run", *overrides)


def test_a_ranking_part_without_its_objective_is_refused():
    with pytest.raises(UsageError, match=r"only objective\.r2d2 trains it"):
        load_recipe(
            "emoji-lit-clip",
            [
                "model.ranking={layers=1, heads=4}",
                "model.text={kind='transformers', name='bert-mini', pooling='cls'}",
            ],
        )


# --- ZERO's fields -----------------------------------------------------------------------------------------


def test_fields_are_drawn_uniformly_whatever_the_number_of_their_texts(same_cache, tmp_path):
    """A title, a content, and many queries: each field a third of the steps, anew in each epoch."""
    table = pairs(18)
    queries = "，".join(f"丙{k}" for k in range(15))
    rows = [{"title": f"甲{i}", "content": f"乙{i}", "image_query": queries} for i in range(18)]
    rows[0] = {"title": None, "content": " ", "image_query": None}
    rows[1] = {"title": "only", "content": None, "image_query": None}
    table.frame = pl.DataFrame(rows)
    run = run_of(same_cache, tmp_path / "run", "data.draw=['field']", table=table)
    fields = fields_of(table, np.arange(18))
    assert fields[2] == [["甲2"], ["乙2"], [f"丙{k}" for k in range(15)]]
    assert fields[0] == []
    drawn = run.model.tokenizer.tokens(next(run.batches(0, 1)).ids.flatten().tolist())
    assert set("甲乙丙") & set(drawn), "batches are drawn of them"
    counts = Counter()
    for epoch in range(300):
        for row in range(2, 12):
            rng = generator(0, epoch, table.ids[row], "text")
            counts[draw_text(table, row, run.recipe.data, rng, fields[row])[0]] += 1
    assert all(900 < counts[first] < 1100 for first in "甲乙丙"), counts
    rng = generator(0, 0, "x", "text")
    assert draw_text(table, 0, run.recipe.data, rng, fields[0]) in table.texts[0]
    assert draw_text(table, 1, run.recipe.data, rng, fields[1]) == "only"
