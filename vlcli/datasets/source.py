"""What a reader is given: the files of the set, where its pictures are, and which languages are asked for."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from vlcli.datasets.files import Files
from vlcli.errors import InputError, UsageError

_COCO = re.compile(r"COCO_(?:train|val|test)\d{4}_(\d{12}\.jpg)")


class Source:
    """`paths` of one data set. `langs` are those to read; empty: all there are."""

    def __init__(
        self, name: str, paths: Sequence[str], *, image_root: Path | None = None, langs: Sequence[str] = ()
    ) -> None:
        self.name, self.langs = name, tuple(langs)
        self.files = Files(paths)
        self._image_root = image_root

    @cached_property
    def _pictures(self) -> Files:
        if self._image_root is not None:
            if not os.path.isdir(self._image_root):
                raise UsageError(f"--image-root {self._image_root}: no such directory")
            return Files([str(self._image_root)])
        paths = self.files.paths
        if all(os.path.isdir(path) for path in paths):
            return self.files
        return Files(list(dict.fromkeys(p if os.path.isdir(p) else os.path.dirname(p) or "." for p in paths)))

    def image(self, name: str, file: str, line: int | None = None) -> str:
        """Where the picture of that file name is. Raises InputError where there is none, naming who asks for it.

        A picture of MS-COCO is also found under the shorter name that the releases since 2017 give it.
        """
        name = name.rsplit("/", 1)[-1]
        found = self._pictures.named(name)
        if found is None and (coco := _COCO.fullmatch(name)):
            found = self._pictures.named(coco.group(1))
        if found is None:
            raise InputError(
                f"its image {name} is not in {self._pictures.shown()}",
                file=file,
                line=line,
                remedy="--image-root DIR says where the images are",
            )
        return found

    def picture_file(self, name: str, file: str) -> str:
        """A file of that name among the pictures. Raises UsageError where there is none, naming the file beside it."""
        found = self._pictures.named(name) or self.files.named(name)
        if found is None:
            raise UsageError(f"{file}: no {name} beside it", remedy="--image-root DIR says where it is")
        return found

    def find(self, *patterns: str) -> str:
        """The file of the first pattern that has one. Raises UsageError where none has."""
        found = self.files.first(patterns)
        if found is None:
            raise UsageError(f"{self.name}: no {' or '.join(patterns)} in {self.files.shown()}")
        return found

    def reads(self, lang: str) -> bool:
        """Whether that language is asked for."""
        return not self.langs or lang in self.langs
