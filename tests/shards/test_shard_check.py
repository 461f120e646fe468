"""check and the reader: every cut, flip, hole and miscount is found, and nothing whole is called damaged."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import webdataset
from shard_cases import make_rows, members, picture, shard, vlcli

from vlcli.errors import InputError, UsageError
from vlcli.shards.check import check_directory, check_tar
from vlcli.shards.layout import member_header
from vlcli.shards.whole import iterate, read_shard


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three shards of three samples."""
    folder = tmp_path_factory.mktemp("whole")
    shard(make_rows(folder, 9), folder / "out", per_shard=3)
    return folder / "out"


def damaged_copy(
    whole: Path, folder: Path, change: Callable[[bytearray], None], name: str = "00000.tar"
) -> Path:
    shutil.copytree(whole, folder)
    data = bytearray((folder / name).read_bytes())
    change(data)
    (folder / name).write_bytes(data)
    return folder


def webdataset_reads(tar: Path) -> int:
    """Samples that webdataset's own reader gives, with every error raised."""
    return sum(
        1 for _ in webdataset.WebDataset(str(tar), shardshuffle=False, handler=webdataset.reraise_exception)
    )


def test_whole(whole: Path) -> None:
    for deep in (False, True):
        verdict = check_directory(whole, deep=deep)
        assert (verdict.status, verdict.shards, verdict.samples) == ("whole", 3, 9)
        assert verdict.findings == verdict.notes == []
        assert check_tar(whole / "00001.tar", deep=deep).status == "whole"


def test_a_cut_at_a_member_boundary(whole: Path, tmp_path: Path) -> None:
    """The damage that tar readers pass over: webdataset reads two samples and says nothing."""
    boundary = next(m.header for m in members(whole / "00000.tar") if m.name == "000002.json")
    folder = damaged_copy(whole, tmp_path / "cut", lambda data: data.__delitem__(slice(boundary, None)))
    assert webdataset_reads(folder / "00000.tar") == 2
    assert subprocess.run(["tar", "tf", folder / "00000.tar"], capture_output=True).returncode == 0
    verdict = check_directory(folder)
    assert verdict.status == "damaged"
    (finding,) = verdict.findings
    assert (finding.code, finding.offset) == ("cut", boundary)
    assert (
        finding.message == f"cut after member 000001.txt (header boundary at byte {boundary}): 2 of 3 samples"
    )
    with pytest.raises(
        InputError, match=r"cut after member 000001.txt .*2 of 3 samples; .vlcli check .*00000.tar"
    ):
        read_shard(folder / "00000.tar")


def test_flips_in_data_are_found_with_deep(whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(whole, folder)
    shutil.rmtree(folder / "_vlcli")  # its manifest has the sha256 of the whole tar: judge without it
    tar, data = folder / "00000.tar", bytearray((whole / "00000.tar").read_bytes())
    for member in members(tar)[3:6]:
        for position in range(member.data, member.data + member.size, 7):
            data[position] ^= 0x10
            tar.write_bytes(data)
            verdict = check_tar(tar, deep=True)
            assert [f.code for f in verdict.findings] == ["content"], (member.name, position - member.data)
            assert member.name in verdict.findings[0].message
            data[position] ^= 0x10
    padding = members(tar)[3].data + members(tar)[3].size
    data[padding] ^= 1
    tar.write_bytes(data)
    assert check_tar(tar, deep=True).status == "whole"  # no reader sees these bytes …
    shutil.copytree(whole / "_vlcli", folder / "_vlcli")
    assert [f.code for f in check_tar(tar, deep=True).findings] == ["sha256"]  # … but they were recorded


def test_holes(whole: Path, tmp_path: Path) -> None:
    found = members(whole / "00000.tar")

    def zero(start: int, stop: int) -> Callable[[bytearray], None]:
        return lambda data: data.__setitem__(slice(start, stop), bytes(stop - start))

    hole = damaged_copy(whole, tmp_path / "a", zero(found[3].header, found[6].header))
    assert webdataset_reads(hole / "00000.tar") == 1
    assert [f.code for f in check_directory(hole).findings] == ["hole"]
    one = damaged_copy(whole, tmp_path / "b", zero(found[4].header, found[4].data))
    assert [f.code for f in check_directory(one).findings] == ["hole"]
    inside = damaged_copy(whole, tmp_path / "c", zero(found[1].data, found[1].data + 20))
    assert check_directory(inside).status == "whole"
    assert check_directory(inside, deep=True).status == "damaged"


def test_end_blocks(whole: Path, tmp_path: Path) -> None:
    last = members(whole / "00000.tar")[-1].end
    none = damaged_copy(whole, tmp_path / "none", lambda data: data.__delitem__(slice(last, None)))
    (finding,) = check_directory(none).findings
    assert finding.code == "end"
    assert "all 3 samples" in finding.message
    one = damaged_copy(whole, tmp_path / "one", lambda data: data.__delitem__(slice(last + 512, None)))
    assert [f.code for f in check_directory(one).findings] == ["end"]
    shutil.copy(none / "00000.tar", tmp_path / "lone.tar")
    lone = check_tar(tmp_path / "lone.tar")
    assert "it may be cut there" in lone.findings[0].message
    assert "compared with nothing" in lone.notes[0]


def tar_of(
    *files: tuple[str, bytes], format: int = tarfile.USTAR_FORMAT, types: dict[str, bytes] | None = None
) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format) as tar:
        for name, data in files:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            info.type = (types or {}).get(name, tarfile.REGTYPE)
            if info.type != tarfile.REGTYPE:
                info.size, info.linkname = 0, "elsewhere"
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("code", "data"),
    [
        ("interleaved", tar_of(("0.jpg", b"a"), ("1.jpg", b"b"), ("0.txt", b"c"), ("1.txt", b"d"))),
        ("duplicate", tar_of(("0.jpg", b"a"), ("0.jpg", b"b"))),
        ("members", tar_of(("0.jpg", b"a"), ("0.txt", b"c"), ("1.jpg", b"b"))),
        ("members", tar_of(("0.jpg", b"a"), ("1.jpg", b"b"), ("1.cls", b"0"))),
        ("name", tar_of(("/etc/0.jpg", b"a"))),
        ("name", tar_of(("../0.jpg", b"a"))),
        ("type", tar_of(("0.jpg", b""), types={"0.jpg": tarfile.SYMTYPE})),
        ("type", tar_of(("0.jpg", b""), types={"0.jpg": tarfile.LNKTYPE})),
        ("type", tar_of(("0.jpg", b""), types={"0.jpg": tarfile.FIFOTYPE})),
        (
            "hole",
            tar_of(("0.jpg", b"a")) + tar_of(("1.jpg", b"a")),
        ),  # concatenated: readers stop at the first end
        ("cut", b""),
        ("header", b"<html>" * 200),
    ],
)
def test_tars_that_no_loader_should_see(code: str, data: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_bytes(data)
    assert code in [f.code for f in check_tar(tmp_path / "x.tar").findings]


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_foreign_tars_are_whole(format: int, tmp_path: Path) -> None:
    """Long and non-ASCII names, in each format's own way; keys in any order; no json."""
    long = "深/" + "d" * 60 + "/" + "k" * (90 if format == tarfile.USTAR_FORMAT else 190)
    files = [(f"{key}.{ext}", b"x" * 700) for key in (long, "000009", "000003") for ext in ("cls", "jpg")]
    (tmp_path / "x.tar").write_bytes(tar_of(*files, format=format))
    verdict = check_tar(tmp_path / "x.tar")
    assert (verdict.status, verdict.samples) == ("whole", 3)
    assert [key for key, _ in read_shard(tmp_path / "x.tar").samples] == [long, "000009", "000003"]


def test_what_gnu_tar_writes_is_whole(tmp_path: Path) -> None:
    for i in range(3):
        (tmp_path / "in" / f"{i}.jpg").parent.mkdir(exist_ok=True)
        (tmp_path / "in" / f"{i}.jpg").write_bytes(picture(i, "JPEG"))
    for extra in ([], ["--format=pax"], ["--format=v7"]):
        subprocess.run(
            ["tar", "--sort=name", *extra, "-cf", tmp_path / "x.tar", "-C", tmp_path / "in", "."], check=True
        )
        verdict = check_tar(tmp_path / "x.tar", deep=True)
        assert (verdict.findings, verdict.samples) == ([], 3)


def test_img2dataset_shards_are_whole(tmp_path: Path) -> None:
    """Keys in completion order, a failed row, sha256 of the download and not of what is stored, no
    sizes.json.
    """
    with webdataset.TarWriter(str(tmp_path / "00003.tar"), encoder=False) as writer:
        for i in (2, 0):
            value = {"key": f"00003000{i}", "caption": "x", "sha256": "0" * 64}
            writer.write(
                {
                    "__key__": f"00003000{i}",
                    "jpg": picture(i, "JPEG"),
                    "json": orjson.dumps(value),
                    "txt": b"x",
                }
            )
    keys = ["000030000", "000030001", "000030002"]
    status = ["success", "failed_to_download", "success"]
    pq.write_table(
        pa.table({"key": keys, "status": status, "sha256": ["1" * 64] * 3}), tmp_path / "00003.parquet"
    )
    stats = {"count": 3, "successes": 2, "failed_to_download": 1, "failed_to_resize": 0}
    (tmp_path / "00003_stats.json").write_bytes(orjson.dumps(stats))
    for deep in (False, True):
        assert check_directory(tmp_path, deep=deep).findings == []
    boundary = members(tmp_path / "00003.tar")[3].header
    os.truncate(tmp_path / "00003.tar", boundary)
    (finding,) = check_directory(tmp_path).findings
    assert finding.message.endswith("1 of 2 samples")


def remove(*names: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        for name in names:
            (folder / name).unlink()

    return change


def edit_json(name: str, **values: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / name).write_text(json.dumps(json.loads((folder / name).read_bytes()) | values))

    return change


def flip(name: str, position: int) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        data = bytearray((folder / name).read_bytes())
        data[position] ^= 0x20
        (folder / name).write_bytes(data)

    return change


def ended_again(folder: Path) -> None:
    """A sample is lost and the archive ends properly: what a repair tool leaves."""
    data = (folder / "00000.tar").read_bytes()[: members(folder / "00000.tar")[6].header]
    (folder / "00000.tar").write_bytes(data + bytes(10240))


@pytest.mark.parametrize(
    ("code", "file", "change"),
    [
        ("missing", "00001.tar", remove("00001.tar", "00001.parquet", "00001_stats.json")),
        ("missing", "00000.tar", remove("00000.tar", "00000.parquet", "00000_stats.json")),
        ("missing", "00002.tar", remove("00002.tar", "00002.parquet", "00002_stats.json")),
        ("missing", "00001.tar", remove("00001.parquet")),
        ("uncommitted", "00002.tar", remove("00002_stats.json")),
        ("unfinished", "", remove("sizes.json")),
        ("count", "00000.tar", edit_json("00000_stats.json", successes=4)),
        ("count", "00000.tar", edit_json("sizes.json", **{"00000.tar": 4})),
        ("sizes", "sizes.json", edit_json("sizes.json", **{"00000.tar": "three"})),
        ("missing", "00007.tar", edit_json("sizes.json", **{"00007.tar": 3})),
        ("stats", "00000_stats.json", edit_json("00000_stats.json", successes=None)),
        ("sidecar", "00000.parquet", flip("00000.parquet", 40)),
        ("sidecar", "00000.parquet", flip("00000.parquet", -1)),
        ("keys", "00000.tar", ended_again),
        ("count", "00000.tar", ended_again),
        ("bytes", "00000.tar", ended_again),
        ("keys", "00001.tar", lambda folder: shutil.copy(folder / "00000.tar", folder / "00001.tar")),
        (
            "keys",
            "00001.parquet",
            lambda folder: shutil.copy(folder / "00000.parquet", folder / "00001.parquet"),
        ),
    ],
)
def test_what_stands_beside_the_tars(
    whole: Path, tmp_path: Path, code: str, file: str, change: Callable[[Path], None]
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(whole, folder)
    change(folder)
    verdict = check_directory(folder)
    assert (code, str(folder / file)) in [(f.code, f.file) for f in verdict.findings], verdict.findings


def test_foreign_member_in_our_shard(whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(whole, folder)
    data = (folder / "00000.tar").read_bytes()
    first = members(folder / "00000.tar")[3].header
    extra = member_header("README", 0)
    (folder / "00000.tar").write_bytes(data[:first] + extra + data[first:-512])
    assert check_directory(folder).findings[0].code == "foreign"


def test_reader_compares_the_count(whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(whole, folder)
    ended_again(folder)
    with pytest.raises(InputError, match=r"00000.tar: 1 samples are not in the tar, the first 000002"):
        list(iterate(folder / "00000.tar"))


def test_the_command(whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert vlcli("check", str(whole)) == 0
    assert capsys.readouterr().out == f"{whole}: whole, 3 shards, 9 samples\n"
    folder = tmp_path / "copy"
    shutil.copytree(whole, folder)
    os.truncate(folder / "00001.tar", 512)
    assert vlcli("check", str(whole), str(folder)) == 3
    said = capsys.readouterr()
    assert said.err.startswith(f"vlcli check: {folder}/00001.tar: cut inside the data of 000010.json")
    assert vlcli("check", "--json", str(folder)) == 3
    report = json.loads(capsys.readouterr().out)
    assert report["whole"] is False
    assert [set(f) for f in report["findings"]] == [{"code", "file", "offset", "message"}]
    for path in (tmp_path / "nothing", tmp_path, Path(__file__)):
        with pytest.raises(UsageError):
            vlcli("check", str(path))


def test_unreadable_is_exit_1(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import vlcli.shards.check_shard as module

    def refuse(path: Path) -> int:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(module, "open_tar", refuse)
    assert vlcli("check", str(whole / "00000.tar"), "-q") == 1
