"""Mean ± standard deviation over seeds of what compare.sh measured: python examples/emoji/compare.py DIR"""

import json
import statistics
import sys
from collections import defaultdict
from pathlib import Path

SPLITS = ("val-artist", "val-artist-new-concept", "concept", "test-artist", "test-artist-new-concept")


def main(directory):
    values = defaultdict(lambda: defaultdict(list))
    sizes = {}
    for file in sorted(directory.glob("*-[0-9]*/*.json")):
        if file.stem not in SPLITS:
            continue
        recipe = file.parent.name.rpartition("-")[0]
        found = json.loads(file.read_text())
        sizes[file.stem] = f"{found['images']:,} images, {found['texts']:,} names"
        measures = values[file.stem, recipe]
        for side, name in (("i2t", "image→text"), ("t2i", "text→image")):
            for recall, value in found[side].items():
                measures[f"{name} {recall}"].append(value)
        if "pointing" in found:
            measures["mosaics"].append(found["pointing"]["accuracy"])
    for split in sorted(sizes, key=SPLITS.index):
        print(f"\n{split}: {sizes[split]}")
        for (where, recipe), measures in sorted(values.items()):
            if where != split:
                continue
            seeds = len(next(iter(measures.values())))
            print(f"  {recipe} ({seeds} seeds)")
            for name, numbers in measures.items():
                spread = f" ± {statistics.stdev(numbers):.1f}" if len(numbers) > 1 else ""
                print(f"    {name:18}{statistics.mean(numbers):5.1f}{spread}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "demo/compare"))
