"""`zeroshot` of a classifier, which needs no names: what `finetune` made of labelled images, on others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vlcli.commands import _evaluation as e
from vlcli.commands import _results as r

if TYPE_CHECKING:
    from vlcli.commands._console import Console


def refuse(options: dict[str, Any]) -> None:
    """UsageError for options that would do nothing; those that were not given are None, False or empty."""
    from vlcli.errors import UsageError

    for name, value in options.items():
        if value:
            raise UsageError(f"{name} is for models that name classes in words: this is a classifier")


def measured(
    run: str, table: Any, lines: r.Lines, console: Console, *, device: str, column: str, **how: Any
) -> dict[str, Any]:
    """The result of a classifier on the labels in `column`."""
    from vlcli.evaluation.classifier import classify_images
    from vlcli.evaluation.results_file import settings_of
    from vlcli.models.checkpoint import load_classifier, resolve_device

    model = load_classifier(run, str(resolve_device(device)))
    same = {name: how[name] for name in ("metric", "bootstrap", "seed", "split", "precision")}
    with e.announcing(console) as announce:
        return lines.once(
            settings_of(
                model, table, command="zeroshot", column=column, pictures=lines.pictures(table), **same
            ),
            lambda: classify_images(model, table, column=column, announce=announce, **how),
        )
