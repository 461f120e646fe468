"""The pretrain command's own decisions: the plan, missing weights, options that exclude each other."""

import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CORPUS = ROOT / "examples" / "emoji" / "raw.parquet"


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
    assert done.stdout.startswith("# 600 pairs, 30 steps of 256")
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
    assert plan[1:] == [
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
