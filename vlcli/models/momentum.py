"""The momentum copy of a dual encoder's towers and projections, which teaches (R2D2 §3.2)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from vlcli.models.dual import DualEncoder
from vlcli.models.image_tower import ImageFeatures
from vlcli.objectives.momentum import follow_


class Lesson(NamedTuple):
    """What the teacher says of images and texts that it sees whole: (n, d) each, not normalised, without gradient."""

    image: Tensor
    text: Tensor


class MomentumTeacher:
    """`teacher(features, ids, mask, pixels)` → `Lesson`, in evaluation mode. A locked image tower is the student's own.

    `follow(momentum)` is for after each step of the student's optimizer.
    """

    def __init__(self, student: DualEncoder) -> None:
        config = student.config.model_copy(update={"ranking": None, "patch_mask": False, "train": ()})
        self.student, self.model = student, DualEncoder(config, student.tokenizer).to(student.device)
        own = self.model.state_dict()
        self.model.load_state_dict({name: x for name, x in student.state_dict().items() if name in own})
        if student.image_locked:
            self.model.image = student.image
        self.model.requires_grad_(False).eval()
        theirs = dict(student.named_parameters())
        learned = [name for name, _ in self.model.named_parameters() if theirs[name].requires_grad]
        self._followers = {name: self.model.get_parameter(name) for name in learned}
        self._leaders = [theirs[name] for name in learned]
        # running statistics, which no gradient moves
        shared = "image." if student.image_locked else None
        self._buffers = {
            name: x for name, x in self.model.named_buffers() if shared is None or not name.startswith(shared)
        }

    @torch.no_grad()
    def __call__(
        self, features: ImageFeatures, ids: Tensor, mask: Tensor, pixels: Tensor | None = None
    ) -> Lesson:
        """`features` are the student's tower's, and serve where the tower is locked."""
        if not self.student.image_locked:
            assert pixels is not None
            features = self.model.image_features(pixels, pooled_only=True)
        hidden = self.model.text_states(ids, mask)
        return Lesson(self.model.image_vector(features), self.model.text_vector(hidden, ids, mask))

    @torch.no_grad()
    def follow(self, momentum: float) -> None:
        follow_(list(self._followers.values()), self._leaders, momentum)
        theirs = dict(self.student.named_buffers())
        for name, buffer in self._buffers.items():
            buffer.copy_(theirs[name])

    def state_dict(self) -> dict[str, Tensor]:
        return {name: x.detach() for name, x in (*self._followers.items(), *self._buffers.items())}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        own = self.state_dict()
        assert own.keys() == state.keys()
        for name, tensor in own.items():
            tensor.copy_(state[name])
