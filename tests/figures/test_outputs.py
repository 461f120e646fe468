"""HTML, contact sheets, galleries and maps: drawn again to the byte, and every script legible in each."""

from __future__ import annotations

import base64
import io
import json
import re
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "evaluation"))
from evaluation_fakes import dot, pooled
from tiny_models import square, table, tiny

from vlcli.errors import InputError, UsageError
from vlcli.evaluation.confusions import worst
from vlcli.evaluation.projection import pca, project
from vlcli.evaluation.retrieval import ranks
from vlcli.evaluation.search import Query, search
from vlcli.evaluation.tasks import Retrieval
from vlcli.figures.embedding_map import make_map
from vlcli.figures.fonts import NoFont, find_fonts
from vlcli.figures.gallery import Gallery, Item, Line, error_gallery, search_gallery
from vlcli.figures.html import embedded, page
from vlcli.figures.redraw import Figure
from vlcli.figures.request import Request
from vlcli.figures.sheet import Question, Source, make_sheet
from vlcli.figures.terminal import half_blocks
from vlcli.figures.webfont import subset
from vlcli.text.prompts import load_prompts

SCRIPTS = {
    "zh": "狐狸直",
    "ja": "キツネ直の",
    "ko": "여우",
    "ar": "ثعلب",
    "he": "שועל",
    "ru": "лиса",
    "fr": "Élan",
}
KINDS = ["png", "svg", "html", "json"]


def sources(*colours, texts=()):
    return [
        Source(f"{c}.png", square(c, 50), text, None)
        for c, text in zip(colours, texts or [None] * len(colours), strict=True)
    ]


def sheets():
    conv, vit = tiny(tower="test_efficientnet"), tiny()
    yield "tokens", make_sheet(conv, sources("red", "blue"), ["狐狸"], question=Question(by_token=True))
    yield (
        "gradcam",
        make_sheet(
            vit,
            sources("red"),
            ["狐狸"],
            question=Question("gradcam"),
            name="a",
            against=[("b", tiny("global"))],
        ),
    )
    yield "sheet", make_sheet(vit, sources("red", "blue", texts=("狐", "ثعلب")), [], layout="sheet")


@pytest.mark.parametrize(
    ("name", "sheet"), list(sheets()), ids=lambda value: value if isinstance(value, str) else ""
)
def test_an_html_alone_draws_every_file_again(name, sheet, tmp_path, monkeypatch):
    files = sheet.render(KINDS)
    monkeypatch.chdir(tmp_path)  # where no picture lies
    Path(f"{name}.html").write_bytes(files["html"])
    assert Figure.read(Path(f"{name}.html")).sheet().render(KINDS) == files
    assert embedded(files["html"])[0].strip() == files["json"].strip()


def test_models_stand_beside_each_other_and_say_their_names():
    sheet = dict(sheets())["gradcam"]
    data = json.loads(sheet.render(["json"])["json"])
    assert [(m["name"], m["similarity"]) for m in data["models"]] == [("a", "tokenwise"), ("b", "global")]
    assert [f.get("model", 0) for f in data["figures"]] == [0, 1]
    assert "index" not in data["figures"][0]
    html = sheet.render(["html"])["html"].decode()
    assert "a: Grad-CAM" in html
    assert "b: Grad-CAM" in html


def test_a_row_of_a_model_that_is_missing_is_no_figure(tmp_path):
    data = json.loads(dict(sheets())["gradcam"].render(["json"])["json"])
    del data["figures"][1]
    (tmp_path / "cut.json").write_text(json.dumps(data))
    with pytest.raises(InputError, match="a row of a model is missing"):
        Figure.read(tmp_path / "cut.json")


def test_a_page_asks_for_nothing_outside_and_cannot_be_broken_out_of():
    label = "</script><script>alert(1)</script>"
    sheet = make_sheet(tiny(), sources("red"), [label])
    html = sheet.render(["html"])["html"].decode()
    assert "<script>alert" not in html
    assert not re.search(r"(?:src|href)=[\"']?(?!data:|\")", html)
    assert not re.search(r"https?://", html)
    assert "default-src 'none'" in html
    assert html.count("<script") == 3
    assert json.loads(embedded(html.encode())[0])["figures"][0]["label"] == label


def test_another_html_is_named(tmp_path):
    (tmp_path / "x.html").write_text("<html></html>")
    with pytest.raises(InputError, match="not the HTML of a figure"):
        Figure.read(tmp_path / "x.html")


def faces_of(html: bytes):
    from fontTools.ttLib import TTFont

    for data in re.findall(rb"url\(data:font/woff;base64,([^)]+)\)", html):
        yield TTFont(io.BytesIO(base64.b64decode(data)))


@pytest.mark.parametrize("text", SCRIPTS.values(), ids=SCRIPTS)
@pytest.mark.parametrize("form", ["alignment", "sheet", "gallery"])
@pytest.mark.filterwarnings("error:Glyph")
def test_every_script_has_its_glyphs_in_every_output(form, text):
    """matplotlib warns of each glyph that it lacks; in HTML each character of the page is in one of its fonts."""
    if form == "gallery":
        made = Gallery("Search", [Line(Item(text=text), [Item("a", "0", text=text, score=1.0)])], {})
    else:
        layout = "sheet" if form == "sheet" else "rows"
        made = make_sheet(tiny(), sources("red", texts=(text,)), [], layout=layout)
    files = made.render(KINDS)
    assert b"<text" not in files["svg"]
    html = files["html"]
    has = set().union(*(face.getBestCmap() for face in faces_of(html)))
    body = html.decode().split("<body>")[1].split("<script")[0]
    shown = re.sub(r"<[^>]+>", "", body)
    assert text in shown
    assert {ord(c) for c in shown if not c.isspace()} - has <= {0x2066, 0x2068, 0x2069, 0x200E}
    assert 'dir="auto"' in body


def test_letters_join_and_regions_differ_in_the_fonts_of_a_page():
    fonts = find_fonts()
    arabic = fonts.files[fonts.families.index("Noto Sans Arabic")]
    from fontTools.ttLib import TTFont

    face = TTFont(io.BytesIO(subset(arabic, "ثعلب")))
    assert {"init", "medi", "fina"} <= {f.FeatureTag for f in face["GSUB"].table.FeatureList.FeatureRecord}
    assert len(face.getGlyphOrder()) > 8  # four letters, and their joined forms
    han = TTFont(io.BytesIO(subset(fonts.files[0], "直")))
    assert "locl" in {f.FeatureTag for f in han["GSUB"].table.FeatureList.FeatureRecord}
    assert subset(arabic, "ثعلب") == subset(arabic, "ثعلب")


def test_arabic_is_drawn_by_the_packaged_face():
    fonts = find_fonts()
    assert fonts.families[fonts.face_of("ث")] == "Noto Sans Arabic"


def test_what_has_no_glyph_is_no_figure_in_any_form():
    with pytest.raises(NoFont, match=r"U\+1F98A"):
        page("🦊", [], [], b"{}", {})
    sheet = make_sheet(tiny(), sources("red"), ["狐🦊"])
    for kind in ("png", "svg", "html"):
        with pytest.raises(NoFont, match=r"U\+1F98A"):
            sheet.render([kind])
    made = Gallery("Search", [Line(Item(text="🦊"), [Item(text="狐")])], {})
    assert "\ufffd" in made.render(["html"])["html"].decode().split("<body>")[1].split("<script")[0]


def test_the_rows_own_language_chooses_the_forms():
    def drawn(lang):
        return make_sheet(tiny(), [Source("r", square("red"), "直", lang)], []).render(["svg"])["svg"]

    assert drawn("ja") != drawn("zh")
    assert drawn("zh") == drawn(None)


def test_a_folder_and_the_first_rows_become_a_contact_sheet(tmp_path):
    (tmp_path / "in").mkdir()
    for colour in ("red", "blue"):
        (tmp_path / "in" / f"{colour}.png").write_bytes(square(colour))
    (tmp_path / "in" / "notes.txt").write_text("x")
    request = Request.read(["in"], ["狐"], image_root=tmp_path)
    assert [s.reference for s in request.sources] == ["in/blue.png", "in/red.png"]
    rows = tmp_path / "rows.jsonl"
    lines = [
        {"id": c, "image": f"in/{c}.png", "text": t, "lang": "ja"} for c, t in (("red", "あ"), ("blue", "い"))
    ]
    rows.write_text("".join(json.dumps(line) + "\n" for line in lines))
    request = Request.read([], [], data=[str(rows)], head=1)
    assert [(s.reference, s.text, s.lang) for s in request.sources] == [("red", "あ", "ja")]
    assert request.many
    with pytest.raises(UsageError, match="--head is about --data without --id"):
        Request.read([], [], data=[str(rows)], ids=["red"], head=1)
    (tmp_path / "none").mkdir()
    with pytest.raises(UsageError, match="0 pictures"):
        Request.read([str(tmp_path / "none")], ["狐"])


@pytest.mark.parametrize("direction", ["i2t", "t2i"])
def test_the_worst_queries_are_those_of_a_literal_sort(direction):
    rng = np.random.default_rng(3)
    images, texts = pooled(rng.normal(size=(9, 4))), pooled(rng.normal(size=(12, 4)))
    positives = [{i, i + 3} for i in range(9)]
    found = ranks(dot, images, texts, positives)
    got = worst(dot, images, texts, positives, found, direction=direction, count=5, k=3)
    scores = (images.pooled @ texts.pooled.T).numpy()
    right = [[j in shown for j in range(12)] for shown in positives]
    if direction == "t2i":
        scores, right = scores.T, np.array(right).T.tolist()
    expected = []
    for q, row in enumerate(scores):
        answers = [c for c in range(len(row)) if right[q][c]]
        if not answers:
            continue
        best = max(answers, key=lambda c: row[c])
        rank = 1 + sum(row[c] >= row[best] for c in range(len(row)) if not right[q][c])
        order = sorted(range(len(row)), key=lambda c: -row[c])[:3]
        if rank > 1:
            expected.append((-rank, q, best, order))
    expected.sort()
    assert [(-c.rank, c.query, c.positive, c.candidates) for c in got] == expected[:5]
    for one in got:
        assert one.score == pytest.approx(scores[one.query][one.positive], abs=1e-5)
        assert one.scores == pytest.approx([scores[one.query][c] for c in one.candidates], abs=1e-5)


def test_galleries_are_redrawn_from_their_html(tmp_path):
    retrieval = Retrieval(tiny("global"), table(), load_prompts("none"))
    made = error_gallery(retrieval)
    assert {line.query.image is None for line in made.lines} == {True, False}
    assert all(line.rank > 1 and line.answer.right for line in made.lines)
    found = search(retrieval, Query("红色"), 3)
    for name, one in (("errors", made), ("search", search_gallery(retrieval, Query("红色"), found))):
        files = one.render(KINDS)
        (tmp_path / f"{name}.html").write_bytes(files["html"])
        assert Figure.read(tmp_path / f"{name}.html").sheet().render(KINDS) == files
        (tmp_path / f"{name}.json").write_bytes(files["json"])
        with pytest.raises(InputError, match="cannot be read"):
            Figure.read(tmp_path / f"{name}.json")
    data = json.loads(files["json"])
    assert [r["score"] for r in data["lines"][0]["results"]] == [r["score"] for r in found]


def test_a_map_is_a_parquet_with_pictures_and_their_places(tmp_path):
    model, data = tiny("global"), table()
    made = make_map(model, data)
    files = made.render(["png", "svg", "parquet", "json"])
    assert make_map(model, data).render(["parquet"])["parquet"] == files["parquet"]
    (tmp_path / "map.parquet").write_bytes(files["parquet"])
    rows = pq.read_table(tmp_path / "map.parquet")
    assert rows.column_names == ["x", "y", "text", "image", "id"]
    assert rows["text"].to_pylist() == [texts[0] for texts in data.texts]
    assert [v["bytes"] for v in rows["image"].to_pylist()] == data.pictures
    assert json.loads(rows.schema.metadata[b"vlcli:map"])["projection"] == "pca"
    np.testing.assert_allclose(rows["x"].to_numpy(), made.points[:, 0])
    assert Image.open(io.BytesIO(files["png"])).width == 1800


def test_pca_is_scikit_learns_and_tsne_repeats():
    from sklearn.decomposition import PCA

    vectors = np.random.default_rng(0).normal(size=(40, 8)).astype(np.float32)
    theirs = PCA(2, svd_solver="full").fit_transform(vectors)
    ours = pca(vectors)
    for axis in range(2):
        sign = np.sign((theirs[:, axis] * ours[:, axis]).sum())
        np.testing.assert_allclose(ours[:, axis], sign * theirs[:, axis], atol=1e-4)
        assert ours[np.abs(ours[:, axis]).argmax(), axis] > 0
    assert (project(vectors, "tsne", seed=1) == project(vectors, "tsne", seed=1)).all()
    with pytest.raises(UsageError, match="2 vectors"):
        project(vectors[:2])


def test_half_blocks_are_two_pixels_a_cell():
    buffer = io.BytesIO()
    pixels = np.zeros((4, 3, 3), np.uint8)
    pixels[0], pixels[1] = (255, 0, 0), (0, 0, 255)
    Image.fromarray(pixels).save(buffer, "PNG")
    text = half_blocks(buffer.getvalue(), 80, 40)
    assert text.plain == "▀▀▀\n▀▀▀\n"
    assert str(text.spans[0].style) == "rgb(255,0,0) on rgb(0,0,255)"
    assert len(half_blocks(buffer.getvalue(), 2, 40).plain.splitlines()[0]) == 2
