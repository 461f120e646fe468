"""What an image reference is, and how one is moved from one place to another.

A reference is a path, `file.parquet#ROW`, `shard.tar#MEMBER`, `images.tsv#ID`, `data:image/…;base64,…` or a URL.
Only the first four are places in the file system: relative ones are relative to *something*, and this module changes
to what.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import polars as pl

_FIXED_PATTERN = r"^(?:/|data:|[A-Za-z][A-Za-z0-9+.-]+://)"
_FIXED = re.compile(_FIXED_PATTERN).match
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://").match


def is_url(reference: str) -> bool:
    return _URL(reference) is not None


def is_relative(reference: str) -> bool:
    """True for what depends on a folder: neither absolute, nor `data:`, nor a URL."""
    return _FIXED(reference) is None


def anchor(references: pl.Series, folder: str) -> pl.Series:
    """Relative references with `folder` before them, to be opened from the working directory."""
    if not folder:
        return references
    prefix = folder if folder.endswith("/") else folder + "/"
    fixed = references.str.contains(_FIXED_PATTERN).fill_null(True)
    return references if fixed.all() else references.zip_with(fixed, prefix + references)


class Relocator:
    """Rewrites references that can be opened from the working directory for a reader that stands elsewhere.

    `start` is the folder they become relative to; None makes them absolute. What is absolute already, `data:`
    and URLs stay as they are.
    """

    def __init__(self, start: Path | str | None) -> None:
        # `..` is followed by the kernel from the folder that a symbolic link leads to: both sides must be
        # real paths.
        self._start = None if start is None else os.path.realpath(start)
        self._prefixes: dict[str, str] = {}  # of folders met so far, as they are written

    def __call__(self, reference: str) -> str:
        return reference if _FIXED(reference) else self._relocate(reference)

    def _relocate(self, reference: str) -> str:
        # The name may hold a "/" after "#" (a tar member), which is no folder of the file system.
        container, hash_, fragment = reference.rpartition("#")
        if hash_ and os.path.splitext(container)[1].lower() in (".tar", ".parquet", ".tsv"):
            return self._move(container) + hash_ + fragment
        return self._move(reference)

    def _move(self, path: str) -> str:
        head, slash, name = path.rpartition("/")
        return self._prefix(head or slash) + name

    def _prefix(self, folder: str) -> str:
        prefix = self._prefixes.get(folder)
        if prefix is None:
            moved = self._move_folder(folder)
            prefix = self._prefixes[folder] = "" if moved == "." else moved.rstrip("/") + "/"
        return prefix

    def _move_folder(self, folder: str) -> str:
        if self._start is not None:
            return os.path.relpath(os.path.realpath(folder or "."), self._start)
        return os.path.realpath(folder) if ".." in folder.split("/") else os.path.abspath(folder or ".")

    def all(self, references: pl.Series, folder: str = "") -> pl.Series:
        """All of a column; `folder` is what `anchor` put before those that were relative in their source."""
        fixed = references.str.contains(_FIXED_PATTERN)
        if folder.startswith("/"):  # behind an absolute folder they look absolute now
            fixed &= ~references.str.starts_with(folder if folder.endswith("/") else folder + "/")
        rows = (~fixed).fill_null(False).arg_true()
        if not len(rows):
            return references
        paths = references.gather(rows)
        parts = paths.to_frame("p").select(
            head=pl.col("p").str.extract(r"(?s)^(.*/)[^/]*$").fill_null(""),
            name=pl.col("p").str.extract(r"([^/]*)$"),
            inside=pl.col("p").str.contains("#", literal=True),
        )
        heads = parts["head"].unique().to_list()
        moved = [self._prefix(head.removesuffix("/") or head) for head in heads]
        found = parts["head"].replace_strict(heads, moved, return_dtype=pl.String()) + parts["name"]
        if (odd := parts["inside"].arg_true()).len():  # a row or a member of a file
            found = found.scatter(odd, [self._relocate(path) for path in paths.gather(odd)])
        return (
            found.alias(references.name)
            if len(rows) == len(fixed)
            else references.clone().scatter(rows, found)
        )


def split_container(reference: str) -> tuple[str, str] | None:
    """`("file.parquet", "12")` or `("shard.tar", "000.jpg")` when the reference points into a file, else
    None.

    Split at the last `#` after which a row or a member can stand; a plain file whose name holds `#` stays
    whole.
    """
    container, hash_, fragment = reference.rpartition("#")
    if not hash_ or not container or not fragment:
        return None
    suffix = os.path.splitext(container)[1].lower()
    if suffix in (".tar", ".tsv") or (fragment.isdecimal() and fragment.isascii() and suffix == ".parquet"):
        return container, fragment
    if os.path.exists(reference):
        return None
    return (container, fragment) if os.path.isfile(container) else None
