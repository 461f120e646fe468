"""Write one shard: tar, sidecar, stats, in this order; the stats file is the commit mark."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from vlcli import __version__
from vlcli.records import lineage
from vlcli.records.atomic import atomic_file, write_json
from vlcli.shards.layout import (
    SUCCESS,
    UNAVAILABLE,
    UNDECODABLE,
    end_archive,
    sample_key,
    shard_name,
    sidecar_of,
    stats_of,
    write_member,
)
from vlcli.shards.pack import PackedImage
from vlcli.shards.rows import Row
from vlcli.shards.sidecar import sidecar_bytes, sidecar_table


@dataclass(frozen=True)
class PackedRow:
    """A row and its image as stored; `image` is None for a row that failed with `status` and `message`."""

    row: Row
    image: PackedImage | None
    status: str = SUCCESS
    message: str | None = None


@dataclass(frozen=True)
class CommittedFile:
    name: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class CommittedShard:
    """What is known of a shard that stands under its final names."""

    shard: int
    rows: int
    samples: int
    extension: str | None
    input: str  # fingerprint of its rows, Source.fingerprint
    tar: CommittedFile
    sidecar: CommittedFile

    def to_json(self) -> bytes:
        return orjson.dumps(self, option=orjson.OPT_APPEND_NEWLINE)

    @classmethod
    def from_json(cls, line: bytes) -> CommittedShard:
        value = orjson.loads(line)
        return cls(
            **{**value, "tar": CommittedFile(**value["tar"]), "sidecar": CommittedFile(**value["sidecar"])}
        )

    def stands_in(self, directory: Path) -> bool:
        """Whether all three files are there with the recorded sizes."""
        tar = directory / self.tar.name
        if not stats_of(tar).is_file():
            return False
        try:
            return all(os.path.getsize(directory / f.name) == f.bytes for f in (self.tar, self.sidecar))
        except FileNotFoundError:
            return False


class _Hashed:
    """A file being written, its length and sha256."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._digest, self.bytes = file, hashlib.sha256(), 0

    def write(self, data: bytes | memoryview) -> int:
        self._digest.update(data)
        self.bytes += len(data)
        return self._file.write(data)

    def committed(self, name: str) -> CommittedFile:
        return CommittedFile(name, self.bytes, self._digest.hexdigest())


class Source:
    """The rows of one shard as its lineage and a later `--resume` know them: what they say and where they
    come from, not where they lay.
    """

    def __init__(self) -> None:
        self._rows = hashlib.sha256()
        self._steps: list[dict[str, Any]] = []  # those of every input that has rows in the shard

    def add(self, row: Row) -> None:
        self._rows.update(row.fingerprint)
        self._steps += [step for step in row.lineage if step not in self._steps]

    @property
    def fingerprint(self) -> str:
        """sha256 over the rows' fingerprints and their lineage."""
        return hashlib.sha256(self._rows.digest() + orjson.dumps(self._steps)).hexdigest()

    def chain(self, rules: Mapping[str, Any]) -> lineage.Chain:
        """The steps that led to the shard, `shard` itself the last."""
        own = lineage.step("shard", __version__, dict(rules)) | {"input": self.fingerprint}
        chain: lineage.Chain = ()
        for step in (*self._steps, own):  # ids are unique in a chain, and inputs count their own
            chain = lineage.extend(chain, {name: said for name, said in step.items() if name != "id"})
        return chain


def write_shard(
    directory: Path, shard: int, per_shard: int, rows: Iterable[PackedRow], rules: Mapping[str, Any]
) -> CommittedShard:
    """Consume the rows of one shard and commit its three files.

    Nothing stands under a final name when `rows` raises. Every member's bytes depend on the rows alone; the
    sidecar's lineage names `rules`, the options that made them so.
    """
    tar = directory / f"{shard_name(shard)}.tar"
    fixed: list[dict[str, Any]] = []
    kept: list[dict[str, Any]] = []
    source, extension = Source(), None
    with atomic_file(tar, force=True) as raw:
        file, size = _Hashed(raw), 0
        for packed in rows:
            key = sample_key(shard, packed.row.number % per_shard, per_shard)
            fields = _fields(key, packed)
            source.add(packed.row)
            fixed.append(fields)
            kept.append(packed.row.kept)
            if packed.image is None:
                continue
            extension = packed.image.extension
            members = {
                extension: packed.image.data,
                "json": _json_member(fields, packed.row),
                "txt": packed.row.texts[0].encode(),
            }
            for name in sorted(members):
                size += write_member(file, f"{key}.{name}", members[name])
        end_archive(file, size)
        written_tar = file.committed(tar.name)
    with atomic_file(sidecar_of(tar), force=True) as raw:
        file = _Hashed(raw)
        table = sidecar_table(fixed, kept, source.chain(rules))
        file.write(memoryview(sidecar_bytes(table)))
        written_sidecar = file.committed(sidecar_of(tar).name)
    stats = stats_object(fixed)
    write_json(stats_of(tar), stats, force=True)
    return CommittedShard(
        shard, len(fixed), stats["successes"], extension, source.fingerprint, written_tar, written_sidecar
    )


def _fields(key: str, packed: PackedRow) -> dict[str, Any]:
    """The fixed columns of a row, as the sidecar has them."""
    row, image = packed.row, packed.image
    return {
        "key": key,
        "status": packed.status,
        "error_message": packed.message,
        "caption": row.texts[0] if row.texts else None,
        "url": row.url,
        "width": image and image.width,
        "height": image and image.height,
        "original_width": image and image.original_width,
        "original_height": image and image.original_height,
        "exif": image and image.exif,
        "sha256": image and image.sha256,
        "id": row.id,
        "uid": row.uid,
        "image_id": row.image_id or None,
        "texts": row.texts,
        "text_candidates": row.candidates,
        "query": row.query,
    }


def _json_member(fields: dict[str, Any], row: Row) -> bytes:
    """img2dataset's object plus ours: `text` is the list of which `caption` is the first.

    Hugging Face datasets takes the types of all samples from the first five of the first tar, and breaks off
    where those have null or [] and a later one a value. So a url that is not known is "", and what else has
    no value is left out.
    """
    value = {("text" if name == "texts" else name): value for name, value in fields.items()}
    value["url"] = row.url or ""
    for name in ("query", "text_candidates"):
        if not value[name]:
            del value[name]
    return orjson.dumps({**value, **{name: said for name, said in row.kept.items() if said != []}})


def stats_object(fixed: list[dict[str, Any]]) -> dict[str, Any]:
    """img2dataset's per-shard statistics; its times are at 0, because what is promised byte for byte has
    none.
    """
    statuses = [row["status"] for row in fixed]
    outcomes = Counter(SUCCESS if row["status"] == SUCCESS else row["error_message"] for row in fixed)
    return {
        "count": len(fixed),
        "successes": statuses.count(SUCCESS),
        "failed_to_download": statuses.count(UNAVAILABLE),
        "failed_to_resize": statuses.count(UNDECODABLE),
        "duration": 0,
        "start_time": 0,
        "end_time": 0,
        "status_dict": dict(sorted(outcomes.items())),
    }
