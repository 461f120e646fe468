"""Candidates chosen by vectors, then ranked by late interaction: against a loop by the book, and what it costs."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from evaluation_fakes import Features, literal_rank, tokenwise
from tiny_models import COLOURS, square, table, tiny

from vlcli.errors import InputError, UsageError
from vlcli.evaluation.preselection import Pooled, loss_of_recall, preselected, refuse_exact
from vlcli.evaluation.retrieval import Ranks, ranks
from vlcli.evaluation.search import Query, search
from vlcli.evaluation.tasks import Retrieval
from vlcli.evaluation.text_odds import text_odds
from vlcli.text.prompts import load_prompts

NONE = load_prompts("none")


def tokens(n, each, seed):
    generator = torch.Generator().manual_seed(seed)
    found = torch.nn.functional.normalize(torch.randn(n, each, 6, generator=generator), dim=-1)
    return Features(found, None), Pooled(None, torch.nn.functional.normalize(found.sum(1), dim=-1))


@pytest.mark.parametrize("k", [1, 3, 8, 40])
def test_every_rank_is_what_a_loop_finds(k):
    (images, of_images), (texts, of_texts) = tokens(9, 4, 0), tokens(12, 3, 1)
    positives = [{i, (i + 3) % 12} for i in range(8)] + [set()]
    found = preselected(tokenwise, images, texts, (of_images, of_texts), positives, k=k)
    exact = tokenwise(images, texts)
    cosines = of_images.pooled @ of_texts.pooled.T
    shown = [{i for i in range(9) if j in positives[i]} for j in range(12)]

    def rank(scores, near, right):
        if not right:
            return 0
        first = sorted(range(len(near)), key=lambda c: -float(near[c]))[:k]
        if not right & set(first):
            return literal_rank(near, right)
        return literal_rank([scores[c] for c in first], {n for n, c in enumerate(first) if c in right})

    assert found.i2t.tolist() == [rank(exact.i2t[i], cosines[i], positives[i]) for i in range(9)]
    assert found.t2i.tolist() == [rank(exact.t2i[:, j], cosines[:, j], shown[j]) for j in range(12)]
    if k == 40:
        whole = ranks(tokenwise, images, texts, positives)
        assert (found.i2t.tolist(), found.t2i.tolist()) == (whole.i2t.tolist(), whole.t2i.tolist())


def test_the_loss_is_the_difference():
    exact, found = Ranks(np.array([1, 2, 6]), np.array([1, 0])), Ranks(np.array([1, 7, 6]), np.array([3, 0]))
    said = loss_of_recall(exact, found, 5)
    assert said["k"] == 5
    assert said["i2t"]["R@5"] == pytest.approx(33.3333, abs=1e-3)
    assert said["lost"]["i2t"] == {"R@1": 0, "R@5": pytest.approx(33.3333, abs=1e-3), "R@10": 0}
    assert said["lost"]["t2i"]["R@1"] == 100


def test_a_global_model_has_nothing_to_preselect():
    with pytest.raises(UsageError, match="this checkpoint's are of vectors"):
        refuse_exact(tiny("global"))
    refuse_exact(tiny("reduced"))


@pytest.mark.parametrize("kind", ["tokenwise", "reduced"])
def test_all_candidates_are_no_preselection(kind):
    pool = Retrieval(tiny(kind), table(), NONE)
    query = Query("红色")
    whole = search(pool, query, 3)
    assert search(pool, query, 3, preselect=6) == [
        {**one, "score": pytest.approx(one["score"], abs=2e-6)} for one in whole
    ]
    assert len(search(pool, query, 3, preselect=2)) == 2
    pool.metrics(bootstrap=0)
    assert set(pool.preselected(6)["lost"]["i2t"].values()) == {0.0}


def test_percentages_are_a_softmax_over_all_texts():
    model = tiny("tokenwise")
    pool = Retrieval(model, table(), NONE)
    found = text_odds(pool, square("red"), 4)
    scores = pool.similarity(pool.images.rows([0]), pool.texts).i2t[0].double()
    shares = 100 * (model.scale().detach() * scores).softmax(0)
    order = sorted(range(len(COLOURS)), key=lambda j: -float(scores[j]))[:4]
    assert [one["text"] for one in found] == [pool.gallery.texts[j] for j in order]
    assert [one["percent"] for one in found] == pytest.approx([float(shares[j]) for j in order], abs=1e-3)
    assert [one["right"] for one in found] == [one["text"] == "红色" for one in found]
    assert "right" not in text_odds(pool, square("orange"), 1)[0]


@pytest.fixture
def place(tmp_path, monkeypatch):
    from vlcli.models.checkpoint import save_checkpoint

    for kind in ("global", "tokenwise"):
        save_checkpoint(tiny(kind), tmp_path / kind, recipe={}, lineage={})
    rows = []
    for i, (name, colour) in enumerate(COLOURS.items()):
        (tmp_path / f"{i}.png").write_bytes(square(colour))
        rows.append(json.dumps({"id": f"square/{i}", "image": f"{i}.png", "text": name}) + "\n")
    (tmp_path / "val.jsonl").write_text("".join(rows), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments):
    from typer.testing import CliRunner

    from vlcli.cli import app

    result = CliRunner().invoke(app, [*arguments, "--device", "cpu"])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.mark.parametrize("kind", ["global", "tokenwise"])
def test_an_index_is_searched_without_its_pictures(kind, place):
    run("embed", kind, "val.jsonl", "-o", "index", "--dtype", "float32")
    pairs = run("retrieve", kind, "--data", "val.jsonl", "--query-image", "1.png", "--top", "3")
    found = run("retrieve", kind, "--index", "index", "--query-image", "1.png", "--top", "3")
    ids = [[json.loads(line)["id"] for line in lines.splitlines()] for lines in (pairs, found)]
    assert ids[0] == ids[1]
    for picture in place.glob("*.png"):
        picture.unlink()
    assert len(run("retrieve", kind, "--index", "index", "--query", "红色").splitlines()) == 6
    if kind == "tokenwise":
        with pytest.raises(InputError, match="No such file"):
            run("retrieve", kind, "--index", "index", "--query", "红色", "--preselect", "2")


def test_an_index_with_preselection_is_the_exact_search(place):
    run("embed", "tokenwise", "val.jsonl", "-o", "index", "--dtype", "float32")
    whole = run("retrieve", "tokenwise", "--data", "val.jsonl", "--query", "红色", "--top", "2")
    found = run(
        "retrieve", "tokenwise", "--index", "index", "--query", "红色", "--top", "2", "--preselect", "6"
    )
    for one, other in zip(whole.splitlines(), found.splitlines(), strict=True):
        assert json.loads(one)["id"] == json.loads(other)["id"]
        assert json.loads(one)["score"] == pytest.approx(json.loads(other)["score"], abs=2e-6)


def test_what_preselection_costs_is_shown(place):
    shown = run("retrieve", "tokenwise", "--data", "val.jsonl", "--preselect", "2", "--bootstrap", "0")
    assert "of the 2 nearest by vector" in shown
    said = json.loads(run("retrieve", "tokenwise", "--data", "val.jsonl", "--preselect", "2", "--json"))
    assert said["preselect"]["k"] == 2
    assert said["preselect"]["lost"]["MR"] == pytest.approx(said["MR"] - said["preselect"]["MR"], abs=1e-3)
    odds = run(
        "retrieve", "tokenwise", "--data", "val.jsonl", "--query-image", "1.png", "--best-texts", "--top", "2"
    )
    assert [json.loads(line)["rank"] for line in odds.splitlines()] == [1, 2]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--index", "index"), "there is no query"),
        (("--index", "index", "--query", "红", "--data", "val.jsonl"), "does not go with --data"),
        (("--query", "红"), "no pairs"),
        (("--data", "val.jsonl", "--query", "红", "--best-texts"), "for a picture alone"),
        (("--data", "val.jsonl", "--best-texts"), "ranks the texts of --data"),
        (("--data", "val.jsonl", "--query-image", "1.png", "--preselect", "3"), "is of a text's similarity"),
        (("--data", "val.jsonl", "--rerank", "3", "--preselect", "3"), "does not go with --rerank"),
    ],
)
def test_what_makes_no_sense_is_refused(options, message, place):
    with pytest.raises(UsageError, match=message):
        run("retrieve", "tokenwise", *options)
