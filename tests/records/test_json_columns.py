"""JSON lines in columns, both ways, against the same line by line and row by row."""

from __future__ import annotations

import json
import math
from typing import Any

import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from vlcli.errors import InputError, UsageError
from vlcli.records import alike, encode, jsonl, rejects
from vlcli.records.batch import BOOKKEEPING, COLUMNS, Batch
from vlcli.records.columns import Renames
from vlcli.records.encode import json_line, json_lines, portable_rows
from vlcli.records.jsonl import Lines, parse
from vlcli.records.objects import Objects
from vlcli.records.references import Relocator

KEYS = (
    "id",
    "image",
    "text",
    "caption",
    "query",
    "url",
    "width",
    "text_candidates",
    "a",
    "b",
    "c",
    "d",
    "键",
)
STRINGS = st.sampled_from(
    [
        "",
        "x",
        "猫",
        '"',
        "\\",
        'a":',
        '"a":',
        '\\"b\\":',
        "\n",
        "\x1b",
        "\x7f",
        "1",
        "2020-01-01",
        "😀",
        "{",
        "}\n{",
    ]
) | st.text(max_size=4)
NUMBERS = st.sampled_from([0, -1, 1, 512, 2**53, 2**63 - 1, 2**63, 2**64, 10**30]) | st.sampled_from(
    [0.5, -0.0, 0.0, 1.0, 512.0, 1e20, 1e-7, 0.1, 1.7e308, 5e-324]
)
OF_KIND = {
    "string": STRINGS,
    "list": st.lists(STRINGS, max_size=3),
    "whole": st.integers(-(2**40), 2**40),
    "number": st.floats(allow_nan=False, allow_infinity=False),
    "any number": NUMBERS,
    "bool": st.booleans(),
    "null": st.none(),
    "object": st.just({"path": "x.jpg", "bytes": None}),
    "odd list": st.sampled_from([[1], ["x", None], [["x"]], [None]]),
}
ODD_LINES = (
    b"", b" ", b"null", b"5", b"[]", b"{}", b'{"a":1}{"a":2}', b'{"a":"x"', b'{"a":"x",}', b'{"a":"\xff"}',
    b'{"a":"\\ud800"}', b'{"text":"\\u0000"}', b'{"a":NaN}', b'{"b":-Infinity}', b'{"b":1E400}', b'{"a":"1","a":"2"}',
    b'{"a":"x"}\x00', b'{"a":"x"} null', b"// x", b'{"a":', b'"x"}', b'{"text":"x"}\r', b'{ "a" : "x" }',
    b'{"\\u0061":"x"}', b'{"width":512.0}', b'{"width":-0.0}', b'{"b":1}', b'{"b":1.0}', b'{"b":18446744073709551617}',
)  # fmt: skip


@st.composite
def files(draw: st.DrawFn) -> bytes:
    """Lines that mostly have the same keys and kinds, with exceptions now and then."""
    keys = draw(st.lists(st.sampled_from(KEYS), unique=True, max_size=6))
    kinds = {key: draw(st.sampled_from(list(OF_KIND))) for key in keys}
    usual = {"text": ["string", "list"], "caption": ["string"], "image": ["string"], "query": ["string"]}
    usual |= {"width": ["whole", "any number"], "id": ["string", "whole"], "text_candidates": ["list"]}
    for key in keys:
        if key in usual and draw(st.integers(0, 4)):
            kinds[key] = draw(st.sampled_from(usual[key]))
    disorder = draw(st.sampled_from([0, 0, 1, 5]))
    lines = []
    for _ in range(draw(st.integers(1, 8))):
        if disorder and draw(st.integers(0, 9)) < disorder:
            if draw(st.booleans()):
                lines.append(draw(st.sampled_from(ODD_LINES)))
                continue
            mine = draw(st.permutations(keys))[: draw(st.integers(0, len(keys)))]
            row = {k: draw(OF_KIND[draw(st.sampled_from([kinds[k], "null", *OF_KIND]))]) for k in mine}
        else:
            row = {key: draw(OF_KIND[kinds[key]]) for key in keys}
        separators = draw(st.sampled_from([(",", ":"), (", ", ": ")]))
        lines.append(json.dumps(row, ensure_ascii=draw(st.booleans()), separators=separators).encode("utf-8"))
    return b"\n".join(lines)


def shown(value: Any) -> Any:
    """With types, the order of keys and the sign of zero."""
    if isinstance(value, dict):
        return [(key, shown(cell)) for key, cell in value.items()]
    if isinstance(value, list):
        return [shown(cell) for cell in value]
    return type(value).__name__, repr(value)


def everything(
    data: bytes, size: int, maps: dict[str, str], folder: str = "", terminated: bool = True
) -> Any:
    """All that reading gives or raises, `size` lines at a time."""
    lines, bad, rest, frames = data.split(b"\n"), [], [], [pl.DataFrame(schema=COLUMNS | BOOKKEEPING)]
    renames = Renames(maps)
    try:
        for start in range(0, len(lines), size):
            part = lines[start : start + size]
            piece = Lines(b"\n".join(part), start, terminated or start + size < len(lines))
            for batch in parse(
                piece,
                file="f.jsonl",
                folder=folder,
                folder_label="",
                renames=renames,
                on_bad=lambda *found: bad.append(shown(list(found))),
            ):
                assert batch.frame.schema == COLUMNS | BOOKKEEPING
                assert len(batch.rest) == len(batch)
                frames.append(batch.frame)
                rest += list(batch.rest)
    except (InputError, UsageError) as error:
        return str(error), bad
    return pl.concat(frames).to_dicts(), shown(rest), bad, renames.missing


MAPS = st.sampled_from([{}, {}, {"a": "text"}, {"a": "b"}, {"text": "old", "b": "text"}, {"c": "query"}])


@given(files(), st.integers(1, 9), MAPS, st.sampled_from(["", "d", "/d/"]), st.booleans())
@example(b'{"a":1,"b":"x"}\n{"b":"y","a":2}', 2, {}, "", True)
@example(b'{"a":0.5}\n{"a":1}', 2, {}, "", True)
@example(b'{"a":0.5}\n{"a":1.0}\n{"a":null}', 3, {}, "", True)
@example(b'{"text":"t","caption":"c"}\n{"caption":"d"}', 2, {}, "", True)
@example(b'{"text":"t","caption":"c"}\n{"text":null,"caption":"d"}', 2, {}, "", True)
@example(b'{"a":"x"}\n{}', 2, {}, "", True)
@example(b'{"a":null}\n{"a":"x"}', 2, {}, "", True)
@example(b'{"a":1}{"a":2}\n{"a":\n3}', 3, {}, "", True)
@example(b'{"image":"x.jpg","id":7}\n{"image":"/y.jpg","id":8}', 2, {}, "d", True)
@settings(max_examples=150, deadline=None)
def test_lines_alike_are_read_as_line_by_line(
    data: bytes, size: int, maps: dict[str, str], folder: str, terminated: bool
) -> None:
    found = everything(data, size, maps, folder, terminated)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jsonl, "read_alike", lambda *args, **kwargs: None)
        assert found == everything(data, size, maps, folder, terminated)


@pytest.mark.parametrize("line", ODD_LINES)
@pytest.mark.parametrize(
    "row", [{"a": "x"}, {"b": 0.5}, {"a": "x", "b": 0.5}, {"text": "t"}, {"width": 1}, {}]
)
@pytest.mark.parametrize("place", [0, 1, 2])
def test_an_odd_line_among_plain_ones(line: bytes, row: dict[str, Any], place: int) -> None:
    lines = [json.dumps(row).encode()] * 2
    lines.insert(place, line)
    found = everything(b"\n".join(lines), 3, {})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jsonl, "read_alike", lambda *args, **kwargs: None)
        assert found == everything(b"\n".join(lines), 3, {})


@pytest.mark.parametrize(
    "rows",
    [
        [{"image": "x.jpg", "text": '一"只猫', "width": 1, "height": 2.0}, {"image": "y.jpg", "text": "狗"}],
        [{"id": 1, "text": ["x", "y"], "a": "1", "b": 0.5, "c": True, "d": ["z"], "e": 3}] * 3,
        [{"text": "x", "score": 1.0, "url": "https://e.org/1234567890123456789012"}] * 2,
        [{"text": "x", "a": None}, {"text": "x", "a": 1}],
        [{"TEXT": "x"}, {"TEXT": "y", "query": "q"}],
        [{}],
    ],
)
def test_plain_rows_are_read_in_columns(rows: list[dict[str, Any]]) -> None:
    data = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows).encode()
    (batch,) = parse(
        Lines(data, 0), file="f", folder="", folder_label="", renames=Renames({}), on_bad=lambda *_: None
    )
    assert isinstance(batch.rest, Objects)


def by_rows(batch: Batch, relocate: Relocator) -> bytes:
    return b"".join(map(json_line, portable_rows(batch, relocate)))


def check_encoders(batch: Batch, patch: pytest.MonkeyPatch) -> None:
    relocate = Relocator("/d")
    assert json_lines(batch, relocate) == by_rows(batch, relocate)
    rules, reasons = ["r"] * len(batch), ['"' if i % 2 else "猫" for i in range(len(batch))]
    found = rejects.reject_lines(batch, rules, reasons, relocate)
    patch.setattr(rejects, "portable_objects", lambda *_: None)
    assert found == rejects.reject_lines(batch, rules, reasons, relocate)


@given(files(), st.sampled_from(["", "d"]), st.lists(st.booleans(), min_size=8, max_size=8))
@settings(max_examples=80, deadline=None)
def test_rows_read_from_lines_are_written_as_row_by_row(data: bytes, folder: str, keep: list[bool]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        for batch in parse(
            Lines(data, 0),
            file="f",
            folder=folder,
            folder_label="",
            renames=Renames({}),
            on_bad=lambda *_: None,
        ):
            check_encoders(batch, patch)
            patch.undo()
            check_encoders(batch.take(pl.Series(keep[: len(batch)], dtype=pl.Boolean())), patch)
            patch.undo()
            check_encoders(batch.slice(1, 3), patch)


TEXTS = st.none() | STRINGS
CELLS: dict[Any, Any] = {
    pl.String(): TEXTS,
    pl.List(pl.String()): st.none() | st.lists(TEXTS, max_size=3) | st.lists(STRINGS, max_size=3),
    pl.Int64(): st.none() | st.integers(-(2**63), 2**63 - 1),
    pl.UInt64(): st.integers(0, 2**64 - 1),
    pl.Int8(): st.none() | st.integers(-128, 127),
    pl.Float64(): st.none() | st.floats(),
    pl.Float32(): st.none() | st.floats(width=32),
    pl.Boolean(): st.none() | st.booleans(),
    pl.Null(): st.none(),
    pl.Binary(): st.none() | st.binary(max_size=3),
    pl.Date(): st.none() | st.dates(),
    pl.Struct({"x": pl.Int64()}): st.none() | st.fixed_dictionaries({"x": st.integers(0, 9)}),
    pl.List(pl.Int64()): st.none() | st.lists(st.integers(0, 9), max_size=2),
}


@st.composite
def tables(draw: st.DrawFn) -> Batch:
    rows = draw(st.integers(0, 5))

    def column(name: str, cells: Any, dtype: Any) -> pl.Series:
        return pl.Series(name, draw(st.lists(cells, min_size=rows, max_size=rows)), dtype)

    texts = st.none() | st.lists(STRINGS, max_size=3) | st.lists(TEXTS, max_size=3)
    known = dict.fromkeys(("id", "image", "image_id", "query"), TEXTS) | {
        "text": texts,
        "text_candidates": texts,
    }
    known |= {name: st.none() | st.integers(0, 9) for name in ("width", "height", "line")}
    known |= {
        "text_is_scalar": draw(st.sampled_from([st.just(True), st.just(False), st.none() | st.booleans()]))
    }
    known["line"], known["image_bytes"] = (
        st.integers(0, 9),
        draw(st.sampled_from([st.none(), st.binary(max_size=4)])),
    )
    absent = draw(st.sets(st.sampled_from(sorted(COLUMNS))))
    frame = [
        column(name, st.none() if name in absent else known[name], dtype)
        for name, dtype in (COLUMNS | BOOKKEEPING).items()
    ]
    names = draw(st.lists(st.sampled_from(["a", 'q"', "line", "键", "\n"]), unique=True))
    common = list(CELLS)[:9]
    kinds = st.sampled_from(common if draw(st.integers(0, 3)) else list(CELLS))
    rest = []
    for name in names:
        dtype = draw(kinds)
        rest.append(column(name, CELLS[dtype], dtype))
    return Batch(pl.DataFrame(frame), pl.DataFrame(rest) if rest else pl.DataFrame(height=rows), "f", False)


@given(tables())
@settings(max_examples=120, deadline=None)
def test_tables_are_written_as_row_by_row(batch: Batch) -> None:
    with pytest.MonkeyPatch.context() as patch:
        check_encoders(batch, patch)


def test_common_columns_are_written_without_a_dict_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    frame = pl.DataFrame({"text": [["x"], ['"']], "text_is_scalar": [True, False], "line": [1, 2]})
    frame = pl.DataFrame(
        [
            frame[n].cast(t) if n in frame.columns else pl.Series(n, [None, None], t)
            for n, t in (COLUMNS | BOOKKEEPING).items()
        ]
    )
    rest = pl.DataFrame({"a": [1, 2], "b": [math.nan, 0.1], "c": ["\n", "y"], "d": [[], ["z"]]})
    batch = Batch(frame, rest, "f", False)
    wanted = by_rows(batch, Relocator(None))
    monkeypatch.setattr(encode, "portable_rows", lambda *_: pytest.fail("row by row"))
    assert json_lines(batch, Relocator(None)) == wanted
    assert wanted.startswith(b'{"text":"x","a":1,"b":null,"c":"\\n","d":[]}\n{"text":["\\""],"a":2,')


def test_objects_are_a_sequence_of_dicts() -> None:
    rows = [{"a": 1, "b": None}, {"a": 2, "b": "x"}, {"a": 3, "b": "y"}]
    objects = Objects(pl.DataFrame(rows), 3)
    assert list(objects) == rows
    assert objects[-1] == rows[-1]
    assert list(objects[1:9]) == rows[1:]
    assert list(objects.filter(pl.Series([True, False, True]))) == rows[::2]
    assert objects.values("b") == [None, "x", "y"]
    assert objects.values("z") == [None] * 3
    empty = Objects(pl.DataFrame(), 3)
    assert list(empty) == [{}] * 3
    assert len(empty[1:]) == 2
    assert empty[0] == {}
    assert len(empty.filter(pl.Series([True, False, True]))) == 2
    with pytest.raises(IndexError):
        empty[3]


def test_a_type_shows_within_the_rows_that_are_looked_at() -> None:
    for nulls, is_read in ((alike._LOOK_AT - 1, True), (alike._LOOK_AT, False)):
        data = b"\n".join([b'{"a":null}'] * nulls + [b'{"a":"x"}'] * 100)
        batch = alike.read_alike(data, 0, file="f", folder="", folder_label="", renames=Renames({}))
        assert (batch is not None) == is_read
