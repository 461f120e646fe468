"""vlcli tokenize: the ids of texts, and vocabularies learnt from them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from typer import Option

from vlcli.commands import _complete as complete
from vlcli.commands import _options as o

EXAMPLES = (
    "vlcli tokenize raw.jsonl -o ids.jsonl",
    "vlcli tokenize raw.parquet --map text=caption --length 64 --find 狐狸 -o ids.parquet",
    "vlcli tokenize raw.parquet -o ids/ -j 4",
    "vlcli tokenize raw.jsonl --train wordpiece --vocab-size 100000 -o vocabulary/",
)

MANUAL = {
    "ENVIRONMENT": (
        ("RAYON_NUM_THREADS", "Threads of --train, and with -j 1 of a tokenizer.json; default: all cores."),
    ),
    "NOTES": (
        (
            "Other tokenizers",
            "XLM-R, RoBERTa-wwm and the like are read from a local directory: from its tokenizer.json or vocab.txt,"
            " from older files by transformers where that is installed. Nothing is downloaded.",
        ),
        (
            "clip-bpe",
            "Reads the merges of an installed open_clip_torch; --tokenizer bpe_simple_vocab_16e6.txt.gz reads any"
            " copy. Texts are not repaired with ftfy, which would make Chinese punctuation ASCII.",
        ),
        (
            "-o DIR/",
            "The files are the same for any --part i/n. A unit that stands is skipped by the same command again; other"
            " input, tokenizer or options are refused. In several parts every row must have an id: filter writes them.",
        ),
        (
            "The name token",
            "〈人名〉 is one token of wordpiece-zh, in the place of [unused1], and of every vocabulary that is learnt.",
        ),
    ),
}


def command(
    inputs: o.Inputs = None,
    files_from: o.FilesFrom = None,
    output: o.Output = None,
    tokenizer: Annotated[
        str,
        Option(
            "--tokenizer",
            metavar="wordpiece-zh|clip-bpe|DIR|FILE",
            help="What cuts texts into tokens.",
            autocompletion=complete.words("wordpiece-zh", "clip-bpe"),
        ),
    ] = "wordpiece-zh",
    length: Annotated[
        int | None,
        Option(
            "--length",
            min=3,
            metavar="N",
            help="Tokens of a text at most, special ones counted; the last of them stays.",
            show_default="32 for wordpiece-zh, else 77",
        ),
    ] = None,
    find: Annotated[
        str | None,
        Option("--find", metavar="LABEL", help="Also write where its tokens stand, as `positions`."),
    ] = None,
    find_column: Annotated[
        str | None,
        Option("--find-column", metavar="COLUMN", help="The same for the label that each row has."),
    ] = None,
    train: Annotated[
        Literal["wordpiece", "bpe"] | None,
        Option("--train", help="Learn a vocabulary from the texts instead, into the directory -o."),
    ] = None,
    vocab_size: Annotated[
        int | None,
        Option(
            "--vocab-size",
            min=1,
            metavar="N",
            help="Pieces of the vocabulary to learn.",
            show_default="100000",
        ),
    ] = None,
    map: o.Map = None,
    from_: o.From = None,
    to: o.To = None,
    image_root: o.ImageRoot = None,
    head: o.Head = None,
    max_bad: o.MaxBad = "0",
    rejects: o.Rejects = None,
    force: o.Force = False,
    part: o.Part = None,
    jobs: o.Jobs = None,
    quiet: o.Quiet = False,
    verbose: o.Verbose = 0,
) -> None:
    """Write pairs with the token ids of their texts, or learn a vocabulary from them.

    `input_ids` is a list of numbers, a list of such lists where `text` is a list. `positions` has, for each
    time that a label stands in the text, where its tokens are in `input_ids`. --train writes tokenizer.json and
    vocab.txt: WordPiece by BERT's rules, or a byte-level BPE; ALIGN's have 100,000 and, multilingual, 250,000
    pieces. Equal texts in equal order give equal files.

    -o DIR/ writes a file for each row group, or each 64 MiB of lines, of the input, and goes on where an earlier run
    with the same input and options has stopped; --part i/n does so for one part of them.
    """
    import time

    from vlcli.commands._console import Console
    from vlcli.curation.ends import Source, Target
    from vlcli.curation.token_work import Encoding
    from vlcli.curation.tokenizing import tokenize_pairs, tokenize_part
    from vlcli.curation.vocabulary import learn_vocabulary
    from vlcli.errors import UsageError

    console = Console("tokenize", quiet=quiet, verbose=verbose)
    if train is not None and (output is None or output == "-"):
        raise UsageError("--train writes several files", remedy="name a directory with -o")
    if train is not None and (to or rejects or find or find_column or length or part):
        raise UsageError("--train takes no --to, --rejects, --find, --find-column, --length and --part")
    if train is None and vocab_size is not None:
        raise UsageError(
            "--vocab-size is of a vocabulary to learn", remedy="add --train wordpiece or --train bpe"
        )
    this_part = o.choose_part(part, output, force=force) if train is None else None
    source = Source(o.gather(inputs, files_from), from_, o.parse_map(map), head, image_root)
    with console.progress("[progress.description]{task.description}", "{task.completed:,} rows") as bar:
        task, done, began = bar.add_task("reading", total=None), 0, time.monotonic()

        def on_progress(rows: int) -> None:
            nonlocal done
            done += rows
            bar.advance(task, rows)
            if not console.is_terminal and time.monotonic() - began >= console.log_every:
                console.log(f"reading: {done:,} rows")

        if train is not None:
            counts = learn_vocabulary(
                train,
                vocab_size or 100_000,
                source,
                str(output),
                force=force,
                max_bad=max_bad,
                on_progress=on_progress,
            )
        else:
            encoding = Encoding(tokenizer, length, find, find_column)
            target = Target(output, to, rejects, force=force)
            effort: Any = {"max_bad": max_bad, "jobs": jobs or o.default_jobs(), "on_progress": on_progress}
            if this_part is None:
                counts = tokenize_pairs(encoding, source, target, **effort)
            else:
                counts, units = tokenize_part(encoding, source, target, this_part, **effort)
                console.note(o.part_note(output, units))
    console.note(", ".join(f"{name} {count:,}" for name, count in counts.items()))
    if train is not None and counts["pieces"] < (vocab_size or 100_000):
        console.note("the texts gave no more pieces")
