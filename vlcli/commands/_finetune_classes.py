"""`finetune` on classes of images: what `--task linear-probe` does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlcli.errors import UsageError

if TYPE_CHECKING:
    from vlcli.commands._console import Console

TRIALS = "trials.jsonl"


def refuse(options: Mapping[str, Any], task: str) -> None:
    """UsageError for options that would do nothing; those that were not given are None, False or empty."""
    for name, value in options.items():
        if value:
            raise UsageError(f"--task {task} has no {name}")


@dataclass(frozen=True)
class Rows:
    """What --data, --val and --test name, and how they are read."""

    data: list[str] | None
    val: list[str] | None
    test: list[str] | None
    column: str
    head: int | None
    renames: Any
    image_root: Path | None

    def tables(self) -> dict[str, Any]:
        """`train`, and `val` and `test` where they are named; no two of them the same."""
        from vlcli.evaluation.probes.tables import refuse_same
        from vlcli.shards.pairs import load_pairs

        if not self.data:
            raise UsageError("nothing to learn from", remedy="name labelled rows with --data")
        options: dict[str, Any] = {"renames": self.renames, "columns": (self.column,)}
        options |= {"image_root": self.image_root, "need_text": False, "optional": ["split"]}
        found = {"train": load_pairs(self.data, head=self.head, **options)}
        found |= {name: load_pairs(files, **options) for name, files in self._others() if files}
        refuse_same(found)
        return found

    def _others(self) -> list[tuple[str, list[str] | None]]:
        return [("val", self.val), ("test", self.test)]


def linear_probe(
    checkpoint: str,
    rows: Rows,
    out: Path,
    console: Console,
    *,
    l2: float | None,
    device: str,
    precision: str,
    force: bool,
    dry_run: bool,
) -> None:
    """Write a classifier into the directory `out`, with every penalty that was tried; tables go to stdout."""
    from vlcli.commands import _evaluation as e
    from vlcli.evaluation.probes.classifier import probed
    from vlcli.records.atomic import atomic_directory, refuse_existing

    if not force and not dry_run:
        refuse_existing(out)
    if rows.val is None and l2 is None:
        raise UsageError("nothing chooses the penalty", remedy="name rows with --val, or give it with --l2")
    tables = rows.tables()
    if dry_run:
        rows_of = ", ".join(f"{len(table)} {name}" for name, table in tables.items())
        print(f"# a linear probe on {checkpoint}: {rows_of} rows; would write {out}")
        return
    source = e.open_model(checkpoint, device, console)
    with e.announcing(console) as announce:
        how: dict[str, Any] = {"column": rows.column, "l2": l2, "precision": precision, "announce": announce}
        model, found, counts = probed(source, **tables, **how)
    by = "given" if l2 is not None else "val"
    recipe: dict[str, Any] = {
        "name": "linear-probe",
        "title": "A linear probe",
        "l2": found.l2,
        "chosen_on": by,
    }
    recipe |= {"source": "CLIP App. A.3", "fitted_on": "train+val" if "val" in counts else "train"}
    lineage: dict[str, Any] = {"checkpoint": source.checkpoint_hash, "split_hash": tables["train"].split_hash}
    lineage |= {f"{name}_rows": n for name, n in counts.items() if name != "test"}
    if "val" in tables:
        lineage["validation"] = tables["val"].split_hash
    trials = [{"l2": tried, "top1": round(100 * top1, 4), "on": "val"} for tried, top1 in found.tried.items()]
    with atomic_directory(out, force=force) as place:
        _write(place, model, recipe, lineage, trials, found.l2)
    chosen = f"l2 {found.l2:.3g}"
    if "val" in tables and l2 is None:
        share = 100 * found.tried[found.l2]
        chosen += (
            f", chosen on {tables['val'].source} (val): top-1 {share:.1f} of {len(found.tried)} penalties"
        )
    console.note(f"{counts['train']} training rows, {len(model.config.labels)} classes, {chosen}; {out}")
    _measure(out, rows, tables, console, device=device, precision=precision)


def _write(
    place: Path, model: Any, recipe: dict[str, Any], lineage: dict[str, Any], trials: list[Any], chosen: float
) -> None:
    import orjson

    from vlcli.models.card import write_card
    from vlcli.models.checkpoint import save_checkpoint
    from vlcli.models.checksums import write_checksums

    save_checkpoint(model, place, recipe=recipe, lineage=lineage)
    lines = [orjson.dumps(one | {"chosen": one["l2"] == chosen}) + b"\n" for one in trials]
    if lines:
        (place / TRIALS).write_bytes(b"".join(lines))
    write_card(place)
    write_checksums(place)


def _measure(
    out: Path, rows: Rows, tables: Mapping[str, Any], console: Console, *, device: str, precision: str
) -> None:
    """The table of --test, where there is one."""
    if "test" not in tables:
        return
    from vlcli.commands import _evaluation as e
    from vlcli.commands._zeroshot_show import show
    from vlcli.evaluation.classifier import classify_images
    from vlcli.models.checkpoint import load_classifier, resolve_device

    model = load_classifier(out, str(resolve_device(device)))
    with e.announcing(console) as announce:
        how: dict[str, Any] = {"column": rows.column, "precision": precision, "announce": announce}
        found = classify_images(model, tables["test"], **how)
    show(found)
