"""Results that are kept as lines, and two checkpoints side by side: what `zeroshot` and `retrieve` share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Option

from vlcli.commands import _evaluation as e

if TYPE_CHECKING:
    from vlcli.commands._console import Console

Results = Annotated[
    Path | None,
    Option(
        "--results",
        metavar="FILE.jsonl",
        help="Append the result to FILE, a line for each language; what stands there with the same checkpoint, data "
        "and settings is shown and not computed again, unless with --force. vlcli report makes tables of it.",
    ),
]
Compare = Annotated[
    str | None,
    Option(
        "--compare",
        metavar="RUN",
        help="The same of another checkpoint, and by how much the first is better, with paired 95 % intervals.",
    ),
]


class Lines:
    """The file of --results, or nothing where there is none."""

    def __init__(
        self, file: Path | None, run: str, console: Console, *, force: bool, is_checkpoint: bool = True
    ) -> None:
        """`run` is a run or checkpoint, or what else the results are of."""
        self.file, self.run, self.console, self.force = file, run, console, force
        self.is_checkpoint = is_checkpoint
        self._open: Any = None
        if file is not None:
            from vlcli.evaluation.results_file import ResultsFile

            self._open = ResultsFile(file, say=console.warn)

    def of(self, run: str) -> Lines:
        """The same file, for the results of another run."""
        other = Lines(None, run, self.console, force=self.force)
        other.file, other._open = self.file, self._open
        return other

    def pictures(self, table: Any) -> str | None:
        """Of a table of pairs what tells its pictures from others of the same names, where anything is kept."""
        return None if self._open is None else table.pictures_hash

    def once(
        self, settings: Mapping[str, Any], compute: Callable[[], dict[str, Any]], *, anew: bool = False
    ) -> dict[str, Any]:
        """The stored result, or what `compute` gives, which is stored; with `anew` it is computed in any case."""
        if (stored := None if anew else self._find(settings)) is not None:
            self.console.note(f"{self.file}: measured before; --force measures it again")
            return stored
        result = compute()
        self._add(settings, result)
        return result

    def sweep(
        self,
        settings: Mapping[str, Mapping[str, Any]],
        compute: Callable[[], dict[str, Any]],
        *,
        anew: bool = False,
    ) -> dict[str, Any]:
        """The same of several languages and their average: computed unless all of it is stored."""
        from vlcli.evaluation.results_file import average_line, average_settings, sweep_of

        all_of = average_settings(settings)
        stored = [None if anew else self._find(one) for one in (*settings.values(), all_of)]
        if None not in stored:
            self.console.note(f"{self.file}: measured before; --force measures it again")
            return sweep_of(stored)
        result = compute()
        for one, found in zip(settings.values(), result["langs"], strict=True):
            self._add(one, found)
        if result["average"].get("MR", 0) is not None:
            self._add(all_of, average_line(result))
        return result

    def _find(self, settings: Mapping[str, Any]) -> dict[str, Any] | None:
        return None if self._open is None or self.force else self._open.find(settings)

    def _add(self, settings: Mapping[str, Any], result: Mapping[str, Any]) -> None:
        if self._open is None or result.get("MR", 0) is None:  # predictions were all that came of it
            return
        from vlcli.evaluation.results_file import provenance
        from vlcli.models.quickcheck import find_checkpoint

        beside = provenance(self.run, find_checkpoint(self.run) if self.is_checkpoint else None)
        self._open.add(settings, result, beside, force=self.force)


def refuse_with_compare(given: Mapping[str, Any]) -> None:
    """UsageError for the first of these options that was given."""
    from vlcli.errors import UsageError

    for option, value in given.items():
        if value is not None and value is not False:
            raise UsageError(f"--compare does not go with {option}")


def show_comparison(
    results: Sequence[dict[str, Any]], difference: dict[str, Any], runs: Sequence[str], names: dict[str, str]
) -> None:
    """A line for each number: of both, and the difference. `names` are what numbers are called, by their path in a
    result, as "i2t.R@1"."""
    from vlcli.commands._console import show_table

    rows = []
    for path, shown in names.items():
        if _at(results[0], path) is None:
            continue
        cells = [e.cell(_at(one, path), _at(one["ci95"], path)) for one in results]
        value, bounds = _at(difference, path), _at(difference["ci95"], path)
        rows.append(
            [shown, *cells, f"{value:+.1f}" + (f" [{bounds[0]:+.1f}, {bounds[1]:+.1f}]" if bounds else "")]
        )
    head = {**results[0], "checkpoint": " and ".join(one["checkpoint"] for one in results)}
    show_table(e.title(head), ["", *runs, "first − second"], rows)


def _at(result: Any, path: str) -> Any:
    for part in path.split("."):
        result = None if result is None else result.get(part)
    return result
