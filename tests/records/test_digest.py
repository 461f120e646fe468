"""Digests of columns against hashlib and orjson, row by row."""

from __future__ import annotations

import hashlib

import orjson
import polars as pl
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from vlcli.records.digest import contents_json, json_pairs, key64, sha256, sha256_hex, sum128

_WORDS = st.text(
    st.one_of(st.characters(exclude_categories=["Cs"]), st.sampled_from('"\\\n\t\x00\x1f\x7f狗')), max_size=8
)
_ROWS = st.lists(
    st.tuples(st.none() | _WORDS, st.none() | st.lists(_WORDS, max_size=3)), min_size=1, max_size=12
)


def _columns(rows):
    return pl.Series([i for i, _ in rows], dtype=pl.String()), pl.Series(
        [t for _, t in rows], dtype=pl.List(pl.String())
    )


@settings(deadline=None)
@given(_ROWS)
def test_the_json_of_a_column_is_orjsons_of_each_row(rows):
    wanted = [orjson.dumps([i, t]).decode() for i, t in rows]
    assert json_pairs(*_columns(rows)).to_list() == wanted
    assert json_pairs(*_columns(rows), end=",7]").to_list() == [w[:-1] + ",7]" for w in wanted]


@pytest.mark.parametrize("rows", [[("a", ["x"]), (None, ["y"])], [('"', ["x"]), ("b", ["\\"])]])
def test_one_text_each(rows):
    assert json_pairs(*_columns(rows)).to_list() == [orjson.dumps([i, t]).decode() for i, t in rows]


def test_contents_that_are_objects():
    assert contents_json(["a"], [{"title": ["t"]}]).to_list() == ['["a",{"title":["t"]}]']


@settings(deadline=None)
@given(st.lists(_WORDS, max_size=20))
def test_digests_and_keys_are_those_of_the_libraries(words):
    strings = pl.Series(words, dtype=pl.String())
    true = [hashlib.sha256(word.encode()) for word in words]
    assert [bytes(d) for d in sha256(strings)] == [d.digest() for d in true]
    assert sha256_hex(strings, 32).to_list() == [d.hexdigest()[:32] for d in true]
    assert key64(strings).tolist() == [xxhash.xxh3_64_intdigest(word.encode()) for word in words]
    assert key64(strings, 5).tolist() == [xxhash.xxh3_64_intdigest(word.encode(), 5) for word in words]
    assert sum128(sha256(strings)) == sum(int.from_bytes(d.digest()[:16]) for d in true) % (1 << 128)


def test_a_slice_of_a_column_has_its_own_digests():
    strings = pl.Series(["a", "b", "c", "d"])[2:]
    assert [bytes(d) for d in sha256(strings)] == [hashlib.sha256(c).digest() for c in (b"c", b"d")]
