"""SugarCrepe, Winoground and ARO in their published files: captions of nearly the same words, and their pictures."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from vlcli.errors import InputError, UsageError
from vlcli.images.decode import decode

SETS = ("sugarcrepe", "winoground", "aro")
Box = tuple[float, float, float, float]  # left, top, right, bottom


@dataclass(frozen=True)
class Picture:
    """A file, or bytes, of which perhaps a part is meant."""

    file: Path | None
    data: bytes | None = None
    box: Box | None = None

    def _pixels(self) -> tuple[int, int, int, int]:
        assert self.box is not None, "a part is asked for"
        left, top, right, bottom = map(round, self.box)
        return left, top, right, bottom

    def read(self) -> bytes:
        """The encoded picture. InputError where there is none."""
        data = self.data
        if data is None:
            assert self.file is not None, "a picture is somewhere"
            try:
                data = self.file.read_bytes()
            except OSError as error:
                raise InputError(f"no image: {error.strerror}", file=str(self.file)) from None
        if self.box is None:
            return data
        buffer = io.BytesIO()
        decode(data).crop(self._pixels()).save(buffer, "PNG")
        return buffer.getvalue()


@dataclass(frozen=True)
class Case:
    """Caption k is that of image k; where there is one image, all captions but the first are wrong."""

    id: str
    category: str
    images: tuple[int, ...]  # one or two places among the pictures
    captions: tuple[str, ...]


@dataclass
class Cases:
    """Cases and their pictures, each once; what `embed_images` reads."""

    source: str
    kind: str
    split_hash: str = ""
    cases: list[Case] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._places: dict[Any, int] = {}

    def __len__(self) -> int:
        return len(self.pictures)

    def image_bytes(self, i: int) -> bytes:
        return self.pictures[i].read()

    @cached_property
    def pictures_hash(self) -> str:
        """sha256 over the bytes of the pictures that lie beside the cases' files, in order."""
        digest = hashlib.sha256()
        for picture in self.pictures:
            if picture.data is None:
                digest.update(hashlib.sha256(Picture(picture.file).read()).digest())
        return digest.hexdigest()

    @cached_property
    def ids(self) -> list[str]:
        """For messages: the case that each picture is of."""
        found: dict[int, str] = {}
        for case in self.cases:
            for image in case.images:
                found.setdefault(image, case.id)
        return [found[i] for i in range(len(self.pictures))]

    def picture(self, picture: Picture) -> int:
        """The place of a picture, a new one where it is not among them yet."""
        key = (picture.file, picture.box) if picture.data is None else (picture.data, picture.box)
        place = self._places.setdefault(key, len(self.pictures))
        if place == len(self.pictures):
            self.pictures.append(picture)
        return place


def read_cases(kind: str, paths: Sequence[str], image_root: Path | None = None) -> Cases:
    """The cases of one of SETS, of files, or of all JSON, JSONL and Parquet files of a directory. Images are relative
    to `image_root`, else to the folder of their file.

    Raises UsageError for files that are not there, InputError naming file and case for what is not in the form of the
    set.
    """
    files = list(_files(paths))
    cases = Cases(" ".join(paths), kind)
    digest = hashlib.sha256()
    read: dict[str, Callable[[Path, Path, Cases], None]] = {
        "sugarcrepe": _sugarcrepe,
        "winoground": _winoground,
        "aro": _aro,
    }
    for file in files:
        read[kind](file, image_root or file.parent, cases)
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    if not cases.cases:
        raise InputError(f"no cases of {kind}", file=cases.source)
    cases.split_hash = digest.hexdigest()
    return cases


def _files(paths: Sequence[str]) -> Iterator[Path]:
    for path in map(Path, paths):
        if path.is_dir():
            found = sorted(f for f in path.iterdir() if f.suffix in (".json", ".jsonl", ".parquet"))
            if not found:
                raise UsageError(f"{path}: no JSON, JSONL or Parquet file in it")
            yield from found
        elif path.is_file():
            yield path
        else:
            raise UsageError(f"{path}: no such file")


def _sugarcrepe(file: Path, root: Path, cases: Cases) -> None:
    """{"0": {"filename", "caption", "negative_caption"}, …}, a file for each way to go wrong (add_att.json, …)."""
    found = _json(file)
    if not isinstance(found, dict):
        raise InputError("not an object of cases, as SugarCrepe's are", file=str(file))
    for number, row in found.items():
        name, right, wrong = _strings(row, ("filename", "caption", "negative_caption"), file, number)
        image = cases.picture(Picture(root / name))
        cases.cases.append(Case(f"{file.stem}/{number}", file.stem, (image,), (right, wrong)))


def _winoground(file: Path, root: Path, cases: Cases) -> None:
    """examples.jsonl beside the folder images, or Hugging Face's Parquet with the pictures inside."""
    for number, row in enumerate(_rows(file)):
        right, other = _strings(row, ("caption_0", "caption_1"), file, number)
        images = tuple(
            cases.picture(_winoground_image(row, f"image_{k}", root, file, number)) for k in (0, 1)
        )
        category = str(row.get("collapsed_tag") or row.get("tag") or "all")
        cases.cases.append(Case(f"winoground/{row.get('id', number)}", category, images, (right, other)))


def _winoground_image(row: dict[str, Any], key: str, root: Path, file: Path, number: int) -> Picture:
    value = row.get(key)
    if isinstance(value, dict) and value.get("bytes"):
        return Picture(None, bytes(value["bytes"]))
    if not isinstance(value, str):
        raise InputError(f"case {number} has no {key}", file=str(file))
    name = value if Path(value).suffix else f"{value}.png"
    inside = root / "images" / name
    return Picture(inside if inside.exists() else root / name)


def _aro(file: Path, root: Path, cases: Cases) -> None:
    """visual_genome_relation.json, visual_genome_attribution.json: a list of {"image_path", "true_caption",
    "false_caption", "bbox_x", "bbox_y", "bbox_w", "bbox_h"}; the box is what is looked at. A category is a relation,
    or two attributes. COCO-Order and Flickr30k-Order in the form of MIEB, for their authors draw the words' order anew:
    Parquet of {"images", "correct_caption", "hard_text_1", …}, a category of its own for each file.
    """
    if file.suffix != ".json":
        _orders(file, cases)
        return
    found = _json(file)
    if not isinstance(found, list):
        raise InputError("not a list of cases, as ARO's are", file=str(file))
    for number, row in enumerate(found):
        name, right, wrong = _strings(row, ("image_path", "true_caption", "false_caption"), file, number)
        box: Box | None = None
        if "bbox_x" in row:
            try:
                x, y, w, h = (float(row[f"bbox_{side}"]) for side in "xywh")
            except (KeyError, TypeError, ValueError):
                raise InputError(
                    f"case {number}: bbox_x, bbox_y, bbox_w and bbox_h are not four numbers", file=str(file)
                ) from None
            box = (x, y, x + w, y + h)
        image = cases.picture(Picture(root / name, None, box))
        attributes = "_".join(map(str, row.get("attributes") or ()))
        category = str(row.get("relation_name") or attributes or file.stem)
        cases.cases.append(Case(f"{file.stem}/{number}", category, (image,), (right, wrong)))


def _orders(file: Path, cases: Cases) -> None:
    for number, row in enumerate(_rows(file)):
        wrong = [key for key in row if key.startswith("hard_text_")]
        captions = _strings(row, ("correct_caption", *(wrong or ["hard_text_1"])), file, number)
        of = row.get("images")
        image = of[0] if isinstance(of, list) and of else of
        if not (isinstance(image, dict) and image.get("bytes")):
            raise InputError(f"case {number} has no image of bytes in images", file=str(file))
        place = cases.picture(Picture(None, bytes(image["bytes"])))
        cases.cases.append(Case(f"{file.stem}/{number}", file.stem, (place,), tuple(captions)))


def _json(file: Path) -> Any:
    try:
        return json.loads(file.read_bytes())
    except ValueError as error:
        raise InputError(f"not JSON: {error}", file=str(file)) from None


def _rows(file: Path) -> Iterator[dict[str, Any]]:
    if file.suffix == ".parquet":
        import polars as pl

        yield from pl.read_parquet(file).iter_rows(named=True)
        return
    for number, line in enumerate(file.read_bytes().splitlines(), start=1):
        if line.strip():
            try:
                row = json.loads(line)
            except ValueError:
                row = None
            if not isinstance(row, dict):
                raise InputError("not a JSON object", file=str(file), line=number)
            yield row


def _strings(row: Any, keys: Sequence[str], file: Path, number: Any) -> list[str]:
    values = [row.get(key) if isinstance(row, dict) else None for key in keys]
    for key, value in zip(keys, values, strict=True):
        if not isinstance(value, str):
            raise InputError(f"case {number} has no {key}", file=str(file))
    return [str(value) for value in values]
