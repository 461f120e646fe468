"""The fonts of an HTML file: of each face the glyphs of the characters that the page has, as CSS with data inside."""

from __future__ import annotations

import base64
import io
import logging
from collections.abc import Iterable

from vlcli.figures.fonts import Fonts
from vlcli.text.direction import CONTROLS

PREFIX = "vlcli-"  # of family names, so that no font of the same name on the reader's machine comes between


def font_css(texts: Iterable[str], fonts: Fonts) -> str:
    """`@font-face` rules and the families for all text. Each character is in the first face that has it, as in a PNG;
    joined and regional forms come along. Raises NoFont naming a character that none has.
    """
    characters = sorted(set("".join(texts)) - CONTROLS)
    fonts.require(characters)
    by_face: dict[int, list[str]] = {}
    for character in characters:
        face = fonts.face_of(character)
        if face is not None:
            by_face.setdefault(face, []).append(character)
    # Controls of direction and joiners have no glyph of their own, but are asked for in every face.
    rules = [
        f'@font-face{{font-family:"{PREFIX}{i}";src:url(data:font/woff;base64,{_encoded(fonts.files[i], by_face[i])})'
        'format("woff")}'
        for i in sorted(by_face)
    ]
    families = ",".join([*(f'"{PREFIX}{i}"' for i in sorted(by_face)), "sans-serif"])
    return "\n".join([*rules, f"body{{font-family:{families}}}"])


def _encoded(file: tuple[str, int], characters: Iterable[str]) -> str:
    return base64.b64encode(subset(file, characters)).decode()


def subset(file: tuple[str, int], characters: Iterable[str]) -> bytes:
    """The face `file` (path, number in the collection) with these characters and what they turn into, as WOFF; equal
    bytes every time."""
    from fontTools import subset as cutter
    from fontTools.ttLib import TTFont

    logging.getLogger("fontTools").setLevel(logging.ERROR)
    options = cutter.Options(flavor="woff", recalc_timestamp=False, notdef_outline=True, hinting=False)
    options.drop_tables += ["DSIG", "vhea", "vmtx", "VORG"]
    path, number = file
    font = TTFont(path, fontNumber=number, lazy=True, recalcTimestamp=False)
    worker = cutter.Subsetter(options)
    worker.populate(text="".join(characters))
    worker.subset(font)
    font.flavor = "woff"
    buffer = io.BytesIO()
    font.save(buffer)
    font.close()
    return buffer.getvalue()
