"""`zeroshot --protocol`, `--dataset`, `--classes` on real files: a saved checkpoint, pictures on the disk."""

from __future__ import annotations

import io
import json
import random

import pytest
from PIL import Image
from tiny_models import COLOURS, tiny
from typer.testing import CliRunner

from vlcli.cli import app
from vlcli.errors import InputError, UsageError
from vlcli.models.checkpoint import save_checkpoint


def picture(colour, seed):
    draw = random.Random(seed)
    image = Image.new("RGB", (24, 24), colour)
    for _ in range(40):
        image.putpixel((draw.randrange(24), draw.randrange(24)), tuple(draw.randrange(256) for _ in "rgb"))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    root = tmp_path_factory.mktemp("protocols")
    for kind in ("global", "tokenwise"):
        save_checkpoint(tiny(kind), root / kind, recipe={}, lineage={})
    for split, each in (("train", 6), ("val", 3), ("test", 4)):
        lines = []
        for label, (name, colour) in enumerate(COLOURS.items()):
            for i in range(each):
                file = f"{split}-{label}-{i}.png"
                (root / file).write_bytes(picture(colour, f"{split} {label} {i}"))
                row = {"id": file, "image": file, "text": name, "number": label, "both": [name, "彩色"]}
                row |= {"split": split, "wordnet": ["n01440764", "n01498041"][label % 2]}
                lines.append(json.dumps(row, ensure_ascii=False) + "\n")
        (root / f"{split}.jsonl").write_text("".join(lines), encoding="utf-8")
    return root


@pytest.fixture
def run(place, monkeypatch):
    monkeypatch.chdir(place)
    monkeypatch.setenv("VLCLI_CACHE", str(place / "cache"))

    def run(*arguments, model="global"):
        line = ("zeroshot", model, "--data", "test.jsonl", "--device", "cpu", "--bootstrap", "20", *arguments)
        result = CliRunner().invoke(app, line)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == 0, result.output
        return result

    return run


LEARN = ("--label-column", "number", "--train", "train.jsonl")


@pytest.mark.parametrize("model", ["global", "tokenwise"])
@pytest.mark.parametrize("features", ["pre", "post"])
@pytest.mark.parametrize(
    ("protocol", "more"),
    [
        ("knn", ("--k", "3")),
        ("linear-probe", ("--val", "val.jsonl")),
        ("ridge", ()),
        ("ridge", ("--val", "val.jsonl")),
        ("few-shot", ("--shots", "2")),
        ("few-shot", ("--shots", "1", "--l2", "1")),
    ],
)
def test_what_learns_from_coloured_squares_tells_colours(run, model, features, protocol, more):
    found = run("--protocol", protocol, "--features", features, *LEARN, *more, "--json", model=model)
    result = json.loads(found.stdout)
    assert (result["protocol"], result["features"], result["metric"]) == (protocol, features, "top1")
    assert (result["n"], result["n_train"], result["classes"]) == (24, 36, 6)
    assert result["n_val"] == (18 if "--val" in more else 0)
    assert result["top1"] >= (60 if "--shots" in more else 90)
    assert result["ci95"]["top1"][0] <= result["top1"] <= result["ci95"]["top1"][1]
    assert (result["train_in_test"], result["left_out"]) == (0, 0)
    said = result["probe"]
    if protocol == "knn":
        assert {"R@1", "R@5", "R@10"} <= set(result)
        assert (said["k"], said["temperature"]) == (3, 0.07)
    if protocol == "few-shot":
        assert [one["top1"] for one in said["each"]] != []
        mean = sum(one["top1"] for one in said["each"]) / 3
        assert result["top1"] == pytest.approx(mean, abs=1e-3)
        assert len(said["l2"]) == len(said["seeds"]) == 3
    if protocol in ("ridge", "linear-probe"):
        chosen = dict(map(tuple, said["tried"]))
        assert chosen[said["l2"]] == max(chosen.values())
        by = "val" if "--val" in more else "leaving one out"
        assert said["chosen_on"] == by


def test_a_table_names_features_rows_and_penalty(run):
    shown = " ".join(run("--protocol", "ridge", *LEARN).stdout.split())
    for words in (
        "ridge on pre-projection features",
        "36 training rows",
        "chosen by leaving one out",
        "top-1",
    ):
        assert words in shown
    shown = " ".join(run("--protocol", "few-shot", *LEARN, "--shots", "3").stdout.split())
    for words in ("3 a class", "sd of 3 draws", "±"):
        assert words in shown


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ("--protocol", "knn", "--label-column", "number"),
            "learns from labelled rows; name them with --train",
        ),
        (("--protocol", "linear-probe", *LEARN), "a linear probe's penalty is chosen on rows"),
        (("--protocol", "knn", *LEARN, "--k", "40"), "40 neighbours of 36 training images"),
        (("--protocol", "few-shot", *LEARN, "--shots", "1"), "one shot a class leaves none"),
        (("--protocol", "knn", *LEARN, "--langs", "en,zh"), "reads no names"),
        (("--train", "train.jsonl", "--label-column", "number"), "zero-shot learns from no rows"),
        (("--label-column", "number", "--k", "20"), "--k goes with --protocol knn"),
        (("--protocol", "ridge", *LEARN, "--l2", "0"), "--l2 0 is no penalty; a number above 0"),
        (("--protocol", "ridge", *LEARN, "--l2", "inf"), "--l2 inf is no penalty"),
        (("--protocol", "knn", *LEARN, "--shots", "5"), "--shots goes with --protocol few-shot"),
        (
            ("--protocol", "knn", *LEARN, "--l2", "1"),
            "--l2 goes with --protocol linear-probe or ridge or few",
        ),
        (
            ("--protocol", "ridge", "--label-column", "number", "--train", "test.jsonl"),
            "train and test rows are the same: test.jsonl",
        ),
        (
            ("--protocol", "ridge", *LEARN, "--val", "test.jsonl"),
            "val and test rows are the same: test.jsonl",
        ),
        (("--dataset", "aircrafts"), "no set of labelled images is called so; see aircraft"),
    ],
)
def test_misuse_is_told_in_one_line(run, arguments, said):
    with pytest.raises(UsageError) as error:
        run(*arguments)
    assert said in str(error.value)


def test_too_few_shots_are_bad_input(run):
    with pytest.raises(InputError, match="has 6 training rows, 7 shots"):
        run("--protocol", "few-shot", *LEARN, "--shots", "7")


def test_a_public_set_picks_the_metric_and_tells_departures(run):
    found = run("--dataset", "kinetics400", "--label-column", "text", "--json")
    result = json.loads(found.stdout)
    assert result["metric"] == "mean_top1_top5"
    assert result["mean_top1_top5"] == pytest.approx((result["top1"] + result["top5"]) / 2, abs=1e-3)
    assert "kinetics400 has 400 classes, here are 6" in found.stderr
    told = run("--dataset", "aircraft", "--label-column", "text").stderr
    assert "aircraft has 100 classes, here are 6" in told
    assert "the test split of aircraft has 3,333 images, here are 24" in told
    shown = run("--dataset", "aircraft", "--label-column", "text", "-q").stdout
    assert shown.index("mean per class") < shown.index("top-1")


def test_images_of_several_classes_have_a_mean_average_precision(run):
    result = json.loads(run("--metric", "map11", "--label-column", "both", "--json").stdout)
    assert (result["classes"], result["metric"]) == (7, "map11")
    assert 0 < result["map11"] <= 100
    assert "top1" not in result
    with pytest.raises(InputError, match="more than one both"):
        run("--label-column", "both")
    learn = ("--metric", "map11", "--label-column", "both", "--train", "train.jsonl", "--json")
    for more in (("knn", "--k", "3"), ("ridge",), ("linear-probe", "--val", "val.jsonl")):
        learnt = json.loads(run(*learn, "--protocol", *more).stdout)
        assert (learnt["classes"], learnt["n"], learnt["metric"]) == (7, 24, "map11")
        assert learnt["map11"] >= 90
        assert ("top1" in learnt, "R@1" in learnt) == (False, more[0] == "knn")
    with pytest.raises(UsageError, match="few-shot draws so many rows of each class"):
        run(*learn, "--protocol", "few-shot")


def test_subsets_leave_images_out_and_say_so(run, place):
    labels = ("--label-column", "wordnet", "--labels", "imagenet.en", "--prompts", "openai-80", "--json")
    whole = json.loads(run(*labels).stdout)
    assert (whole["n"], whole["classes"], whole["left_out"]) == (24, 1000, 0)
    assert whole["duplicate_names"] == ["missile", "sunglasses"]
    found = run(*labels, "--classes", "imagenet-a")
    part = json.loads(found.stdout)
    assert (part["n"], part["classes"], part["left_out"]) == (12, 200, 12)
    assert part["labels"] == "imagenet.en[imagenet-a]"
    assert "12 images of other classes than the 200 are left out" in found.stderr
    (place / "few.txt").write_text("0\n6\n7\n")
    few = json.loads(run(*labels, "--classes", "few.txt").stdout)
    assert (few["n"], few["classes"]) == (24, 3)


def test_nine_languages_of_a_part_of_imagenet(run):
    sweep = ("--label-column", "wordnet", "--labels", "babel-imagenet.{lang}", "--prompts", "none", "--json")
    result = json.loads(run(*sweep, "--langs", "en,zh,es,fr,ru,ar,ja,ko,it").stdout)
    assert [one["classes"] for one in result["langs"]] == [1000, 885, 845, 799, 748, 636, 733, 648, 773]
    assert all(one["n"] + one["left_out"] == 24 for one in result["langs"])
    mean = sum(one["top5"] for one in result["langs"]) / 9
    assert result["average"]["top5"] == pytest.approx(mean, abs=1e-3)
