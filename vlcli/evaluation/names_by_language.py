"""What the classes are called in each language of a sweep: by files of names, or by columns of the data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vlcli.errors import UsageError
from vlcli.evaluation.captions_by_language import absent, require_files
from vlcli.text.labels import LabelSet, load_labels
from vlcli.text.languages import SLOT, named, varies
from vlcli.text.prompts import PromptSet, load_prompts


@dataclass(frozen=True)
class Naming:
    """How one language names the classes: by `labels`, or the values of `column` themselves; in `prompts`."""

    prompts: PromptSet
    column: str
    labels: LabelSet | None = None


def name_classes(langs: Sequence[str], *, labels: str | None, column: str, prompts: str) -> dict[str, Naming]:
    """A Naming for each language. `{lang}` stands for it in `labels`, `column` and `prompts`.

    Raises UsageError where no language has names of its own, and for a file or prompt set that is not there.
    """
    if not varies(labels) and (labels is not None or not varies(column)):
        raise UsageError(
            f"--langs: the classes have the same names in every language, {labels or column}",
            remedy=f"--labels labels.{SLOT}.txt, or --label-column name_{SLOT}",
        )
    found = {}
    for lang in langs:
        names = load_labels(require_files([labels], lang)[0]) if labels is not None else None
        found[lang] = Naming(load_prompts(named(prompts, lang)), named(column, lang), names)
    return found


def require_columns(table: Any, namings: Mapping[str, Naming]) -> None:
    """Raises UsageError naming the first language whose column no row of `table` has."""
    for lang, naming in namings.items():
        if len(table) and table.frame[naming.column].null_count() == len(table):
            raise absent(lang, naming.column, table.source, "--label-column")
