"""One way to turn a matplotlib Figure into bytes: no pyplot state, no dates, the same bytes every time."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS = ("png", "svg")


def render(figure: Figure, kind: str, *, dpi: int = 150) -> bytes:
    """`figure` as "png" or "svg". Letters of an SVG are outlines: legible where no such font is installed."""
    import matplotlib

    assert kind in FORMATS, kind
    # Versions and dates stay out of the file; element ids of an SVG come from a fixed salt.
    metadata = {"Software": None} if kind == "png" else {"Date": None, "Creator": None}
    settings = {"svg.fonttype": "path", "svg.hashsalt": "vlcli", "path.simplify": True}
    buffer = io.BytesIO()
    with matplotlib.rc_context(settings):
        figure.savefig(buffer, format=kind, dpi=dpi, metadata=metadata)
    return buffer.getvalue()
