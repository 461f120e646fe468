"""vlcli dataset: the pairs of a public data set, from its published files."""

from __future__ import annotations

from typing import Annotated

from typer import Argument, Option

from vlcli.commands import _complete as complete
from vlcli.commands import _options as o

EXAMPLES = (
    "vlcli dataset",
    "vlcli dataset muge MUGE/ | vlcli stats",
    "vlcli dataset flickr30k-cna CNA/ --split train --image-root flickr30k-images/ | vlcli shard -o shards/",
    "vlcli dataset xtd XTD/ --lang zh,ja -o xtd.jsonl",
)

MANUAL = {
    "NOTES": (
        (
            "",
            "A row is a caption beside its image: id, image, image_id, text, lang, split, and text_id or label where "
            "the set has them. Image ids are the set's own. 'retrieve', 'zeroshot --task matching' and 'finetune' read "
            "the same files with --dataset; 'retrieve' then also sees what is no pair: images that no query asks for, "
            "and the queries of a test set.",
        ),
        (
            "",
            "Files are found by their published names in the directory that is given and below it, images by their "
            "file names there or below --image-root. Pictures in a table (MUGE) stay in it: their reference is "
            "FILE.tsv#ID. Counts that differ from the published ones are warned of.",
        ),
        (
            "",
            "Part-of-speech tags and the spaces of a segmenter are taken off Flickr30k-CN's words. COCO-CN's 1,053 "
            "test sentences are those that people wrote; coco-cn-translated has the 5,000 translated ones. The test of "
            "aic-icc is the first 10,000 images of its validation file, val those behind them. Multi30k has five "
            "captions an image in English and German, one in French and Czech; multi30k-task1 has one in each.",
        ),
    ),
}


def command(
    name: Annotated[
        str | None,
        Argument(
            metavar="NAME",
            help="The data set; without one, those that are known are listed.",
            autocompletion=complete.datasets,
            show_default=False,
        ),
    ] = None,
    inputs: Annotated[
        list[str] | None,
        Argument(metavar="PATH", help="Its directory, or files of it.", show_default=False),
    ] = None,
    split: Annotated[
        str | None,
        Option("--split", metavar="NAME", help="Which part; default: the one that papers report."),
    ] = None,
    lang: Annotated[
        str | None,
        Option("--lang", metavar="LANG,...", help="Captions of these languages; default: all there are."),
    ] = None,
    output: o.Output = None,
    to: o.To = None,
    image_root: o.ImageRoot = None,
    head: o.Head = None,
    force: o.Force = False,
    quiet: o.Quiet = False,
    verbose: o.Verbose = 0,
) -> None:
    """Print the pairs of a public data set, read from the files that its authors publish.

    Counts of images and texts that are not the published ones are warned of. Images that no text describes, and texts
    of which no image is known, are no pairs and are left out.
    """
    from vlcli.commands._console import Console
    from vlcli.errors import UsageError

    if name is None:
        _show()
        return
    if not inputs:
        raise UsageError(f"vlcli dataset {name}: no PATH", remedy="name the directory of its files")

    from vlcli.commands import _dataset
    from vlcli.datasets.table import batches, open_dataset
    from vlcli.records.writer import open_writer
    from vlcli.text.languages import parse_langs

    console = Console("dataset", quiet=quiet, verbose=verbose)
    langs = parse_langs(lang, "--lang") if lang is not None else ()
    reading = open_dataset(name, inputs, split=split, langs=langs, image_root=image_root)
    with open_writer(output, format=to, force=force) as writer:
        for batch in batches(reading, reading.rows(head, pairs_only=True)):
            writer.write(batch)
    _dataset.warn(reading, console)
    left = "".join(f"; {what}: left out" for what in reading.left_out())
    console.note(
        f"{reading.dataset.name} {reading.split}: {writer.rows:,} pairs of {len(reading.image_ids):,} images{left}"
    )


def _show() -> None:
    from vlcli.datasets.registry import SETS

    width = max(map(len, SETS))
    for found in SETS.values():
        splits = ", ".join(found.splits)
        langs = f"; {' '.join(found.langs)}" if 1 < len(found.langs) < 12 else ""
        print(f"{found.name:{width}}  {found.what} [{splits}{langs}; reported: {found.reported}]")
