"""`score` of captions: files in, numbers out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlcli.commands import _evaluation as e

if TYPE_CHECKING:
    from vlcli.commands._console import Console

SHOWN = {"bleu": "BLEU-", "rougeL": "ROUGE-L", "cider": "CIDEr-D", "meteor": "METEOR"}


def run(
    captions: Sequence[str],
    references: Sequence[str] | None,
    console: Console,
    *,
    tokenizers: str,
    common: bool,
    per_image: Path | None,
    renames: Mapping[str, str],
    head: int | None,
    split: str | None,
    lang: str | None,
    bootstrap: int,
    seed: int,
    results: Path | None,
    as_json: bool,
    force: bool,
) -> None:
    from vlcli.commands._results import Lines
    from vlcli.evaluation.caption_files import read_captioned
    from vlcli.evaluation.caption_metrics.score import score_captions
    from vlcli.evaluation.caption_metrics.segment import parse_tokenizers
    from vlcli.evaluation.caption_result import described, result_of, rows_of
    from vlcli.records.atomic import atomic_file, check_place

    asked = parse_tokenizers(tokenizers)
    if per_image is not None:
        check_place(per_image, force=force)
    captioned = read_captioned(captions, references, renames=renames, head=head, common=common)
    if captioned.unknown or captioned.uncaptioned:
        console.warn(
            f"left out: {captioned.uncaptioned:,} images without a caption, "
            f"{captioned.unknown:,} without a reference"
        )
    said = described(captioned, split=split, lang=lang)

    def compute() -> dict[str, Any]:
        scores = score_captions(
            captioned.captions, captioned.references, tokenizers=asked, bootstrap=bootstrap, seed=seed
        )
        if per_image is not None:
            with atomic_file(per_image, force=force) as file:
                file.writelines(rows_of(captioned, scores))
        return result_of(said, captioned, scores, asked)

    run = " ".join(captions) or "<stdin>"
    lines = Lines(results, run, console, force=force, is_checkpoint=False)
    settings = {
        "command": "score",
        "checkpoint": said["checkpoint"],
        "split_hash": said["split_hash"],
        "tokenizers": sorted(asked),
        "bootstrap": bootstrap,
        "seed": seed,
        **{name: value for name, value in (("split", split), ("lang", lang)) if value is not None},
    }
    result = lines.once(settings, compute, anew=per_image is not None)
    if result["empty"]:
        console.warn(f"{result['empty']:,} of {result['images']:,} captions are empty: they score 0")
    if result["images"] == 1:
        console.warn("of a single image CIDEr-D is 0: it weighs words by how many images have them")
    if as_json:
        e.print_json(result)
    else:
        _show(result, run)


def _show(result: dict[str, Any], captions: str) -> None:
    """A line for each metric, a column for each tokenizer."""
    from vlcli.commands._console import show_table
    from vlcli.evaluation.caption_metrics.score import names_of

    columns = list(dict.fromkeys([*result["tokenizers"], "char"]))
    rows: dict[str, dict[str, str]] = {}
    for name in names_of(result["tokenizers"]):
        metric, _, tokenizer = name.partition("_")
        shown = SHOWN.get(metric) or SHOWN["bleu"] + metric[-1]
        rows.setdefault(shown, {})[tokenizer] = e.cell(result[name], result["ci95"].get(name))
    title = (
        f"{captions} · {result['data']} · split {result['split']} · {result['lang']} · {result['images']:,} images, "
        f"{result['references']:,} references · captions {result['checkpoint']}"
    )
    table = [[shown, *(cells.get(column, "") for column in columns)] for shown, cells in rows.items()]
    show_table(title, ["×100", *columns], table)
