"""The plan of a job array: every line and every row group stands in one unit."""

from __future__ import annotations

import gzip

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlcli.errors import UsageError
from vlcli.records.pieces import Reading, Shaping, pieces
from vlcli.records.sources import sources
from vlcli.records.units import plan_units


def rows_of(path, units):
    shaping, found = Shaping(None), []
    for piece in pieces(sources([str(path)]), Reading(), units):
        for batch in shaping.batches(piece, lambda *bad: pytest.fail(str(bad))):
            found += zip(batch.frame["line"].to_list(), batch.frame["id"].to_list(), strict=True)
    return found


@settings(max_examples=60, deadline=None)
@given(
    lines=st.lists(st.integers(0, 40), min_size=0, max_size=30),
    unit_bytes=st.integers(1, 200),
    ends=st.booleans(),
)
def test_units_of_lines(tmp_path_factory, lines, unit_bytes, ends):
    path = tmp_path_factory.mktemp("units") / "a.jsonl"
    texts = ["" if length < 3 else '{"id":"' + "x" * length + '"}' for length in lines]
    path.write_text("\n".join(texts) + ("\n" if ends and texts else ""))
    whole = rows_of(path, None)
    units = plan_units(sources([str(path)]), unit_bytes=unit_bytes)
    assert [row for unit in units for row in rows_of(path, [unit])] == whole
    assert [u.start for u in units[1:]] == [u.end for u in units[:-1]]  # nothing between, nothing twice
    data = path.read_bytes()
    for unit in units[:-1]:
        cut = data.index(b"\n", unit.start + unit_bytes - 1) + 1  # the first line end from there on
        assert unit.end == cut
    assert [unit.first for unit in units] == [data[: unit.start].count(b"\n") for unit in units]


def test_units_of_row_groups_and_of_what_is_read_from_its_beginning(tmp_path):
    pl.DataFrame({"id": [str(i) for i in range(10)]}).write_parquet(tmp_path / "a.parquet", row_group_size=4)
    with gzip.open(tmp_path / "b.jsonl.gz", "wb") as file:
        file.write(b'{"id":"z"}\n' * 3)
    pl.DataFrame({"id": ["y"]}).write_ipc_stream(tmp_path / "c.arrow")
    units = plan_units(sources([str(tmp_path)]))
    assert [(u.number, u.source, u.start, u.end, u.first, u.is_whole) for u in units] == [
        (0, 0, 0, 1, 0, False),
        (1, 0, 1, 2, 4, False),
        (2, 0, 2, 3, 8, False),
        (3, 1, 0, 0, 0, True),
        (4, 2, 0, 0, 0, True),
    ]
    whole = rows_of(tmp_path, None)
    assert [row for unit in units for row in rows_of(tmp_path, [unit])] == whole
    assert rows_of(tmp_path, [units[1]]) == [(i, str(i)) for i in range(4, 8)]


def test_a_pipe_has_no_parts():
    with pytest.raises(UsageError, match="<stdin>: a pipe cannot be read in parts"):
        plan_units(sources([]))
