"""vlcli score on real files: captions in every form, pictures by tiny models, results that report shows."""

from __future__ import annotations

import json

import pytest
from tiny_models import COLOURS, square, tiny
from typer.testing import CliRunner

from vlcli.cli import app
from vlcli.errors import UsageError
from vlcli.evaluation.results_file import read_results
from vlcli.models.checkpoint import checkpoint_hash, save_checkpoint

CAPTIONS = (("一只狗在跑", "一只狗在草地上跑"), ("", "两只猫"), ("一个人骑车", "一个人骑自行车"))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    root = tmp_path_factory.mktemp("score")
    save_checkpoint(tiny("global"), root / "run", recipe={}, lineage={})
    save_checkpoint(tiny("tokenwise"), root / "maker", recipe={}, lineage={})
    maker = checkpoint_hash(root / "maker")
    real, generated = [], []
    for i, (name, colour) in enumerate(COLOURS.items()):
        (root / f"{i}.png").write_bytes(square(colour))
        (root / f"g{i}.png").write_bytes(square(colour, side=30))
        real.append({"id": f"r{i}", "image": f"{i}.png", "text": name, "split": "val"})
        said = {"vlcli": "0.1.0", "models": {"clip": maker, "decoder": "f" * 16}, "seed": 0}
        generated.append({"id": f"g{i}", "image": f"g{i}.png", "text": name, "generated_by": said})
    captions = [
        {"image_id": str(i), "caption_generated": ours, "text": theirs, "split": "val"}
        for i, (ours, theirs) in enumerate(CAPTIONS)
    ]
    for name, rows in (("real", real), ("generated", generated), ("captions", captions)):
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (root / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    return root


@pytest.fixture
def run(place, monkeypatch):
    monkeypatch.chdir(place)

    def run(*arguments, **more):
        result = CliRunner().invoke(app, ["score", *arguments], **more)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == 0, result.output
        return result

    return run


def test_one_object_with_every_number_and_its_tokenizer(run):
    done = run("captions.jsonl", "--json", "--bootstrap", "20")
    result = json.loads(done.stdout)
    assert {"bleu1_char", "bleu4_jieba", "rougeL_char", "cider_jieba", "meteor_char"} <= result.keys()
    assert result["ci95"].keys() == {name for name in result if name.endswith(("_char", "_jieba"))}
    assert (result["images"], result["references"], result["empty"]) == (3, 3, 1)
    assert (result["data"], result["split"], result["lang"]) == ("captions.jsonl", "val", "zh")
    assert "1 of 3 captions are empty" in done.stderr


def test_rows_may_come_by_a_pipe_and_a_table_goes_out(run, place):
    done = run("--bootstrap", "0", input=(place / "captions.jsonl").read_text(encoding="utf-8"))
    shown = " ".join(done.stdout.split())  # a title is broken where its table ends
    for word in ("BLEU-4", "CIDEr-D", "METEOR", "char", "jieba", "3 images, 3 references", "<stdin>"):
        assert word in shown


def test_numbers_of_every_image_and_a_result_that_is_measured_once(run, tmp_path):
    rows, results = tmp_path / "rows.jsonl", tmp_path / "results.jsonl"
    asked = ("captions.jsonl", "--tokenize", "char", "--bootstrap", "20", "--results", str(results), "--json")
    first = json.loads(run(*asked, "--per-image", str(rows)).stdout)
    found = [json.loads(line) for line in rows.read_text(encoding="utf-8").splitlines()]
    assert [row["image_id"] for row in found] == ["0", "1", "2"]
    assert sum(row["cider_char"] for row in found) / 3 == pytest.approx(first["cider_char"], abs=1e-3)
    again = run(*asked)
    assert "measured before" in again.stderr
    assert json.loads(again.stdout) == first
    assert [line["command"] for line in read_results([results])] == ["score"]
    shown = CliRunner().invoke(app, ["report", str(results)]).stdout
    assert shown.startswith("## Captions, captions val · zh: 3 images, 3 references, ×100")
    assert "| BLEU-1 char |" in shown
    numbers = CliRunner().invoke(app, ["report", str(results), "--to", "csv"]).stdout
    assert f"cider_char,{first['cider_char']}," in numbers
    other = json.loads(run(*asked, "--lang", "en", "--split", "dev").stdout)
    assert (other["lang"], other["split"]) == ("en", "dev")


def test_of_one_image_there_is_no_interval(run):
    result = json.loads(run("captions.jsonl", "--head", "1", "--json", "--bootstrap", "20").stdout)
    assert (result["images"], result["ci95"]) == (1, {})


def test_pictures_are_compared_in_a_net_that_is_named(run, tmp_path):
    results = tmp_path / "results.jsonl"
    asked = (
        "--pictures",
        "generated.jsonl",
        "--against",
        "real.jsonl",
        "--features",
        "run",
        "--device",
        "cpu",
    )
    asked += ("--encoder", "run", "--bootstrap", "20", "--subsets", "5")
    done = run(*asked, "--results", str(results), "--json")
    result = json.loads(done.stdout)
    assert result["fid"] == pytest.approx(0, abs=1e-3)  # the same colours
    assert (result["n"], result["n_real"], result["kid_size"], result["texts"]) == (6, 6, 3, 6)
    assert result["features"]["net"].startswith("checkpoint ")
    assert "6 pictures do not span the 16 dimensions" in done.stderr
    assert result["ci95"].keys() == {"clip_score", "R@1"}
    report = CliRunner().invoke(app, ["report", str(results)]).stdout
    assert report.startswith("## Generated pictures, real val · zh")
    for word in ("| KID × 1000 |", "| FID |", "6 of 6 pictures", f"encoder {result['encoder']}"):
        assert word in report
    shown = run(*asked[:-4], "--bootstrap", "0").stdout
    assert "KID × 1000" in shown
    assert "±" in shown


def test_a_checkpoint_does_not_judge_its_own_pictures(run):
    with pytest.raises(UsageError, match="took part in generating these pictures"):
        run("--pictures", "generated.jsonl", "--encoder", "maker", "--device", "cpu")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("captions.jsonl", "--tokenize", "ptb"), "--tokenize 'ptb' is none of char, jieba, words"),
        (("captions.jsonl", "--tokenize", ","), "is none of char"),
        (("--pictures", "generated.jsonl"), "nothing to judge the pictures by; --against"),
        (("--against", "real.jsonl"), "no generated pictures; --pictures FILE"),
        (
            ("captions.jsonl", "--pictures", "generated.jsonl", "--against", "real.jsonl"),
            "FILE is about captions",
        ),
        (
            ("--pictures", "generated.jsonl", "--against", "real.jsonl", "--references", "real.jsonl"),
            "--references is about captions",
        ),
        (
            ("--pictures", "generated.jsonl", "--against", "real.jsonl", "--features", "none"),
            "--features none: no run",
        ),
        (("captions.jsonl", "--per-image", "captions.jsonl"), "captions.jsonl"),
    ],
)
def test_misuse_is_one_line(run, arguments, message):
    with pytest.raises(UsageError, match=message) as raised:
        run(*arguments)
    assert "\n" not in str(raised.value)
