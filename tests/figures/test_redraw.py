"""A figure from its JSON: the same bytes, here and in another process, of the same pictures or of none."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "evaluation"))
from tiny_models import square, tiny
from typer.testing import CliRunner

from vlcli.cli import app
from vlcli.errors import InputError, UsageError
from vlcli.evaluation.alignment import Alignment
from vlcli.figures.redraw import Figure
from vlcli.figures.sheet import Question, Source, make_sheet
from vlcli.models.checkpoint import save_checkpoint

KINDS = ["png", "svg", "json"]
COLOURS = ("red", "green", "blue", "black")


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """Two sheets with their files: two pictures with two texts, and a mosaic."""
    here = tmp_path_factory.mktemp("figures")
    for colour in COLOURS:
        (here / f"{colour}.png").write_bytes(square(colour, 50))
    sources = [Source(f"{c}.png", (here / f"{c}.png").read_bytes()) for c in COLOURS]
    model = tiny(tower="test_efficientnet")
    sheets = {
        "pairs": make_sheet(
            model, sources[:2], ["狐狸", "一只$红色$的狗"], question=Question(prompt="一张{}的照片")
        ),
        "mosaic": make_sheet(model, sources, ["红色"], mosaic=True),
    }
    files = {}
    for name, sheet in sheets.items():
        files[name] = sheet.render(KINDS)
        (here / f"{name}.json").write_bytes(files[name]["json"])
    return here, files


@pytest.mark.parametrize("name", ["pairs", "mosaic"])
def test_redrawn_files_are_equal_to_the_byte(drawn, name, monkeypatch):
    here, files = drawn
    monkeypatch.chdir(here)
    assert Figure.read(Path(f"{name}.json")).sheet().render(KINDS) == files[name]


def test_another_process_draws_the_same_bytes_without_a_model(drawn):
    here, files = drawn
    code = (
        "import sys; from pathlib import Path; from vlcli.figures.redraw import Figure\n"
        "files = Figure.read(Path('pairs.json')).sheet().render(['png', 'svg', 'json'])\n"
        "import hashlib; print({k: hashlib.sha256(v).hexdigest() for k, v in files.items()})\n"
        "assert 'transformers' not in sys.modules and 'timm' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=here, capture_output=True, text=True)
    assert done.stdout.strip() == str(
        {k: hashlib.sha256(v).hexdigest() for k, v in files["pairs"].items()}
    ), done.stderr


def test_pictures_that_moved_are_taken_from_where_the_caller_says(drawn, tmp_path, monkeypatch):
    here, files = drawn
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere.png").write_bytes((here / "green.png").read_bytes())
    (tmp_path / "red.png").write_bytes((here / "red.png").read_bytes())
    with pytest.raises(
        InputError, match=r"pairs.json: the figure's picture green.png cannot be read; give the"
    ):
        Figure.read(here / "pairs.json")
    again = Figure.read(here / "pairs.json", ["elsewhere.png"])
    assert again.sheet().render(KINDS) == files["pairs"], "by its bytes, whatever its name"
    assert (
        Figure.read(here / "mosaic.json", image_root=here).sheet().render(["png"])["png"]
        == (files["mosaic"]["png"])
    )


def test_a_picture_that_changed_is_refused(drawn, tmp_path, monkeypatch):
    here, _ = drawn
    monkeypatch.chdir(tmp_path)
    for colour in COLOURS:
        (tmp_path / f"{colour}.png").write_bytes(square(colour, 50 if colour != "blue" else 51))
    with pytest.raises(InputError, match=r"mosaic.json: the picture blue.png has changed since"):
        Figure.read(here / "mosaic.json")
    with pytest.raises(InputError, match=r"blue.png has changed since"):
        Figure.read(here / "mosaic.json", ["red.png"])
    Figure.read(here / "pairs.json")


def test_json_is_stable_and_says_what_it_holds(drawn, monkeypatch):
    here, files = drawn
    monkeypatch.chdir(here)
    data = json.loads(files["pairs"]["json"])
    for one in data["figures"]:
        assert Alignment.of_json(one).as_json() == {k: one[k] for k in Alignment.of_json(one).as_json()}
        on = np.isin(one["index"], one["label_positions"])
        assert one["share_on_label"] == pytest.approx(on.mean(), abs=1e-6)
    assert data["shown"] == {"fit": "crop", "interpolation": "bicubic"}


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.pop("figures"),
        lambda d: d.pop("shown"),
        lambda d: d["shown"].update(fit="stretch"),
        lambda d: d.update(figures=[]),
        lambda d: d["figures"][0].pop("tokens"),
        lambda d: d["figures"][0].update(grid=[3, 3]),
        lambda d: d["figures"][0].update(index=[[99]]),
        lambda d: d["figures"][0]["index"][0].__setitem__(0, 99),
        lambda d: d["figures"][0]["similarity"][0].__setitem__(0, None),
        lambda d: d["figures"][0].update(image=["a", "b"]),
        lambda d: d["figures"][0].update(size=0),
        lambda d: d["figures"].append("x"),
    ],
)
def test_what_is_no_figure_is_named(drawn, tmp_path, change):
    data = json.loads(drawn[1]["pairs"]["json"])
    change(data)
    file = tmp_path / "no.json"
    file.write_text(json.dumps(data))
    with pytest.raises(InputError, match=r"no.json: not the JSON of a figure"):
        Figure.read(file)


def test_other_files_are_named_too(tmp_path):
    for content in (b"", b"[]", b"{}", b"\xff", b"\x89PNG"):
        (tmp_path / "no.json").write_bytes(content)
        with pytest.raises(InputError, match="not the JSON of a figure"):
            Figure.read(tmp_path / "no.json")
    with pytest.raises(UsageError, match="no such figure"):
        Figure.read(tmp_path / "nowhere.json")


def test_the_command_redraws_under_the_figures_own_name(drawn, tmp_path, monkeypatch):
    here, files = drawn
    monkeypatch.chdir(here)
    save_checkpoint(tiny(tower="test_efficientnet"), tmp_path / "model", recipe={}, lineage={})

    def run(*arguments, code=0):
        result = CliRunner().invoke(app, ["visualize", *arguments, "-q"])
        if isinstance(result.exception, (UsageError, InputError)):
            assert result.exception.exit_code == code
            return str(result.exception)
        assert result.exit_code == code, result.output
        return result.stdout

    texts = ("--text", "狐狸", "--text", "一只$红色$的狗", "--prompt", "一张{}的照片")
    pictures = ("--image", "red.png", "--image", "green.png")
    run(
        str(tmp_path / "model"),
        *pictures,
        *texts,
        "-o",
        "made.json",
        "--formats",
        "json,png",
        "--device",
        "cpu",
    )
    made = Path("made.png").read_bytes()
    assert "exists" in run("made.json", code=2)
    Path("made.png").unlink()
    run("made.json")
    assert Path("made.png").read_bytes() == made
    run("made.json", "-o", "again.svg")
    assert Path("again.svg").read_bytes() == files["pairs"]["svg"]
    assert json.loads(run("made.json", "--json")) == json.loads(Path("made.json").read_bytes())
    assert "its own texts" in run("made.json", "--text", "狗", code=2)
    Path("red.png").rename("gone.png")
    assert "red.png cannot be read" in run("made.json", "--force", code=3)
    run("made.json", "--force", "--image", "gone.png")
    Path("gone.png").rename("red.png")
    assert Path("made.png").read_bytes() == made
