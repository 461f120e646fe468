"""A plan told before a run is what the run then says and does."""

from pathlib import Path

import pytest
import torch
from training_cases import Silent, pairs, recipe

from vlcli.errors import UsageError
from vlcli.training.plan import Plan
from vlcli.training.pretraining import Pretraining

CPU = torch.device("cpu")


def test_it_is_what_the_run_says_and_leaves(table, cache, tmp_path):
    out, val = tmp_path / "run", pairs(20)
    chosen = recipe(cache, "train.save_every=0", "optimizer.name=adamw")
    plan = Plan(chosen, table, out, validation=val, device=CPU).as_dict()
    assert not out.exists()
    run = Pretraining(chosen, table, out, Silent(), validation=val, device="cpu")
    told = run.engine.plan()
    shared = set(plan) & set(told) - {"feature_cache"}
    assert {"steps", "steps_per_epoch", "parameters", "chance_loss", "peak_lr", "processes"} <= shared
    assert {name: plan[name] for name in shared} == {name: told[name] for name in shared}
    images = len({*table.image_ids, *val.image_ids})
    assert plan["feature_cache"]["bytes"] >= run.store.missing_bytes(images)
    assert plan["feature_cache"]["bytes"] == run.store.missing_bytes(64 + 20), (
        "a picture in both counts twice"
    )
    assert plan["feature_cache"]["folder"] == str(cache / "cache")
    run.run()
    checkpoint = out / "checkpoints" / "step-00000012"
    size = sum((checkpoint / name).stat().st_size for name in ("model.safetensors", "training.pt"))
    assert plan["checkpoints"]["bytes"] == pytest.approx(size, rel=0.1)
    written = {str(path) for path in out.iterdir()}
    assert {*plan["files"]} - written == {str(out / "curves.png")}, "which the command draws"


def test_pairs_and_memory_are_shared_among_processes(table, cache):
    one, two = (
        Plan(recipe(cache), table, Path("x"), device=CPU, processes=processes).as_dict()
        for processes in (1, 2)
    )
    assert (one["pairs_a_process"], two["pairs_a_process"]) == (16, 8)
    assert one["memory"]["activations"] == 2 * two["memory"]["activations"] > 0
    assert one["memory"]["state"] == two["memory"]["state"]
    chunked = Plan(recipe(cache, "train.chunk=4"), table, Path("x"), device=CPU).as_dict()
    assert one["memory"]["activations"] == 4 * chunked["memory"]["activations"]


def test_a_cache_that_would_grow_too_large_is_none(table, cache):
    plan = Plan(recipe(cache, "data.cache_gib=1e-6", "data.workers=0"), table, Path("x"), device=CPU)
    assert not plan.cached
    assert not plan.as_dict()["feature_cache"]["within"]
    assert not any("data.workers" in line for line in plan.warnings), "pictures are read then"
    assert (
        Plan(recipe(cache, "data.cache=off"), table, Path("x"), device=CPU).as_dict()["feature_cache"] is None
    )


def test_a_best_that_nothing_measures_is_refused(table, cache):
    chosen = recipe(cache, "train.best=zeroshot.top1")
    with pytest.raises(UsageError, match="--val-label-column NAME"):
        Plan(chosen, table, Path("x"), validation=pairs(20), device=CPU)
    assert any("without --val" in line for line in Plan(chosen, table, Path("x"), device=CPU).warnings)
    bare = pairs(20)
    bare.texts = [[] for _ in bare.texts]
    with pytest.raises(UsageError, match="has no text"):
        Plan(recipe(cache), table, Path("x"), validation=bare, device=CPU)
