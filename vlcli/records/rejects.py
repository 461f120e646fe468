"""The rows that did not pass, one JSON object a line: rule, reason, file, line, and the row itself."""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, BinaryIO

import polars as pl

from vlcli.records.atomic import atomic_file
from vlcli.records.batch import Batch
from vlcli.records.encode import compressed, json_line, portable_objects, portable_rows
from vlcli.records.json_columns import to_bytes
from vlcli.records.references import Relocator


class RejectsWriter:
    """`--rejects FILE`, atomic, .gz and .zst by name. With path None nothing is written.

    A dropped row is `{"rule", "reason", "file", "line", "row": {…}}`; a bad one has rule "bad" and, where it
    does not parse, `raw_base64` instead of `row`. `line` counts lines from 1, rows of Parquet and Arrow from
    0.
    """

    def __init__(self, path: str | os.PathLike[str] | None, *, force: bool = False) -> None:
        self._path, self._force = path, force
        self._entered: AbstractContextManager[BinaryIO] | None = None
        self._packed: AbstractContextManager[BinaryIO] | None = None
        self._file: BinaryIO | None = None
        self._relocate = Relocator(Path(path).parent if path is not None else None)
        self.count = 0

    def __enter__(self) -> RejectsWriter:
        if self._path is not None:
            self._entered = atomic_file(self._path, force=self._force)
            self._packed = compressed(self._entered.__enter__(), os.fspath(self._path))
            self._file = self._packed.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        if self._entered is not None and self._packed is not None:
            try:
                self._packed.__exit__(*error)
            except BaseException as late:
                self._entered.__exit__(type(late), late, late.__traceback__)
                raise
            self._entered.__exit__(*error)

    @property
    def relocate(self) -> Relocator | None:
        """For `reject_lines`; None where nothing is written."""
        return self._relocate if self._file is not None else None

    def write(
        self,
        batch: Batch,
        rules: Sequence[str],
        reasons: Sequence[str],
        more: Sequence[Mapping[str, Any]] | None = None,
    ) -> None:
        """All rows of `batch`, each with the first rule that it failed and why; `more` are further keys of each."""
        lines = reject_lines(batch, rules, reasons, self._relocate, more) if self._file is not None else b""
        self.write_lines(lines, len(batch))

    def write_lines(self, lines: bytes, count: int) -> None:
        """What `reject_lines` has made of `count` rows."""
        self.count += count
        if self._file is not None:
            self._file.write(lines)

    def write_bad(self, file: str, line: int, cause: str, raw: bytes | dict[str, Any]) -> None:
        """A row that could not be used."""
        self.count += 1
        if self._file is None:
            return
        content: dict[str, Any] = (
            {"row": raw} if isinstance(raw, dict) else {"raw_base64": base64.b64encode(raw).decode()}
        )
        self._file.write(json_line({"rule": "bad", "reason": cause, "file": file, "line": line, **content}))


def reject_lines(
    batch: Batch,
    rules: Sequence[str],
    reasons: Sequence[str],
    relocate: Relocator,
    more: Sequence[Mapping[str, Any]] | None = None,
) -> bytes:
    """Rows that were dropped, as the file of rejects has them."""
    lines = batch.frame["line"].to_list()
    objects = portable_objects(batch, relocate) if more is None else None
    if objects is not None:
        causes = dict.fromkeys(zip(rules, reasons, strict=True))
        heads = {cause: _head(*cause, batch.file) for cause in causes}
        before = pl.Series([heads[cause] for cause in zip(rules, reasons, strict=True)], dtype=pl.String())
        parts = pl.DataFrame({"before": before, "line": batch.frame["line"], "row": objects})
        whole = pl.concat_str("before", "line", pl.lit(',"row":'), "row", pl.lit("}\n"))
        return to_bytes(parts.select(whole).to_series())
    rows = portable_rows(batch, relocate)
    others = [{}] * len(batch) if more is None else more
    return b"".join(
        json_line({"rule": rule, "reason": reason, **other, "file": batch.file, "line": line, "row": row})
        for row, rule, reason, line, other in zip(rows, rules, reasons, lines, others, strict=True)
    )


def _head(rule: str, reason: str, file: str) -> str:
    """What stands before the number of the line."""
    return json_line({"rule": rule, "reason": reason, "file": file, "line": 0})[:-3].decode()
