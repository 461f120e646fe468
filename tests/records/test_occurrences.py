from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlcli.records import occurrences
from vlcli.records.occurrences import Occurrences

SMALL = st.integers(0, 12) | st.sampled_from([2**64 - 1, 2**63, 2**32])


def by_dict(calls: list[list[int]]) -> list[list[int]]:
    seen: Counter[int] = Counter()
    result = []
    for keys in calls:
        result.append([])
        for key in keys:
            result[-1].append(seen[key])
            seen[key] += 1
    return result


@settings(max_examples=200, deadline=None)
@given(st.lists(st.lists(SMALL | st.integers(0, 2**64 - 1), max_size=60), max_size=8))
def test_as_a_dict_counts(calls):
    with Occurrences() as table:
        assert [table.count(np.array(keys, np.uint64)).tolist() for keys in calls] == by_dict(calls)
        totals = Counter(key for keys in calls for key in keys)
        assert table.size == len(totals)
        keys, counts = table.items()
        assert list(zip(keys.tolist(), counts.tolist(), strict=True)) == sorted(totals.items())
        with Occurrences() as other:  # goes on where this one ends
            other.add(keys, counts)
            assert [other.count(np.array([key], np.uint64)).item() for key in totals] == list(totals.values())


@pytest.mark.parametrize("memory", [1 << 30, 0])
def test_it_grows_in_memory_and_on_disk(monkeypatch, tmp_path, memory):
    monkeypatch.setattr(occurrences, "_FIRST_SLOTS", 16)
    monkeypatch.setattr(occurrences, "_CHUNK", 100)
    random = np.random.default_rng(0)
    calls = [random.integers(0, 3000, size) for size in (1, 10, 1000, 5000, 0, 200)]
    with Occurrences(memory=memory, directory=tmp_path) as table:
        found = [table.count(keys.astype(np.uint64)).tolist() for keys in calls]
        assert list(tmp_path.iterdir()) == []  # the file has no name that a crash could leave behind
    assert found == by_dict([keys.tolist() for keys in calls])


def test_keys_that_share_all_their_slots():
    """Keys picked so that every one hashes to the same slot of the first table: probing alone tells them apart."""
    keys = np.arange(200_000, dtype=np.uint64)
    clash = keys[(occurrences._mix(keys) & np.uint64(occurrences._FIRST_SLOTS - 1)) == 5]
    assert len(clash) > 20
    with Occurrences() as table:
        assert table.count(clash).tolist() == [0] * len(clash)
        assert table.count(clash[::-1]).tolist() == [1] * len(clash)


def test_a_full_disk_is_an_error_and_not_a_crash(monkeypatch, tmp_path):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(occurrences.os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space left"):
        Occurrences(memory=0, directory=tmp_path)
