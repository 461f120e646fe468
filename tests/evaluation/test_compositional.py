"""SugarCrepe, Winoground and ARO: their files, their scores against a loop, the bag-of-words ceiling."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image
from tiny_models import COLOURS, square, tiny
from typer.testing import CliRunner

from vlcli.cli import app
from vlcli.errors import InputError, UsageError
from vlcli.evaluation.compositional import Scores, case_scores, compositional, hits, same_words
from vlcli.evaluation.compositional_sets import Case, Cases, read_cases
from vlcli.images.decode import decode
from vlcli.models.checkpoint import save_checkpoint


@pytest.fixture
def sugarcrepe(tmp_path):
    root = tmp_path / "sugarcrepe"
    (root / "val2017").mkdir(parents=True)
    for i, colour in enumerate(COLOURS.values()):
        (root / "val2017" / f"{i}.png").write_bytes(square(colour))
    rows = {
        str(3 * i): {  # numbers have gaps
            "filename": f"{i}.png",
            "caption": f"一块{name}的布在木桌上",
            "negative_caption": f"一张木{name}的桌在布上",
        }
        for i, name in enumerate(COLOURS)
    }
    (root / "swap_att.json").write_text(json.dumps(rows))
    others = {"0": {"filename": "0.png", "caption": "A red dog, big.", "negative_caption": "a BIG red dog"}}
    (root / "replace_obj.json").write_text(json.dumps(others))
    return root


@pytest.fixture
def winoground(tmp_path):
    root = tmp_path / "winoground"
    (root / "images").mkdir(parents=True)
    lines, colours = [], list(COLOURS.items())
    for i in range(5):
        (one, a), (other, b) = colours[i], colours[i + 1]
        for k, colour in enumerate((a, b)):
            (root / "images" / f"ex_{i}_img_{k}.png").write_bytes(square(colour))
        row = {"id": i, "image_0": f"ex_{i}_img_0", "image_1": f"ex_{i}_img_1", "collapsed_tag": "OR"[i % 2]}
        lines.append(
            json.dumps({**row, "caption_0": f"{one}在{other}", "caption_1": f"{other}在{one}"}) + "\n"
        )
    (root / "examples.jsonl").write_text("".join(lines))
    return root


@torch.no_grad()
def literal_scores(model, cases):
    """(i2t, t2i) of each case, one image and one caption at a time."""
    found = []
    for case in cases.cases:
        pictures = [model.preprocess(decode(cases.image_bytes(case.images[k])))[None] for k in (0, -1)]
        lines = []
        for picture in pictures:
            image = model.encode_image(picture)
            for caption in case.captions:
                both = model.similarity(image, model.encode_text(*model.tokenize([caption])))
                lines.append((float(both.i2t), float(both.t2i)))
        found.append(np.array(lines).reshape(2, 2, 2))
    return np.stack(found)


@pytest.mark.parametrize("kind", ["global", "tokenwise"])
def test_winoground_is_a_loop_over_pairs(kind, winoground):
    model, cases = tiny(kind), read_cases("winoground", [str(winoground)])
    assert (len(cases.cases), len(cases)) == (5, 10)
    slow = literal_scores(model, cases)
    got = case_scores(model, cases, batch_size=3)
    assert np.allclose(got.i2t, slow[..., 0], atol=2e-6)
    assert np.allclose(got.t2i, slow[..., 1], atol=2e-6)
    result = compositional(model, cases, bootstrap=20)
    s = slow
    text = [x[0, 0, 0] > x[0, 1, 0] and x[1, 1, 0] > x[1, 0, 0] for x in s]
    image = [x[0, 0, 1] > x[1, 0, 1] and x[1, 1, 1] > x[0, 1, 1] for x in s]
    group = [a and b for a, b in zip(text, image, strict=True)]
    wanted = [100 * np.mean(score) for score in (text, image, group)]
    assert [result[score] for score in ("text", "image", "group")] == pytest.approx(wanted)
    assert result["bag_of_words"] == {"same": 0, "ceiling": 100.0}
    assert {name: one["n"] for name, one in result["categories"].items()} == {"O": 3, "R": 2}


def test_scores_by_hand_where_a_tie_is_not_better():
    right = [[0.9, 0.1], [0.2, 0.8]]
    tie = [[0.5, 0.5], [0.2, 0.8]]
    one_way = [[0.9, 0.1], [0.95, 0.96]]  # each image picks its caption; caption 0 picks image 1
    found = hits(Scores(np.array([right, tie, one_way]), np.array([right, tie, one_way])))
    assert found["text"].tolist() == [1, 0, 1]
    assert found["image"].tolist() == [1, 1, 0]
    assert found["group"].tolist() == [1, 0, 0]


def test_sugarcrepe_has_one_image_and_a_ceiling(sugarcrepe):
    model, cases = tiny("tokenwise"), read_cases("sugarcrepe", [str(sugarcrepe)], sugarcrepe / "val2017")
    assert (len(cases.cases), len(cases)) == (7, 6)
    assert cases.cases[-1].id == "swap_att/15"
    slow = literal_scores(model, cases)
    result = compositional(model, cases, bootstrap=0)
    assert result["text"] == pytest.approx(100 * np.mean([x[0, 0, 0] > x[0, 1, 0] for x in slow]), abs=1e-3)
    assert "image" not in result
    assert result["bag_of_words"]["same"] == 1
    assert result["bag_of_words"]["ceiling"] == pytest.approx(100 * 6 / 7, abs=1e-3)
    by = {name: one["text"] for name, one in result["categories"].items()}
    assert result["macro"] == pytest.approx((by["swap_att"] + by["replace_obj"]) / 2, abs=1e-3)


def test_equal_bags_are_not_a_matter_of_order_case_or_commas():
    assert same_words("The dog bites the man.", "the man, bites the dog")
    assert not same_words("the dog bites the man", "the dog bites a man")
    assert not same_words("the the dog", "the dog")


def test_aro_looks_at_the_box(tmp_path):
    image = Image.new("RGB", (40, 20), "red")
    image.paste("blue", (20, 0, 40, 20))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    (tmp_path / "1.png").write_bytes(buffer.getvalue())
    row = {"image_path": "1.png", "true_caption": "a on b", "false_caption": "b on a", "relation_name": "on"}
    boxes = [
        {"bbox_x": 0, "bbox_y": 0, "bbox_w": 20, "bbox_h": 20},
        {"bbox_x": 20, "bbox_y": 0, "bbox_w": 20, "bbox_h": 20},
    ]
    rows = [{**row, **boxes[0]}, {**row, **boxes[1]}, {**row, **boxes[1], "relation_name": "under"}]
    (tmp_path / "visual_genome_relation.json").write_text(json.dumps(rows))
    cases = read_cases("aro", [str(tmp_path / "visual_genome_relation.json")])
    assert len(cases) == 2
    colours = [decode(cases.image_bytes(i)).getpixel((10, 10)) for i in (0, 1)]
    assert colours == [(255, 0, 0), (0, 0, 255)]
    result = compositional(tiny("global"), cases, bootstrap=0)
    assert (result["n"], set(result["categories"])) == (3, {"on", "under"})
    assert result["bag_of_words"] == {"same": 3, "ceiling": 0.0}


@pytest.mark.parametrize("kind", ["global", "tokenwise"])
def test_aros_orders_have_one_right_caption_of_five(tmp_path, kind):
    rng, colours = np.random.default_rng(0), list(COLOURS.items())
    words = [list(f"一块{name}的布在木桌上") for name, _ in colours]
    hard = [["".join(rng.permutation(letters)) for _ in range(4)] for letters in words]
    frame = pl.DataFrame({
        "images": [{"bytes": square(colour), "path": None} for _, colour in colours],
        "correct_caption": ["".join(letters) for letters in words],
        **{f"hard_text_{k + 1}": [of[k] for of in hard] for k in range(4)},
    })  # fmt: skip
    frame.write_parquet(tmp_path / "coco_order.parquet")
    few = {"image_path": "0.png", "true_caption": "布在桌", "false_caption": "桌在布", "relation_name": "on"}
    (tmp_path / "0.png").write_bytes(square("red"))
    (tmp_path / "relation.json").write_text(json.dumps([few]))
    cases, model = read_cases("aro", [str(tmp_path)]), tiny(kind)
    scores = case_scores(model, cases).i2t
    result = compositional(model, cases, bootstrap=0)
    right = 0
    for case, of in zip(cases.cases, scores, strict=True):
        alone = case_scores(
            model, Cases("", "aro", "", [Case("", "", (0,), case.captions)], [cases.pictures[case.images[0]]])
        )
        np.testing.assert_allclose(of[0, : len(case.captions)], alone.i2t[0, 0], atol=1e-6)
        right += all(alone.i2t[0, 0, 0] > wrong for wrong in alone.i2t[0, 0, 1:])
    n = len(colours) + 1
    assert result["text"] == pytest.approx(100 * right / n, abs=1e-3)
    assert result["chance"] == {"text": pytest.approx(100 * (len(colours) / 5 + 1 / 2) / n, abs=1e-3)}
    assert set(result["categories"]) == {"coco_order", "on"}
    frame.drop("images").write_parquet(tmp_path / "coco_order.parquet")
    with pytest.raises(InputError, match="case 0 has no image of bytes"):
        read_cases("aro", [str(tmp_path)])


def test_hugging_faces_winoground_carries_its_pictures(tmp_path):
    picture = {"bytes": square("red"), "path": None}
    frame = pl.DataFrame({
        "id": [7], "image_0": [picture], "image_1": [{"bytes": square("blue"), "path": None}],
        "caption_0": ["a"], "caption_1": ["b"], "tag": ["Noun"],
    })  # fmt: skip
    frame.write_parquet(tmp_path / "test.parquet")
    cases = read_cases("winoground", [str(tmp_path)])
    assert (cases.cases[0].id, cases.cases[0].category, len(cases)) == ("winoground/7", "Noun", 2)
    assert decode(cases.image_bytes(1)).getpixel((1, 1)) == (0, 0, 255)


def test_what_is_not_in_the_form_of_the_set_is_named(tmp_path):
    file = tmp_path / "add_att.json"
    for text, said in (
        ("{", "not JSON"),
        ("[]", "not an object of cases"),
        ("{}", "no cases of sugarcrepe"),
        ('{"4": {"filename": "1.png", "caption": "a"}}', "case 4 has no negative_caption"),
    ):
        file.write_text(text)
        with pytest.raises(InputError, match=said):
            read_cases("sugarcrepe", [str(file)])
    file.write_text('{"4": {"filename": "1.png", "caption": "a", "negative_caption": "b"}}')
    with pytest.raises(InputError, match=r"image of add_att/4: .*1\.png: no image: No such file"):
        compositional(tiny("global"), read_cases("sugarcrepe", [str(file)]))
    with pytest.raises(UsageError, match="no such file"):
        read_cases("aro", [str(tmp_path / "gone.json")])
    case = {"image_path": "1.png", "true_caption": "a", "false_caption": "b", "bbox_x": 1, "bbox_w": 2}
    file.write_text(json.dumps([case | {"bbox_h": 3}]))
    with pytest.raises(InputError, match="case 0: bbox_x, bbox_y, bbox_w and bbox_h are not four numbers"):
        read_cases("aro", [str(file)])


def test_the_command(sugarcrepe, tmp_path, monkeypatch):
    save_checkpoint(tiny("tokenwise"), tmp_path / "model", recipe={}, lineage={})
    monkeypatch.chdir(tmp_path)
    line = ["zeroshot", "model", "--task", "compositional", "--data", "sugarcrepe", "--device", "cpu"]
    full = [*line, "--dataset", "sugarcrepe", "--image-root", "sugarcrepe/val2017", "--bootstrap", "20"]
    shown = CliRunner().invoke(app, full)
    assert shown.exit_code == 0, shown.output
    for words in ("text score", "swap_att", "best of a bag of words", "85.7", "chance"):
        assert words in " ".join(shown.stdout.split())
    result = json.loads(CliRunner().invoke(app, [*full, "--json"]).stdout)
    assert (result["dataset"], result["n"]) == ("sugarcrepe", 7)
    kept = [*full, "--results", "results.jsonl"]
    for others, lines in ((False, 1), (True, 2)):  # pictures of the same names
        for picture in (tmp_path / "sugarcrepe" / "val2017").iterdir() if others else ():
            picture.write_bytes(square("#123456"))
        assert CliRunner().invoke(app, kept).exit_code == 0
        assert len(Path("results.jsonl").read_bytes().splitlines()) == lines
    with pytest.raises(UsageError, match="--dataset sugarcrepe, winoground, aro"):
        CliRunner().invoke(app, line, catch_exceptions=False)
