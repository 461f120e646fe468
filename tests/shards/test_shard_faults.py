"""The whole fault kit against `check` and against the reader that training uses: at every offset, every byte."""

from __future__ import annotations

import os
import shutil
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import orjson
import pyarrow.parquet as pq
import pytest
from shard_cases import make_rows, members, shard

import vlcli.shards.check_deep
from vlcli.errors import InputError
from vlcli.shards.check import check_directory, check_tar, directory_records
from vlcli.shards.check_deep import check_deep
from vlcli.shards.check_shard import Recorded, check_shard, read_recorded
from vlcli.shards.findings import Verdict
from vlcli.shards.layout import member_header, sidecar_of
from vlcli.shards.pairs import load_pairs
from vlcli.shards.tar import Member, TarDamage
from vlcli.shards.whole import read_shard

LONE = Recorded()  # a tar beside which nothing stands


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three shards of three samples."""
    folder = tmp_path_factory.mktemp("faults")
    shard(make_rows(folder, 9), folder / "out", per_shard=3)
    return folder / "out"


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Path:
    shutil.copytree(whole, tmp_path / "copy")
    return tmp_path / "copy"


def recorded_of(tar: Path) -> Recorded:
    """What stands beside a whole tar, read once for thousands of damaged ones."""
    verdict = Verdict(str(tar), "tar")
    sizes, manifest = directory_records(tar.parent, verdict)
    recorded = read_recorded(tar, verdict, sizes=sizes, manifest=manifest, deep=True)
    assert not verdict.findings
    return recorded


def judge(tar: Path, recorded: Recorded, *, deep: bool = False) -> tuple[set[str], list[str]]:
    """The codes of what is found, and the keys of the samples that were seen whole."""
    verdict = Verdict(str(tar), "tar")
    found = check_shard(tar, verdict, recorded, lone=False)
    assert found is not None
    if deep:
        check_deep(tar, found, recorded, verdict)
    return {f.code for f in verdict.findings}, [key for key, _ in found.samples]


def test_every_truncation(copy: Path) -> None:
    """Beside its records no cut passes. Alone, only one behind the end mark does, and it loses nothing."""
    tar = copy / "00000.tar"
    recorded, size, last = recorded_of(tar), tar.stat().st_size, members(tar)[-1].end
    for length in range(size - 1, -1, -1):
        os.truncate(tar, length)
        codes, _ = judge(tar, recorded)
        assert codes, length
        codes, keys = judge(tar, LONE)
        if length >= last + 1024 and length % 512 == 0:
            assert (codes, len(keys)) == (set(), 3), length
        else:
            assert codes, length


def changed(tar: Path, positions: Iterator[int] | range, mask: int = 0) -> Iterator[int]:
    """Each position in turn with that byte changed in the file: XOR `mask`, or one bit after the other."""
    with open(tar, "r+b", buffering=0) as file:
        for position in positions:
            (old,) = os.pread(file.fileno(), 1, position)
            os.pwrite(file.fileno(), bytes([old ^ (mask or 1 << position % 8)]), position)
            yield position
            os.pwrite(file.fileno(), bytes([old]), position)


def test_every_byte_of_every_header(copy: Path) -> None:
    """Ours: every byte is the one that was written. Alone: an error, or every sample as it was."""
    tar = copy / "00000.tar"
    recorded, found = recorded_of(tar), members(tar)
    _, keys = judge(tar, LONE)
    for member in found:
        for mask in (0, 0xFF):
            for position in changed(tar, range(member.header, member.data), mask):
                assert judge(tar, recorded)[0], position
                codes, seen = judge(tar, LONE)
                assert codes or seen == keys, position


def test_headers_of_ours_are_read_as_any(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that are not taken apart: whole or with any byte changed, the walk sees what it sees otherwise."""
    tar = copy / "00000.tar"
    found = members(tar)
    assert all(m.ours for m in found)

    def walked() -> list[Member] | tuple[str, int]:
        try:
            return [m._replace(ours=False) for m in members(tar)]
        except TarDamage as damage:
            return str(damage), damage.offset

    for member in (found[0], found[4]):
        for mask in (0, 0xFF):
            for position in changed(tar, range(member.header, member.data), mask):
                fast = walked()
                with monkeypatch.context() as patched:
                    patched.setattr("vlcli.shards.tar.own_member", lambda header: None)
                    assert walked() == fast, position


def test_every_byte_of_the_data_with_deep(copy: Path) -> None:
    tar = copy / "00000.tar"
    recorded = recorded_of(tar)
    recorded.manifest = {}  # which has the sha256 of the whole file
    for member in members(tar)[:6]:
        for position in changed(tar, range(member.data, member.data + member.size)):
            assert judge(tar, recorded, deep=True)[0] == {"content"}, (member.name, position)


def test_a_zeroed_hole_at_every_block(copy: Path) -> None:
    """What fsck leaves. A header that is gone is found by anyone; data with --deep."""
    tar = copy / "00000.tar"
    recorded, data, found = recorded_of(tar), bytearray(tar.read_bytes()), members(tar)
    headers = {m.header for m in found}
    for start in range(0, found[-1].end, 512):
        for length in (512, 1024, 4096):
            hole = data[:start] + bytes(length) + data[start + length :]
            tar.write_bytes(hole[: len(data)])
            touched = headers & set(range(start, start + length, 512))
            assert bool(judge(tar, recorded)[0]) == bool(touched), (start, length)
            # Zeros up to the end look like an end: without records nobody can know.
            if start + length < found[-1].end:
                assert bool(judge(tar, LONE)[0]) == bool(touched), (start, length)
            assert judge(tar, recorded, deep=True)[0], (start, length)


@pytest.mark.parametrize("garbage", [b"x", b"\0" * 511 + b"x", b"<html>" * 2000])
def test_garbage_behind_the_end(copy: Path, garbage: bytes) -> None:
    with open(copy / "00000.tar", "ab") as file:
        file.write(garbage)
    codes, _ = judge(copy / "00000.tar", LONE)
    assert codes == {"hole"}
    assert check_directory(copy).status == "damaged"
    with pytest.raises(InputError, match=r"data again at byte 10\d\d\d"):
        load_pairs([str(copy)])


def blocks(tar: Path) -> list[bytes]:
    """Each member with its header and padding."""
    data = tar.read_bytes()
    return [data[m.header : m.end] for m in members(tar)]


def archive(*parts: bytes) -> bytes:
    joined = b"".join(parts)
    return joined + bytes(-(-(len(joined) + 1024) // 10240) * 10240 - len(joined))


def special(name: str, kind: bytes) -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mtime = kind, "/etc/passwd", 0
    return info.tobuf(tarfile.USTAR_FORMAT)


# b: the nine members of a whole shard, three for each sample
REARRANGED: dict[str, Callable[[list[bytes]], list[bytes]]] = {
    "a member twice": lambda b: [*b[:3], b[2], *b[3:]],
    "a sample twice": lambda b: [*b[:6], *b[3:]],
    "a sample twice, apart": lambda b: [*b, *b[:3]],
    "a sample less": lambda b: [*b[:3], *b[6:]],
    "the last sample less": lambda b: b[:6],
    "a member less": lambda b: [*b[:4], *b[5:]],
    "two samples interleaved": lambda b: [b[0], b[3], b[1], b[4], b[2], b[5], *b[6:]],
    "samples in another order": lambda b: [*b[3:6], *b[:3], *b[6:]],
    "an extension more": lambda b: [*b[:3], member_header("000000.cls", 0), *b[3:]],
    "a sample more": lambda b: [*b, *(member_header(f"000003.{e}", 0) for e in ("json", "png", "txt"))],
    "a foreign file": lambda b: [*b, member_header("README", 0)],
    "another shard's key": lambda b: rekeyed(b),
    "..": lambda b: [*b, member_header("../../etc/000009.png", 0)],
    "an absolute name": lambda b: [*b, member_header("/etc/000009.png", 0)],
    "a symbolic link": lambda b: [*b, special("000009.png", tarfile.SYMTYPE)],
    "a hard link": lambda b: [*b, special("000009.png", tarfile.LNKTYPE)],
    "a device": lambda b: [*b, special("000009.png", tarfile.CHRTYPE)],
    "a named pipe": lambda b: [*b, special("000009.png", tarfile.FIFOTYPE)],
    "a directory": lambda b: [special("images", tarfile.DIRTYPE), *b],
    "nothing": lambda b: [],
}


def rekeyed(parts: list[bytes]) -> list[bytes]:
    """The last sample under the key of another shard."""
    out = list(parts[:6])
    for name, part in zip(("json", "png", "txt"), parts[6:], strict=True):
        size = int(part[124:135], 8)
        out.append(member_header(f"000012.{name}", size) + part[512:])
    return out


@pytest.mark.parametrize("name", REARRANGED)
def test_members_that_are_not_as_they_were_written(copy: Path, name: str) -> None:
    """The archive itself is whole each time. Its sha256 is not needed to see it, and training refuses it."""
    shutil.rmtree(copy / "_vlcli")
    tar = copy / "00000.tar"
    tar.write_bytes(archive(*REARRANGED[name](blocks(tar))))
    verdict = check_directory(copy)
    assert verdict.status == "damaged"
    assert all(f.file == str(tar) for f in verdict.findings)
    with pytest.raises(InputError, match=r"00000\.tar"):
        load_pairs([str(copy)])


def edit(name: str, **values: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        file = folder / name
        file.write_bytes(orjson.dumps(orjson.loads(file.read_bytes()) | values))

    return change


def sidecar(change: Callable[[list[dict]], list[dict]]) -> Callable[[Path], None]:
    """The second shard's sidecar with other rows and its own schema."""

    def write(folder: Path) -> None:
        table = pq.read_table(folder / "00001.parquet")
        rows = change(table.to_pylist())
        pq.write_table(type(table).from_pylist(rows, table.schema), folder / "00001.parquet")

    return write


def failed(rows: list[dict]) -> list[dict]:
    return [rows[0], {**rows[1], "status": "failed_to_resize", "error_message": "x"}, rows[2]]


def replace(target: str, source: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        shutil.copy(folder / source, folder / target)

    return change


def remove(*names: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        for name in names:
            (folder / name).unlink()

    return change


def truncate(name: str, size: int) -> Callable[[Path], None]:
    return lambda folder: os.truncate(folder / name, size)


BESIDE: dict[str, Callable[[Path], None]] = {
    "sidecar missing": remove("00001.parquet"),
    "sidecar cut": truncate("00001.parquet", 1000),
    "sidecar empty": truncate("00001.parquet", 0),
    "sidecar of another shard": replace("00001.parquet", "00000.parquet"),
    "sidecar with a row less": sidecar(lambda rows: rows[:2]),
    "sidecar with a row more": sidecar(lambda rows: [*rows, {**rows[2], "key": "000013"}]),
    "sidecar says that a sample failed": sidecar(failed),
    "sidecar with a key twice": sidecar(lambda rows: [rows[0], rows[0], rows[2]]),
    "stats missing": remove("00001_stats.json"),
    "stats cut": truncate("00001_stats.json", 20),
    "stats count another number": edit("00001_stats.json", successes=2),
    "stats count other rows": edit("00001_stats.json", count=4),
    "stats are no number": edit("00001_stats.json", successes="many"),
    "sizes missing": remove("sizes.json"),
    "sizes cut": truncate("sizes.json", 9),
    "sizes disagree": edit("sizes.json", **{"00001.tar": 2}),
    "sizes know one shard more": edit("sizes.json", **{"00003.tar": 3}),
    "shard missing in the middle": remove("00001.tar", "00001.parquet", "00001_stats.json"),
    "tar missing in the middle": remove("00001.tar"),
    "first shard missing": remove("00000.tar", "00000.parquet", "00000_stats.json"),
    "last shard missing": remove("00002.tar", "00002.parquet", "00002_stats.json"),
    "a shard under two names": replace("00003.tar", "00002.tar"),
    "a shard under another's name": replace("00001.tar", "00002.tar"),
    "an empty tar": truncate("00001.tar", 0),
}


@pytest.mark.parametrize("name", BESIDE)
def test_records_that_disagree(copy: Path, name: str) -> None:
    BESIDE[name](copy)
    verdict = check_directory(copy)
    assert verdict.status == "damaged", verdict
    with pytest.raises(InputError) as caught:
        load_pairs([str(copy)])
    assert str(caught.value).startswith(str(copy))
    assert "vlcli check" in str(caught.value)


def test_a_whole_directory_is_loaded(whole: Path) -> None:
    """The other side of all above."""
    assert check_directory(whole, deep=True).findings == []
    assert len(load_pairs([str(whole)])) == 9
    assert len(read_shard(whole / "00002.tar")) == 3
    assert sidecar_of(whole / "00002.tar").exists()


def test_contents_that_belong_to_other_keys_with_deep(copy: Path) -> None:
    """Two samples' captions change places: every header is right, and every count."""
    shutil.rmtree(copy / "_vlcli")
    tar = copy / "00000.tar"
    data, found = bytearray(tar.read_bytes()), members(tar)
    first, second = (m for m in found if m.name in ("000000.txt", "000001.txt"))
    assert first.size == second.size
    one, two = data[first.data : first.end], data[second.data : second.end]
    data[first.data : first.end], data[second.data : second.end] = two, one
    tar.write_bytes(data)
    assert check_tar(tar).status == "whole"
    findings = check_tar(tar, deep=True).findings
    assert [f.code for f in findings] == ["content", "content"]
    assert "000000.txt: not the caption that the sidecar has" in findings[0].message


def test_the_same_findings_in_the_same_order_however_many_jobs(copy: Path) -> None:
    for name in ("00000.tar", "00001.tar", "00002.tar"):
        with open(copy / name, "r+b") as file:
            file.seek(members(copy / name)[1].data)
            file.write(b"\xff")
    one = check_directory(copy, deep=True)
    assert [Path(f.file).name for f in one.findings if f.code == "content"] == [
        "00000.tar", "00001.tar", "00002.tar"
    ]  # fmt: skip
    assert (one.shards, one.samples) == (3, 9)
    seen: list[str] = []
    assert check_directory(copy, deep=True, jobs=3, on_shard=lambda tar: seen.append(tar.name)) == one
    assert sorted(seen) == ["00000.tar", "00001.tar", "00002.tar"]


def test_bytes_that_the_manifest_vouches_for_are_read_once(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither decoded nor parsed, as long as both files are as they were; else each member is looked at."""
    looked: list[Path] = []
    real = vlcli.shards.check_deep._sample_problems
    monkeypatch.setattr(
        "vlcli.shards.check_deep._sample_problems",
        lambda *a: looked.append(copy) or real(*a),  # type: ignore[func-returns-value]
    )
    assert (check_directory(copy, deep=True).status, len(looked)) == ("whole", 0)
    table = pq.read_table(copy / "00001.parquet")
    pq.write_table(table.set_column(3, "caption", [["other"] * 3]), copy / "00001.parquet")
    codes = [f.code for f in check_directory(copy, deep=True).findings]
    assert len(looked) == 3
    assert codes.count("content") == 6  # txt and json of three samples
    assert "sha256" in codes


def test_tarfile_would_have_read_fewer(copy: Path) -> None:
    """Why all this is done: one header byte, and Python's tarfile ends in silence."""
    tar = copy / "00000.tar"
    with open(tar, "r+b") as file:
        file.seek(members(tar)[3].header)
        file.write(b"\xff")
    with tarfile.open(tar) as archive_:
        assert len(archive_.getnames()) == 3
    assert "broken header" in check_tar(tar).findings[0].message
