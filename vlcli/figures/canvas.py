"""One way to turn a matplotlib Figure into bytes: no pyplot state, no dates, the same bytes every time."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlcli.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS = ("png", "svg")
SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "path",  # letters as outlines: legible where no such font is installed
    "svg.hashsalt": "vlcli",  # element ids that do not change from run to run
    "text.parse_math": False,  # a dollar sign in a caption is a dollar sign
}


def kind_of(file: Path) -> str:
    """The format that a name asks for. Raises UsageError for a name that ends in none of FORMATS."""
    kind = file.suffix[1:].lower()
    if kind not in FORMATS:
        raise UsageError(f"{file}: a figure's name ends in .{' or .'.join(FORMATS)}")
    return kind


@contextmanager
def plain_settings() -> Iterator[None]:
    """matplotlib's own defaults and SETTINGS, whatever the user's matplotlibrc says; restored afterwards.

    Figures are built and rendered inside it: some settings are read when a text is made, some when it is
    drawn.
    """
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(SETTINGS)
        yield


def render(figure: Figure, kind: str, *, dpi: int = 150) -> bytes:
    """`figure` as "png" or "svg", without the version and the date that matplotlib would write into it."""
    assert kind in FORMATS, kind
    metadata: dict[str, Any] = {"Software": None} if kind == "png" else {"Date": None, "Creator": None}
    buffer = io.BytesIO()
    with plain_settings():
        figure.savefig(buffer, format=kind, dpi=dpi, metadata=metadata)
    return buffer.getvalue()
