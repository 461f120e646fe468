"""A figure drawn again from the JSON beside it: the same bytes, without the model that made it.

The JSON holds every index and similarity, and names each picture by reference and sha256. The pictures
themselves are read again, from where they were or from where the caller says; one whose bytes are others is
another picture, and no figure is drawn of it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from vlcli.errors import InputError, UsageError
from vlcli.evaluation.alignment import Alignment
from vlcli.figures.alignment import Row
from vlcli.figures.request import Request
from vlcli.figures.sheet import KINDS, Sheet, Source, shown
from vlcli.images.config import PreprocessConfig
from vlcli.images.resolve import ImageReader

REMEDY = "give the picture it was made of: --image, or --data and --id"


@dataclass(frozen=True)
class Figure:
    """The JSON of a sheet, and the pictures that may be in it by the sha256 of their bytes."""

    path: Path
    data: dict[str, Any]
    pictures: dict[str, Source]

    @classmethod
    def read(
        cls,
        path: Path,
        images: Sequence[str] = (),
        *,
        data: Sequence[str] = (),
        ids: Sequence[str] = (),
        renames: Mapping[str, str] | None = None,
        image_root: Path | None = None,
    ) -> Figure:
        """`images`, or `ids` of `data`, in place of the pictures that the JSON refers to.

        Raises InputError for what is no figure's JSON, and for a picture that has vanished or changed.
        """
        figure = _parse(path)
        wanted = {
            digest: reference
            for one in figure["figures"]
            for digest, reference in zip(_all(one["image_sha256"]), _all(one["image"]), strict=True)
        }
        sources: list[Source] = []
        if images or data or ids:
            given = Request.read(
                images, ["–"], data=data, ids=ids, renames=renames, image_root=image_root
            )  # the text is the figure's own
            sources = given.sources
        found = {hashlib.sha256(source.data).hexdigest(): source for source in sources}
        with ImageReader(image_root) as reader:
            for digest, reference in wanted.items():
                if digest in found:
                    continue
                try:
                    source = Source(reference, reader.read(reference))
                except (OSError, ValueError) as error:
                    raise InputError(
                        f"the figure's picture {reference} cannot be read", file=str(path), remedy=REMEDY
                    ) from error
                if hashlib.sha256(source.data).hexdigest() != digest:
                    raise InputError(
                        f"the picture {reference} has changed since the figure was made",
                        file=str(path),
                        remedy=REMEDY,
                    )
                found[digest] = source
        return cls(path, figure, found)

    def targets(
        self, output: Path | None, formats: str | None, *, printed: bool, force: bool
    ) -> dict[str, Path]:
        """As `Request.targets`; the default is the JSON's own name, as a PNG."""
        if output is None and not (formats is None and printed):
            output = self.path.with_suffix(".png") if formats is None else self.path.with_suffix("")
        return Request([], [""], "").targets(output, formats, printed=printed, force=force)

    def sheet(self) -> Sheet:
        """The sheet that the JSON was written from: rendered, it gives the same bytes."""
        head = {key: value for key, value in self.data.items() if key != "figures"}
        preprocess = PreprocessConfig(**head["shown"])
        rows, named = [], []
        for one in self.data["figures"]:
            pictures = [self.pictures[digest].picture() for digest in _all(one["image_sha256"])]
            pixels = shown(preprocess, pictures, one["size"])
            rows.append(Row(pixels, Alignment.of_json(one)))
            named.append({key: one[key] for key in ("image", "image_sha256", "size")})
        return Sheet(rows, named, head)


def _parse(path: Path) -> dict[str, Any]:
    """The checked JSON of a figure."""
    if not path.is_file():
        raise UsageError(f"{path}: no such figure", remedy=f"{KINDS[-1]} is what --formats wrote beside it")
    try:
        figure = orjson.loads(path.read_bytes())
        PreprocessConfig(**figure["shown"])
        for one in figure["figures"]:
            Alignment.of_json(one)
            names, digests = _all(one["image"]), _all(one["image_sha256"])
            if len(names) != len(digests) or len(names) not in (1, 4) or int(one["size"]) < 8:
                raise ValueError("a figure without its pictures")
        if not figure["figures"]:
            raise ValueError("no figures")
    except (ValueError, KeyError, TypeError) as error:  # pydantic's and orjson's errors are ValueErrors
        cause = str(error).splitlines()[0]
        raise InputError(f"not the JSON of a figure: {cause}", file=str(path)) from error
    return figure


def _all(value: str | list[str]) -> list[str]:
    """A mosaic has four pictures in a list, everything else one."""
    return value if isinstance(value, list) else [value]
