import json

import pytest
import torch
from evaluation_fakes import dot, pooled
from tiny_models import square, table, tiny

from vlcli.errors import InputError, UsageError
from vlcli.evaluation.gallery import Gallery
from vlcli.evaluation.mosaics import Mosaic
from vlcli.evaluation.ranking import top
from vlcli.evaluation.search import Query, search
from vlcli.evaluation.tasks import Retrieval
from vlcli.text.prompts import PromptSet, load_prompts

NONE = load_prompts("none")


def test_a_gallery_has_distinct_images_and_texts_and_all_their_pairs():
    rows = table()
    rows.image_ids = ["a", "b", "a", "c"]
    rows.texts = [["狐狸", "é"], ["狐狸"], ["e\u0301", "狗"], ["猫"]]  # e + accent is é after NFC
    gallery = Gallery.of(rows)
    assert gallery.image_ids == ["a", "b", "c"]
    assert gallery.image_rows == [0, 1, 3]
    assert gallery.texts == ["狐狸", "é", "狗", "猫"]
    assert gallery.positives == [{0, 1, 2}, {0}, {3}]


@pytest.mark.parametrize("direction", ["i2t", "t2i"])
@pytest.mark.parametrize("side", [1, 4, 50])
def test_top_equals_a_full_sort(direction, side):
    generator = torch.Generator().manual_seed(side)
    a, b = (pooled(torch.randint(-2, 3, (n, 3), generator=generator)) for n in (13, 17))
    score = dot(a, b).i2t if direction == "i2t" else dot(a, b).i2t.T
    for one in top(dot, a, b, k=5, direction=direction, side=side):
        row = score[one.query].tolist()
        order = sorted(range(len(row)), key=lambda c, row=row: (-row[c], c))[:5]
        assert one.candidates == order
        assert one.scores == [row[c] for c in order]


def test_the_result_has_the_keys_scripts_rely_on(tmp_path):
    rows = table(split=["val"] * 3 + ["test"] * 3)
    gallery = Retrieval(tiny(), rows, NONE)
    out = tmp_path / "predictions.jsonl"
    result = gallery.write_metrics(out, bootstrap=20)
    keys = "checkpoint data split lang prompts similarity images texts i2t t2i MR ci95"
    assert set(keys.split()) <= set(result)
    assert list(result["i2t"]) == list(result["t2i"]) == ["R@1", "R@5", "R@10"]
    assert set(result["ci95"]) == {"i2t", "t2i", "MR"}
    assert (result["split"], result["lang"], result["similarity"]) == ("val+test", "zh", "tokenwise")
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(lines) == 12
    # What was predicted says the same as what was counted.
    for side, name in (("i2t", "texts"), ("t2i", "image_ids")):
        mine = [line for line in lines if line["direction"] == side]
        share = 100 * sum(line["rank"] <= 5 for line in mine) / len(mine)
        assert result[side]["R@5"] == pytest.approx(share, abs=1e-3)
        for i, line in enumerate(mine):
            truth = rows.texts[i][0] if side == "i2t" else rows.image_ids[i]
            assert line[name][line["rank"] - 1] == truth
    with pytest.raises(UsageError, match="exists"):
        gallery.write_metrics(out)


def test_without_a_split_column_the_split_goes_by_its_hash():
    assert Retrieval(tiny(), table(), NONE).metrics(bootstrap=0)["split"] == "sha256:ffffffffffff"
    assert Retrieval(tiny(), table(), NONE).metrics(bootstrap=0, split="demo")["split"] == "demo"


def test_search_ranks_the_images_by_text_to_image_similarity():
    rows = table()
    gallery = Retrieval(tiny(), rows, NONE)
    found = search(gallery, Query("红色"), 4)
    expected = gallery.similarity(gallery.images, gallery.encode(["红色"])).t2i[:, 0]
    assert [row["rank"] for row in found] == [1, 2, 3, 4]
    assert [row["score"] for row in found] == pytest.approx(
        expected.sort(descending=True).values[:4].tolist(), abs=1e-5
    )
    assert found[0]["id"] == rows.ids[int(expected.argmax())]


def test_one_template_is_applied_and_several_are_refused():
    gallery = Retrieval(tiny(), table(), PromptSet("photo", ("{}的照片",)))
    assert torch.equal(
        gallery.encode(["红色"]).tokens, Retrieval(tiny(), table(), NONE).encode(["红色的照片"]).tokens
    )
    with pytest.raises(UsageError, match="80 templates"):
        Retrieval(tiny(), table(), load_prompts("wukong-80"))


def test_mosaics_of_unknown_pictures_and_rows_without_texts_are_input_errors():
    gallery = Retrieval(tiny(), table(), NONE)
    known = Mosaic(("square/0", "square/1", "square/2", "square/3"), 1, "绿色")
    assert gallery.pointing([known] * 3, bootstrap=10)["n"] == 3
    with pytest.raises(InputError, match="square/9"):
        gallery.pointing([Mosaic(("square/9", "square/1", "square/2", "square/3"), 0, "x")])
    empty = table()
    empty.texts = [[] for _ in empty.texts]
    with pytest.raises(InputError, match="no texts"):
        Retrieval(tiny(), empty, NONE).metrics()


def test_one_image_of_several_rows_is_encoded_once():
    rows = table()
    rows.image_ids = ["same"] * 6
    gallery = Retrieval(tiny(), rows, NONE)
    assert len(gallery.images.tokens) == 1
    assert gallery.metrics(bootstrap=5)["i2t"]["R@1"] == 100.0
    assert rows.pictures[0] == square("red")


@pytest.mark.parametrize("kind", ["global", "tokenwise"])
def test_neither_batches_nor_the_order_of_rows_change_a_number(kind):
    """One image in two rows, one text in two rows (once decomposed), two texts that are one to the model ("Fox",
    "fox"), one picture under two ids: equal things tie, wherever they stand and in whatever batch."""
    colours = ["red", "green", "blue", "black", "yellow", "white", "green", "red"]
    texts = [
        ["Fox"],
        ["fox", "绿色"],
        ["é"],
        ["黑色"],
        ["黄色"],
        ["白色"],
        ["绿色"],
        ["e\u0301", "红色"],
    ]
    images = ["a", "b", "c", "d", "e", "f", "b", "g"]  # a and g are equal pictures, rows 1 and 6 one image

    def run(order, batch_size):
        rows = table()
        rows.ids = [f"square/{i}" for i in order]
        rows.image_ids = [images[i] for i in order]
        rows.texts = [texts[i] for i in order]
        rows.pictures = [square(colours[i]) for i in order]
        return Retrieval(tiny(kind), rows, NONE, batch_size=batch_size).metrics(bootstrap=0)

    whole = run(range(8), 64)
    assert (whole["images"], whole["texts"]) == (7, 8)
    assert whole["i2t"]["R@10"] == 100.0
    for order, batch_size in (
        ((7, 2, 0, 5, 6, 1, 4, 3), 1),
        ((3, 1, 4, 6, 5, 0, 2, 7), 3),
        (range(8)[::-1], 7),
    ):
        assert run(order, batch_size) == whole
