"""Lines of results: measured once, appended whole, read back as they were; damage has a line of its own."""

from __future__ import annotations

import json
import multiprocessing
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlcli.errors import InputError, UsageError
from vlcli.evaluation.results_file import ResultsFile, key_of, read_results

BESIDE = {"run": "runs/a", "recipe": None, "versions": {"vlcli": "0.1.0"}}


def settings(checkpoint="a" * 16, **more):
    return {"command": "retrieve", "checkpoint": checkpoint, "prompts": "none", **more}


def result(checkpoint="a" * 16, score=36.6341):
    head = {
        "checkpoint": checkpoint,
        "data": "val.jsonl",
        "split": "val",
        "split_hash": "f" * 64,
        "lang": "zh",
    }
    return {**head, "similarity": "global", "MR": score, "ci95": {"MR": [33.5, 40.0]}}


@given(st.permutations(list(settings(seed=0, split=None, rerank=[3, True]).items())))
def test_a_key_is_of_settings_whatever_their_order(items):
    assert key_of(dict(items)) == key_of(settings(seed=0, split=None, rerank=[3, True]))


@pytest.mark.parametrize("more", [{"checkpoint": "b"}, {"prompts": "x"}, {"seed": 1}, {"seed": None}])
def test_anything_else_is_another_key(more):
    assert key_of({**settings(seed=0), **more}) != key_of(settings(seed=0))


def test_what_is_found_is_what_was_printed(tmp_path):
    place = tmp_path / "new" / "results.jsonl"
    file = ResultsFile(place)
    assert file.find(settings()) is None
    file.add(settings(), result(), BESIDE)
    for again in (file, ResultsFile(place)):
        assert again.find(settings()) == result()
        assert again.find(settings(seed=1)) is None
    (line,) = read_results([place])
    assert (line["key"], line["run"], line["settings"]) == (key_of(settings()), "runs/a", settings())


def test_a_key_stands_once_unless_forced_and_then_the_last_counts(tmp_path):
    place = tmp_path / "results.jsonl"
    early, late = ResultsFile(place), ResultsFile(place)
    early.add(settings(), result(score=1.0), BESIDE)
    late.add(settings(), result(score=2.0), BESIDE)  # which another process has added meanwhile
    assert len(place.read_text().splitlines()) == 1
    late.add(settings(), result(score=3.0), BESIDE, force=True)
    assert len(place.read_text().splitlines()) == 2
    assert [line["MR"] for line in read_results([place])] == [3.0]


@given(st.integers(1, 400))
def test_a_last_line_that_was_cut_is_told_and_repaired(tmp_path_factory, cut):
    place = tmp_path_factory.mktemp("cut") / "results.jsonl"
    file = ResultsFile(place)
    for name in "abc":
        file.add(settings(name * 16), result(name * 16), BESIDE)
    whole = place.read_bytes()
    last = len(whole.splitlines()[-1])
    cut = min(cut, last)
    place.write_bytes(whole[: len(whole) - cut])
    said: list[str] = []
    lines = read_results([place], say=said.append)
    if cut == 1:  # the newline alone: nothing is lost
        assert (len(lines), said) == (3, [])
    else:
        assert (len(lines), said) == (2, [f"{place}: its last line was cut short and is left out"])
    said.clear()
    ResultsFile(place, say=said.append).add(settings("c" * 16), result("c" * 16), BESIDE)
    assert place.read_bytes().rstrip() == whole.rstrip()
    assert said == ([] if cut == 1 else [f"{place}: its last line was cut short and is removed"])


@pytest.mark.parametrize(
    "bad", [b"{", b"[1]", b'{"key": "x"}', b"\xff", b'{"key": 1, "command": "retrieve"}']
)
def test_a_bad_line_is_named(tmp_path, bad):
    place = tmp_path / "results.jsonl"
    ResultsFile(place).add(settings(), result(), BESIDE)
    place.write_bytes(b"\n" + bad + b"\n" + place.read_bytes())
    for read in (lambda: read_results([place]), lambda: ResultsFile(place)):
        with pytest.raises(InputError, match=r"results\.jsonl:2: not a line of results"):
            read()
    with pytest.raises(UsageError, match="No such file"):
        read_results([tmp_path / "absent.jsonl"])


def test_what_is_no_line_of_ours_is_never_removed(tmp_path):
    place = tmp_path / "notes.json"
    place.write_bytes(b'{"precious": "mine"}')
    with pytest.raises(InputError, match=r"notes\.json:1: not a line of results"):
        ResultsFile(place)
    assert place.read_bytes() == b'{"precious": "mine"}'


def test_a_place_that_cannot_be_written_is_told_before_anything_is_measured(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    for place in (tmp_path / "file" / "results.jsonl", Path("/proc/vlcli-results.jsonl")):
        with pytest.raises(UsageError, match=r"results\.jsonl: .*results cannot be kept there"):
            ResultsFile(place)


def test_a_full_disk_leaves_the_file_as_it_was(tmp_path, monkeypatch):
    place = tmp_path / "results.jsonl"
    file = ResultsFile(place)
    file.add(settings(), result(), BESIDE)
    whole, write = place.read_bytes(), os.pwrite
    written = []

    def full(handle, data, at):
        if written:
            raise OSError(28, "No space left on device")
        written.append(write(handle, data[:9], at))
        return 9

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(OSError, match="No space"):
        file.add(settings(seed=1), result(), BESIDE)
    assert place.read_bytes() == whole


def _add(place: str, name: str) -> None:
    for seed in range(25):
        ResultsFile(Path(place)).add(settings(name, seed=seed), result(name), BESIDE)


def test_processes_share_a_file(tmp_path):
    place = tmp_path / "results.jsonl"
    spawn = multiprocessing.get_context("spawn")
    crew = [spawn.Process(target=_add, args=(str(place), name)) for name in "ab"]
    for process in crew:
        process.start()
    for process in crew:
        process.join()
    lines = [json.loads(line) for line in place.read_text().splitlines()]
    assert len({line["key"] for line in lines}) == len(lines) == 50
