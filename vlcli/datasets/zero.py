"""ZERO's benchmark [Z §2.2]: ICR, IQR, ICM and IQM, lines of `{"text", "image_path"}` and, for matching, `label`.

Only the base name of `image_path` counts: all four sets share one folder of images.
"""

from __future__ import annotations

from collections.abc import Iterator

from vlcli.datasets.files import field, json_lines
from vlcli.datasets.row import Row
from vlcli.datasets.source import Source
from vlcli.errors import InputError


def rows(source: Source, path: str, split: str) -> Iterator[Row]:
    """The pairs in the order of the file."""
    for number, pair in json_lines(path):
        text = field(pair, "text", str, path, number).strip()
        if not text:
            raise InputError("text is empty", file=path, line=number)
        name = field(pair, "image_path", str, path, number).rsplit("/", 1)[-1]
        label = pair.get("label")
        if label not in (None, 0, 1, "0", "1"):
            raise InputError(f"label is {label!r}, not 0 or 1", file=path, line=number)
        yield Row(
            f"{split}/{number}",
            source.image(name, path, number),
            name.rsplit(".", 1)[0],
            text,
            "zh",
            label=None if label is None else int(label),
        )
