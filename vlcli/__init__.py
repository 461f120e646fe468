"""vlcli: Chinese and multilingual vision-language pre-training as a suite of Unix commands."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from vlcli.models.checkpoint import load

__all__ = ["__version__", "load"]


def __getattr__(name: str) -> Any:
    # torch is imported only when somebody asks for a model: every --help stays fast.
    if name == "load":
        from vlcli.models.checkpoint import load

        return load
    raise AttributeError(f"module 'vlcli' has no attribute {name!r}")
