"""The curves of a run: which points they have, what they are drawn of, what is refused."""

import subprocess
import sys

import orjson
import pytest

from vlcli.errors import InputError, UsageError
from vlcli.figures.curves import draw_curves, read_metrics, series, write_curves

LINES = [
    {"step": 10, "loss": 4.0, "chance_loss": 5.5, "lr": 1e-3, "pairs_per_second": 90.0, "data_wait": 0.5},
    {"step": 10, "val": {"MR": 30.0, "i2t": {"R@1": 20.0}, "zeroshot": {"top1": 40.0}}},
    {"step": 20, "loss": 2.0, "chance_loss": 5.5, "lr": 5e-4, "pairs_per_second": 110.0, "data_wait": 0.1},
    {"step": 20, "val": {"MR": 20.0, "i2t": {"R@1": 25.0}, "zeroshot": {"top1": 45.0}}},
]


@pytest.fixture
def run(tmp_path):
    place = tmp_path / "狐狸"
    place.mkdir()
    (place / "metrics.jsonl").write_bytes(b"".join(orjson.dumps(line) + b"\n" for line in LINES))
    (place / "recipe.toml").write_text(
        'name = "tiny"\n[data]\nbatch_size = 256\n[train]\nbest = "zeroshot.top1"\n'
    )
    return place


def test_every_number_has_its_place(run):
    figure = draw_curves(read_metrics(run), best="zeroshot.top1")
    panels = {axes.get_title(loc="left"): axes for axes in figure.axes}
    assert list(panels)[:3] == ["loss", "validation, ×100", "temperature τ"]
    loss, chance = panels["loss"].lines
    assert loss.get_xydata().tolist() == [[10, 4.0], [20, 2.0]]
    assert set(chance.get_ydata()) == {5.5}
    assert panels["loss"].get_ylim()[1] > 5.5
    curves = {line.get_label(): line.get_xydata().tolist() for line in panels["validation, ×100"].lines}
    assert curves["mean recall"] == [[10, 30.0], [20, 20.0]]
    assert curves["zero-shot top-1"] == [[10, 40.0], [20, 45.0]]
    (mark,) = panels["validation, ×100"].texts
    assert mark.get_text() == "45.0 at 20", "the score that chooses the best"
    assert "no data" in [text.get_text() for text in panels["temperature τ"].texts]
    assert "waiting for data 30 % " in [text.get_text() for text in panels["pairs/s"].texts]


def test_the_same_run_gives_the_same_bytes_and_is_named(run, tmp_path):
    first = write_curves(run)
    assert first == run / "curves.png"
    other = write_curves(run, tmp_path / "again.png")
    assert first.read_bytes() == other.read_bytes()
    assert first.read_bytes().startswith(b"\x89PNG")
    assert write_curves(run, tmp_path / "again.svg").read_text().startswith("<?xml")
    with pytest.raises(UsageError, match="exists"):
        write_curves(run, tmp_path / "again.png", force=False)
    with pytest.raises(UsageError, match="ends in"):
        write_curves(run, tmp_path / "again.pdf")


def test_of_a_step_that_was_said_twice_the_last_counts():
    lines = [{"step": 1, "loss": 3.0}, {"step": 2, "loss": 2.0}, {"step": 1, "loss": 4.0}]
    assert series(lines, "loss") == [(1, 4.0), (2, 2.0)]
    assert series(lines, "val.i2t.R@1") == []


def test_what_is_no_run_is_refused(run, tmp_path):
    with pytest.raises(UsageError, match=r"no run, it has no metrics\.jsonl"):
        write_curves(tmp_path)
    file = run / "metrics.jsonl"
    whole = file.read_bytes()
    file.write_bytes(whole + b'{"step": 30, "lo')  # killed in the middle of a line
    assert len(read_metrics(run)) == 4
    file.write_bytes(b"nonsense\n" + whole)
    with pytest.raises(InputError, match=r"metrics.jsonl:1: not a line"):
        read_metrics(run)
    file.write_bytes(b"")
    with pytest.raises(InputError, match="no step is logged yet"):
        write_curves(run)


def test_a_figure_of_curves_wants_no_torch(run):
    program = (
        "import sys; from pathlib import Path; from vlcli.figures.curves import write_curves;"
        f"write_curves(Path({str(run)!r})); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
