"""A shard that stands: what it says became of its rows, and their images as they are stored."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from vlcli.shards.layout import SUCCESS
from vlcli.shards.pack import PackedImage
from vlcli.shards.reader import open_tar, read_sidecar
from vlcli.shards.whole import read_shard

Failures = dict[int, tuple[str, str | None]]  # place of a row in its shard → status, message


def read_failures(sidecar: Path) -> Failures:
    """The rows of a shard that failed."""
    said = read_sidecar(sidecar, ["status", "error_message"]).to_pylist()
    failed = {place: (row["status"], row["error_message"]) for place, row in enumerate(said)}
    return {place: outcome for place, outcome in failed.items() if outcome[0] != SUCCESS}


class StoredImages:
    """The images of a whole tar, with all that its sidecar has about them; a context manager."""

    def __init__(self, tar: Path) -> None:
        """Raises InputError when the tar is not whole."""
        shard = read_shard(tar)
        assert shard.rows is not None, f"{tar} has no sidecar"
        self._extension = shard.image_extension or ""
        self._found = {
            key: (members[self._extension], row)
            for (key, members), row in zip(shard.samples, shard.rows, strict=True)
        }
        self._fd = open_tar(tar)

    def get(self, key: str) -> tuple[PackedImage, str] | None:
        """The image of a sample and its image_id; None where there is no such sample."""
        if key not in self._found:
            return None
        member, row = self._found[key]
        fields = ("width", "height", "original_width", "original_height", "exif", "sha256")
        data = os.pread(self._fd, member.size, member.data)
        image = PackedImage(data, self._extension, **{name: row[name] for name in fields})
        return image, row["image_id"]

    def __enter__(self) -> StoredImages:
        return self

    def __exit__(self, *_: Any) -> None:
        os.close(self._fd)
