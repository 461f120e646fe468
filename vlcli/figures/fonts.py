"""Fonts for figures: every character that is drawn has a glyph, or there is no figure.

Noto Sans CJK and Noto Sans Arabic come with the extra `vlcli[figures]`; without it an installed Chinese font serves,
and Arabic letters are those of matplotlib's own font. Text is drawn by matplotlib alone, which joins letters and orders
what runs from right to left by itself, so a figure does not depend on the machine's libraries.
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
ARABIC_PACKAGE, ARABIC = "fontpkg_noto_sans_arabic", "Noto Sans Arabic"
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
    def files(self) -> list[tuple[str, int]]:
        """The file of each family, and which face in it."""
        from matplotlib.font_manager import fontManager

        entries = [next(e for e in fontManager.ttflist if e.name == family) for family in self.families]
        return [(str(entry.fname), getattr(entry, "index", 0)) for entry in entries]

    @cached_property
    def _faces(self) -> list[Any]:
        from matplotlib.ft2font import FT2Font

        return [FT2Font(file, face_index=index) for file, index in self.files]

    def face_of(self, character: str) -> int | None:
        """Which family draws a character; None where none has a glyph, or where it needs none."""
        code = ord(character)
        return next((i for i, face in enumerate(self._faces) if face.get_char_index(code)), None)

    def covers(self, text: str) -> bool:
        """Whether every character of `text` has a glyph, or needs none."""
        return all(c.isspace() or c in CONTROLS or self.face_of(c) is not None for c in text)

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


def language_of(text: str, lang: str | None = None) -> str | None:
    """The language whose forms of Han characters `text` is drawn with: 直 is not the same in Japanese as in Chinese.

    It is `lang`, where the row says it; else kana tell Japanese and Hangul Korean, and Han alone is drawn as Chinese,
    which is what the font does by itself.
    """
    if lang:
        return {"zh": "zh-Hans"}.get(lang, lang)
    names = [unicodedata.name(c, "") for c in text]
    if any(name.startswith(("HIRAGANA", "KATAKANA")) for name in names):
        return "ja"
    return "ko" if any(name.startswith("HANGUL") for name in names) else None


def packaged_font() -> Path | None:
    """The font file of the extra, when it is installed."""
    return _in_package(PACKAGE, FILE)


def packaged_arabic() -> Path | None:
    """The extra's Arabic font file, when it is installed."""
    return _in_package(ARABIC_PACKAGE, "files/NotoSansArabic*.ttf")


def _in_package(package: str, pattern: str) -> Path | None:
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        return None
    return next(iter(sorted(Path(spec.origin).parent.glob(pattern))), None)


def find_fonts() -> Fonts:
    """The packaged fonts, else an installed Chinese one, with matplotlib's own Latin behind.

    Raises NoFont when there is neither, and when matplotlib itself is missing.
    """
    try:
        from matplotlib.font_manager import fontManager
    except ImportError:
        raise NoFont("figures need matplotlib", remedy=REMEDY) from None
    known = {entry.name for entry in fontManager.ttflist}
    behind: tuple[str, ...] = (LATIN,)
    arabic = packaged_arabic()
    if arabic is not None:
        _prefer(arabic, ARABIC)
        behind = (ARABIC, LATIN)
    file = packaged_font()
    if file is not None:
        _prefer(file, PACKAGED)
        return Fonts((PACKAGED, *behind))
    for family in INSTALLED:
        if family in known:
            return Fonts((family, *behind))
    raise NoFont("no font with Chinese glyphs is installed", remedy=REMEDY)


def _prefer(file: Path, family: str) -> None:
    """Make matplotlib know a font. In front: a face of the same name that the system ships must not change the
    figure's bytes."""
    from matplotlib.font_manager import fontManager

    if not any(Path(entry.fname) == file for entry in fontManager.ttflist):
        theirs = list(fontManager.ttflist)
        fontManager.addfont(str(file))
        ours = fontManager.ttflist[len(theirs) :]
        fontManager.ttflist[:] = [*ours, *(e for e in theirs if e.name != family)]
