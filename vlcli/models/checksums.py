"""SHA256SUMS of a checkpoint directory: what `sha256sum -c` reads too."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

SUMS = "SHA256SUMS"


def sha256_of(path: Path) -> str:
    """64 hex digits of a file's contents."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_checksums(directory: Path) -> None:
    """One line for each file of the directory, by name; written after all of them."""
    files = sorted(file for file in directory.iterdir() if file.is_file() and file.name != SUMS)
    text = "".join(f"{sha256_of(file)}  {file.name}\n" for file in files)
    (directory / SUMS).write_text(text, encoding="utf-8")


def read_checksums(directory: Path) -> Iterator[tuple[Path, str]]:
    """(file, its recorded sum) of each line; nothing where there is no list. ValueError for a line that is none, or
    that names a file elsewhere."""
    if not (directory / SUMS).is_file():
        return
    for number, line in enumerate((directory / SUMS).read_text(encoding="utf-8").splitlines(), start=1):
        digest, _, name = line.partition("  ")
        if len(digest) != 64 or not name or Path(name).name != name:
            raise ValueError(f"line {number} is not a sum and a name")
        yield directory / name, digest
