"""What `retrieve` measures of a table of pairs: of one checkpoint, or of two."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlcli.commands import _evaluation as e

if TYPE_CHECKING:
    from vlcli.commands._console import Console
    from vlcli.commands._results import Lines
    from vlcli.evaluation.rerank import RerankScore

COMPARED = {
    f"{side}.R@{k}": f"{shown} R@{k}" for side, shown in (("i2t", "I→T"), ("t2i", "T→I")) for k in (1, 5, 10)
} | {"MR": "mean recall"}


@dataclass(frozen=True)
class Measure:
    """What is measured, how, and what is written of it; `measure(model, lines)` gives the result of a checkpoint."""

    table: Any
    template: Any
    mosaics: Sequence[Any]
    rerank_at: int | None
    rerank_score: RerankScore
    preselect: int | None
    predictions: Path | None
    lines_of: Callable[..., Any] | None
    drawn: dict[str, Path]
    lang: str | None
    how: dict[str, Any]
    encoding: dict[str, Any]
    cache: str
    console: Console
    force: bool

    def __call__(self, model: Any, lines: Lines, told: Callable[[Any], Any] | None = None) -> dict[str, Any]:
        """`told` asks for what the numbers count."""
        from vlcli.evaluation.results_file import digest, settings_of

        precision = self.encoding["precision"]
        settings = settings_of(
            model,
            self.table,
            command="retrieve",
            prompts=self.template,
            pictures=lines.pictures(self.table),
            lang=self.lang,
            precision=precision,
            rerank=None if self.rerank_at is None else [self.rerank_at, self.rerank_score],
            preselect=self.preselect,
            mosaics=digest(self.mosaics) if self.mosaics else None,
            **self.how,
        )
        anew = told is not None or self.predictions is not None or bool(self.drawn)
        with (
            e.announcing(self.console) as announce,
            e.caching(self.cache, model, precision, self.console) as cache,
        ):
            return lines.once(settings, lambda: self._compute(model, announce, cache, told), anew=anew)

    def _compute(
        self, model: Any, announce: Any, cache: Any, told: Callable[[Any], Any] | None
    ) -> dict[str, Any]:
        from vlcli.evaluation.tasks import Retrieval

        pool = Retrieval(model, self.table, self.template, announce=announce, cache=cache, **self.encoding)
        found = pool.write_metrics(
            self.predictions,
            force=self.force,
            lines=self.lines_of,
            lang=self.lang,
            rerank_at=self.rerank_at,
            rerank_score=self.rerank_score,
            **self.how,
        )
        if self.preselect is not None:
            found["preselect"] = pool.preselected(self.preselect)
        if told is not None:
            told(pool)
        if self.drawn:
            from vlcli.figures.gallery import error_gallery

            errors = error_gallery(pool)
            if errors is not None:
                e.draw(errors, self.drawn, self.console, force=self.force)
            else:
                known = any(pool.gallery.positives)
                cause = "every query has its answer first" if known else "no query has a known answer"
                self.console.warn(f"no error to show: {cause}; no gallery is written")
        if self.mosaics:
            by = {name: self.how[name] for name in ("bootstrap", "seed")}
            found["pointing"] = pool.pointing(self.mosaics, **by)
        return found

    def compare(
        self, model: Any, other: str, device: str, lines: Lines
    ) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """The results of two checkpoints, and by how much the first is better."""
        from vlcli.evaluation.comparison import compare_recalls, require_comparable
        from vlcli.evaluation.gallery import Gallery

        counted: list[Any] = []
        both = [self(model, lines, lambda pool: counted.append(pool.counted))]
        second = e.open_model(other, device, self.console)
        require_comparable(both[0], second.checkpoint_hash)
        both.append(self(second, lines.of(other), lambda pool: counted.append(pool.counted)))
        by = {name: self.how[name] for name in ("bootstrap", "seed")}
        return both, compare_recalls(counted[0], counted[1], Gallery.of(self.table).positives, **by)


def show(result: dict[str, Any]) -> None:
    """The recalls as a table."""
    from vlcli.commands._console import show_table

    bounds, sides = result["ci95"], [side for side in ("i2t", "t2i") if result[side] is not None]
    rows = [
        [name, *(e.cell(result[side][name], bounds.get(side, {}).get(name)) for side in sides)]
        for name in result[sides[0]]
    ]
    empty = [""] * (len(sides) - 1)
    rows.append(["mean recall", e.cell(result["MR"], bounds.get("MR")), *empty])
    if "preselect" in result:
        some = result["preselect"]
        rows.append([f"of the {some['k']} nearest by vector:", *[""] * len(sides)])
        for name in result[sides[0]]:
            # with fewer rivals a right answer may rise, too
            cells = [f"{some[side][name]:.1f} ({0.0 - some['lost'][side][name]:+.1f})" for side in sides]
            rows.append([name, *cells])
    if "pointing" in result:
        test = result["pointing"]
        name = f"pointing, {test['n']} mosaics, chance {test['chance']:.0f}"
        rows.append([name, e.cell(test["accuracy"], test["ci95"]), *empty])
    arrows = {
        "i2t": f"{result['images']} images → {result['texts']} texts",
        "t2i": f"{result['texts']} texts → {result['images']} images",
    }
    show_table(e.title(result), ["", *(arrows[side] for side in sides)], rows)
