"""The teacher's loss against a literal loop, and its gradient in float64."""

import pytest
import torch

from vlcli.objectives.teacher import teacher_loss


def literal(student, teacher):
    """AltCLIP §3.1: the mean of squared differences, number by number."""
    total, count = 0.0, 0
    for said, wanted in zip(student.tolist(), teacher.tolist(), strict=True):
        for a, b in zip(said, wanted, strict=True):
            total += (a - b) ** 2
            count += 1
    return total / count


@pytest.mark.parametrize("shape", [(1, 1), (3, 7), (32, 48)])
def test_equal_to_the_literal_mean(shape):
    student, teacher = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
    found = teacher_loss(student, teacher)
    assert set(found) == {"mse_loss"}
    assert found["mse_loss"].item() == pytest.approx(literal(student, teacher), rel=1e-5)
    assert teacher_loss(teacher, teacher)["mse_loss"].item() == 0


def test_gradient_by_differences():
    generator = torch.Generator().manual_seed(1)
    student = torch.randn(4, 5, generator=generator, requires_grad=True)
    teacher = torch.randn(4, 5, generator=generator)
    teacher_loss(student, teacher)["mse_loss"].backward()
    for i, j in ((0, 0), (3, 4), (2, 1)):
        moved = student.detach().double().clone()
        moved[i, j] += 1e-4
        up = literal(moved, teacher)
        moved[i, j] -= 2e-4
        assert student.grad[i, j].item() == pytest.approx((up - literal(moved, teacher)) / 2e-4, abs=1e-6)


def test_neither_side_is_normalised_and_half_precision_is_summed_in_single():
    ones = torch.ones(2, 3, dtype=torch.bfloat16)
    loss = teacher_loss(3 * ones, ones)["mse_loss"]
    assert loss.dtype == torch.float32
    assert loss.item() == 4
