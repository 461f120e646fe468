"""`zeroshot --protocol`: what is learnt from labelled rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from vlcli.commands import _evaluation as e

if TYPE_CHECKING:
    from vlcli.commands._console import Console
    from vlcli.commands._results import Lines


def learn(
    model: Any,
    protocol: Any,
    test: Any,
    tables: dict[str, Any],
    settings: Callable[..., dict[str, Any]],
    how: dict[str, Any],
    lines: Lines,
    *,
    cache: str,
    console: Console,
) -> dict[str, Any]:
    """The result of a protocol that learns; `tables` has `train` and perhaps `val`."""
    from vlcli.evaluation.probes.tables import probe_tables

    def compute() -> dict[str, Any]:
        with e.announcing(console) as announce, e.caching(cache, model, how["precision"], console) as kept:
            return probe_tables(model, protocol, test, **tables, cache=kept, announce=announce, **how)

    return lines.once(settings(model, **_depends(protocol, tables, how, lines)), compute)


def _depends(protocol: str, tables: dict[str, Any], how: dict[str, Any], lines: Lines) -> dict[str, Any]:
    """All that a protocol's numbers depend on beside the model and the data (see `settings_of`)."""
    from vlcli.evaluation.results_file import values_of

    used = {"knn": ("k",), "few-shot": ("shots", "l2")}.get(protocol, ("l2",))
    rows = {
        name: [table.split_hash, values_of(table, how["column"]), lines.pictures(table)]
        for name, table in tables.items()
        if table is not None
    }
    same = {name: how[name] for name in ("column", "labels", "lang", "features", "metric", *used)}
    return {**same, "protocol": protocol, **rows}
