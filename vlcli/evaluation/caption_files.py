"""Captions and references out of files: rows of any kind, COCO's lists of results and annotations; joined by image."""

from __future__ import annotations

import gzip
import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple

import orjson

from vlcli.datasets.files import BOM, field, json_document
from vlcli.errors import InputError, UsageError

CAPTION = "caption_generated"

# How COCO's annotations begin; a row of pairs that does is told by being whole on its line.
_ANNOTATIONS = re.compile(rb'\s*\{\s*"(info|images|licenses|annotations|type|categories)"\s*:')
_HEAD = 1 << 16  # bytes of a file that are looked at


class _Said(NamedTuple):
    """What one row says of an image."""

    image: str | None
    id: str | None
    texts: list[str]
    place: dict[str, Any]  # for InputError
    split: str | None = None


@dataclass(frozen=True)
class Captioned:
    """n images, in the order of the captions, each with its caption and its references.

    source: the files of the references. split_hash: sha256 over (image, references) by image: names what was scored
    against. captions_hash: 16 hex over the captions and their images. uncaptioned, unknown: images that had references
    alone, captions alone, and were left out.
    """

    images: list[str]
    captions: list[str]
    references: list[list[str]]
    source: str
    split: str | None
    uncaptioned: int = 0
    unknown: int = 0

    @property
    def split_hash(self) -> str:
        return _digest(sorted(zip(self.images, self.references, strict=True)))

    @property
    def captions_hash(self) -> str:
        return _digest(sorted(zip(self.images, self.captions, strict=True)))[:16]


def read_captioned(
    generated: Sequence[str],
    references: Sequence[str] | None,
    *,
    renames: Mapping[str, str] | None = None,
    head: int | None = None,
    common: bool = False,
) -> Captioned:
    """The captions of `generated` (none or `-`: stdin) with what `references` says of the same images; without them the
    rows' own `text` is the reference.

    Images are joined by `image_id`, or by `id` where a row lacks that. An image may have references in many rows; it
    has one caption, in how many rows soever. Raises InputError for damaged files, rows without a name, two captions of
    an image, and, unless they are left out (`common`), images that one side lacks; UsageError where nothing was
    generated.
    """
    ours, has_captions = _read_generated(generated, renames, head)
    if not ours.captions:
        raise InputError("no captions", file=_files(generated, None))
    if references is None:
        if not has_captions:
            raise UsageError(f"no row has {CAPTION}", remedy="name what people wrote with --references")
        theirs = ours.texts
    else:
        theirs = list(_said(references, renames, None))
    key = _key(ours.captions, theirs)
    captions: dict[str, str] = {}
    for row in ours.captions:
        name, caption = key(row), row.texts[0]
        if captions.setdefault(name, caption) != caption:
            raise InputError(f"a second caption of the image {name}", **row.place)
    texts: dict[str, list[str]] = {}
    for row in theirs:
        own = texts.setdefault(key(row), [])
        own += (text for text in row.texts if text not in own)
    texts = {name: own for name, own in texts.items() if own}
    if not captions or not texts:
        raise InputError(
            "no captions" if not captions else "no references", file=_files(generated, references)
        )
    unknown = [name for name in captions if name not in texts]
    uncaptioned = [name for name in texts if name not in captions]
    if len(unknown) == len(captions):
        raise InputError(
            f"captions and references have no image in common: {_some(unknown)} and {_some(uncaptioned)}",
            file=_files(generated, references),
        )
    for names, cause in ((unknown, "have a caption and no reference"), (uncaptioned, "have no caption")):
        # of a part of the captions the references are more
        if names and not common and not (names is uncaptioned and head is not None):
            raise InputError(
                f"{len(names):,} of {len({*captions, *texts}):,} images {cause}: {_some(names)}",
                file=_files(generated, references),
                remedy="--common scores those that have both",
            )
    images = [name for name in captions if name in texts]
    splits = list(dict.fromkeys(row.split for row in theirs if row.split))
    return Captioned(
        images,
        [captions[name] for name in images],
        [texts[name] for name in images],
        " ".join(references or generated) or "<stdin>",
        "+".join(splits) or None,
        len(uncaptioned),
        len(unknown),
    )


class _Generated(NamedTuple):
    captions: list[_Said]
    texts: list[_Said]  # of the same rows


def _read_generated(
    paths: Sequence[str], renames: Mapping[str, str] | None, head: int | None
) -> tuple[_Generated, bool]:
    """Rows of captions, and whether these stood in a column of their own."""
    captions, texts, own = [], [], 0
    for row, caption in _rows_with_caption(paths, renames, head):
        texts.append(row)
        if caption is not None:
            own += 1
            captions.append(row._replace(texts=[caption]))
        elif len(row.texts) > 1:
            raise InputError(f"no {CAPTION}, and {len(row.texts)} texts", **row.place)
        else:  # an empty caption is one that scores nothing
            captions.append(row._replace(texts=row.texts or [""]))
    if own and own < len(captions):
        missing = next(row for row, text in zip(captions, texts, strict=True) if row.texts == text.texts)
        raise InputError(f"no {CAPTION}, which other rows have", **missing.place)
    return _Generated(captions, texts), own > 0


def _said(paths: Sequence[str], renames: Mapping[str, str] | None, head: int | None) -> Iterator[_Said]:
    for row, _ in _rows_with_caption(paths, renames, head):
        yield row


def _rows_with_caption(
    paths: Sequence[str], renames: Mapping[str, str] | None, head: int | None
) -> Iterator[tuple[_Said, str | None]]:
    """What each row says, and what stands in its column CAPTION."""
    from vlcli.records.identity import Identity
    from vlcli.records.reader import read

    rows: list[str] = []
    for path in paths:
        if path != "-" and _is_document(path):
            yield from ((row, None) for row in islice(_document(path, json_document(path)), head))
        else:
            rows.append(path)
    if not rows and paths:
        return
    with Identity() as identity:
        for raw in read(rows, renames=renames, head=head):
            batch = identity.assign_images(raw)
            frame = batch.frame
            for image, number, texts, line, caption, split in zip(
                frame["image_id"],
                frame["id"],
                frame["text"].to_list(),
                frame["line"],
                batch.values(CAPTION),
                batch.values("split"),
                strict=True,
            ):
                place = {"file": batch.file, "line" if batch.text_lines else "row": line}
                if caption is not None and not isinstance(caption, str):
                    raise InputError(f"{CAPTION} is not a string", **place)
                texts = [text for text in texts or () if text and text.strip()]
                yield _Said(image, number, texts, place, split if isinstance(split, str) else None), caption


def _is_document(path: str) -> bool:
    """The file is one JSON value of COCO's, and not rows."""
    try:
        with open(path, "rb") as file:
            head = file.read(_HEAD)
            if head[:2] == b"\x1f\x8b":
                file.seek(0)
                head = gzip.GzipFile(fileobj=file).read(_HEAD)
    except (OSError, EOFError):  # whoever reads it will say so
        return False
    head = head.removeprefix(BOM).lstrip()
    if head.startswith(b"["):
        return True
    first = head.partition(b"\n")[0]
    try:
        row = orjson.loads(first)
    except orjson.JSONDecodeError:
        return _ANNOTATIONS.match(head) is not None
    return isinstance(row, dict) and isinstance(row.get("annotations"), list)


def _document(path: str, document: Any) -> Iterator[_Said]:
    """The captions of a list of results `[{"image_id", "caption"}, …]`, or of annotations."""
    entries = document if isinstance(document, list) else field(document, "annotations", list, path, None)
    for number, entry in enumerate(entries, start=1):
        what = f"entry {number}"
        image = field(entry, "image_id", (int, str), path, None, what)
        caption = field(entry, "caption", str, path, None, what)
        yield _Said(str(image), None, [caption], {"file": path})


def _key(ours: Sequence[_Said], theirs: Sequence[_Said]) -> Any:
    """The name of the image of a row: its `image_id` if all rows have one, else its `id`."""
    if all(row.image is not None for rows in (ours, theirs) for row in rows):
        return lambda row: row.image
    for rows in (ours, theirs):
        for row in rows:
            if row.id is None:
                cause = "no image_id" if row.image is None else "no id, and other rows have no image_id"
                raise InputError(cause, **row.place)
    return lambda row: row.id


def _files(generated: Sequence[str], references: Sequence[str] | None) -> str:
    """Both sides, for a message."""
    return " and ".join([" ".join(generated) or "<stdin>", *([" ".join(references)] if references else [])])


def _some(names: Sequence[str], shown: int = 3) -> str:
    return ", ".join(names[:shown]) + (", …" if len(names) > shown else "")


def _digest(value: Any) -> str:
    return hashlib.sha256(orjson.dumps(value)).hexdigest()
