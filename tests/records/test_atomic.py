from __future__ import annotations

import os
import stat

import pytest

from vlcli.errors import UsageError
from vlcli.records import atomic
from vlcli.records.atomic import atomic_directory, atomic_file, write_json


def test_whole_or_absent(tmp_path):
    path = tmp_path / "new" / "folder" / "a.bin"
    with atomic_file(path) as file:
        file.write(b"one")
        assert not path.exists()
    assert path.read_bytes() == b"one"
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~mask
    with pytest.raises(KeyboardInterrupt), atomic_file(path, force=True) as file:  # noqa: PT012
        file.write(b"two")
        raise KeyboardInterrupt
    assert path.read_bytes() == b"one"
    with atomic_file(path, force=True) as file:
        file.write(b"three")
    assert path.read_bytes() == b"three"
    assert os.listdir(path.parent) == ["a.bin"]


@pytest.mark.parametrize("call", ["fsync", "replace", "link"])
@pytest.mark.parametrize("force", [True, False])
def test_a_failing_disk_leaves_nothing(tmp_path, monkeypatch, call, force):
    path = tmp_path / "a.bin"
    if force:
        path.write_bytes(b"old")

    def fail(*_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(atomic.os, call, fail)
    if call == "link" or (call == "replace" and not force):
        # Not this path's call, or a file system without links, where a rename stands in.
        with atomic_file(path, force=force) as file:
            file.write(b"new")
        assert path.read_bytes() == b"new"
    else:
        with pytest.raises(OSError, match="Input/output"), atomic_file(path, force=force) as file:
            file.write(b"new")
        assert [p.read_bytes() for p in tmp_path.iterdir()] == ([b"old"] if force else [])


def test_existing_files_are_refused_before_anything_is_written(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    with pytest.raises(UsageError, match="exists; --force"), atomic_file(path):
        pytest.fail("entered")
    os.symlink("nowhere", tmp_path / "dangling")
    with pytest.raises(UsageError, match="exists"), atomic_file(tmp_path / "dangling"):
        pytest.fail("entered")
    with pytest.raises(UsageError, match="is a directory"), atomic_file(tmp_path, force=True):
        pytest.fail("entered")


def test_what_appears_meanwhile_is_not_replaced(tmp_path):
    path = tmp_path / "a.bin"
    with pytest.raises(UsageError, match="appeared meanwhile"), atomic_file(path) as file:  # noqa: PT012
        file.write(b"mine")
        path.write_bytes(b"theirs")
    assert path.read_bytes() == b"theirs"
    assert os.listdir(tmp_path) == ["a.bin"]


def test_a_link_keeps_pointing(tmp_path):
    (tmp_path / "real").write_bytes(b"old")
    os.symlink("real", tmp_path / "link")
    with atomic_file(tmp_path / "link", force=True) as file:
        file.write(b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"new"


def test_devices_are_written_in_place():
    with atomic_file("/dev/null") as file:
        file.write(b"x")
    with pytest.raises(OSError, match="No space left"), atomic_file("/dev/full") as file:
        file.write(b"x")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


def test_json(tmp_path):
    write_json(tmp_path / "a.json", {"名": [1, None]})
    assert (tmp_path / "a.json").read_text() == '{\n  "名": [\n    1,\n    null\n  ]\n}\n'
    with pytest.raises(TypeError):
        write_json(tmp_path / "b.json", {"x": object()})
    assert not (tmp_path / "b.json").exists()


def test_a_directory_appears_whole_or_not_at_all(tmp_path):
    place = tmp_path / "deep" / "model"
    with pytest.raises(RuntimeError), atomic_directory(place) as folder:  # noqa: PT012
        (folder / "half").write_text("x")
        raise RuntimeError
    assert list(tmp_path.rglob("*")) == [tmp_path / "deep"]
    with atomic_directory(place) as folder:
        (folder / "a").write_text("1")
    with pytest.raises(UsageError, match="--force"), atomic_directory(place):
        raise AssertionError("nothing is begun where it would not be kept")
    with pytest.raises(RuntimeError), atomic_directory(place, force=True) as folder:
        raise RuntimeError
    assert (place / "a").read_text() == "1"
    with atomic_directory(place, force=True) as folder:
        (folder / "b").write_text("2")
    assert [file.name for file in place.iterdir()] == ["b"]
    assert [file.name for file in place.parent.iterdir()] == ["model"]
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="no directory"), atomic_directory(tmp_path / "file", force=True):
        raise AssertionError("a file is not replaced by a directory")
