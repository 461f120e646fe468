"""Searches: what is found equals what literal loops over every candidate find."""

import json
import math

import numpy as np
import pytest
from tiny_models import COLOURS, square, table, tiny

from vlcli.errors import UsageError
from vlcli.evaluation.search import Query, nearest, search
from vlcli.evaluation.tasks import Retrieval
from vlcli.figures.gallery import search_gallery
from vlcli.text.prompts import load_prompts

NONE = load_prompts("none")


def unit(values):
    length = math.sqrt(sum(v * v for v in values))
    return [v / length for v in values]


def mean(tokens):
    """The mean of vectors, brought to length 1."""
    return unit([sum(token[c] for token in tokens) / len(tokens) for c in range(len(tokens[0]))])


def of_images(features):
    if features.pooled is not None:
        return features.pooled.tolist()
    return [mean(tokens) for tokens in features.tokens.tolist()]


def of_text(pool, text):
    features = pool.encode([text])
    if features.pooled is not None:
        return features.pooled[0].tolist()
    real = features.content_mask[0].tolist()
    return mean([token for token, own in zip(features.tokens[0].tolist(), real, strict=True) if own])


@pytest.mark.parametrize("kind", ["global", "tokenwise", "reduced"])
@pytest.mark.parametrize(
    ("asked", "image", "texts"),
    [
        ({"plus": "黑色"}, 1, {"黑色": 2}),
        ({"minus": "黑色"}, 1, {"黑色": -1}),
        ({"plus": "黑色", "minus": "白色"}, 1, {"黑色": 2, "白色": -1}),
        ({"text": "黑色"}, 1, {"黑色": 2}),
        ({}, 1, {}),
        (
            {"plus": "黑色", "minus": "白色", "text_scale": 0.5, "image_scale": 3},
            3,
            {"黑色": 0.5, "白色": -0.5},
        ),
        ({"picture": None, "text": "红色", "plus": "黑色"}, 0, {"红色": 1, "黑色": 1}),
        ({"picture": None, "text": "红色", "minus": "黑色"}, 0, {"红色": 1, "黑色": -1}),
    ],
)
def test_a_query_is_a_sum_of_vectors_and_cosines_rank(kind, asked, image, texts):
    pool = Retrieval(tiny(kind), table(), NONE)
    vectors = of_images(pool.images)
    number = list(COLOURS.values()).index("yellow")
    total = [image * value for value in vectors[number]]
    for text, scale in texts.items():
        total = [a + scale * b for a, b in zip(total, of_text(pool, text), strict=True)]
    expected = [sum(a * b for a, b in zip(unit(total), one, strict=True)) for one in vectors]
    found = search(pool, Query(**{"picture": square("yellow"), "name": "y.png", **asked}), 10)
    assert len(found) == 6
    assert [one["rank"] for one in found] == [1, 2, 3, 4, 5, 6]
    scores = {one["id"]: one["score"] for one in found}
    assert [scores[name] for name in pool.table.ids] == pytest.approx(expected, abs=2e-5)
    assert [one["score"] for one in found] == sorted(scores.values(), reverse=True)
    if not asked:
        assert found[0]["id"] == f"square/{number}"


@pytest.mark.parametrize("size", [1, 4, 7, 50])
def test_the_nearest_are_those_of_a_sort_whatever_the_blocks(size):
    generator = np.random.default_rng(0)
    vectors = generator.integers(-2, 3, (23, 3)).astype(np.float32)
    wanted = np.array([1, 2, -1], np.float32)
    blocks = [(start, vectors[start : start + size]) for start in range(0, 23, size)]
    scores = [float(sum(a * b for a, b in zip(row, wanted, strict=True))) for row in vectors]
    for k in (1, 5, 23, 99):
        order = sorted(range(23), key=lambda row: (-scores[row], row))[:k]
        assert nearest(blocks, wanted, k) == [(row, scores[row]) for row in order]


def test_a_query_says_what_it_is():
    picture = {"picture": b"", "name": "a.png"}
    assert Query("狐狸").title == "狐狸"
    assert Query(plus="雪", minus="夜", **picture).title == "a.png + 2·雪 − 夜"
    assert Query("狐狸", plus="雪", minus="夜").title == "狐狸 + 雪 − 夜"
    assert Query("狐狸", text_scale=3, **picture).title == "a.png + 3·狐狸"
    assert Query(**picture).title == "a.png"


def test_what_cannot_be_asked_is_refused():
    with pytest.raises(UsageError, match="--minus changes a query, and there is none"):
        Query(minus="夜")
    with pytest.raises(UsageError, match="--plus changes a query"):
        Query(plus="雪", minus="夜")
    with pytest.raises(UsageError, match="--plus is empty"):
        Query("狐狸", plus=" ")
    with pytest.raises(UsageError, match="cancel out: 狐狸 − 狐狸"):
        search(Retrieval(tiny(), table(), NONE), Query("狐狸", minus="狐狸"), 3)


def test_a_gallery_shows_the_picture_of_the_query():
    pool = Retrieval(tiny("global"), table(), NONE)
    query = Query(picture=square("pink"), name="pink.png", plus="红色")
    made = search_gallery(pool, query, search(pool, query, 2))
    (line,) = json.loads(made.render(["json"])["json"])["lines"]
    assert (line["query"]["image"], line["query"]["text"]) == ("pink.png", "+ 2·红色")
    assert made.pictures[line["query"]["image_sha256"]] == square("pink")
    assert len(line["results"]) == 2
    assert made.render(["png"])["png"].startswith(b"\x89PNG")
