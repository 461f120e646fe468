"""`generate --caption`: rows in, the same rows with what a captioner says of their pictures out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlcli.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from vlcli.commands._console import Console


@dataclass(frozen=True)
class Rows:
    """What is read, and how."""

    inputs: Sequence[str]
    format: str | None
    renames: Mapping[str, str]
    image_root: Path | None
    head: int | None
    max_bad: str


@dataclass(frozen=True)
class Place:
    """Where captions go: rows, or COCO's list of results."""

    output: str | None
    shape: str
    format: str | None
    rejects: Path | None
    force: bool = False


def decoding(
    decode: str | None,
    beams: int | None,
    min_length: int | None,
    max_length: int | None,
    top_p: float | None,
    temperature: float | None,
    repetition_penalty: float | None,
    seed: int,
) -> dict[str, Any]:
    """What the options say of decoding; UsageError for one that does nothing beside --decode."""
    way = decode or "greedy"
    for name, value, wanted in (
        ("--beams", beams, "beam"),
        ("--top-p", top_p, "sample"),
        ("--temperature", temperature, "sample"),
    ):
        if value is not None and way != wanted:
            raise UsageError(f"{name} goes with --decode {wanted}")
    given = {
        "way": way,
        "beams": beams,
        "min_length": min_length,
        "max_length": max_length,
        "top_p": top_p,
        "temperature": temperature,
        "repetition_penalty": repetition_penalty,
        "seed": seed,
    }
    return {name: value for name, value in given.items() if value is not None}


def captions(
    run: str,
    rows: Rows,
    place: Place,
    decoding: Mapping[str, Any],
    console: Console,
    *,
    device: str,
    precision: str,
    batch_size: int,
) -> None:
    """Write the rows with their captions."""
    from vlcli.models.quickcheck import kind_of

    if place.shape == "coco" and place.format is not None:
        raise UsageError("--format coco is JSON: it has no --to")
    if (kind := kind_of(run)) != "captioner":
        raise UsageError(f"{run} is a checkpoint of kind {kind!r}; --caption wants 'captioner'")
    import sys
    import time

    if not rows.inputs and sys.stdin is not None and sys.stdin.isatty():
        raise UsageError("no rows: stdin is a terminal", remedy="name a file or pipe rows in")
    from vlcli.generation.caption_rows import captioned
    from vlcli.generation.captions import Decoding
    from vlcli.images.resolve import ImageReader
    from vlcli.models.checkpoint import load_captioner, resolve_device
    from vlcli.records.atomic import check_place
    from vlcli.records.bad import BadRows
    from vlcli.records.rejects import RejectsWriter
    from vlcli.shards.row_batches import row_batches

    if (place.output or "-") != "-":
        check_place(str(place.output), force=place.force)
    how = Decoding(**decoding)
    model = load_captioner(run, device=str(resolve_device(device)))
    how.longest(model)
    console.note(f"checkpoint {model.checkpoint_hash}, on {model.device}", level=1)
    with (
        RejectsWriter(place.rejects, force=place.force) as rejected,
        ImageReader() as reader,
        console.progress("[progress.description]{task.description}", "{task.completed:,} rows") as bar,
    ):
        task, done, began = bar.add_task("captions", total=None), 0, time.monotonic()

        def on_rows(count: int) -> None:
            nonlocal done
            done += count
            bar.advance(task, count)
            if not console.is_terminal and time.monotonic() - began >= console.log_every:
                console.log(f"{done:,} rows")

        bad = BadRows(rows.max_bad, rejected)
        read = row_batches(
            rows.inputs,
            bad=bad,
            format=rows.format,
            renames=rows.renames,
            image_root=rows.image_root,
            head=rows.head,
        )
        found = captioned(
            model,
            read,
            reader,
            how,
            bad,
            each_image_once=place.shape == "coco",
            batch_size=batch_size,
            precision=precision,
            on_rows=on_rows,
        )
        written = (
            _write_coco(found, place)
            if place.shape == "coco"
            else _write_rows(found, place, rows, model, how)
        )
    console.note(f"{written:,} captions of {bad.seen:,} rows, {bad.count:,} bad")


def _write_rows(found: Any, place: Place, rows: Rows, model: Any, how: Any) -> int:
    from dataclasses import asdict

    from vlcli import __version__
    from vlcli.records import lineage
    from vlcli.records.writer import open_writer

    step = lineage.step("generate", __version__, {"checkpoint": model.checkpoint_hash, **asdict(how)})
    with open_writer(
        place.output, format=place.format, force=place.force, image_root=rows.image_root, step=step
    ) as writer:
        for batch in found:
            writer.write(batch)
        return writer.rows


def _write_coco(found: Any, place: Place) -> int:
    import sys
    from contextlib import nullcontext

    from vlcli.generation.caption_rows import coco_results
    from vlcli.records.atomic import atomic_file

    whole = (place.output or "-") != "-"
    opened: Any = (
        atomic_file(str(place.output), force=place.force) if whole else nullcontext(sys.stdout.buffer)
    )
    written = -1  # the last piece closes the list
    with opened as file:
        for piece in coco_results(found):
            file.write(piece)
            written += 1
    return written
