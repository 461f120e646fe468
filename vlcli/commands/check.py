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
)

MANUAL = {
    "EXIT STATUS": (
        ("0", "All is whole."),
        ("1", "Something could not be read, and nothing that could be is damaged."),
        ("2", "A wrong command line, or a path that is not there or holds neither shards nor a checkpoint."),
        ("3", "Something is damaged: what and where is on stderr, and in --json."),
        ("130, 141, 143", "Ended by SIGINT, by a closed pipe, by SIGTERM."),
    )
}


def command(
    paths: Annotated[
        list[str] | None,
        Argument(metavar="PATH", help="Directories of shards, single tars, checkpoints, runs."),
    ] = None,
    files_from: o.FilesFrom = None,
    deep: Annotated[
        bool,
        Option("--deep", help="Read every byte: sha256 of shards and images; decode images that have none."),
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
            Path(path),
            deep=deep,
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
    statuses = {v.status for v in verdicts}
    if statuses != {"whole"}:
        raise typer.Exit(3 if "damaged" in statuses else 1)


def _check(path: Path, *, deep: bool, jobs: int, on_shard: Callable[[Path], None]) -> Verdict:
    """The check that fits what stands at `path`."""
    from vlcli.errors import UsageError
    from vlcli.shards.check import check_directory, check_tar
    from vlcli.shards.layout import is_shard_directory

    if not path.exists():
        raise UsageError(f"{path}: no such file or directory")
    if not path.is_dir():
        if path.suffix != ".tar":
            raise UsageError(f"{path}: neither a .tar nor a directory of shards or of a checkpoint")
        return check_tar(path, deep=deep)
    if is_shard_directory(path):
        return check_directory(path, deep=deep, jobs=jobs, on_shard=on_shard)
    from vlcli.models.quickcheck import check_checkpoint, check_run, is_checkpoint, is_run

    if is_checkpoint(path):
        return check_checkpoint(path, deep=deep)
    if is_run(path):
        return check_run(path, deep=deep)
    raise UsageError(f"{path}: it holds neither shards nor a checkpoint")
