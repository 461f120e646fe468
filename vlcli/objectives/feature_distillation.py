"""Feature-guided distillation: who sees part of the input guesses the features of who sees it whole (R2D2 Eq 6–7)."""

from __future__ import annotations

import torch
from torch import Tensor


def feature_distillation_loss(
    student: Tensor,
    teacher: Tensor,
    centre: Tensor,
    *,
    student_temperature: float = 0.1,
    teacher_temperature: float = 0.04,
    count: float | None = None,
) -> Tensor:
    """Mean of −Σ P_t log P_s over rows, P_t = softmax((f_t − μ)/τ_t), P_s = softmax(f_s/τ_s) over the features.

    student and teacher (n, d), not normalised; centre μ (d,), without which the teacher may come to say one thing of
    everything. The teacher has no gradient. `count`, where given, is what the sum over rows is divided by instead of n.
    """
    student = student.to(torch.promote_types(student.dtype, torch.float32))
    target = ((teacher.detach().to(student.dtype) - centre) / teacher_temperature).softmax(1)
    log_p = (student / student_temperature).log_softmax(1)
    return -(target * log_p).sum() / (len(student) if count is None else count)
