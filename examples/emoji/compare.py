"""Mean ± standard deviation over seeds of what compare.sh or r2d2.sh measured, as Markdown: python compare.py DIR"""

import json
import statistics
import sys
from collections import defaultdict
from pathlib import Path

SPLITS = ("val-artist", "val-artist-new-concept", "concept", "test-artist", "test-artist-new-concept")
# Each number of one evaluation: the column's head and where it stands in `vlcli retrieve --json`.
COLUMNS = {
    **{
        f"{arrow} R@{k}": (side, f"R@{k}")
        for side, arrow in (("i2t", "I→T"), ("t2i", "T→I"))
        for k in (1, 5, 10)
    },
    "MR": ("MR",),
    "mosaics": ("pointing", "accuracy"),
}


def number(found, path):
    for part in path:
        found = found.get(part) if isinstance(found, dict) else None
    return found


def cell(values):
    if not values or None in values:
        return "–"
    spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.1f}{spread}"


def main(directory):
    runs = defaultdict(list)  # (split, recipe) → the evaluations, one a seed
    for file in sorted(directory.glob("*-[0-9]*/*.json")):
        split, _, how = file.stem.partition(".")  # SPLIT.json, or SPLIT.reranked.json
        if split in SPLITS:
            recipe = file.parent.name.rpartition("-")[0] + f", {how}" * bool(how)
            runs[split, recipe].append(json.loads(file.read_text()))
    if not runs:
        sys.exit(f"compare.py: {directory}: no evaluations; compare.sh and r2d2.sh make them")
    for split in SPLITS:
        rows = {recipe: found for (where, recipe), found in runs.items() if where == split}
        if not rows:
            continue
        first = next(iter(rows.values()))
        columns = {
            head: path
            for head, path in COLUMNS.items()
            if any(number(f[0], path) is not None for f in rows.values())
        }
        print(
            f"\n**{split}**: {first[0]['images']:,} images, {first[0]['texts']:,} names, {len(first)} seeds,"
            f" percent, mean ± standard deviation\n"
        )
        print("| recipe | similarity |", " | ".join(columns), "|")
        print("|---" * (2 + len(columns)) + "|")
        for recipe, found in sorted(rows.items()):
            cells = [cell([number(one, path) for one in found]) for path in columns.values()]
            print(f"| {recipe} | {found[0]['similarity']} |", " | ".join(cells), "|")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "demo/compare"))
