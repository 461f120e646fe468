"""What is written of every image: the best classes, and ELEVATER's files as its own tool gathers them."""

from __future__ import annotations

import json
import zipfile

import numpy as np
import pytest
import torch
from tiny_models import COLOURS, table, tiny
from typer.testing import CliRunner

from vlcli.cli import app
from vlcli.errors import InputError, UsageError
from vlcli.evaluation.class_predictions import best_classes, elevater
from vlcli.evaluation.report.submission import FIELDS, write_submission
from vlcli.evaluation.tasks import classify
from vlcli.evaluation.zeroshot import Classifier
from vlcli.text.labels import LabelSet
from vlcli.text.prompts import PromptSet

NAMES = LabelSet("colours", {str(k): name for k, name in enumerate(COLOURS)})
PROMPTS = PromptSet("two", ("一张{}的图", "{}"))


def measured(predictions, kind="tokenwise", **options):
    rows = table(label=[str(k) for k in range(len(COLOURS))])
    return classify(
        tiny(kind), rows, PROMPTS, labels=NAMES, bootstrap=0, batch_size=4, predictions=predictions, **options
    )


def all_scores(kind="tokenwise", ensemble="similarity"):
    from vlcli.evaluation.embed import embed_images

    model, rows = tiny(kind), table()
    return Classifier(model, list(COLOURS), PROMPTS, ensemble=ensemble).scores(embed_images(model, rows))


def test_the_five_best_of_every_image(tmp_path):
    result = measured(best_classes(tmp_path / "best.jsonl"))
    lines = [json.loads(line) for line in (tmp_path / "best.jsonl").read_text("utf-8").splitlines()]
    scores = all_scores()
    assert [line["label"] for line in lines] == list(COLOURS)
    for line, row in zip(lines, scores, strict=True):
        order = sorted(range(len(row)), key=lambda k: (-float(row[k]), k))[:5]
        assert [one["class"] for one in line["best"]] == [list(COLOURS)[k] for k in order]
        torch.testing.assert_close(
            torch.tensor([one["score"] for one in line["best"]]).double(),
            row[order].double(),
            rtol=0,
            atol=1e-5,
        )
    right = np.mean([line["label"] == line["best"][0]["class"] for line in lines])
    assert result["top1"] == pytest.approx(100 * right, abs=1e-3)


def test_equal_scores_stand_in_the_order_of_the_classes(tmp_path):
    same = LabelSet("same", dict.fromkeys("012345", "红色"))
    rows = table(label=list("012345"))
    classify(
        tiny(), rows, PROMPTS, labels=same, bootstrap=0, predictions=best_classes(tmp_path / "best.jsonl")
    )
    line = json.loads((tmp_path / "best.jsonl").read_text("utf-8").splitlines()[0])
    assert len({one["score"] for one in line["best"]}) == 1


@pytest.mark.parametrize("ensemble", ["similarity", "probability"])
def test_elevaters_file_has_the_probabilities_of_all_classes(tmp_path, ensemble):
    out = tmp_path / "mnist.json"
    measured(elevater(out, "mnist", "tiny", calibrated=ensemble == "probability"), ensemble=ensemble)
    found = json.loads(out.read_text("utf-8"))
    assert tuple(found) == FIELDS
    assert (found["dataset_name"], found["n_shot"], found["rnd_seeds"]) == ("mnist", 0, [0])
    model = tiny()
    assert found["num_params"] == found["num_backbone_params"] == sum(p.numel() for p in model.parameters())
    assert 0 < found["num_visual_params"] < found["num_params"]
    scores = all_scores(ensemble=ensemble)
    expected = scores if ensemble == "probability" else (100 * scores).softmax(1)
    predictions = torch.tensor(found["predictions"]).double()
    assert predictions.shape == (1, 6, 6)
    torch.testing.assert_close(predictions[0], expected.double(), rtol=0, atol=1e-5)
    torch.testing.assert_close(predictions.sum(2), torch.ones(1, 6).double(), rtol=0, atol=6e-6)


def test_a_failure_leaves_no_file(tmp_path):
    def fail(*arguments):
        raise InputError("damaged")

    rows = table(label=[str(k) for k in range(6)])
    rows.image_bytes = fail
    with pytest.raises(InputError):
        classify(
            tiny(), rows, PROMPTS, labels=NAMES, bootstrap=0, predictions=best_classes(tmp_path / "b.jsonl")
        )
    assert not list(tmp_path.iterdir())


def test_a_submission_gathers_sets_as_the_toolkit_does(tmp_path):
    files = []
    for name in ("mnist", "cifar10"):
        files.append(tmp_path / f"{name}.json")
        measured(elevater(files[-1], name, "tiny", calibrated=False))
    sets = write_submission(files, tmp_path / "all.zip")
    assert sets == ["mnist", "cifar-10"]
    with zipfile.ZipFile(tmp_path / "all.zip") as archive:
        assert archive.namelist() == ["all_predictions.json"]
        gathered = json.loads(archive.read("all_predictions.json"))
    assert gathered == {"data": [json.loads(file.read_text("utf-8")) for file in files]}


def test_what_is_no_submission_is_refused(tmp_path):
    one, other = tmp_path / "one.json", tmp_path / "other.json"
    measured(elevater(one, "mnist", "tiny", calibrated=False))
    with pytest.raises(UsageError, match="both of mnist"):
        write_submission([one, one], tmp_path / "a.zip")
    measured(elevater(other, "cars", "another", calibrated=False))
    with pytest.raises(UsageError, match="one model a submission"):
        write_submission([one, other], tmp_path / "a.zip")
    other.write_bytes(one.read_bytes()[:-9])
    with pytest.raises(InputError, match="not JSON"):
        write_submission([other], tmp_path / "a.zip")
    other.write_text('{"dataset_name": "mnist"}')
    with pytest.raises(InputError, match="no model_name"):
        write_submission([other], tmp_path / "a.zip")
    with pytest.raises(UsageError, match="No such file"):
        write_submission([tmp_path / "none.json"], tmp_path / "a.zip")
    assert not (tmp_path / "a.zip").exists()
    with pytest.raises(UsageError, match="of its sets: --dataset imagenet"):
        elevater(one, "kinetics400", "tiny", calibrated=False)


@pytest.mark.parametrize(
    "options",
    [
        ("--predictions-as", "elevater"),
        ("--predictions", "x", "--langs", "zh,en"),
        ("--predictions", "x", "--compare", "other"),
        ("--predictions", "x", "--task", "simlex"),
        ("--predictions", "x", "--predictions-as", "elevater", "--task", "matching"),
        ("--predictions", "x", "--protocol", "knn", "--train", "y"),
    ],
)
def test_predictions_are_of_one_model_in_one_language(options, tmp_path):
    found = CliRunner().invoke(app, ["zeroshot", str(tmp_path), "--data", "rows.jsonl", *options])
    assert isinstance(found.exception, UsageError)
    assert "--predictions" in str(found.exception)
