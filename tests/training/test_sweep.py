"""A grid of runs: its points, its processes, and what they come to."""

import os
import signal
import statistics
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlcli.errors import InputError, UsageError
from vlcli.training.sweep import Axis, Run, make, parse_axis, parse_evaluation, parse_variants
from vlcli.training.sweep_runs import claim, measuring_command, run_all, training_command
from vlcli.training.sweep_table import Cell, tabulate

ROOT = Path(__file__).parents[2]
COMMAND = ["pretrain", "--recipe", "r", "--data", "d"]
# What stands in for vlcli: it trains by writing down its settings, and measures by reading them.
STAND_IN = textwrap.dedent(
    """
    import json, os, pathlib, sys, time

    words = sys.argv[1:]
    def of(option):
        return words[words.index(option) + 1] if option in words else None
    settings = dict(words[i + 1].split("=", 1) for i, word in enumerate(words) if word == "--set")
    with open(os.environ["CALLS"], "a") as calls:
        calls.write(json.dumps(words) + "\\n")
    if words[0] == "pretrain":
        run = pathlib.Path(of("-o"))
        (run / "best").mkdir(parents=True, exist_ok=True)
        if settings.get("a.fails") == "yes":
            print("vlcli pretrain: it broke", file=sys.stderr)
            sys.exit(int(os.environ.get("CODE", "1")))
        if "WAIT" in os.environ:
            (run / "waits").write_text(str(os.getpid()))
            time.sleep(60)
        (run / "settings.json").write_text(json.dumps([settings, int(of("--seed"))]))
        (run / "best" / "results.jsonl").write_text(json.dumps({"MR": 1.0 + int(of("--seed"))}) + "\\n")
    else:
        settings, seed = json.loads((pathlib.Path(words[1]) / "settings.json").read_text())
        value = float(settings.get("a.b", 0)) + seed
        print(json.dumps({"i2t": {"R@1": value}, "t2i": {"R@1": 2 * value}, "MR": 3 * value, "n": 7}))
    """
)


class Said:
    def __init__(self):
        self.lines = []

    def started(self, run, stage):
        self.lines.append(("started", run.name, stage))

    def ended(self, run, note, seconds):
        assert seconds >= 0
        self.lines.append(("ended", run.name))

    def failed(self, run, cause):
        self.lines.append(("failed", run.name, cause))


@pytest.fixture
def calls(tmp_path, monkeypatch):
    """Every command line that was run, first to last."""
    package = tmp_path / "stand-in" / "vlcli"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "__main__.py").write_text(STAND_IN)
    monkeypatch.setenv("PYTHONPATH", str(package.parent))
    monkeypatch.chdir(package.parent)  # python -m looks there first
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    (tmp_path / "calls").write_text("")
    return lambda: [orjson.loads(line) for line in (tmp_path / "calls").read_bytes().splitlines()]


def swept(folder, sweep, **how):
    said = Said()
    claim(folder, sweep, force=how.get("anew", False))
    failed = run_all(sweep, sweep.runs(), folder, said, **how)
    return failed, said.lines


def test_the_grid_is_the_product_of_axes_variants_and_seeds():
    sweep = make(
        COMMAND,
        ["model.dim=1,2", "head=10,20"],
        ["plain:", "odd: a.b=1 c.d=[1, 2]".replace(", ", ",")],
        "0,3",
        ["t: retrieve --data x"],
    )
    runs = sweep.runs()
    assert [run.seed for run in runs] == [0] * 8 + [3] * 8, "a seed is whole before the next begins"
    assert [tuple(run.at.values()) for run in runs[:8]] == [
        (variant, dim, head) for variant in ("plain", "odd") for dim in "12" for head in ("10", "20")
    ]
    assert runs[5].options() == [
        *("--set", "a.b=1", "--set", "c.d=[1,2]", "--set", "model.dim=1", "--head", "20", "--seed", "0")
    ]
    assert training_command(sweep, runs[0], Path("o")) == [
        *COMMAND, *runs[0].options(), "-o", f"o/{runs[0].name}", "--resume",
    ]  # fmt: skip
    assert measuring_command(sweep.evaluations[0], runs[0], Path("o")) == [
        "retrieve", f"o/{runs[0].name}", "--data", "x", "--json",
    ]  # fmt: skip


def test_without_an_axis_there_is_one_run_a_seed():
    assert [run.name for run in make(COMMAND, [], [], "0,1", []).runs()] == ["run,seed=0", "run,seed=1"]


def test_commas_inside_brackets_and_quotes_are_the_values_own():
    assert list(parse_axis('data.draw=["text"],["text","candidates"]').values) == [
        '["text"]',
        '["text","candidates"]',
    ]
    assert list(parse_axis("a.b='x,y',z").values) == ["'x,y'", "z"]


@given(st.lists(st.text(min_size=1, max_size=300), min_size=2, max_size=6, unique=True))
def test_names_of_runs_differ_as_their_places_do_and_are_names_of_files(values):
    names = [Run({"variant": value}, 0, ()).name for value in values]
    assert len(set(names)) == len(names)
    assert all("/" not in name and "\0" not in name and len(name.encode()) < 250 for name in names)


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"command": []}, "no training command"),
        ({"command": ["shard"]}, "does not train"),
        ({"command": [*COMMAND, "-o", "x"]}, "sweep -o DIR"),
        ({"command": [*COMMAND, "--seed=3"]}, "every run of a sweep has its own"),
        ({"grid": ["model.dim"]}, "is not KEY=VALUE"),
        ({"grid": ["model.dim=1,,2"]}, "an empty value"),
        ({"grid": ["model.dim=1,1"]}, "a value twice"),
        ({"grid": ["a.b=1", "a.b=2"]}, "names a.b twice"),
        ({"grid": ["seed=1,2"]}, "--seeds"),
        ({"grid": ["recipe=a,b"]}, "stands behind --"),
        ({"variants": ["x a.b=1"]}, "is not 'NAME:"),
        ({"variants": ["x: a.b"]}, "is not KEY=VALUE"),
        ({"variants": ["x:", "x: a.b=1"]}, "twice"),
        ({"variants": ["x: 'a.b=1"]}, "No closing quotation"),
        ({"seeds": "0,x"}, "not a list of numbers"),
        ({"seeds": "0,0"}, "one twice"),
        ({"evaluations": ["retrieve --data x"]}, "is not 'NAME:"),
        ({"evaluations": ["x: shard a"]}, "none of retrieve"),
        ({"evaluations": ["x: retrieve --data a", "x: retrieve --data b"]}, "names x twice"),
    ],
)
def test_what_is_no_sweep_is_said(how, said):
    given_ = {"command": COMMAND, "grid": [], "variants": [], "seeds": "0", "evaluations": [], **how}
    with pytest.raises(UsageError, match=said):
        make(*given_.values())


def test_json_is_asked_of_an_evaluation_once():
    assert parse_evaluation("x: retrieve --data a --json").command == ("retrieve", "--data", "a")


def test_every_run_is_trained_measured_and_tabulated(tmp_path, calls):
    sweep = make(COMMAND, ["a.b=10,20"], [], "0,1,2", ["x: retrieve --data d", "y: zeroshot --data e"])
    failed, said = swept(tmp_path / "s", sweep, jobs=2)
    assert not failed
    assert sum(line[0] == "ended" for line in said) == 6
    assert len(calls()) == 6 * 3
    table = tabulate(sweep, tmp_path / "s")
    assert table.header() == [
        "a.b", *(f"{e}: {n}" for e in "xy" for n in ("I→T R@1", "T→I R@1", "MR")), "seeds",
    ]  # fmt: skip
    assert table.rows()[1][1:4] == ["21.0 ± 1.0", "42.0 ± 2.0", "63.0 ± 3.0"]
    assert table.markdown().splitlines()[1].startswith("| --- | ---: |")
    assert len(table.values()) == 1 + 2 * 6 * 3
    json = table.as_json()["points"][0]["numbers"]["x"]["MR"]
    assert json == {
        "mean": 33.0,
        "sd": round(statistics.stdev([30, 33, 36]), 4),
        "seeds": {0: 30.0, 1: 33.0, 2: 36.0},
    }


def test_what_stands_is_not_done_again_and_the_grid_may_grow(tmp_path, calls):
    small = make(COMMAND, ["a.b=10"], [], "0", ["x: retrieve --data d"])
    swept(tmp_path / "s", small)
    assert len(calls()) == 2
    swept(tmp_path / "s", small)
    assert len(calls()) == 2
    grown = make(COMMAND, ["a.b=10,20"], [], "0", ["x: retrieve --data d", "y: retrieve --data e"])
    swept(tmp_path / "s", grown)
    assert len(calls()) == 2 + 1 + 3, "of the old run the new evaluation, of the new one all"
    other = make(COMMAND, ["a.b=10"], [], "0", ["x: retrieve --data d --rerank 3"])
    swept(tmp_path / "s", other)
    assert len(calls()) == 7, "an evaluation that is another one is made again"
    with pytest.raises(UsageError, match="another command"):
        claim(tmp_path / "s", make([*COMMAND, "--head", "3"], [], [], "0", []), force=False)
    swept(tmp_path / "s", small, anew=True)
    assert "--force" in calls()[-2]


def test_a_folder_that_is_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis").write_text("x")
    with pytest.raises(UsageError, match="no sweep"):
        claim(tmp_path, make(COMMAND, [], [], "0", []), force=False)


def test_without_evaluations_the_best_checkpoints_validation_counts(tmp_path, calls):
    sweep = make(COMMAND, [], [], "0,1", [])
    swept(tmp_path / "s", sweep)
    table = tabulate(sweep, tmp_path / "s")
    assert table.rows() == [["all", "1.5 ± 0.7", "2"]]


def test_a_run_that_fails_does_not_stop_the_others(tmp_path, calls):
    sweep = make(COMMAND, ["a.fails=yes,no"], [], "0", ["x: retrieve --data d"])
    failed, said = swept(tmp_path / "s", sweep)
    assert [run.at["a.fails"] for run in failed] == ["yes"]
    assert ("failed", failed[0].name, "vlcli pretrain: it broke") in said
    table = tabulate(sweep, tmp_path / "s")
    assert [row[-1] for row in table.rows()] == ["0", "1"]
    assert table.rows()[0][1] == "–"


def test_a_command_line_that_is_wrong_is_wrong_for_all(tmp_path, calls, monkeypatch):
    monkeypatch.setenv("CODE", "2")
    sweep = make(COMMAND, ["a.fails=yes", "a.b=1,2,3"], [], "0", [])
    failed, _ = swept(tmp_path / "s", sweep)
    assert len(failed) == 1
    assert len(calls()) == 1


def test_a_number_that_no_result_has_is_said(tmp_path, calls):
    sweep = make(COMMAND, [], [], "0", ["x: retrieve --data d"], ["R@7"])
    swept(tmp_path / "s", sweep)
    with pytest.raises(UsageError, match="--number R@7"):
        tabulate(sweep, tmp_path / "s")
    chosen = make(COMMAND, [], [], "0", ["x: retrieve --data d"], ["n"])
    assert tabulate(chosen, tmp_path / "s").rows() == [["all", "7.0", "1"]]


def test_a_damaged_note_is_said(tmp_path, calls):
    sweep = make(COMMAND, [], [], "0", [])
    swept(tmp_path / "s", sweep)
    note = tmp_path / "s" / "run,seed=0" / "sweep.json"
    note.write_bytes(note.read_bytes()[:-9])
    with pytest.raises(InputError, match=r"sweep\.json"):
        swept(tmp_path / "s", sweep)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_reaches_the_runs_and_nothing_outlives_the_sweep(tmp_path, calls, monkeypatch, number, code):
    monkeypatch.setenv("WAIT", "1")
    # the sweep itself is vlcli's; its children find the stand-in
    start = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from vlcli.__main__ import run; run()"
    sweep = subprocess.Popen(
        [
            sys.executable,
            "-c",
            start,
            "sweep",
            "-o",
            str(tmp_path / "s"),
            "--seeds",
            "0,1",
            "-j",
            "2",
            "--",
            *COMMAND,
        ],
        stderr=subprocess.PIPE,
    )
    waits = [tmp_path / "s" / f"run,seed={seed}" / "waits" for seed in (0, 1)]
    end = time.monotonic() + 60
    while not all(file.is_file() and file.read_text() for file in waits):
        assert time.monotonic() < end
        time.sleep(0.05)
    sweep.send_signal(number)
    sweep.communicate(timeout=60)
    assert sweep.returncode == code
    for file in waits:
        with pytest.raises(ProcessLookupError):
            os.kill(int(file.read_text()), 0)


def test_cells():
    assert str(Cell({})) == "–"
    assert str(Cell({0: 1.25})) == "1.2"
    assert Cell({0: 1.0, 1: 3.0}).deviation == pytest.approx(2**0.5)


def test_variants_are_an_axis():
    assert parse_variants([]) is None
    assert parse_variants(["a:", "b: x.y=1"]) == Axis("variant", {"a": (), "b": (("x.y", "1"),)})
