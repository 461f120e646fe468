"""Learning from a teacher: the distance of two states (AltCLIP §3.1)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def teacher_loss(student: Tensor, teacher: Tensor) -> dict[str, Tensor]:
    """`mse_loss`, the mean over texts and dimensions of (student − teacher)², neither of them normalised.

    student and teacher (b, d), the same sentences in another language and in the teacher's; computed in float32.
    """
    assert student.shape == teacher.shape, f"{tuple(student.shape)}, {tuple(teacher.shape)}"
    return {"mse_loss": F.mse_loss(student.float(), teacher.float())}
