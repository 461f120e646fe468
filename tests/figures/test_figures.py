import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "evaluation"))
from tiny_models import square, tiny

from vlcli.errors import InputError, UsageError
from vlcli.evaluation.alignment import Alignment, Text
from vlcli.figures import fonts as fonts_module
from vlcli.figures.alignment import draw, token_lines
from vlcli.figures.canvas import render
from vlcli.figures.fonts import NoFont, find_fonts, language_of
from vlcli.figures.panels import Row, columns, shorten, upsample
from vlcli.figures.request import Request
from vlcli.figures.sheet import Source, make_sheet

FIXED = "vit_tiny_patch16_224"  # a tower whose positions fit one size
WHITE = np.full((64, 64, 3), 255, np.uint8)


def alignment(label="狐狸", side=4, index=None):
    tokens = ["[CLS]", *label, "[SEP]"]
    text = Text(label, label, tokens, list(range(1, len(label) + 1)), torch.zeros(len(tokens), 2))
    rng = np.random.default_rng(0)
    index = rng.integers(0, len(tokens), (side, side)) if index is None else np.array(index)
    return Alignment(text, index, rng.normal(size=(side, side)).astype(np.float32))


def test_every_letter_of_the_vocabulary_of_a_figure_has_a_glyph():
    fonts = find_fonts()
    fonts.require(["狐狸 简体 繁體 〈人名〉 [CLS] ##ing −0.25 – ×→…", "日本語 한국어 Ünïcode"])
    assert fonts.families[0] == "Noto Sans CJK SC"


def test_a_character_without_a_glyph_is_named_and_nothing_is_drawn():
    with pytest.raises(NoFont, match=r"U\+1F98A FOX FACE") as error:
        find_fonts().require(["狐狸🦊"])
    assert error.value.exit_code == 1
    with pytest.raises(NoFont, match="U\\+1F98A"):
        draw([Row(WHITE, alignment("狐🦊"))])


def test_without_any_chinese_font_the_extra_is_named(monkeypatch):
    from matplotlib.font_manager import fontManager

    monkeypatch.setattr(fonts_module, "packaged_font", lambda: None)
    latin = [entry for entry in fontManager.ttflist if entry.name == "DejaVu Sans"]
    monkeypatch.setattr(fontManager, "ttflist", latin)
    with pytest.raises(NoFont, match=r"vlcli\[figures\]"):
        find_fonts()


def test_an_installed_chinese_font_serves_without_the_extra(monkeypatch):
    import dataclasses

    from matplotlib.font_manager import fontManager

    find_fonts()
    theirs = [
        dataclasses.replace(entry, name="SimHei")
        for entry in fontManager.ttflist
        if entry.name == "Noto Sans CJK SC"
    ]
    latin = [entry for entry in fontManager.ttflist if entry.name == "DejaVu Sans"]
    monkeypatch.setattr(fonts_module, "packaged_font", lambda: None)
    monkeypatch.setattr(fontManager, "ttflist", [*latin, *theirs])
    fonts = find_fonts()
    assert fonts.families == ("SimHei", "Noto Sans Arabic", "DejaVu Sans")
    fonts.require(["狐狸"])


@pytest.mark.parametrize("kind", ["png", "svg"])
def test_bytes_repeat_and_carry_no_date(kind):
    one, two = (render(draw([Row(WHITE, alignment())]), kind, dpi=40) for _ in range(2))
    assert one == two
    assert b"2026-" not in one
    assert b"Matplotlib" not in one.replace(b"matplotlib.org", b"") or kind == "svg"


def test_letters_of_an_svg_are_outlines():
    svg = render(draw([Row(WHITE, alignment())]), "svg").decode()
    assert "<text" not in svg
    assert "<path" in svg
    assert "<dc:date>" not in svg


def test_settings_of_the_user_change_nothing():
    import matplotlib

    plain = render(draw([Row(WHITE, alignment("$狐$"))]), "png", dpi=40)
    with matplotlib.rc_context({"axes.facecolor": "red", "font.size": 30, "text.parse_math": True}):
        assert render(draw([Row(WHITE, alignment("$狐$"))]), "png", dpi=40) == plain
        assert matplotlib.rcParams["font.size"] == 30


def test_red_stands_where_the_token_is_the_labels_and_nowhere_else():
    """The middle panel on a white picture: an undimmed patch is white at its corner, a dimmed one is not."""
    index = [[0, 1, 2, 3], [3, 3, 3, 3], [1, 0, 0, 0], [2, 2, 2, 2]]
    found = alignment(index=index)
    figure = draw([Row(WHITE, found)])
    middle = figure.axes[1]
    texts = [text for text in middle.texts if text.get_text().isdigit()]
    assert [int(text.get_text()) for text in texts] == [place for line in index for place in line]
    red = [text.get_color() == "#e4002b" for text in texts]
    assert red == found.on_label.ravel().tolist()
    centres = [text.get_position() for text in texts]
    assert centres[0] == (0.125, 0.125)
    assert centres[7] == (0.875, 0.375)
    dimmed = [patch.get_facecolor()[3] > 0 for patch in middle.patches]
    assert dimmed == (~found.on_label).ravel().tolist()
    assert "7 of 16" in middle.get_title(loc="left")


def test_all_rows_share_one_scale_of_similarity():
    weak, strong = alignment(), alignment()
    weak = Alignment(weak.text, weak.index, weak.similarity * 0.01)
    figure = draw([Row(WHITE, weak), Row(WHITE, strong)])
    heats = [ax.images[1].get_clim() for ax in figure.axes if len(ax.images) == 2]
    assert heats == [(strong.similarity.min(), strong.similarity.max())] * 2


def test_no_state_of_pyplot_is_touched():
    draw([Row(WHITE, alignment())])
    assert "matplotlib.pyplot" not in sys.modules or not sys.modules["matplotlib.pyplot"].get_fignums()


def test_the_token_list_is_complete_and_broken_to_the_width():
    long = "带着红色围巾的狐狸在雪地里跑步的照片" * 2
    lines = token_lines(alignment(long[:30]))
    flat = [piece for line in lines for piece, _ in line]
    assert flat == [f"{i} {t}" for i, t in enumerate(["[CLS]", *long[:30], "[SEP]"])]
    assert len(lines) > 1
    assert [on for line in lines for _, on in line] == [False, *[True] * 30, False]
    assert columns("狐a") == 3
    assert shorten("狐" * 30) == "狐" * 16 + "…"


def test_upsampling_keeps_the_range_and_the_place_of_the_peak():
    grid = np.zeros((4, 4), np.float32)
    grid[1, 2] = 1
    fine = upsample(grid, 64)
    assert fine.shape == (64, 64)
    assert 0 <= fine.min() <= fine.max() <= 1
    r, c = np.unravel_index(fine.argmax(), fine.shape)
    assert (r // 16, c // 16) == (1, 2)


def test_a_sheet_has_a_row_for_every_picture_and_text():
    sources = [Source("red.png", square("red")), Source("blue.png", square("blue"))]
    sheet = make_sheet(tiny(), sources, ["狐狸", "红色"])
    data = json.loads(sheet.render(["json"])["json"])
    assert data["checkpoint"] == "0123456789abcdef"
    assert [(f["image"], f["label"]) for f in data["figures"]] == [
        ("red.png", "狐狸"),
        ("red.png", "红色"),
        ("blue.png", "狐狸"),
        ("blue.png", "红色"),
    ]
    one = data["figures"][0]
    assert len(one["index"]) == len(one["similarity"]) == one["grid"][0]
    assert len(one["image_sha256"]) == 64
    assert one["tokens"] == ["[CLS]", "狐", "狸", "[SEP]"]


def test_a_mosaic_is_read_at_twice_the_size_where_the_tower_takes_it():
    four = [Source(c, square(c)) for c in ("red", "green", "blue", "black")]
    conv = make_sheet(tiny(tower="test_efficientnet"), four, ["红色"], mosaic=True)
    assert (conv.pictures[0]["size"], conv.pictures[0]["image"]) == (128, ["red", "green", "blue", "black"])
    assert make_sheet(tiny(tower=FIXED), four, ["红色"], mosaic=True).pictures[0]["size"] == 64
    shown = conv.rows[0].pixels
    assert shown[10, 10].tolist() == [255, 0, 0]
    assert shown[-10, 10].tolist() == [0, 0, 255]
    with pytest.raises(UsageError, match="4 images, not 1"):
        make_sheet(tiny(), four[:1], ["红色"], mosaic=True)


def test_what_no_figure_can_be_made_of():
    red = [Source("red.png", square("red"))]
    with pytest.raises(UsageError, match="global"):
        make_sheet(tiny("global"), red, ["红色"])
    with pytest.raises(UsageError, match="does not read 100 px"):
        make_sheet(tiny(tower=FIXED), red, ["红色"], size=100)
    with pytest.raises(InputError, match=r"cut.png: "):
        make_sheet(tiny(), [Source("cut.png", square("red")[:50])], ["红色"])
    with pytest.raises(UsageError, match="1 to 64"):
        make_sheet(tiny(), red * 65, ["红色"])


def test_file_names_of_a_request(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "fox.png").write_bytes(square("red"))
    request = Request.read(["fox.png"], ["狐狸/狗"])

    def names(*arguments, **options):
        targets = request.targets(*arguments, **{"printed": False, "force": False, **options})
        return {kind: str(path) for kind, path in targets.items()}

    assert names(None, None) == {"png": "fox.狐狸-狗.png"}
    assert names(None, None, printed=True) == {}
    assert names(Path("a/b.svg"), None) == {"svg": "a/b.svg"}
    assert names(Path("b.png"), "png,svg,json") == {"png": "b.png", "svg": "b.svg", "json": "b.json"}
    assert names(Path("b"), "svg") == {"svg": "b.svg"}
    for bad in ((Path("b.gif"), None), (None, "gif"), (Path("b"), None)):
        with pytest.raises(UsageError, match="is none of png, svg, html, json"):
            names(*bad)
    with pytest.raises(UsageError, match="exists"):
        names(Path("fox.png"), None)
    with pytest.raises(UsageError, match="no text"):
        Request.read(["fox.png"], [])
    with pytest.raises(UsageError, match="no picture"):
        Request.read([], ["狐狸"])


@pytest.mark.filterwarnings("error")
def test_nothing_that_is_drawn_lacks_a_glyph():
    """Every text of the figure, with titles, ticks, indices and tokens; matplotlib warns of each that it lacks."""
    from matplotlib.text import Text as Drawn

    figure = draw([Row(WHITE, alignment("𠮷㐀狐Ü→한か«»"), caption="—" * 60), Row(WHITE, alignment(side=7))])
    render(figure, "png", dpi=30)
    render(figure, "svg")
    shown = {text.get_text() for text in figure.findobj(Drawn)}
    assert {"1 𠮷", "2 㐀", "0 [CLS]", "—" * 33 + "…"} <= shown
    find_fonts().require(shown)


def test_arabic_letters_join_and_run_to_the_left():
    """Joined letters take less room than the same ones apart; a text drawn in reverse is another picture."""
    from matplotlib.textpath import TextPath

    font = find_fonts().properties()

    def outline(text):
        return TextPath((0, 0), text, size=20, prop=font)

    word = (
        "\u0628\u0628\u0628\u0627"  # beh beh beh alef: at its left end stands the alef, a stroke without dots
    )
    apart = "\u200c".join(word)
    assert outline(word).get_extents().width < outline(apart).get_extents().width
    box = outline(word).get_extents()
    first = outline(word).vertices
    # The alef is the tallest letter: what reaches the top lies at the left.
    assert first[first[:, 1] > box.y1 - 1, 0].max() < box.x0 + box.width / 2


def test_a_number_stays_on_its_side_of_an_arabic_word():
    found = alignment("\u062b\u0639\u0644\u0628")
    assert [piece for piece, _ in token_lines(found)[0]][1] == "\u200e1 \u2068\u062b\u2069"
    figure = draw([Row(WHITE, found)])
    assert figure.axes[2].get_title(loc="left") == "\u200esimilarity to \u2068\u062b\u0639\u0644\u0628\u2069"
    assert columns("\u2068\u062b\u0639\u064e\u2069") == 2
    find_fonts().require(["\u200e\u2068\u062b\u2069"])


def test_han_characters_have_the_forms_of_the_texts_language():
    assert [language_of(t) for t in ("直", "直の", "ゝ", "직 直", "fox")] == [None, "ja", "ja", "ko", None]

    def drawn(label):
        return render(draw([Row(WHITE, alignment(side=1), caption=label)]), "svg")

    pieces = [drawn("直"), drawn("直の")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vlcli.figures.panels.language_of", lambda text, lang=None: None)
        assert drawn("直") == pieces[0]
        assert drawn("直の") != pieces[1]


def test_a_contact_sheet_shows_every_script_and_marks_what_has_no_glyph():
    import io

    from PIL import Image

    from vlcli.figures.contact import COLUMNS, GAP, LINE, SIDE, Shown, contact_sheet

    def sheet(*names):
        data = contact_sheet(
            [Shown(lambda: square("red"), lambda: b"no picture", (name, name), "x") for name in names]
        )
        return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)

    pixels = sheet("ثعلب", "キツネ", "여우", "狐狸" * 60, "fox")
    width, height = 2 * SIDE + 3 * GAP, SIDE + 3 * LINE + 2 * GAP
    assert pixels.shape == (2 * height, COLUMNS * width, 3)
    # The picture (a square of 40) stands in the middle of its frame, the one that cannot be read leaves it empty.
    middle = (GAP + SIDE // 2, GAP + SIDE // 2)
    assert pixels[middle].tolist() == [255, 0, 0]
    assert (pixels[GAP + 8 : GAP + SIDE - 8, 2 * GAP + SIDE + 8 : 2 * GAP + 2 * SIDE - 8] == 255).all()
    red = (pixels[: GAP + SIDE, : GAP + SIDE] == [255, 0, 0]).all(2).nonzero()
    assert [(axis.min(), axis.max()) for axis in red] == [(GAP + 36, GAP + 75)] * 2
    for i in range(4):
        names = pixels[GAP + SIDE + 2 + LINE : height, i * width : (i + 1) * width]
        assert (names < 160).any()
        assert (names[:, -GAP // 2 :] == 255).all()  # the long one is cut, none runs into the next
    unknown = find_fonts().drawable("🦊 fox")
    assert unknown == "\ufffd fox"
    assert (sheet("🦊") == sheet("\ufffd")).all()
