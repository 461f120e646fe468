"""Fonts for figures: every character that is drawn has a glyph, or there is no figure.

Noto Sans CJK comes with the extra `vlcli[figures]`; without it an installed Chinese font serves. Arabic letters
are those of matplotlib's own font. Text is drawn by matplotlib alone, which joins letters and orders what runs from
right to left by itself, so a figure does not depend on the machine's libraries.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlcli.errors import VlcliError
from vlcli.text.direction import CONTROLS

if TYPE_CHECKING:
    from matplotlib.font_manager import FontProperties

PACKAGE, FILE, PACKAGED = "noto_cjk_sans_otc", "NotoSansCJK-Regular.ttc", "Noto Sans CJK SC"
# Faces that systems ship, simplified Chinese first; the first one installed is taken.
INSTALLED = (
    "Noto Sans CJK SC",
    "Noto Sans SC",
    "Source Han Sans SC",
    "Source Han Sans CN",
    "PingFang SC",
    "Hiragino Sans GB",
    "Heiti SC",
    "STHeiti",
    "Microsoft YaHei",
    "SimHei",
    "WenQuanYi Zen Hei",
    "WenQuanYi Micro Hei",
    "Droid Sans Fallback",
    "Arial Unicode MS",
)
LATIN = "DejaVu Sans"  # inside matplotlib itself
REMEDY = "pip install 'vlcli[figures]'"


class NoFont(VlcliError):
    """No font for a character that a figure needs: exit 1."""


@dataclass(frozen=True)
class Fonts:
    """Families in the order in which glyphs are looked for."""

    families: tuple[str, ...]

    def properties(self, **how: Any) -> FontProperties:
        """matplotlib's FontProperties; `size` and the like as keywords."""
        from matplotlib.font_manager import FontProperties

        return FontProperties(family=list(self.families), **how)

    @cached_property
    def _faces(self) -> list[Any]:
        from matplotlib.font_manager import fontManager
        from matplotlib.ft2font import FT2Font

        faces = []
        for family in self.families:
            entry = next(e for e in fontManager.ttflist if e.name == family)
            faces.append(FT2Font(entry.fname, face_index=getattr(entry, "index", 0)))
        return faces

    def covers(self, text: str) -> bool:
        """Whether every character of `text` has a glyph, or needs none."""
        return all(
            c.isspace() or c in CONTROLS or any(face.get_char_index(ord(c)) for face in self._faces)
            for c in text
        )

    def drawable(self, text: str) -> str:
        """`text` with a mark, U+FFFD, in place of each character that has no glyph."""
        return "".join(c if self.covers(c) else "\ufffd" for c in text)

    def require(self, texts: Iterable[str]) -> None:
        """NoFont naming the first character of `texts` that no family has a glyph for."""
        for character in sorted(set("".join(texts))):
            if self.covers(character):
                continue
            name = unicodedata.name(character, "no name")
            raise NoFont(
                f"no glyph for {character!r} (U+{ord(character):04X} {name}) in {', '.join(self.families)}",
                remedy=REMEDY if PACKAGED not in self.families else "leave the character out of the figure",
            )


def language_of(text: str) -> str | None:
    """The language whose forms of Han characters `text` is drawn with: 直 is not the same in Japanese as in Chinese.

    Kana tell Japanese and Hangul Korean; Han alone is drawn as Chinese, which is what the font does by itself.
    """
    names = [unicodedata.name(c, "") for c in text]
    if any(name.startswith(("HIRAGANA", "KATAKANA")) for name in names):
        return "ja"
    return "ko" if any(name.startswith("HANGUL") for name in names) else None


def packaged_font() -> Path | None:
    """The font file of the extra, when it is installed."""
    spec = find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        return None
    file = Path(spec.origin).parent / FILE
    return file if file.is_file() else None


def find_fonts() -> Fonts:
    """The packaged font, else an installed Chinese one, each with matplotlib's own Latin behind it.

    Raises NoFont when there is neither, and when matplotlib itself is missing.
    """
    try:
        from matplotlib.font_manager import fontManager
    except ImportError:
        raise NoFont("figures need matplotlib", remedy=REMEDY) from None
    known = {entry.name for entry in fontManager.ttflist}
    file = packaged_font()
    if file is not None:
        if not any(Path(entry.fname) == file for entry in fontManager.ttflist):
            # In front: a face of the same name that the system ships must not change the figure's bytes.
            theirs = list(fontManager.ttflist)
            fontManager.addfont(str(file))
            ours = fontManager.ttflist[len(theirs) :]
            fontManager.ttflist[:] = [*ours, *(e for e in theirs if e.name != PACKAGED)]
        return Fonts((PACKAGED, LATIN))
    for family in INSTALLED:
        if family in known:
            return Fonts((family, LATIN))
    raise NoFont("no font with Chinese glyphs is installed", remedy=REMEDY)
