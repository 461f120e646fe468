"""vlcli retrieve: recall in both directions, or the images that fit a text."""

from __future__ import annotations

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
    "vlcli retrieve runs/lit-filip --index embeddings/ --query 一只狐狸",
    "vlcli retrieve runs/lit-filip --data val.jsonl --preselect 100",
    "vlcli retrieve runs/lit-filip --data val.jsonl --query-image fox.png --best-texts --top 5",
    "vlcli retrieve runs/lit-filip --data val.jsonl --gallery errors.html",
    "vlcli retrieve runs/altclip-m9 --data 'xtd.{lang}.jsonl' --langs en,zh,es,fr,ru,ar,ja,ko,it",
    "vlcli retrieve runs/altclip-m9 --data val.jsonl --text-column 'name_{lang}' --langs en,ar,ja --json",
    "vlcli retrieve runs/lit-filip --dataset flickr30k-cna --data CNA/ --image-root flickr30k-images/",
    "vlcli retrieve runs/altclip-m9 --dataset xtd --data XTD10/ --langs en,zh,ja",
    "vlcli retrieve runs/lit-filip --dataset muge --data MUGE/ --split test --predictions best.jsonl "
    "--predictions-as muge",
    "vlcli retrieve runs/lit-filip --dataset cxc --data cxc/ --image-root val2014/",
)
MANUAL = {"ENVIRONMENT": (e.CACHE_VARIABLE,)}


def command(
    run: e.Run,
    data: o.DataOrNone = None,
    dataset: sets.Dataset = None,
    query: q.Text = None,
    query_image: q.Image = None,
    plus: q.Plus = None,
    minus: q.Minus = None,
    text_scale: q.TextScale = None,
    image_scale: q.ImageScale = 1,
    top: q.Top = 10,
    texts: q.Texts = False,
    index: q.Index = None,
    preselect: Annotated[
        int | None,
        Option(
            "--preselect",
            min=1,
            metavar="K",
            help="Of a token-wise model: vectors choose the K nearest, and the exact similarity ranks these alone; "
            "without a query, what recall that costs.",
        ),
    ] = None,
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
    rerank_score: Annotated[
        Literal["match", "match+similarity", "posterior"],
        Option(
            "--rerank-score",
            help="--rerank by the match probability; by it plus the cosine, as R2D2's released code does; or by the "
            "log-odds of a match plus cosine / temperature, which is what both say together.",
        ),
    ] = "match",
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

    With --index the cosines are those of the vectors that 'vlcli embed' wrote with the same checkpoint, a text's too;
    all of them are compared, in blocks, and memory does not grow with their number; DIR/image.index, which embed
    --faiss makes, spares most of that and may miss some. A row there is a result. With --preselect the pictures of the
    K nearest rows are read, and a text's own similarity with them ranks.
    """
    from vlcli.commands._console import Console
    from vlcli.commands._retrieve_measure import COMPARED, Measure, show
    from vlcli.errors import UsageError

    if compare is not None:
        given = {"--langs": langs, "--mosaics": mosaics, "--predictions": predictions}
        r.refuse_with_compare(given)
        e.require_run(compare)
    e.require_run(run)
    from vlcli.evaluation.captions_by_language import by_language, load_captions
    from vlcli.evaluation.preselection import refuse_exact
    from vlcli.records.atomic import refuse_existing
    from vlcli.shards.pairs import load_pairs
    from vlcli.text.prompts import load_prompts

    console = Console("retrieve", quiet=quiet, verbose=verbose)
    asked_for = q.parse(query, query_image, plus, minus, text_scale, image_scale)
    if asked_for is not None:
        measured = {"--mosaics": mosaics, "--predictions": predictions, "--results": results}
        q.refuse(asked_for, {**measured, "--rerank": rerank, "--compare": compare, "--langs": langs})
    if preselect is not None:
        q.refuse_preselection(
            asked_for,
            {"--rerank": rerank, "--langs": langs, "--compare": compare, "--predictions": predictions},
        )
    if texts and (asked_for is None or index is not None):
        raise UsageError("--best-texts ranks the texts of --data for a picture", remedy="--query-image FILE")
    if texts and gallery is not None:
        raise UsageError("--best-texts finds texts: there is no --gallery of them")
    if index is not None:
        pairs: dict[str, Any] = {"--data": data, "--dataset": dataset, "--gallery": gallery, "--head": head}
        q.refuse_with_index(
            asked_for, {**pairs, "--map": renames, "--image-root": image_root and not preselect}
        )
        assert asked_for is not None
        model = e.open_model(run, device, console)
        if preselect is not None:
            refuse_exact(model)
        q.run_index(
            asked_for,
            index,
            model,
            prompts,
            top,
            preselect=preselect,
            image_root=image_root,
            as_json=json,
            batch_size=batch_size,
            precision=precision,
        )
        return
    if not data:
        raise UsageError("no pairs", remedy="--data FILE, or --index DIR and a query")
    if rerank_score != "match" and rerank is None:
        raise UsageError("--rerank-score is of --rerank", remedy="--rerank K")
    if langs is not None and (mosaics or rerank is not None):
        raise UsageError("--langs goes with neither --mosaics nor --rerank")
    if gallery is not None and (langs is not None or rerank is not None or compare is not None):
        raise UsageError("--gallery goes with none of --langs, --rerank and --compare")
    drawn: dict[str, Path] = {}
    if gallery is not None:
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
            others = (mosaics, rerank, predictions, langs, compare, gallery)
            if asked_for is not None or any(value is not None for value in others):
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
    if reading is not None and len(reading.dataset.directions) == 1:
        how["directions"] = reading.dataset.directions
    encoding: dict[str, Any] = {"batch_size": batch_size, "precision": precision}
    of_rows: dict[str, Any] = {"renames": o.parse_map(renames), "image_root": image_root, "head": head}
    if langs is not None:
        from vlcli.commands._retrieve_languages import in_languages

        tags = many.parse(langs, lang)
        targets = many.files(predictions, "--predictions", tags, force=force)
        in_languages(
            run,
            tags,
            lambda: (
                by_language(sets.load(reading, console, head=head), tags)
                if reading is not None
                else load_captions(data, tags, column=text_column, **of_rows)
            ),
            prompts,
            r.Lines(results, run, console, force=force),
            console,
            title=" ".join(data),
            targets=targets,
            device=device,
            cache=cache,
            how=how,
            encoding=encoding,
            as_json=json,
            force=force,
        )
        return
    if text_column is not None:
        raise UsageError("--text-column is about --langs", remedy=f"--map text={text_column}")

    from vlcli.evaluation.leaderboards import Leaderboard
    from vlcli.evaluation.mosaics import load_mosaics
    from vlcli.evaluation.rerank import depth
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
    else:
        table = load_pairs(
            data, optional=("split", "lang", *wanted), need_text=asked_for is None or texts, **of_rows
        )
    lines_of = None if predictions_as == "jsonl" else Leaderboard(predictions_as, table).lines
    model = e.open_model(run, device, console)
    if preselect is not None:
        refuse_exact(model)
    if asked_for is not None:
        with e.announcing(console) as announce, e.caching(cache, model, precision, console) as kept:
            pool = Retrieval(model, table, template, announce=announce, cache=kept, **encoding)
            if texts:
                q.run_texts(asked_for, pool, top, as_json=json)
            else:
                drawing: dict[str, Any] = {"preselect": preselect, "as_json": json, "force": force}
                q.run(asked_for, pool, top, drawn, console, **drawing)
        return
    measure = Measure(
        table,
        template,
        pointing,
        rerank_at,
        rerank_score,
        preselect,
        predictions,
        lines_of,
        drawn,
        lang,
        how,
        encoding,
        cache,
        console,
        force,
    )
    if compare is not None:
        both, difference = measure.compare(model, compare, device, lines)
        if json:
            e.print_json({"results": both, "difference": difference})
        else:
            r.show_comparison(both, difference, [run, compare], COMPARED)
        return
    result = measure(model, lines)
    if json:
        e.print_json(result)
    elif result["MR"] is None:
        console.note(f"nothing says which images the {result['texts']:,} texts are of: {predictions} is all")
    else:
        show(result)
