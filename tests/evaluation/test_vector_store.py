"""Lists of vectors on disk: what was written comes back, and damage is noticed wherever it is."""

from __future__ import annotations

import multiprocessing
import os
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlcli.evaluation.vector_store import RECORD, VectorStore


def key(i: int) -> bytes:
    return i.to_bytes(16, "little")


def vectors(i: int, width: int = 3) -> np.ndarray:
    return np.random.default_rng(i).standard_normal((1 + i % 4, width)).astype(np.float32)


def filled(folder: Path, count: int = 20) -> VectorStore:
    store = VectorStore(folder)
    for start in range(0, count, 6):
        some = range(start, min(start + 6, count))
        store.append([key(i) for i in some], [vectors(i) for i in some])
    return store


def state(store: VectorStore, count: int = 20) -> list[bool]:
    """Which lists are there; those that are, are right."""
    found = []
    for i in range(count):
        kept = store.read(key(i))
        found.append(kept is not None)
        if kept is not None:
            np.testing.assert_array_equal(kept, vectors(i))
    return found


def test_what_was_kept_comes_back_in_this_process_and_the_next(tmp_path):
    assert all(state(filled(tmp_path)))
    again = VectorStore(tmp_path, say=pytest.fail)
    assert all(state(again))
    assert again.read(key(99)) is None
    assert again.append([key(3)], [vectors(3)]) == 0  # nothing stands there twice


@settings(max_examples=60)
@given(data=st.data(), file=st.sampled_from(["vectors.bin", "index.bin"]), cut=st.booleans())
def test_damage_is_told_once_and_what_it_met_is_kept_anew(data, file, cut):
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        filled(place).close()
        whole = (place / file).read_bytes()
        at = data.draw(st.integers(0, len(whole) - 1))
        if cut:
            (place / file).write_bytes(whole[:at])
        else:
            (place / file).write_bytes(whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :])
        said: list[str] = []
        store = VectorStore(place, say=said.append)
        found = state(store)
        lost = [i for i in range(20) if not found[i]]
        if file == "index.bin" and cut and at % RECORD.size == 0:
            assert not said  # a shorter index is a whole one
        else:
            assert lost
            assert len(said) == 1
            assert str(place) in said[0]
            assert "\n" not in said[0]
        store.append([key(i) for i in lost], [vectors(i) for i in lost])
        assert all(state(store))
        assert all(state(VectorStore(place, say=pytest.fail)))


def test_a_disk_that_is_full_loses_nothing_that_was_there(tmp_path, monkeypatch):
    store = filled(tmp_path, 10)

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", full)
        with pytest.raises(OSError, match="No space"):
            store.append([key(10)], [vectors(10)])
    assert key(10) not in store
    store.append([key(10)], [vectors(10)])
    assert state(VectorStore(tmp_path, say=pytest.fail), 11) == [True] * 11


def _write(folder: str, offset: int) -> None:
    store = VectorStore(Path(folder))
    for i in range(40):
        store.append([key((i + offset) % 60)], [vectors((i + offset) % 60)])


def test_processes_write_at_once(tmp_path):
    spawn = multiprocessing.get_context("spawn")
    crew = [spawn.Process(target=_write, args=(str(tmp_path), offset)) for offset in (0, 20)]
    for process in crew:
        process.start()
    for process in crew:
        process.join()
        assert process.exitcode == 0
    store = VectorStore(tmp_path, say=pytest.fail)
    assert len(store) == 60
    assert all(state(store, 60))
    assert (tmp_path / "index.bin").stat().st_size == 60 * RECORD.size


def test_one_that_was_cut_by_another_process_is_followed(tmp_path):
    early = filled(tmp_path)
    os.truncate(tmp_path / "vectors.bin", 100)
    late = VectorStore(tmp_path)
    lost = [i for i, there in enumerate(state(late)) if not there]
    late.append([key(i) for i in reversed(lost)], [vectors(i) for i in reversed(lost)])
    state(early)  # what it has is right, or missing
    early.append([key(20)], [vectors(20)])
    assert all(state(early, 21))
    assert all(state(VectorStore(tmp_path, say=pytest.fail), 21))
