"""Word cloud and histograms of a corpus: words apart and inside, the larger the more frequent, equal bytes."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from vlcli.curation.counting import Wanted
from vlcli.curation.ends import Source
from vlcli.curation.statistics import collect
from vlcli.errors import InputError, UsageError
from vlcli.figures import wordcloud
from vlcli.figures.canvas import render
from vlcli.figures.corpus import Figures
from vlcli.figures.fonts import NoFont, find_fonts
from vlcli.figures.histogram import draw_histograms
from vlcli.figures.wordcloud import GAP, HEIGHT, WIDTH, draw_cloud, drawable, lay_out

WORDS = [
    ("月", 900),
    ("日", 700),
    ("做", 500),
    ("一个", 450),
    *((f"词{c}", 400 // n) for n, c in enumerate("风花雪水", 2)),
]


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> dict:
    file = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    sizes = ((100, 100), (640, 480), (30, 200))
    row = '{{"text": "{}", "width": {}, "height": {}}}\n'
    file.write_text(
        "".join(row.format("明月" * n, *size) for n, size in enumerate(sizes, 1)), encoding="utf-8"
    )
    return collect(Source([str(file)]), Wanted.of("wordpiece", "rjieba"))


def test_words_stand_apart_inside_and_by_their_counts():
    placed = lay_out(WORDS, find_fonts())
    assert [word.text for word in placed] == [word for word, _ in WORDS]
    assert [word.size for word in placed] == sorted((word.size for word in placed), reverse=True)
    for word in placed:
        assert GAP <= word.box[0] < word.box[2] <= WIDTH - GAP
        assert GAP <= word.box[1] < word.box[3] <= HEIGHT - GAP
    for a, b in itertools.combinations([word.box for word in placed], 2):
        assert a[2] + GAP <= b[0] or b[2] + GAP <= a[0] or a[3] + GAP <= b[1] or b[3] + GAP <= a[1]
    x0, y0, x1, y1 = placed[0].box  # the first has the middle
    assert x0 < WIDTH / 2 < x1
    assert y0 < HEIGHT / 2 < y1


def test_words_that_find_no_room_or_only_as_specks_are_left_out(monkeypatch):
    monkeypatch.setattr(wordcloud, "WIDTH", 200)
    monkeypatch.setattr(wordcloud, "HEIGHT", 100)
    words = [(f"词{chr(0x4E00 + i)}", 10_000 - i) for i in range(60)]
    long = ("很长" * 30, 10_000)
    placed = [word.text for word in lay_out([long, *words], find_fonts())]
    assert 10 < len(placed) < 60
    assert placed[0] == words[0][0]
    assert long[0] not in placed


def test_a_cloud_is_drawn_where_it_was_laid_out_and_its_bytes_are_its_input():
    fonts = find_fonts()
    figure = draw_cloud(WORDS, fonts=fonts)
    for patch, word in zip(figure.axes[0].patches, lay_out(WORDS, fonts), strict=True):
        assert patch.get_path().get_extents().extents == pytest.approx(word.box, abs=1e-6)
    for kind in ("png", "svg"):
        first = render(figure, kind)
        assert first == render(draw_cloud(WORDS), kind)
        assert first != render(draw_cloud(WORDS, seed=1), kind)
    assert b"<text" not in render(figure, "svg")


def test_a_word_without_a_glyph_costs_the_word_and_not_the_figure():
    words = [("狐狸", 3), ("\U000e0041", 2), ("fox", 1)]
    assert drawable(words, find_fonts()) == [words[0], words[2]]
    with pytest.raises(NoFont):
        draw_cloud(words)


def test_histograms_show_what_was_counted(report):
    figure = draw_histograms(report)
    tokens, sides, aspects = figure.axes
    assert [bar.get_height() for bar in tokens.patches] == [1, 1, 1]
    assert [bar.get_x() + bar.get_width() / 2 for bar in tokens.patches] == [2, 4, 6]
    assert [bar.get_height() for bar in sides.patches] == [1, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0]
    assert [bar.get_height() for bar in aspects.patches] == [1, 1, 0, 0, 0, 0, 0, 0, 1]
    assert "median 4" in tokens.get_title()
    assert render(figure, "png") == render(draw_histograms(report), "png")


def test_a_histogram_of_nothing_says_so(report, tmp_path):
    (tmp_path / "empty.jsonl").touch()
    empty = collect(Source([str(tmp_path / "empty.jsonl")]), Wanted.of("char", "rjieba"))
    assert [axes.texts[0].get_text() for axes in draw_histograms(empty).axes] == ["no data"] * 3
    with pytest.raises(InputError, match="no word to draw"):
        Figures(cloud=tmp_path / "cloud.png").draw(empty)
    long = {
        **report,
        "tokens_per_caption": {**report["tokens_per_caption"], "max": 99, "histogram": [[2, 1], [99, 4]]},
    }
    assert [bar.get_height() for bar in draw_histograms(long).axes[0].patches] == [1, 4]


def test_names_are_judged_before_the_corpus_is_read(tmp_path):
    with pytest.raises(UsageError, match=r"words.pdf: a figure's name ends in \.png or \.svg"):
        Figures(cloud=Path("words.pdf")).check()
    (tmp_path / "there.png").touch()
    with pytest.raises(UsageError, match="exists"):
        Figures(histogram=tmp_path / "there.png").check()
    Figures(histogram=tmp_path / "there.png", force=True).check()
    with pytest.raises(UsageError, match="name one file"):
        Figures(tmp_path / "a.png", tmp_path / "." / "a.png").check()
