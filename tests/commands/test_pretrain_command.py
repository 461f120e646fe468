"""The pretrain command's own decisions: the plan, missing weights, options that exclude each other."""

import json
import subprocess
import tomllib
from pathlib import Path

import polars as pl
import pytest

from vlcli.cli import app
from vlcli.errors import Terminated, UsageError

ROOT = Path(__file__).parents[2]
CORPUS = ROOT / "examples" / "emoji" / "raw.parquet"
TINY = (
    "model.dim=16",
    "model.image.init=random",
    "model.image.preprocess.size=32",
    "model.text.width=16",
    "model.text.layers=1",
    "model.text.heads=2",
    "data.batch_size=8",
    "schedule.steps=3",
    "schedule.warmup_steps=1",
    "train.precision=fp32",
    "train.log_every=1",
    "train.save_every=0",
)


@pytest.fixture
def pretrain(programs_of_models, tmp_path):
    def run(*arguments):
        return subprocess.run(
            [str(programs_of_models / "vlcli"), "pretrain", *map(str, arguments)],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={"PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"},
        )

    return run


def test_a_dry_run_prints_recipe_and_plan_and_writes_nothing(pretrain, tmp_path):
    done = pretrain(
        "--recipe", "emoji-lit-filip", "--data", CORPUS, "--map", "text=name", "--head", 600, "-n"
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert tomllib.loads(done.stdout)["name"] == "emoji-lit-filip"
    lines = [line for line in done.stdout.splitlines() if line.startswith("#")]
    assert lines[0].startswith("# 600 pairs, 30 steps of 256")
    assert lines[1].startswith("# 1 process(es) of 256 pairs, in ")
    text = "\n".join(lines)
    assert "memory of a process: " in text
    assert "features of the locked image tower: at most " in text
    assert "# warning: train.save_every = 100 has no effect: the run has 30 steps" in text
    assert "# warning: train.evaluate_every and train.best have no effect without --val" in text
    assert "runs/emoji-lit-filip/curves.png" in text
    assert not list(tmp_path.iterdir())


def test_a_plan_as_json(pretrain, tmp_path):
    done = pretrain(
        "--recipe", "emoji-lit-filip", "--data", CORPUS, "--map", "text=name", "--head", 600, "-n", "--json"
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["recipe"]["name"] == "emoji-lit-filip"
    assert (said["plan"]["pairs"], said["plan"]["steps"]) == (600, 30)
    assert said["plan"]["fate"] == "would write runs/emoji-lit-filip"
    assert len(said["plan"]["warnings"]) == 4, said["plan"]["warnings"]
    assert not list(tmp_path.iterdir())


def test_a_mixture_is_planned_by_weight(pretrain, tmp_path):
    other = tmp_path / "other:1.parquet"
    other.symlink_to(CORPUS)
    done = pretrain(
        "--recipe", "emoji-lit-filip", "--data", f"{CORPUS}:0.75,{other}:0.25", "--map", "text=name",
        "--head", 600, "--set", "data.epoch_pairs=2400", "--set", "schedule.epochs=1", "-n"
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    plan = [line for line in done.stdout.splitlines() if line.startswith("#")]
    assert plan[0].startswith("# 1200 pairs, 9 steps of 256")
    assert plan[1:3] == [
        f"#   {CORPUS}: 1800 pairs an epoch, each 3 times",
        f"#   {other}: 600 pairs an epoch, each 1 times",
    ]
    for wrong in (f"{CORPUS}:1,{other}", f"{CORPUS}:0"):
        assert pretrain("--recipe", "emoji-lit-filip", "--data", wrong, "-n").returncode in (2, 3)


def test_missing_initial_weights_are_said_at_once(pretrain, tmp_path):
    done = pretrain("--recipe", "lit-filip", "--data", tmp_path / "nowhere")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "OpenAI CLIP ViT-L/14 (https://github.com/openai/CLIP)" in done.stderr
    assert "--init image=PATH" in done.stderr
    assert not list(tmp_path.iterdir())


def test_force_and_resume_exclude_each_other(pretrain, tmp_path):
    done = pretrain("--recipe", "emoji-lit-filip", "--force", "--resume")
    assert done.returncode == 2
    assert "exclude each other" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "cause"),
    [
        (["--val-labels", "x"], "--val-label-column and --val-labels are of the rows of --val"),
        (["--val", CORPUS, "--val-prompts", "none"], "--val-prompts is for classes"),
        (["--profile", "2", "-n"], "--profile takes steps of training alone"),
        (["--track", "mlflow"], "train.trackers"),
    ],
)
def test_options_that_need_others(pretrain, tmp_path, arguments, cause):
    done = pretrain(
        "--recipe", "emoji-lit-filip", "--data", CORPUS, "--map", "text=name", "--head", 300, *arguments
    )
    assert done.returncode == 2
    assert cause in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.fixture
def train(tmp_path, monkeypatch):
    """A run of three steps in this process, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VLCLI_CACHE", str(tmp_path / "cache"))

    def run(*arguments):
        settings = [word for setting in TINY for word in ("--set", setting)]
        line = [
            "pretrain",
            "--recipe",
            "emoji-lit-filip",
            "--data",
            CORPUS,
            "--map",
            "text=name",
            "--head",
            16,
        ]
        line += [*settings, "--device", "cpu", *arguments]
        return app([str(word) for word in line], prog_name="vlcli", standalone_mode=False)

    return run


def test_a_run_says_its_loss_beside_chance_and_draws_its_curves(train, tmp_path, capsys):
    pl.read_parquet(CORPUS, n_rows=12).write_parquet(tmp_path / "val.parquet")
    val = ["--val", "val.parquet", "--val-label-column", "group_zh", "--val-prompts", "none"]
    assert not train(
        "-v", "--json", "-o", "run", "--set", "train.best=zeroshot.top1", *val, "--track", "none"
    )
    out, err = capsys.readouterr()
    assert json.loads(out)["steps"] == 3
    assert "loss by chance 2.08" in err
    assert " of 2.08 lr " in err
    assert "zero-shot top-1/5 " in err
    assert "warning: model.image.locked: the image tower starts at random" in err
    assert (tmp_path / "run" / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert not (tmp_path / "run" / "tensorboard").exists()
    assert not app(["visualize", "run", "--method", "curves"], prog_name="vlcli", standalone_mode=False)
    assert (tmp_path / "run.curves.png").read_bytes() == (tmp_path / "run" / "curves.png").read_bytes()
    with pytest.raises(UsageError, match="exists"):
        app(["visualize", "run", "--method", "curves"], prog_name="vlcli", standalone_mode=False)
    with pytest.raises(UsageError, match="of the options, -o and --force are for it"):
        app(["visualize", "run", "--method", "curves", "--json"], prog_name="vlcli", standalone_mode=False)


def test_a_run_that_is_stopped_draws_what_there_is(train, tmp_path, monkeypatch, capsys):
    from vlcli.training.pretraining import Pretraining

    def stopped(run):
        (run.engine.out / "metrics.jsonl").write_text('{"step": 1, "loss": 2.0}\n')
        raise Terminated

    monkeypatch.setattr(Pretraining, "run", stopped)
    with pytest.raises(Terminated):
        train("-o", "run")
    assert (tmp_path / "run" / "curves.png").is_file()
    monkeypatch.setattr("vlcli.figures.fonts.find_spec", lambda name: None)  # without the extra for figures
    monkeypatch.setattr("vlcli.figures.fonts.INSTALLED", ())
    capsys.readouterr()
    with pytest.raises(Terminated):
        train("-o", "run", "--force", "-q")
    with pytest.raises(Terminated):
        train("-o", "run", "--force")
    notes = [line for line in capsys.readouterr().err.splitlines() if "curves.png" in line]
    assert notes == [
        "vlcli pretrain: no curves.png: no font with Chinese glyphs is installed; pip install 'vlcli[figures]'"
    ]


def test_a_profile_is_a_table_or_json_and_leaves_no_run(train, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("vlcli.training.profile.matmul_speed", lambda *_: 1e9)
    assert not train("--profile", 1)
    out = capsys.readouterr().out
    for words in (
        "pairs/s",
        "utilisation",
        "time: text tower",
        "time: backward",
        "GFLOP/s of a matrix product",
    ):
        assert words in out
    assert not train("--profile", 1, "--json")
    found = json.loads(capsys.readouterr().out)
    assert found["batch_size"] == 8
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]
