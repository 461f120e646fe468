"""Naming images by their classes' names: of one language or of several, of one checkpoint or of two."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vlcli.commands import _evaluation as e

if TYPE_CHECKING:
    from vlcli.commands._console import Console
    from vlcli.commands._results import Lines


@dataclass(frozen=True)
class Names:
    """What is measured: the images of `table`, and what their classes are called. `namings` are those of several
    languages, in place of `templates` and `labels`. `settings(model, …)` is all that a number depends on."""

    table: Any
    templates: Any
    labels: Any
    namings: Mapping[str, Any]
    column: str
    lang: str | None
    settings: Callable[..., dict[str, Any]]
    how: dict[str, Any]
    console: Console
    cache: str
    predictions: Any = None  # what writes down the scores, of one language

    def measure(self, model: Any, lines: Lines, told: Callable[[Any], Any] | None = None) -> dict[str, Any]:
        """The result of a checkpoint; `told` asks for what the numbers count."""
        from vlcli.evaluation.languages import classify_in
        from vlcli.evaluation.tasks import classify

        precision = self.how["precision"]
        with (
            e.announcing(self.console) as announce,
            e.caching(self.cache, model, precision, self.console) as cache,
        ):
            how = {**self.how, "announce": announce, "cache": cache}
            if self.namings:
                every = {
                    tag: self._settings(model, by.prompts, by.labels, by.column, tag)
                    for tag, by in self.namings.items()
                }
                return lines.sweep(every, lambda: classify_in(model, self.table, self.namings, **how))
            return lines.once(
                self._settings(model, self.templates, self.labels, self.column, self.lang),
                lambda: classify(
                    model,
                    self.table,
                    self.templates,
                    column=self.column,
                    labels=self.labels,
                    lang=self.lang,
                    told=told or (lambda places: None),
                    predictions=self.predictions,
                    **how,
                ),
                anew=told is not None or self.predictions is not None,
            )

    def compare(
        self, model: Any, other: str, device: str, lines: Lines
    ) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """The results of two checkpoints, and by how much the first is better."""
        from vlcli.evaluation.comparison import compare_accuracies, require_comparable

        places: list[Any] = []
        results = [self.measure(model, lines, lambda tally: places.append(tally.classified))]
        second = e.open_model(other, device, self.console)
        require_comparable(results[0], second.checkpoint_hash)
        results.append(self.measure(second, lines.of(other), lambda tally: places.append(tally.classified)))
        by = {name: self.how[name] for name in ("bootstrap", "seed")}
        return results, compare_accuracies(*places, **by)

    def _settings(
        self, model: Any, prompts: Any, labels: Any, column: str, lang: str | None
    ) -> dict[str, Any]:
        metric = self.how["metric"]
        return self.settings(
            model,
            prompts=prompts,
            labels=labels,
            column=column,
            lang=lang,
            ensemble=self.how["ensemble"],
            metric=None if metric == "top1" else metric,
        )
