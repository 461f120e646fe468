import numpy as np
import pytest
import torch
from evaluation_fakes import Features, dot, literal_rank, literal_recall, pooled, shaky, tokenwise, two_way

from vlcli.errors import InputError
from vlcli.evaluation import retrieval as module
from vlcli.evaluation.retrieval import ranks, retrieval, tile_pairs, tile_shape


def several_positives(rng, images, texts):
    """Every image has one to four texts, and some texts several images."""
    draw = lambda: rng.choice(texts, size=rng.integers(1, 5), replace=False)  # noqa: E731
    positives = [set(draw().tolist()) for _ in range(images)]
    for j in range(texts):
        positives[int(rng.integers(images))].add(j)
    return positives


@pytest.mark.parametrize("side", [1, 3, 7, 64])
@pytest.mark.parametrize("levels", [None, 3])
def test_ranks_equal_a_literal_walk_down_the_sorted_list(side, levels):
    rng = np.random.default_rng(side)
    a, b = rng.normal(size=(23, 8)), rng.normal(size=(31, 8))
    if levels:  # few distinct whole-number scores: ties everywhere
        a, b = rng.integers(-1, 2, (23, 4)), rng.integers(-1, 2, (31, 4))
    positives = several_positives(rng, 23, 31)
    found = ranks(two_way, pooled(a), pooled(b), positives, side=side)
    score = two_way(pooled(a), pooled(b))
    owners = [{i for i in range(23) if j in positives[i]} for j in range(31)]
    assert found.i2t.tolist() == [literal_rank(score.i2t[i], positives[i]) for i in range(23)]
    assert found.t2i.tolist() == [literal_rank(score.t2i[:, j], owners[j]) for j in range(31)]


def test_without_ties_recall_is_what_torch_topk_says():
    rng = np.random.default_rng(0)
    images, texts = pooled(rng.normal(size=(40, 6))), pooled(rng.normal(size=(50, 6)))
    positives = several_positives(rng, 40, 50)
    result = retrieval(dot, images, texts, positives, bootstrap=0, side=9)
    score = dot(images, texts).i2t
    for k in (1, 5, 10):
        texts_of = score.topk(k, dim=1).indices.tolist()
        images_of = score.topk(k, dim=0).indices.T.tolist()
        i2t = [bool(positives[i] & set(row)) for i, row in enumerate(texts_of)]
        t2i = [any(j in positives[i] for i in row) for j, row in enumerate(images_of)]
        assert result["i2t"][f"R@{k}"] == pytest.approx(100 * np.mean(i2t), abs=1e-3)
        assert result["t2i"][f"R@{k}"] == pytest.approx(100 * np.mean(t2i), abs=1e-3)
    six = [*result["i2t"].values(), *result["t2i"].values()]
    assert result["MR"] == pytest.approx(sum(six) / 6, abs=1e-3)
    assert (result["images"], result["texts"], result["ci95"]) == (40, 50, {})


def test_without_ties_recall_and_rank_are_torchmetrics():
    """Its hit rate is our recall ("any positive in the top K"); its reciprocal rank is that of our rank.

    Its `RetrievalRecall`, the share of a query's positives in the top K, is another number. It takes positives
    with a score of 0 or less for wrong, so the scores are shifted.
    """
    from torchmetrics.retrieval import RetrievalHitRate, RetrievalMRR

    rng = np.random.default_rng(3)
    images, texts = pooled(rng.normal(size=(40, 6))), pooled(rng.normal(size=(50, 6)))
    positives = several_positives(rng, 40, 50)
    score = dot(images, texts).i2t
    target = torch.zeros(40, 50, dtype=torch.bool)
    for i, shown in enumerate(positives):
        target[i, list(shown)] = True
    result = retrieval(dot, images, texts, positives, bootstrap=0)
    found = ranks(dot, images, texts, positives)
    for name, scores, right, rank in (
        ("i2t", score, target, found.i2t),
        ("t2i", score.T, target.T, found.t2i),
    ):
        query = torch.arange(len(scores))[:, None].expand_as(scores).flatten()
        flat = ((scores - scores.min() + 1).flatten(), right.flatten())
        for k in (1, 5, 10):
            want = RetrievalHitRate(top_k=k)(*flat, indexes=query).item()
            assert result[name][f"R@{k}"] == pytest.approx(100 * want, abs=1e-3)
        assert (1 / rank).mean() == pytest.approx(RetrievalMRR()(*flat, indexes=query).item(), abs=1e-6)


# One image against texts; scores, positives, rank, (R@1, R@5, R@10).
HAND = {
    "the only one there is": ([0.3], {0}, 1, (100, 100, 100)),
    "first": ([0.9, 0.5, 0.1], {0}, 1, (100, 100, 100)),
    "last of three: the pool is smaller than K": ([0.1, 0.5, 0.9], {0}, 3, (0, 100, 100)),
    "the better of two positives counts": ([0.2, 0.9, 0.8, 0.7], {0, 2}, 2, (0, 100, 100)),
    "positives are not in each other's way": ([0.9, 0.8, 0.7, 0.6], {1, 2, 0}, 1, (100, 100, 100)),
    "a positive ties with a wrong one: wrong first": ([0.5, 0.5], {0}, 2, (0, 100, 100)),
    "wherever it stands": ([0.5, 0.5], {1}, 2, (0, 100, 100)),
    "two positives tie": ([0.5, 0.5, 0.1], {0, 1}, 1, (100, 100, 100)),
    "two positives tie with a wrong one": ([0.5, 0.5, 0.5], {0, 1}, 2, (0, 100, 100)),
    "the better one ties, the worse does not help": ([0.5, 0.5, 0.4], {0, 2}, 2, (0, 100, 100)),
    "the only positive ties with nine": ([0.5] * 10, {4}, 10, (0, 0, 100)),
    "the only positive ties with ten": ([0.5] * 11, {4}, 11, (0, 0, 0)),
    "five are better": ([0.9, 0.8, 0.7, 0.6, 0.5, 0.4], {5}, 6, (0, 0, 100)),
    "negative scores": ([-0.9, -0.2, -0.3], {2}, 2, (0, 100, 100)),
    "closer than TIE": ([0.5, 0.5 - 4e-7], {0}, 2, (0, 100, 100)),
    "further than TIE": ([0.5, 0.5 - 4e-6], {0}, 1, (100, 100, 100)),
}


@pytest.mark.parametrize("case", HAND)
def test_cases_written_out(case):
    scores, positives, rank, recall = HAND[case]
    image, texts = pooled([[1.0]]), pooled([[s] for s in scores])
    found = ranks(dot, image, texts, [positives])
    assert found.i2t.tolist() == [rank]
    # A text without an image is no query; with a single image every other text finds it first.
    assert found.t2i.tolist() == [int(j in positives) for j in range(len(scores))]
    names = ("R@1", "R@5", "R@10")
    assert retrieval(dot, image, texts, [positives], bootstrap=0)["i2t"] == dict(
        zip(names, recall, strict=True)
    )
    turned = ranks(dot, texts, image, [{0} if j in positives else set() for j in range(len(scores))])
    assert turned.t2i.tolist() == [rank]


@pytest.mark.parametrize("seed", range(20))
def test_recall_equals_a_loop_over_all_pairs(seed):
    """Random sizes down to one, some images and texts without a partner, ties in every other case."""
    rng = np.random.default_rng(seed)
    n, m = (int(rng.integers(1, 30)) for _ in range(2))
    draw = (lambda s: rng.integers(-1, 2, s)) if seed % 2 else (lambda s: rng.normal(size=s))
    images, texts = pooled(draw((n, 4))), pooled(draw((m, 4)))
    positives = [set(np.flatnonzero(rng.random(m) < 2 / m).tolist()) for _ in range(n)]
    positives[0].add(0)
    score = two_way(images, texts)
    owners = [{i for i in range(n) if j in positives[i]} for j in range(m)]
    want = {
        "i2t": literal_recall(score.i2t.tolist(), positives),
        "t2i": literal_recall(score.t2i.T.tolist(), owners),
    }
    result = retrieval(two_way, images, texts, positives, bootstrap=0, side=int(rng.integers(1, 40)))
    for side, values in want.items():
        assert result[side] == pytest.approx(values, abs=1e-3)
    six = [value for values in want.values() for value in values.values()]
    assert result["MR"] == pytest.approx(sum(six) / 6, abs=1e-3)


def copies(kind, seed):
    """61 pictures, three of each in mixed order, and a text for each: the first copy is its positive."""
    g = torch.Generator().manual_seed(seed)
    order = torch.randperm(183, generator=g)
    positives = [{int(o)} if o < 61 else set() for o in order]
    if kind != "tokenwise":
        base = torch.nn.functional.normalize(torch.randn(61, 100, generator=g), dim=1)
        similarity = dot if kind == "global" else shaky
        return similarity, pooled(torch.cat([base] * 3)[order]), pooled(base), positives
    image = torch.nn.functional.normalize(torch.randn(61, 9, 24, generator=g), dim=-1)
    text = torch.nn.functional.normalize(image[:, :7] + 0.1 * torch.randn(61, 7, 24, generator=g), dim=-1)
    return tokenwise, Features(torch.cat([image] * 3)[order], None), Features(text, None), positives


@pytest.mark.parametrize("kind", ["global", "tokenwise", "shaky"])
def test_tiles_change_no_rank_even_of_exact_copies(kind):
    """The last bits of a score depend on the shape of its tile; whether two pictures tie must not.

    How far libraries differ by shape is theirs to say; "shaky" does it always.
    """
    similarity, images, texts, positives = copies(kind, 0)
    whole = ranks(similarity, images, texts, positives, side=1000)
    assert set(whole.t2i) <= set(range(3, 183, 3)), "behind both copies, and behind copies of others"
    assert (whole.t2i == 3).mean() > 0.5
    for side in (7, 13, 45, 182):
        again = ranks(similarity, images, texts, positives, side=side)
        assert again.i2t.tolist() == whole.i2t.tolist(), side
        assert again.t2i.tolist() == whole.t2i.tolist(), side


@pytest.mark.parametrize("kind", ["global", "tokenwise"])
def test_the_order_of_rows_changes_no_number(kind):
    similarity, images, texts, positives = copies(kind, 1)
    whole = retrieval(similarity, images, texts, positives, bootstrap=0)
    g = torch.Generator().manual_seed(2)
    for _ in range(3):
        row, column = torch.randperm(183, generator=g), torch.randperm(61, generator=g)
        place = column.argsort().tolist()
        moved = [{place[j] for j in positives[i]} for i in row.tolist()]
        found = retrieval(similarity, images.rows(row), texts.rows(column), moved, bootstrap=0, side=40)
        assert found == whole


def test_numbers_by_hand():
    # Image 0 finds its text first; image 1 has its best text second; image 2 third.
    images = pooled(np.eye(3))
    texts = pooled([[9, 5, 7], [1, 9, 8], [0, 1, 6]])
    result = retrieval(dot, images, texts, [{0}, {0}, {2}], bootstrap=0)
    assert result["i2t"] == {"R@1": 33.3333, "R@5": 100.0, "R@10": 100.0}
    assert ranks(dot, images, texts, [{0}, {0}, {2}]).i2t.tolist() == [1, 2, 3]


def test_a_model_that_scores_everything_alike_finds_nothing():
    same = pooled(np.ones((20, 3)))
    result = retrieval(dot, same, same, [{i} for i in range(20)], bootstrap=0)
    assert result["MR"] == 0.0


def test_a_row_without_a_positive_is_a_candidate_and_no_query():
    images, texts = pooled([[1, 0], [0, 1], [1, 1]]), pooled([[1, 0.2], [0.1, 1]])
    found = ranks(dot, images, texts, [{0}, {1}, set()])
    assert found.i2t.tolist() == [1, 1, 0]
    assert found.t2i.tolist() == [2, 2]  # image 2 stands ahead for both texts
    assert retrieval(dot, images, texts, [{0}, {1}, set()], bootstrap=0)["i2t"]["R@1"] == 100.0
    with pytest.raises(InputError, match="nothing to retrieve"):
        retrieval(dot, images, texts, [set(), set(), set()])


def test_nan_similarities_are_an_error_and_not_a_perfect_rank():
    bad = pooled([[float("nan"), 1.0], [0.0, 1.0]])
    with pytest.raises(InputError, match="not finite"):
        retrieval(dot, bad, bad, [{0}, {1}])


def test_tiles_keep_the_token_products_bounded(monkeypatch):
    tokens = Features(torch.zeros(2, 196, 4), None)
    words = Features(torch.zeros(2, 32, 4), None)
    for these, pairs in (
        ((tokens, words), module.TILE_PRODUCTS // (196 * 32)),
        ((pooled([[1.0]]),) * 2, 1 << 20),
    ):
        rows, columns = tile_shape(*these)
        assert tile_pairs(*these) == pairs
        assert pairs - rows < rows * columns <= pairs
        assert columns > 4 * rows
    seen = []

    def spy(image, text):
        seen.append(len(image.pooled) * len(text.pooled))
        return dot(image, text)

    ranks(spy, pooled(np.eye(30)), pooled(np.eye(30)), [{i} for i in range(30)], side=8)
    assert max(seen) == 64
    assert len(seen) == 16  # the first pass visits the diagonal only, and what it finds is kept
    monkeypatch.setattr(module, "KEPT_PAIRS", 2 * 64)
    seen.clear()
    ranks(spy, pooled(np.eye(30)), pooled(np.eye(30)), [{i} for i in range(30)], side=8)
    assert len(seen) == 2 + 16  # half of it
