"""What a figure is asked of and where it goes: pictures by reference or by row, texts, file names."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlcli.errors import MissingImage, UsageError
from vlcli.figures.sheet import KINDS, Sheet, Source, make_sheet
from vlcli.images.resolve import ImageReader
from vlcli.records.references import is_relative, is_url, split_container


@dataclass(frozen=True)
class Request:
    """Pictures with the texts to lay on them, all on all."""

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
        renames: Mapping[str, str] | None = None,
        image_root: Path | None = None,
    ) -> Request:
        """`images` are references; `ids` name rows of `data`, whose own first texts serve when none is given.

        Raises UsageError when there is no picture or no text, a picture that does not exist, or an id that
        no row has; InputError for a picture that is there and cannot be read.
        """
        if bool(data) != bool(ids):
            raise UsageError("--data and --id go together: the rows to draw")
        if not images and not ids:
            raise UsageError("no picture", remedy="give --image, or --data and --id")
        with ImageReader(image_root) as reader:
            sources = [_picture(reference, reader) for reference in images]
        own: list[str] = []
        if ids:
            rows, own = _rows(data, ids, renames, image_root)
            sources += rows
        wanted = list(dict.fromkeys(unicodedata.normalize("NFC", t) for t in (texts or own)))
        if not wanted:
            raise UsageError("no text", remedy="give --text")
        first = ids[0] if not images else Path(images[0].rsplit("#", 1)[0]).stem + _fragment(images[0])
        return cls(sources, wanted, first)

    def targets(
        self, output: Path | None, formats: str | None, *, printed: bool, force: bool
    ) -> dict[str, Path]:
        """The files to write, by kind: `-o` and its siblings; none when the JSON is printed and no file
        asked.

        Raises UsageError for an unknown kind, and for a file that exists unless `force`.
        """
        from vlcli.records.atomic import refuse_existing

        if output is None and formats is None and printed:
            return {}
        kinds = [part.strip().lower() for part in formats.split(",")] if formats else []
        stem = output if output is not None else Path(_safe(f"{self.name}.{self.texts[0]}"))
        suffix = stem.suffix[1:].lower() if output is not None else ""
        if suffix in KINDS:
            stem = stem.with_suffix("")
        if not kinds:
            kinds = [suffix] if output is not None else ["png"]
        for kind in kinds:
            if kind not in KINDS:
                raise UsageError(f"{kind or output!s} is none of {', '.join(KINDS)}", remedy="-o X.png, say")
        if output is not None and suffix in kinds:
            files = {
                kind: output if kind == suffix else stem.with_name(f"{stem.name}.{kind}") for kind in kinds
            }
        else:
            files = {kind: stem.with_name(f"{stem.name}.{kind}") for kind in kinds}
        if not force:
            for file in files.values():
                refuse_existing(file)
        return files

    def sheet(
        self, model: Any, *, prompt: str, size: int | None, mosaic: bool, layer: int | None = None
    ) -> Sheet:
        """See `make_sheet`."""
        return make_sheet(
            model, self.sources, self.texts, prompt=prompt, size=size, mosaic=mosaic, layer=layer
        )


def _picture(reference: str, reader: ImageReader) -> Source:
    """The picture that the command line names: one that is not there is a slip of the hand, not damage."""
    if not (reference.startswith("data:") or is_url(reference)):
        container = split_container(reference)
        path = Path(container[0] if container is not None else reference)
        if is_relative(reference) and reader.root is not None:
            path = reader.root / path
        if not path.is_file():
            raise UsageError(f"{path}: {'is a directory' if path.is_dir() else 'no such file'}")
    try:
        return Source(reference, reader.read(reference))
    except MissingImage as error:
        raise UsageError(str(error)) from None


def _rows(
    data: Sequence[str], ids: Sequence[str], renames: Mapping[str, str] | None, image_root: Path | None
) -> tuple[list[Source], list[str]]:
    from vlcli.shards.pairs import load_pairs

    table = load_pairs(list(data), renames=renames, image_root=image_root, need_text=False)
    place = {name: row for row, name in enumerate(table.ids)}
    missing = [name for name in ids if name not in place]
    if missing:
        raise UsageError(f"no row of {table.source} has the id {missing[0]!r}")
    rows = [place[name] for name in ids]
    sources = [Source(table.ids[row], table.image_bytes(row)) for row in rows]
    return sources, [table.texts[row][0] for row in rows if table.texts[row]]


def _fragment(reference: str) -> str:
    _, mark, fragment = reference.rpartition("#")
    return f"-{fragment}" if mark else ""


def _safe(name: str) -> str:
    """A file name: what is neither a letter, a digit, `.`, `_` nor `-` becomes `-`."""
    return re.sub(r"[^\w.-]+", "-", name)[:120].strip("-.")
