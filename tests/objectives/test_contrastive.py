"""InfoNCE against open_clip's loss, and several positives against a loop."""

import math

import pytest
import torch
import torch.nn.functional as F

from vlcli.objectives.contrastive import contrastive_loss, positive_targets, soft_cross_entropy, total_loss
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


def test_label_smoothing_equals_torch():
    logits = torch.randn(5, 5, generator=torch.Generator().manual_seed(0))
    want = F.cross_entropy(logits, torch.arange(5), label_smoothing=0.1)
    torch.testing.assert_close(soft_cross_entropy(logits, torch.eye(5).bool(), 0.1), want)


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


def literal_loss(i2t, t2i, positives, scale, smoothing, reduction):
    """ALIGN Eq 1-2 with soft targets, one query at a time, in Python floats. Rows are images in all three."""
    n = len(i2t)

    def one(scores, right):
        total = sum(math.exp(scale * s) for s in scores)
        loss = 0.0
        for s, is_right in zip(scores, right, strict=True):
            p = (1 / sum(right) if is_right else 0.0) * (1 - smoothing) + smoothing / n
            loss -= p * (scale * s - math.log(total))
        return loss

    images = sum(one(i2t[i], positives[i]) for i in range(n)) / n
    column = lambda m, j: [m[i][j] for i in range(n)]  # noqa: E731
    texts = sum(one(column(t2i, j), column(positives, j)) for j in range(n)) / n
    return images + texts if reduction == "sum" else (images + texts) / 2


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_the_whole_objective_equals_a_loop(reduction, smoothing):
    """Two directions that differ (late interaction), a caption twice, an image twice, a group of three."""
    g = torch.Generator().manual_seed(5)
    i2t, t2i = (torch.rand(7, 7, generator=g, dtype=torch.float64) * 2 - 1 for _ in range(2))
    image, text = torch.tensor([0, 1, 2, 3, 3, 5, 6]), torch.tensor([0, 1, 0, 3, 4, 5, 6])
    group = torch.tensor([-1, 4, -1, 4, -1, -1, 4])
    positives = positive_targets((image, image), (text, text), (group, group))
    assert positives.sum() == 7 + 2 + 2 + 6
    similarity = Similarity(i2t, t2i)
    scale = torch.tensor(14.3, dtype=torch.float64)
    how = {"reduction": reduction, "smoothing": smoothing}
    parts = contrastive_loss(similarity, similarity, scale, positives, positives, **how)
    want = literal_loss(i2t.tolist(), t2i.tolist(), positives.tolist(), 14.3, **how)
    assert parts["contrastive_loss"].item() == pytest.approx(want, rel=1e-6)


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
