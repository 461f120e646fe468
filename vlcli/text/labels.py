"""Label sets: what `zeroshot` calls the classes (design §3, `--labels`)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from vlcli.errors import InputError, UsageError
from vlcli.text.prompts import read_lines


@dataclass(frozen=True)
class LabelSet:
    """Class names by label, in the file's order. Keys are integers 0, 1, … or strings, never both."""

    name: str
    names: dict[int | str, str]

    def __len__(self) -> int:
        return len(self.names)

    @property
    def keyed(self) -> bool:
        """True when labels are strings (`key<TAB>name` lines)."""
        return isinstance(next(iter(self.names), 0), str)

    @cached_property
    def duplicates(self) -> dict[str, list[int | str]]:
        """Names that several labels share, which no score can tell apart: they cap top-1 below 100 %."""
        counts = Counter(self.names.values())
        shared: dict[str, list[int | str]] = {name: [] for name, count in counts.items() if count > 1}
        for label, name in self.names.items():
            if name in shared:
                shared[name].append(label)
        return shared

    @cached_property
    def _index(self) -> dict[int | str, int]:
        return {label: position for position, label in enumerate(self.names)}

    def index(self, label: int | str) -> int:
        """The position of `label`'s name in `names`; InputError for a label without a name.

        "7" is found as 7 in a list of plain names, and 7 as "7" in a keyed one: a Parquet column may hold
        either.
        """
        key: int | str = label
        if self.keyed:
            key = str(label)
        elif isinstance(label, str):
            try:
                key = int(label)
            except ValueError:
                key = label
        try:
            return self._index[key]
        except KeyError:
            raise InputError(
                f"label {label!r} has no name in {self.name}",
                remedy=f"its {len(self)} labels are {self._span()}",
            ) from None

    def indices(self, labels: Iterable[int | str]) -> list[int]:
        return [self.index(label) for label in labels]

    def _span(self) -> str:
        labels = list(self.names)
        if not self.keyed:
            return f"0 to {len(labels) - 1}"
        return ", ".join(map(str, labels[:3])) + (", …" if len(labels) > 3 else "")


def load_labels(path: str | Path) -> LabelSet:
    """Read a UTF-8 label file: a name a line (line k, from 0, names integer label k), or `key<TAB>name`
    lines.

    Raises UsageError when the file is missing; InputError naming file and line for an empty name, a repeated
    key, or a file that mixes both forms.
    """
    file = Path(path)
    if not file.is_file():
        raise UsageError(f"{path}: no such label file", remedy="one name a line, or key<TAB>name")
    lines = read_lines(file)
    while lines and not lines[-1].strip():
        lines.pop()
    if not lines:
        raise InputError("no labels", file=str(file))
    keyed = "\t" in lines[0]
    names: dict[int | str, str] = {}
    for number, line in enumerate(lines, start=1):
        if ("\t" in line) != keyed:
            cause = "no tab, but the first line has one" if keyed else "a tab, but the first line has none"
            raise InputError(cause, file=str(file), line=number, remedy="use one form: name, or key<TAB>name")
        key: int | str = number - 1
        name = line
        if keyed:
            key, name = (part.strip() for part in line.split("\t", 1))
        if not name.strip():
            raise InputError("an empty name", file=str(file), line=number, remedy="line k names label k")
        if key in names:
            raise InputError(f"the key {key!r} a second time", file=str(file), line=number)
        names[key] = name.strip()
    return LabelSet(file.name, names)
