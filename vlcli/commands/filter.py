"""vlcli filter: the pairs that pass a corpus's rules."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from typer import Option

from vlcli.commands import _complete as complete
from vlcli.commands import _filter_options as opt
from vlcli.commands._filter_manual import MANUAL
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
    Part,
    Precision,
    Quiet,
    Rejects,
    Report,
    Seed,
    Segmenter,
    To,
    Verbose,
    Where,
    choose_part,
    default_jobs,
    gather,
    parse_map,
    part_note,
)

__all__ = ["EXAMPLES", "MANUAL", "command"]

EXAMPLES = (
    "vlcli filter raw.jsonl --preset wukong -o kept.jsonl --report report.json",
    "vlcli filter raw.parquet --map text=caption --min-side 64 --max-words 31 | vlcli shard -o shards/",
    "vlcli filter raw.parquet --where \"split = 'val'\" -o val.jsonl",
    "vlcli filter raw.parquet --preset wukong -o kept/ -j 4",
    "vlcli filter raw.parquet --preset wukong --count-only -o counts/ --part 0/1",
    "vlcli filter raw.jsonl --hold-out 4 --hold-out-to test.jsonl -o train.jsonl",
    "vlcli filter raw.jsonl --source-lang zh --augment-text de,ru --translator 'command:./mt {source} {target}'",
)


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
    max_per_query: opt.MaxPerQuery = None,
    min_ctr: opt.MinCtr = None,
    ctr_top_k: opt.CtrTopK = None,
    drop_flag: opt.DropFlag = None,
    max_nsfw: opt.MaxNsfw = None,
    min_side: opt.MinSide = None,
    min_any_side: opt.MinAnySide = None,
    max_aspect: opt.MaxAspect = None,
    max_texts_per_image: opt.MaxTextsPerImage = None,
    lang: opt.Lang = None,
    min_words: opt.MinWords = None,
    max_words: opt.MaxWords = None,
    drop_meaningless: opt.DropMeaningless = None,
    max_text_freq: opt.MaxTextFreq = None,
    max_images_per_text: opt.MaxImagesPerText = None,
    ngram_vocab_size: opt.NgramVocabSize = None,
    mask_names: opt.MaskNames = None,
    names_by: opt.NamesBy = None,
    sensitive_words: opt.SensitiveWords = None,
    against: opt.Against = None,
    against_images: opt.AgainstImages = None,
    against_texts: opt.AgainstTexts = None,
    hold_out: opt.HoldOut = None,
    hold_out_to: opt.HoldOutTo = None,
    first_images: opt.FirstImages = None,
    first: opt.First = None,
    mix: opt.Mix = None,
    sample: opt.Sample = None,
    per_key: opt.PerKey = None,
    split: opt.Split = None,
    stratify: opt.Stratify = None,
    seed: Seed = 0,
    augment_text: opt.AugmentText = None,
    translate: opt.Translate = None,
    translate_to: opt.TranslateTo = "text_{target}",
    source_lang: opt.SourceLang = None,
    translator: opt.Translator = None,
    translation_cache: opt.TranslationCache = None,
    beams: opt.Beams = None,
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
    part: Part = None,
    count_only: opt.CountOnly = False,
    counts: opt.Counts = None,
    engine: opt.Engine = "local",
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
    from vlcli.curation.ends import Source, Target
    from vlcli.curation.filter import filter_pairs
    from vlcli.curation.parts import count_part, filter_part
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
    this_part = choose_part(part, output, force=force, always=count_only)
    parted = this_part is not None
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
        elif this_part is not None:
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
        console.note(part_note(output, result["part"]))
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
