"""What a figure is asked of and where it goes: pictures by reference or by row, texts, file names."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlcli.errors import UsageError
from vlcli.figures.sheet import KINDS, MAX_ROWS, Sheet, Source, make_sheet
from vlcli.images.named import named_picture
from vlcli.images.resolve import ImageReader

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff")  # of a folder


@dataclass(frozen=True)
class Request:
    """Pictures with the texts to lay on them, all on all; without texts each with its own."""

    sources: list[Source]
    texts: list[str]
    name: str  # of the first picture, for file names

    @classmethod
    def read(
        cls,
        images: Sequence[str],
        texts: Sequence[str],
        *,
        data: Sequence[str] = (),
        ids: Sequence[str] = (),
        head: int | None = None,
        renames: Mapping[str, str] | None = None,
        image_root: Path | None = None,
    ) -> Request:
        """`images` are references, or folders of pictures; `ids` name rows of `data`, whose own first texts serve when
        none is given. Without `ids` it is the first `head` rows of `data`, each with its own text.

        Raises UsageError when there is no picture or no text, a picture that does not exist, or an id that
        no row has; InputError for a picture that is there and cannot be read.
        """
        if ids and not data:
            raise UsageError("--data and --id go together: the rows to draw")
        if head is not None and (ids or not data):
            raise UsageError("--head is about --data without --id")
        if not images and not data:
            raise UsageError("no picture", remedy="give --image, or --data and --id")
        with ImageReader(image_root) as reader:
            sources = [
                Source(reference, named_picture(reference, reader))
                for reference in _listed(images, image_root)
            ]
        rows = _rows(data, ids, head, renames, image_root) if data else []
        wanted = [unicodedata.normalize("NFC", text) for text in texts]
        if ids and not wanted:
            wanted = [row.text for row in rows if row.text]
        if not wanted and (images or any(row.text is None for row in rows) or not rows):
            raise UsageError("no text", remedy="give --text")
        return cls(sources + rows, list(dict.fromkeys(wanted)), _first(images, rows))

    @property
    def many(self) -> bool:
        """Whether pictures were asked for without naming each."""
        return not self.texts or len(self.sources) * len(self.texts) > 64

    @property
    def default_stem(self) -> str:
        text = self.texts[0] if self.texts else "sheet"
        return _safe(f"{self.name}.{text}")

    def targets(
        self, output: Path | None, formats: str | None, *, printed: bool, force: bool
    ) -> dict[str, Path]:
        """See `file_names`."""
        return file_names(output, formats, self.default_stem, printed=printed, force=force)

    def sheet(self, model: Any, **how: Any) -> Sheet:
        """See `make_sheet`."""
        return make_sheet(model, self.sources, self.texts, **how)


def file_names(
    output: Path | None,
    formats: str | None,
    default: str,
    *,
    printed: bool = False,
    force: bool = False,
    known: Sequence[str] = KINDS,
) -> dict[str, Path]:
    """The files to write, by kind: `-o` and its siblings; none when the JSON is printed and no file asked.

    Raises UsageError for a kind that is not `known`, and for a file that exists unless `force`.
    """
    from vlcli.records.atomic import refuse_existing

    if output is None and formats is None and printed:
        return {}
    kinds = [part.strip().lower() for part in formats.split(",")] if formats else []
    stem = output if output is not None else Path(default)
    suffix = stem.suffix[1:].lower() if output is not None else ""
    if suffix in known:
        stem = stem.with_suffix("")
    if not kinds:
        kinds = [suffix] if output is not None else ["png"]
    for kind in kinds:
        if kind not in known:
            raise UsageError(f"{kind or output!s} is none of {', '.join(known)}", remedy="-o X.png, say")
    if output is not None and suffix in kinds:
        files = {kind: output if kind == suffix else stem.with_name(f"{stem.name}.{kind}") for kind in kinds}
    else:
        files = {kind: stem.with_name(f"{stem.name}.{kind}") for kind in kinds}
    if not force:
        for file in files.values():
            refuse_existing(file)
    return files


def given_pictures(
    images: Sequence[str],
    *,
    data: Sequence[str] = (),
    ids: Sequence[str] = (),
    renames: Mapping[str, str] | None = None,
    image_root: Path | None = None,
) -> list[Source]:
    """The pictures of a figure that is drawn again, from where the caller says."""
    if bool(data) != bool(ids):
        raise UsageError("--data and --id go together: the rows to draw")
    with ImageReader(image_root) as reader:
        sources = [
            Source(reference, named_picture(reference, reader)) for reference in _listed(images, image_root)
        ]
    return sources + (_rows(data, ids, None, renames, image_root) if data else [])


def _listed(images: Sequence[str], image_root: Path | None) -> list[str]:
    """References, each folder as the pictures in it by name. UsageError for a folder without any, or with too many."""
    found: list[str] = []
    for reference in images:
        folder = (image_root or Path()) / reference
        if not folder.is_dir():
            found.append(reference)
            continue
        inside = sorted(file.name for file in folder.iterdir() if file.suffix.lower() in PICTURES)
        if not 1 <= len(inside) <= MAX_ROWS["sheet"]:
            raise UsageError(f"{folder}: {len(inside):,} pictures: a figure has 1 to {MAX_ROWS['sheet']}")
        found += [str(Path(reference) / name) for name in inside]
    return found


def _rows(
    data: Sequence[str],
    ids: Sequence[str],
    head: int | None,
    renames: Mapping[str, str] | None,
    image_root: Path | None,
) -> list[Source]:
    from vlcli.shards.pairs import load_pairs

    most = MAX_ROWS["sheet"]
    if not ids and head is None:
        head = most + 1
    table = load_pairs(
        list(data), renames=renames, image_root=image_root, need_text=False, optional=("lang",), head=head
    )
    if not ids and not 1 <= len(table) <= most:
        remedy = f"--head {most}" if len(table) else ""
        raise UsageError(f"{table.source}: {len(table):,} rows: a figure has 1 to {most}", remedy=remedy)
    place = {name: row for row, name in enumerate(table.ids)}
    missing = [name for name in ids if name not in place]
    if missing:
        raise UsageError(f"no row of {table.source} has the id {missing[0]!r}")
    langs = table.frame["lang"].to_list() if "lang" in table.frame.columns else [None] * len(table)
    rows = [place[name] for name in ids] if ids else range(len(table))
    return [
        Source(
            table.ids[row],
            table.image_bytes(row),
            unicodedata.normalize("NFC", table.texts[row][0]) if table.texts[row] else None,
            None if langs[row] is None else str(langs[row]),
        )
        for row in rows
    ]


def _first(images: Sequence[str], rows: Sequence[Source]) -> str:
    if not images:
        return rows[0].reference if rows else ""
    path, mark, fragment = images[0].rpartition("#")
    return f"{Path(path if mark else images[0]).stem}{f'-{fragment}' if mark else ''}"


def _safe(name: str) -> str:
    """A file name: what is neither a letter, a digit, `.`, `_` nor `-` becomes `-`."""
    return re.sub(r"[^\w.-]+", "-", name)[:120].strip("-.")
