"""Collect the demo's results into DIR/table.json and print them: python examples/emoji/table.py DIR"""

import json
import sys
from pathlib import Path


def bounds(interval):
    return f"{interval[0]:.1f}-{interval[1]:.1f}" if interval else ""


def rows(results):
    """(task, what, value, 95 % interval) of every result file that is there."""
    files = {name: json.loads((results / f"{name}.json").read_text()) for name in ("retrieve", "zeroshot", "mosaics")
             if (results / f"{name}.json").exists()}  # fmt: skip
    if found := files.get("retrieve"):
        for side, name in (("i2t", "image to text"), ("t2i", "text to image")):
            for recall, value in found[side].items():
                gallery = f"{found['images']} images, {found['texts']} names"
                yield f"retrieve, {name}", f"{recall} ({gallery})", value, found["ci95"][side][recall]
    if found := files.get("zeroshot"):
        yield (
            "zeroshot",
            f"top-1 of {found['classes']} groups, {found['prompts']}",
            found["top1"],
            found["ci95"]["top1"],
        )
    if found := (files.get("mosaics") or {}).get("pointing"):
        yield (
            "mosaics",
            f"right cell of four, {found['n']} mosaics",
            found["accuracy"],
            found["ci95"],
        )


def main(directory):
    table = [
        {"task": task, "measure": measure, "value": round(value, 1), "ci95": interval}
        for task, measure, value, interval in rows(directory / "results")
    ]
    source = json.loads((directory / "results" / "retrieve.json").read_text())
    facts = {key: source[key] for key in ("checkpoint", "similarity")}
    (directory / "table.json").write_text(
        json.dumps({**facts, "split": "val-artist", "rows": table}, ensure_ascii=False, indent=2) + "\n"
    )
    print(f"\nsplit val-artist, {facts['similarity']} similarity, checkpoint {facts['checkpoint']}\n")
    print(f"{'task':28}{'measure':48}{'%':>6}  95 % interval")
    for row in table:
        print(f"{row['task']:28}{row['measure']:48}{row['value']:6.1f}  {bounds(row['ci95'])}")
    print()
    for path in [directory / "table.json", *sorted((directory / "figures").glob("*.png"))]:
        print(path)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "demo"))
