"""Real training on sixty-four drawings: resume is bit-identical, NaN stops, the run's files are what design §3 says."""

import json
import os
import shutil

import orjson
import pytest
import torch
from safetensors.torch import load_file
from training_cases import Silent, pairs, recipe

import vlcli
from vlcli.errors import Terminated, UsageError, VlcliError
from vlcli.training.pretraining import Pretraining
from vlcli.training.state import save_state


def train(table, cache, out, *overrides, **options):
    reporter = Silent()
    run = Pretraining(recipe(cache, *overrides), table, out, reporter, device="cpu", **options)
    return run, reporter


def weights(run, step):
    return load_file(run / "checkpoints" / f"step-{step:08d}" / "model.safetensors")


def test_a_run_leaves_what_the_contract_says(table, cache, tmp_path):
    out = tmp_path / "run"
    run, reporter = train(table, cache, out, validation=pairs(20))
    result = run.run()
    assert result["steps"] == 12
    assert (out / "last").readlink().as_posix() == "checkpoints/step-00000012"
    assert (out / "best").resolve() == (out / result["best_checkpoint"]).resolve()
    lines = [orjson.loads(line) for line in (out / "metrics.jsonl").read_bytes().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == list(range(1, 13))
    assert [line["step"] for line in lines if "val" in line] == [4, 8, 12]
    assert lines[0]["loss"] == pytest.approx(torch.log(torch.tensor(16.0)).item(), abs=1.0)
    config = json.loads((out / "last" / "config.json").read_text())
    assert config["kind"] == "dual"
    assert config["recipe"]["name"] == "emoji-lit-filip"
    assert config["lineage"]["split_hash"] == table.split_hash
    assert len(list((out / "checkpoints").glob("step-*"))) <= 3, "keep = 2, and best"
    assert not list((out / "checkpoints").glob(".*")), "no temporary directory stays"
    model = vlcli.load(out)
    assert model.checkpoint_hash
    assert reporter.plans[0]["parameters"]["image"]["trainable"] == 0
    # What is frozen did not move; what is trained did.
    before = train(table, cache, tmp_path / "again")[0].model.state_dict()
    after = model.state_dict()
    assert all(torch.equal(before[n], after[n]) for n in before if n.startswith("image."))
    assert not torch.equal(before["text_projection.weight"], after["text_projection.weight"])


@pytest.mark.parametrize("cached", [True, False], ids=["cached", "pixels"])
def test_resumed_equals_uninterrupted_bit_for_bit(table, cache, tmp_path, cached):
    whole, part = tmp_path / "whole", tmp_path / "part"
    # Dropout and a step in the middle of an epoch: both the generator's state and the position must come back.
    options = ["model.text.dropout=0.3", "train.keep=9", "data.workers=0"]
    options += [] if cached else ["data.cache=off", "data.augment=autoaugment"]
    train(table, cache, whole, *options)[0].run()
    shutil.copytree(whole, part, symlinks=True)
    for step in (9, 12):
        shutil.rmtree(part / "checkpoints" / f"step-{step:08d}")
    damaged = part / "checkpoints" / "step-00000009"
    shutil.copytree(part / "checkpoints" / "step-00000006", damaged)
    file = damaged / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    run, reporter = train(table, cache, part, *options, resume=True)
    assert run.engine.step == 6
    assert "step-00000009 is passed over" in reporter.warnings[0]
    run.run()
    for step in (9, 12):
        a, b = weights(whole, step), weights(part, step)
        assert all(torch.equal(a[name], b[name]) for name in a)
    losses = [
        [orjson.loads(x)["loss"] for x in (d / "metrics.jsonl").read_bytes().splitlines()]
        for d in (whole, part)
    ]
    assert losses[0] == losses[1]


def test_cached_features_train_as_pixels_do(table, cache, tmp_path):
    cached, pixels = tmp_path / "cached", tmp_path / "pixels"
    short = ["schedule.steps=3", "train.save_every=0"]
    a = train(table, cache, cached, *short)
    a[0].run()
    b = train(table, cache, pixels, *short, "data.cache=off", "data.workers=0")
    b[0].run()
    for (_, x), (_, y) in zip(a[1].steps, b[1].steps, strict=True):
        assert x["loss"] == pytest.approx(y["loss"], abs=1e-4)


def test_an_unlocked_tower_moves(table, cache, tmp_path):
    out = tmp_path / "run"
    run, _ = train(table, cache, out, "model.image.locked=false", "schedule.steps=2", "data.workers=0")
    before = {name: x.clone() for name, x in run.model.image.state_dict().items()}
    run.run()
    moved = [n for n, x in run.model.image.state_dict().items() if not torch.equal(x, before[n])]
    assert any(name.endswith("conv_stem.weight") for name in moved)
    assert any("running_mean" in name for name in moved)


@pytest.mark.parametrize("where", ["picture", "loss", "gradient"])
def test_a_nan_stops_with_step_ids_and_the_last_good_checkpoint(table, cache, tmp_path, where):
    out = tmp_path / "run"
    run, _ = train(table, cache, out)
    planted = 4  # as the loop counts, from 0: the fifth
    inner, batches = run.losses, run.loader.batches

    def poisoned(model, batch, step):
        outcome = inner(model, batch, step)
        if step == planted:
            if where == "loss":
                outcome = outcome._replace(loss=outcome.loss * torch.nan)
            if where == "gradient":
                outcome.loss.register_hook(lambda gradient: gradient * torch.inf)
        return outcome

    def spoilt(start, stop):
        for step, batch in enumerate(batches(start, stop), start):
            if step == planted and where == "picture":
                batch.features.tokens[3, 2, 1] = torch.nan
            yield batch

    run.losses, run.loader.batches = poisoned, spoilt
    before = {name: x.clone() for name, x in run.model.state_dict().items()}
    with pytest.raises(VlcliError) as caught:
        run.run()
    rows = run.loader.order.step(planted).rows
    ids = [table.ids[row] for row in rows]
    file = out / "not-finite-step-00000005.txt"
    assert file.read_text().splitlines() == ids
    good = os.path.realpath(out / "checkpoints" / "step-00000003")
    assert str(caught.value) == (
        f"step 5: loss or gradient is not finite; batch of 16 ids {', '.join(ids[:8])}, … (all in {file});"
        f" last good checkpoint: {good}"
    )
    assert (out / "last").readlink().name == "step-00000003"
    after = run.model.state_dict()
    assert all(torch.isfinite(after[name]).all() for name in before), "the weights did not take it in"
    # The run goes on from there; the cause gone, it comes to its end.
    again, _ = train(table, cache, out, resume=True)
    assert again.engine.step == 3
    assert again.run()["steps"] == 12


def test_sigterm_ends_the_step_saves_and_exits(table, cache, tmp_path):
    out = tmp_path / "run"
    run, reporter = train(table, cache, out, "train.save_every=0")
    reporter.step = lambda step, total, values: setattr(run.engine, "stop_signal", step == 5)
    with pytest.raises(Terminated):
        run.run()
    assert (out / "last").readlink().name == "step-00000005"


def test_what_is_refused(table, cache, tmp_path):
    out = tmp_path / "run"
    train(table, cache, out, "schedule.steps=1")[0].run()
    with pytest.raises(UsageError, match="not empty; --resume goes on, --force starts anew"):
        train(table, cache, out)
    with pytest.raises(UsageError, match="--resume: split_hash was"):
        train(pairs(32), cache, out, "schedule.steps=1", f"data.cache={tmp_path / 'features'}", resume=True)
    assert not (tmp_path / "features").exists(), "it is said before all images are encoded"
    with pytest.raises(UsageError, match="--resume: validation was None, is"):
        train(table, cache, out, "schedule.steps=1", validation=pairs(20), resume=True)
    train(table, cache, out, "schedule.steps=1", force=True)
    for other in (tmp_path / "papers", out):
        other.mkdir(exist_ok=True)
        (other / "letter.txt").write_text("dear")
    (out / "recipe.toml").unlink()
    shutil.rmtree(out / "checkpoints")
    with pytest.raises(UsageError, match="not empty, and no run; --force"):
        train(table, cache, tmp_path / "papers", resume=True)


def test_resume_of_a_run_that_has_no_checkpoint_starts_at_its_beginning(table, cache, tmp_path):
    """So that a cluster's job may say --resume from the first time on."""
    out = tmp_path / "run"
    run, reporter = train(table, cache, out, "schedule.steps=1", resume=True)
    assert run.engine.step == 0
    assert reporter.warnings == [f"{out} has no checkpoint yet: the run starts at its beginning"]
    run.run()  # killed after the first lines of its log, say
    shutil.rmtree(out / "checkpoints")
    (out / "last").unlink()
    run, reporter = train(table, cache, out, "schedule.steps=1", resume=True)
    run.run()
    assert len((out / "metrics.jsonl").read_bytes().splitlines()) == 1
    for file in (out / "last").glob("*"):
        file.write_bytes(b"")
    with pytest.raises(UsageError, match="no whole checkpoint to resume from; --force starts anew"):
        train(table, cache, out, "schedule.steps=1", resume=True)


@pytest.mark.parametrize("name", ["model.safetensors", "training.pt", "config.json"])
def test_a_flipped_bit_in_the_newest_checkpoint_is_passed_over(table, cache, tmp_path, name):
    whole, part = tmp_path / "whole", tmp_path / "part"
    train(table, cache, whole, "train.keep=9")[0].run()
    shutil.copytree(whole, part, symlinks=True)
    file = part / "checkpoints" / "step-00000012" / name
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    run, reporter = train(table, cache, part, "train.keep=9", resume=True)
    assert run.engine.step == 9
    assert "step-00000012 is passed over" in reporter.warnings[0]
    run.run()
    assert all(
        torch.equal(a, b)
        for a, b in zip(weights(whole, 12).values(), weights(part, 12).values(), strict=True)
    )


def test_resume_refuses_another_recipe_but_not_other_intervals(table, cache, tmp_path):
    out = tmp_path / "run"
    train(table, cache, out, "schedule.steps=2")[0].run()
    with pytest.raises(
        UsageError, match=r"--resume: optimizer\.lr was 0\.001, is 0\.002; resume with the same"
    ):
        train(table, cache, out, "schedule.steps=2", "optimizer.lr=2e-3", resume=True)
    with pytest.raises(UsageError, match=r"--resume: schedule\.steps was 2, is 3"):
        train(table, cache, out, "schedule.steps=3", resume=True)
    run, _ = train(table, cache, out, "schedule.steps=2", "train.log_every=7", resume=True)
    assert run.engine.step == 2


def test_what_is_refused_leaves_the_directory_as_it_was(table, cache, tmp_path):
    out = tmp_path / "run"
    with pytest.raises(UsageError, match="fewer than one batch"):
        train(table, cache, out, "data.batch_size=4096", f"data.cache={tmp_path / 'features'}")
    assert not out.exists()
    assert not (tmp_path / "features").exists(), "it is said before all images are encoded"
    train(table, cache, out, "schedule.steps=1")[0].run()
    with pytest.raises(UsageError, match="fewer than one batch"):
        train(table, cache, out, "data.batch_size=4096", force=True)
    assert vlcli.load(out)


def test_a_log_line_over_the_resumed_step_averages_all_its_steps(table, cache, tmp_path):
    whole, part = tmp_path / "whole", tmp_path / "part"
    options = ["train.log_every=4", "train.keep=9", "data.workers=0"]
    train(table, cache, whole, *options)[0].run()
    shutil.copytree(whole, part, symlinks=True)
    for step in (9, 12):
        shutil.rmtree(part / "checkpoints" / f"step-{step:08d}")
    train(table, cache, part, *options, resume=True)[0].run()  # from step 6, between the lines of 4 and 8
    lines = [
        [(x["step"], x["loss"], x["grad_norm"]) for x in map(orjson.loads, (d / "metrics.jsonl").open("rb"))]
        for d in (whole, part)
    ]
    assert [step for step, *_ in lines[0]] == [4, 8, 12]
    assert lines[0] == lines[1]


def test_resume_puts_best_back_and_sweeps_what_a_killed_process_left(table, cache, tmp_path):
    out = tmp_path / "run"
    run, reporter = train(table, cache, out, "train.keep=9", validation=pairs(20))
    run.run()
    first = reporter.found[0][0]
    for step in (9, 12):
        shutil.rmtree(out / "checkpoints" / f"step-{step:08d}", ignore_errors=True)
    (out / "checkpoints" / ".step-00000009.1.tmp").mkdir()
    (out / "best").unlink()  # killed between the checkpoint and the link
    state = torch.load(out / "checkpoints" / "step-00000006" / "training.pt", weights_only=True)
    assert state["best_step"] == first == 4
    shutil.rmtree(out / "checkpoints" / "step-00000008", ignore_errors=True)
    train(table, cache, out, "train.keep=9", validation=pairs(20), resume=True)
    assert (out / "best").readlink().name == "step-00000004"
    assert (out / "last").readlink().name == "step-00000006"
    assert not list((out / "checkpoints").glob(".*"))
    shutil.copytree(out / "checkpoints" / "step-00000003", out / "checkpoints" / "step-00000002")
    train(table, cache, out, "train.keep=1", validation=pairs(20), resume=True)  # killed before it pruned
    kept = sorted(place.name for place in (out / "checkpoints").iterdir())
    assert kept == ["step-00000004", "step-00000006"], "the best and the last"
    shutil.rmtree(out / "checkpoints" / "step-00000004")  # and without it, the best is chosen anew
    run, reporter = train(table, cache, out, "train.keep=9", validation=pairs(20), resume=True)
    assert "the best checkpoint is gone" in reporter.warnings[0]
    assert not (out / "best").is_symlink()
    assert run.engine.best == float("-inf")


def test_runs_of_different_precision_in_one_process(table, cache, tmp_path):
    for name in ("fp32", "bf16"):
        run, _ = train(
            table, cache, tmp_path / name, "schedule.steps=1", f"train.precision={name}", "train.save_every=0"
        )
        run.run()
        assert run.engine.accelerator.mixed_precision == {"fp32": "no", "bf16": "bf16"}[name]


def test_features_beyond_the_bound_are_not_cached(table, cache, tmp_path):
    run, reporter = train(table, cache, tmp_path / "run", "data.cache_gib=1e-6", "data.workers=0")
    assert run.store is None
    assert "more than data.cache_gib" in reporter.warnings[0]


def test_tensorboard_holds_what_the_metrics_file_does_also_after_a_resumption(table, cache, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    out = tmp_path / "run"
    options = ["train.keep=9", "train.save_every=3"]
    train(table, cache, out, *options, validation=pairs(20))[0].run()
    for step in (8, 9, 12):  # as if it had been killed after step 8's lines and before its checkpoint
        shutil.rmtree(out / "checkpoints" / f"step-{step:08d}", ignore_errors=True)
    train(table, cache, out, *options, validation=pairs(20), resume=True)[0].run()
    board = EventAccumulator(str(out / "tensorboard"))
    board.Reload()
    lines = [orjson.loads(line) for line in (out / "metrics.jsonl").read_bytes().splitlines()]
    for name in ("loss", "lr", "temperature", "grad_norm"):
        events = {event.step: event.value for event in board.Scalars(name)}
        wanted = {line["step"]: line[name] for line in lines if name in line}
        assert events == pytest.approx(wanted, rel=1e-5)
    events = {event.step: event.value for event in board.Scalars("val/i2t/R@1")}
    assert events == pytest.approx({x["step"]: x["val"]["i2t"]["R@1"] for x in lines if "val" in x}, rel=1e-5)


def test_tensorboard_is_flushed_before_a_checkpoint_is_written(table, cache, tmp_path, monkeypatch):
    """Or a run that is killed after it would lack the lines before it: it goes on behind them."""
    run, _ = train(table, cache, tmp_path / "run", "train.save_every=5")
    seen = []
    monkeypatch.setattr("torch.utils.tensorboard.SummaryWriter.flush", lambda _: seen.append(run.engine.step))
    inner = save_state
    monkeypatch.setattr(
        "vlcli.training.engine.save_state", lambda *a, **k: seen.append("saved") or inner(*a, **k)
    )
    run.run()
    saved = [place for place, what in enumerate(seen) if what == "saved"]
    assert [seen[place - 1] for place in saved] == [5, 10, 12]


def test_a_checkpoint_that_cannot_be_written_is_named(table, cache, tmp_path, monkeypatch):
    out = tmp_path / "run"
    for name in ("vlcli.training.state.save_checkpoint", "torch.save"):
        run, _ = train(table, cache, out, "schedule.steps=1", force=True)

        def full(*_, **__):
            raise RuntimeError("No space left on device\nframe #0: c10::")

        with monkeypatch.context() as patch:
            patch.setattr(name, full)
            with pytest.raises(VlcliError) as caught:
                run.run()
        place = out / "checkpoints" / "step-00000001"
        assert str(caught.value) == (
            f"cannot write {place}: No space left on device; --resume goes on from the last one"
        )
        assert not list((out / "checkpoints").iterdir())


def test_force_replaces_a_run_and_nothing_else(table, cache, tmp_path):
    out = tmp_path / "run"
    train(table, cache, out, "schedule.steps=1")[0].run()
    (out / "letter.txt").write_text("dear")
    (out / "not-finite-step-00000007.txt").touch()
    shutil.rmtree(out / "checkpoints")  # the links lead nowhere
    train(table, cache, out, "schedule.steps=1", force=True)
    assert sorted(path.name for path in out.iterdir()) == ["checkpoints", "letter.txt", "recipe.toml"]
