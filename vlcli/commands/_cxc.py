"""What `retrieve --dataset cxc` prints."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vlcli.commands import _dataset as sets
from vlcli.commands import _evaluation as e

if TYPE_CHECKING:
    from vlcli.commands._console import Console
    from vlcli.commands._results import Lines
    from vlcli.datasets.table import Reading

SIDES = {"i2t": "I→T", "t2i": "T→I", "t2t": "T→T", "i2i": "I→I"}


def run(
    model: Any,
    reading: Reading,
    prompts: str,
    console: Console,
    lines: Lines,
    *,
    as_json: bool,
    cache: str,
    precision: str,
    batch_size: int,
    **how: Any,
) -> None:
    """Recalls of four directions and three correlations; `how` goes to `evaluate`."""
    from vlcli.commands._console import show_table
    from vlcli.datasets.cxc import load_cxc
    from vlcli.evaluation.cxc import evaluate
    from vlcli.evaluation.results_file import digest, settings_of
    from vlcli.text.prompts import load_prompts

    template = load_prompts(prompts)
    ratings, table = load_cxc(reading)
    sets.warn(reading, console)
    settings = settings_of(
        model,
        table,
        command="retrieve",
        prompts=template,
        pictures=lines.pictures(table),
        ratings=digest(ratings),
        precision=precision,
        **how,
    )
    with e.announcing(console) as announce, e.caching(cache, model, precision, console) as kept:
        encoding: Any = {"batch_size": batch_size, "precision": precision, "cache": kept}

        def compute() -> dict[str, Any]:
            return evaluate(model, table, ratings, template, announce=announce, **encoding, **how)

        result = lines.once(settings, compute)
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
