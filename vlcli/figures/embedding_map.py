"""A map of a data set's pictures by a model's vectors: a Parquet file that embedding-atlas opens, and a picture.

The Parquet has a row for each picture: x, y, text, image (its bytes, as Hugging Face's datasets keep them), id. Its
schema's metadata says of which checkpoint and projection it is.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson
import torch

from vlcli.evaluation.embed import Progress, decode_row
from vlcli.evaluation.projection import Points, Projection, project
from vlcli.evaluation.vectors import ModelVectors
from vlcli.figures.canvas import FORMATS, plain_settings, render
from vlcli.figures.fonts import find_fonts
from vlcli.figures.gallery_page import thumbnail
from vlcli.figures.panels import INK, PAPER, shorten

if TYPE_CHECKING:
    from matplotlib.figure import Figure

KINDS = (*FORMATS, "parquet", "json")
WIDTH, DPI, TILE = 12.0, 150, 58  # inches; pixels of a picture on the map
DOT = "#8aa0b4"


@dataclass(frozen=True)
class Map:
    """Places (n, 2) of a table's rows."""

    table: Any
    points: Points
    head: dict[str, Any]

    def as_json(self) -> dict[str, Any]:
        rows = [
            {"id": name, "x": round(float(x), 6), "y": round(float(y), 6), "text": _text(texts)}
            for name, (x, y), texts in zip(self.table.ids, self.points, self.table.texts, strict=True)
        ]
        return {**self.head, "points": rows}

    def render(self, kinds: Sequence[str]) -> dict[str, bytes]:
        """As each of KINDS, equal bytes for equal inputs."""
        drawn = draw_map(self) if set(kinds) & set(FORMATS) else None
        done = {}
        for kind in kinds:
            if kind == "parquet":
                done[kind] = self._parquet()
            elif kind == "json":
                done[kind] = orjson.dumps(self.as_json(), option=orjson.OPT_APPEND_NEWLINE)
            else:
                assert drawn is not None
                done[kind] = render(drawn, kind, dpi=DPI)
        return done

    def _parquet(self) -> bytes:
        import pyarrow as pa
        import pyarrow.parquet as pq

        images = [
            {"bytes": self.table.image_bytes(row), "path": name} for row, name in enumerate(self.table.ids)
        ]
        struct = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        table = pa.table(
            {
                "x": pa.array(self.points[:, 0], pa.float32()),
                "y": pa.array(self.points[:, 1], pa.float32()),
                "text": pa.array([_text(texts) for texts in self.table.texts], pa.string()),
                "image": pa.array(images, struct),
                "id": pa.array(list(self.table.ids), pa.string()),
            }
        ).replace_schema_metadata({"vlcli:map": orjson.dumps(self.head)})
        buffer = io.BytesIO()
        pq.write_table(table, buffer)
        return buffer.getvalue()


def make_map(
    model: Any,
    table: Any,
    how: Projection = "pca",
    *,
    seed: int = 0,
    batch_size: int = 64,
    progress: Progress | None = None,
) -> Map:
    """Every row of a PairTable at the place of its picture's vector. Raises InputError for one that does not decode."""
    encoder = ModelVectors(model)
    vectors = [np.empty((0, encoder.dim), np.float32)]
    for start in range(0, len(table), batch_size):
        rows = range(start, min(start + batch_size, len(table)))
        vectors.append(
            encoder.images(torch.stack([encoder.preprocess(decode_row(table, row)) for row in rows]))
        )
        if progress is not None:
            progress(len(rows))
    points = project(np.concatenate(vectors), how, seed=seed)
    head = {**encoder.record(), "data": table.source, "projection": how, "seed": seed}
    return Map(table, points, head)


def draw_map(found: Map) -> Figure:
    """Each picture at its place, as far as there is room; the others are dots."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    fonts = find_fonts()
    side, margin, head = int(WIDTH * DPI), TILE, int(0.45 * DPI)
    low, high = found.points.min(0), found.points.max(0)
    scaled = (found.points - low) / np.where(high > low, high - low, 1)
    places = margin + scaled * (side - 2 * margin)  # (n, 2) pixels, y upwards
    with plain_settings():
        figure = Figure(figsize=(WIDTH, WIDTH + head / DPI), dpi=DPI, facecolor=PAPER)
        FigureCanvasAgg(figure)
        axes = figure.add_axes((0, 0, 1, side / (side + head)), xlim=(0, side), ylim=(0, side))
        axes.set_axis_off()
        shown = _apart(places)
        dots = sorted(set(range(len(places))) - set(shown))
        axes.scatter(places[dots, 0], places[dots, 1], s=9, c=DOT, linewidths=0, zorder=1)
        for row in shown:
            pixels = thumbnail(found.table.image_bytes(row))
            if pixels is not None:
                h, w = (TILE * n / max(pixels.shape[:2]) / 2 for n in pixels.shape[:2])
                x, y = places[row]
                axes.imshow(
                    pixels,
                    extent=(x - w, x + w, y - h, y + h),
                    interpolation="bilinear",
                    zorder=2,
                    aspect="auto",
                )
        axes.set_xlim(0, side)
        axes.set_ylim(0, side)
        about = f"{len(places):,} pictures, {len(shown):,} of them shown · {found.head['projection']}, seed "
        about += f"{found.head['seed']} · {found.head['similarity']} · {found.head['checkpoint']}"
        figure.text(
            0.012, 1 - 0.12 / (WIDTH + head / DPI), shorten(fonts.drawable(about), 150),
            fontproperties=fonts.properties(size=10), color=INK, va="top",
        )  # fmt: skip
    return figure


def _apart(places: np.ndarray) -> list[int]:
    """Rows, in their order, whose pictures cover none of those before them."""
    kept: list[int] = []
    for row, place in enumerate(places):
        if not kept or bool((np.abs(places[kept] - place).max(1) >= TILE + 2).all()):
            kept.append(row)
    return kept


def _text(texts: Sequence[str]) -> str:
    return texts[0] if texts else ""
