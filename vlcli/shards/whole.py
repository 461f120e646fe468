"""Shards as training reads them: a shard that quick `check` calls damaged is an error, never fewer rows."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlcli.errors import InputError
from vlcli.shards.check import check_names, directory_records
from vlcli.shards.check_shard import check_shard, read_recorded
from vlcli.shards.findings import Verdict
from vlcli.shards.layout import FOREIGN_IMAGE_EXTENSIONS, find_tars
from vlcli.shards.reader import open_tar
from vlcli.shards.tar import Member


@dataclass(frozen=True)
class Shard:
    """One whole tar: its samples in order, each with the same extensions, and its sidecar's rows if it has
    one.
    """

    path: str
    samples: list[tuple[str, dict[str, Member]]]  # (key, extension → member)
    rows: list[dict[str, Any]] | None  # of the successful samples; every column
    ours: bool  # the sidecar is one that `shard` wrote

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def image_extension(self) -> str | None:
        """What the samples have as their image; None when they have none."""
        first = self.samples[0][1] if self.samples else {}
        return next((ext for ext in FOREIGN_IMAGE_EXTENSIONS if ext in first), None)


def whole_directory(path: Path | str) -> list[Path]:
    """The tars of a directory. Raises InputError when one is missing, or the run that wrote them did not
    finish.
    """
    verdict = Verdict(str(path), "shards")
    sizes, manifest = directory_records(Path(path), verdict)
    tars = find_tars(path)
    check_names(Path(path), tars, sizes, manifest, verdict)
    _refuse(verdict)
    return tars


def read_shard(path: Path | str) -> Shard:
    """Walk the headers of a tar, and compare what is there with all that was recorded of it.

    Raises InputError with the first thing that is wrong, OSError when the file cannot be read.
    """
    tar = Path(path)
    os.close(open_tar(tar))
    verdict = Verdict(str(tar), "tar")
    sizes, manifest = directory_records(tar.parent, verdict)
    recorded = read_recorded(tar, verdict, sizes=sizes, manifest=manifest, deep=True)
    found = check_shard(tar, verdict, recorded, lone=True)
    _refuse(verdict)
    assert found is not None
    rows = None
    if recorded.rows is not None:
        by_key = {row["key"]: row for row in recorded.good}
        rows = [by_key[key] for key, _ in found.samples]  # the check has compared the keys
    return Shard(str(path), found.samples, rows, recorded.ours)


def recorded_pairs(tar: Path) -> int:
    """How many pairs the directory says that a shard has; 1 where nothing says."""
    sizes, _ = directory_records(tar.parent, Verdict(str(tar), "tar"))
    recorded = (sizes or {}).get(tar.name)
    return recorded if isinstance(recorded, int) and recorded > 0 else 1


def _refuse(verdict: Verdict) -> None:
    if verdict.findings:
        first = verdict.findings[0]
        raise InputError(
            first.message, file=first.file, remedy=f"'vlcli check {verdict.path}' says all that is wrong"
        )


@dataclass(frozen=True)
class Sample:
    key: str
    members: dict[str, bytes]  # extension → bytes

    @property
    def image(self) -> bytes:
        """The image's bytes; KeyError when the sample has none."""
        return self.members[next((ext for ext in FOREIGN_IMAGE_EXTENSIONS if ext in self.members), "jpg")]


def iterate(path: Path | str) -> Iterator[Sample]:
    """The samples of one whole tar in order, their bytes read as they come. Raises as `read_shard` does."""
    shard = read_shard(path)
    fd = open_tar(path)
    try:
        for key, members in shard.samples:
            yield Sample(key, {ext: os.pread(fd, m.size, m.data) for ext, m in members.items()})
    finally:
        os.close(fd)
