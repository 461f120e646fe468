"""Label sets: what `zeroshot` calls the classes (design §3, `--labels`)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from vlcli.errors import InputError, UsageError
from vlcli.text import packaged
from vlcli.text.prompts import read_lines

SUBSETS = ("imagenet-a", "imagenet-r")
BUILT_IN = ("imagenet", *SUBSETS, "babel-imagenet")


@dataclass(frozen=True)
class LabelSet:
    """Class names by label, in the file's order. Keys are integers 0, 1, … or strings, never both.

    `aliases` are other forms of labels (the WordNet id of an ImageNet class, say). `left_out` are labels that exist and
    have no name here, because the set is a part of a larger one: their images are not looked at.
    """

    name: str
    names: dict[int | str, str]
    aliases: Mapping[str, int | str] = field(default_factory=dict)
    left_out: frozenset[int | str] = frozenset()

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

    def _key(self, label: int | str) -> int | str:
        """A label as the names have it: "7" is 7 in a list of plain names, and 7 is "7" in a keyed one, as a Parquet
        column may hold either.
        """
        if isinstance(label, str) and label in self.aliases:
            return self.aliases[label]
        if self.keyed:
            return str(label)
        if isinstance(label, str):
            with suppress(ValueError):
                return int(label)
        return label

    def find(self, label: int | str) -> int | None:
        """The position of `label`'s name in `names`, None where it is left out. InputError where it has no name."""
        key = self._key(label)
        if (position := self._index.get(key)) is not None:
            return position
        if key in self.left_out:
            return None
        raise InputError(
            f"label {label!r} has no name in {self.name}",
            remedy=f"its {len(self)} labels are {self._span()}",
        )

    def index(self, label: int | str) -> int:
        """`find` of a label that is not left out."""
        position = self.find(label)
        if position is None:
            raise InputError(f"label {label!r} is not among the classes of {self.name}")
        return position

    def only(self, labels: Iterable[int | str], name: str) -> LabelSet:
        """The part of it that has these labels, in its own order; the others are left out."""
        kept = {self._key(label) for label in labels}
        if missing := kept - self.names.keys() - self.left_out:
            raise InputError(f"{name}: {min(map(str, missing))} is no label of {self.name}")
        names = {label: said for label, said in self.names.items() if label in kept}
        if not names:
            raise InputError(f"{name}: none of its classes has a name in {self.name}")
        others = self.left_out | (self.names.keys() - names.keys())
        return LabelSet(f"{self.name}[{name}]", names, self.aliases, frozenset(others))

    def indices(self, labels: Iterable[int | str]) -> list[int]:
        return [self.index(label) for label in labels]

    def _span(self) -> str:
        labels = list(self.names)
        if not self.keyed and labels == list(range(len(labels))):
            return f"0 to {len(labels) - 1}"
        return ", ".join(map(str, labels[:3])) + (", …" if len(labels) > 3 else "")


@dataclass(frozen=True)
class Subset:
    """A part of the labels of a set."""

    name: str
    labels: tuple[int | str, ...]


def load_subset(name_or_file: str) -> Subset:
    """The 200 classes of imagenet-a or imagenet-r, or a file with a label a line; for errors see `load_labels`."""
    if name_or_file in SUBSETS:
        return Subset(name_or_file, tuple(packaged.wordnet_ids(name_or_file)))
    file = Path(name_or_file)
    if not file.is_file():
        raise UsageError(
            f"{name_or_file}: no such file of classes", remedy=f"{', '.join(SUBSETS)}, or a label a line"
        )
    labels = [line.strip() for line in read_lines(file) if line.strip()]
    if not labels:
        raise InputError("no classes", file=str(file))
    return Subset(file.name, tuple(labels))


def restricted(labels: LabelSet | None, subset: Subset | None) -> LabelSet | None:
    """Only the labels of a subset, where there is one. UsageError where there are no labels to choose from."""
    if subset is None:
        return labels
    if labels is None:
        raise UsageError(f"--classes {subset.name} chooses among --labels", remedy="name them")
    return labels.only(subset.labels, subset.name)


def _built_in(name: str) -> LabelSet | None:
    """ImageNet's classes in a language, of packages. Labels are 0 to 999, or WordNet ids."""
    family, _, lang = name.rpartition(".")
    if family not in BUILT_IN:
        return None
    ids = {wordnet: number for number, wordnet in enumerate(packaged.wordnet_ids())}
    if family == "babel-imagenet":
        found = packaged.babel_names(lang)
        return LabelSet(name, found, ids, frozenset(set(range(len(ids))) - found.keys()))
    whole = LabelSet(name, dict(enumerate(packaged.imagenet_names(lang))), ids)
    if family == "imagenet":
        return whole
    # Of the set's own 200 classes: 0 to 199 in the order of their ids, as folders sort, or the ids.
    own = packaged.wordnet_ids(family)
    names: dict[int | str, str] = {place: whole.names[ids[wordnet]] for place, wordnet in enumerate(own)}
    return LabelSet(name, names, {wordnet: place for place, wordnet in enumerate(own)})


def load_labels(path: str | Path) -> LabelSet:
    """A set that is built in (imagenet.LANG, imagenet-a.LANG, imagenet-r.LANG, babel-imagenet.LANG), or a UTF-8 label
    file: a name a line (line k, from 0, names integer label k), or `key<TAB>name` lines.

    Raises UsageError when the file is missing; InputError naming file and line for an empty name, a repeated
    key, or a file that mixes both forms.
    """
    if (built_in := _built_in(str(path))) is not None and not Path(path).is_file():
        return built_in
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
