"""vlcli generate: captions out of pictures."""

from __future__ import annotations

from typing import Annotated, Literal

from typer import Argument, Option

from vlcli.commands import _options as o
from vlcli.errors import UsageError

CAPTIONS = "Captions"  # a panel of --help

EXAMPLES = (
    "vlcli generate runs/captioner --caption val.jsonl -o captions.jsonl",
    "vlcli generate runs/captioner --caption shards/ --decode beam --beams 5 --format coco -o results.json",
)


def command(
    inputs: Annotated[
        list[str] | None,
        Argument(
            metavar="RUN [FILE]",
            help="A run or checkpoint, then pairs: paths, globs, directories, shards; no path or - is stdin.",
            show_default=False,
        ),
    ] = None,
    files_from: o.FilesFrom = None,
    output: o.Output = None,
    caption: Annotated[
        bool,
        Option(
            "--caption",
            help="Describe the picture of each row, by a captioner.",
            rich_help_panel=CAPTIONS,
        ),
    ] = False,
    decode: Annotated[
        Literal["greedy", "beam", "sample"] | None,
        Option(
            "--decode",
            help="The likeliest token each time; the likeliest text of several that are followed; or drawn.",
            show_default="greedy",
            rich_help_panel=CAPTIONS,
        ),
    ] = None,
    beams: Annotated[
        int | None,
        Option(
            "--beams",
            min=2,
            metavar="N",
            help="Texts that are followed at once (--decode beam).",
            show_default="3",
            rich_help_panel=CAPTIONS,
        ),
    ] = None,
    min_length: Annotated[
        int | None,
        Option(
            "--min-length",
            min=0,
            metavar="N",
            help="Tokens of a caption at least, its beginning and its end not counted.",
            show_default="1",
            rich_help_panel=CAPTIONS,
        ),
    ] = None,
    max_length: Annotated[
        int | None,
        Option(
            "--max-length",
            min=1,
            metavar="N",
            help="And at most.",
            show_default="what the model can read",
            rich_help_panel=CAPTIONS,
        ),
    ] = None,
    top_p: Annotated[
        float | None,
        Option(
            "--top-p",
            min=0.0,
            max=1.0,
            metavar="P",
            help="Draw from the likeliest tokens that have this probability together (--decode sample).",
            show_default="1",
            rich_help_panel=CAPTIONS,
        ),
    ] = None,
    temperature: Annotated[
        float | None,
        Option(
            "--temperature",
            min=0.001,
            metavar="T",
            help="What logits are divided by before drawing (--decode sample).",
            show_default="1",
            rich_help_panel=CAPTIONS,
        ),
    ] = None,
    repetition_penalty: Annotated[
        float | None,
        Option(
            "--repetition-penalty",
            min=0.001,
            metavar="X",
            help="Above 1, tokens that a caption has already are less likely.",
            show_default="1",
            rich_help_panel=CAPTIONS,
        ),
    ] = None,
    format: Annotated[
        Literal["rows", "coco"] | None,
        Option(
            "--format",
            help="The rows with their captions, or COCO's results: one list of image_id and caption.",
            show_default="rows",
            rich_help_panel=CAPTIONS,
        ),
    ] = None,
    to: o.To = None,
    renames: o.Map = None,
    from_: o.From = None,
    image_root: o.ImageRoot = None,
    head: o.Head = None,
    max_bad: o.MaxBad = "0",
    rejects: o.Rejects = None,
    seed: o.Seed = 0,
    device: o.Device = "auto",
    precision: o.Precision = "fp32",
    batch_size: o.BatchSize = 64,
    force: o.Force = False,
    quiet: o.Quiet = False,
    verbose: o.Verbose = 0,
) -> None:
    """Describe pictures in words.

    --caption writes each row of the input with `caption_generated`, what the captioner says of its picture, and
    `score`, the mean log-probability of the caption's tokens and of its end. Spaces stand between words of Latin
    script, and not beside Chinese ones. A row whose picture cannot be read is bad. What is written of a row depends
    neither on the others nor on --batch-size; a drawn caption depends on --seed and the row's number.
    """
    from vlcli.commands._console import Console
    from vlcli.models.quickcheck import find_checkpoint

    named = list(inputs or [])
    if not named:
        raise UsageError("no checkpoint", remedy="vlcli generate RUN --caption FILE...")
    run = named.pop(0)
    find_checkpoint(run)
    console = Console("generate", quiet=quiet, verbose=verbose)
    if not caption:
        raise UsageError("nothing says what to generate", remedy="--caption describes the pictures of rows")

    from vlcli.commands import _generate_captions as captions

    decoding = captions.decoding(
        decode, beams, min_length, max_length, top_p, temperature, repetition_penalty, seed
    )
    captions.captions(
        run,
        captions.Rows(o.gather(named, files_from), from_, o.parse_map(renames), image_root, head, max_bad),
        captions.Place(output, format or "rows", to, rejects, force=force),
        decoding,
        console,
        device=device,
        precision=precision,
        batch_size=batch_size,
    )
