"""Columns read as the lists they were filled from, in a fraction of the memory."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlcli.shards import columns
from vlcli.shards.columns import CHUNK, Column

TEXT = st.text(max_size=4)
HEX = st.binary(min_size=2, max_size=2).map(bytes.hex)
VALUES = st.one_of(
    st.lists(TEXT, max_size=30),
    st.lists(HEX, max_size=30),
    st.lists(st.one_of(HEX, TEXT, st.none()), max_size=30),
    st.lists(st.none(), max_size=30),
    st.lists(st.lists(TEXT, max_size=3), max_size=30),
    st.lists(st.lists(TEXT, min_size=1, max_size=1), max_size=30),
    st.lists(st.just([]), max_size=30),
)


@pytest.fixture(scope="module", autouse=True)
def small():
    before, columns.CHUNK = columns.CHUNK, 4
    yield
    columns.CHUNK = before


@given(VALUES, st.integers(0, 30), st.data())
def test_reads_as_the_list(values, cut, data):
    column = Column(values[:cut])
    column += values[cut:]
    assert list(column) == values
    assert column == values
    assert column == Column(values)
    assert len(column) == len(values)
    assert column[1:7:2] == values[1:7:2]
    assert column != [*values, "more"]
    rows = data.draw(st.lists(st.integers(0, len(values) - 1), max_size=9)) if values else []
    assert column.take(rows) == [values[row] for row in rows]
    for row in rows:
        assert column[row] == values[row] == column[row - len(values)]
    for outside in (len(values), -len(values) - 1):
        with pytest.raises(IndexError):
            column[outside]


def test_one_by_one_and_what_is_no_sequence():
    column = Column()
    for i in range(9):
        column.append(str(i))
    assert column == [str(i) for i in range(9)]
    assert column != 3
    assert repr(column) == "Column(['0', '1', '2', '3', '4', '5', '6', '7', '8'])"


def test_what_a_pair_takes(monkeypatch):
    """Digests half their digits, an empty column an eighth of a byte at most; texts five bytes beside their own."""
    monkeypatch.setattr(columns, "CHUNK", CHUNK)
    n = 2 * CHUNK
    digests = [hashlib.sha256(str(i).encode()).hexdigest() for i in range(n)]
    assert Column(digests).nbytes <= 32.2 * n
    assert Column([None] * n).nbytes <= n / 8
    assert Column([[]] * n).nbytes <= n / 8
    assert Column([["一二三"]] * n).nbytes <= (9 + 5) * n
