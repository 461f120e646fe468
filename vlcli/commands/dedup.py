"""vlcli dedup: pairs without near-duplicates, of each other or of evaluation sets."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from typer import Option

from vlcli.commands import _encoder as e
from vlcli.commands import _options as o

if TYPE_CHECKING:
    from vlcli.commands._console import Console

EXAMPLES = (
    "vlcli dedup raw.parquet -o unique.jsonl --rejects twins.jsonl --sheet twins.png",
    "vlcli filter raw.parquet --preset wukong | vlcli dedup | vlcli shard -o shards/",
    "vlcli dedup raw.jsonl --against val.jsonl --radius 6 -o train.jsonl --report report.json",
    "vlcli dedup raw.jsonl --checkpoint runs/lit-filip --min-cosine '>0.975' -o unique.jsonl",
)

MANUAL = {
    "MEMORY": (
        ("--method bytes", "16 bytes a row are held, and some 100 while they are sorted."),
        ("--method phash", "8 bytes a row are held, and some 100 while they are compared."),
        (
            "--method vectors",
            "The vectors stay on disk (2 bytes a dimension in float16), and a quarter of their dimensions is written"
            " beside them, to a file in $TMPDIR (1 byte for each of all dimensions); 40 bytes a row are held for its"
            " ten clusters, and some 200 while these are sorted.",
        ),
        ("--against", "The keys, ids and references of all its rows are held besides."),
    ),
    "NOTES": (
        (
            "",
            "Among themselves the rows that are linked, directly or through others, make a group, of which the first"
            " in input order stays. --rejects names that row (`twin`) and what stands between the two (`measure`:"
            " bits, or the cosine), which is beyond the bound where only others link them.",
        ),
        (
            "",
            "Vectors are compared as ALIGN's Appendix A says: k-means clusters, the ten nearest of each image by"
            " Euclidean distance of vectors of length 1, candidates that share three of them, cosine above 0.975."
            " The paper learns its clusters on another data set; here they are learnt on a sample of the input, 39"
            " vectors a cluster, in the 32 dimensions along which it varies most. With fewer than 39 vectors a cluster"
            " there are fewer clusters, and with very few vectors, or --clusters 0, all are compared with all.",
        ),
        (
            "",
            "A perceptual hash sees brightness and no colours: a red and a blue heart are equal, and so are all "
            "pictures of one colour. --sheet shows what a bound takes for equal.",
        ),
    ),
    "ENVIRONMENT": (
        (
            "TMPDIR",
            "Where a pipe, which is read twice, is spooled, vectors that are computed, and a part of all vectors.",
        ),
        (
            "OMP_NUM_THREADS",
            "Threads of the vector method, where that is fewer than -j; of a model, whatever -j is.",
        ),
    ),
}

_VECTORS = "Vectors (--method vectors)"


def command(
    inputs: o.Inputs = None,
    files_from: o.FilesFrom = None,
    output: o.Output = None,
    method: Annotated[
        Literal["bytes", "phash", "vectors"] | None,
        Option(
            "--method",
            help="What is compared: equal files; perceptual hashes; vectors. Default: phash, or vectors where an "
            "option says what gives them.",
        ),
    ] = None,
    against: Annotated[
        list[str] | None,
        Option(
            "--against",
            metavar="FILE",
            help="Drop what is near a row of these pairs (with --embeddings: a directory of embeddings), and compare "
            "with nothing else; repeatable.",
        ),
    ] = None,
    radius: Annotated[
        int,
        Option(
            "--radius", min=0, max=31, metavar="BITS", help="Of phash: at most so many of 64 bits differ."
        ),
    ] = 4,
    embeddings: Annotated[
        Path | None,
        Option(
            "--embeddings",
            metavar="DIR",
            help="Vectors of the input's images, from vlcli embed.",
            rich_help_panel=_VECTORS,
        ),
    ] = None,
    checkpoint: Annotated[
        str | None,
        Option(
            "--checkpoint",
            metavar="RUN",
            help="Compute the vectors with this model.",
            rich_help_panel=_VECTORS,
        ),
    ] = None,
    tower: e.Tower = None,
    init: o.Init = None,
    size: e.Size = None,
    min_cosine: Annotated[
        str,
        Option(
            "--min-cosine",
            metavar="C",
            help="Cosine of near-duplicates, at least; '>0.975' is strict.",
            rich_help_panel=_VECTORS,
        ),
    ] = ">0.975",
    clusters: Annotated[
        int,
        Option(
            "--clusters",
            min=0,
            metavar="N",
            help="k-means clusters; 0: compare all with all.",
            rich_help_panel=_VECTORS,
        ),
    ] = 4096,
    nearest: Annotated[
        int,
        Option(
            "--nearest", min=1, metavar="N", help="Nearest clusters of an image.", rich_help_panel=_VECTORS
        ),
    ] = 10,
    shared: Annotated[
        int,
        Option(
            "--shared",
            min=1,
            metavar="N",
            help="Clusters that two images must share to be compared.",
            rich_help_panel=_VECTORS,
        ),
    ] = 3,
    device: o.Device = "auto",
    precision: o.Precision = "fp32",
    batch_size: o.BatchSize = 64,
    seed: o.Seed = 0,
    sheet: Annotated[
        Path | None,
        Option(
            "--sheet", metavar="FILE.png", help="Contact sheet of up to 48 pairs found, from near to far."
        ),
    ] = None,
    renames: o.Map = None,
    from_: o.From = None,
    to: o.To = None,
    image_root: o.ImageRoot = None,
    embed_images: Annotated[
        bool, Option("--embed-images", help="Put the pixels into the output (arrow, parquet).")
    ] = False,
    head: o.Head = None,
    max_bad: o.MaxBad = "0",
    rejects: o.Rejects = None,
    report: o.Report = None,
    force: o.Force = False,
    dry_run: o.DryRun = False,
    jobs: o.Jobs = None,
    quiet: o.Quiet = False,
    verbose: o.Verbose = 0,
) -> None:
    """Drop rows whose image is the same as, or nearly the same as, that of an earlier row or of an evaluation set.

    Images alone are compared, not texts. Of each group the first row in input order stays. Hashes within --radius
    are all found, and so are equal files; vectors go through ALIGN's clusters, which miss few pairs. The input is
    read twice (a pipe is spooled to $TMPDIR); only hashes are held: 16 bytes a row (bytes), 8 (phash), 40 (vectors,
    which stay on disk). A row whose image cannot be read is bad. -j threads read, hash and compare.
    """
    import sys
    import time
    from contextlib import ExitStack

    from vlcli.commands._console import Console, show_table
    from vlcli.curation.bounds import parse_bound
    from vlcli.curation.ends import Source, Target
    from vlcli.curation.near_vectors import Clusters
    from vlcli.curation.twins import Bytes, Cosines, Hashes, Method
    from vlcli.errors import UsageError
    from vlcli.records.atomic import atomic_file, check_place

    console = Console("dedup", quiet=quiet, verbose=verbose)
    makers = {"--embeddings": embeddings, "--checkpoint": checkpoint, "--tower": tower}
    given = [name for name, value in makers.items() if value is not None]
    if len(given) > 1:
        raise UsageError(f"{given[0]} and {given[1]} exclude each other")
    method = method or ("vectors" if given else "phash")
    if given and method != "vectors":
        raise UsageError(f"{given[0]} goes with --method vectors")
    if method == "vectors" and not given:
        raise UsageError("--method vectors needs vectors", remedy="--embeddings, --checkpoint or --tower")
    e.check(checkpoint, tower, init, size)
    threads = jobs or o.default_jobs()
    ways: dict[str, Method] = {
        "bytes": Bytes(),
        "phash": Hashes(radius),
        "vectors": Cosines(
            parse_bound(min_cosine, "min", "--min-cosine", whole=False),
            Clusters(clusters, nearest, shared),
            seed,
            threads,
        ),
    }
    way = ways[method]
    source = Source(o.gather(inputs, files_from), from_, o.parse_map(renames), head, image_root)
    target = Target(output, to, rejects, report, force=force, embed_images=embed_images)
    if dry_run:
        lines = [[k, str(v)] for k, v in way.rules().items()]
        lines += [["against", name] for name in against or ()]
        lines += [[line["rule"], line["value"]] for line in (*source.table(), *target.table())]
        show_table("dedup", ["", "value"], lines, stream=sys.stdout)
        return
    if sheet is not None:
        from vlcli.figures.fonts import find_fonts

        check_place(sheet, force=force)
        find_fonts()

    from vlcli.curation.dedup import dedup_pairs, summary

    with (
        ExitStack() as stack,
        console.progress("[progress.description]{task.description}", "{task.completed:,} rows") as bar,
    ):
        tasks: dict[str, Any] = {}
        done: dict[str, int] = {}
        began = time.monotonic()

        def on_progress(doing: str, rows: int) -> None:
            if doing not in tasks:
                tasks[doing] = bar.add_task(doing, total=None)
            bar.advance(tasks[doing], rows)
            done[doing] = done.get(doing, 0) + rows
            if not console.is_terminal and time.monotonic() - began >= console.log_every:
                console.log(f"{doing}: {done[doing]:,} rows")

        if method == "vectors":
            encode = None
            if embeddings is None:
                encode = _encode(checkpoint, tower, init, size, device, precision, batch_size, console)
            source, keys, others, encoder = _vectors(source, against, embeddings, encode, stack, on_progress)
        else:
            (keys, others), encoder = _hashes(method, source, against, threads, on_progress), None
        result, pairs = dedup_pairs(
            way,
            keys,
            source,
            target,
            others=others,
            against=against or (),
            encoder=encoder,
            max_bad=max_bad,
            sheet=48 if sheet is not None else 0,
            on_progress=on_progress,
        )
        if sheet is not None:
            from vlcli.figures.contact import contact_sheet

            with atomic_file(sheet, force=force) as file:
                file.write(contact_sheet(_shown(pairs)))
    console.note(summary(result))


def _hashes(method: str, source: Any, against: list[str] | None, jobs: int, on_progress: Any) -> Any:
    """What makes the keys of the input, and the keys of the evaluation sets."""
    import numpy as np

    from vlcli.curation.dedup import read_others
    from vlcli.curation.ends import Source
    from vlcli.curation.keys import ImageKeys, phash_key, sha256_key

    key: Any = phash_key() if method == "phash" else sha256_key

    def keys() -> ImageKeys:
        return ImageKeys(key, np.uint64, 1 if method == "phash" else 2, jobs=jobs)

    others = None
    if against:
        others = read_others(Source(against, renames=source.renames), keys(), on_progress)
    return keys, others


def _encode(
    checkpoint: str | None,
    tower: str | None,
    init: list[str] | None,
    size: int | None,
    device: str,
    precision: str,
    batch_size: int,
    console: Console,
) -> Any:
    """A function that embeds the images of a source into a directory."""
    encoder = e.open_encoder(checkpoint, tower, init, size, device, precision, console)

    def encode(source: Any, output: Path, on_progress: Any) -> None:
        from vlcli.evaluation.embed_pairs import Options, embed_pairs
        from vlcli.images.resolve import ImageReader
        from vlcli.records.bad import BadRows
        from vlcli.shards.stream import stream_rows

        bad = BadRows("100%")  # dedup itself counts them
        with ImageReader() as reader:
            embed_pairs(
                encoder,
                lambda skip: stream_rows(
                    source.inputs,
                    reader,
                    bad=bad,
                    skip=skip,
                    format=source.format,
                    renames=source.renames,
                    image_root=source.image_root,
                    head=source.head,
                ),
                output,
                Options(("image",), 100_000),
                bad,
                batch_size=batch_size,
                precision=precision,
                on_rows=lambda rows: on_progress("embedding", rows),
            )

    return encode


def _vectors(
    source: Any,
    against: list[str] | None,
    embeddings: Path | None,
    encode: Any,
    stack: Any,
    on_progress: Any,
) -> Any:
    """The source (a pipe spooled), its keys, those of the evaluation sets, and what made the vectors."""
    import tempfile
    from dataclasses import replace

    from vlcli.curation.dedup import read_embedded, read_others
    from vlcli.curation.embeddings import Embeddings
    from vlcli.curation.ends import Source
    from vlcli.curation.keys import VectorKeys
    from vlcli.records.reader import repeatable

    if embeddings is not None:
        found = Embeddings(embeddings)
        others = read_embedded(found, [Embeddings(path) for path in against]) if against else None
        return source, lambda: VectorKeys(found), others, found.encoder
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="vlcli-dedup-")))
    source = replace(source, inputs=repeatable(source.inputs))
    encode(source, folder / "input", on_progress)
    found, others = Embeddings(folder / "input"), None
    if against:
        evaluation = Source(repeatable(against), renames=source.renames)
        encode(evaluation, folder / "against", on_progress)
        others = read_others(evaluation, VectorKeys(Embeddings(folder / "against")), on_progress)
    return source, lambda: VectorKeys(found), others, found.encoder


def _shown(pairs: Any) -> list[Any]:
    """The pairs as a contact sheet takes them; the row that was dropped stands left."""
    from functools import partial

    from vlcli.figures.contact import Shown
    from vlcli.images.resolve import ImageReader

    reader = ImageReader()

    def bytes_of(picture: Any) -> bytes:
        return picture.data if picture.data is not None else reader.read(picture.reference or "")

    return [
        Shown(
            partial(bytes_of, pair.dropped),
            partial(bytes_of, pair.kept),
            (pair.dropped.id, pair.kept.id),
            pair.said,
        )
        for pair in pairs
    ]
