"""Options that mean the same in every command, each defined once.

Use them as annotations: `def command(inputs: Inputs = None, output: Output = None, ...)`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from vlcli.errors import UsageError

Inputs = Annotated[
    list[str] | None,
    Argument(metavar="FILE", help="Paths, globs or directories; none or - is stdin.", show_default=False),
]
Output = Annotated[str | None, Option("-o", "--output", help="Where the result goes; - is stdout.")]
From = Annotated[
    str | None, Option("--from", help="Input format (jsonl, parquet, arrow); default: from its first bytes.")
]
To = Annotated[
    str | None, Option("--to", help="Output format (jsonl, arrow, parquet); default: from the file name.")
]
Map = Annotated[
    list[str] | None,
    Option("--map", metavar="NEW=OLD,...", help="Rename columns on the way in, e.g. text=caption,image=url."),
]
Where = Annotated[
    str | None,
    Option("--where", metavar="SQL", help="Only rows for which this holds, e.g. \"split = 'train'\"."),
]
ImageRoot = Annotated[
    Path | None, Option("--image-root", help="Directory that relative image paths start from.")
]
Head = Annotated[int | None, Option("--head", min=0, metavar="N", help="Stop after N input rows.")]
MaxBad = Annotated[
    str, Option("--max-bad", metavar="N|P%", help="Bad rows to divert and count before stopping with exit 3.")
]
Rejects = Annotated[
    Path | None, Option("--rejects", help="JSONL of the rows that were dropped or bad, with reasons.")
]
Report = Annotated[Path | None, Option("--report", help="JSON file that counts everything.")]
Force = Annotated[bool, Option("--force", help="Replace an output that exists.")]
DryRun = Annotated[bool, Option("-n", "--dry-run", help="Print the plan and stop.")]
Seed = Annotated[int, Option("--seed", help="Seed of every random choice.")]
Jobs = Annotated[
    int | None,
    Option("-j", "--jobs", min=1, envvar="VLCLI_JOBS", help="Worker processes (default min(4, cores))."),
]
Quiet = Annotated[bool, Option("-q", "--quiet", help="Only errors on stderr.")]
Verbose = Annotated[int, Option("-v", "--verbose", count=True, help="More on stderr; repeat for still more.")]
Json = Annotated[bool, Option("--json", help="One JSON object on stdout.")]
Device = Annotated[str, Option("--device", help="auto, cpu or cuda[:N].")]
Precision = Annotated[str, Option("--precision", help="fp32 or bf16.")]
BatchSize = Annotated[int, Option("--batch-size", min=1, help="Images or texts a forward pass.")]


def parse_map(values: list[str] | None) -> dict[str, str]:
    """`["text=caption,image=url", ...]` → `{"caption": "text", "url": "image"}` (old → new)."""
    renames: dict[str, str] = {}
    for pair in (p for value in values or [] for p in value.split(",") if p):
        new, equals, old = pair.partition("=")
        if not (new and equals and old):
            raise UsageError(f"--map {pair!r} is not NEW=OLD")
        if old in renames or new in renames.values():
            raise UsageError(f"--map names {old!r} or {new!r} twice")
        renames[old] = new
    return renames
