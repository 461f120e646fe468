"""References to bytes: only what stands in files, and nothing outside of them."""

from __future__ import annotations

import base64
import io
import os
import pickle
import tarfile
import threading
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vlcli.errors import InputError
from vlcli.images import resolve
from vlcli.images.probe import probe
from vlcli.images.resolve import ImageReader

CORPUS = "examples/emoji/raw.parquet"


def make_tar(path: Path, members: dict[str, bytes], *extra: tarfile.TarInfo) -> str:
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        for info in extra:
            tar.addfile(info)
    return str(path)


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def test_the_corpus_in_order_and_at_random():
    truth = pq.read_table(CORPUS, columns=["image"])["image"].to_pylist()
    with ImageReader() as reader:
        for row in [0, 1, 2, 9957, 5000, 5001, 0]:
            data = reader.read(f"{CORPUS}#{row}")
            assert data == truth[row]["bytes"]
            assert probe(data) == (96, 96, "webp")
        for wrong in ("9958", "-1", "x", "١"):  # the last is a digit, though not of ASCII
            with pytest.raises(InputError):
                reader.read(f"{CORPUS}#{wrong}")


def test_paths_and_the_root(tmp_path, monkeypatch):
    (tmp_path / "i").mkdir()
    (tmp_path / "i" / "a#1.jpg").write_bytes(b"pixels")
    monkeypatch.chdir(tmp_path)
    assert ImageReader().read("i/a#1.jpg") == b"pixels"
    assert ImageReader(tmp_path / "i").read("a#1.jpg") == b"pixels"
    assert ImageReader("elsewhere").read(str(tmp_path / "i" / "a#1.jpg")) == b"pixels"
    with pytest.raises(InputError, match=r"i/none\.jpg: No such file"):
        ImageReader().read("i/none.jpg")
    for wrong in ("i", "", "a\0b", "/dev/zero", "none.parquet#3", "none.tar#x"):
        with pytest.raises(InputError):
            ImageReader().read(wrong)


def test_data_urls():
    reader = ImageReader()
    assert reader.read("data:image/png;base64," + base64.b64encode(b"\x89PNG").decode()) == b"\x89PNG"
    for wrong in (
        "data:image/png;base64",
        "data:image/svg+xml,%3Csvg",
        "data:image/png;base64,@@@",
        "data:,",
    ):
        with pytest.raises(InputError, match="data:"):
            reader.read(wrong)


def test_urls_are_never_fetched():
    for url in (
        "http://e.example/a.jpg",
        "https://e.example/a.tar#x",
        "s3://b/k.parquet#1",
        "file:///etc/passwd",
    ):
        with pytest.raises(InputError, match=r"never fetched.*img2dataset"):
            ImageReader().read(url)


def test_tar_members(tmp_path):
    path = make_tar(
        tmp_path / "s.tar", {"0.jpg": b"zero" * 300, "./d/1.jpg": b"one", "a" * 150: b"long", "e": b""}
    )
    with ImageReader() as reader:
        assert reader.read(f"{path}#d/1.jpg") == reader.read(f"{path}#./d/1.jpg") == b"one"
        assert reader.read(f"{path}#0.jpg") == b"zero" * 300
        assert reader.read(f"{path}#{'a' * 150}") == b"long"
        assert reader.read(f"{path}#e") == b""
        with pytest.raises(InputError, match=r"s\.tar: no member '2\.jpg'"):
            reader.read(f"{path}#2.jpg")


def test_nothing_leads_out_of_a_tar(tmp_path):
    (tmp_path / "secret").write_bytes(b"secret")
    path = make_tar(
        tmp_path / "s.tar",
        {"ok": b"ok", "../secret": b"climbs", "/abs": b"absolute"},
        special("link", tarfile.SYMTYPE, "../secret"),
        special("hard", tarfile.LNKTYPE, "ok"),
        special("dev", tarfile.CHRTYPE),
        special("dir", tarfile.DIRTYPE),
    )
    reader = ImageReader()
    assert reader.read(f"{path}#ok") == b"ok"
    for name, cause in (("link", "link"), ("hard", "link"), ("dev", "link or special"), ("dir", "no member")):
        with pytest.raises(InputError, match=cause):
            reader.read(f"{path}#{name}")
    for name in ("../secret", "/abs", "x/../ok"):
        with pytest.raises(InputError, match="leads out of the archive"):
            reader.read(f"{path}#{name}")


def test_a_cut_tar_gives_whole_members_or_errors(tmp_path):
    whole = Path(make_tar(tmp_path / "s.tar", {"a": b"a" * 700, "b": b"b" * 700})).read_bytes()
    for size in range(1, len(whole), 97):
        path = tmp_path / f"{size}.tar"
        path.write_bytes(whole[:size])
        for name in "ab":
            try:
                assert ImageReader().read(f"{path}#{name}") == name.encode() * 700
            except InputError as error:
                assert f"{size}.tar" in str(error)  # noqa: PT017


def test_a_source_that_changed_is_refused(tmp_path):
    schema = pa.schema([("image", pa.binary())])
    pq.write_table(pa.table({"image": [b"x"]}, schema), tmp_path / "a.parquet")
    path = make_tar(tmp_path / "s.tar", {"a": b"a"})
    with ImageReader() as reader:
        references = [f"{path}#a", f"{tmp_path}/a.parquet#0"]
        assert [reader.read(r) for r in references] == [b"a", b"x"]
        os.utime(path, ns=(1, 1))
        os.utime(tmp_path / "a.parquet", ns=(1, 1))
        for reference in references:
            with pytest.raises(InputError, match="changed"):
                reader.read(reference)
    assert [ImageReader().read(r) for r in references] == [b"a", b"x"]


def test_files_are_kept_open_within_a_bound(tmp_path, monkeypatch):
    monkeypatch.setattr(resolve, "_OPEN_FILES", 3)
    paths = [make_tar(tmp_path / f"{i}.tar", {"a": b"%d" % i}) for i in range(8)]
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    with ImageReader() as reader:
        for _ in range(2):
            assert [reader.read(f"{p}#a") for p in paths] == [b"%d" % i for i in range(8)]
        if before:
            assert len(os.listdir("/proc/self/fd")) <= before + 3


def test_threads_share_more_files_than_are_kept_open(tmp_path, monkeypatch):
    monkeypatch.setattr(resolve, "_OPEN_FILES", 1)
    paths = [make_tar(tmp_path / f"{i}.tar", {"a": b"%d" % i}) for i in range(4)]
    wrong: list[object] = []
    with ImageReader() as reader:

        def work(i: int) -> None:
            try:
                wrong.extend(x for _ in range(100) if (x := reader.read(f"{paths[i]}#a")) != b"%d" % i)
            except BaseException as error:
                wrong.append(error)

        threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []


def test_threads_share_a_reader_and_workers_get_their_own():
    reader = ImageReader()
    expected = [reader.read(f"{CORPUS}#{i}") for i in range(0, 9958, 200)]
    results: list[list[bytes]] = []
    threads = [
        threading.Thread(
            target=lambda: results.append([reader.read(f"{CORPUS}#{i}") for i in range(0, 9958, 200)])
        )
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [expected] * 4
    copy = pickle.loads(pickle.dumps(reader))  # what multiprocessing does, with our own object
    assert copy.read(f"{CORPUS}#200") == expected[1]
