"""Tables as Markdown, and results as CSV with a line for every number."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from typing import Any

from vlcli.evaluation.report.generated import Line, caption_metrics, picture_metrics
from vlcli.evaluation.report.table import WITH, Table
from vlcli.evaluation.report.tables import (
    ACCURACIES,
    RECALLS,
    asked,
    at,
    correlations,
    of_captions,
    of_words,
)

COLUMNS = (
    "command",
    "run",
    "checkpoint",
    "recipe",
    "seed",
    "data",
    "split",
    "split_hash",
    "lang",
    "labels",
    "prompts",
    "similarity",
    "n",
    "metric",
    "value",
    "low",
    "high",
    "key",
)
METRICS = (*ACCURACIES, *RECALLS, "MR", "pointing.accuracy")


def markdown(tables: Sequence[Table]) -> str:
    """A heading and a pipe table each; the best of every column is bold."""
    parts = []
    for table in tables:
        rows = [["model", *WITH, *table.columns]]
        for row in table.rows:
            cells = ["–" if one is None else str(one) for one in row.numbers]
            bold = [f"**{cell}**" if table.is_best(row, k) else cell for k, cell in enumerate(cells)]
            rows.append([row.model, *row.said, *bold])
        names = 1 + len(WITH)
        marks = ["---"] * names + ["---:"] * len(table.columns)
        lines = [_line(rows[0]), _line(marks), *(_line(row) for row in rows[1:])]
        note = f"\n{table.note}\n" if table.note else ""
        parts.append(f"## {table.title}\n\n" + "".join(lines) + note)
    return "\n".join(parts)


def _line(cells: Sequence[str]) -> str:
    return (
        "| "
        + " | ".join(cell.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ") for cell in cells)
        + " |\n"
    )


def as_csv(lines: Sequence[Line]) -> str:
    """COLUMNS, a line for every number of every result."""
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for line in lines:
        writer.writerows(_numbers(line))
    return out.getvalue()


def _numbers(line: Line) -> Iterator[dict[str, Any]]:
    recipe = line.get("recipe") or {}
    head = {name: line.get(name) for name in COLUMNS}
    head |= {"recipe": recipe.get("name"), "seed": recipe.get("seed")}
    head["n"] = line.get("n", line.get("images"))
    of = line.get("average", line)
    for metric in (*correlations(line), *of_words(line)):
        if (found := asked(line, metric)) is not None:
            low, high = found.bounds or (None, None)
            yield {**head, "metric": metric, "value": found.mean, "low": low, "high": high}
    for metric in (*METRICS, *of_captions(line), *caption_metrics(line), *picture_metrics(line)):
        value = at(of, metric)
        bounds = at(of.get("ci95"), metric)
        if metric == "pointing.accuracy":
            bounds = at(of, "pointing.ci95")
        if value is not None:
            low, high = bounds or (None, None)
            yield {**head, "metric": metric, "value": value, "low": low, "high": high}
