"""What the classes are called in each language of a sweep: by files of names, or by columns of the data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vlcli.errors import UsageError
from vlcli.evaluation.captions_by_language import absent, require_files
from vlcli.text.labels import BUILT_IN, LabelSet, Subset, load_labels, restricted
from vlcli.text.languages import SLOT, named, varies
from vlcli.text.prompts import PromptSet, load_prompts


@dataclass(frozen=True)
class Naming:
    """How one language names the classes: by `labels`, or the values of `column` themselves; in `prompts`."""

    prompts: PromptSet
    column: str
    labels: LabelSet | None = None


def name_classes(
    langs: Sequence[str],
    *,
    labels: str | None,
    column: str,
    prompts: str,
    subset: Subset | None = None,
) -> dict[str, Naming]:
    """A Naming for each language. `{lang}` stands for it in `labels`, `column` and `prompts`; of the labels only those
    of `subset` are taken.


    Raises UsageError where no language has names of its own, and for a file or prompt set that is not there.
    """
    if not varies(labels) and (labels is not None or not varies(column)):
        raise UsageError(
            f"--langs: the classes have the same names in every language, {labels or column}",
            remedy=f"--labels labels.{SLOT}.txt, or --label-column name_{SLOT}",
        )
    found = {}
    for lang in langs:
        names = None if labels is None else load_labels(_file(labels, lang))
        names = restricted(names, subset)
        found[lang] = Naming(load_prompts(named(prompts, lang)), named(column, lang), names)
    return found


def _file(labels: str, lang: str) -> str:
    """The labels of one language, a file that is there or a set that is built in."""
    name = named(labels, lang)
    return (
        name if any(name.startswith(f"{known}.") for known in BUILT_IN) else require_files([labels], lang)[0]
    )


def require_columns(table: Any, namings: Mapping[str, Naming]) -> None:
    """Raises UsageError naming the first language whose column no row of `table` has."""
    for lang, naming in namings.items():
        if len(table) and table.frame[naming.column].null_count() == len(table):
            raise absent(lang, naming.column, table.source, "--label-column")
