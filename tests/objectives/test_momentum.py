"""The queue against a list, the targets against a loop, the moving average against its formula."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vlcli.objectives.contrastive import soft_cross_entropy
from vlcli.objectives.momentum import Queue, follow_, target_distillation_loss

CPU = torch.device("cpu")


def numbers(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@given(st.integers(1, 7), st.lists(st.integers(1, 9), min_size=1, max_size=6))
@settings(max_examples=60, deadline=None)
def test_the_queue_keeps_the_newest_and_each_iteration_makes_them_weigh_less(size, batches):
    queue = Queue(size, 1, 1, decay=0.5, device=CPU)
    entries: list[list[float]] = []  # [value, weight], the newest last
    value = 0
    for n in batches:
        new = [float(value + k + 1) for k in range(n)]
        value += n
        features = torch.tensor(new)[:, None]
        queue.push(features, -features, torch.tensor([new]).long())
        entries = [[v, w / 2] for v, w in entries] + [[v, 1.0] for v in new]
        entries = entries[-size:]
        held = [
            (float(queue.images[k, 0]), float(queue.weights[k])) for k in range(size) if bool(queue.filled[k])
        ]
        assert sorted(held) == sorted(map(tuple, entries))
        assert torch.equal(queue.texts, -queue.images)
        assert torch.equal(queue.codes[queue.filled][:, 0], queue.images[queue.filled][:, 0].long())
    again = Queue(size, 1, 1, decay=0.5, device=CPU)
    again.load_state_dict(queue.state_dict())
    for each in (queue, again):
        each.push(torch.ones(2, 1), torch.ones(2, 1), torch.ones(1, 2).long())
    for name, held in queue.state_dict().items():
        assert torch.equal(torch.as_tensor(held), torch.as_tensor(again.state_dict()[name])), name


def test_a_pair_that_is_queued_still_is_no_negative_of_itself():
    queue = Queue(4, 2, 2, decay=0.99, device=CPU)
    queue.push(torch.zeros(3, 2), torch.zeros(3, 2), torch.tensor([[5, 6, 7], [-1, 8, -1]]))
    out = queue.out_of_play(torch.tensor([[5, 9], [-1, 8]]))
    assert out.tolist() == [[True, False, False, True], [False, True, False, True]]


def literal(logits, teacher, positives, excluded, weights, alpha):
    total = 0.0
    n, columns = logits.shape
    for i in range(n):
        open_ = [j for j in range(columns) if not excluded[i, j]]
        right = [j for j in open_ if positives[i, j]]
        below = sum(logits[i, j].exp() for j in open_)
        soft = sum(math.exp(float(teacher[i, j])) for j in open_)
        for j in open_:
            y = 1 / len(right) if j in right else 0.0
            target = alpha * math.exp(float(teacher[i, j])) / soft + (1 - alpha) * y
            total = total - weights[j] * target * (logits[i, j].exp() / below).log()
    return total / n


@pytest.mark.parametrize("alpha", [0.0, 0.4, 1.0])
def test_target_distillation_is_that_of_a_loop(alpha):
    n, batch, queued = 3, 5, 4
    logits, teacher = numbers(n, batch + queued).requires_grad_(), numbers(n, batch + queued, seed=1)
    positives = torch.zeros(n, batch + queued).bool()
    positives[[0, 1, 2, 2], [0, 1, 2, 4]] = True  # the last row has two
    excluded = torch.zeros_like(positives)
    excluded[:, -1] = excluded[1, -2] = True
    weights = torch.tensor([1.0] * batch + [0.99, 0.98, 0.97, 0.0], dtype=torch.float64)
    arguments = (teacher, positives, excluded, weights)
    value = target_distillation_loss(logits, *arguments, alpha=alpha)
    want = literal(logits, *arguments, alpha)
    torch.testing.assert_close(value, want)
    grads = [torch.autograd.grad(x, logits)[0] for x in (value, want)]
    torch.testing.assert_close(*grads)
    assert torch.autograd.gradcheck(
        lambda x: target_distillation_loss(x, *arguments, alpha=alpha), (logits.detach().requires_grad_(),)
    )


def test_without_queue_and_teacher_it_is_the_contrastive_loss():
    logits, positives = numbers(4, 4), torch.eye(4).bool()
    value = target_distillation_loss(
        logits, numbers(4, 4, seed=1), positives, ~positives & False, torch.ones(4), alpha=0.0
    )
    torch.testing.assert_close(value, soft_cross_entropy(logits, positives))


def test_the_teacher_has_no_gradient():
    teacher = numbers(2, 2).requires_grad_()
    value = target_distillation_loss(
        numbers(2, 2).requires_grad_(), teacher, torch.eye(2).bool(), torch.zeros(2, 2).bool(), torch.ones(2)
    )
    assert torch.autograd.grad(value, teacher, allow_unused=True) == (None,)


def test_followers_move_by_what_momentum_leaves():
    old, new = numbers(3), numbers(3, seed=1)
    mine = old.clone()
    follow_([mine], [new], 0.995)
    torch.testing.assert_close(mine, 0.995 * old + 0.005 * new)
