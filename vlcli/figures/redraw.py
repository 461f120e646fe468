"""A figure drawn again from the JSON beside it, or from the HTML that has it inside: the same bytes, without the model
that made it.

The JSON holds every index and similarity, and names each picture by reference and sha256. The pictures themselves are
in the HTML; with a JSON they are read again, from where they were or from where the caller says; one whose bytes are
others is another picture, and no figure is drawn of it.
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
from vlcli.figures.alignment import LAYOUTS
from vlcli.figures.gallery import Gallery
from vlcli.figures.html import embedded
from vlcli.figures.panels import Row
from vlcli.figures.request import Request, file_names, given_pictures
from vlcli.figures.sheet import Sheet, Source, shown
from vlcli.images.config import PreprocessConfig
from vlcli.images.resolve import ImageReader

REMEDY = "give the picture it was made of: --image, or --data and --id"
SUFFIXES = (".json", ".html")


def is_figure(name: str) -> bool:
    """Whether a name in place of RUN is a figure's."""
    return name.lower().endswith(SUFFIXES)


@dataclass(frozen=True)
class Figure:
    """The JSON of a figure, and the pictures that may be in it by the sha256 of their bytes."""

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
        """`images`, or rows of `data` (those with `ids`, else those that the JSON names), in place of the pictures
        that the JSON refers to.

        Raises InputError for what is no figure's JSON, and for a picture that has vanished or changed.
        """
        if not path.is_file():
            raise UsageError(f"{path}: no such figure", remedy="json is what --formats wrote beside it")
        figure, inside = _parse(path)
        wanted = dict(_named(figure))
        names = list(ids) or (list(dict.fromkeys(wanted.values())) if data else [])
        reading: dict[str, Any] = {"renames": renames, "image_root": image_root}
        sources = given_pictures(images, data=data, ids=names, **reading)
        found = {digest: Source(wanted.get(digest, ""), content) for digest, content in inside.items()}
        found |= {hashlib.sha256(source.data).hexdigest(): source for source in sources}
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
        return cls(path, figure, {digest: found[digest] for digest in wanted})

    def targets(
        self, output: Path | None, formats: str | None, *, printed: bool, force: bool
    ) -> dict[str, Path]:
        """As `Request.targets`; the default is the figure's own name, as a PNG."""
        if output is None and not (formats is None and printed):
            output = self.path.with_suffix(".png") if formats is None else self.path.with_suffix("")
        return file_names(output, formats, Request([], [], "").default_stem, printed=printed, force=force)

    def sheet(self) -> Sheet | Gallery:
        """What the JSON was written from: rendered, it gives the same bytes."""
        originals = {digest: source.data for digest, source in self.pictures.items()}
        if "gallery" in self.data:
            return Gallery.of_json(self.data, originals)
        head = {key: value for key, value in self.data.items() if key != "figures"}
        models = head.get("models", [head])
        rows, named, cuts = [], [], {}
        for one in self.data["figures"]:
            digests, k = _all(one["image_sha256"]), one.get("model", 0)
            cut = (k, one["size"], *digests)
            if cut not in cuts:
                pictures = [self.pictures[digest].picture() for digest in digests]
                cuts[cut] = shown(PreprocessConfig(**models[k]["shown"]), pictures, one["size"])
            name = models[k].get("name", "") if len(models) > 1 else ""
            rows.append(Row(cuts[cut], Alignment.of_json(one), model=k, name=name, lang=one.get("lang")))
            named.append(
                {key: one[key] for key in ("image", "image_sha256", "lang", "size", "model") if key in one}
            )
        return Sheet(rows, named, head, originals)


def _parse(path: Path) -> tuple[dict[str, Any], dict[str, bytes]]:
    """The checked JSON of a figure, and the pictures that lie beside it in an HTML."""
    try:
        content, inside = path.read_bytes(), dict[str, bytes]()
        if path.suffix.lower() == ".html":
            content, inside = embedded(content)
        figure = orjson.loads(content)
        _check(figure)
    except (
        ValueError,
        KeyError,
        TypeError,
        IndexError,
    ) as error:  # pydantic's and orjson's errors are ValueErrors
        cause = str(error).splitlines()[0]
        what = "JSON" if path.suffix.lower() == ".json" else "HTML"
        raise InputError(f"not the {what} of a figure: {cause}", file=str(path)) from error
    return figure, inside


def _check(figure: dict[str, Any]) -> None:
    if not isinstance(figure, dict):
        raise ValueError("not an object")
    if "gallery" in figure:
        if not Gallery.of_json(figure, {}).lines:
            raise ValueError("no lines")
        return
    models = figure.get("models", [figure])
    for model in models:
        PreprocessConfig(**model["shown"])
        str(model["checkpoint"]), str(model["similarity"])
    if figure.get("layout", LAYOUTS[0]) not in LAYOUTS:
        raise ValueError(f"layout {figure['layout']!r}")
    before = len(models) - 1
    for one in figure["figures"]:
        Alignment.of_json(one)
        names, digests = _all(one["image"]), _all(one["image_sha256"])
        if len(names) != len(digests) or len(names) not in (1, 4) or int(one["size"]) < 8:
            raise ValueError("a figure without its pictures")
        if one.get("model", 0) != (before + 1) % len(models):
            raise ValueError("rows of models out of order")
        before = one.get("model", 0)
    if not figure["figures"] or before != len(models) - 1:
        raise ValueError("no figures" if not figure["figures"] else "a row of a model is missing")


def _named(figure: dict[str, Any]) -> list[tuple[str, str]]:
    """Digest and reference of every picture."""
    if "gallery" in figure:
        items = [item for line in Gallery.of_json(figure, {}).lines for item in line.items]
        return [(str(item.sha256), str(item.image)) for item in items if item.image is not None]
    return [
        pair
        for one in figure["figures"]
        for pair in zip(_all(one["image_sha256"]), _all(one["image"]), strict=True)
    ]


def _all(value: str | list[str]) -> list[str]:
    """A mosaic has four pictures in a list, everything else one."""
    return value if isinstance(value, list) else [value]
