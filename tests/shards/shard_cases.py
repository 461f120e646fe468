"""Small pictures, rows and runs for the shard tests."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

from vlcli.images.resolve import ImageReader
from vlcli.records.bad import BadRows
from vlcli.records.reader import read
from vlcli.shards.dataset import Sharder, Totals
from vlcli.shards.output import Options, OutputDirectory
from vlcli.shards.tar import Member, walk

Change = Callable[[int, dict[str, Any], Path], dict[str, Any]]


def picture(number: int, format: str = "PNG", size: tuple[int, int] = (12, 9)) -> bytes:
    """A picture unlike all other numbers'."""
    image = Image.new("RGB", size, (number * 37 % 256, number * 91 % 256, number % 256))
    buffer = io.BytesIO()
    image.save(buffer, format)
    return buffer.getvalue()


def make_rows(
    folder: Path,
    n: int,
    *,
    format: str = "PNG",
    change: Change = lambda i, row, file: row,
    name: str = "rows.jsonl",
) -> Path:
    """n pictures and a JSONL that names them; `change` may edit a row, or its picture's file."""
    pictures = folder / "pictures"
    pictures.mkdir(exist_ok=True, parents=True)
    lines = []
    for i in range(n):
        file = pictures / f"{i}.img"
        file.write_bytes(picture(i, format))
        row: dict[str, Any] = {
            "image": f"pictures/{i}.img",
            "text": [f"第{i}张图", f"图{i}"],
            "family": f"f{i // 2}",
        }
        row |= {"text_candidates": [f"候选{i}"], "score": i / 4}
        lines.append(json.dumps(change(i, row, file), ensure_ascii=False))
    path = folder / name
    path.write_text("".join(line + "\n" for line in lines))
    return path


def shard(
    source: Path,
    output: Path,
    *,
    max_bad: str = "0",
    jobs: int = 2,
    expect: int | None = None,
    **options: Any,
) -> Totals:
    """What `vlcli shard SOURCE -o OUTPUT` does."""
    claim = {name: options.pop(name) for name in ("force", "resume") if name in options}
    if retry := options.pop("retry", False):
        claim["resume"] = True
    bad = BadRows(max_bad)
    with ImageReader() as reader:
        sharder = Sharder(OutputDirectory(output, Options(**options), **claim), retry=retry)
        batches = read([str(source)], image_bytes=True, bad=bad)
        return sharder.write(batches, reader, bad, expect=expect, jobs=jobs)


def tree(directory: Path) -> dict[str, bytes]:
    """The promised bytes: all files outside `_vlcli`."""
    return {p.name: p.read_bytes() for p in sorted(directory.iterdir()) if p.is_file()}


def vlcli(*arguments: str) -> int:
    """A command line in this process; errors are raised and not turned into exit codes."""
    from vlcli.cli import app

    return app(list(arguments), prog_name="vlcli", standalone_mode=False) or 0


def members(tar: Path) -> list[Member]:
    """What stands in a tar, as the checker walks it."""
    fd = os.open(tar, os.O_RDONLY)
    try:
        return list(walk(fd))
    finally:
        os.close(fd)
