"""What `retrieve --dataset cxc` prints."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vlcli.commands import _dataset as sets
from vlcli.commands import _evaluation as e

if TYPE_CHECKING:
    from vlcli.commands._console import Console
    from vlcli.datasets.table import Reading

SIDES = {"i2t": "I→T", "t2i": "T→I", "t2t": "T→T", "i2i": "I→I"}


def run(model: Any, reading: Reading, prompts: str, console: Console, *, as_json: bool, **how: Any) -> None:
    """Recalls of four directions and three correlations; `how` goes to `evaluate`."""
    from vlcli.commands._console import show_table
    from vlcli.datasets.cxc import load_cxc
    from vlcli.evaluation.cxc import evaluate
    from vlcli.text.prompts import load_prompts

    template = load_prompts(prompts)
    ratings, table = load_cxc(reading)
    sets.warn(reading, console)
    with e.announcing(console) as announce:
        result = evaluate(model, table, ratings, template, announce=announce, **how)
    if as_json:
        e.print_json(result)
        return
    rows = [
        [name, *(e.cell(result[side][name], result["ci95"].get(side, {}).get(name)) for side in SIDES)]
        for name in result["i2t"]
    ]
    rows.append(["queries", *(f"{result['queries'][side]:,}" for side in SIDES)])
    show_table(e.title(result), ["", *SIDES.values()], rows)
    found = result["correlation"]
    kinds = [kind for kind in found if kind != "mean"]
    cells = [f"{found[kind]['mean']:.1f} ± {found[kind]['sd']:.1f}" for kind in kinds]
    show_table(
        "Spearman's correlation with people's ratings × 100",
        ["", *kinds, "mean"],
        [["", *cells, f"{found['mean']:.1f}"]],
    )
