"""Lines of results as the papers' tables.

Naming classes: a row a model, a column a data set, and their mean; of a single set a column a number. Retrieval: a
table a data set, a row a model, I→T and T→I R@1, 5, 10 and their mean; and the mean recalls of all data sets side by
side. Several languages: a row a model, a column a language, and the average. Matching: AUC by data set. Generated
captions and pictures: a table a data set.

Results of one recipe that differ in nothing but the seed are one row, mean ± standard deviation. A row says with what
else a number was measured: checkpoint, similarity, prompts, and what was asked for beside these.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from vlcli.evaluation.report.generated import LOWER, Line, caption_metrics, picture_metrics
from vlcli.evaluation.report.names import Names, data_of, protocol_of, said_of
from vlcli.evaluation.report.table import Number, Row, Table

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
    "classifier": "Classifier",
}
PARTS = {"text": "text score", "image": "image score", "group": "group score", "macro": "mean of categories"}
MEAN = "mean"


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
    found = []
    for protocol, title in PROTOCOLS.items():
        found += _classes(title, [line for line in classes if protocol_of(line) == protocol], named)
    found += _retrieval(retrieval, named)
    if matching:
        found.append(_by_data("Matching, AUC × 100", matching, named, "auc", mean=False))
    found += _asked_of_words(parts, named)
    found += _generated(parts, named)
    return found + _languages(lines, named)


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
        alone.setdefault(_key(line, named, alone), []).append(line)
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


def _key(line: Line, named: Names, rows: Mapping[tuple[str, ...], list[Line]]) -> tuple[str, ...]:
    """The model and all that a row says of it. Of two numbers of one data set in one row, the second has a row of its
    own, with the settings in which it differs."""
    key = (named.model(line), *said_of(line))
    there = [one for one in rows.get(key, ()) if named.data(one) == named.data(line)]
    if not there:
        return key
    ours, theirs = line["settings"], there[0]["settings"]
    other = [name for name in {**ours, **theirs} if ours.get(name) != theirs.get(name)]
    said = ", ".join(f"{name.replace('_', ' ')} {_brief(ours.get(name))}" for name in other)
    return (*key[:-1], f"{key[-1]}, with another {said}")


def _brief(value: Any) -> str:
    """A setting in few words: of hashes and lists of them the beginning."""
    if isinstance(value, list):
        return "/".join(_brief(one) for one in value if one is not None)
    return str(value)[:6]


def _over_seeds(numbers: Sequence[Number | None]) -> Number | None:
    values = [value for one in numbers if one is not None for value in one.values]
    return Number(tuple(values)) if values else None


def _classes(title: str, lines: list[Line], named: Names) -> list[Table]:
    """A table for each number, a column for each data set; of a single one a table with a column for each number."""
    shown = {key: what for key, what in ACCURACIES.items() if any(key in line for line in lines)}
    if len(set(map(named.data, lines))) != 1:
        return [
            _by_data(f"{title} {what}, %", [line for line in lines if key in line], named, key, mean=True)
            for key, what in shown.items()
        ]
    title = f"{title}, {named.data(lines[0])}: {lines[0]['n']:,} images, %"
    rows = _rows(lines, named, lambda of: [number(of[-1], key) for key in shown])
    return [Table(title, list(shown.values()), rows)]


def _by_data(title: str, lines: list[Line], named: Names, path: str, *, mean: bool) -> Table:
    """A column for each data set, called by as much as tells it from the others; the mean of those rows that have all
    of them."""
    sets = {named.data(line): line for line in lines}
    columns = list(sets)

    def cells(own: list[Line]) -> list[Number | None]:
        of = {named.data(line): number(line, path) for line in own}
        found = [of.get(column) for column in columns]
        if mean and len(columns) > 1:
            values = [one.mean for one in found if one is not None]
            found.append(Number((sum(values) / len(values),)) if len(values) == len(columns) else None)
        return found

    short = _short([named.parts(line) for line in sets.values()])
    counts = [f"{line.get('n') or line.get('images'):,} images" for line in sets.values()]
    rest = [data.removeprefix(name).removeprefix(" · ") for name, data in zip(short, sets, strict=True)]
    said = [", ".join(part for part in parts if part) for parts in zip(rest, counts, strict=True)]
    note = (
        f"Each of {said[0]}."
        if len(set(said)) == 1 < len(said)
        else "; ".join(f"{name}: {what}" for name, what in zip(short, said, strict=True))
    )
    header = [*short, *([MEAN] if mean and len(columns) > 1 else [])]
    return Table(title, header, _rows(lines, named, cells), note)


def _short(sets: Sequence[tuple[str, ...]]) -> list[str]:
    """The first parts of each that tell all of them apart."""
    for length in range(1, len(sets[0]) + 1):
        found = [" · ".join(part for part in parts[:length] if part) for parts in sets]
        if len(set(found)) == len(sets):
            break
    return found


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
        return None if value["mean"] is None else Number((value["mean"],), spread=value["sd"])
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
            data = " ".join(dict.fromkeys(data_of(named.lines[key]) for key in of.values()))
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
