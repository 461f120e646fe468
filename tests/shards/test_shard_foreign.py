"""Nothing good is called bad, whoever wrote it; and of what is damaged no row is ever lost in silence."""

from __future__ import annotations

import functools
import io
import os
import subprocess
import tarfile
from pathlib import Path

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import webdataset
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from shard_cases import make_rows, picture, shard

from vlcli.errors import InputError
from vlcli.shards.check import check_directory, check_tar
from vlcli.shards.pairs import load_pairs
from vlcli.shards.whole import iterate, read_shard


def expect_whole(path: Path, samples: int) -> None:
    """Plain and deep, the check finds nothing, and the reader has all of it."""
    check = check_directory if path.is_dir() else check_tar
    for deep in (False, True):
        verdict = check(path, deep=deep)
        assert (verdict.findings, verdict.samples) == ([], samples)
    tars = sorted(path.glob("*.tar")) if path.is_dir() else [path]
    assert sum(len(list(iterate(tar))) for tar in tars) == samples


FILES = [(f"{k}.{e}", picture(i, "JPEG") if e == "jpg" else f"图{i}".encode())
         for i, k in enumerate(("猫 1", "a/b.c/狗", "0003")) for e in ("jpg", "txt")]  # fmt: skip


@pytest.mark.parametrize("format", ["gnu", "oldgnu", "pax", "posix", "ustar", "v7"])
@pytest.mark.parametrize("blocking", ["1", "20", "64"])
def test_gnu_tar(tmp_path: Path, format: str, blocking: str) -> None:
    for name, data in FILES:
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(data)
    long = "长" * 20 + "x" * 60
    if format not in ("ustar", "v7"):
        for extension, data in (("jpg", picture(7, "JPEG")), ("txt", b"")):
            (tmp_path / "in" / f"{long}.{extension}").write_bytes(data)
    command = ["tar", "--sort=name", f"--format={format}", "-b", blocking, "-cf", tmp_path / "x.tar"]
    subprocess.run([*command, "-C", tmp_path / "in", "."], check=True, stderr=subprocess.DEVNULL)
    expect_whole(tmp_path / "x.tar", 3 if format in ("ustar", "v7") else 4)


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_python_tarfile(tmp_path: Path, format: int) -> None:
    with tarfile.open(tmp_path / "x.tar", "w", format=format, pax_headers={"comment": "x"}) as tar:
        for name, data in FILES:
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(data), 1_700_000_000
            if format == tarfile.PAX_FORMAT:
                info.mtime, info.pax_headers = 1_700_000_000.5, {"VENDOR.note": "狗" * 300}
            tar.addfile(info, io.BytesIO(data))
    expect_whole(tmp_path / "x.tar", 3)


def test_webdataset_writers(tmp_path: Path) -> None:
    (tmp_path / "many").mkdir()
    with webdataset.ShardWriter(str(tmp_path / "many" / "set-%04d.tar"), maxcount=2, verbose=0) as writer:
        for i in range(5):
            writer.write({"__key__": f"s{i:07d}", "jpg": picture(i, "JPEG"), "cls": i, "json": {"狗": [i]}})
    expect_whole(tmp_path / "many", 5)
    with webdataset.TarWriter(str(tmp_path / "x.tar"), encoder=False) as writer:
        for i in range(2):
            writer.write(
                {"__key__": f"s{i}", "txt": b"", "seg.png": picture(i), "npy": b"", "jpg": picture(i, "JPEG")}
            )
    expect_whole(tmp_path / "x.tar", 2)


def test_img2dataset_with_failed_rows(tmp_path: Path) -> None:
    """Eight digits, samples in the order of completion, sizes.json of another tool beside them."""
    for number, keys in ((0, (2, 0)), (1, (0, 1, 2)), (2, ())):
        name = f"{number:08d}"
        with webdataset.TarWriter(str(tmp_path / f"{name}.tar"), encoder=False) as writer:
            for i in keys:
                value = {"key": f"{name}{i:04d}", "caption": "", "status": "success", "sha256": "0" * 64}
                sample = {"jpg": picture(i, "JPEG"), "json": orjson.dumps(value), "txt": b""}
                writer.write({"__key__": value["key"], **sample})
        rows = [{"key": f"{name}{i:04d}", "url": "u", "status": ["failed_to_download", "success"][i in keys]}
                for i in range(3)]  # fmt: skip
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / f"{name}.parquet")
        stats = {"count": 3, "successes": len(keys), "failed_to_download": 3 - len(keys)}
        (tmp_path / f"{name}_stats.json").write_bytes(orjson.dumps(stats))
    expect_whole(tmp_path, 5)
    (tmp_path / "sizes.json").write_bytes(orjson.dumps({f"{i:08d}.tar": n for i, n in enumerate((2, 3, 0))}))
    expect_whole(tmp_path, 5)
    with pytest.raises(InputError, match="no text"):  # whole, and nothing to train on all the same
        load_pairs([str(tmp_path)])


def test_our_own_of_all_kinds(tmp_path: Path) -> None:
    def odd(i: int, row: dict, file: Path) -> dict:
        if i in (0, 3, 4, 5):  # the whole second shard, and the very first row
            file.write_bytes(b"no image")
        row["text"] = ["\u202e🐶\u0000"[:2] + "\n" * i, "é" * 3000, "e\u0301"][: 1 + i % 3]
        return row | {
            "nested": {"a": [None, {"b": "狗"}]},
            "empty": [],
            "none": None,
            "big": 1 << 60,
            "": "x",
        }

    source = make_rows(tmp_path, 8, change=odd)
    for name, options in {
        "three": {"per_shard": 3},
        "one": {"per_shard": 1},
        "jpg": {"encode": "jpg", "resize": 5},
    }.items():
        shard(source, tmp_path / name, max_bad="100%", **options)
        expect_whole(tmp_path / name, 4)
        assert len(load_pairs([str(tmp_path / name)])) == 4
    shard(make_rows(tmp_path / "s", 1), tmp_path / "single")
    expect_whole(tmp_path / "single", 1)
    # A part of the shards, taken elsewhere with or without what stands beside them.
    part = tmp_path / "part"
    part.mkdir()
    for end in (".tar", ".parquet", "_stats.json"):
        os.link(tmp_path / "three" / f"00002{end}", part / f"00002{end}")
    expect_whole(part, 2)
    (part / "00002.parquet").unlink()
    (part / "00002_stats.json").unlink()
    expect_whole(part, 2)


def test_members_of_more_than_8_gib(tmp_path: Path) -> None:
    """Sizes that octal digits cannot say: base-256 in GNU's header, a record in pax'. The file is sparse."""
    size = 9 << 30
    for name, format in (("gnu", tarfile.GNU_FORMAT), ("pax", tarfile.PAX_FORMAT)):
        with open(tmp_path / f"{name}.tar", "wb") as file:
            for key in ("0", "1"):
                info = tarfile.TarInfo(f"{key}.tiff")
                info.size = size
                file.write(info.tobuf(format, "utf-8", "surrogateescape"))
                file.seek(size, os.SEEK_CUR)
            end = file.tell()
            file.truncate(end + 1024)
        assert check_tar(tmp_path / f"{name}.tar").findings == []
        assert [k for k, _ in read_shard(tmp_path / f"{name}.tar").samples] == ["0", "1"]
        os.truncate(tmp_path / f"{name}.tar", end - 512)
        assert [f.code for f in check_tar(tmp_path / f"{name}.tar").findings] == ["cut"]
        os.unlink(tmp_path / f"{name}.tar")


@functools.cache
def archives() -> list[bytes]:
    """Small tars in all formats: short names, long ones in extension headers, members of every size."""
    made = []
    for format, width in ((tarfile.USTAR_FORMAT, 3), (tarfile.GNU_FORMAT, 130), (tarfile.PAX_FORMAT, 130)):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=format) as tar:
            for i, length in enumerate((5, 512, 0)):
                for extension in ("cls", "txt"):
                    info = tarfile.TarInfo(f"{i:0{width}d}.{extension}")
                    info.size = length
                    tar.addfile(info, io.BytesIO(b"x" * length))
        made.append(buffer.getvalue())
    return made


def rows(path: Path) -> list[tuple[str, dict[str, int]]]:
    return [(key, {e: m.size for e, m in members.items()}) for key, members in read_shard(path).samples]


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("scratch") / "x.tar"


@settings(max_examples=600, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    which=st.integers(0, 2), position=st.integers(0, 1 << 14), value=st.integers(0, 255), cut=st.booleans()
)
@example(which=2, position=512 + 4, value=ord("q"), cut=False)
def test_any_prefix_and_any_changed_byte(
    scratch: Path, which: int, position: int, value: int, cut: bool
) -> None:
    """The right rows, or an error that names the file and the place."""
    data = archives()[which]
    scratch.write_bytes(data)
    right = rows(scratch)
    position %= len(data)
    damaged = data[:position] if cut else data[:position] + bytes([value]) + data[position + 1 :]
    scratch.write_bytes(damaged)
    found, said = None, ""
    try:
        found = rows(scratch)
    except InputError as error:
        said = str(error)
    if found is None:
        assert said.startswith(f"{scratch}: ")
        assert any(c.isdigit() for c in said.removeprefix(str(scratch)))
    elif which == 0 or cut:
        assert found == right
    else:  # names in extension headers have no checksum: one may change, none may be lost
        assert [m for _, m in found] == [m for _, m in right]
