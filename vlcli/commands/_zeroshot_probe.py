"""`zeroshot --protocol`: what is learnt from labelled rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vlcli.commands import _evaluation as e

if TYPE_CHECKING:
    from vlcli.commands._console import Console


def learn(
    model: Any,
    protocol: Any,
    test: Any,
    tables: dict[str, Any],
    how: dict[str, Any],
    *,
    cache: str,
    console: Console,
) -> dict[str, Any]:
    """The result of a protocol that learns; `tables` has `train` and perhaps `val`."""
    from vlcli.evaluation.probes.tables import probe_tables

    with e.announcing(console) as announce, e.caching(cache, model, how["precision"], console) as kept:
        return probe_tables(model, protocol, test, **tables, cache=kept, announce=announce, **how)
