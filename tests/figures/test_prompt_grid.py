"""The grid of one prompt in several languages."""

import io
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from vlcli.figures.fonts import NoFont, find_fonts
from vlcli.figures.prompts import LINES, SIDE, Drawn, prompt_grid, wrapped


def drawn(count, text="红苹果", lang="zh"):
    return [Drawn(Image.new("RGB", (8, 8), (20 * i, 90, 0)), text, lang) for i in range(count)]


def opened(content):
    with Image.open(io.BytesIO(content)) as picture:
        return np.asarray(picture.convert("RGB")).astype(int)


def test_every_picture_stands_in_its_place():
    found = opened(prompt_grid(drawn(9))["png"])
    for i in range(9):
        colour = np.array([20 * i, 90, 0])
        shown = (np.abs(found - colour).max(-1) == 0).sum()
        assert shown > 0.9 * SIDE * SIDE, i


def test_equal_bytes_and_a_readable_svg():
    first, second = prompt_grid(drawn(2), "seed 0"), prompt_grid(drawn(2), "seed 0")
    assert first == second
    assert first != prompt_grid(drawn(2), "seed 1")
    assert ET.fromstring(first["svg"]).tag.endswith("svg")


def test_the_language_chooses_the_forms_of_the_characters():
    assert prompt_grid(drawn(1, "直", "zh"))["png"] != prompt_grid(drawn(1, "直", "ja"))["png"]


def test_no_glyph_no_figure():
    with pytest.raises(NoFont, match="no glyph"):
        prompt_grid(drawn(1, "\U000f1234"))


@pytest.mark.parametrize("text", ["a b c", "word " * 60, "很长" * 100, "تفاحة حمراء " * 20, "x" * 300, ""])
def test_lines_fit_and_lose_no_word_that_is_not_marked(text):
    renderer = FigureCanvasAgg(Figure()).get_renderer()
    fonts = find_fonts()
    lines = wrapped(text, fonts, renderer, SIDE)
    assert 1 <= len(lines) <= LINES
    font = fonts.properties(size=11 * 72 / 100)
    assert all(renderer.get_text_width_height_descent(line, font, False)[0] <= SIDE for line in lines)
    kept, whole = "".join(lines).replace(" ", ""), text.replace(" ", "")
    assert kept == whole if not kept.endswith("…") else whole.startswith(kept[:-1])
    assert kept.endswith("…") == (kept != whole)
