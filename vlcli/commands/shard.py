"""vlcli shard: pairs into WebDataset shards."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Option

from vlcli.commands import _complete as complete
from vlcli.commands import _options as o

_PARALLEL = "Parallel text"

EXAMPLES = (
    "vlcli filter raw.parquet --preset wukong | vlcli shard -o shards/",
    "vlcli shard pairs.jsonl --image-root photos/ --map text=caption -o shards/",
    "vlcli shard pairs.parquet --resize 384 --encode jpg --max-bad 1% --rejects bad.jsonl -o shards/",
    "vlcli shard pairs.parquet --resize 384 --encode jpg --max-bad 1% --retry-failed -o shards/",
    "vlcli shard --parallel-text opus.parquet laion.jsonl --mix opus=1,laion=2 -o parallel/",
)

MANUAL = {
    "NOTES": (
        (
            "",
            "Delivery is at least once, and no transaction. A shard that was being written when a run stopped is "
            "written again by the next run, with the same bytes under the same name: what copies or reads shards while "
            "they appear must take the same one twice. When sizes.json stands, every row that could be read is "
            "there once: in a tar, or in its sidecar as failed.",
        ),
        (
            "",
            "The checksums of --report tell whether anything was lost. 'came' is over (image_id, texts) of the rows as "
            "they came: the number of the 'filter --report' before it in a pipe. 'rows' and 'pairs' are those of the "
            "shards on the disk: what 'vlcli check --checksum' prints of them at any time, and of the file of rows.",
        ),
        (
            "",
            "After --retry-failed a directory is what one run over the input as it is now would have written. There is "
            "one exception: with --encode keep the format stays, even if an image that has arrived stands before all "
            "others and is of another. The rows must be the same ones; what may have changed is their images.",
        ),
        (
            "",
            "One run writes into a directory at a time, and another is refused with exit 2. The lock is the kernel's "
            "(flock on DIR/_vlcli/lock): a run that is killed leaves none, and Linux carries it over NFS. A file "
            "system without locks refuses nobody.",
        ),
        (
            "",
            "With --part the parts share the directory, each with a lock and a journal of its own; what they agree on "
            "(options, input files, the count of rows, the image format, n) stands in DIR/_vlcli/run.json, and another "
            "n, input or option is refused. --expect counts the rows of the whole input, --max-bad those of the part. "
            "When sizes.json stands, the directory is as if one run had written it. Parts need nothing of each other, "
            "so that a job array (examples/slurm/shard-array.sh) is all the engine it takes.",
        ),
    ),
    "PARALLEL TEXT": (
        (
            "",
            "--parallel-text takes rows of English and its translations, and no images: tables with a column a language"
            " (zh, or text_zh as filter --translate writes it) beside English (en, text_en, or text), where an empty"
            " cell is no translation, or pairs of en and text in the language lang. It writes DIR/00000.parquet and"
            " so on with the columns en, text, lang, source, which distill reads. A pair that came before is left out,"
            " and each English sentence comes with itself as well (--no-identity: not).",
        ),
        (
            "",
            "--mix gives the shares of the column source (default: the file's name) in each language, and --sample the"
            " pairs of each language, or it is as many as the scarcest has; which ones --seed decides. AltCLIP's nine"
            " languages: --mix opus=5,laion=10,cc3m=3 --sample 18000000. The input is then read twice; 20 bytes a pair"
            " are held.",
        ),
    ),
    "FILES": (
        ("DIR/00000.tar", "A shard: image, .json and .txt of each sample."),
        ("DIR/00000.parquet", "Its sidecar: a line for every row, those that failed too."),
        ("DIR/00000_stats.json", "Its counts; the shard is committed when this stands."),
        ("DIR/sizes.json", "Samples of every shard, as open_clip reads it; written last."),
        ("DIR/_vlcli/", "Journal, manifest, command line and times: what is not the same on every run."),
    ),
}


def command(
    inputs: o.Inputs = None,
    files_from: o.FilesFrom = None,
    output: Annotated[Path, Option("-o", "--output", metavar="DIR", help="Directory of the shards.")] = Path(
        "shards"
    ),
    per_shard: Annotated[
        int, Option("--per-shard", min=1, metavar="N", help="Input rows in a shard.")
    ] = 10_000,
    encode: Annotated[
        str,
        Option(
            "--encode",
            metavar="keep|jpg|png|webp",
            help="The one image format of the data set; keep: that of the first good image. "
            "Images that have it already keep their bytes.",
            autocompletion=complete.words("keep", "jpg", "png", "webp"),
        ),
    ] = "keep",
    resize: Annotated[
        int | None,
        Option("--resize", min=1, metavar="N", help="Shrink images whose short side is above N pixels."),
    ] = None,
    expect: Annotated[
        int | None, Option("--expect", min=0, metavar="N", help="Exit 3 unless exactly N rows come.")
    ] = None,
    parallel_text: Annotated[
        bool,
        Option(
            "--parallel-text",
            help="Pairs of sentences for distill instead: no images.",
            rich_help_panel=_PARALLEL,
        ),
    ] = False,
    languages: Annotated[
        str | None,
        Option(
            "--languages",
            metavar="en,LANG,...",
            help="Which are wanted.",
            rich_help_panel=_PARALLEL,
            show_default="AltCLIP's nine",
        ),
    ] = None,
    identity: Annotated[
        bool,
        Option(
            "--identity/--no-identity",
            help="English sentences with themselves too.",
            rich_help_panel=_PARALLEL,
        ),
    ] = True,
    mix: Annotated[
        str | None,
        Option(
            "--mix",
            metavar="SOURCE=WEIGHT,...",
            help="Shares of the sources in each language, the same amount of each.",
            rich_help_panel=_PARALLEL,
        ),
    ] = None,
    sample: Annotated[
        int | None,
        Option("--sample", min=1, metavar="N", help="Pairs of each language.", rich_help_panel=_PARALLEL),
    ] = None,
    seed: o.Seed = 0,
    renames: o.Map = None,
    from_: o.From = None,
    image_root: o.ImageRoot = None,
    head: o.Head = None,
    max_bad: o.MaxBad = "0",
    rejects: o.Rejects = None,
    report: o.Report = None,
    part: o.Part = None,
    resume: o.Resume = False,
    retry_failed: Annotated[
        bool,
        Option(
            "--retry-failed",
            help="--resume, and try the rows again that failed: their images may be there now.",
        ),
    ] = False,
    force: o.Force = False,
    dry_run: o.DryRun = False,
    jobs: o.Jobs = None,
    quiet: o.Quiet = False,
    verbose: o.Verbose = 0,
) -> None:
    """Pack pairs into WebDataset shards that open_clip, img2dataset's readers and Hugging Face datasets open.

    Every image is read to its end before it is packed; one that is not whole is recorded in the shard's
    Parquet sidecar and counted against --max-bad. Equal rows and options give equal bytes, whatever -j is.
    sizes.json appears when all is whole. The same command again finishes a run that stopped: a shard stands
    completely or not at all, and one that was being written is written again. The rows are read anew, from
    files or from the pipe, and those of shards that stand are compared with what they were: other rows or
    options are an error that says where they differ. --resume does so in a whole directory too, and --retry-failed then
    tries the rows again that failed: a shard where one comes to something else is replaced in full, its other
    images taken from itself.

    --parallel-text makes no shards of pictures, but files of parallel text for distill: see its section of the manual.

    --part i/n writes a contiguous range of the shards, for job arrays: the tree is the same for any n, and the part
    that comes last writes sizes.json. Every row must have an id and be readable, as `vlcli filter` writes them.
    """
    import os
    import sys

    from vlcli.commands._console import Console
    from vlcli.errors import InputError, UsageError
    from vlcli.images.resolve import ImageReader
    from vlcli.records.atomic import check_place, write_json
    from vlcli.records.bad import BadRows
    from vlcli.records.part import parse_part
    from vlcli.records.parted import PartedInput
    from vlcli.records.pieces import Reading
    from vlcli.records.reader import read
    from vlcli.records.rejects import RejectsWriter
    from vlcli.shards.dataset import Sharder, count_rows
    from vlcli.shards.layout import shard_name
    from vlcli.shards.output import Options, OutputDirectory
    from vlcli.shards.part_output import PartOutput
    from vlcli.shards.report import build_report

    console = Console("shard", quiet=quiet, verbose=verbose)
    if force and (resume or retry_failed):
        raise UsageError(f"--force and --{'resume' if resume else 'retry-failed'} exclude each other")
    if part is not None:
        _refuse_with_part(force=force, retry_failed=retry_failed, head=head)
    if parallel_text:
        from vlcli.commands import _shard_parallel_text as texts

        texts.refuse_of_images(
            encode=encode != "keep",
            resize=resize,
            expect=expect,
            image_root=image_root,
            part=part,
            resume=resume,
        )
        texts.write(
            o.gather(inputs, files_from),
            output,
            per_shard,
            (languages, identity, mix, sample, seed),
            (from_, o.parse_map(renames), head),
            (max_bad, rejects, report),
            force=force,
            dry_run=dry_run,
            console=console,
        )
        return
    if languages or not identity or mix or sample or seed:
        raise UsageError("--languages, --no-identity, --mix, --sample and --seed are about --parallel-text")
    resume = resume or retry_failed
    named = o.gather(inputs, files_from)
    options = Options(per_shard=per_shard, encode=encode, resize=resize)
    if report is not None:
        if rejects is not None and os.path.realpath(report) == os.path.realpath(rejects):
            raise UsageError(f"--rejects and --report name one file, {report}")
        check_place(report, force=force or resume)
    claim: OutputDirectory
    if part is not None:
        this = parse_part(part)
        source = PartedInput(named, Reading(from_, o.parse_map(renames), True, image_root))
        claim = PartOutput(output, options, this, source, dry_run=dry_run, command_line=sys.argv)
        if expect is not None and source.rows != expect:
            raise InputError(f"{source.rows} rows in all, --expect {expect}", remedy="the input is not whole")
    else:
        claim = OutputDirectory(output, options, force=force, resume=resume, command_line=sys.argv)

    def rows(bad: BadRows, *, image_bytes: bool):
        return read(
            named,
            format=from_,
            renames=o.parse_map(renames),
            head=head,
            image_bytes=image_bytes,
            image_root=image_root,
            bad=bad,
        )

    if dry_run:
        if isinstance(claim, PartOutput):
            count, shards, who = len(claim.rows), claim.shards, f"part {part} "
        else:
            count, who = count_rows(rows(BadRows(max_bad), image_bytes=False)), ""
            shards = range(-(-count // per_shard))
        print(f"{who}would write {count:,} rows into {len(shards):,} shards of {per_shard:,} in {output}/")
        if shards:
            print(f"{shard_name(shards[0])}.tar … {shard_name(shards[-1])}.tar, {encode=!s}, {resize=!s}")
        if claim.replaced:
            print(f"would remove {len(claim.replaced):,} files there, {claim.replaced[0]} first")
        if claim.standing:
            print(f"{len(claim.standing):,} shards stand already, and would be skipped")
            if retry_failed:
                failed = sum(shard.rows - shard.samples for shard in claim.standing.values())
                print(f"{failed:,} failed rows in them would be tried again")
        return
    if claim.standing:
        fate = "their failed rows tried again" if retry_failed else "kept"
        console.note(f"{output}: {len(claim.standing):,} shards stand already, and are compared and {fate}")
    with (
        RejectsWriter(rejects, force=force or resume or bool(claim.standing)) as rejected,
        ImageReader() as reader,
    ):
        bad = BadRows(max_bad, rejected)
        if isinstance(claim, PartOutput):
            batches = claim.source.batches(claim.rows, bad)
        else:
            batches = rows(bad, image_bytes=True)
        totals = Sharder(claim, retry=retry_failed).write(
            batches,
            reader,
            bad,
            expect=None if part is not None else expect,
            jobs=jobs or o.default_jobs(),
            on_shard=lambda shard, skipped: console.note(
                f"{shard.tar.name}: {shard.samples:,} of {shard.rows:,} rows, {shard.tar.bytes:,} bytes"
                + (", stood already" if skipped else ""),
                level=1,
            ),
        )
    if report is not None:
        write_json(report, build_report(totals, bad, claim, inputs=named, head=head), force=force or resume)
    failed = totals.rows - totals.samples
    console.note(
        f"{output}: {f'part {part}: ' if part is not None else ''}{totals.rows:,} rows = "
        f"{totals.samples:,} samples + {failed:,} failed, {totals.shards:,} shards, {totals.bytes:,} bytes"
        + (f" ({totals.skipped:,} shards stood already)" if totals.skipped else "")
    )
    if bad.count > failed:
        console.note(f"{bad.count - failed:,} further rows could not be read and are in no shard")
    if isinstance(claim, PartOutput) and claim.source.rows:
        if claim.missing:
            console.note(
                f"{claim.missing:,} of {len(claim.all_shards):,} shards, of other parts, are still missing"
            )
        else:
            console.note(f"all {len(claim.all_shards):,} shards stand: {output} is whole")
    elif not totals.rows:
        console.warn("no rows came: nothing is written")
    elif not quiet:
        console.note(
            f"open_clip wants at least as many shards as workers × processes: at most {totals.shards:,} here"
            " (more with a smaller --per-shard)"
        )


def _refuse_with_part(*, force: bool, retry_failed: bool, head: int | None) -> None:
    from vlcli.errors import UsageError

    if force:
        raise UsageError(
            "--force would remove what the other parts have written", remedy="remove the directory"
        )
    if retry_failed:
        raise UsageError(
            "--retry-failed is for the whole directory",
            remedy="when all parts are whole, give it without --part",
        )
    if head is not None:
        raise UsageError("--head stops after rows of the whole input, and parts each read their own")
