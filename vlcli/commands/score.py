"""vlcli score: generated captions beside what people wrote."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from vlcli.commands import _complete as complete
from vlcli.commands import _evaluation as e
from vlcli.commands import _options as o
from vlcli.commands import _results as r

EXAMPLES = (
    "vlcli score captions.jsonl --references val.jsonl",
    "vlcli score captions.jsonl --references val.jsonl --tokenize char,jieba,words --per-image scores.jsonl",
    "vlcli score results.coco.json --references annotations.coco.json --results results.jsonl",
    "vlcli score < captions.jsonl --json",
)


def command(
    captions: Annotated[
        list[str] | None,
        Argument(
            metavar="FILE",
            help="Generated captions: rows with caption_generated, or COCO's list of results; none or - is stdin.",
            show_default=False,
        ),
    ] = None,
    references: Annotated[
        list[str] | None,
        Option(
            "--references",
            metavar="FILE",
            help="What people wrote of the same images: rows with text, or COCO's annotations; repeatable. "
            "Default: the text of the rows themselves.",
        ),
    ] = None,
    tokenize: Annotated[
        str,
        Option(
            "--tokenize",
            metavar="char,jieba,words",
            help="What a word is, each with numbers of its own: a character, what jieba cuts, what stands between "
            "spaces.",
            autocompletion=complete.words("char", "jieba", "words", "char,jieba"),
        ),
    ] = "char,jieba",
    common: Annotated[
        bool, Option("--common", help="Score the images that both sides have, where one lacks some.")
    ] = False,
    per_image: Annotated[
        Path | None, Option("--per-image", metavar="FILE.jsonl", help="The numbers of every image too.")
    ] = None,
    split: e.Split = None,
    lang: e.Lang = None,
    bootstrap: e.Bootstrap = 1000,
    seed: o.Seed = 0,
    renames: o.Map = None,
    head: o.Head = None,
    results: r.Results = None,
    json: o.Json = False,
    force: o.Force = False,
    quiet: o.Quiet = False,
    verbose: o.Verbose = 0,
) -> None:
    """BLEU-1 to 4, ROUGE-L, CIDEr-D and METEOR of captions, as coco-caption defines them, each with a 95 % interval.

    Images are joined by image_id, or by id where a row has none. Every name says what a word was, since that decides
    as much as the captions do: bleu4_char, cider_jieba; METEOR takes Chinese by characters whatever is asked for.
    Numbers are ×100, CIDEr-D therefore up to 1000. Of BLEU and METEOR the set has a score of its own, which is not the
    mean of its images'.

    CIDEr-D weighs words by how many of the scored images' references have them: it compares captions of the same
    images only. The intervals draw images with their references; those document frequencies stay as they are.
    """
    from vlcli.commands import _score_captions
    from vlcli.commands._console import Console
    from vlcli.errors import UsageError

    console = Console("score", quiet=quiet, verbose=verbose)
    if not captions and sys.stdin is not None and sys.stdin.isatty():
        raise UsageError("no captions: stdin is a terminal", remedy="name a file or pipe rows in")
    _score_captions.run(
        captions or [],
        references,
        console,
        tokenizers=tokenize,
        common=common,
        per_image=per_image,
        renames=o.parse_map(renames),
        head=head,
        split=split,
        lang=lang,
        bootstrap=bootstrap,
        seed=seed,
        results=results,
        as_json=json,
        force=force,
    )
