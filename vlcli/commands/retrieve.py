"""vlcli retrieve: recall in both directions, or the images that fit a text."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

from typer import Option

from vlcli.commands import _cxc as cxc
from vlcli.commands import _dataset as sets
from vlcli.commands import _evaluation as e
from vlcli.commands import _languages as many
from vlcli.commands import _options as o
from vlcli.commands import _results as r
from vlcli.commands import _retrieve_query as q

EXAMPLES = (
    "vlcli retrieve runs/lit-filip --data flickr30k-cn.jsonl",
    "vlcli retrieve runs/lit-filip --data flickr30k-cn.jsonl --results results.jsonl",
    "vlcli retrieve runs/lit-filip --compare runs/r2d2 --data flickr30k-cn.jsonl",
    "vlcli retrieve runs/lit-filip --data val.jsonl --mosaics mosaics.jsonl --json",
    "vlcli retrieve runs/r2d2 --data flickr30k-cn.jsonl --rerank flickr30k-cn",
    "vlcli retrieve runs/lit-filip --data shards/ --query 一只狐狸 --top 5",
    "vlcli retrieve runs/lit-filip --data shards/ --query-image fox.png --plus 雪 --minus 草地 --gallery fox.html",
    "vlcli retrieve runs/lit-filip --data val.jsonl --gallery errors.html",
    "vlcli retrieve runs/altclip-m9 --data 'xtd.{lang}.jsonl' --langs en,zh,es,fr,ru,ar,ja,ko,it",
    "vlcli retrieve runs/altclip-m9 --data val.jsonl --text-column 'name_{lang}' --langs en,ar,ja --json",
    "vlcli retrieve runs/lit-filip --dataset flickr30k-cna --data CNA/ --image-root flickr30k-images/",
    "vlcli retrieve runs/altclip-m9 --dataset xtd --data XTD10/ --langs en,zh,ja",
    "vlcli retrieve runs/lit-filip --dataset muge --data MUGE/ --split test --predictions best.jsonl "
    "--predictions-as muge",
    "vlcli retrieve runs/lit-filip --dataset cxc --data cxc/ --image-root val2014/",
)
COMPARED = {
    f"{side}.R@{k}": f"{shown} R@{k}" for side, shown in (("i2t", "I→T"), ("t2i", "T→I")) for k in (1, 5, 10)
} | {"MR": "mean recall"}
MANUAL = {"ENVIRONMENT": (e.CACHE_VARIABLE,)}


def command(
    run: e.Run,
    data: o.Data,
    dataset: sets.Dataset = None,
    query: q.Text = None,
    query_image: q.Image = None,
    plus: q.Plus = None,
    minus: q.Minus = None,
    text_scale: q.TextScale = None,
    image_scale: q.ImageScale = 1,
    top: q.Top = 10,
    mosaics: Annotated[
        Path | None,
        Option(
            "--mosaics",
            metavar="FILE",
            help="Also the pointing test: JSONL of images (four ids of --data), target (0 to 3) and text.",
        ),
    ] = None,
    rerank: Annotated[
        str | None,
        Option(
            "--rerank",
            metavar="K|SET",
            help="Rank the K best of every query anew by an R2D2's cross encoders; or the K that R2D2's paper has for "
            "flickr30k-cn, coco-cn, aic-icc, muge, icr, iqr, flickr30k-cna.",
        ),
    ] = None,
    add_similarity: Annotated[
        bool,
        Option(
            "--add-similarity", help="--rerank by the match probability plus the cosine, not by it alone."
        ),
    ] = False,
    prompts: e.Prompts = "none",
    predictions: Annotated[
        Path | None, Option("--predictions", metavar="OUT.jsonl", help="The ten best of every query.")
    ] = None,
    gallery: Annotated[
        Path | None,
        Option(
            "--gallery",
            metavar="FILE.html|.png|.svg|.json",
            help="Draw the worst ranked queries and what stands before their answer; of a search its results.",
        ),
    ] = None,
    predictions_as: Annotated[
        Literal["jsonl", "muge", "chinese-clip", "chinese-clip-tr"],
        Option(
            "--predictions-as",
            help="Rows with texts, scores and ranks; MUGE's submission; or the two files of Chinese-CLIP's evaluation, "
            "of images for texts and (tr) of texts for images.",
        ),
    ] = "jsonl",
    split: e.Split = None,
    lang: e.Lang = None,
    langs: many.Langs = None,
    text_column: Annotated[
        str | None,
        Option(
            "--text-column",
            metavar="NAME",
            help="The column that holds the texts of each of --langs, with {lang}.",
            show_default="text_{lang}, else the rows whose column lang says so",
            rich_help_panel=many.PANEL,
        ),
    ] = None,
    bootstrap: e.Bootstrap = 1000,
    seed: o.Seed = 0,
    renames: o.Map = None,
    image_root: o.ImageRoot = None,
    head: o.Head = None,
    device: o.Device = "auto",
    precision: o.Precision = "fp32",
    batch_size: o.BatchSize = 64,
    cache: e.Cache = "auto",
    results: r.Results = None,
    compare: r.Compare = None,
    json: o.Json = False,
    force: o.Force = False,
    quiet: o.Quiet = False,
    verbose: o.Verbose = 0,
) -> None:
    """Recall@1, 5, 10 from images to texts and back, with 95 % bootstrap intervals.

    Images are the distinct image_id, texts the distinct texts; whatever stands in one row belongs
    together, so an image may have several texts and a text several images. A query counts when one of its
    positives is among the first K; a wrong candidate with an equal score stands ahead. Images are
    resampled with their texts. Of --prompts one template is taken, not a set.

    With --langs the texts of each language stand in a column of their own ('text_{lang}', or what --text-column
    says), in rows whose column lang says so, or in a file each (--data 'xtd.{lang}.jsonl'). An image without a
    text in a language is a candidate there and no query. The average's interval draws an image with its texts in all
    languages at once.

    With --dataset the published files of a set are read, and --split (default: what papers report) and --lang choose
    among them; MUGE is asked from texts to images alone. Of cxc the recalls also from text to text and from image to
    image, and the correlations of the cosines with people's ratings.

    A search with --query alone ranks by the model's text→image similarity. A picture, or a picture or text with --plus
    and --minus, is one vector of length 1 (the sum of such vectors, each by its scale), and cosines rank; of a
    token-wise or reduced model the vector of a picture or text is the mean of its tokens, brought to length 1.
    """
    from vlcli.commands._console import Console, show_table
    from vlcli.errors import UsageError

    if compare is not None:
        given = {"--langs": langs, "--mosaics": mosaics, "--predictions": predictions}
        r.refuse_with_compare(given)
        e.require_run(compare)
    e.require_run(run)
    from vlcli.evaluation.captions_by_language import by_language, load_captions
    from vlcli.records.atomic import refuse_existing
    from vlcli.shards.pairs import load_pairs
    from vlcli.text.languages import named
    from vlcli.text.prompts import load_prompts

    console = Console("retrieve", quiet=quiet, verbose=verbose)
    asked_for = q.parse(query, query_image, plus, minus, text_scale, image_scale)
    if asked_for is not None:
        measured = {"--mosaics": mosaics, "--predictions": predictions, "--results": results}
        q.refuse(asked_for, {**measured, "--rerank": rerank, "--compare": compare, "--langs": langs})
    if add_similarity and rerank is None:
        raise UsageError("--add-similarity is of --rerank", remedy="--rerank K")
    if langs is not None and (mosaics or rerank is not None):
        raise UsageError("--langs goes with neither --mosaics nor --rerank")
    if gallery is not None and (langs is not None or rerank is not None or compare is not None):
        raise UsageError("--gallery goes with none of --langs, --rerank and --compare")
    drawn: dict[str, Path] = {}
    if gallery is not None:
        from vlcli.figures.gallery import error_gallery
        from vlcli.figures.request import file_names

        drawn = file_names(gallery, None, "", force=force)
    if predictions_as != "jsonl" and (predictions is None or langs is not None):
        raise UsageError("--predictions-as is about --predictions of one language")
    if rerank is not None and predictions_as != "jsonl" and rerank.isdecimal() and int(rerank) < 10:
        raise UsageError(f"--predictions-as {predictions_as} wants the ten best: --rerank 10 or more")
    if dataset is not None and text_column is not None:
        raise UsageError("--text-column names a column: a --dataset has none")
    reading = None
    if dataset is not None:
        asked = many.parse(langs, lang) if langs is not None else (lang,) if lang is not None else ()
        reading = sets.read(dataset, data, split=split, langs=asked, image_root=image_root, renames=renames)
        sets.require_one_language(reading, lang or langs)
        split = None  # the rows say it
        if reading.dataset.task == "cxc":
            if any(
                (
                    asked_for is not None,
                    mosaics,
                    rerank is not None,
                    predictions,
                    langs,
                    compare is not None,
                    gallery,
                )
            ):
                raise UsageError(
                    "--dataset cxc has its own measures: it goes with none of a query, --mosaics, --rerank, "
                    "--predictions, --gallery, --langs and --compare",
                    remedy="--dataset coco has the same captions",
                )
            if head is not None:
                raise UsageError("--dataset cxc has ratings of all its images: it does not go with --head")
            model = e.open_model(run, device, console)
            cxc.run(
                model,
                reading,
                prompts,
                console,
                r.Lines(results, run, console, force=force),
                as_json=json,
                cache=cache,
                bootstrap=bootstrap,
                seed=seed,
                batch_size=batch_size,
                precision=precision,
            )
            return
        if reading.dataset.task == "matching":
            raise UsageError(
                f"--dataset {dataset} is for matching",
                remedy=f"vlcli zeroshot --task matching --dataset {dataset}",
            )
    how: dict[str, Any] = {"bootstrap": bootstrap, "seed": seed, "split": split}
    encoding: dict[str, Any] = {"batch_size": batch_size, "precision": precision}
    of_rows: dict[str, Any] = {"renames": o.parse_map(renames), "image_root": image_root, "head": head}
    if langs is not None:
        tags = many.parse(langs, lang)
        templates = {tag: load_prompts(named(prompts, tag)) for tag in tags}
        targets = many.files(predictions, "--predictions", tags, force=force)
        if reading is not None:
            tables = by_language(sets.load(reading, console, head=head), tags)
        else:
            tables = load_captions(data, tags, column=text_column, **of_rows)

        from vlcli.evaluation.results_file import settings_of
        from vlcli.evaluation.sweep import retrieve_in

        lines = r.Lines(results, run, console, force=force)
        model = e.open_model(run, device, console)

        def settings(tag: str) -> dict[str, Any]:
            known = {"prompts": templates[tag], "lang": tag, "precision": precision, **how}
            return settings_of(model, tables[tag], command="retrieve", **known)

        with e.announcing(console) as announce, e.caching(cache, model, precision, console) as kept:
            result = lines.sweep(
                {tag: settings(tag) for tag in tables},
                lambda: retrieve_in(
                    model,
                    tables,
                    templates,
                    predictions=targets,
                    force=force,
                    announce=announce,
                    cache=kept,
                    **how,
                    **encoding,
                ),
                anew=targets is not None,
            )
        if result["encoded"]["images"]:
            many.note_saving(result, console)
        if json:
            e.print_json(result)
        else:
            _show_languages(result, " ".join(data), prompts)
        return
    if text_column is not None:
        raise UsageError("--text-column is about --langs", remedy=f"--map text={text_column}")

    from vlcli.evaluation.gallery import Gallery
    from vlcli.evaluation.leaderboards import Leaderboard
    from vlcli.evaluation.mosaics import load_mosaics
    from vlcli.evaluation.rerank import depth
    from vlcli.evaluation.results_file import digest, settings_of
    from vlcli.evaluation.tasks import Retrieval

    rerank_at = None if rerank is None else depth(rerank)
    template = load_prompts(prompts)
    pointing = load_mosaics(mosaics) if mosaics else []
    if predictions and not force:
        refuse_existing(predictions)
    lines = r.Lines(results, run, console, force=force)
    wanted = () if predictions_as == "jsonl" else ("text_id",)
    if reading is not None:
        table = sets.load(reading, console, head=head, columns=wanted)
        if len(reading.dataset.directions) == 1:
            how["directions"] = reading.dataset.directions
    else:
        table = load_pairs(data, optional=("split", "lang", *wanted), need_text=asked_for is None, **of_rows)
    lines_of = None if predictions_as == "jsonl" else Leaderboard(predictions_as, table).lines
    model = e.open_model(run, device, console)

    def measure(model: Any, lines: r.Lines, told: Callable[[Any], Any] | None = None) -> dict[str, Any]:
        """Of one checkpoint; `told` asks for what the numbers count."""

        def compute() -> dict[str, Any]:
            pool = Retrieval(model, table, template, announce=announce, cache=kept, **encoding)
            found = pool.write_metrics(
                predictions,
                force=force,
                lines=lines_of,
                lang=lang,
                rerank_at=rerank_at,
                add_similarity=add_similarity,
                **how,
            )
            if told is not None:
                told(pool)
            if drawn:
                e.draw(error_gallery(pool), drawn, console, force=force)
            if pointing:
                found["pointing"] = pool.pointing(pointing, bootstrap=bootstrap, seed=seed)
            return found

        how_ranked = None if rerank_at is None else [rerank_at, add_similarity]
        settings = settings_of(
            model,
            table,
            command="retrieve",
            prompts=template,
            lang=lang,
            precision=precision,
            rerank=how_ranked,
            mosaics=digest(pointing) if pointing else None,
            **how,
        )
        with e.announcing(console) as announce, e.caching(cache, model, precision, console) as kept:
            return lines.once(
                settings, compute, anew=told is not None or predictions is not None or bool(drawn)
            )

    if compare is not None:
        from vlcli.evaluation.comparison import compare_recalls, require_comparable

        counted: list[Any] = []
        both = [measure(model, lines, lambda pool: counted.append(pool.counted))]
        model = e.open_model(compare, device, console)
        require_comparable(both[0], model.checkpoint_hash)
        both.append(measure(model, lines.of(compare), lambda pool: counted.append(pool.counted)))
        positives = Gallery.of(table).positives
        difference = compare_recalls(counted[0], counted[1], positives, bootstrap=bootstrap, seed=seed)
        if json:
            e.print_json({"results": both, "difference": difference})
        else:
            r.show_comparison(both, difference, [run, compare], COMPARED)
        return
    if asked_for is not None:
        with e.announcing(console) as announce, e.caching(cache, model, precision, console) as kept:
            pool = Retrieval(model, table, template, announce=announce, cache=kept, **encoding)
            q.run(asked_for, pool, top, drawn, console, as_json=json, force=force)
        return
    result = measure(model, lines)
    if json:
        e.print_json(result)
    elif result["MR"] is None:
        console.note(f"nothing says which images the {result['texts']:,} texts are of: {predictions} is all")
    else:
        show_table(e.title(result), *_table(result))


def _table(result: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    bounds, sides = result["ci95"], [side for side in ("i2t", "t2i") if result[side] is not None]
    rows = [
        [name, *(e.cell(result[side][name], bounds.get(side, {}).get(name)) for side in sides)]
        for name in result[sides[0]]
    ]
    empty = [""] * (len(sides) - 1)
    rows.append(["mean recall", e.cell(result["MR"], bounds.get("MR")), *empty])
    if "pointing" in result:
        test = result["pointing"]
        name = f"pointing, {test['n']} mosaics, chance {test['chance']:.0f}"
        rows.append([name, e.cell(test["accuracy"], test["ci95"]), *empty])
    arrows = {
        "i2t": f"{result['images']} images → {result['texts']} texts",
        "t2i": f"{result['texts']} texts → {result['images']} images",
    }
    return ["", *(arrows[side] for side in sides)], rows


def _show_languages(result: dict[str, Any], data: str, prompts: str) -> None:
    """A line for each language; the intervals of single recalls, and how many texts there are, are in the JSON."""
    sides = {"i2t": "I→T", "t2i": "T→I"}
    recalls = [(side, name) for side in sides for name in result["average"][side]]
    header = ["", *(f"{sides[side]}\n{name}" for side, name in recalls), "mean recall"]
    cells = [
        [*(e.cell(one[side][name], None) for side, name in recalls), e.cell(one["MR"], one["ci95"].get("MR"))]
        for one in (*result["langs"], result["average"])
    ]
    many.show(result, {"data": data, "prompts": prompts}, header, cells)
