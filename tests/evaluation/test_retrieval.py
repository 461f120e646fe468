import numpy as np
import pytest
import torch
from evaluation_fakes import Features, dot, literal_rank, pooled, two_way

from vlcli.errors import InputError
from vlcli.evaluation import retrieval as module
from vlcli.evaluation.bootstrap import components
from vlcli.evaluation.retrieval import ranks, retrieval, tile_side


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


def test_tiles_keep_the_token_products_bounded():
    tokens = Features(torch.zeros(2, 196, 4), None)
    words = Features(torch.zeros(2, 32, 4), None)
    side = tile_side(tokens, words)
    assert side * side * 196 * 32 <= module.TILE_PRODUCTS < (side + 1) ** 2 * 196 * 32
    seen = []

    def spy(image, text):
        seen.append(len(image.pooled) * len(text.pooled))
        return dot(image, text)

    ranks(spy, pooled(np.eye(30)), pooled(np.eye(30)), [{i} for i in range(30)], side=8)
    assert max(seen) == 64
    assert len(seen) == 4 + 16  # the first pass visits the diagonal only


def test_components_draw_together_what_hangs_together():
    # images 0, 1 share text 0; image 2 has texts 1, 2
    assert components(3, 3, [(0, 0), (1, 0), (2, 1), (2, 2)]).tolist() == [0, 0, 1, 0, 1, 1]


def test_intervals_repeat_with_the_seed_and_bracket_the_estimate():
    rng = np.random.default_rng(1)
    base = rng.normal(size=(200, 16))
    images, texts = pooled(base + rng.normal(size=base.shape)), pooled(base)
    positives = [{i} for i in range(200)]
    one, same = (retrieval(dot, images, texts, positives, bootstrap=200, seed=3) for _ in range(2))
    other = retrieval(dot, images, texts, positives, bootstrap=200, seed=4)
    assert one == same
    assert one["ci95"] != other["ci95"]
    for side in ("i2t", "t2i"):
        for name, value in one[side].items():
            low, high = one["ci95"][side][name]
            assert 0 <= low <= value <= high <= 100
    low, high = one["ci95"]["MR"]
    assert low < one["MR"] < high


def test_the_interval_of_a_share_is_that_of_the_binomial():
    # 400 independent queries of which half are found: the standard error is 2.5 points.
    hit = np.arange(400) % 2 == 0
    found = module.Ranks(np.where(hit, 1, 99), np.where(hit, 1, 99))
    low, high = module.recall_interval(found, [{i} for i in range(400)], count=1000, seed=0)["i2t"]["R@1"]
    assert (low, high) == (pytest.approx(50 - 4.9, abs=0.8), pytest.approx(50 + 4.9, abs=0.8))


def test_captions_of_one_image_are_resampled_together():
    # Five captions an image, all found or none: the interval is that of 80 images, not of 400 captions.
    owner = np.arange(400) // 5
    found = module.Ranks(np.where(np.arange(80) % 2 == 0, 1, 99), np.where(owner % 2 == 0, 1, 99))
    positives = [set(range(5 * i, 5 * i + 5)) for i in range(80)]
    low, high = module.recall_interval(found, positives, count=1000, seed=0)["t2i"]["R@1"]
    assert high - low == pytest.approx(2 * 1.96 * 100 * 0.5 / 80**0.5, rel=0.12)


def test_one_unit_has_no_interval():
    assert retrieval(dot, pooled([[1.0]]), pooled([[1.0]]), [{0}])["ci95"] == {}
