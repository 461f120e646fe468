"""Where what is computed once is kept."""

from __future__ import annotations

import os
from pathlib import Path


def default_directory(kind: str) -> Path:
    """`$VLCLI_CACHE`, else `vlcli` in the user's cache directory; each kind in a folder of it."""
    base = (
        os.environ.get("VLCLI_CACHE")
        or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "vlcli"
    )
    return Path(base) / kind
