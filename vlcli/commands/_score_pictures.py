"""`score` of pictures: generated and real ones in, distances and fidelity out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlcli.commands import _evaluation as e
from vlcli.errors import UsageError

if TYPE_CHECKING:
    from vlcli.commands._console import Console


def run(
    pictures: Sequence[str] | None,
    against: Sequence[str] | None,
    features: str,
    encoder: str | None,
    console: Console,
    *,
    subsets: int,
    renames: Mapping[str, str],
    image_root: Path | None,
    head: int | None,
    split: str | None,
    lang: str | None,
    bootstrap: int,
    seed: int,
    device: str,
    precision: str,
    batch_size: int,
    cache: str,
    results: Path | None,
    as_json: bool,
    force: bool,
) -> None:
    if not pictures:
        raise UsageError("no generated pictures", remedy="--pictures FILE")
    if not against and encoder is None:
        raise UsageError(
            "nothing to judge the pictures by", remedy="--against FILE (real pictures), or --encoder RUN"
        )
    if encoder is not None:
        e.require_run(encoder)
    from vlcli.commands._results import Lines
    from vlcli.evaluation.picture_metrics.features import open_features
    from vlcli.evaluation.picture_metrics.score import (
        GENERATED_BY,
        described,
        distances,
        fidelity,
        pictures_hash,
        refuse_the_maker,
    )
    from vlcli.shards.pairs import load_pairs

    reading: dict[str, Any] = {
        "renames": renames,
        "image_root": image_root,
        "head": head,
        "optional": ("split", "lang", GENERATED_BY),
    }
    generated = load_pairs(pictures, need_text=encoder is not None, **reading)
    real = load_pairs(against, need_text=False, **reading) if against else None
    model = net = None
    if encoder is not None:
        model = e.open_model(encoder, device, console)
        refuse_the_maker(generated, model.checkpoint_hash)
    if real is not None:
        net = open_features(features, device=device, precision=precision)
        console.note(f"features: {net.name}, {net.dim} dimensions, {net.checkpoint_hash}", level=1)
        if (least := min(len(generated), len(real))) <= net.dim:
            console.warn(
                f"{least:,} pictures do not span the {net.dim:,} dimensions of {net.name}: FID is large for "
                "their number alone; KID is not"
            )
    said = described(pictures_hash(generated), generated, real, split=split, lang=lang)
    how: dict[str, Any] = {"batch_size": batch_size, "precision": precision}

    def compute() -> dict[str, Any]:
        found: dict[str, Any] = {**said, "ci95": {}}
        with e.announcing(console) as announce:
            if net is not None:
                with e.caching(cache, net, precision, console) as kept:
                    found |= distances(
                        generated, real, net, subsets=subsets, seed=seed, cache=kept, announce=announce, **how
                    )
            if model is not None:
                with e.caching(cache, model, precision, console) as kept:
                    found |= fidelity(
                        generated, model, bootstrap=bootstrap, seed=seed, cache=kept, announce=announce, **how
                    )
        return found

    run = " ".join(pictures)
    lines = Lines(results, run, console, force=force, is_checkpoint=False)
    settings = {
        "command": "score",
        "checkpoint": said["checkpoint"],
        "split_hash": said["split_hash"],
        "features": None if net is None else net.record(),
        "encoder": None if model is None else model.checkpoint_hash,
        "subsets": subsets,
        "bootstrap": bootstrap,
        "seed": seed,
        "precision": precision,
        **{name: value for name, value in (("split", split), ("lang", lang)) if value is not None},
    }
    result = lines.once(settings, compute)
    if as_json:
        e.print_json(result)
    else:
        _show(result, run)


def _show(result: dict[str, Any], pictures: str) -> None:
    """Every number with what it was taken in, and of how many pictures."""
    from vlcli.commands._console import show_table

    rows = []
    if "kid" in result:
        net = f"{result['features']['net']}, {result['features']['dim']:,} dimensions"
        counts = f"{result['n']:,} generated, {result['n_real']:,} real"
        subsets = f"{result['kid_subsets']} subsets of {result['kid_size']:,}"
        kid = f"{result['kid'] * 1000:.2f} ± {result['kid_sd'] * 1000:.2f}"
        rows += [
            ["KID × 1000", kid, net, f"{counts}; {subsets}"],
            ["FID", f"{result['fid']:.2f}", net, counts],
        ]
    if "clip_score" in result:
        bounds, encoder = result["ci95"], f"encoder {result['encoder']}"
        of = f"{result['n']:,} generated, {result['texts']:,} captions"
        rows += [
            ["CLIP score", e.cell(result["clip_score"], bounds.get("clip_score")), encoder, of],
            ["R@1, picture → caption", e.cell(result["R@1"], bounds.get("R@1")), encoder, of],
        ]
    title = f"{pictures} · {result['data']} · split {result['split']} · pictures {result['checkpoint']}"
    show_table(title, ["", "", "in", "of"], rows)
