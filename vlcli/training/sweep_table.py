"""What a sweep has found: mean and standard deviation over the seeds at every point of its grid."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlcli.errors import UsageError
from vlcli.training.sweep import Sweep
from vlcli.training.sweep_runs import NOTE, VALIDATION, read_note

# What is shown of a result, where it has it: dotted names, and how a column calls them.
USUAL = {
    "i2t.R@1": "I→T R@1",
    "t2i.R@1": "T→I R@1",
    "MR": "MR",
    "pointing.accuracy": "pointing",
    "top1": "top-1",
    "mean_per_class": "mean per class",
    "zeroshot.top1": "zero-shot top-1",
    "auc": "AUC",
    "average.MR": "MR, mean of languages",
    "average.top1": "top-1, mean of languages",
    "R@1": "R@1",
    "loss": "loss",
    "cider_char": "CIDEr-D, characters",
    "cider_jieba": "CIDEr-D, jieba",
}


@dataclass(frozen=True)
class Cell:
    """A number at one point: `values` by seed."""

    values: dict[int, float]

    @property
    def mean(self) -> float:
        return statistics.mean(self.values.values())

    @property
    def deviation(self) -> float | None:
        """Of the sample (n - 1); None of a single seed."""
        return statistics.stdev(self.values.values()) if len(self.values) > 1 else None

    def __str__(self) -> str:
        if not self.values:
            return "–"
        spread = "" if self.deviation is None else f" ± {self.deviation:.1f}"
        return f"{self.mean:.1f}{spread}"


@dataclass(frozen=True)
class Line:
    """A point of the grid: where it stands, which of its seeds are there, and its cells by (evaluation, number)."""

    at: dict[str, str]
    seeds: tuple[int, ...]
    cells: dict[tuple[str, str], Cell]


@dataclass(frozen=True)
class Table:
    """`columns` are (evaluation, dotted name of a number) in order."""

    axes: tuple[str, ...]
    seeds: tuple[int, ...]
    columns: list[tuple[str, str]]
    lines: list[Line]

    def header(self) -> list[str]:
        """Axes, then numbers; the evaluation is named where there are several."""
        several = len({evaluation for evaluation, _ in self.columns}) > 1
        shown = [
            f"{evaluation}: {USUAL.get(name, name)}" if several else USUAL.get(name, name)
            for evaluation, name in self.columns
        ]
        return [*(self.axes or ("run",)), *shown, "seeds"]

    def rows(self) -> list[list[str]]:
        """As text: mean ± standard deviation, and of how many seeds."""
        return [
            [
                *([line.at[axis] for axis in self.axes] or ["all"]),
                *(str(line.cells[column]) for column in self.columns),
                str(len(line.seeds)),
            ]
            for line in self.lines
        ]

    def markdown(self) -> str:
        """A table of GitHub's Markdown."""
        rows = [
            self.header(),
            ["---"] * (len(self.axes) or 1) + ["---:"] * (len(self.columns) + 1),
            *self.rows(),
        ]
        return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |\n" for row in rows)

    def as_json(self) -> dict[str, Any]:
        """Every value by seed, and what they come to."""
        return {
            "axes": list(self.axes),
            "seeds": list(self.seeds),
            "points": [
                {
                    "at": line.at,
                    "numbers": {
                        evaluation: {
                            name: {
                                "mean": round(cell.mean, 4),
                                "sd": None if cell.deviation is None else round(cell.deviation, 4),
                                "seeds": cell.values,
                            }
                            for (which, name), cell in line.cells.items()
                            if which == evaluation and cell.values
                        }
                        for evaluation in dict.fromkeys(which for which, _ in self.columns)
                    },
                }
                for line in self.lines
            ],
        }

    def values(self) -> list[list[Any]]:
        """A header, and a row for each value: its point, its seed, the evaluation, the number and its name."""
        rows: list[list[Any]] = [[*self.axes, "seed", "evaluation", "number", "value"]]
        for line in self.lines:
            for (evaluation, name), cell in line.cells.items():
                for seed, value in cell.values.items():
                    rows.append([*(line.at[axis] for axis in self.axes), seed, evaluation, name, value])
        return rows


def tabulate(sweep: Sweep, folder: Path) -> Table:
    """From the notes that the runs have left, of those that are there. Raises UsageError for numbers none of them
    has."""
    evaluations = [one.name for one in sweep.evaluations] or [VALIDATION]
    found: dict[tuple[tuple[str, str], ...], dict[int, dict[str, Any]]] = {}
    for run in sweep.runs():
        point = found.setdefault(tuple(run.at.items()), {})
        file = folder / run.name / NOTE
        if file.is_file():
            results = read_note(file)["results"]
            if all(name in results for name in evaluations):
                point[run.seed] = {name: results[name].get("result", {}) for name in evaluations}
    every = [results for point in found.values() for results in point.values()]
    columns = [
        (evaluation, name)
        for evaluation in evaluations
        for name in (sweep.numbers or USUAL)
        if any(number(results[evaluation], name) is not None for results in every)
    ]
    missing = [name for name in sweep.numbers if every and all(name != column for _, column in columns)]
    if missing:
        raise UsageError(f"--number {missing[0]}: no result has it")
    lines = []
    for at, point in found.items():
        cells = {
            (evaluation, name): Cell(
                {
                    seed: value
                    for seed, results in point.items()
                    if (value := number(results[evaluation], name)) is not None
                }
            )
            for evaluation, name in columns
        }
        lines.append(Line(dict(at), tuple(point), cells))
    return Table(tuple(axis.name for axis in sweep.axes), sweep.seeds, columns, lines)


def number(result: Any, name: str) -> float | None:
    """The number of a dotted name in a result, None where it has none."""
    for part in name.split("."):
        result = result.get(part) if isinstance(result, Mapping) else None
    return float(result) if isinstance(result, (int, float)) and not isinstance(result, bool) else None


def numeric(values: Sequence[str]) -> list[float] | None:
    """The values of an axis as numbers, where all are."""
    try:
        return [float(value) for value in values]
    except ValueError:
        return None
