"""The statistics of a corpus as tables for people, in the papers' layout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple


class Table(NamedTuple):
    title: str
    header: list[str]
    rows: list[list[str]]


def tables(report: Mapping[str, Any]) -> list[Table]:
    """Wukong's Table 2 first; then fields, sizes and words, each where there is something to show."""
    found = [_corpus(report)]
    if report["fields"]:
        found.append(_fields(report))
    if report["sizes"]["rows"]:
        found += [_bins(report, "shorter_side", "shorter side, px"), _bins(report, "aspect", "aspect ratio")]
    if report["words"] and report["words"]["top"]:
        found.append(_words(report["words"]))
    return found


def _corpus(report: Mapping[str, Any]) -> Table:
    counts = [report[name] for name in ("pairs", "images", "captions", "unique_tokens")]
    row = [*(f"{count:,}" for count in counts), *_spread(report["tokens_per_caption"])]
    header = ["image-text pairs", "images", "captions", "unique tokens", "mean", "std", "median"]
    return Table(f"tokens per caption: {report['word_unit']}", header, [row])


def _fields(report: Mapping[str, Any]) -> Table:
    header = ["field", "rows", "texts", "tokens", "characters"]
    rows = [
        [
            name,
            f"{field['rows']:,}",
            f"{field['texts']:,}",
            " / ".join(_spread(field["tokens"])),
            " / ".join(_spread(field["characters"])),
        ]
        for name, field in report["fields"].items()
    ]
    return Table("lengths: mean / std / median", header, rows)


def _bins(report: Mapping[str, Any], name: str, shown: str) -> Table:
    sizes = report["sizes"]
    rows = [
        [_range(line), f"{line['count']:,}", f"{100 * line['count'] / sizes['rows']:.1f} %"]
        for line in sizes[f"{name}_histogram"]
        if line["count"]
    ]
    title = f"{sizes['rows']:,} pairs with a size, {sizes['unknown']:,} without"
    return Table(title, [shown, "pairs", "share"], rows)


def _range(line: Mapping[str, Any]) -> str:
    return f"≥ {line['from']:g}" if line["below"] is None else f"{line['from']:g} – < {line['below']:g}"


def _words(words: Mapping[str, Any]) -> Table:
    total = words["total"]
    rows = [
        [line["word"], f"{line['count']:,}", f"{100 * line['count'] / total:.2f} %"] for line in words["top"]
    ]
    header = [f"word ({words['distinct']:,} different)", f"count ({total:,} in all)", "share"]
    return Table("words", header, rows)


def _spread(spread: Mapping[str, Any]) -> Sequence[str]:
    if spread["mean"] is None:
        return ["–"] * 3
    return [f"{spread['mean']:.1f}", f"{spread['std']:.1f}", f"{spread['median']:g}"]
