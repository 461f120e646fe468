"""InfoNCE against open_clip's loss, and several positives against a loop."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from vlcli.objectives.contrastive import (
    collisions,
    contrastive_loss,
    kept_negatives,
    positive_targets,
    soft_cross_entropy,
    total_loss,
)
from vlcli.objectives.late_interaction import Similarity, global_similarity


def test_one_positive_equals_open_clip():
    from open_clip.loss import ClipLoss

    g = torch.Generator().manual_seed(0)
    image = F.normalize(torch.randn(6, 8, generator=g), dim=1).requires_grad_()
    text = F.normalize(torch.randn(6, 8, generator=g), dim=1).requires_grad_()
    scale = torch.tensor(14.3, requires_grad=True)
    similarity = global_similarity(image, text)
    parts = contrastive_loss(similarity, similarity, scale, torch.eye(6).bool(), torch.eye(6).bool())
    parts["contrastive_loss"].backward()
    ours = [parts["contrastive_loss"].detach(), image.grad.clone(), text.grad.clone(), scale.grad.clone()]
    image.grad = text.grad = scale.grad = None
    theirs = ClipLoss()(image, text, scale)
    theirs.backward()
    for mine, other in zip(ours, [theirs.detach(), image.grad, text.grad, scale.grad], strict=True):
        torch.testing.assert_close(mine, other)


def test_several_positives_by_hand():
    """FILIP App. A.2: p = 1/#positives on positives."""
    logits = torch.tensor([[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]])
    positives = torch.tensor([[True, True, False], [False, False, True]])
    rows = []
    for row, mask in zip(logits.tolist(), positives.tolist(), strict=True):
        total = sum(math.exp(x) for x in row)
        wanted = [-math.log(math.exp(x) / total) for x, p in zip(row, mask, strict=True) if p]
        rows.append(sum(wanted) / len(wanted))
    torch.testing.assert_close(soft_cross_entropy(logits, positives), torch.tensor(sum(rows) / 2))


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_label_smoothing_equals_torch(smoothing):
    g = torch.Generator().manual_seed(0)
    logits = torch.randn(5, 5, generator=g, dtype=torch.float64).requires_grad_()
    ours = soft_cross_entropy(logits, torch.eye(5).bool(), smoothing)
    theirs = torch.nn.CrossEntropyLoss(label_smoothing=smoothing)(logits, torch.arange(5))
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=0)
    torch.testing.assert_close(
        *(torch.autograd.grad(loss, logits)[0] for loss in (ours, theirs)), rtol=1e-10, atol=1e-15
    )


@pytest.mark.parametrize(("reduction", "factor"), [("mean", 1.0), ("sum", 2.0)])
def test_align_sums_where_wukong_averages(reduction, factor):
    scores = torch.randn(4, 4, generator=torch.Generator().manual_seed(0))
    similarity = global_similarity(scores, torch.eye(4))
    eye = torch.eye(4).bool()
    parts = contrastive_loss(similarity, similarity, torch.tensor(1.0), eye, eye, reduction=reduction)
    torch.testing.assert_close(parts["contrastive_loss"], factor * (parts["i2t"] + parts["t2i"]) / 2)


def test_equal_captions_images_or_groups_are_no_negatives():
    image = torch.tensor([0, 1, 2, 2])
    text = torch.tensor([0, 1, 0, 3])
    group = torch.tensor([-1, 5, -1, 5])
    got = positive_targets((image, image), (text, text), (group, group))
    want = torch.eye(4).bool()
    for i, j in ((0, 2), (1, 3), (2, 3)):
        want[i, j] = want[j, i] = True
    assert torch.equal(got, want)


def test_every_loss_key_is_summed_with_its_weight():
    parts = {"a_loss": torch.tensor(1.0), "b_loss": torch.tensor(2.0), "a": torch.tensor(100.0)}
    assert total_loss(parts, {"b_loss": 0.5}).item() == 2.0


def literal_loss(i2t, t2i, positives, scale, smoothing, reduction, kept=None):
    """ALIGN Eq 1-2 with soft targets, one query at a time. Rows are images in all three matrices; `kept` gives for
    each image its texts and for each text its images."""
    n = len(i2t)

    def one(scores, right, columns):
        total = sum((scale * scores[c]).exp() for c in columns)
        loss = 0.0
        for c in columns:
            p = (1 / sum(right) if right[c] else 0.0) * (1 - smoothing) + smoothing / len(columns)
            loss = loss - p * (scale * scores[c] - total.log())
        return loss

    everything = [list(range(n))] * n
    of_images, of_texts = kept or (everything, everything)
    images = sum(one(i2t[i], positives[i].tolist(), of_images[i]) for i in range(n)) / n
    texts = sum(one(t2i[:, j], positives[:, j].tolist(), of_texts[j]) for j in range(n)) / n
    return images + texts if reduction == "sum" else (images + texts) / 2


def seven():
    """Two directions that differ (late interaction), a caption twice, an image twice, a group of three."""
    g = torch.Generator().manual_seed(5)
    i2t, t2i = (torch.rand(7, 7, generator=g, dtype=torch.float64) * 2 - 1 for _ in range(2))
    image, text = torch.tensor([0, 1, 2, 3, 3, 5, 6]), torch.tensor([0, 1, 0, 3, 4, 5, 6])
    group = torch.tensor([-1, 4, -1, 4, -1, -1, 4])
    positives = positive_targets((image, image), (text, text), (group, group))
    assert positives.sum() == 7 + 2 + 2 + 6
    scale = torch.tensor(14.3, dtype=torch.float64)
    return [x.requires_grad_() for x in (i2t, t2i, scale)], positives


@pytest.mark.parametrize("share", [1.0, 0.5, 0.25])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_the_whole_objective_and_its_gradients_equal_a_loop(reduction, smoothing, share):
    wrt, positives = seven()
    i2t, t2i, scale = wrt
    seats = torch.tensor([3, 0, 6, 2, 5, 1, 4])
    kept = [chosen(positives[i].tolist(), i, seats.argsort().tolist(), share) for i in range(7)]
    how = {"reduction": reduction, "smoothing": smoothing}
    masks = {}
    if share < 1:
        mask = kept_negatives(positives, 0, seats, share)
        masks = {"row_kept": mask, "column_kept": mask.T}
    similarity = Similarity(i2t, t2i)
    ours = contrastive_loss(similarity, similarity, scale, positives, positives, **masks, **how)
    ours = ours["contrastive_loss"]
    want = literal_loss(i2t, t2i, positives, scale, **how, kept=(kept, kept))
    torch.testing.assert_close(ours, want, rtol=1e-12, atol=0)
    torch.testing.assert_close(
        torch.autograd.grad(ours, wrt), torch.autograd.grad(want, wrt), rtol=1e-9, atol=1e-14
    )


@pytest.mark.parametrize("share", [1.0, 0.4])
def test_the_gradient_in_float64(share):
    inputs, positives = seven()
    kept = kept_negatives(positives, 0, torch.arange(7), share)

    def loss(i2t, t2i, scale):
        similarity = Similarity(i2t, t2i)
        return contrastive_loss(
            similarity,
            similarity,
            scale,
            positives,
            positives,
            row_kept=kept,
            column_kept=kept.T,
            smoothing=0.1,
        )["contrastive_loss"]

    assert torch.autograd.gradcheck(loss, inputs)


def chosen(positives, pair, circle, share):
    """The columns of a pair's softmax: its positives, and walking on from its seat the first negatives."""
    N = len(circle)
    wanted = math.ceil(share * positives.count(False))
    kept = [c for c in range(N) if positives[c]]
    start = circle.index(pair)
    for step in range(1, N):
        column = circle[(start + step) % N]
        if wanted and not positives[column]:
            kept.append(column)
            wanted -= 1
    return sorted(kept)


@pytest.mark.parametrize("share", [0.25, 0.5, 0.7, 1.0])
def test_a_share_of_the_negatives_by_walking_round_the_circle(share):
    _, positives = seven()
    seats = torch.tensor([3, 0, 6, 2, 5, 1, 4])
    got = kept_negatives(positives, 0, seats, share)
    want = [chosen(positives[i].tolist(), i, seats.argsort().tolist(), share) for i in range(7)]
    assert [row.nonzero().flatten().tolist() for row in got] == want
    halves = [
        kept_negatives(positives[rows], rows.start, seats, share) for rows in (slice(0, 4), slice(4, 7))
    ]
    assert torch.equal(torch.cat(halves), got), "whoever computes a row"


def test_every_negative_has_the_same_chance_and_every_pair_as_many_rows():
    N, rounds = 9, 4000
    positives = torch.eye(N).bool()
    g = torch.Generator().manual_seed(0)
    seen = torch.zeros(N, N)
    for _ in range(rounds):
        kept = kept_negatives(positives, 0, torch.randperm(N, generator=g), 0.25)
        assert kept.sum(0).tolist() == kept.sum(1).tolist() == [3] * N, "itself and two of eight"
        seen += kept
    apart = (seen - rounds * (0.25 + 0.75 * torch.eye(N))).abs()
    assert apart.max() < 5 * math.sqrt(rounds * 0.25 * 0.75)


def test_rows_without_negatives_lose_nothing():
    everything = torch.ones(3, 3).bool()
    assert kept_negatives(everything, 0, torch.arange(3), 0.25).all()


def test_positives_make_the_loss_least_when_they_share_the_weight():
    """With two positives the loss is least, log 2, where both score alike and far above the rest; a caption that
    stands twice must not push its copy away."""
    positives = torch.tensor([[True, True, False, False]])
    alike = soft_cross_entropy(torch.tensor([[50.0, 50.0, 0.0, 0.0]]), positives)
    one = soft_cross_entropy(torch.tensor([[50.0, 40.0, 0.0, 0.0]]), positives)
    assert alike.item() == pytest.approx(math.log(2), abs=1e-6)
    assert one > alike + 4
    logits = torch.full((1, 4), 3.0, requires_grad=True)
    soft_cross_entropy(logits, positives).backward()
    torch.testing.assert_close(logits.grad, torch.tensor([[-0.25, -0.25, 0.25, 0.25]]))


def test_an_identity_that_is_unknown_matches_nothing():
    none = torch.full((3,), -1)
    eye = torch.arange(3)
    assert torch.equal(positive_targets((eye, eye), (none, none)), torch.eye(3).bool())
    assert not positive_targets((none, none)).any()


@given(st.lists(st.tuples(*[st.integers(-1, 3)] * 3), min_size=4, max_size=12))
def test_collisions_are_the_positives_off_the_diagonal(rows):
    codes = torch.tensor(rows).T.contiguous()  # (3, N)
    positives = positive_targets(*zip(codes, codes, strict=True))
    assert collisions(codes) == int(positives.sum() - positives.diagonal().sum())


def test_a_batch_of_different_pairs_has_no_collision_and_one_of_equal_pairs_all():
    assert collisions(torch.arange(300).expand(3, 300)) == 0
    assert collisions(torch.zeros(1, 300, dtype=torch.long)) == 300 * 299
    assert collisions(torch.full((3, 300), -1)) == 0
