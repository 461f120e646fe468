"""The stages of a classifier's training: the head on frozen features, then all layers from that head (ALIGN §5.3)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from vlcli.images.config import PreprocessConfig
from vlcli.models.checkpoint import load_classifier
from vlcli.models.classifier import Classifier, classifier_at
from vlcli.models.dual import DualEncoder
from vlcli.models.positions import refuse_partial_patches
from vlcli.schemas.classification import ClassifyRecipe, Stage
from vlcli.training.class_loader import ClassTable
from vlcli.training.class_trials import applied, drawn
from vlcli.training.classification import Classification
from vlcli.training.meter import Reporter
from vlcli.training.processes import on_main

PROBE = "probe"  # in a run's directory, the run of its first stage


def resolutions(
    recipe: ClassifyRecipe, stage: Stage, body: Any, checkpoint: PreprocessConfig
) -> tuple[PreprocessConfig, PreprocessConfig]:
    """`recipe.preprocessing` for the timm model `body`. UsageError for a size that its patches do not divide."""
    train, evaluation = recipe.preprocessing(stage, checkpoint)
    refuse_partial_patches(body, train.size, f"{stage}.size")
    refuse_partial_patches(body, evaluation.size, f"{stage}.eval_size")
    return train, evaluation


def try_resolutions(recipe: ClassifyRecipe, body: Any, checkpoint: PreprocessConfig) -> None:
    """UsageError for a stage of the recipe, or of one of its trials, that a checkpoint cannot go through."""
    for one in [recipe, *(applied(recipe, point) for point in drawn(recipe))]:
        for stage in one.stages:
            resolutions(one, stage, body, checkpoint)


def is_begun(run: Path) -> bool:
    """Whether there is a run to go on with."""
    return (run / "checkpoints").is_dir() or (run / "recipe.toml").is_file()


def run_stages(
    source: DualEncoder,
    labels: tuple[str, ...],
    recipe: ClassifyRecipe,
    train: ClassTable,
    out: Path,
    reporter: Reporter,
    *,
    validation: ClassTable | None = None,
    device: str = "auto",
    resume: bool = False,
    before: Callable[[dict[str, Any]], None] = lambda found: None,
) -> dict[str, Any]:
    """Train; `out`, in which there is no other run, becomes that of the last stage, and `out/probe` that of one before
    it. Returns what `Engine.run`
    does, and as "probe" the best score of the first stage; `before` is told what the probed head scores at the
    resolution of the second, before its first step.

    What goes on is the best head by `validation`, or the last where there is none.
    """
    start: DualEncoder | Classifier = source
    result: dict[str, Any] = {}
    probe = None
    for stage in recipe.stages:
        last = stage == recipe.stages[-1]
        place = out if last else out / PROBE
        pixels = resolutions(recipe, stage, source.image.body, source.config.image.preprocess)
        goes_on = resume and is_begun(place)
        run = Classification(
            recipe.at(stage),
            train,
            place,
            reporter,
            start=classifier_at(start, labels, *pixels),
            validation=validation,
            device=device,
            resume=goes_on,
            force=not goes_on and last,  # into a directory that has the first stage in it
        )
        if stage == "all" and isinstance(start, Classifier) and run.validates and not run.engine.step:
            score = on_main(run.validate)
            if score is not None and run.engine.main:
                before(score.found)
        result = run.run()
        if not last:
            probe = result["best"]
            start = load_classifier(place, as_trained=True)
    return {**result, "probe": probe}
