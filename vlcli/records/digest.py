"""Digests of what rows say, a column at a time: SHA-256 of their JSON, and 64-bit keys that are the same everywhere.

polars' own hashes differ between its versions; these may be written down and compared elsewhere.
"""

from __future__ import annotations

import binascii
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import orjson
import polars as pl
from numpy.typing import NDArray

from vlcli.records.letters import holding

Digests = NDArray[np.uint8]


def json_pairs(image_ids: pl.Series, texts: pl.Series, end: str = "]") -> pl.Series:
    """`["image id",["text", …]` and `end` for each row, byte for byte as orjson writes such an array.

    A null image or a null list of texts is `null`.
    """
    frame = pl.DataFrame({"i": image_ids, "t": texts})
    if frame.select(pl.col("t").list.len().eq(1).all()).item():
        # A list with one text each: its text alone is as good, and cheaper.
        frame = frame.with_columns(pl.col("t").list.first())
        special = is_special(frame["t"]) | frame["t"].is_null() | frame["i"].is_null()
        json = frame.select(pl.format('["{}",["{}"]' + end, "i", "t")).to_series()
    else:
        flat = frame.with_row_index("row").select("row", pl.col("t")).explode("t", empty_as_null=False)
        odd = flat["row"].filter(is_special(flat["t"]) | flat["t"].is_null()).unique()
        special = pl.repeat(False, frame.height, eager=True).scatter(odd, True)
        image = pl.when(pl.col("i").is_null()).then(pl.lit("null")).otherwise('"' + pl.col("i") + '"')
        count = pl.col("t").list.len()
        listed = pl.when(count == 0).then(pl.lit("[]")).otherwise('["' + pl.col("t").list.join('","') + '"]')
        listed = pl.when(count.is_null()).then(pl.lit("null")).otherwise(listed)
        json = frame.select(pl.concat_str(pl.lit("["), image, pl.lit(","), listed, pl.lit(end))).to_series()
    odd = (special | is_special(frame["i"])).arg_true()
    if not len(odd):
        return json
    rows = zip(image_ids.gather(odd), texts.gather(odd).to_list(), strict=True)
    return json.scatter(odd, [_json([i, t], end) for i, t in rows])


def is_special(strings: pl.Series) -> pl.Series:
    """Which of them hold a character that JSON escapes: a control character, a quotation mark, a backslash."""
    return pl.Series(holding(strings, lambda b: (b < 0x20) | (b == 0x22) | (b == 0x5C)))


def _json(content: list[Any], end: str) -> str:
    return orjson.dumps(content)[:-1].decode() + end


def sha256(strings: pl.Series) -> Digests:
    """(n, 32) SHA-256 of the UTF-8 of each string, none of which is null."""
    return from_hex(_hex(strings), 64)


def sha256_hex(strings: pl.Series, digits: int = 64) -> pl.Series:
    """The first `digits` hex digits of the SHA-256 of each string."""
    return _hex(strings).str.slice(0, digits)


def _hex(strings: pl.Series) -> pl.Series:
    import polars_hash as ph

    return strings.to_frame("s").select(ph.col("s").chash.sha2_256()).to_series()


def key64(strings: pl.Series, seed: int = 0) -> NDArray[np.uint64]:
    """(n,) XXH3 of each string, 0 for null: tells strings apart, in this process and in any other."""
    import polars_hash as ph

    keys = strings.to_frame("s").select(ph.col("s").nchash.xxh3_64(seed=seed))
    return keys.to_series().fill_null(0).to_numpy()


def from_hex(digits: pl.Series, width: int = 32) -> Digests:
    """(n, width / 2) bytes of strings of `width` hex digits each."""
    letters = digits.to_arrow(compat_level=pl.CompatLevel.oldest()).buffers()[2]
    whole = binascii.unhexlify(memoryview(letters)[: width * len(digits)]) if len(digits) else b""
    return np.frombuffer(whole, np.uint8).reshape(-1, width // 2)


def sum128(digests: Digests) -> int:
    """The sum of the first 128 bits of each digest, modulo 2^128."""
    words = np.ascontiguousarray(digests[:, :16]).view(">u4").astype(np.uint64).sum(axis=0, dtype=np.uint64)
    return sum(int(word) << shift for word, shift in zip(words, (96, 64, 32, 0), strict=True)) % (1 << 128)


def contents_json(image_ids: Iterable[str | None], contents: Sequence[Any], end: str = "]") -> pl.Series:
    """The same array for contents that are no plain lists of texts."""
    rows = zip(image_ids, contents, strict=True)
    return pl.Series([_json([i, c], end) for i, c in rows], dtype=pl.String())
