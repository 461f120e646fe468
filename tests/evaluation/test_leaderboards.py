"""Files for leaderboards, as their own evaluators read them."""

import json

import polars as pl
import pytest
from tiny_models import square, table, tiny

from vlcli.errors import InputError, UsageError
from vlcli.evaluation.leaderboards import Leaderboard
from vlcli.evaluation.tasks import Retrieval
from vlcli.text.prompts import load_prompts


def queries(**changes):
    """Twelve pictures; two queries are written alike, one picture has no query."""
    rows = table()
    rows.ids = [f"row/{k}" for k in range(12)]
    rows.image_ids = [str(1000 + k) for k in range(12)]
    rows.pictures = [square(f"#{k * 20:02x}{255 - k * 9:02x}{k * 53 % 256:02x}", 30 + k) for k in range(12)]
    rows.texts = [[f"查询{k % 11}"] for k in range(11)] + [[]]
    rows.texts[10] = ["查询0"]
    rows.frame = pl.DataFrame({"text_id": [f"{500 + k}" for k in range(11)] + [None]})
    for name, value in changes.items():
        setattr(rows, name, value)
    return rows


def recall(lines, query, found, truth, k):
    """How their evaluators count: whole numbers, ten different ones, every query answered."""
    hits = 0
    answered = {}
    for line in lines:
        assert isinstance(line[query], int)
        assert len(set(line[found])) == 10
        assert all(isinstance(value, int) for value in line[found])
        answered[line[query]] = line[found]
    assert set(answered) >= set(truth)
    for name, right in truth.items():
        hits += bool(set(answered[name][:k]) & set(right))
    return 100 * hits / len(truth)


@pytest.mark.parametrize("kind", ["muge", "chinese-clip", "chinese-clip-tr"])
def test_the_files_hold_what_is_measured(tmp_path, kind):
    rows = queries()
    task = Retrieval(tiny(), rows, load_prompts("none"))
    out = tmp_path / "best.jsonl"
    found = task.write_metrics(out, lines=Leaderboard(kind, rows).lines, bootstrap=0)
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    if kind == "chinese-clip-tr":
        truth = {1000 + k: [500 + k] for k in range(11)}
        truth[1000], truth[1010] = [500, 510], [500, 510]
        assert recall(lines, "image_id", "text_ids", truth, 10) >= found["i2t"]["R@5"]
        assert len(lines) == 12
        return
    query, images = ("query_id", "item_ids") if kind == "muge" else ("text_id", "image_ids")
    truth = {500 + k: [1000 + k] for k in range(11)}
    truth[500] = truth[510] = [1000, 1010]
    assert len(lines) == 11
    for k in (1, 5, 10):
        # the metric counts a text once, their files each of its ids
        distinct = {name: right for name, right in truth.items() if name != 510}
        assert recall(lines, query, images, distinct, k) == pytest.approx(found["t2i"][f"R@{k}"], abs=1e-3)
    if kind == "muge":
        assert list(lines[0]) == ["query_id", "query_text", "item_ids"]
        assert lines[0]["query_text"] == "查询0"


def test_what_no_leaderboard_takes_is_refused():
    with pytest.raises(UsageError, match="the rows have no text_id"):
        Leaderboard("muge", queries(frame=pl.DataFrame({"split": ["val"] * 12})))
    with pytest.raises(InputError, match=r"row row/3 has no text_id"):
        Leaderboard("muge", queries(frame=pl.DataFrame({"text_id": ["1", "2", "3"] + [None] * 9})))
    few = queries(image_ids=["1", "2", "3"] * 4)
    with pytest.raises(InputError, match="muge wants 10 of 3 images"):
        Leaderboard("muge", few)
    with pytest.raises(InputError, match="whole numbers: 'a' is none"):
        Leaderboard("chinese-clip", queries(image_ids=[*"abcdefghijkl"]))


def test_a_test_set_has_predictions_and_no_numbers(tmp_path):
    rows = queries()
    rows.image_ids = [*rows.image_ids, *[None] * 11]
    rows.ids, rows.pictures = [f"row/{k}" for k in range(23)], rows.pictures * 2
    rows.texts = [*[[] for _ in range(12)], *rows.texts[:11]]
    rows.frame = pl.DataFrame({"text_id": [None] * 12 + [500 + k for k in range(11)]})
    task = Retrieval(tiny("global"), rows, load_prompts("none"))
    out = tmp_path / "best.jsonl"
    found = task.write_metrics(out, lines=Leaderboard("muge", rows).lines, directions=("t2i",))
    assert (found["i2t"], found["t2i"], found["MR"], found["ci95"]) == (None, None, None, {})
    assert (found["images"], found["texts"]) == (12, 10)
    assert len(out.read_text().splitlines()) == 11
    with pytest.raises(InputError, match="no image has a text"):
        task.metrics()


def test_one_direction_alone_is_the_mean_of_three():
    task = Retrieval(tiny(), queries(), load_prompts("none"))
    found = task.metrics(directions=("t2i",), bootstrap=20)
    assert found["i2t"] is None
    assert found["MR"] == pytest.approx(sum(found["t2i"].values()) / 3, abs=1e-3)
    assert "i2t" not in found["ci95"]
