"""shard: the layout, its determinism, bad rows, resumption."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import orjson
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from shard_cases import make_rows, picture, shard, tree, vlcli

from vlcli.errors import InputError, UsageError
from vlcli.images.decode import decode
from vlcli.shards.layout import key_digits, member_header, own_member, sample_key, shard_name, split_member
from vlcli.shards.pack import pack_image
from vlcli.shards.reader import read_sidecar
from vlcli.shards.rows import plain
from vlcli.shards.sidecar import column
from vlcli.shards.whole import iterate

ROOT = Path(__file__).parents[2]


def run(*arguments: str, stdin: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "vlcli", *arguments], cwd=ROOT, input=stdin, capture_output=True
    )


def test_keys_follow_img2dataset() -> None:
    assert sample_key(1, 5, 10_000) == "000010005"
    assert sample_key(0, 0, 10_000) == "000000000"
    assert [key_digits(n) for n in (1, 2, 10, 11, 1000, 10_000, 10_001)] == [0, 1, 1, 2, 3, 4, 5]
    assert shard_name(123_456) == "123456"  # past 99,999 a name just grows


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("000.jpg", ("000", "jpg")),
        ("a.b/000.seg.PNG", ("a.b/000", "seg.png")),
        ("./000.txt", ("000", "txt")),
        ("readme", None),
        (".hidden", None),
        ("__meta__.json", None),
    ],
)
def test_split_member(name: str, parts: tuple[str, str] | None) -> None:
    assert split_member(name) == parts


@given(
    st.one_of(st.text("0123456789./abcjpg", min_size=1, max_size=110), st.text(min_size=1, max_size=20)),
    st.one_of(st.integers(0, 8**11 + 5), st.sampled_from([0, 511, 8**11 - 1, 8**11])),
)
def test_headers_are_those_of_tarfile(name: str, size: int) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.uname, info.gname = size, 0o444, "bigdata", "bigdata"
    try:
        expected = info.tobuf(tarfile.USTAR_FORMAT, "utf-8", "strict")
    except ValueError:
        with pytest.raises(ValueError):  # noqa: PT011 - UnicodeEncodeError, too
            member_header(name, size)
    else:
        assert member_header(name, size) == expected
        if name.isascii() and "\0" not in name and len(name) <= 100 and size < 8**11:
            assert own_member(expected) == (name, size)


def test_tree(tmp_path: Path) -> None:
    totals = shard(make_rows(tmp_path, 7), tmp_path / "out", per_shard=3)
    assert (totals.rows, totals.samples, totals.shards) == (7, 7, 3)
    files = tree(tmp_path / "out")
    assert sorted(files) == [
        *(f"0000{i}{end}" for i in range(3) for end in (".parquet", ".tar", "_stats.json")),
        "sizes.json",
    ]
    assert json.loads(files["sizes.json"]) == {"00000.tar": 3, "00001.tar": 3, "00002.tar": 1}
    with tarfile.open(tmp_path / "out" / "00001.tar") as tar:
        members = tar.getmembers()
        assert [m.name for m in members] == [
            f"00001{i}.{e}" for i in range(3) for e in ("json", "png", "txt")
        ]
        assert {(m.uid, m.gid, m.mtime, m.mode, m.uname) for m in members} == {(0, 0, 0, 0o444, "bigdata")}
    samples = list(iterate(tmp_path / "out" / "00001.tar"))
    assert samples[0].members["txt"].decode() == "第3张图"
    assert samples[0].image == picture(3)  # bytes kept as they are
    value = json.loads(samples[0].members["json"])
    assert value["key"] == "000010"
    assert value["caption"] == value["text"][0] == "第3张图"
    assert (value["width"], value["height"], value["score"], value["family"]) == (12, 9, 0.75, "f1")
    assert len(value["uid"]) == 32
    assert set(value) >= {
        "url",
        "original_width",
        "original_height",
        "status",
        "error_message",
        "exif",
        "sha256",
    }
    row = read_sidecar(tmp_path / "out" / "00001.parquet").to_pylist()[0]
    assert row["texts"] == ["第3张图", "图3"]
    assert {name: row[name] for name in ("id", "uid", "sha256", "key")} == {
        name: value[name] for name in ("id", "uid", "sha256", "key")
    }


def test_equal_bytes_however_it_is_run(tmp_path: Path) -> None:
    source = make_rows(tmp_path, 9)
    shard(source, tmp_path / "one", per_shard=4, jobs=1)
    shard(source, tmp_path / "four", per_shard=4, jobs=4)
    piped = run(
        "shard", "--per-shard", "4", "--image-root", str(tmp_path), "-o", str(tmp_path / "piped"), "-q",
        stdin=source.read_bytes(),
    )  # fmt: skip
    assert piped.returncode == 0, piped.stderr
    assert tree(tmp_path / "one") == tree(tmp_path / "four") == tree(tmp_path / "piped")


def test_parquet_with_pixels_equals_its_rows_as_jsonl(tmp_path: Path) -> None:
    """Types of kept columns do not depend on where they came from; the JSONL refers into the Parquet file."""
    frame = pl.DataFrame(
        {
            "id": ["a", "b", "c"],
            "image": [{"bytes": picture(i), "path": f"{i}.png"} for i in range(3)],
            "text": ["甲", "乙", "丙"],
            "score": pl.Series([1.0, 2.5, None], dtype=pl.Float32),
            "count": pl.Series([1, 2, 3], dtype=pl.UInt8),
            "flags": [[True], [], None],
            "struct": [{"x": 1}, {"x": 2}, None],
        }
    )
    frame.write_parquet(tmp_path / "rows.parquet")
    lines = []
    for i, row in enumerate(frame.drop("image").iter_rows(named=True)):
        lines.append(orjson.dumps({"image": f"rows.parquet#{i}", **row}))
    (tmp_path / "rows.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    shard(tmp_path / "rows.parquet", tmp_path / "p")
    shard(tmp_path / "rows.jsonl", tmp_path / "j")
    assert tree(tmp_path / "p") == tree(tmp_path / "j")
    schema = pq.read_schema(tmp_path / "p" / "00000.parquet")
    assert schema.field("score").type == pa.float64()
    assert schema.field("struct").type == pa.string()


def test_nothing_says_where_files_lay(tmp_path: Path) -> None:
    def remove_one(i: int, row: dict, file: Path) -> dict:
        if i == 2:
            file.unlink()
        return {**row, "image_id": row["image"]} if i == 0 else row

    shard(make_rows(tmp_path, 4, change=remove_one), tmp_path / "out", max_bad="1")
    for name, data in tree(tmp_path / "out").items():
        assert b"pictures" not in data, name
        assert str(tmp_path).encode() not in data, name
    rows = read_sidecar(tmp_path / "out" / "00000.parquet").to_pylist()
    assert [row["status"] for row in rows] == ["success", "success", "failed_to_download", "success"]
    assert rows[2]["error_message"] == "No such file or directory"
    assert rows[0]["image_id"] == rows[0]["sha256"]


def test_one_extension_for_all(tmp_path: Path) -> None:
    def mixed(i: int, row: dict, file: Path) -> dict:
        file.write_bytes(
            [b"<html>no image</html>", picture(1, "WEBP"), picture(2, "GIF"), picture(3, "JPEG")][i]
        )
        return row

    source = make_rows(tmp_path, 4, change=mixed)
    totals = shard(source, tmp_path / "kept", max_bad="1")
    assert (totals.rows, totals.samples, totals.extension) == (4, 3, "webp")
    samples = list(iterate(tmp_path / "kept" / "00000.tar"))
    assert [s.key for s in samples] == ["000000001", "000000002", "000000003"]  # the failed row leaves a gap
    assert {tuple(s.members) for s in samples} == {("json", "txt", "webp")}
    assert samples[0].image == picture(1, "WEBP")
    assert all(Image.open(io.BytesIO(s.image)).format == "WEBP" for s in samples)
    shard(source, tmp_path / "png", max_bad="1", encode="png")
    pixels = [Image.open(io.BytesIO(s.image)).convert("RGB") for s in iterate(tmp_path / "png" / "00000.tar")]
    assert pixels[1].tobytes() == Image.open(io.BytesIO(picture(2, "GIF"))).convert("RGB").tobytes()
    stats = json.loads((tmp_path / "kept" / "00000_stats.json").read_bytes())
    assert {k: stats[k] for k in ("count", "successes", "failed_to_resize", "duration")} == {
        "count": 4,
        "successes": 3,
        "failed_to_resize": 1,
        "duration": 0,
    }
    assert sum(stats["status_dict"].values()) == 4


def test_resize_goes_only_down(tmp_path: Path) -> None:
    sizes = [(40, 20), (10, 30), (8, 8)]

    def sized(i: int, row: dict, file: Path) -> dict:
        file.write_bytes(picture(i, size=sizes[i]))
        return row

    shard(make_rows(tmp_path, 3, change=sized), tmp_path / "out", resize=10)
    rows = read_sidecar(tmp_path / "out" / "00000.parquet").to_pylist()
    assert [(r["width"], r["height"]) for r in rows] == [(20, 10), (10, 30), (8, 8)]
    assert [(r["original_width"], r["original_height"]) for r in rows] == sizes
    images = [s.image for s in iterate(tmp_path / "out" / "00000.tar")]
    assert [Image.open(io.BytesIO(d)).size for d in images] == [(20, 10), (10, 30), (8, 8)]
    assert images[1:] == [picture(1, size=(10, 30)), picture(2, size=(8, 8))]


def photograph(number: int, size: tuple[int, int]) -> bytes:
    """A JPEG of waves, a few kilobytes."""
    y, x = np.mgrid[: size[1], : size[0]]
    grey = 128 + 60 * np.sin((x + y * number) / 7) + 60 * np.sin((y - x) / (3 + number))
    buffer = io.BytesIO()
    Image.fromarray(grey.clip(0, 255).astype(np.uint8)).convert("RGB").save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def test_reduced_jpegs_have_equal_bytes_and_their_own_sizes(tmp_path: Path) -> None:
    sizes = [(640, 480), (321, 243), (96, 500), (70, 50), (64, 64), (63, 200)]

    def sized(i: int, row: dict, file: Path) -> dict:
        file.write_bytes(photograph(i, sizes[i]))
        return row

    source = make_rows(tmp_path, len(sizes), change=sized)
    for jobs in (1, 4):
        shard(source, tmp_path / f"{jobs}", jobs=jobs, resize=64)
    assert tree(tmp_path / "1") == tree(tmp_path / "4")
    rows = read_sidecar(tmp_path / "1" / "00000.parquet").to_pylist()
    assert [(r["original_width"], r["original_height"]) for r in rows] == sizes
    assert [(r["width"], r["height"]) for r in rows] == [
        (85, 64), (85, 64), (64, 333), (70, 50), (64, 64), (63, 200)
    ]  # fmt: skip
    images = [s.image for s in iterate(tmp_path / "1" / "00000.tar")]
    assert [Image.open(io.BytesIO(d)).size for d in images] == [(r["width"], r["height"]) for r in rows]
    assert images[3:] == [photograph(i, sizes[i]) for i in (3, 4, 5)]


@pytest.mark.parametrize("resize", [None, 20, 200])
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
def test_every_cut_of_an_image_is_judged_alike(format: str, resize: int | None) -> None:
    """With the message that decoding in full gives, whether or not less than the full picture is wanted."""
    image = Image.open(io.BytesIO(photograph(1, (90, 70))))
    buffer = io.BytesIO()
    image.save(buffer, format)
    data, errors = buffer.getvalue(), 0
    for length in (*range(0, len(data), 5), *range(len(data) - 30, len(data))):
        full = reduced = ""
        try:
            decode(data[:length])
        except ValueError as error:
            full = str(error).partition("(")[0]
        try:
            pack_image(data[:length], None, resize)
        except ValueError as error:
            reduced = str(error).partition("(")[0]
        assert full == reduced, length
        errors += bool(full)
    assert errors > len(data) // 5


def test_a_truncated_image_is_bad_and_commits_nothing(tmp_path: Path) -> None:
    def cut(i: int, row: dict, file: Path) -> dict:
        if i == 4:
            file.write_bytes(picture(4, "JPEG", (64, 64))[:-100])
        return row

    with pytest.raises(InputError, match=r"rows.jsonl:5: .*damaged jpg"):
        shard(make_rows(tmp_path, 6, change=cut), tmp_path / "out", per_shard=3)
    assert sorted(tree(tmp_path / "out")) == ["00000.parquet", "00000.tar", "00000_stats.json"]


def test_a_percentage_is_judged_before_the_last_shard_stands(tmp_path: Path) -> None:
    def every_other(i: int, row: dict, file: Path) -> dict:
        if i % 2:
            file.write_bytes(b"")
        return row

    source = make_rows(tmp_path, 6, change=every_other)
    with pytest.raises(InputError, match="3 of 6 rows are bad"):
        shard(source, tmp_path / "out", per_shard=3, max_bad="40%")
    assert "00001.tar" not in tree(tmp_path / "out")
    assert "sizes.json" not in tree(tmp_path / "out")
    assert shard(source, tmp_path / "more", per_shard=3, max_bad="50%").samples == 3


def test_rejects_can_be_sharded_again(tmp_path: Path) -> None:
    def broken(i: int, row: dict, file: Path) -> dict:
        if i == 1:
            file.write_bytes(b"")
        return row

    source, rejects = make_rows(tmp_path, 3, change=broken), tmp_path / "elsewhere" / "rejects.jsonl"
    rejects.parent.mkdir()
    vlcli(
        "shard", str(source), "-o", str(tmp_path / "out"), "-q", "--max-bad", "1", "--rejects", str(rejects)
    )  # fmt: skip
    (line,) = rejects.read_bytes().splitlines()
    rejected = json.loads(line)
    assert (rejected["line"], rejected["rule"]) == (2, "bad")
    assert "not an image" in rejected["reason"]
    (tmp_path / "pictures" / "1.img").write_bytes(picture(1))
    (rejects.parent / "again.jsonl").write_text(json.dumps(rejected["row"]) + "\n")
    shard(rejects.parent / "again.jsonl", tmp_path / "again")
    table = read_sidecar(tmp_path / "again" / "00000.parquet").to_pylist()
    assert (table[0]["texts"], table[0]["score"]) == (["第1张图", "图1"], 0.25)


def test_a_disk_that_fails_leaves_no_shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, calls = make_rows(tmp_path, 2), []

    def full(handle: int) -> None:
        calls.append(handle)
        if len(calls) > 4:  # run.json and the journal, and their folder twice, still find room
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        shard(source, tmp_path / "out")
    monkeypatch.undo()
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["_vlcli"]
    assert sorted(p.name for p in (tmp_path / "out" / "_vlcli").iterdir()) == [
        "committed.jsonl",
        "lock",
        "run.json",
    ]


def test_a_row_without_text_is_bad(tmp_path: Path) -> None:
    source = make_rows(tmp_path, 2, change=lambda i, row, file: {**row, "text": ["", " "]} if i else row)
    with pytest.raises(InputError, match=r"rows.jsonl:2: no text"):
        shard(source, tmp_path / "out")


def test_zero_fields_are_texts(tmp_path: Path) -> None:
    def zero(i: int, row: dict, file: Path) -> dict:
        del row["text"]
        return {**row, "title": "标题", "image_query": ["搜索", ""]}

    shard(make_rows(tmp_path, 1, change=zero), tmp_path / "out")
    assert read_sidecar(tmp_path / "out" / "00000.parquet")["texts"].to_pylist() == [["标题", "搜索"]]


@pytest.mark.parametrize("tail", [b"{", b'{"image": "pictures/0.img", "text": "'])
def test_upstream_that_fails_leaves_nothing_that_looks_whole(tmp_path: Path, tail: bytes) -> None:
    source = make_rows(tmp_path, 4)
    source.write_bytes(source.read_bytes() + tail)
    with pytest.raises(InputError, match=r"rows.jsonl:5: "):
        shard(source, tmp_path / "out", per_shard=2)
    # Four rows make two full shards, and the second is not committed: nobody knows whether the first four are
    # right.
    assert sorted(tree(tmp_path / "out")) in ([], ["00000.parquet", "00000.tar", "00000_stats.json"])


def test_expect(tmp_path: Path) -> None:
    source = make_rows(tmp_path, 4)
    assert shard(source, tmp_path / "right", per_shard=2, expect=4).rows == 4
    for wrong in (3, 5):
        with pytest.raises(InputError, match=f"4 rows came, --expect {wrong}"):
            shard(source, tmp_path / f"wrong{wrong}", per_shard=2, expect=wrong)
        # A last shard that is full is not committed either.
        assert sorted(tree(tmp_path / f"wrong{wrong}")) == ["00000.parquet", "00000.tar", "00000_stats.json"]


def test_a_directory_that_holds_something_is_refused(tmp_path: Path) -> None:
    source, out = make_rows(tmp_path, 5), tmp_path / "out"
    shard(source, out, per_shard=2)
    (out / "README.txt").write_text("mine")
    with pytest.raises(UsageError, match="not empty"):
        shard(source, out, per_shard=2)
    before = tree(out)
    empty = make_rows(tmp_path / "c", 1)
    empty.write_bytes(b"no JSON\n")
    with pytest.raises(InputError):
        shard(empty, out, force=True)
    assert tree(out) == before  # nothing is removed before the first row has come
    shard(make_rows(tmp_path / "b", 2), out, per_shard=2, force=True)
    assert sorted(tree(out)) == ["00000.parquet", "00000.tar", "00000_stats.json", "README.txt", "sizes.json"]


def test_no_rows(tmp_path: Path) -> None:
    """An empty pipe leaves nothing behind."""
    totals = shard(make_rows(tmp_path, 0), tmp_path / "out")
    assert totals.shards == 0
    assert not (tmp_path / "out").exists(), (
        "a stage that failed upstream must not leave a whole-looking data set"
    )
    shard(make_rows(tmp_path, 2), tmp_path / "out")  # the corrected run is not in its own way


class Interrupted(BaseException):
    pass


@pytest.mark.parametrize("after", [0, 1, 2])
def test_resume_gives_the_same_tree(tmp_path: Path, after: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped while shard `after` is being written: its files are absent, and the rest is not made again."""

    def broken(i: int, row: dict, file: Path) -> dict:
        if i in (1, 6):
            file.write_bytes(b"no image")
        return row

    source = make_rows(tmp_path, 8, change=broken)
    shard(source, tmp_path / "whole", per_shard=3, max_bad="2")
    import vlcli.shards.dataset as module

    original = module.write_shard

    def stopping(directory: Path, number: int, per_shard: int, rows, rules):
        def some():
            for row in rows:
                yield row
                if number == after:
                    raise Interrupted

        return original(directory, number, per_shard, some(), rules)

    monkeypatch.setattr(module, "write_shard", stopping)
    with pytest.raises(Interrupted):
        shard(source, tmp_path / "out", per_shard=3, max_bad="2")
    assert len(tree(tmp_path / "out")) == 3 * after
    monkeypatch.setattr(module, "write_shard", original)
    before = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "out").glob("*.tar")}
    totals = shard(source, tmp_path / "out", per_shard=3, max_bad="2", resume=True)
    assert (totals.skipped, totals.samples, totals.rows) == (after, 6, 8)
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")
    assert all((tmp_path / "out" / name).stat().st_mtime_ns == at for name, at in before.items())


def test_resume_counts_the_bad_rows_of_shards_that_stand(tmp_path: Path) -> None:
    def broken(i: int, row: dict, file: Path) -> dict:
        if i in (1, 4):
            file.write_bytes(b"no image")
        return row

    source = make_rows(tmp_path, 5, change=broken)
    for resume in (False, True):
        with pytest.raises(InputError, match="bad row 2"):
            shard(source, tmp_path / "out", per_shard=3, max_bad="1", resume=resume)


def test_resume_refuses_other_input_and_options(tmp_path: Path) -> None:
    out = tmp_path / "out"
    shard(make_rows(tmp_path, 5), out, per_shard=2)
    whole = tree(out)
    with pytest.raises(UsageError, match="--per-shard: 2 then, 3 now"):
        shard(tmp_path / "rows.jsonl", out, per_shard=3, resume=True)
    with pytest.raises(UsageError, match="--resize: None then, 64 now"):
        shard(tmp_path / "rows.jsonl", out, per_shard=2, resize=64, resume=True)
    changed = make_rows(
        tmp_path, 5, change=lambda i, row, file: {**row, "score": 9} if i == 3 else row, name="b.jsonl"
    )
    with pytest.raises(UsageError, match="shard 00001: its rows changed"):
        shard(changed, out, per_shard=2, resume=True)
    with pytest.raises(UsageError, match="shard 00002: 1 rows then, 2 now"):
        shard(make_rows(tmp_path, 6, name="c.jsonl"), out, per_shard=2, resume=True)
    with pytest.raises(UsageError, match="shard 00002 stands there too"):
        shard(make_rows(tmp_path, 4, name="d.jsonl"), out, per_shard=2, resume=True)
    assert tree(out) == whole
    assert shard(tmp_path / "rows.jsonl", out, per_shard=2, resume=True).skipped == 3
    assert tree(out) == whole
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "x").touch()
    with pytest.raises(UsageError, match="nothing to resume"):
        shard(tmp_path / "rows.jsonl", tmp_path / "foreign", resume=True)


def test_resume_makes_again_what_is_gone_or_cut(tmp_path: Path) -> None:
    source, out = make_rows(tmp_path, 6), tmp_path / "out"
    shard(source, out, per_shard=2)
    whole = tree(out)
    (out / "00000_stats.json").unlink()
    with open(out / "00002.tar", "r+b") as file:
        file.truncate(1000)
    (out / ".00001.tar.0123abcd.tmp").write_bytes(b"left by a run that was killed")
    assert shard(source, out, per_shard=2, resume=True).skipped == 1
    assert tree(out) == whole


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([1, None, 2], pa.int64()),
        ([1, 2.5], pa.float64()),
        ([True, False], pa.bool_()),
        ([None, None], pa.string()),
        (["a", 1], pa.string()),
        ([[1], [], None], pa.list_(pa.int64())),
        ([[], []], pa.list_(pa.string())),
        ([[1, "a"]], pa.string()),
        ([{"a": 1}], pa.string()),
    ],
)
def test_types_of_kept_columns(values: list, kind: pa.DataType) -> None:
    array = column(values)
    assert array.type == kind
    assert len(array) == len(values)


def test_plain_values() -> None:
    import datetime

    assert plain([float("nan"), 1 << 70, b"\0\1", datetime.date(2026, 1, 2), {"a": (1,)}]) == [
        None,
        "1180591620717411303424",
        "AAE=",
        "2026-01-02",
        {"a": [1]},
    ]


def test_the_command_says_what_it_did(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = make_rows(tmp_path, 5)
    out = str(tmp_path / "out")
    vlcli("shard", str(source), "--per-shard", "2", "-o", out, "--dry-run")
    assert "5 rows into 3 shards" in capsys.readouterr().out
    assert not Path(out).exists()
    vlcli("shard", str(source), "--per-shard", "2", "-o", out)
    said = capsys.readouterr()
    assert said.out == ""
    assert "5 rows = 5 samples + 0 failed, 3 shards" in said.err
    assert "workers × processes" in said.err
    with pytest.raises(UsageError, match="not empty; --force replaces it, --resume compares"):
        vlcli("shard", str(source), "-o", out)
    with pytest.raises(UsageError, match="exclude each other"):
        vlcli("shard", str(source), "-o", out, "--force", "--resume")
