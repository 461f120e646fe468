"""`finetune --task classify` on the command line: what it says and writes, and what is refused."""

import json

import numpy as np
import pytest
from labelled_squares import model_of, read, run, squares, write

from vlcli.models.checkpoint import save_checkpoint
from vlcli.models.quickcheck import check_run

SHORT = ("schedule.steps=4", "data.batch_size=4", "data.workers=0", "train.evaluate_every=2")
SET = [word for setting in SHORT for word in ("--set", setting)]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Noisy squares of three colours in three tables, and a tower that learnt nothing."""
    here = tmp_path_factory.mktemp("classify")
    save_checkpoint(model_of(), here / "dual", recipe={}, lineage={})
    squares(here, {"train": 12, "val": 6, "test": 6}, 60, absolute=True)
    return here


def task(place, *more, recipe="emoji-classify"):
    words = ("--task", "classify", "--recipe", recipe, "--data", place / "train.jsonl", "--device", "cpu")
    return ("finetune", place / "dual", *words, *SET, *more)


def test_three_runs_say_what_chose_them_and_their_mean(place, tmp_path, capsys):
    out = tmp_path / "run"
    rows = ("--val", place / "val.jsonl", "--test", place / "test.jsonl")
    assert run(*task(place, *rows, "--runs", "3", "--seed", "5", "-o", out)) == (0, "")
    said = capsys.readouterr()
    assert f"{place / 'val.jsonl'} (val, 6 rows) chooses the step" in said.err
    assert said.err.index("the head alone") < said.err.index("the probed head, before step 1 of all layers")
    assert said.err.count("the probed head, before step 1") == 3
    assert "mean ± sd of 3 runs" in said.out
    assert "seeds 5, 6, 7" in said.out
    found = json.loads((out / "runs.json").read_text())
    assert (found["on"], [one["seed"] for one in found["runs"]]) == ("test", [5, 6, 7])
    for one in found["runs"]:
        place_of = out / f"seed-{one['seed']}"
        assert not check_run(place_of, deep=True).findings
        assert run("zeroshot", place_of, "--data", place / "test.jsonl", "--json") == (0, "")
        assert json.loads(capsys.readouterr().out)["top1"] == one["top1"]
    values = [one["top1"] for one in found["runs"]]
    assert found["mean"]["top1"] == pytest.approx(np.mean(values))
    assert found["sd"]["top1"] == pytest.approx(np.std(values, ddof=1))


def test_a_search_is_named_and_its_choice_written(place, tmp_path, capsys):
    out = tmp_path / "run"
    few = (
        "trials.count=2",
        'trials.grid={"all.lr" = [0.1, 0.01], "all.size" = [32, 64]}',
        "train.precision=fp32",
    )
    words = [word for setting in few for word in ("--set", setting)]
    assert run(*task(place, *words, "--val", place / "val.jsonl", "-o", out, recipe="vtab")) == (0, "")
    said = capsys.readouterr().err
    assert "(val, 6 rows) chooses the trial" in said
    assert "trial 2 of 2" in said
    trials = read(out / "trials.jsonl")
    [chosen] = [trial for trial in trials if trial["chosen"]]
    config = json.loads((out / "last" / "config.json").read_text())
    assert config["recipe"]["all"]["lr"] == chosen["settings"]["all.lr"]
    assert config["architecture"]["image"]["preprocess"]["size"] == chosen["settings"]["all.size"]
    assert config["lineage"]["rows"] == 18


def test_what_cannot_be_is_one_line_and_leaves_nothing(place, tmp_path):
    rows = read(place / "val.jsonl")
    write(tmp_path / "more.jsonl", [*rows[1:], {**rows[0], "label": "mauve"}])
    write(tmp_path / "one.jsonl", [{**row, "label": "red"} for row in rows])
    out = tmp_path / "out"
    fewer = [row for row in read(place / "train.jsonl") if row["label"] != "blue"]
    write(tmp_path / "fewer.jsonl", fewer)
    val = ("--val", place / "val.jsonl")
    start = ("finetune", place / "dual", "--task", "classify")
    for line, code, said in (
        (task(place, "--val", tmp_path / "more.jsonl"), 3, "'mauve' is in no training row"),
        ((*start, "--data", tmp_path / "fewer.jsonl", *val), 3, "'blue' is in no training row"),
        ((*start, "--data", tmp_path / "one.jsonl"), 3, "nothing to tell apart"),
        (task(place, "--val", place / "train.jsonl"), 2, "train and val rows are the same"),
        (task(place, *val, "--test", place / "val.jsonl"), 2, "val and test rows are the same"),
        (task(place, "--set", "all.size=33"), 2, "pictures of 33 pixels are no whole number of patches"),
        (task(place, "--set", "head.lrr=1"), 2, "did you mean 'lr'"),
        (task(place, "--l2", "1"), 2, "--task classify has no --l2"),
        (task(place, recipe="vtab"), 2, "nothing chooses among trials; name rows with --val"),
        (task(place, recipe="filip-retrieval"), 2, "is not of --task classify"),
        (task(place, "--resume", "--force"), 2, "exclude each other"),
        ((*start[:2], "--recipe", "vtab", "--data", place / "train.jsonl"), 2, "is of --task classify"),
        ((*start[:2], "--runs", "2", "--data", place / "train.jsonl"), 2, "--task retrieval has no --runs"),
    ):
        found, told = run(*line, "-o", out)
        assert (found, said in told) == (code, True), (line, found, told)
        assert "\n" not in told
        assert not out.exists()


def test_a_dry_run_plans(place, tmp_path, capsys):
    assert run(*task(place, "-n", "-o", tmp_path / "out")) == (0, "")
    said = capsys.readouterr().out
    assert said.startswith("# 12 train rows, 3 classes, 2 × 4 steps of 4; would write")
    assert "stages = [" in said
    assert not (tmp_path / "out").exists()
