"""Hard negatives and the losses of R2D2 against loops, at their limits, and their gradients in float64."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vlcli.objectives.feature_distillation import feature_distillation_loss
from vlcli.objectives.masked_language import masked_language_loss, masked_places
from vlcli.objectives.matching import hard_negatives, matching_loss


def numbers(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@given(st.integers(1, 6), st.integers(1, 7), st.integers(0, 10_000))
@settings(max_examples=60, deadline=None)
def test_the_hardest_negative_is_the_highest_that_is_none_of_the_positives(n, columns, seed):
    logits = numbers(n, columns, seed=seed)
    positives = numbers(n, columns, seed=seed + 1) > 0
    chosen, found = hard_negatives(logits, positives)
    for i in range(n):
        wrong = [j for j in range(columns) if not positives[i, j]]
        assert bool(found[i]) == bool(wrong)
        assert int(chosen[i]) == (max(wrong, key=lambda j: float(logits[i, j])) if wrong else 0)


@given(st.integers(1, 5), st.integers(1, 7), st.integers(0, 10_000))
@settings(max_examples=60, deadline=None)
def test_a_drawn_negative_is_where_the_draw_falls_in_the_sums_of_the_softmax(n, columns, seed):
    logits = 3 * numbers(n, columns, seed=seed)
    positives = numbers(n, columns, seed=seed + 1) > 0
    draws = torch.rand(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    chosen, found = hard_negatives(logits, positives, draws)
    for i in range(n):
        wrong = [j for j in range(columns) if not positives[i, j]]
        assert bool(found[i]) == bool(wrong)
        if not wrong:
            continue
        weights = [math.exp(float(logits[i, j])) for j in wrong]
        passed, want = 0.0, wrong[-1]
        for j, weight in zip(wrong, weights, strict=True):
            passed += weight / sum(weights)
            if draws[i] < passed:
                want = j
                break
        assert int(chosen[i]) == want


def test_draws_follow_the_softmax_and_never_fall_on_a_positive():
    logits = torch.tensor([[0.0, 9.0, 1.0, 2.0]]).expand(20_000, 4)
    positives = torch.tensor([[False, True, False, False]]).expand(20_000, 4)
    draws = torch.rand(20_000, generator=torch.Generator().manual_seed(0))
    counts = hard_negatives(logits, positives, draws).column.bincount(minlength=4) / 20_000
    want = torch.tensor([0.0, -torch.inf, 1.0, 2.0]).softmax(0)
    torch.testing.assert_close(counts, want, atol=0.02, rtol=0)
    ends = hard_negatives(logits[:2], positives[:2], torch.tensor([0.0, 1 - 1e-12], dtype=torch.float64))
    assert ends.column.tolist() == [0, 3]


@pytest.mark.parametrize("weight", [1.0, 2.0])
def test_the_matching_loss_is_that_of_a_loop_and_leaves_pairs_out(weight):
    text, image = (numbers(6, 2, seed=s).requires_grad_() for s in (1, 2))
    labels = torch.tensor([1, 1, 0, 0, 0, 0])
    counted = torch.tensor([True, True, True, False, True, False])
    value, total = matching_loss(text, image, labels, counted, positive_weight=weight)
    want, count = 0.0, 0.0
    for p in range(6):
        if not counted[p]:
            continue
        w = weight if labels[p] else 1.0
        for logits in (text, image):
            want = want - w * (logits[p, labels[p]] - logits[p].exp().sum().log()) / 2
        count += w
    torch.testing.assert_close(value, want)
    assert float(total) == count
    for ours, theirs in zip(
        *(torch.autograd.grad(x, (text, image), retain_graph=True) for x in (value, want)), strict=True
    ):
        torch.testing.assert_close(ours, theirs)
    assert torch.autograd.gradcheck(
        lambda a, b: matching_loss(a, b, labels, counted, positive_weight=weight).value, (text, image)
    )


def test_pairs_that_do_not_count_do_not_even_when_they_are_not_finite():
    text = torch.tensor([[0.0, 1.0], [torch.nan, 0.0]], requires_grad=True)
    value, _ = matching_loss(text, text, torch.tensor([1, 0]), torch.tensor([True, False]))
    assert torch.isfinite(value)


@given(st.integers(1, 5), st.integers(1, 12), st.floats(0.01, 0.99), st.integers(0, 10_000))
@settings(max_examples=80, deadline=None)
def test_the_share_of_the_words_is_masked_one_at_least_and_only_words(n, length, share, seed):
    maskable = numbers(n, length, seed=seed) > 0
    scores = numbers(n, length, seed=seed + 1)
    places = masked_places(maskable, scores, share)
    assert not (places & ~maskable).any()
    for i in range(n):
        words = int(maskable[i].sum())
        want = max(1, math.floor(share * words + 0.5)) if words else 0
        assert int(places[i].sum()) == want
        if 0 < want < words:
            assert scores[i][places[i]].min() >= scores[i][maskable[i] & ~places[i]].max()


def test_masking_does_not_depend_on_the_padding_behind_a_text():
    maskable, scores = torch.ones(2, 9).bool(), numbers(2, 12)
    wider = torch.cat([maskable, torch.zeros(2, 3).bool()], 1)
    assert torch.equal(masked_places(maskable, scores[:, :9], 0.3), masked_places(wider, scores, 0.3)[:, :9])


def test_the_loss_of_masked_words_is_that_of_a_loop():
    logits, words = numbers(4, 7).requires_grad_(), torch.tensor([3, 0, 6, 3])
    value, count = masked_language_loss(logits, words)
    want = sum(-(logits[m, words[m]] - logits[m].exp().sum().log()) for m in range(4))
    torch.testing.assert_close(value, want)
    assert count == 4
    assert torch.autograd.gradcheck(lambda x: masked_language_loss(x, words).value, (logits,))


def test_no_masked_word_is_no_loss_and_no_nan():
    logits = torch.zeros(0, 7, requires_grad=True)
    value, count = masked_language_loss(logits, torch.zeros(0, dtype=torch.long))
    value.backward()
    assert (value.item(), count.item()) == (0.0, 0.0)


def test_feature_distillation_is_that_of_a_loop():
    student, teacher, centre = numbers(3, 5).requires_grad_(), numbers(3, 5, seed=1), numbers(5, seed=2)
    value = feature_distillation_loss(
        student, teacher, centre, student_temperature=0.7, teacher_temperature=0.3
    )
    want = 0.0
    for i in range(3):
        targets = [math.exp(float(teacher[i, k] - centre[k]) / 0.3) for k in range(5)]
        guesses = (student[i] / 0.7).exp()
        for k in range(5):
            want = want - targets[k] / sum(targets) * (guesses[k] / guesses.sum()).log() / 3
    torch.testing.assert_close(value, want)
    assert torch.autograd.gradcheck(lambda x: feature_distillation_loss(x, teacher, centre), (student,))
    teacher.requires_grad_()
    assert torch.autograd.grad(
        feature_distillation_loss(student, teacher, centre), teacher, allow_unused=True
    ) == (None,)
