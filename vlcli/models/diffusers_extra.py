"""The library diffusers, which only what draws needs."""

from __future__ import annotations

from typing import Any

from vlcli.errors import UsageError


class MissingDiffusers(UsageError):
    """Nothing is wrong with what was asked for, but it wants the extra `generate`."""


def need_diffusers() -> Any:
    """The module diffusers. Raises MissingDiffusers, which names the extra that has it."""
    try:
        import diffusers
    except ImportError:
        raise MissingDiffusers(
            "diffusion models need diffusers", remedy="pip install 'vlcli[generate]'"
        ) from None
    return diffusers
