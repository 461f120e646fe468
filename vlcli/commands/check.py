"""vlcli check: are shards and checkpoints whole?"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from vlcli.commands import _options as o

if TYPE_CHECKING:
    from vlcli.shards.findings import Verdict

EXAMPLES = (
    "vlcli check shards/",
    "vlcli check --deep shards/00007.tar",
    "vlcli check --json runs/lit-filip >verdict.json",
    "vlcli check --checksum raw.jsonl shards/",
)

MANUAL = {
    "NOTES": (
        (
            "",
            "--checksum prints two numbers. Each is a sum over all rows of 128 bits of a SHA-256, so that neither "
            "order nor format nor how rows are spread over files matters, and equal rows do not cancel. The first "
            "is over (id, texts) of all rows, those that failed among them, because the sidecar of their shard has "
            "them. It is the same for a file of rows and for the shards made of it, and whoever finds it so knows "
            "that no row and no text was lost; the count of pairs beside it tells how many have an image. Compare "
            "what 'filter' wrote: it carries ids. Rows without any are given them by their image's reference and "
            "texts.",
        ),
        (
            "",
            "The second is over (image_id, texts) of the pairs: the number of 'filter --report'. Shards hold no "
            "paths, so an image_id that is no more than the image's path becomes the sha256 of the image as it "
            "came, and the number is another one. Where images were in Parquet or Arrow, or the rows have an "
            "image_id of their own, it is the same if and only if every pair has arrived. 'shard --report' has the "
            "number of the rows as they came, to be compared with that of the 'filter' before it in a pipe.",
        ),
        (
            "",
            "A row with several texts counts with all of them, in their order. Where some are blank, or stand in "
            "columns of their own that 'filter --fields' judged, only the first number is the same. The numbers of "
            "shards are those of their sidecars, which this command compares with the tars, with --deep text by "
            "text. Shards of other tools have none.",
        ),
        (
            "",
            "Of a checkpoint the header of the weights is read, and names, types and shapes of all tensors are "
            "compared with the architecture, the tokenizer with the embedding table. As long as config.json "
            "vouches for the tensors (its 'layout'), that takes a moment; where it does not, and with --deep, the "
            "model is built without memory, and every tensor that is missing, has no place or another shape is "
            "named. --deep also compares all files with SHA256SUMS and names every tensor that holds NaN or "
            "infinite values.",
        ),
    ),
    "EXIT STATUS": (
        ("0", "All is whole."),
        ("1", "Something could not be read, and nothing that could be is damaged."),
        ("2", "A wrong command line, or a path that is not there or holds neither shards nor a checkpoint."),
        ("3", "Something is damaged: what and where is on stderr, and in --json."),
        ("130, 141, 143", "Ended by SIGINT, by a closed pipe, by SIGTERM."),
    ),
}


def command(
    paths: Annotated[
        list[str] | None,
        Argument(metavar="PATH", help="Directories of shards, single tars, checkpoints, runs."),
    ] = None,
    files_from: o.FilesFrom = None,
    deep: Annotated[
        bool,
        Option(
            "--deep",
            help="Read every byte: sha256 of shards, images and checkpoints; decode images that have none; "
            "look for NaN in weights.",
        ),
    ] = False,
    checksum: Annotated[
        bool,
        Option(
            "--checksum",
            help="Also say what shards hold, or files of rows, as a number that depends on no order.",
        ),
    ] = False,
    json_: o.Json = False,
    jobs: o.Jobs = None,
    quiet: o.Quiet = False,
    verbose: o.Verbose = 0,
) -> None:
    """Tell whether shards and checkpoints are whole, in the time that reading their headers takes.

    A shard cut where a member begins is read by every tar reader without an error and with fewer samples.
    Here its members are counted against its sidecar, its stats and sizes.json; headers, names, order, the end
    of the archive and the sequence of shards are judged too. Exit 0: whole; 3: damaged; 1: unreadable; 2:
    usage.
    """
    import sys

    import typer

    from vlcli.commands._console import Console
    from vlcli.errors import UsageError

    console = Console("check", quiet=quiet, verbose=verbose)
    chosen = o.gather(paths, files_from)
    if not chosen:
        raise UsageError("Missing argument 'PATH...'", remedy="see 'vlcli check --help'")
    verdicts = [
        _check(
            path,
            deep=deep,
            checksum=checksum,
            jobs=jobs or o.default_jobs(),
            on_shard=lambda tar: console.note(str(tar), level=1),
        )
        for path in chosen
    ]
    if json_:
        import orjson

        report = {
            "whole": all(v.status == "whole" for v in verdicts),
            "paths": [v.to_dict() for v in verdicts],
            "findings": [f.to_dict() for v in verdicts for f in v.findings],
        }
        sys.stdout.write(orjson.dumps(report, option=orjson.OPT_INDENT_2).decode() + "\n")
    for verdict in verdicts:
        for finding in verdict.findings if not json_ else ():
            print(f"vlcli check: {finding.file}: {finding.message}", file=sys.stderr)
        for note in verdict.notes if not json_ else ():
            console.note(note)
        if not json_ and not quiet:
            shards = "1 shard" if verdict.shards == 1 else f"{verdict.shards:,} shards"
            counts = f", {shards}, {verdict.samples:,} samples" if verdict.shards else ""
            print(f"{verdict.path}: {verdict.status}{counts}")
        if verdict.contents is not None and not json_:
            held = verdict.contents
            print(
                f"{verdict.path}: {held.rows:,} rows {held.of_rows.hex()}, "
                f"{held.pairs:,} pairs {held.of_pairs.hex()}"
            )
    statuses = {v.status for v in verdicts}
    if statuses != {"whole"}:
        raise typer.Exit(3 if "damaged" in statuses else 1)


def _check(name: str, *, deep: bool, checksum: bool, jobs: int, on_shard: Callable[[Path], None]) -> Verdict:
    """The check that fits what stands at `name`."""
    from vlcli.errors import UsageError
    from vlcli.shards.check import check_directory, check_rows, check_tar
    from vlcli.shards.layout import is_shard_directory

    path = Path(name)
    if checksum and name == "-":
        return check_rows(name)
    if not path.exists():
        raise UsageError(f"{path}: no such file or directory")
    if not path.is_dir():
        if path.suffix == ".tar":
            return check_tar(path, deep=deep, checksum=checksum)
        if checksum:
            return check_rows(name)
        raise UsageError(
            f"{path}: neither a .tar nor a directory of shards or of a checkpoint",
            remedy="of rows there is only a --checksum",
        )
    if is_shard_directory(path):
        return check_directory(path, deep=deep, checksum=checksum, jobs=jobs, on_shard=on_shard)
    from vlcli.models.quickcheck import check_checkpoint, check_run, is_checkpoint, is_run

    if is_checkpoint(path):
        return check_checkpoint(path, deep=deep)
    if is_run(path):
        return check_run(path, deep=deep)
    raise UsageError(f"{path}: it holds neither shards nor a checkpoint")
