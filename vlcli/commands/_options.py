"""Options that mean the same in every command, each defined once.

Use them as annotations: `def command(inputs: Inputs = None, output: Output = None, ...)`. Where two commands differ in
the type only (a default that the recipe gives), they share the Option object.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

from typer import Argument, Option

from vlcli.commands import _complete as complete
from vlcli.errors import InputError, UsageError

PARTS = "A corpus in parts"  # a panel of --help

Inputs = Annotated[
    list[str] | None,
    Argument(metavar="FILE", help="Paths, globs or directories; none or - is stdin.", show_default=False),
]
FilesFrom = Annotated[
    str | None,
    Option(
        "-X", "--files-from", metavar="LIST", help="Also the inputs that LIST names, one a line; - is stdin."
    ),
]
Output = Annotated[str | None, Option("-o", "--output", help="Where the result goes; - is stdout.")]
From = Annotated[
    str | None,
    Option(
        "--from",
        metavar="jsonl|parquet|arrow",
        help="Input format; default: from its first bytes.",
        autocompletion=complete.words("jsonl", "parquet", "arrow"),
    ),
]
To = Annotated[
    str | None,
    Option(
        "--to",
        metavar="jsonl|parquet|arrow",
        help="Output format; default: from the file name.",
        autocompletion=complete.words("jsonl", "parquet", "arrow"),
    ),
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
    Path | None,
    Option("--image-root", metavar="DIR", help="Directory that relative image paths start from."),
]
Head = Annotated[int | None, Option("--head", min=0, metavar="N", help="Stop after N input rows.")]
MaxBad = Annotated[
    str, Option("--max-bad", metavar="N|P%", help="Bad rows to divert and count before stopping with exit 3.")
]
Rejects = Annotated[
    Path | None,
    Option("--rejects", metavar="FILE", help="JSONL of the rows that were dropped or bad, with reasons."),
]
Report = Annotated[Path | None, Option("--report", metavar="FILE", help="JSON file that counts everything.")]
Force = Annotated[bool, Option("--force", help="Replace an output that exists.")]
Resume = Annotated[
    bool, Option("--resume", help="Finish what an earlier run left; input and options must be the same.")
]
DryRun = Annotated[
    bool, Option("-n", "--dry-run", help="Print the plan and what would be replaced, and stop.")
]
Part = Annotated[
    str | None,
    Option(
        "--part",
        metavar="i/n",
        help="Only part i (0 to n-1) of n, into the directory -o; for job arrays.",
        rich_help_panel=PARTS,
    ),
]
Jobs = Annotated[
    int | None,
    Option(
        "-j",
        "--jobs",
        min=1,
        metavar="N",
        envvar="VLCLI_JOBS",
        help="Worker processes; default: the cores given to this job, at most 4.",
    ),
]
Quiet = Annotated[bool, Option("-q", "--quiet", help="Only errors on stderr.")]
Verbose = Annotated[
    int,
    Option("-v", "--verbose", count=True, help="More on stderr; repeat for still more.", show_default=False),
]
Json = Annotated[bool, Option("--json", help="One JSON object on stdout.")]
WORD_UNIT: Any = Option(
    "--word-unit",
    metavar="char|mixed|unigram|jieba|wordpiece",
    help="What counts as a word: an ideograph; that or a Latin run; what stands between spaces; ...",
    autocompletion=complete.words("char", "mixed", "unigram", "jieba", "wordpiece"),
)
Segmenter = Annotated[
    str,
    Option(
        "--segmenter",
        metavar="rjieba|jieba",
        help="What cuts a text into words.",
        autocompletion=complete.words("rjieba", "jieba"),
    ),
]
Device = Annotated[
    str,
    Option(
        "--device",
        metavar="auto|cpu|cuda[:N]",
        help="Where the model computes; auto: a GPU if there is one.",
        autocompletion=complete.words("auto", "cpu", "cuda"),
    ),
]

SEED = Option("--seed", metavar="N", help="Seed of every random choice.")
Seed = Annotated[int, SEED]
PRECISION: Any = Option("--precision", help="Of the model's arithmetic.")
Precision = Annotated[Literal["fp32", "bf16"], PRECISION]
BatchSize = Annotated[int, Option("--batch-size", min=1, metavar="N", help="Images or texts a forward pass.")]
Init = Annotated[
    list[str] | None,
    Option(
        "--init",
        metavar="TOWER=PATH",
        help="Initial weights: image=PATH, image=package:NAME, image=random; text=PATH of a text tower to be trained;"
        " or the RUN of a distill or pretrain, for the towers that it has.",
    ),
]
DATA = Option(
    "--data", metavar="FILE", help="Pairs: JSONL, Parquet, Arrow, or a directory of shards; repeatable."
)
Data = Annotated[list[str], DATA]
DataOrNone = Annotated[list[str] | None, DATA]
Set = Annotated[
    list[str] | None,
    Option("--set", metavar="TABLE.KEY=VALUE", help="Override one key of the recipe; repeatable."),
]


_EVERYWHERE = "Everywhere"
Color = Annotated[
    Literal["auto", "always", "never"] | None,
    Option(
        "--color",
        envvar="VLCLI_COLOR",
        help="Colours; auto: on a terminal, unless NO_COLOR is set or TERM is dumb.",
        rich_help_panel=_EVERYWHERE,
    ),
]
PrintConfig = Annotated[
    bool,
    Option(
        "--print-config",
        help="Print every option's value and where it is from, and stop.",
        rich_help_panel=_EVERYWHERE,
    ),
]
Debug = Annotated[
    bool,
    Option(
        "--debug",
        help="Show the traceback of an error, as VLCLI_DEBUG does.",
        rich_help_panel=_EVERYWHERE,
    ),
]


def everywhere(color: Color = None, print_config: PrintConfig = False, debug: Debug = False) -> None:
    """What every command has; `_command.Command` adds these."""


def gather(inputs: list[str] | None, files_from: str | None) -> list[str]:
    """The inputs, and after them those that the list names. Raises UsageError naming the list's line."""
    found = list(inputs or [])
    if files_from is None:
        return found
    if files_from == "-" and "-" in found:
        raise UsageError("stdin is both an input and the list of --files-from")
    name = "<stdin>" if files_from == "-" else files_from
    try:
        raw = sys.stdin.buffer.read() if files_from == "-" else Path(files_from).read_bytes()
    except OSError as error:
        raise UsageError(f"--files-from {files_from}: {error.strerror}") from None
    listed = 0
    for number, line in enumerate(raw.splitlines(), start=1):
        if b"\0" in line:
            raise InputError("not a list of files: it holds a NUL", file=name, line=number)
        path = os.fsdecode(line.strip())
        if not path:
            continue
        if path == "-" or not (os.path.exists(path) or any(c in path for c in "*?[")):
            raise UsageError(f"{name}:{number}: {path}: no such file")
        found.append(path)
        listed += 1
    if not listed:
        raise UsageError(f"--files-from {name}: it names no file")
    return found


def choose_part(part: str | None, output: str | None, *, force: bool, always: bool = False) -> Any:
    """The `Part` that is asked for, all of them where `output` is a directory of units; None where it is one file."""
    from vlcli.curation.part_directory import is_directory
    from vlcli.records import part as parts

    if part is None and not always and not is_directory(output):
        return None
    found = parts.parse_part(part) if part is not None else parts.Part()
    if output is None or output == "-":
        raise UsageError("parts go to a directory", remedy="name one with -o")
    if force and part is not None:
        raise UsageError(
            "--force would remove what the other parts have written", remedy="remove the directory"
        )
    return found


def part_note(output: str | None, part: dict[str, int]) -> str:
    """What a part has come to: `part` has its number, their count, its units, and how many of them stood."""
    units, stood = part["units"], part["stood"]
    return (
        f"{output}: part {part['number']}/{part['count']}: {units:,} units, {stood:,} of them stood already"
    )


def default_jobs() -> int:
    """At most 4, and no more than the machine, the batch system or the container gives to this job."""
    affinity = getattr(os, "sched_getaffinity", None)  # Linux only
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    task = os.environ.get("SLURM_CPUS_PER_TASK", "")
    if task.isdecimal():
        cores = min(cores, int(task))
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        cores = min(cores, int(quota) // int(period))
    except (OSError, ValueError):  # no cgroup v2 here, or its quota is "max"
        pass
    return max(1, min(4, cores))


def parse_init(
    values: list[str] | None,
    towers: tuple[str, ...] = ("image", "text"),
    whole: Callable[[str], tuple[str, ...]] | None = None,
) -> dict[str, str]:
    """`["image=PATH", "text=DIR"]` → `{"image": "PATH", "text": "DIR"}`. `whole` says which towers stand at a path that
    is given alone; a later value wins over an earlier one."""
    paths: dict[str, str] = {}
    for value in values or []:
        tower, equals, path = value.partition("=")
        if whole is not None and tower not in towers and os.path.exists(value):
            paths |= dict.fromkeys(whole(value), value)
            continue
        if tower not in towers or not equals or not path:
            wanted = " or ".join(f"{name}=PATH" for name in towers)
            raise UsageError(f"--init {value!r} is not {wanted}")
        paths[tower] = path
    return paths


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
