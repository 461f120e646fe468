"""vlcli report: lines of results as the papers' tables, or as the files of other tools."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from vlcli.commands import _options as o

EXAMPLES = (
    "vlcli report results.jsonl",
    "vlcli report results.jsonl -o results.html",
    "vlcli report runs/*/results.jsonl --to csv > numbers.csv",
    "vlcli report results.jsonl --format clip-benchmark -o benchmark/",
    "vlcli report mnist.json pets.json --format elevater -o all_predictions.zip",
)


class To(StrEnum):
    """How tables are written."""

    markdown = "markdown"
    csv = "csv"
    html = "html"


class Format(StrEnum):
    """Whose files are written."""

    clip_benchmark = "clip-benchmark"
    mteb = "mteb"
    elevater = "elevater"


ENDINGS = {".md": To.markdown, ".csv": To.csv, ".html": To.html, ".htm": To.html}


def command(
    results: Annotated[
        list[Path],
        Argument(
            metavar="FILE",
            help="Results of zeroshot and retrieve; for ELEVATER predictions of zeroshot.",
            show_default=False,
        ),
    ],
    output: o.Output = None,
    to: Annotated[
        To | None,
        Option(
            "--to",
            help="Tables to read, every number on a line of its own, or one page to be sorted by a click.",
            show_default="from the name of -o, else markdown",
        ),
    ] = None,
    format: Annotated[
        Format | None,
        Option(
            "--format",
            help="Files of another tool instead, one for each result, into the directory -o; ELEVATER's submission is "
            "one archive, of predictions.",
        ),
    ] = None,
    title: Annotated[str, Option("--title", metavar="TEXT", help="Of the page.")] = "Results",
    force: o.Force = False,
    quiet: o.Quiet = False,
    verbose: o.Verbose = 0,
) -> None:
    """Tables of what `zeroshot`, `retrieve` and `score` have measured with --results.

    A row is a model, with the checkpoint's hash, the similarity and the prompts; every number has its 95 % interval.
    Results of one recipe that differ in nothing but the seed are one row, mean ± standard deviation. Of results with
    the same key the last counts.

    The CSV has a line for every number. CLIP_benchmark's files are what its `build` reads, MTEB's are task results,
    ELEVATER's archive gathers what zeroshot --predictions-as elevater wrote of each set.
    """
    from vlcli.commands._console import Console
    from vlcli.errors import UsageError
    from vlcli.evaluation.report.foreign import write_foreign
    from vlcli.evaluation.report.page import html
    from vlcli.evaluation.report.tables import tables
    from vlcli.evaluation.report.text import as_csv, markdown
    from vlcli.evaluation.results_file import read_results
    from vlcli.records.atomic import atomic_file

    console = Console("report", quiet=quiet, verbose=verbose)
    to_stdout = output is None or output == "-"
    if format is not None and to is not None:
        raise UsageError("--format writes files of its own kind: it does not go with --to")
    if format is not None and to_stdout:
        raise UsageError(
            f"--format {format.value} writes files", remedy="name a directory, or elevater's archive, with -o"
        )
    if format is Format.elevater:
        from vlcli.evaluation.report.submission import write_submission

        sets = write_submission(results, str(output), force=force)
        console.note(f"{output}: {', '.join(sets)}")
        return
    lines = read_results(results, say=console.warn)
    if not lines:
        raise UsageError(f"{' '.join(map(str, results))}: no results in it")
    if format is not None:
        count = write_foreign(lines, format.value, Path(str(output)), force=force)
        console.note(f"{output}: {count} files of {format.value}")
        return
    kind = to or (To.markdown if to_stdout else ENDINGS.get(Path(str(output)).suffix.lower(), To.markdown))
    if kind is To.csv:
        text = as_csv(lines)
    elif kind is To.html:
        text = html(tables(lines), title=title)
    else:
        text = markdown(tables(lines))
    if to_stdout:
        sys.stdout.buffer.write(text.encode())
        return
    with atomic_file(str(output), force=force) as file:
        file.write(text.encode())
