"""Lines of results as the papers' tables.

Naming classes: a row a model, a column a data set, and their mean. Retrieval: a table a data set, a row a model,
I→T and T→I R@1, 5, 10 and their mean; and the mean recalls of all data sets side by side. Several languages: a row a
model, a column a language, and the average. Matching: AUC by data set. Generated captions and pictures: a table a data
set.

Results of one recipe that differ in nothing but the seed are one row, mean ± standard deviation. A row says with what
else a number was measured: checkpoint, similarity, prompts, and what was asked for beside these.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from vlcli.evaluation.report.generated import LOWER, Line, caption_metrics, judged_by, picture_metrics

ARROWS = {"i2t": "I→T", "t2i": "T→I", "t2t": "T→T", "i2i": "I→I"}  # CxC has all four
RECALLS = [f"{side}.R@{k}" for side in ARROWS for k in (1, 5, 10)]
ACCURACIES = {"top1": "top-1", "top5": "top-5", "mean_per_class": "mean per class"}
# what some sets go by
ACCURACIES |= {"mean_top1_top5": "mean(top-1, top-5)", "map11": "11-point mAP", "auc": "AUC"}
PROTOCOLS = {
    None: "Zero-shot",
    "knn": "Nearest neighbours",
    "linear-probe": "Linear probe",
    "ridge": "Ridge probe",
    "few-shot": "Few-shot probe",
}
PARTS = {"text": "text score", "image": "image score", "group": "group score", "macro": "mean of categories"}
WITH = ("checkpoint", "similarity", "prompts")
MEAN = "mean"


@dataclass(frozen=True)
class Number:
    """One value with its 95 % interval or a deviation that was measured with it, or several seeds' values."""

    values: tuple[float, ...]
    bounds: tuple[float, float] | None = None
    spread: float | None = None

    @property
    def mean(self) -> float:
        return sum(self.values) / len(self.values)

    @property
    def deviation(self) -> float | None:
        """Of a sample; of a single value what it came with."""
        if len(self.values) < 2:
            return self.spread
        return math.sqrt(sum((value - self.mean) ** 2 for value in self.values) / (len(self.values) - 1))

    def __str__(self) -> str:
        if self.deviation is not None:
            return f"{self.mean:.1f} ± {self.deviation:.1f}"
        return f"{self.mean:.1f}" + (f" [{self.bounds[0]:.1f}, {self.bounds[1]:.1f}]" if self.bounds else "")


@dataclass(frozen=True)
class Row:
    """A model, with what its numbers were measured, and a number, or none, for each column."""

    model: str
    said: tuple[str, ...]  # as WITH
    numbers: list[Number | None]


@dataclass(frozen=True)
class Table:
    title: str
    columns: list[str]
    rows: list[Row] = field(default_factory=list)
    note: str = ""
    lower: frozenset[int] = frozenset()  # columns in which less is better

    @cached_property
    def best(self) -> list[float | None]:
        """The best value of each column, as it is shown; None where there are not two to choose from."""
        found: list[float | None] = []
        for column in range(len(self.columns)):
            values = [round(number.mean, 1) for row in self.rows if (number := row.numbers[column])]
            first = min if column in self.lower else max
            found.append(first(values) if len(values) > 1 else None)
        return found

    def is_best(self, row: Row, column: int) -> bool:
        number = row.numbers[column]
        return number is not None and round(number.mean, 1) == self.best[column]


def tables(lines: Sequence[Line]) -> list[Table]:
    """Of what lines there are, in the papers' order."""
    named = Names(lines)
    parts = [line for line in lines if line["lang"] != "average"]
    classes = [
        line
        for line in parts
        if line["command"] == "zeroshot" and "task" not in line and ACCURACIES.keys() & line.keys()
    ]
    retrieval = [line for line in parts if line["command"] == "retrieve"]
    matching = [line for line in parts if line.get("task") == "matching" and line.get("auc") is not None]
    found = [
        _by_data(f"{title} {shown}, %", own, named, key, mean=True)
        for protocol, title in PROTOCOLS.items()
        for key, shown in ACCURACIES.items()
        if (own := [line for line in classes if line.get("protocol") == protocol and key in line])
    ]
    found += _retrieval(retrieval, named)
    if matching:
        found.append(_by_data("Matching, AUC × 100", matching, named, "auc", mean=False))
    found += _asked_of_words(parts, named)
    found += _generated(parts, named)
    return found + _languages(lines, named)


class Names:
    """What models and data sets are called: as short as tells them apart."""

    def __init__(self, lines: Sequence[Line]) -> None:
        self.lines = {line["key"]: line for line in lines}
        self._short = Counter(name for name, _ in {(_run(line), line["checkpoint"]) for line in lines})
        sets = {(_data(line), line["lang"], line["split_hash"]) for line in lines}
        self._data = Counter(
            (name, lang) for name, lang, _ in sets
        )  # a language's texts have a hash of their own

    def model(self, line: Line) -> str:
        name = _run(line)
        return name if self._short[name] == 1 else f"{name} {line['checkpoint'][:8]}"

    def data(self, line: Line) -> str:
        """The data set, its split and the language of its texts; of classes their names' set and number."""
        parts = [self.set_of(line), line["lang"]]
        if "labels" in line:
            parts += [line["labels"], f"{line['classes']} classes"]
        return " · ".join(parts)

    def set_of(self, line: Line) -> str:
        """The data set and its split."""
        name = _data(line)
        return name if self._data[name, line["lang"]] == 1 else f"{name} {line['split_hash'][:6]}"


def _run(line: Line) -> str:
    """runs/lit-filip and runs/lit-filip/best are lit-filip; runs/lit-filip/checkpoints/step-00001000 has its step."""
    parts = [part for part in Path(line["run"]).parts if part not in ("best", "last", "checkpoints", "/")]
    step = parts.pop() if len(parts) > 1 and parts[-1].startswith("step-") else ""
    return " ".join([parts[-1] if parts else line["run"], *([step] if step else [])])


def _data(line: Line) -> str:
    name = "+".join(Path(part).name.split(".")[0] or part for part in str(line["data"] or "").split())
    split = str(line["split"] or "")
    return name if split.startswith("sha256:") or split in name else f"{name} {split}"


def said_of(line: Line) -> tuple[str, ...]:
    """The columns WITH of a line; the prompts with what else was asked for, and without the language, which tells
    columns apart and not rows."""
    prompts = line.get("prompts") or judged_by(line) or "none"
    if (lang := line.get("lang")) and prompts.endswith(f".{lang}"):
        prompts = prompts.removesuffix(lang) + "{lang}"
    settings = line["settings"]
    if line.get("protocol") or line.get("task") == "simlex":
        prompts = f"features {'before' if line['features'] == 'pre' else 'behind'} the projection"
    if settings.get("ensemble") == "probability":
        prompts += ", mean of probabilities"
    if rerank := line.get("rerank"):
        prompts += f", the best {rerank['k']} ranked anew"
        prompts += "" if rerank["score"] == "match" else f" ({rerank['score'].replace('+', ' + ')})"
    if settings.get("precision", "fp32") != "fp32":
        prompts += f", {settings['precision']}"
    return line["checkpoint"], line["similarity"], prompts


def number(line: Line, path: str) -> Number | None:
    """The number at `top1`, `MR` or `i2t.R@1`, with its interval."""
    value, bounds = at(line, path), at(line.get("ci95"), path)
    return None if value is None else Number((value,), tuple(bounds) if bounds else None)


def at(value: Any, path: str) -> Any:
    """`value[a][b]` of the path `a.b`; None where there is none."""
    for part in path.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _settings(line: Line) -> str:
    """All that two lines of one recipe must share to be repetitions of each other."""
    kept = {name: value for name, value in line["settings"].items() if name != "checkpoint"}
    return repr(sorted(kept.items()))


def _rows(
    lines: Iterable[Line], named: Names, cells: Callable[[list[Line]], list[Number | None]]
) -> list[Row]:
    """A row for each model and way of measuring; those of several seeds of a recipe are one."""
    alone: dict[tuple[str, ...], list[Line]] = {}
    for line in lines:
        alone.setdefault((named.model(line), *said_of(line)), []).append(line)
    groups: dict[Any, list[tuple[str, ...]]] = {}
    for key, own in alone.items():
        recipe = own[0].get("recipe")
        measured = frozenset(map(_settings, own))
        groups.setdefault((recipe["same"], measured) if recipe else key, []).append(key)
    found = []
    for members in groups.values():
        firsts = [alone[key][0] for key in members]
        seeds = [line["recipe"]["seed"] for line in firsts] if len(members) > 1 else []
        if seeds and len(set(seeds)) == len(seeds):
            label = f"{firsts[0]['recipe']['name']}, {len(seeds)} seeds"
            many = [cells(alone[key]) for key in members]
            said = (" ".join(key[1] for key in members), *members[0][2:])
            found.append(Row(label, said, [_over_seeds(column) for column in zip(*many, strict=True)]))
        else:
            found += [Row(key[0], key[1:], cells(alone[key])) for key in members]
    return found


def _over_seeds(numbers: Sequence[Number | None]) -> Number | None:
    values = [value for one in numbers if one is not None for value in one.values]
    return Number(tuple(values)) if values else None


def _by_data(title: str, lines: list[Line], named: Names, path: str, *, mean: bool) -> Table:
    """A column for each data set; the mean of those rows that have all of them."""
    columns = list(dict.fromkeys(map(named.data, lines)))

    def cells(own: list[Line]) -> list[Number | None]:
        of = {named.data(line): number(line, path) for line in own}
        found = [of.get(column) for column in columns]
        if mean and len(columns) > 1:
            values = [one.mean for one in found if one is not None]
            found.append(Number((sum(values) / len(values),)) if len(values) == len(columns) else None)
        return found

    counts = {named.data(line): line.get("n") or line.get("images") for line in lines}
    note = "; ".join(f"{column}: {count:,} images" for column, count in counts.items() if count)
    header = [*columns, *([MEAN] if mean and len(columns) > 1 else [])]
    return Table(title, header, _rows(lines, named, cells), note)


def _retrieval(lines: list[Line], named: Names) -> list[Table]:
    found = []
    by_data: dict[str, list[Line]] = {}
    for line in lines:
        by_data.setdefault(named.data(line), []).append(line)
    for data, own in by_data.items():
        paths = [path for path in (*RECALLS, "MR") if any(at(line, path) is not None for line in own)]
        shown = [" ".join(ARROWS.get(part, part) for part in path.split(".")) for path in paths]
        rows = _rows(own, named, lambda of, paths=paths: [number(of[-1], path) for path in paths])  # type: ignore[misc]
        title = f"Retrieval, {data}: {own[0]['images']:,} images, {own[0]['texts']:,} texts, %"
        found.append(Table(title, shown, rows))
    if len(by_data) > 1:
        found.append(_by_data("Retrieval, mean recall, %", lines, named, "MR", mean=True))
    return found


def _generated(lines: list[Line], named: Names) -> list[Table]:
    """A table for the captions of each data set, and one for the pictures."""
    captions = "Captions, {data}: {images:,} images, {references:,} references, ×100"
    return [
        *_of_each_set(captions, lines, named, caption_metrics),
        *_of_each_set("Generated pictures, {data}", lines, named, picture_metrics, _score),
    ]


def _asked_of_words(lines: list[Line], named: Names) -> list[Table]:
    """How cosines go with what people say, of CxC's pairs and SimLex' words; captions of nearly the same words."""

    return [
        *_of_each_set("Correlation with ratings, {data}, × 100", lines, named, correlations, asked),
        *_of_each_set("Correlation with ratings of words, {data}, × 100", lines, named, of_words, asked),
        *_of_each_set("Captions of nearly the same words, {data}, %", lines, named, of_captions),
    ]


def _of_each_set(
    title: str,
    lines: list[Line],
    named: Names,
    columns: Callable[[Line], Mapping[str, str]],
    cell: Callable[[Line, str], Number | None] = number,
) -> list[Table]:
    """A table for each data set of those lines that have `columns`, names of numbers and what stands above them."""
    by_data: dict[str, list[Line]] = {}
    for line in lines:
        if columns(line):
            by_data.setdefault(named.data(line), []).append(line)
    found = []
    for data, own in by_data.items():
        shown = {name: heading for line in own for name, heading in columns(line).items()}
        rows = _rows(own, named, lambda of, names=tuple(shown): [cell(of[-1], name) for name in names])  # type: ignore[misc]
        lower = frozenset(k for k, name in enumerate(shown) if name in LOWER)
        counts = {name: own[0].get(name, 0) for name in ("images", "references")}
        found.append(Table(title.format(data=data, **counts), list(shown.values()), rows, lower=lower))
    return found


def correlations(line: Line) -> dict[str, str]:
    """Those of CxC, and what each is called."""
    return {f"correlation.{name}": name for name in line.get("correlation", {})}


def of_words(line: Line) -> dict[str, str]:
    """SimLex' subsets."""
    return {f"spearman.{name}": name for name in line.get("spearman", {})}


def of_captions(line: Line) -> dict[str, str]:
    """The scores of a set of captions that are nearly the same."""
    return {
        name: shown for name, shown in PARTS.items() if name in line and line.get("task") == "compositional"
    }


def asked(line: Line, path: str) -> Number | None:
    """A correlation: of CxC with its deviation over samples of queries, of words with an interval that stands under the
    subset's bare name."""
    value, bounds = at(line, path), at(line.get("ci95"), path.partition(".")[2])
    if isinstance(value, Mapping):
        return Number((value["mean"],), spread=value["sd"])
    return None if value is None else Number((value,), tuple(bounds) if bounds else None)


def _score(line: Line, name: str) -> Number | None:
    """A number of `score`; KID ×1000, with its deviation over subsets."""
    if name != "kid" or line.get("kid") is None:
        return number(line, name)
    return Number((line["kid"] * 1000,), spread=line["kid_sd"] * 1000)


def _languages(lines: Sequence[Line], named: Names) -> list[Table]:
    """Of the averages, with the languages that each was taken over."""
    by_what: dict[tuple[str, tuple[str, ...], str], list[Line]] = {}
    for line in lines:
        of = line["settings"].get("average")
        if line["lang"] == "average" and all(key in named.lines for key in of.values()):
            data = " ".join(dict.fromkeys(_data(named.lines[key]) for key in of.values()))
            by_what.setdefault((line["command"], tuple(of), data), []).append(line)
    found = []
    for (command, langs, data), own in by_what.items():
        path, what = ("MR", "mean recall") if command == "retrieve" else ("top1", "zero-shot top-1")
        rows = []
        for line in own:
            parts = [named.lines[key] for key in line["settings"]["average"].values()]
            cells = [*(number(part, path) for part in parts), number(line["average"], path)]
            prompts = " ".join(dict.fromkeys(said_of(part)[2] for part in parts))
            rows.append(Row(named.model(line), (line["checkpoint"], line["similarity"], prompts), cells))
        found.append(Table(f"Languages, {what}, {data}, %", [*langs, "average"], rows))
    return found
