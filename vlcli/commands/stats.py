"""vlcli stats: what a corpus holds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from typer import Option

from vlcli.commands import _options as o
from vlcli.errors import UsageError

EXAMPLES = (
    "vlcli stats raw.jsonl",
    "vlcli stats raw.parquet --map text=caption --wordcloud words.png --histogram sizes.svg",
    "vlcli filter raw.jsonl --preset wukong | vlcli stats --json >stats.json",
    "vlcli stats raw.jsonl --queries queries.txt --num-queries 200000 --query-words 3",
)

MANUAL = {
    "ENVIRONMENT": (("TMPDIR", "Where counts go that outgrow the memory."),),
    "NOTES": (
        (
            "Captions",
            "The strings of `text`; of `title`, `content` and `image_query` in a row without `text`.",
        ),
        (
            "Tokens",
            "By default those of Chinese BERT's WordPiece, without [CLS] and [SEP], as Wukong's Table 2 counts them.",
        ),
        ("std", "The deviation of all captions, not the estimate from a sample."),
        (
            "Queries",
            "Words that hold an ideograph, and with --query-words runs of them with nothing between, by how often they "
            "stand in the captions. --query-vocabulary has the candidates: Wukong took those of Song et al. (2018).",
        ),
        ("Words", "What the segmenter gives and has a letter in it; upper and lower case are told apart."),
    ),
}


def _of_queries(flag: str, metavar: str, help: str, **others: Any) -> Any:
    return Option(flag, metavar=metavar, help=help, rich_help_panel="A list of queries", **others)


def command(
    inputs: o.Inputs = None,
    files_from: o.FilesFrom = None,
    where: o.Where = None,
    word_unit: Annotated[str, o.WORD_UNIT] = "wordpiece",
    segmenter: o.Segmenter = "rjieba",
    words: Annotated[
        int,
        Option("--words", min=0, metavar="N", help="The most frequent words to tell; 0: none are counted."),
    ] = 20,
    stop_words: Annotated[
        Path | None,
        Option(
            "--stop-words",
            metavar="FILE",
            help="Words that are counted but neither told nor written as queries, one a line.",
        ),
    ] = None,
    wordcloud: Annotated[
        Path | None,
        Option("--wordcloud", metavar="FILE.png|svg", help="Draw the 200 most frequent words."),
    ] = None,
    histogram: Annotated[
        Path | None,
        Option(
            "--histogram",
            metavar="FILE.png|svg",
            help="Draw tokens per caption, image sizes and aspect ratios.",
        ),
    ] = None,
    queries: Annotated[
        Path | None,
        _of_queries(
            "--queries",
            "FILE",
            "Write the most frequent Chinese words and phrases, one a line, to search images with.",
        ),
    ] = None,
    num_queries: Annotated[int, _of_queries("--num-queries", "N", "Queries, at most.", min=1)] = 200_000,
    min_query_freq: Annotated[
        int,
        _of_queries("--min-query-freq", "N", "Times that a query stands in the captions, at least.", min=1),
    ] = 1,
    query_words: Annotated[
        int, _of_queries("--query-words", "N", "Adjacent words that make a phrase, at most.", min=1, max=8)
    ] = 1,
    query_vocabulary: Annotated[
        Path | None, _of_queries("--query-vocabulary", "FILE", "Only queries of this list, one a line.")
    ] = None,
    probe: Annotated[
        bool, Option("--probe", help="Read width and height from the image's header where a row lacks them.")
    ] = False,
    map: o.Map = None,
    from_: o.From = None,
    image_root: o.ImageRoot = None,
    head: o.Head = None,
    max_bad: o.MaxBad = "0",
    seed: o.Seed = 0,
    json: o.Json = False,
    force: o.Force = False,
    jobs: o.Jobs = None,
    quiet: o.Quiet = False,
    verbose: o.Verbose = 0,
) -> None:
    """Count pairs, images, captions, tokens and words, and how long, how large and how frequent they are.

    One pass, in bounded memory, and exact whatever -j is: unique tokens, medians and the frequencies of words too.
    The first table has the columns of Wukong's Table 2; --wordcloud draws its Figure 3 with every character legible,
    the same bytes for the same counts and --seed. The files of a corpus in parts are counted by naming their directory.
    """
    import time

    from vlcli.commands._console import Console, show_table
    from vlcli.commands._evaluation import print_json
    from vlcli.curation.counting import Wanted
    from vlcli.curation.ends import Source
    from vlcli.curation.query_list import Queries
    from vlcli.curation.sensitive import load_words
    from vlcli.curation.statistics import collect, cut_words
    from vlcli.curation.statistics_tables import tables
    from vlcli.figures.corpus import CLOUD_WORDS, Figures

    console = Console("stats", quiet=quiet, verbose=verbose)
    figures = Figures(wordcloud, histogram, seed=seed, force=force)
    figures.check()
    query_list = None
    if queries is not None:
        vocabulary = tuple(load_words(query_vocabulary)) if query_vocabulary is not None else None
        query_list = Queries(queries, num_queries, min_query_freq, query_words, vocabulary, force)
    elif (num_queries, min_query_freq, query_words, query_vocabulary) != (200_000, 1, 1, None):
        raise UsageError("options on queries need --queries FILE")
    wanted = Wanted.of(
        word_unit,
        segmenter,
        where=where,
        probe=probe,
        top=max(words, CLOUD_WORDS) if wordcloud is not None else words,
        skip=load_words(stop_words) if stop_words is not None else (),
        queries=query_list,
    )
    source = Source(o.gather(inputs, files_from), from_, o.parse_map(map), head, image_root)
    with console.progress("[progress.description]{task.description}", "{task.completed:,} rows") as bar:
        task, done, began = bar.add_task("counting", total=None), 0, time.monotonic()

        def on_progress(rows: int) -> None:
            nonlocal done
            done += rows
            bar.advance(task, rows)
            if not console.is_terminal and time.monotonic() - began >= console.log_every:
                console.log(f"counting: {done:,} rows")

        report = collect(
            source, wanted, max_bad=max_bad, jobs=jobs or o.default_jobs(), on_progress=on_progress
        )
    notes = figures.draw(report)
    report = cut_words(report, words)
    if json:
        print_json(report)
    else:
        for table in tables(report):
            show_table(*table)
    for line in notes:
        console.note(line)
    if report["queries"] is not None:
        written, candidates = report["queries"]["written"], report["queries"]["candidates"]
        least = report["queries"]["least_frequent"]
        rarest = f", the rarest of them {least:,} times in the captions" if written else ""
        console.note(f"{queries}: {written:,} queries of {candidates:,} candidates{rarest}")
    rows = report["rows"]
    console.note(", ".join(f"{name} {count:,}" for name, count in rows.items()), level=1)
    if rows["bad"]:
        console.note(f"{rows['bad']:,} rows were bad and are not counted")
